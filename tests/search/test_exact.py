"""The exact search against enumeration and the predictors themselves."""

import itertools
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import one_hot

from common.files import InputError
from network import Predictor
from recipes.base import Model
from search import bounds, exact
from space import VIT, Decision, Space

PENALTY = 2.0**14  # of each choice that a restricted model does not want
SMALLEST = "j" + "331" * 10 + "000000"


def draw_space(seed):
    """A space of 3 to 8 decisions, some of them within others, with a cost of integers and one of real numbers."""
    random, decisions, costs = np.random.RandomState(seed), [], {"whole": {"base": 50}, "real": {"base": -0.5}}
    for i in range(random.randint(3, 9)):
        choices, parents = tuple(range(random.randint(1, 5))), [d for d in decisions if len(d.choices) > 1]
        kind, name = "constant" if len(choices) == 1 else ("categorical", "ordinal")[i % 2], f"{'ab'[i % 2]} {i}"
        parent, when = None, ()
        if parents and random.rand() < 0.5:
            parent = parents[random.randint(len(parents))]
            parent, when = parent.name, parent.choices[: random.randint(1, len(parent.choices))]
        decisions.append(Decision(kind, name, choices, parent=parent, when=when))
        costs["whole"][name] = random.randint(-9, 10, len(choices)).tolist()
        costs["real"][name] = random.randn(len(choices)).tolist()
    return Space("drawn", decisions, dict(sorted(costs.items(), reverse=seed % 2)))  # the front is of the first cost


def draw_model(space, name, seed):
    torch.manual_seed(seed)
    shape = one_hot(space, space.strings(np.zeros((1, len(space.decisions)), np.int8))[0]).shape
    networks = [{key: 2 * value for key, value in Predictor(*shape).state_dict().items()} for _ in range(2)]
    matrix = torch.randn(len(space.features), len(space.features)).double()
    return {
        "networks": Model(space, None, tuple(networks), (1.0, -0.5)),
        "quadratic": Model(space, matrix),
        "mixed": Model(space, 0.05 * matrix, tuple(networks[:1]), (2.0,)),
        "ties": Model(space, matrix.round().diag().diag()),
    }[name]


MODELS = ("networks", "quadratic", "mixed", "ties")


@torch.no_grad()
def scores(model, architectures):
    """(n,) float64, by the predictors themselves."""
    encodings = torch.from_numpy(np.stack([one_hot(model.space, name) for name in architectures])).double()
    x = encodings.flatten(1)[:, model.space.features]
    total = (x @ model.matrix * x).sum(1) if model.matrix is not None else torch.zeros(len(x)).double()
    for state_dict, weight in zip(model.networks, model.weights, strict=True):
        predictor = Predictor(*encodings.shape[1:]).double().eval()
        predictor.load_state_dict(state_dict)
        total += weight * predictor(encodings)
    return total.numpy()


def front_of(costs, values):
    """Indices of the Pareto front, by cost."""
    front = []
    for i in np.lexsort((values, costs)):
        if not front or values[i] < values[front[-1]]:
            front.append(i)
    return front


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(12))
def test_best_and_front_are_those_of_enumeration_in_any_space(monkeypatch, name, seed):
    monkeypatch.setattr(exact, "BLOCK", (1, 7, exact.BLOCK)[seed % 3])
    space = draw_space(seed)
    model, names = draw_model(space, name, seed), np.array(sorted(space.all()))
    costs = {cost: np.array(values) for cost, values in space.measure(names).items()}
    limits = {cost: np.quantile(costs[cost], 0.6) for cost in (("whole",), ("real",), ("whole", "real"), ())[seed % 4]}
    values = scores(model, names).round(6)
    within = np.flatnonzero(np.all([np.ones(len(names), bool), *(costs[c] <= m for c, m in limits.items())], 0))
    expected = within[values[within].argsort(kind="stable")]
    excluded, expected = expected[1:3], np.delete(expected, [1, 2])[:20]
    found = exact.best(model, 20, limits=limits, exclude=names[excluded].tolist())
    assert found.architectures == names[expected].tolist()
    assert found.scores == pytest.approx(values[expected], abs=1e-6)
    assert (found.left, found.gap, found.interrupted) == (0, 0, False)
    assert found.bounded + found.over_budget + found.scored == len(names) == space.size
    expected = within[front_of(costs[next(iter(space.costs))][within], values[within])]
    front = exact.pareto(model, limits=limits)
    assert front.architectures == names[expected].tolist()
    assert front.scores == pytest.approx(values[expected], abs=1e-6)


def restrict(name):
    """A model with a penalty for all but 512 ViTs, and these, sorted, with their costs and scores.

    They have 10 or 12 layers. In the first four, heads and MLP ratio are the smallest or the largest; in the others
    the heads are the largest, the MLP ratio is the smallest.
    """
    model, diagonal = draw_model(VIT, name, 1), np.zeros(87)
    diagonal[1] = PENALTY
    layers = diagonal[3:].reshape(12, 7)
    layers[:, [1, 4]] = layers[4:, [2, 3]] = PENALTY
    some = [a + b + "1" for a, b in itertools.product("13", repeat=2)]
    names = np.array(
        sorted(
            f"{depth}{''.join(first)}{'131' * (layers - 4)}{'000' * (12 - layers)}"
            for depth, layers in (("j", 10), ("l", 12))
            for first in itertools.product(some, repeat=4)
        )
    )
    matrix = torch.zeros(87, 87).double() if model.matrix is None else model.matrix
    model = model._replace(matrix=matrix + torch.from_numpy(diagonal).diag())
    return model, names, VIT.measure(names), scores(model, names).round(6)


@pytest.mark.parametrize("budget", [(), ("params", "macs")])
@pytest.mark.parametrize("name", MODELS)
def test_best_and_front_of_512_of_all_vits_are_those_of_enumeration(name, budget):
    model, names, costs, values = restrict(name)
    limits = {cost: int(np.quantile(costs[cost], 0.6)) for cost in budget}
    within = np.flatnonzero(np.all([np.ones(512, bool), *(costs[cost] <= most for cost, most in limits.items())], 0))
    expected = within[values[within].argsort(kind="stable")][:50]
    found = exact.best(model, 50, limits=limits)
    assert found.architectures == names[expected].tolist()
    assert found.scores == pytest.approx(values[expected], abs=1e-6)
    assert (found.left, found.gap) == (0, 0)
    assert found.bounded + found.over_budget + found.scored == VIT.size
    expected = within[front_of(costs["params"][within], values[within])]
    front = exact.pareto(model, limits=limits)
    wanted = front.scores < PENALTY / 2  # smaller ones with a penalty are on the front, too
    assert np.array(front.architectures)[wanted].tolist() == names[expected].tolist()
    assert front.architectures[0] == SMALLEST
    assert (np.diff(VIT.measure(front.architectures)["params"]) > 0).all() and (np.diff(front.scores) < 0).all()


def test_a_model_without_preferences_and_the_tightest_and_the_loosest_budget():
    first = ["j" + "111" * 10 + "000000", "j" + "111" * 9 + "121000000", "j" + "111" * 9 + "131000000"]
    nothing, model = Model(VIT, torch.zeros(87, 87).double()), draw_model(VIT, "quadratic", 0)
    assert exact.best(nothing, 3, limits={"params": 10**30, "macs": 10**30}).architectures == first
    assert exact.pareto(nothing).architectures == [SMALLEST]
    assert exact.best(model, 9, limits={"params": 55_882_752}).architectures == [SMALLEST]
    assert exact.pareto(model, limits={"macs": 11_457_257_984}).architectures == [SMALLEST]
    with pytest.raises(InputError, match="55,882,752"):
        exact.best(model, limits={"params": 55_882_751})


def test_the_best_two_of_10_to_the_25_architectures_without_interactions():
    space = Space("long", [Decision("ordinal", f"d {i}", (0, 1, 2, 3)) for i in range(42)])
    effects = np.random.RandomState(3).rand(42, 4)
    found = exact.best(Model(space, torch.from_numpy(effects.flatten()).diag()), 2)
    smallest, second = np.sort(effects)[:, :2].T
    assert found.architectures[0] == "".join(map(str, effects.argmin(1)))
    assert found.scores - smallest.sum() == pytest.approx([0, (second - smallest).min()])
    assert found.bounded + found.scored == space.size == 4**42


def test_what_the_search_refuses():
    decisions = [Decision("categorical", f"parent {i}", tuple(range(20))) for i in range(4)]
    within = [Decision("constant", f"child {i}", (0,), parent=f"parent {i}", when=(1,)) for i in range(4)]
    space = Space("branches", decisions + within)
    model = Model(space, torch.zeros(len(space.features), len(space.features)).double())
    with pytest.raises(InputError, match=r"^branches: has 160,000 ways .* use search.evolution"):
        exact.best(model)
    with pytest.raises(InputError, match="has no costs"):
        exact.pareto(model)


@settings(max_examples=60)
@given(st.sampled_from(MODELS), st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1e-5), st.booleans())
def test_no_completion_is_below_its_prefixes_bound(name, seed, share, multiplier, vit):
    space = VIT if vit else draw_space(seed)
    model, random = draw_model(space, name, seed), np.random.RandomState(seed)
    first = exact._branches(space)
    with torch.inference_mode():
        relaxation = bounds.Relaxation(model, bounds.layers(model), first[random.randint(len(first))])
        groups = len(relaxation.counts)
        options = random.randint(relaxation.counts, size=(40, groups)).astype(np.uint8)
        fixed = min(int(share * groups), groups - 1)
        cost = multiplier * random.rand(groups, relaxation.counts.max())
        penalties = torch.from_numpy(np.stack([0 * cost, cost]))
        found = relaxation.child_bounds(options[:, :fixed], penalties)[:, options[:, fixed], np.arange(40)]
        values = relaxation.scores(options)
    assert values == pytest.approx(scores(model, space.strings(relaxation.complete(options))), abs=1e-9)
    margin = (2 + groups / 6 + len(model.networks)) * 2.0**-44 * (relaxation.magnitude + groups * cost.max())
    penalty = cost[np.arange(groups), options].sum(1)
    assert (found <= np.stack([values, values + penalty]) + margin).all()
    if fixed == groups - 1 and not model.networks:  # nothing is left to be bounded
        assert found[0] == pytest.approx(values, abs=1e-9)


def test_splits_make_the_bound_of_a_single_pair_exact():
    space = Space("four", [Decision("categorical", name, tuple("abcde")) for name in "wxyz"])
    model = draw_model(space, "quadratic", 0)
    with torch.inference_mode():
        relaxation = bounds.Relaxation(model, bounds.layers(model), exact._branches(space)[0])
        options = np.indices((5, 5, 5, 5), np.uint8).reshape(4, 25, 25).T  # (last two, first two, groups)
        for prefix in range(0, 25, 3):
            values = relaxation.scores(options[:, prefix]).reshape(5, 5)
            for _ in range(30):
                (found,) = relaxation.child_bounds(options[:1, prefix, :2], torch.zeros(1, 4, 5).double())
            assert found.min() == pytest.approx(values.min(), abs=1e-6)
            assert (found[:, 0] <= values.min(1) + 1e-9).all()


def run(search, model, step=None, **flags):
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
    model, _, costs, _ = restrict("mixed")
    limits = {"params": int(np.quantile(costs["params"], 0.3))}
    whole, said = run(exact.best, model, limits=limits)
    shares, found, _ = said.T
    assert shares[-1] == pytest.approx(1) and (found[1:] <= found[:-1]).all()
    gaps = []
    for step in (len(said) // 20, len(said) // 2, len(said) - 1):
        part, said_here = run(exact.best, model, step, limits=limits)
        assert (part.interrupted, bool(part.left), part.scores[0]) == (True, True, found[step - 1])
        assert part.gap == pytest.approx(max(0, part.scores[0] - said_here[-1, 2]))
        assert part.scores[0] - part.gap <= whole.scores[0] + 1e-6
        gaps.append(part.gap)
    assert np.inf > gaps[0] > gaps[-1]


def test_a_time_limit_and_ctrl_c_before_the_first_step():
    model = draw_model(VIT, "mixed", 0)
    found = exact.best(model, seconds=0)
    assert (found.architectures, found.left, found.gap, found.interrupted) == ([], VIT.size, np.inf, True)
    with pytest.raises(TimeoutError, match="not complete after 0 seconds"):
        exact.pareto(model, seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run(exact.pareto, model, 1)
