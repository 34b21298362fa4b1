"""The optimiser step equals autograd and torch.optim.Adam."""

import pytest
import torch
from plain import pair_loss

from dataset import encode
from network import Predictor, pairwise_ranking_loss
from recipes.step import TrainingStep, bernoulli_is_uniform
from space import sample_architectures


def steps(batch_size, dropout_ratio, loss, scale=1.0, count=20):
    """Take steps with the hand-written gradient and with autograd: (scores, gradient, parameters) of both, each step.

    scale: of the scores.
    """
    torch.manual_seed(batch_size)
    ours, theirs = Predictor(dropout_ratio), Predictor(dropout_ratio)
    ours.fc2.weight.data *= scale
    theirs.load_state_dict(ours.state_dict())
    step = TrainingStep(ours, batch_size, weight_decay=6e-4)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=6e-4)
    for seed in range(count):
        encodings, labels = encode(sample_architectures(batch_size, seed)), torch.randperm(batch_size).float()
        labels[1] = labels[0]  # a tie
        decay = 6e-4 * torch.nn.utils.parameters_to_vector(theirs.parameters())
        torch.manual_seed(seed)
        output = theirs(encodings)
        optimizer.zero_grad()
        loss(output, labels).backward()
        optimizer.step()
        torch.manual_seed(seed)
        keep, scores = 1 - dropout_ratio, torch.empty(batch_size, 1)
        masks = [torch.empty(batch_size, width).bernoulli_(keep).div_(keep) for width in (32, 16, 32)]
        with torch.no_grad():
            step(ours.pos(encodings).flatten(1), torch.sign(labels[:, None] - labels), scores, masks, lr=1e-2)
        gradient = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
        vectors = [torch.nn.utils.parameters_to_vector(predictor.parameters()) for predictor in (ours, theirs)]
        yield (scores[:, 0], step.gradient, vectors[0]), (output, gradient + decay, vectors[1])


@pytest.mark.parametrize(
    ("batch_size", "dropout_ratio"), [(3, 0.5), (8, 0.4), (25, 0.4), (32, 0.0), (32, 0.4), (32, 0.5), (50, 0.5)]
)
def test_a_step_equals_autograd_to_the_last_bit(batch_size, dropout_ratio):
    for (scores, _, parameters), (output, _, expected) in steps(batch_size, dropout_ratio, pair_loss):
        assert torch.equal(scores, output)
        assert torch.equal(parameters, expected)


def test_scores_that_overflow_exp_have_the_gradient_of_the_loss():
    (((scores, gradient, _), (_, expected, _)),) = steps(8, 0.0, pairwise_ranking_loss, scale=1e6, count=1)
    assert scores.max() - scores.min() > 100
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("dtype", "same"), [(torch.float64, True), (torch.float32, False)])
def test_it_is_noticed_how_bernoulli_draws(monkeypatch, dtype, same):
    def bernoulli(tensor, p, generator):
        return tensor.copy_(torch.empty_like(tensor, dtype=dtype).uniform_(generator=generator) < p)

    monkeypatch.setattr(torch.Tensor, "bernoulli_", bernoulli)
    assert bernoulli_is_uniform("cpu") is same
