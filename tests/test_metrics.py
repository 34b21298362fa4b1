import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from metrics import kendall_tau, ranks


def scipy_taus(scores, labels):
    return [kendalltau(x, y).statistic for x, y in zip(scores, labels, strict=True)]


@pytest.mark.parametrize("n", [2, 3, 8, 25, 50])
@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_tau_equals_scipy(n, levels):
    random = np.random.RandomState(n * levels % 1000)
    scores = random.randint(levels, size=(40, n)).astype(np.float32)
    labels = random.randint(levels, size=(40, n))
    taus = kendall_tau(torch.from_numpy(scores), torch.from_numpy(labels))
    np.testing.assert_allclose(taus, scipy_taus(scores, labels), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning", "ignore::RuntimeWarning")
def test_tau_is_nan_where_scipy_gives_nan():
    scores = torch.tensor([[1, 1, 1], [1, 2, 3], [1, 2, torch.nan], [1, torch.inf, -torch.inf]])
    labels = torch.tensor([[0, 1, 2], [5, 5, 5], [0, 1, 2], [0, 1, 2]])
    taus = kendall_tau(scores, labels)
    finite = scores.clamp(-9, 9).numpy()  # the same order: scipy 1.13 gives NaN for infinities of both signs
    np.testing.assert_allclose(taus, scipy_taus(finite, labels.numpy()), atol=1e-12)
    assert taus.isnan().tolist() == [True, True, True, False]
    assert kendall_tau(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()


def test_tau_orders_floats_that_differ_in_the_last_bit():
    close = torch.tensor([[1e-45, 3e-45, 0.0]])
    assert kendall_tau(close, torch.tensor([[1, 2, 0]])).item() == 1


def test_tau_of_a_perfect_and_a_reversed_order():
    order = torch.arange(10.0).expand(2, 10)
    assert kendall_tau(order, torch.stack([order[0], -order[1]])).tolist() == [1, -1]


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3, 2)), ((1, 3), (2, 3))])
def test_tau_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"expected two \(b, n\) tensors"):
        kendall_tau(torch.ones(shapes[0]), torch.ones(shapes[1]))


@pytest.mark.parametrize("scores", [[], [3.0], [2, 2, 2], [1, 3, 2, 3, 0], [-np.inf, 0, np.inf, 0]])
def test_ranks_follow_the_definition(scores):
    assert ranks(np.array(scores)).tolist() == [sum(other < score for other in scores) for score in scores]


def test_ranks_of_random_scores_with_ties():
    scores = np.random.RandomState(0).randint(50, size=400) / 7
    assert ranks(scores).tolist() == [sum(other < score for other in scores) for score in scores]


def test_nan_has_no_rank():
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        ranks([1, np.nan, 2])
