"""The predictor and its loss beside plain NumPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from toy import one_hot

from dataset import encode
from network import Predictor, pairwise_ranking_loss
from space import VIT


def test_scores_follow_the_formula():
    """Positional encoding; a layer without activation; three with ReLU; a score."""
    architectures, predictor = VIT.sample(20, seed=1), Predictor(*VIT.shape).double().eval()
    assert sum(parameter.numel() for parameter in predictor.parameters()) == 26_929
    angles = np.arange(37)[:, None] / 10000 ** (np.arange(5) / 5)
    table = np.stack([np.sin(angles), np.cos(angles)], 2).reshape(37, 10).astype(np.float32)
    x = np.array([(one_hot(VIT, architecture).astype(float) + table).ravel() for architecture in architectures])
    for i, linear in enumerate(predictor.linears()):
        x = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        x = np.maximum(x, 0) if i in (1, 2, 3) else x
    scores = predictor(encode(VIT, architectures).double()).detach()
    np.testing.assert_allclose(scores, x[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 25])
def test_the_loss_of_each_batch_is_the_mean_over_its_pairs(n):
    random = np.random.RandomState(n)
    scores, labels = random.randn(3, n) * 3, random.randint(n, size=(3, n))
    arguments = torch.tensor(scores, requires_grad=True), torch.tensor(labels)
    pairs = list(itertools.permutations(range(n), 2))
    for o, y, loss in zip(scores, labels, pairwise_ranking_loss(*arguments), strict=True):
        terms = [math.log(1 + math.exp(-(o[i] - o[j]) * np.sign(y[i] - y[j]))) for i, j in pairs]
        np.testing.assert_allclose(loss.item(), np.mean(terms), rtol=1e-13)
    assert torch.autograd.gradcheck(pairwise_ranking_loss, arguments)


@pytest.mark.parametrize("scale", [79.0, 81.0, 1e38])
def test_the_loss_does_not_overflow(scale):
    scores = torch.tensor([0.0, scale], requires_grad=True)
    wrong = pairwise_ranking_loss(scores, torch.tensor([1, 0]))
    wrong.backward()
    assert wrong.item() == pytest.approx(scale)
    assert scores.grad.tolist() == pytest.approx([-1, 1])
    assert 0 <= pairwise_ranking_loss(scores, torch.tensor([0, 1])).item() < 1e-20
