"""The exact search against enumeration and the predictors themselves."""

import itertools
import signal

import numpy as np
import pytest
import torch
from helpers import one_hot
from hypothesis import given, settings
from hypothesis import strategies as st

import space
from engine.model import Model
from network import Predictor
from search import exact

NO_MATRIX = torch.zeros(87, 87).double()
PENALTY = 2.0**14  # of each code that a restricted model does not want
SMALLEST = "j" + "331" * 10 + "000000"


def network(seed):
    torch.manual_seed(seed)
    return {name: 2 * value for name, value in Predictor().state_dict().items()}


def matrix(seed):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((87, 87)))


MODELS = {
    "networks": Model(NO_MATRIX, (network(0), network(1)), (1.0, -0.5)),
    "quadratic": Model(matrix(0)),
    "mixed": Model(0.05 * matrix(1), (network(2),), (2.0,)),
    "ties": Model(matrix(5).round().diag().diag()),
}


@torch.no_grad()
def scores(model, architectures):
    """(n,) float64, by the predictors themselves."""
    encodings = torch.from_numpy(np.stack([one_hot(architecture) for architecture in architectures])).double()
    x = encodings.flatten(1)[:, space.FEATURES]
    total = (x @ model.matrix * x).sum(1)
    for state_dict, weight in zip(model.networks, model.weights, strict=True):
        predictor = Predictor().double().eval()
        predictor.load_state_dict(state_dict)
        total += weight * predictor(encodings)
    return total.numpy()


def restrict(name):
    """A model with a penalty for all but 512 architectures, and these, sorted, with their sizes and scores.

    They have 10 or 12 layers. In the first four, heads and MLP ratio are the smallest or the largest; in the others
    the heads are the largest, the MLP ratio is the smallest.
    """
    model, diagonal = MODELS[name], np.zeros(87)
    diagonal[1] = PENALTY
    layers = diagonal[3:].reshape(12, 7)
    layers[:, [1, 4]] = layers[4:, [2, 3]] = PENALTY
    options = np.full((512, 12), 2)
    options[:, :4] = 2 * list(itertools.product([0, 2, 6, 8], repeat=4))
    options[256:, 10:] = space.ABSENT
    names = np.array(sorted(space.strings(options)))
    model = model._replace(matrix=model.matrix + torch.from_numpy(diagonal).diag())
    return model, names, space.measure(names), scores(model, names).round(6)


@pytest.mark.parametrize("block", [14, exact.BLOCK])
@pytest.mark.parametrize("budget", [(), ("max_params",), ("max_macs",), ("max_params", "max_macs")])
@pytest.mark.parametrize("name", MODELS)
def test_the_best_and_the_front_are_those_of_enumeration(monkeypatch, name, budget, block):
    monkeypatch.setattr(exact, "BLOCK", block)
    monkeypatch.setattr(exact, "GROUPS", block)
    model, names, measured, values = restrict(name)
    sizes = {"max_params": measured.parameters, "max_macs": measured.macs}
    limits = {flag: int(np.quantile(sizes[flag], 0.6)) for flag in budget}
    within = np.flatnonzero(np.all([size <= limits.get(flag, np.inf) for flag, size in sizes.items()], 0))
    expected = within[values[within].argsort(kind="stable")][:50]
    found = exact.best(model, 50, **limits)
    assert found.architectures == names[expected].tolist()
    assert found.scores == pytest.approx(values[expected], abs=1e-6)
    assert (found.left, found.gap, found.interrupted, bool(found.over_budget)) == (0, 0, False, bool(budget))
    assert found.bounded + found.over_budget + found.scored == space.NUM_ARCHITECTURES
    expected = []
    for i in within[np.lexsort((values[within], measured.parameters[within]))]:
        if not expected or values[i] < values[expected[-1]]:
            expected.append(i)
    front = exact.pareto(model, **limits)
    wanted = front.scores < PENALTY / 2  # smaller ones with a penalty are on the front, too
    assert front.complete
    assert np.array(front.architectures)[wanted].tolist() == names[expected].tolist()
    assert front.scores[wanted] == pytest.approx(values[expected], abs=1e-6)
    assert front.architectures[0] == SMALLEST
    assert (np.diff(space.measure(front.architectures).parameters) > 0).all()
    assert (np.diff(front.scores) < 0).all()


def test_a_model_without_preferences_and_the_tightest_and_the_loosest_budget():
    first = ["j" + "111" * 10 + "000000", "j" + "111" * 9 + "121000000", "j" + "111" * 9 + "131000000"]
    assert exact.best(Model(NO_MATRIX), 3, max_params=10**30, max_macs=10**30)[:4:3] == (first, 0)
    assert exact.pareto(Model(NO_MATRIX)).architectures == [SMALLEST]
    assert exact.best(MODELS["quadratic"], 9, max_params=55_882_752).architectures == [SMALLEST]
    assert exact.pareto(MODELS["quadratic"], max_macs=11_457_257_984).architectures == [SMALLEST]


@settings(max_examples=40)
@given(st.sampled_from(sorted(MODELS)), st.integers(0, 2**31), st.integers(0, 11), st.floats(0, 1e-5))
def test_no_completion_is_below_its_prefixes_bound(name, seed, fixed, multiplier):
    model, options = MODELS[name], np.random.RandomState(seed).randint(9, size=(40, 12))
    penalty = multiplier * space.PARAMETERS.table
    with torch.inference_mode():
        depth = exact.DepthModel(model, 12)
        ordered = options[:, (exact.PLACES[1:] == depth.places[:, None]).argmax(1)]
        penalties = [torch.zeros(9).double(), torch.from_numpy(penalty)]
        bounds = depth.child_bounds(ordered[:, :fixed], penalties)[:, ordered[:, fixed], np.arange(40)]
        values = depth.scores(ordered)
    assert values == pytest.approx(scores(model, space.strings(options)), abs=1e-9)
    margin = (4 + len(model.networks)) * 2.0**-44 * (depth.magnitude + 12 * penalty.max())
    assert (bounds <= np.stack([values, values + penalty[options].sum(1)]) + margin).all()
    if fixed == 11:  # nothing is left to be bounded
        assert bounds[0] == pytest.approx(values, abs=1e-9)


def interrupt(search, model, step, **flags):
    """What the search returns where Ctrl-C is pressed at this step, and what progress said until then."""
    said = []

    def progress(*numbers):
        said.append(numbers)
        if len(said) == step:
            signal.raise_signal(signal.SIGINT)

    return search(model, progress=progress, **flags), np.array(said)


def test_an_interrupted_search_says_how_far_it_may_be_off(monkeypatch):
    monkeypatch.setattr(exact, "GREEDY", 2)
    monkeypatch.setattr(exact, "BLOCK", 10)
    model, _, sizes, _ = restrict("mixed")
    budget = int(np.quantile(sizes.parameters, 0.3))
    whole, said = interrupt(exact.best, model, None, max_params=budget)
    shares, found, bounds = said.T
    assert (np.diff([0, *shares]) >= -1e-9).all() and shares[-1] == pytest.approx(1)
    gaps = []
    for step in (1, len(said) // 2, len(said) - 1):
        part, _ = interrupt(exact.best, model, step, max_params=budget)
        assert (part.interrupted, part.scores[0]) == (True, found[step - 1])
        assert part.gap == pytest.approx(max(0, part.scores[0] - bounds[step - 1]))
        assert part.scores[0] - part.gap <= whole.scores[0] + 1e-6
        gaps.append(part.gap)
    assert np.inf > gaps[0] > gaps[-1]


def test_an_interrupted_front_is_the_leading_part_that_is_proven(monkeypatch):
    monkeypatch.setattr(exact, "GREEDY", 2)
    monkeypatch.setattr(exact, "BLOCK", 60)
    model, *_ = restrict("mixed")
    whole, said = interrupt(exact.pareto, model, None)
    lengths = []
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        part, _ = interrupt(exact.pareto, model, 1 + int(share * (len(said) - 1)))
        lengths.append(len(part.architectures))
        assert (part.complete, part.architectures) == (False, whole.architectures[: lengths[-1]])
    assert 0 < max(lengths) < len(whole.architectures)


def test_ctrl_c_before_the_first_step_is_no_error(monkeypatch):
    interrupting = lambda *limits: signal.raise_signal(signal.SIGINT) or space.budgets(*limits)  # noqa: E731
    monkeypatch.setattr(exact, "budgets", interrupting)
    found, front = exact.best(MODELS["mixed"]), exact.pareto(MODELS["mixed"])
    assert (found.architectures, found.left, found.gap) == ([], space.NUM_ARCHITECTURES, np.inf)
    assert (front.architectures, front.complete) == ([], False)
