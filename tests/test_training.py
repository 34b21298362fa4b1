import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import OLD_TORCH, REAL_DATA, REFERENCE

import dataset
import training
from network import Predictor, pairwise_ranking_loss
from tasks import TASKS, SettingError, find_task
from tools import plain


def one_step_each(dtype, batch_size, dropout_ratio, steps=20):
    """Take the same steps with the hand-written gradient and with autograd and torch.optim.Adam."""
    torch.manual_seed(batch_size)
    ours, theirs = Predictor(dropout_ratio).to(dtype), Predictor(dropout_ratio).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    step = training.TrainingStep(ours, batch_size, weight_decay=6e-4)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=6e-4)
    scores = torch.empty(batch_size, 1, dtype=dtype)
    for seed in range(steps):
        encodings = dataset.encode(dataset.sample_architectures(batch_size, seed)).to(dtype)
        labels = torch.randperm(batch_size).to(dtype)
        labels[1] = labels[0]  # a tie

        decay = 6e-4 * torch.cat([parameter.detach().flatten() for parameter in theirs.parameters()])
        torch.manual_seed(seed)
        output = theirs(encodings)
        optimizer.zero_grad()
        (plain.pair_loss if dtype == torch.float32 else pairwise_ranking_loss)(output, labels).backward()
        optimizer.step()

        torch.manual_seed(seed)
        masks = [torch.empty(batch_size, width, dtype=dtype) for width in (32, 16, 32)]
        for mask in masks:
            mask.bernoulli_(1 - dropout_ratio).div_(1 - dropout_ratio)
        order = torch.sign(labels[:, None] - labels[None, :])
        with torch.no_grad():
            step(ours.pos(encodings).flatten(1), order, scores, masks, lr=1e-2)
        gradient = decay + torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
        yield ours, theirs, step.gradient, gradient, scores.squeeze(1), output.detach()


@pytest.mark.parametrize(("batch_size", "dropout_ratio"), [(2, 0.5), (8, 0.4), (25, 0.4), (32, 0.0)])
def test_the_step_equals_autograd_in_float64(batch_size, dropout_ratio):
    for ours, theirs, gradient, expected, scores, output in one_step_each(torch.float64, batch_size, dropout_ratio):
        np.testing.assert_allclose(scores, output, rtol=0, atol=1e-12)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-14)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(a.detach(), b.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_step_equals_autograd_to_the_last_bit_in_float32(task):
    for ours, theirs, _, _, scores, output in one_step_each(torch.float32, task.batch_size, task.dropout_ratio):
        assert torch.equal(scores, output)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cos": False, "seed": 9, "batch_size": 7},
        {"val_interval": 2, "dropout_ratio": 0.0, "train_ratio": 0.6, "lr": 3e-3},
        {"weight_decay": 0.0, "num_epochs": 5},
    ],
)
def test_training_equals_the_plain_loop(data_folder, changes):
    task = dataclasses.replace(find_task("dukemtmc"), **{"num_epochs": 6, "batch_size": 16, **changes})
    data = dataset.ArchPerfDataset(data_folder, task.name)
    predictor, losses, train_taus, validation_taus = plain.train(task, data, task.num_epochs)
    run = training.train(task, data.encodings, data.ranks)
    np.testing.assert_allclose(run.train_loss, losses, rtol=1e-6)
    np.testing.assert_allclose(run.train_ktau, train_taus, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run.validate_ktau, validation_taus, rtol=0, atol=1e-9)
    last = next(snapshot for snapshot in run.snapshots if snapshot.epoch == validation_taus[-1][0])
    if last.epoch == task.num_epochs:
        for name, value in predictor.state_dict().items():
            assert torch.equal(last.state_dict[name], value)


@OLD_TORCH
@pytest.mark.skipif(not REAL_DATA.exists(), reason="needs the competition's training file in ../shared/data")
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_reference_curves(task):
    """All epochs of the two tasks that do not depend on the machine's rounding, the first epochs of the others."""
    reference = json.loads(REFERENCE.read_text())["tasks"][task.rank_key]
    architectures, ranks = dataset.load_train(REAL_DATA)
    whole = task.name in ("dukemtmc", "veriwild")
    curve = []

    class EnoughError(Exception):
        pass

    def report(epoch, *values):
        curve.append((epoch, *values))
        if not whole and epoch == 10:
            raise EnoughError

    with contextlib.suppress(EnoughError):
        training.train(task, dataset.encode(architectures), ranks[task.name], report=report)
    validations = [(epoch, tau) for epoch, _, _, tau in curve if tau is not None]
    expected = reference["validate_ktau"][: len(validations)]
    assert [epoch for epoch, _ in validations] == [epoch for epoch, _ in expected]
    equal = [abs(tau - value) <= 1e-5 for (_, tau), (_, value) in zip(validations, expected, strict=True)]
    assert len(equal) == (400 if whole else 3 if task.val_interval == 5 else 10)
    assert sum(equal) >= 395 if whole else all(equal[:3])
    assert [loss for _, loss, _, _ in curve[:3]] == pytest.approx(reference["train_loss"][:3], abs=2e-6)
    assert [tau for _, _, tau, _ in curve[:3]] == pytest.approx(reference["train_ktau"][:3], abs=2e-6)


@pytest.fixture
def small(train_content):
    architectures = [entry["arch"] for entry in train_content.values()]
    return dataset.encode(architectures), [entry["cplfw_rank"] for entry in train_content.values()]


def validated(run):
    return [tau for _, tau in run.validate_ktau]


def test_snapshots_ascend_and_of_equal_taus_the_later_stays(small):
    # One batch of 8: few different taus.
    task = dataclasses.replace(TASKS[0], num_epochs=60, train_ratio=0.95, keep=1000)
    run = training.train(task, *small)
    latest = {tau: epoch for epoch, tau in run.validate_ktau}
    assert len(latest) < 60
    assert [(snapshot.ktau, snapshot.epoch) for snapshot in run.snapshots] == sorted(latest.items())
    fewer = training.train(dataclasses.replace(task, keep=5), *small)
    assert [snapshot.epoch for snapshot in fewer.snapshots] == [snapshot.epoch for snapshot in run.snapshots[-5:]]
    for a, b in zip(fewer.snapshots, run.snapshots[-5:], strict=True):
        assert all(torch.equal(a.state_dict[name], b.state_dict[name]) for name in a.state_dict)


def test_the_chosen_index_is_the_nearest_kept(small):
    task = dataclasses.replace(TASKS[6], num_epochs=3, batch_size=8)
    run = training.train(task, *small)
    assert (task.snapshot, len(run.snapshots), run.index) == (-43, 3, -3)


def test_a_nan_tau_ranks_below_every_number(small, monkeypatch):
    taus = iter([math.nan, -0.5, 0.2, math.nan, 0.1])
    monkeypatch.setattr(training.Batches, "ktau", lambda part: next(taus) if part.count == 7 else 0.0)
    task = dataclasses.replace(TASKS[0], num_epochs=5)  # 200 - 140 architectures validate: 7 batches
    run = training.train(task, *small)
    assert [snapshot.epoch for snapshot in run.snapshots] == [4, 2, 5, 3]
    assert math.isnan(run.snapshots[0].ktau)


def test_a_constant_predictor_gives_nan_and_trains_on(small, monkeypatch):
    def constant(dropout_ratio):
        predictor = Predictor(dropout_ratio)
        for parameter in predictor.fc2.parameters():
            torch.nn.init.zeros_(parameter)
        for parameter in predictor.net[6].parameters():
            torch.nn.init.zeros_(parameter)
        return predictor

    monkeypatch.setattr(training, "Predictor", constant)
    run = training.train(dataclasses.replace(TASKS[0], num_epochs=2), *small)
    assert all(math.isnan(tau) for tau in validated(run) + run.train_ktau)
    assert run.train_loss == pytest.approx([math.log(2)] * 2)
    assert [snapshot.epoch for snapshot in run.snapshots] == [2]


def test_a_diverging_loss_ends_the_run_and_keeps_the_snapshots(small):
    task = dataclasses.replace(TASKS[3], num_epochs=50, lr=1e12, batch_size=8)
    run = training.train(task, *small)
    assert "lower --lr" in run.stopped
    assert len(run.train_loss) < 50
    assert len(run.validate_ktau) == len(run.train_loss) - 1
    assert all(math.isfinite(loss) for loss in run.train_loss[:-1])


def test_where_bernoulli_draws_in_its_own_way_it_is_called_as_the_reference_does(monkeypatch):
    encodings = dataset.encode(dataset.sample_architectures(60, seed=1))
    task = dataclasses.replace(find_task("veri"), num_epochs=3, batch_size=8)
    runs = []
    for uniform in (True, False):
        monkeypatch.setattr(training, "bernoulli_is_uniform", lambda device, uniform=uniform: uniform)
        runs.append(training.train(task, encodings, range(60)))
    monkeypatch.undo()
    if not training.bernoulli_is_uniform("cpu"):
        pytest.skip("this machine's bernoulli_ is not uniform_() < p")
    assert runs[0].train_loss == runs[1].train_loss


def test_the_step_of_scores_that_overflow_exp_has_the_gradient_of_the_loss():
    torch.manual_seed(0)
    ours, theirs, labels = Predictor(0.0), Predictor(0.0), torch.arange(8.0)
    with torch.no_grad():
        ours.fc2.weight.mul_(1e6)
    theirs.load_state_dict(ours.state_dict())
    encodings, scores = dataset.encode(dataset.sample_architectures(8, seed=0)), torch.empty(8, 1)
    pairwise_ranking_loss(theirs(encodings), labels).backward()
    step = training.TrainingStep(ours, 8, weight_decay=0.0)
    with torch.no_grad():
        order, masks = torch.sign(labels[:, None] - labels[None, :]), [torch.ones(8, width) for width in (32, 16, 32)]
        step(ours.pos(encodings).flatten(1), order, scores, masks, lr=1e-3)
    assert scores.max() - scores.min() > 100
    expected = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])
    torch.testing.assert_close(step.gradient, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("n", "part"), [(8, "training"), (30, "validation")])
def test_a_part_smaller_than_a_batch_is_refused(small, n, part):
    encodings, ranks = small
    task = dataclasses.replace(TASKS[0], train_ratio=0.9)
    with pytest.raises(SettingError, match=f"cplfw: the {part} split has . of the {n} architectures"):
        training.train(task, encodings[:n], ranks[:n])
