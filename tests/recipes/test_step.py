"""The optimiser step equals autograd and torch.optim.Adam."""

import numpy as np
import pytest
import torch

from dataset import encode
from network import Predictor, pairwise_ranking_loss
from recipes.plain import pair_loss
from recipes.step import TrainingStep, bernoulli_is_uniform
from space import sample_architectures
from tasks import TASKS


def signs(labels):
    return torch.sign(labels[:, None] - labels[None, :])


def one_step_each(dtype, batch_size, dropout_ratio, steps=20):
    """Take the same steps with the hand-written gradient and with autograd and torch.optim.Adam."""
    torch.manual_seed(batch_size)
    ours, theirs = Predictor(dropout_ratio).to(dtype), Predictor(dropout_ratio).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    step = TrainingStep(ours, batch_size, weight_decay=6e-4)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=6e-4)
    scores = torch.empty(batch_size, 1, dtype=dtype)
    for seed in range(steps):
        encodings = encode(sample_architectures(batch_size, seed)).to(dtype)
        labels = torch.randperm(batch_size).to(dtype)
        labels[1] = labels[0]  # a tie

        decay = 6e-4 * torch.cat([parameter.detach().flatten() for parameter in theirs.parameters()])
        torch.manual_seed(seed)
        output = theirs(encodings)
        optimizer.zero_grad()
        (pair_loss if dtype == torch.float32 else pairwise_ranking_loss)(output, labels).backward()
        optimizer.step()

        torch.manual_seed(seed)
        masks = [torch.empty(batch_size, width, dtype=dtype) for width in (32, 16, 32)]
        for mask in masks:
            mask.bernoulli_(1 - dropout_ratio).div_(1 - dropout_ratio)
        with torch.no_grad():
            step(ours.pos(encodings).flatten(1), signs(labels), scores, masks, lr=1e-2)
        gradient = decay + torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
        yield ours, theirs, step.gradient, gradient, scores.squeeze(1), output.detach()


@pytest.mark.parametrize(("batch_size", "dropout_ratio"), [(2, 0.5), (8, 0.4), (32, 0.0)])
def test_a_step_equals_autograd_in_float64(batch_size, dropout_ratio):
    for ours, theirs, gradient, expected, scores, output in one_step_each(torch.float64, batch_size, dropout_ratio):
        np.testing.assert_allclose(scores, output, rtol=0, atol=1e-12)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-14)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(a.detach(), b.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_step_equals_autograd_to_the_last_bit_in_float32(task):
    for ours, theirs, _, _, scores, output in one_step_each(torch.float32, task.batch_size, task.dropout_ratio):
        assert torch.equal(scores, output)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_scores_that_overflow_exp_have_the_gradient_of_the_loss():
    torch.manual_seed(0)
    ours, theirs, labels = Predictor(0.0), Predictor(0.0), torch.arange(8.0)
    with torch.no_grad():
        ours.fc2.weight.mul_(1e6)
    theirs.load_state_dict(ours.state_dict())
    encodings, scores = encode(sample_architectures(8, seed=0)), torch.empty(8, 1)
    pairwise_ranking_loss(theirs(encodings), labels).backward()
    step = TrainingStep(ours, 8, weight_decay=0.0)
    with torch.no_grad():
        masks = [torch.ones(8, width) for width in (32, 16, 32)]
        step(ours.pos(encodings).flatten(1), signs(labels), scores, masks, lr=1e-3)
    assert scores.max() - scores.min() > 100
    expected = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
    torch.testing.assert_close(step.gradient, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("other", ["value", "stream"])
def test_a_bernoulli_that_draws_in_its_own_way_is_noticed(monkeypatch, other):
    def bernoulli(tensor, p, generator):
        drawn = torch.empty(len(tensor), dtype=torch.float64).uniform_(generator=generator)
        if other == "stream":
            drawn.uniform_(generator=generator)
        return tensor.copy_(drawn < p if other == "stream" else drawn >= p)

    monkeypatch.setattr(torch.Tensor, "bernoulli_", bernoulli)
    assert not bernoulli_is_uniform("cpu")
