"""The optimiser step equals autograd and torch.optim.Adam."""

import pytest
import torch
from plain import pair_loss

from dataset import encode
from network import Predictor, pairwise_ranking_loss
from recipes import step as step_module
from recipes.step import AutogradStep, TrainingStep, is_written_out
from space import VIT


def steps(batch_size, dropout_ratio, loss, scale=1.0, count=20):
    """Take steps with the hand-written gradient and with autograd: (scores, gradient, parameters) of both, each step.

    scale: of the scores.
    """
    torch.manual_seed(batch_size)
    ours, theirs = Predictor(*VIT.shape, dropout_ratio), Predictor(*VIT.shape, dropout_ratio)
    ours.fc2.weight.data *= scale
    theirs.load_state_dict(ours.state_dict())
    step = TrainingStep(ours, batch_size, weight_decay=6e-4)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=6e-4)
    for seed in range(count):
        encodings, labels = encode(VIT, VIT.sample(batch_size, seed)), torch.randperm(batch_size).float()
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
            step(step.inputs(encodings), labels, torch.sign(labels[:, None] - labels), scores, masks, lr=1e-2)
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


def test_the_step_by_autograd_takes_the_same_one():
    """Its dropout is the network's own, which draws as the masks do."""
    torch.manual_seed(0)
    predictor, encodings, labels = (
        Predictor(*VIT.shape, 0.4),
        encode(VIT, VIT.sample(16, 1)),
        torch.randperm(16).float(),
    )
    with torch.inference_mode():
        steps = AutogradStep(predictor, 6e-4), TrainingStep(predictor, 16, 6e-4)
        found = []
        for step in steps:
            torch.manual_seed(1)
            scores = torch.empty(3, 16, 1)
            for i in range(2):
                masks = [torch.empty_like(hidden).bernoulli_(0.6).div_(0.6) for hidden in step.hidden[1:]]
                signs = torch.sign(labels[:, None] - labels)
                step(step.inputs(encodings), labels, signs, scores[i], masks, lr=1e-2)
            step.forward(step.inputs(encodings), scores[2])
            found.append(torch.cat([scores.flatten(), step.parameters]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def gelu(predictor):
    predictor.net[1] = torch.nn.GELU()


def deeper(predictor):
    predictor.net.append(torch.nn.Linear(32, 32))


def less_dropout(predictor):
    predictor.net[2].p = 0.1


@pytest.mark.parametrize("change", [gelu, deeper, less_dropout])
def test_another_network_or_loss_is_noticed(monkeypatch, change):
    predictor, batch = Predictor(*VIT.shape, 0.4), (encode(VIT, VIT.sample(16, 1)), torch.randperm(16).float())
    assert is_written_out(predictor, *batch, 0.4)
    hinge = lambda scores, labels: (1 - (scores[:, None] - scores) * torch.sign(labels[:, None] - labels)).relu().mean()  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(step_module, "pairwise_ranking_loss", hinge)
        assert not is_written_out(predictor, *batch, 0.4)
    change(predictor)
    before = torch.get_rng_state()
    assert not is_written_out(predictor, *batch, 0.4)
    assert torch.equal(torch.get_rng_state(), before)
