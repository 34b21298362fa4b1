"""Kendall's tau, ranks and normal scores, each compared with scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm, rankdata

from common.metrics import MAX_PAIRED, best_validation, kendall_tau, normal_scores, pair_signs, ranks


def scipy_taus(scores, labels):
    return [kendalltau(x, y).statistic for x, y in zip(scores, labels, strict=True)]


@pytest.mark.parametrize("n", [2, 3, 25, MAX_PAIRED, MAX_PAIRED + 1])
@pytest.mark.parametrize("levels", [3, 10**6])
def test_tau_equals_scipy(n, levels):
    random, rows = np.random.RandomState(n), 40 if n < 100 else 2
    scores, labels = torch.from_numpy(random.randint(levels, size=(2, rows, n)))
    taus = kendall_tau(scores.float(), labels)
    assert taus.dtype == torch.float64
    assert not (taus.abs() > 1).any()
    np.testing.assert_allclose(taus, scipy_taus(scores, labels), rtol=0, atol=1e-12)
    if n < 100:
        np.testing.assert_array_equal(kendall_tau(scores, labels, pair_signs(labels)), taus)


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning", "ignore::RuntimeWarning")
def test_tau_of_special_values_equals_scipy():
    inf, nan = math.inf, math.nan
    scores = torch.tensor([[1, 1, 1], [1, 2, nan], [1, inf, -inf], [1e-45, 3e-45, 0]])
    labels = torch.tensor([0, 1, 2]).expand(4, 3)
    finite = scores.clamp(-9, 9)  # the same order: scipy 1.13 gives NaN for infinities of both signs
    expected = scipy_taus(finite, labels)
    for pair in ((scores, labels), (labels, scores)):
        np.testing.assert_allclose(kendall_tau(*pair), expected, rtol=0, atol=1e-12)
    assert kendall_tau(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((1, 3), (2, 3))])
def test_tau_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"expected two \(b, n\) tensors"):
        kendall_tau(*map(torch.ones, shapes))


def test_the_best_validation_is_the_latest_of_equal_taus_and_never_nan():
    assert best_validation([(1, 0.5), (5, 0.9), (10, math.nan), (15, 0.9), (20, -1.0)]) == (0.9, 15)
    tau, epoch = best_validation([(1, math.nan), (2, math.nan)])
    assert math.isnan(tau) and epoch == 2


RANDOM = np.random.RandomState(0)
SCORES = {
    "none": [],
    "one": [3],
    "equal": [2, 2, 2],
    "infinite": [-np.inf, 0, np.inf, 0],
    "many ties": RANDOM.randint(3, size=100_000),
    "float32": RANDOM.randn(400).astype(np.float32),
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_ranks_and_normal_scores_equal_scipy(scores):
    found = ranks(scores)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, rankdata(scores, "min") - 1)
    expected = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    np.testing.assert_allclose(normal_scores(scores), expected, rtol=0, atol=1e-12)
