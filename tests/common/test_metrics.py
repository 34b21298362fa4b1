import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm, rankdata

from common.metrics import MAX_PAIRED, best_validation, kendall_tau, normal_scores, pair_signs, ranks


def scipy_taus(scores, labels):
    return [kendalltau(x, y).statistic for x, y in zip(scores, labels, strict=True)]


@pytest.mark.parametrize(
    ("n", "levels"), [*itertools.product((2, 3, 8, 25), (2, 5, 10**6)), (MAX_PAIRED, 9), (MAX_PAIRED + 1, 9)]
)
def test_tau_equals_scipy(n, levels):
    random, rows = np.random.RandomState(n), 40 if n < 100 else 1
    scores = random.randint(levels, size=(rows, n)).astype(np.float32)
    labels = random.randint(levels, size=(rows, n))
    pair = torch.from_numpy(scores), torch.from_numpy(labels)
    taus = kendall_tau(*pair)
    assert taus.dtype == torch.float64
    np.testing.assert_allclose(taus, scipy_taus(scores, labels), rtol=0, atol=1e-12)
    if n < 100:
        assert kendall_tau(*pair, pair_signs(pair[1])).tolist() == pytest.approx(taus.tolist(), abs=0, nan_ok=True)


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning", "ignore::RuntimeWarning")
def test_tau_is_nan_where_scipy_gives_nan():
    scores = torch.tensor([[1, 1, 1], [1, 2, 3], [1, 2, torch.nan], [1, torch.inf, -torch.inf]])
    labels = torch.tensor([[0, 1, 2], [5, 5, 5], [0, 1, 2], [0, 1, 2]])
    taus = kendall_tau(scores, labels)
    finite = scores.clamp(-9, 9).numpy()  # the same order: scipy 1.13 gives NaN for infinities of both signs
    np.testing.assert_allclose(taus, scipy_taus(finite, labels.numpy()), atol=1e-12)
    assert taus.isnan().tolist() == [True, True, True, False]
    assert kendall_tau(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()


def test_tau_of_a_perfect_order_is_1_and_of_a_reversed_one_minus_1():
    order = torch.tensor([1e-45, 3e-45, 0.0, 1.0])  # floats that differ in the last bit
    assert kendall_tau(order.expand(2, 4), torch.tensor([[1, 2, 0, 3], [2, 1, 3, 0]])).tolist() == [1, -1]


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3, 2)), ((1, 3), (2, 3))])
def test_tau_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"expected two \(b, n\) tensors"):
        kendall_tau(torch.ones(shapes[0]), torch.ones(shapes[1]))


def test_the_best_validation_is_the_latest_of_equal_taus_and_never_nan():
    assert best_validation([(1, 0.5), (5, 0.9), (10, math.nan), (15, 0.9), (20, -1.0)]) == (0.9, 15)
    tau, epoch = best_validation([(1, math.nan), (2, math.nan)])
    assert math.isnan(tau) and epoch == 2


RANDOM = np.random.RandomState(0)
SCORES = {
    "none": [],
    "one": [3.0],
    "equal": [2, 2, 2],
    "ties": [1, 3, 2, 3, 0],
    "infinite": [-np.inf, 0, np.inf, 0],
    "many ties": RANDOM.randint(50, size=400) / 7,
    "float32": RANDOM.randn(400).astype(np.float32),
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_a_rank_is_the_number_of_smaller_scores(scores):
    found = ranks(scores)
    assert found.dtype == np.int64
    assert found.tolist() == [sum(other < score for other in scores) for score in scores]


def test_ranks_of_a_hundred_thousand_ties():
    scores = np.random.RandomState(0).randint(3, size=100_000)
    smaller = np.array([(scores < value).sum() for value in range(3)])
    assert (ranks(scores) == smaller[scores]).all()


@pytest.mark.parametrize("labels", [[2, 0, 1], [5.0, 5.0, -1.0, 7.0, 5.0], [3], np.arange(500)])
def test_normal_scores_are_the_quantiles_of_mean_ranks(labels):
    expected = norm.ppf((rankdata(labels) - 0.5) / len(labels))
    np.testing.assert_allclose(normal_scores(labels), expected, rtol=0, atol=1e-12)
