import signal

import numpy as np
import pytest
import torch

from common.files import InputError
from dataset import encode
from recipes.model import Model
from search.evolution import evolve
from search.exact import best
from space import FEATURES, NUM_ARCHITECTURES, measure

MODEL = Model(torch.diag(torch.from_numpy(np.random.RandomState(1).standard_normal(87))))


def scores(names):
    return encode(names).double().flatten(1)[:, FEATURES] @ MODEL.matrix.diagonal()


@pytest.mark.parametrize("budget", [{}, {"max_params": 66_000_000}, {"max_macs": 13_000_000_000}])
def test_it_comes_close_to_the_optimum_of_an_easy_model(budget):
    exact = best(MODEL, **budget)
    found, values, *_, scored, left, gap, interrupted = evolve(scores, 3000, **budget)
    assert (scored + left, gap, interrupted) == (NUM_ARCHITECTURES, np.inf, False)
    assert values[0] == pytest.approx(exact.scores[0], abs=0.5 if budget else 1e-9)
    assert values.tolist() == pytest.approx(scores(found).tolist())
    assert (np.diff(values) >= 0).all()
    assert 1000 < scored <= 3000  # no architecture twice
    assert measure(found).parameters.max() <= budget.get("max_params", 2**60)
    assert measure(found).macs.max() <= budget.get("max_macs", 2**60)


def test_a_budget_that_nothing_meets_is_refused():
    with pytest.raises(InputError, match="the smallest has 55,882,752 parameters"):
        evolve(len, max_params=10**6)


def test_ctrl_c_ends_it_with_what_it_found():
    def interrupting(share, best):
        if share > 0.2:
            signal.raise_signal(signal.SIGINT)

    found = evolve(scores, 1000, progress=interrupting)
    assert found.interrupted
    assert found.scored <= 210
    assert len(found.architectures) == 10
