"""The exact search against enumeration, dynamic programming, and the predictors themselves."""

import itertools
import signal

import numpy as np
import pytest
import torch
from helpers import one_hot
from hypothesis import given, settings
from hypothesis import strategies as st

import space
from common.files import InputError
from network import Predictor
from recipes.model import Model
from search import exact

NO_MATRIX = torch.zeros(87, 87).double()
PENALTY = 2.0**14  # of each option that a restricted model does not want
SMALLEST = "j" + "331" * 10 + "000000"


def network(seed, scale=2.0):
    torch.manual_seed(seed)
    return {name: scale * value for name, value in Predictor().state_dict().items()}


def matrix(seed):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((87, 87)))


MODELS = {
    "networks": Model(NO_MATRIX, (network(0), network(1)), (1.0, -0.5)),
    "quadratic": Model(matrix(0)),
    "mixed": Model(0.05 * matrix(1), (network(2),), (2.0,)),
    "ties": Model(torch.diag(torch.from_numpy(np.random.RandomState(5).randint(3, size=87).astype(float)))),
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


def restrict(model, free=4):
    """The model with a penalty for all but 512 architectures, and these, sorted, with their scores.

    They have 10 or 12 layers, two of the heads and two of the MLP ratios in the first `free`, one in the others.
    """
    random, diagonal, wanted = np.random.RandomState(0), np.full(87, PENALTY), []
    diagonal[[0, 2]] = 0
    for layer in range(12):
        codes = [random.permutation(3)[: 2 if layer < free else 1] for _ in range(2)]
        for first, kept in zip((3, 6), codes, strict=True):
            diagonal[7 * layer + first + kept] = 0
        diagonal[9 + 7 * layer] = 0
        wanted.append([3 * heads + ratio for heads in codes[0] for ratio in codes[1]])
    names = []
    for depth in (10, 12):
        options = np.full((4**free, 12), space.ABSENT)
        options[:, :depth] = list(itertools.product(*wanted[:depth]))
        names += space.strings(options)
    names = np.array(sorted(names))
    return model._replace(matrix=model.matrix + torch.diag(torch.from_numpy(diagonal))), names, scores(model, names)


def front_of(sizes, values):
    """Places of the Pareto front, by definition; of equals the first."""
    found, best = [], np.inf
    for i in np.lexsort((np.arange(len(sizes)), values, sizes)):
        if values[i] < best - 1e-6:
            best = values[i]
            found.append(i)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_best_are_those_of_enumeration(name):
    model, architectures, values = restrict(MODELS[name])
    order, sizes = np.argsort(np.round(values, 6), kind="stable"), space.measure(architectures)
    params, macs = (int(np.quantile(size, 0.3)) for size in (sizes.parameters, sizes.macs))
    for budgets in ({}, {"max_params": params}, {"max_macs": macs}, {"max_params": params, "max_macs": macs}):
        within = (sizes.parameters <= budgets.get("max_params", np.inf)) & (
            sizes.macs <= budgets.get("max_macs", np.inf)
        )
        expected = order[within[order]][:50]
        assert len(expected) > 10
        found = exact.best(model, len(expected), **budgets)
        assert found.architectures == architectures[expected].tolist()
        assert found.scores == pytest.approx(values[expected], abs=1e-6)
        assert (found.left, found.gap, found.interrupted) == (0, 0, False)
        assert found.bounded + found.over_budget + found.scored == space.NUM_ARCHITECTURES
        assert bool(found.over_budget) == bool(budgets)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("budget", [None, "max_params", "max_macs"])
def test_the_front_is_that_of_enumeration(name, budget):
    model, architectures, values = restrict(MODELS[name])
    sizes = space.measure(architectures)
    cost = sizes.macs if budget == "max_macs" else sizes.parameters
    limit = int(np.quantile(cost, 0.8))
    expected = [i for i in front_of(sizes.parameters, values) if cost[i] <= limit or not budget]
    if budget == "max_macs":  # which may rule out others than the largest
        within = np.flatnonzero(cost <= limit)
        expected = within[front_of(sizes.parameters[within], values[within])]
    front = exact.pareto(model, **({budget: limit} if budget else {}))
    assert front.complete
    wanted = front.scores < PENALTY / 2  # smaller ones with a penalty are on the front, too
    assert np.array(front.architectures)[wanted].tolist() == architectures[expected].tolist()
    assert front.scores[wanted] == pytest.approx(values[expected], abs=1e-6)
    assert (np.diff(wanted) >= 0).all()
    assert (np.diff(space.measure(front.architectures).parameters) > 0).all()
    assert front.architectures[0] == SMALLEST


@pytest.mark.parametrize("budget", [{}, {"max_params": 66_000_000}, {"max_macs": 12_500_000_000}])
def test_in_the_whole_space_an_additive_models_front_is_that_of_dynamic_programming(effects, budget):
    task = effects["tasks"]["sop"]
    diagonal, best = list(task["depth"]), {(space.PARAMETERS.base, space.MACS.base): 0.0}  # the best score by costs
    costs = list(zip(space.PARAMETERS.table.tolist(), space.MACS.table.tolist(), strict=True))
    found = []
    for depth, (heads, ratios) in enumerate(zip(task["heads"], task["mlp_ratio"], strict=True), 1):
        diagonal += [*heads, *ratios, 0]
        extended = {}
        for ((params, macs), score), option in itertools.product(best.items(), range(9)):
            key = params + costs[option][0], macs + costs[option][1]
            extended[key] = min(extended.get(key, np.inf), score + heads[option // 3] + ratios[option % 3])
        best = extended
        if depth >= 10:
            found += [(*key, score + task["depth"][depth - 10]) for key, score in best.items()]
    sizes, macs, values = np.array(found).T
    within = (sizes <= budget.get("max_params", np.inf)) & (macs <= budget.get("max_macs", np.inf))
    sizes, values = sizes[within], values[within]
    expected, model = front_of(sizes, values), Model(torch.diag(torch.tensor(diagonal, dtype=torch.float64)))
    front, first = exact.pareto(model, **budget), exact.best(model, 3, **budget)
    assert space.measure(front.architectures).parameters.tolist() == sizes[expected].tolist()
    assert front.scores == pytest.approx(values[expected], abs=1e-12)
    assert scores(model, front.architectures) == pytest.approx(front.scores, abs=1e-12)
    assert (first.architectures[0], first.scores[0]) == (
        front.architectures[-1],
        pytest.approx(values.min(), abs=1e-12),
    )
    assert (np.diff(first.scores) > 0).all()


def test_without_preferences_the_order_is_that_of_the_strings():
    first = ["j" + "111" * 10 + "000000", "j" + "111" * 9 + "121000000", "j" + "111" * 9 + "131000000"]
    assert exact.best(Model(NO_MATRIX), 3).architectures == first
    assert exact.pareto(Model(NO_MATRIX)).architectures == [SMALLEST]


def test_small_blocks_change_nothing(monkeypatch):
    model, *_ = restrict(MODELS["mixed"])
    best, front = exact.best(model, 20), exact.pareto(model)
    monkeypatch.setattr(exact, "BLOCK", 14)
    monkeypatch.setattr(exact, "GREEDY", 3)
    monkeypatch.setattr(exact, "GROUPS", 2)
    for ours, theirs in ((exact.best(model, 20), best), (exact.pareto(model), front)):
        assert ours.architectures == theirs.architectures
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-6)


@settings(max_examples=40)
@given(st.sampled_from(sorted(MODELS)), st.integers(0, 2**31), st.integers(0, 11), st.floats(0, 1e-5))
def test_no_completion_is_below_its_prefixes_bound(name, seed, fixed, multiplier):
    model, random = MODELS[name], np.random.RandomState(seed)
    options = random.randint(9, size=(40, 12))
    penalty = multiplier * space.PARAMETERS.table
    with torch.inference_mode():
        depth = exact.DepthModel(model, 12)
        ordered = options[:, [exact.PLACES[1:].tolist().index(place) for place in depth.places]]
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


@pytest.mark.parametrize("budget", [False, True])
def test_an_interrupted_search_says_how_far_it_may_be_off(monkeypatch, budget):
    monkeypatch.setattr(exact, "GREEDY", 2)
    monkeypatch.setattr(exact, "BLOCK", 10)
    model, architectures, _ = restrict(MODELS["mixed"])
    flags = {"max_params": int(np.quantile(space.measure(architectures).parameters, 0.3))} if budget else {}
    whole, said = interrupt(exact.best, model, None, **flags)
    shares, found, bounds = said.T
    assert (shares[0] >= 0) & (np.diff(shares) >= -1e-9).all() & (shares[-1] == pytest.approx(1))
    assert (np.diff(found) <= 0).all()
    assert found[-1] == whole.scores[0]
    assert (bounds <= whole.scores[0] + 1e-6).any()
    gaps = []
    for step in (1, len(said) // 2, len(said) - 1):
        part, _ = interrupt(exact.best, model, step, **flags)
        assert part.interrupted
        assert part.left > 0
        assert part.bounded + part.over_budget + part.scored + part.left == space.NUM_ARCHITECTURES
        assert part.scores[0] == found[step - 1] >= whole.scores[0]
        assert part.gap == pytest.approx(max(0, part.scores[0] - bounds[step - 1]))
        assert part.scores[0] - part.gap <= whole.scores[0] + 1e-6
        gaps.append(part.gap)
    assert np.inf > gaps[0] > gaps[-1]


def test_an_interrupted_front_is_the_leading_part_that_is_proven(monkeypatch):
    monkeypatch.setattr(exact, "GREEDY", 2)
    monkeypatch.setattr(exact, "BLOCK", 60)
    model, *_ = restrict(MODELS["mixed"])
    whole, said = interrupt(exact.pareto, model, None)
    assert whole.complete
    lengths = []
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        part, _ = interrupt(exact.pareto, model, 1 + int(share * (len(said) - 1)))
        assert not part.complete
        assert part.architectures == whole.architectures[: len(part.architectures)]
        lengths.append(len(part.architectures))
    assert 0 < max(lengths) < len(whole.architectures)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_a_hard_search_has_a_bound_from_the_start(seed):
    torch.manual_seed(seed)
    model = Model(NO_MATRIX, tuple(Predictor().state_dict() for _ in range(20)), (1.0,) * 20)
    found, _ = interrupt(exact.best, model, 2)
    assert found.interrupted
    assert 0 < found.gap < 10
    assert found.scores[0] - found.gap < scores(model, space.sample_architectures(1000, seed=1)).min()


def test_ctrl_c_before_the_first_step_is_no_error(monkeypatch):
    class Interrupting(exact.DepthModel):
        def __init__(self, model, depth):
            super().__init__(model, depth)
            if depth == 10:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(exact, "DepthModel", Interrupting)
    found, front = exact.best(MODELS["mixed"]), exact.pareto(MODELS["mixed"])
    assert (found.architectures, found.left, found.gap) == ([], space.NUM_ARCHITECTURES, np.inf)
    assert (front.architectures, front.complete) == ([], False)


def test_the_tightest_and_the_loosest_budget():
    for budget in ({"max_params": 55_882_751}, {"max_macs": 10**9}):
        for search in (exact.best, exact.pareto):
            with pytest.raises(InputError, match="the smallest has 55,882,752 parameters and 11,457,257,984 "):
                search(MODELS["quadratic"], **budget)
    assert exact.best(MODELS["quadratic"], 9, max_params=55_882_752).architectures == [SMALLEST]
    assert exact.pareto(MODELS["quadratic"], max_macs=11_457_257_984).architectures == [SMALLEST]
    loose = exact.best(MODELS["ties"], max_params=10**30, max_macs=10**30)
    assert loose.architectures == exact.best(MODELS["ties"]).architectures
    assert not loose.over_budget
