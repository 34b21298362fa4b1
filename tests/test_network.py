import math

import numpy as np
import pytest
import torch

from network import PositionalEncoding, Predictor, pairwise_ranking_loss


def test_parameters_and_their_names():
    predictor = Predictor()
    assert sum(parameter.numel() for parameter in predictor.parameters()) == 26929
    names = ["pos.pos_table"]
    names += [f"{layer}.{kind}" for layer in ("fc1", "net.0", "net.3", "net.6", "fc2") for kind in ("weight", "bias")]
    assert list(predictor.state_dict()) == names
    assert predictor.pos.pos_table.shape == (1, 40, 10)


def test_positional_encoding_follows_the_formula():
    encoded = PositionalEncoding()(torch.zeros(2, 37, 10))
    for row in range(37):
        for j in range(10):
            angle = row / 10000 ** (2 * (j // 2) / 10)
            value = math.cos(angle) if j % 2 else math.sin(angle)
            assert encoded[1, row, j] == np.float32(value)


def double_loop(scores, labels):
    """The loss and its gradient from the definition."""
    n, loss, gradient = len(scores), 0.0, np.zeros(len(scores))
    for i in range(n):
        for j in range(n):
            if i != j:
                sign = np.sign(labels[i] - labels[j])
                exponential = math.exp(-(scores[i] - scores[j]) * sign)
                loss += math.log(1 + exponential) / (n * (n - 1))
                slope = -sign * exponential / (1 + exponential) / (n * (n - 1))
                gradient[i] += slope
                gradient[j] -= slope
    return loss, gradient


@pytest.mark.parametrize("n", [2, 3, 8, 25])
def test_loss_and_gradient_equal_a_double_loop(n):
    random = np.random.RandomState(n)
    scores, labels = random.randn(n) * 3, random.randint(n, size=n)
    expected, gradient = double_loop(scores, labels)
    leaf = torch.tensor(scores, requires_grad=True)
    loss = pairwise_ranking_loss(leaf, torch.tensor(labels))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-13)
    np.testing.assert_allclose(leaf.grad, gradient, rtol=0, atol=1e-14)


def test_loss_of_many_batches_is_the_loss_of_each():
    scores, labels = torch.randn(4, 9), torch.stack([torch.randperm(9) for _ in range(4)])
    each = torch.stack([pairwise_ranking_loss(s, y) for s, y in zip(scores, labels, strict=True)])
    torch.testing.assert_close(pairwise_ranking_loss(scores, labels), each)


def test_loss_of_undecided_scores_is_log_2():
    assert pairwise_ranking_loss(torch.zeros(5), torch.arange(5)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [50.0, 100.0, 1e4, 1e38])
def test_loss_does_not_overflow(scale):
    scores = torch.tensor([0.0, scale], requires_grad=True)
    wrong = pairwise_ranking_loss(scores, torch.tensor([1, 0]))
    wrong.backward()
    assert wrong.item() == pytest.approx(scale)
    assert scores.grad.tolist() == pytest.approx([-1, 1])
    right = pairwise_ranking_loss(scores, torch.tensor([0, 1]))
    assert 0 <= right.item() < 1e-20
