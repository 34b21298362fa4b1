"""Evolution against the exact search, and the account of what it scored."""

import signal

import numpy as np
import pytest
import torch
from toy import TOY, one_hot

from recipes.base import Model
from search import exact
from search.evolution import evolve
from space import VIT, Decision, Space

EFFECTS = np.random.RandomState(1).standard_normal(87)
EITHER = Space("either", [Decision("categorical", "x", (0, 1))], {"a": {"x": [0, 1]}, "b": {"x": [1, 0]}})


def scores(names, space=VIT):
    features = [one_hot(space, name).ravel()[space.features] for name in names]
    return [row @ EFFECTS[: len(row)] for row in features]


@pytest.mark.parametrize(
    ("space", "limits", "evaluations"),
    [
        (VIT, {}, 3000),
        (VIT, {"params": 66e6}, 3000),
        (VIT, {"params": 60e6, "macs": 12.5e9}, 3000),
        (TOY, {}, 10**9),  # it ends long before
        (TOY, {"params": 15, "latency": 0.8}, 10**9),
        (EITHER, {"a": 0, "b": 0}, 10**9),  # nothing is within both
    ],
)
def test_it_comes_close_to_the_optimum_of_an_easy_model(space, limits, evaluations):
    seen = []
    found = evolve(space, lambda names: seen.extend(names) or scores(names, space), evaluations, limits=limits)
    assert found[2:] == (0, 0, len(seen), space.size - len(seen), np.inf, False)
    assert len(set(seen)) == len(seen) <= 3000  # no architecture twice
    assert all((space.measure(seen)[name] <= most).all() for name, most in limits.items())
    values = np.array(scores(seen, space))
    assert found.architectures == [seen[i] for i in values.argsort()[:10]]
    assert found.scores == pytest.approx(np.sort(values)[:10], abs=1e-9)
    best = exact.best(Model(space, torch.from_numpy(EFFECTS[: len(space.features)]).diag()), 1, limits=limits)
    assert (found.scores[:1] <= best.scores + 0.5).all() and len(best.scores) == (space is not EITHER)


def test_the_seed_decides_children_differ_in_one_decision_and_ties_are_in_the_order_of_the_strings():
    first, again, other = (evolve(VIT, scores, 200, seed=seed).architectures for seed in (3, 3, 4))
    assert first == again != other
    for space, population in ((VIT, 100), (TOY, 15)):
        seen, sizes = [], []
        score = lambda names: sizes.append(len(names)) or seen.extend(names) or [0] * len(names)  # noqa: B023, E731
        found = evolve(space, score, 130, top=20, population=population, sample=3)
        assert found.architectures == sorted(seen)[:20] and max(sizes) <= 10
        codes = np.array([list(name) for name in seen])
        present = codes != space.absent
        for i in range(population, len(seen)):
            assert ((codes[:i] != codes[i]) & present[:i] & present[i]).sum(1).min() == 1


def test_ctrl_c_ends_it_with_what_it_found():
    said = []

    def progress(*numbers):
        said.append(numbers)
        if len(said) == 20:
            signal.raise_signal(signal.SIGINT)

    found = evolve(VIT, scores, 1000, progress=progress)
    assert np.array(said)[:, 0] == pytest.approx(np.arange(1, 21) / 100)
    assert found.interrupted
    assert found.scores[0] == said[-1][1] == evolve(VIT, scores, 200).scores[0]
