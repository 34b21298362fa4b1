import itertools
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring import Model

import search
import space
from dataset import FEATURES, encode, sample_architectures
from network import Predictor

NO_MATRIX = torch.zeros(87, 87, dtype=torch.float64)


def network(seed, scale=2.0):
    torch.manual_seed(seed)
    return {name: scale * value for name, value in Predictor().state_dict().items()}


def matrix(seed):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((87, 87)))


MODELS = {
    "networks": Model(NO_MATRIX, (network(0), network(1)), (1.0, -0.5)),
    "quadratic": Model(matrix(0)),
    "mixed": Model(0.05 * matrix(1), (network(2),), (2.0,)),
}


@torch.no_grad()
def scores(model, architectures):
    """(n,) float64, by the predictors themselves."""
    encodings = encode(architectures).double()
    x = encodings.flatten(1)[:, FEATURES]
    total = (x @ model.matrix * x).sum(1)
    for state_dict, weight in zip(model.networks, model.weights, strict=True):
        predictor = Predictor().double().eval()
        predictor.load_state_dict(state_dict)
        total += weight * predictor(encodings)
    return total.numpy()


def few(seed, free, depth):
    """Choices that leave `free` layers of this depth open, as `allowed`, and all architectures with them, sorted."""
    random = np.random.RandomState(seed)
    allowed = np.eye(9, dtype=bool)[random.randint(9, size=12)]
    allowed[random.permutation(depth)[:free]] = True
    choices = np.full((9**free, 12), -1)
    choices[:, :depth] = list(itertools.product(*map(np.flatnonzero, allowed[:depth])))
    return {"allowed": allowed, "depths": [depth]}, np.array(sorted(space.strings(choices)))


@pytest.fixture(scope="module")
def brute_force():
    """{depth: (arguments, 9^3 or 9^4 architectures)}."""
    return {depth: few(depth, free, depth) for depth, free in ((10, 3), (12, 4))}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("depth", [10, 12])
def test_the_best_are_those_of_brute_force(brute_force, name, largest, depth):
    arguments, architectures = brute_force[depth]
    values, sizes = scores(MODELS[name], architectures), space.measure(architectures)
    order = np.argsort(-values if largest else values, kind="stable")
    params, macs = (int(np.quantile(size, 0.3)) for size in (sizes.parameters, sizes.macs))
    for budgets in ({}, {"max_params": params}, {"max_macs": macs}, {"max_params": params, "max_macs": macs}):
        within = (sizes.parameters <= budgets.get("max_params", 2**60)) & (sizes.macs <= budgets.get("max_macs", 2**60))
        expected = order[within[order]][:50]
        found = search.best(MODELS[name], 50, largest=largest, **budgets, **arguments)
        assert found.architectures == architectures[expected].tolist()
        np.testing.assert_allclose(found.scores, values[expected], rtol=0, atol=1e-9)
        assert (found.left, found.gap, found.interrupted) == (0, 0, False)
        assert found.bounded + found.over_budget + found.scored == len(architectures)


@pytest.mark.parametrize("name", MODELS)
def test_the_front_is_that_of_brute_force(brute_force, name):
    arguments, architectures = brute_force[12]
    values, sizes = scores(MODELS[name], architectures), space.measure(architectures).parameters
    expected, best = [], np.inf
    for i in np.lexsort((values, sizes)):
        if values[i] < best:
            best = values[i]
            expected.append(architectures[i])
    front, front_scores, complete = search.pareto(MODELS[name], **arguments)
    assert complete
    assert front == expected
    assert front_scores == pytest.approx(scores(MODELS[name], expected), abs=1e-9)


def test_the_optimum_of_an_additive_model_in_the_whole_space(effects):
    for task in list(effects["tasks"].values())[:3]:
        diagonal = list(task["depth"])
        for heads, ratios in zip(task["heads"], task["mlp_ratio"], strict=True):
            diagonal += [*heads, *ratios, 0]
        model = Model(torch.diag(torch.tensor(diagonal, dtype=torch.float64)))
        layers = [min(h) + min(r) for h, r in zip(task["heads"], task["mlp_ratio"], strict=True)]
        best = min(task["depth"][d] + sum(layers[: 10 + d]) for d in range(3))
        found = search.best(model, 3)
        assert found.scores[0] == pytest.approx(best, abs=1e-12)
        assert scores(model, found.architectures) == pytest.approx(found.scores, abs=1e-12)
        assert found.bounded + found.scored == space.NUM_ARCHITECTURES


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.integers(0, 2**31), st.integers(0, 12), st.floats(0.01, 1), st.booleans())
def test_no_completion_is_below_its_prefix_s_bound(name, seed, fixed, share, budget):
    model, random = MODELS[name], np.random.RandomState(seed)
    allowed = random.random_sample((12, 9)) < share
    allowed[np.arange(12), random.randint(9, size=12)] = True
    choices = np.array([[random.choice(np.flatnonzero(row)) for row in allowed] for _ in range(40)])
    sizes = space.PARAMETERS.of(choices)
    limit = int(np.median(sizes))
    with torch.inference_mode():
        depth = search._Depth(model, 12, allowed, [(space.PARAMETERS, 0, limit)] if budget else [])
        bounds = depth.bound(choices[:, depth.order][:, :fixed])
    values = scores(model, space.strings(choices))
    within = sizes <= limit if budget else slice(None)
    assert (bounds <= values + search.MARGIN * depth.magnitude)[within].all()
    if fixed == 12:
        np.testing.assert_allclose(bounds, values, rtol=0, atol=1e-9)


def test_ties_are_in_the_order_of_the_strings(brute_force):
    arguments, architectures = brute_force[12]
    model = Model(torch.diag(torch.from_numpy(np.random.RandomState(5).randint(3, size=87).astype(float))))
    values = scores(model, architectures)
    for top in (1, 7, 300):
        expected = architectures[np.argsort(values, kind="stable")[:top]]
        assert search.best(model, top, **arguments).architectures == expected.tolist()
    assert search.best(Model(NO_MATRIX), 2).architectures == [
        "j" + "111" * 10 + "000000",
        "j" + "111" * 9 + "121000000",
    ]


def test_small_blocks_and_repetition_change_nothing(monkeypatch):
    model = MODELS["mixed"]._replace(weights=(0.3,))
    allowed = np.ones((12, 9), bool)
    allowed[:9, 2:] = False
    first = search.best(model, 20, allowed=allowed)
    for cells in (search.CELLS, 7 * 32 * 9):
        monkeypatch.setattr(search, "CELLS", cells)
        again = search.best(model, 20, allowed=allowed)
        assert again.architectures == first.architectures
        assert again.scores.tolist() == first.scores.tolist()


@pytest.mark.parametrize("limit", [0, 16])
def test_an_interrupted_search_says_how_far_it_may_be_off(brute_force, monkeypatch, limit):
    arguments, architectures = brute_force[12]
    monkeypatch.setattr(search, "DIVE", 4)
    monkeypatch.setattr(search, "CELLS", 2 * 32 * 9)  # blocks of two prefixes
    steps = itertools.count()

    def progress(share, found, left):
        if next(steps) == limit:
            signal.raise_signal(signal.SIGINT)

    found = search.best(MODELS["mixed"], 5, progress=progress, **arguments)
    assert found.interrupted
    assert found.left > 0
    assert found.bounded + found.scored + found.left == len(architectures)
    assert len(found.architectures) == min(limit, found.scored)
    assert found.gap == np.inf if limit == 0 else 0 < found.gap < np.inf
    if limit:
        assert found.scores[0] - found.gap <= scores(MODELS["mixed"], architectures).min() + 1e-9


@pytest.mark.parametrize("seed", [0, 1, 4])  # with 0 and 4 one depth's best are above the bounds of another's prefixes
def test_a_hard_search_has_a_bound_from_the_start(seed):
    torch.manual_seed(seed)
    networks = [Predictor().state_dict() for _ in range(20)]
    model, steps = Model(torch.zeros(87, 87).double(), networks, [1.0] * 20), itertools.count()

    def progress(share, found, left):
        if next(steps) == 40:
            signal.raise_signal(signal.SIGINT)

    found = search.best(model, progress=progress)
    assert found.interrupted
    assert 0 < found.gap < 10
    sampled = scores(model, sample_architectures(10_000, seed=1))
    assert found.scores[0] - found.gap < sampled.min()


def test_ctrl_c_before_the_first_step_or_in_a_front_is_no_error(brute_force):
    arguments, _ = brute_force[12]
    depth = search._Depth

    class Interrupting(depth):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_Depth", Interrupting)
        found = search.best(MODELS["mixed"], **arguments)
        assert (found.architectures, found.left, found.gap) == ([], 9**4, np.inf)
    whole, _, _ = search.pareto(MODELS["mixed"], window=10**6, **arguments)
    stop = lambda share: share > 0.4 and signal.raise_signal(signal.SIGINT)  # noqa: E731
    part, _, complete = search.pareto(MODELS["mixed"], window=10**6, progress=stop, **arguments)
    assert not complete
    assert 0 < len(part) < len(whole)
    assert part == whole[: len(part)]


def test_a_budget_that_nothing_meets_is_refused():
    for budget in ({"max_params": 55_882_751}, {"max_macs": 10**9}):
        with pytest.raises(space.BudgetError, match="the smallest has 55,882,752 parameters and 11,457,257,984 "):
            search.best(MODELS["quadratic"], **budget)
    assert search.best(MODELS["quadratic"], 9, max_params=55_882_752).architectures == ["j" + "331" * 10 + "000000"]
