"""Kendall's tau, ranks and normal scores, each compared with scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm, rankdata

from common.metrics import MAX_PAIRED, kendall_tau, normal_scores, pair_signs, ranks


@pytest.mark.parametrize("n", [2, 25, MAX_PAIRED, MAX_PAIRED + 1])
@pytest.mark.parametrize("levels", [3, 10**6])
def test_tau_equals_scipy(n, levels):
    random, rows = np.random.RandomState(n), 40 if n < 100 else 2
    scores, labels = torch.from_numpy(random.randint(levels, size=(2, rows, n)))
    taus = kendall_tau(scores.float(), labels)
    assert taus.dtype == torch.float64
    assert not (kendall_tau(labels, labels) > 1).any()
    expected = [kendalltau(*row).statistic for row in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(taus, expected, rtol=0, atol=1e-12)
    if n < 100:
        np.testing.assert_array_equal(kendall_tau(scores, labels, pair_signs(labels)), taus)


def test_tau_of_special_values():
    inf, nan = math.inf, math.nan
    scores = torch.tensor([[1, 1, 1], [1, 2, nan], [1, inf, -inf], [1e-45, 3e-45, 0]])
    labels, expected = torch.tensor([0, 1, 2]).expand(4, 3), [nan, nan, -1 / 3, -1 / 3]
    for pair in ((scores, labels), (labels, scores)):
        np.testing.assert_allclose(kendall_tau(*pair), expected, rtol=0, atol=1e-12)
    assert kendall_tau(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((1, 3), (2, 3))])
def test_tau_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"expected two \(b, n\) tensors"):
        kendall_tau(*map(torch.ones, shapes))


MANY = np.random.RandomState(0).randint(300, size=100_000) / 7


@pytest.mark.parametrize("scores", [[], [2, 2, 2], [-np.inf, 0, np.inf, 0], MANY], ids=len)
def test_ranks_and_normal_scores_equal_scipy(scores):
    found = ranks(scores)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, rankdata(scores, "min") - 1)
    expected = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    np.testing.assert_allclose(normal_scores(scores), expected, rtol=0, atol=1e-12)
