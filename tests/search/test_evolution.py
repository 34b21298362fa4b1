"""Evolution against the exact search, and the account of what it scored."""

import signal

import numpy as np
import pytest
import torch

import space
from dataset import encode
from engine.model import Model
from search import exact
from search.evolution import evolve

MODEL = Model(torch.from_numpy(np.random.RandomState(1).standard_normal(87)).diag())


def scores(names):
    return encode(names).double().flatten(1)[:, space.FEATURES] @ MODEL.matrix.diagonal()


@pytest.mark.parametrize(("params", "macs", "miss"), [(np.inf, np.inf, 1e-9), (66e6, np.inf, 0.5), (np.inf, 12e9, 0.5)])
def test_it_comes_close_to_the_optimum_of_an_easy_model(params, macs, miss):
    seen, budgets = [], {"max_params": params, "max_macs": macs}
    found = evolve(lambda names: seen.extend(names) or scores(names), 3000, **budgets)
    assert found[2:] == (0, 0, len(seen), space.NUM_ARCHITECTURES - len(seen), np.inf, False)
    assert 1000 < len(set(seen)) == len(seen) <= 3000  # no architecture twice
    sizes = space.measure(seen)
    assert (sizes.parameters <= params).all() and (sizes.macs <= macs).all()
    values, order = scores(seen).sort()
    assert found.architectures == [seen[i] for i in order[:10]]
    assert found.scores == pytest.approx(values[:10].numpy(), abs=1e-9)
    assert -1e-9 <= found.scores[0] - exact.best(MODEL, **budgets).scores[0] <= miss


def test_the_seed_decides_children_differ_in_one_decision_and_ties_are_in_the_order_of_the_strings():
    first, again, other = (evolve(scores, 200, seed=seed).architectures for seed in (3, 3, 4))
    assert first == again != other
    seen = []
    found = evolve(lambda names: seen.extend(names) or [0] * len(names), 300, top=20)
    assert found.architectures == sorted(seen)[:20]
    codes = np.array([list(name) for name in seen])
    for i in range(100, len(seen)):
        assert ((codes[:i] != codes[i]) & (codes[:i] != "0") & (codes[i] != "0")).sum(1).min() == 1
    assert evolve(scores, 50, max_params=55_882_752).architectures == ["j" + "331" * 10 + "000000"]


def test_ctrl_c_ends_it_with_what_it_found():
    said = []

    def progress(*numbers):
        said.append(numbers)
        if len(said) == 20:
            signal.raise_signal(signal.SIGINT)

    found = evolve(scores, 1000, progress=progress)
    assert np.array(said)[:, 0] == pytest.approx(np.arange(1, 21) / 100)
    assert found.interrupted
    assert found.scores[0] == said[-1][1] == evolve(scores, 200).scores[0]
