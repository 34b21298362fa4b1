import math

import numpy as np
import pytest
import torch
from helpers import one_hot

from dataset import encode
from network import Predictor, pairwise_ranking_loss
from space import sample_architectures

SHAPES = {"fc1": (64, 370), "net.0": (32, 64), "net.3": (16, 32), "net.6": (32, 16), "fc2": (1, 32)}


def test_parameters_have_the_names_of_the_published_checkpoints():
    state = Predictor().state_dict()
    expected = {"pos.pos_table": (1, 40, 10)}
    for name, shape in SHAPES.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    assert {name: tuple(value.shape) for name, value in state.items()} == expected
    assert list(state) == list(expected)
    assert sum(parameter.numel() for parameter in Predictor().parameters()) == 26929


def test_scores_follow_the_formula():
    """Positional encoding; a layer without activation; three with ReLU; a score."""
    architectures, predictor = sample_architectures(20, seed=1), Predictor().double().eval()
    table = np.float32(
        [[[math.sin, math.cos][j % 2](row / 10000 ** (j // 2 / 5)) for j in range(10)] for row in range(37)]
    )
    x = np.array([(one_hot(architecture).astype(float) + table).ravel() for architecture in architectures])
    for name, linear in zip(SHAPES, predictor.linears(), strict=True):
        assert linear is predictor.get_submodule(name)
        x = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        x = np.maximum(x, 0) if "net" in name else x
    with torch.no_grad():
        np.testing.assert_allclose(predictor(encode(architectures).double()), x[:, 0], rtol=0, atol=1e-12)


def test_units_are_dropped_with_the_given_probability():
    assert [layer.p for layer in Predictor(0.25).net if isinstance(layer, torch.nn.Dropout)] == [0.25] * 3


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
    scores, labels = random.randn(3, n) * 3, random.randint(n, size=(3, n))
    leaf = torch.tensor(scores, requires_grad=True)
    losses = pairwise_ranking_loss(leaf, torch.tensor(labels))  # of three batches at once
    losses.sum().backward()
    for i in range(3):
        expected, gradient = double_loop(scores[i], labels[i])
        np.testing.assert_allclose(losses[i].item(), expected, rtol=1e-13)
        np.testing.assert_allclose(leaf.grad[i], gradient, rtol=0, atol=1e-14)


def test_loss_of_undecided_scores_is_log_2():
    assert pairwise_ranking_loss(torch.zeros(5), torch.arange(5)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [50.0, 79.0, 81.0, 100.0, 1e4, 1e38])
def test_loss_does_not_overflow(scale):
    scores = torch.tensor([0.0, scale], requires_grad=True)
    wrong = pairwise_ranking_loss(scores, torch.tensor([1, 0]))
    wrong.backward()
    assert wrong.item() == pytest.approx(scale)
    assert scores.grad.tolist() == pytest.approx([-1, 1])
    right = pairwise_ranking_loss(scores, torch.tensor([0, 1]))
    assert 0 <= right.item() < 1e-20
