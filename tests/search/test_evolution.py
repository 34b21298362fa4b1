import signal

import numpy as np
import pytest
import torch

import space
from common.files import InputError
from dataset import encode
from recipes.model import Model
from search import exact
from search.evolution import evolve

MODEL = Model(torch.diag(torch.from_numpy(np.random.RandomState(1).standard_normal(87))))


def scores(names):
    return encode(names).double().flatten(1)[:, space.FEATURES] @ MODEL.matrix.diagonal()


@pytest.mark.parametrize("budget", [{}, {"max_params": 66_000_000}, {"max_macs": 12_000_000_000}])
def test_it_comes_close_to_the_optimum_of_an_easy_model(budget):
    optimum, seen = exact.best(MODEL, **budget).scores[0], []

    def count(names):
        seen.extend(names)
        return scores(names)

    found = evolve(count, 3000, **budget)
    assert found[2:] == (0, 0, len(seen), space.NUM_ARCHITECTURES - len(seen), np.inf, False)
    assert 1000 < len(set(seen)) == len(seen) <= 3000  # no architecture twice
    sizes = space.measure(seen)
    assert sizes.parameters.max() <= budget.get("max_params", np.inf)
    assert sizes.macs.max() <= budget.get("max_macs", np.inf)
    assert found.architectures == sorted(seen, key=dict(zip(seen, scores(seen).tolist(), strict=True)).get)[:10]
    assert found.scores == pytest.approx(scores(found.architectures).numpy(), abs=1e-9)
    assert optimum - 1e-9 <= found.scores[0] <= optimum + (0.5 if budget else 1e-9)


def test_the_seed_decides_and_ties_are_in_the_order_of_the_strings():
    first, again, other = (evolve(scores, 200, seed=seed, top=5).architectures for seed in (3, 3, 4))
    assert first == again != other
    seen = []
    found = evolve(lambda names: seen.extend(names) or [0] * len(names), 300, top=20)
    assert found.architectures == sorted(seen)[:20]


def test_a_budget_that_nothing_meets_is_refused_before_anything_is_scored():
    with pytest.raises(InputError, match="the smallest has 55,882,752 parameters"):
        evolve(None, max_params=10**6)
    assert evolve(scores, 50, max_params=55_882_752).architectures == ["j" + "331" * 10 + "000000"]


def test_ctrl_c_ends_it_with_what_it_found():
    shares = []

    def progress(share, best):
        shares.append(share)
        if len(shares) == 20:
            assert best == min(scores(seen))
            signal.raise_signal(signal.SIGINT)

    seen = []
    found = evolve(lambda names: seen.extend(names) or scores(names), 1000, progress=progress)
    assert shares == pytest.approx([i / 100 for i in range(1, 21)])
    assert found.interrupted
    assert found.scored == len(seen) <= 200
    assert found.architectures[0] == min(seen, key=lambda name: scores([name]).item())
