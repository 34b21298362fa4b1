"""Evolution against the exact search, and the account of what it scored."""

import signal

import numpy as np
import pytest
import torch
from toy import TOY

from dataset import encode
from recipes.base import Model
from search import exact
from search.evolution import evolve
from space import VIT

MODEL = Model(VIT, torch.from_numpy(np.random.RandomState(1).standard_normal(87)).diag())


def scores(names):
    return encode(VIT, names).double().flatten(1)[:, VIT.features] @ MODEL.matrix.diagonal()


@pytest.mark.parametrize(("limits", "miss"), [({}, 1e-9), ({"params": 66e6}, 0.5), ({"macs": 12e9}, 0.5)])
def test_it_comes_close_to_the_optimum_of_an_easy_model(limits, miss):
    seen = []
    found = evolve(VIT, lambda names: seen.extend(names) or scores(names), 3000, limits=limits)
    assert found[2:] == (0, 0, len(seen), VIT.size - len(seen), np.inf, False)
    assert 1000 < len(set(seen)) == len(seen) <= 3000  # no architecture twice
    costs = VIT.measure(seen)
    assert all((costs[name] <= most).all() for name, most in limits.items())
    values, order = scores(seen).sort()
    assert found.architectures == [seen[i] for i in order[:10]]
    assert found.scores == pytest.approx(values[:10].numpy(), abs=1e-9)
    assert -1e-9 <= found.scores[0] - exact.best(MODEL, limits=limits).scores[0] <= miss


def test_the_seed_decides_children_differ_in_one_decision_and_ties_are_in_the_order_of_the_strings():
    first, again, other = (evolve(VIT, scores, 200, seed=seed).architectures for seed in (3, 3, 4))
    assert first == again != other
    seen = []
    found = evolve(VIT, lambda names: seen.extend(names) or [0] * len(names), 300, top=20)
    assert found.architectures == sorted(seen)[:20]
    codes = np.array([list(name) for name in seen])
    for i in range(100, len(seen)):
        assert ((codes[:i] != codes[i]) & (codes[:i] != "0") & (codes[i] != "0")).sum(1).min() == 1
    assert evolve(VIT, scores, 50, limits={"params": 55_882_752}).architectures == ["j" + "331" * 10 + "000000"]


def test_it_sees_a_whole_small_space_within_its_budgets():
    limits, costs = {"params": 135, "ms": 0.6}, TOY.measure(TOY.all())
    names = [
        name
        for name, params, ms in zip(TOY.all(), costs["params"], costs["ms"], strict=True)
        if params <= limits["params"] and ms <= limits["ms"]
    ]
    found = evolve(TOY, lambda names: list(range(len(names))), 1000, top=30, limits=limits)
    assert 0 < len(names) < TOY.size
    assert sorted(found.architectures) == sorted(names)


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
