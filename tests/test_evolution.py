import signal

import evolution
import numpy as np
import pytest
import torch
from files import InputError
from scoring import Model

import search
import space
from dataset import FEATURES, encode

MODEL = Model(torch.diag(torch.from_numpy(np.random.RandomState(1).standard_normal(87))))


def scores(names):
    return encode(names).double().flatten(1)[:, FEATURES] @ MODEL.matrix.diagonal()


@pytest.mark.parametrize("budget", [{}, {"max_params": 66_000_000}])
def test_it_comes_close_to_the_optimum_of_an_easy_model(budget):
    exact = search.best(MODEL, **budget)
    found, values, *_, scored, left, gap, interrupted = evolution.evolve(scores, 3000, **budget)
    assert (scored + left, gap, interrupted) == (space.NUM_ARCHITECTURES, np.inf, False)
    assert values[0] == pytest.approx(exact.scores[0], abs=0.5 if budget else 1e-9)
    assert values.tolist() == pytest.approx(scores(found).tolist())
    assert (np.diff(values) >= 0).all()
    assert 1000 < scored <= 3000  # no architecture twice
    assert space.measure(found).parameters.max() <= budget.get("max_params", 2**60)


def test_the_largest_are_the_smallest_of_the_negative():
    largest = evolution.evolve(lambda names: -scores(names), 500, largest=True)
    assert largest[0] == evolution.evolve(scores, 500)[0]


def test_nan_and_a_budget_that_nothing_meets_are_refused():
    with pytest.raises(InputError, match="NaN"):
        evolution.evolve(lambda names: [float("nan")] * len(names), 10)
    with pytest.raises(space.BudgetError, match="the smallest has 55,882,752 parameters"):
        evolution.evolve(len, max_params=10**6)


def test_ctrl_c_ends_it_with_what_it_found():
    def interrupting(share, best):
        if share > 0.2:
            signal.raise_signal(signal.SIGINT)

    found = evolution.evolve(scores, 1000, progress=interrupting)
    assert found.interrupted
    assert found.scored <= 210
    assert len(found.architectures) == 10
