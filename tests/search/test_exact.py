"""The exact search against enumeration and the predictors themselves."""

import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import TOY, one_hot

from common.files import InputError
from network import Predictor
from recipes.base import Model
from search import bounds, exact
from space import VIT, Decision, Space

REVERSED = Space("toy", TOY.decisions, {})
REVERSED.costs = dict(reversed(TOY.costs.items()))  # the front is over real numbers
WIDE = Space("wide", [Decision("categorical", f"x{chr(97 + i)}", (0, 1, 2, 3)) for i in range(14)])
LONG = Space("long", [Decision("ordinal", f"d {i}", (0, 1, 2, 3)) for i in range(42)])


def model(space, kind, seed=0):
    """A quadratic form, networks, both, or an additive model with many ties."""
    torch.manual_seed(seed)
    matrix = torch.from_numpy(np.random.RandomState(seed).standard_normal((len(space.features),) * 2))
    first, second = ({k: 2 * v for k, v in Predictor(*space.shape).state_dict().items()} for _ in range(2))
    return {
        "quadratic": Model(space, matrix),
        "networks": Model(space, None, (first, second), (1.0, -0.5)),
        "mixed": Model(space, 0.1 * matrix, (first,), (2.0,)),
        "ties": Model(space, matrix.round().diag().diag()),
    }[kind]


KINDS = "quadratic", "networks", "mixed", "ties"


@torch.no_grad()
def scores(model, architectures):
    """(n,) float64, by the predictors themselves."""
    encodings = torch.from_numpy(np.stack([one_hot(model.space, architecture) for architecture in architectures]))
    x, total = encodings.flatten(1)[:, model.space.features], torch.zeros(len(encodings)).double()
    if model.matrix is not None:
        total += (x @ model.matrix * x).sum(1)
    for state_dict, weight in zip(model.networks, model.weights, strict=True):
        predictor = Predictor(*model.space.shape).double().eval()
        predictor.load_state_dict(state_dict)
        total += weight * predictor(encodings)
    return total.numpy().round(9)


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("limited", [(), ("params",), ("latency",), ("params", "latency")])
@pytest.mark.parametrize("space", [TOY, REVERSED], ids=["integers", "reals"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_and_the_front_are_those_of_enumeration(monkeypatch, kind, space, limited, small):
    if small:
        for name, value in (("OPEN", 2), ("GREEDY", 2), ("BLOCK", 3), ("TOGETHER", 3)):
            monkeypatch.setattr(exact, name, value)
        monkeypatch.setattr(bounds, "LIMIT", 1)
    scored, names, costs = model(space, kind), np.array(TOY.all()), TOY.measure(TOY.all())
    values, left_out, size = scores(scored, names), names[::3] if small else [], costs[next(iter(space.costs))]
    for share in (0, 0.4, 0.5):  # latencies 0.7 and 0.7999999999999999: others are 1e-16 larger
        limits = {name: np.quantile(costs[name], share, method="lower") for name in limited}
        within = [i for i in range(TOY.size) if all(costs[name][i] <= most for name, most in limits.items())]
        wanted = [i for i in sorted(within, key=lambda i: (values[i], i)) if names[i] not in left_out][:20]
        found = exact.best(scored, 20, limits=limits, exclude=left_out)
        assert found.architectures == names[wanted].tolist()  # names are sorted
        assert found.scores == pytest.approx(values[wanted], abs=1e-8)
        assert (sum(found[2:5]), *found[5:]) == (TOY.size, 0, 0, False)
        wanted = []
        for i in sorted(within, key=lambda i: (size[i], values[i], i)):
            if not wanted or values[i] < values[wanted[-1]]:
                wanted.append(i)
        assert exact.pareto(scored, limits=limits).architectures == names[wanted].tolist()


@settings(max_examples=60)
@given(st.sampled_from([TOY, VIT]), st.sampled_from(KINDS), st.integers(0, 2**31), st.floats(0, 0.1))
def test_no_completion_is_below_its_prefixes_bound(space, kind, seed, multiplier):
    random, scored = np.random.RandomState(seed), model(space, kind)
    with torch.inference_mode():
        relaxation = bounds.Relaxation(scored, bounds.layers(scored), exact._branches(space)[-1])
        groups, k = len(relaxation.counts), len(scored.networks)
        options = random.randint(relaxation.counts, size=(40, groups)).astype(np.uint8)
        penalty = multiplier * random.rand(*relaxation.shape)
        values, paid = relaxation.scores(options), penalty[np.arange(groups), options].sum(1)
        assert values == pytest.approx(scores(scored, space.strings(relaxation.complete(options))), abs=1e-8)
        margin = (2 + groups / 6 + k) * 2.0**-44 * (relaxation.magnitude + paid.max())
        for fixed in [*range(groups), *random.randint(groups, size=9)]:  # the splits change
            penalties = torch.from_numpy(np.stack([0 * penalty, penalty]))
            found = relaxation.child_bounds(options[:, :fixed], penalties, random.randint(2))
            found = found[:, options[:, fixed], np.arange(40)]
            assert (found <= [values + margin, values + paid + margin]).all()


def test_splits_make_the_bound_of_a_single_pair_exact():
    scored = model(Space("four", [Decision("categorical", name, tuple("abcde")) for name in "wxyz"]), "quadratic")
    with torch.inference_mode():
        relaxation = bounds.Relaxation(scored, bounds.layers(scored), exact._branches(scored.space)[0])
        options = np.indices((5, 5, 5, 5), np.uint8).reshape(4, 25, 25).T  # (last two, first two, groups)
        for prefix in range(0, 25, 3):
            values = relaxation.scores(options[:, prefix]).reshape(5, 5)
            for _ in range(30):
                (found,) = relaxation.child_bounds(options[:1, prefix, :2], torch.zeros(1, 4, 5).double())
            assert found.min() == pytest.approx(values.min(), abs=1e-6)
            assert (found[:, 0] <= values.min(1) + 1e-9).all()


def test_a_space_of_10_to_the_25_architectures():
    scored = model(LONG, "quadratic")._replace(matrix=torch.from_numpy(np.random.RandomState(3).rand(168)).diag())
    rows = scored.matrix.diagonal().view(42, 4).numpy()
    found = exact.best(scored, 2)
    step = np.partition(rows, 1)[:, 1] - rows.min(1)
    assert found.architectures[0] == "".join(map(str, rows.argmin(1)))
    assert found.scores - rows.min(1).sum() == pytest.approx([0, step.min()])
    assert sum(found[2:5]) == LONG.size == 4**42
    first = ["0" * 42, "0" * 41 + "1", "0" * 41 + "2"]
    assert exact.best(Model(LONG), 2, exclude=first[1:2]).architectures == first[::2]  # all are ties


def test_a_space_that_cannot_be_searched_is_refused():
    parents = [Decision("categorical", f"p{chr(97 + i)}", (0, 1)) for i in range(14)]
    children = [Decision("constant", f"c{p.name}", (0,), parent=p.name, when=(1,)) for p in parents]
    with pytest.raises(InputError, match=r"^many: has 16,384 ways .* use evolution"):
        exact.best(Model(Space("many", parents + children)))
    with pytest.raises(InputError, match=r"^wide: has no costs"):
        exact.pareto(Model(WIDE))


@pytest.mark.parametrize("by", ["Ctrl-C", "time"])
def test_an_interrupted_search_says_how_far_it_may_be_off(monkeypatch, by):
    clock, said = [0.0], []
    monkeypatch.setattr(exact, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(exact, "BLOCK", 50)
    hard = model(WIDE, "quadratic")

    def search(function, step, **settings):
        def progress(*numbers):
            said.append(numbers)
            if len(said) == step:
                clock[0] = 2 if by == "time" else 0
                by == "time" or signal.raise_signal(signal.SIGINT)

        clock[0] = 0
        said.clear()
        return function(hard, seconds=1, progress=progress, **settings)

    whole, steps = search(exact.best, None), len(said)
    shares, best, bound = np.array(said).T
    assert (np.diff([0, *shares]) >= -1e-9).all() and shares[-1] == pytest.approx(1)
    gaps = []
    for step in (30, steps // 2, steps - 1):
        part = search(exact.best, step)
        assert part.interrupted and part.scores[0] == best[step - 1]
        assert part.gap == pytest.approx(max(0, part.scores[0] - bound[step - 1]))
        assert part.scores[0] - part.gap <= whole.scores[0] + 1e-6
        assert sum(part[2:6]) == WIDE.size
        gaps.append(part.gap)
    assert math.inf > gaps[0] > gaps[-1]
    hard = model(TOY, "quadratic")
    with pytest.raises(TimeoutError if by == "time" else KeyboardInterrupt):
        search(exact.pareto, 1)
    assert exact.best(hard, seconds=-1)[::5] == ([], TOY.size) and exact.best(hard, seconds=-1).gap == math.inf
