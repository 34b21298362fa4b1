"""The reference's method: curves equal to the reference's, snapshots, and the reference's own files."""

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from helpers import REAL_DATA, REFERENCE, ROOT, make_entries, needs_real_data, old_torch
from scipy.stats import kendalltau

from common.files import InputError
from dataset import ArchPerfDataset, encode, load_train
from network import Predictor
from recipes import plain, reference
from recipes.base import TooFewError
from recipes.model import score
from recipes.reference import train
from space import sample_architectures
from tasks import TASKS, find_task

ARCHITECTURES = sample_architectures(200, seed=1)
ENCODINGS = encode(ARCHITECTURES)
RANKS = np.array([entry["cplfw_rank"] for entry in make_entries(ARCHITECTURES).values()])


def trained(task, report=None, **changes):
    return train(dataclasses.replace(task, **changes), ENCODINGS, RANKS, report=report)


@old_torch
@needs_real_data
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_curves_are_the_references(task):
    """All epochs of the two tasks that do not depend on the machine's rounding, the first epochs of the others."""
    path = REAL_DATA.parents[1] / "reference" / "cpu_curves.json"
    expected = json.loads(path.read_text())["tasks"][task.rank_key]
    architectures, ranks = load_train(REAL_DATA)
    whole = task.name in ("dukemtmc", "veriwild")
    curve = []

    class EnoughError(Exception):
        pass

    def report(*values):
        curve.append(values)
        if not whole and len(curve) == 10:
            raise EnoughError

    with contextlib.suppress(EnoughError):
        fitted, _ = REFERENCE.learn(task, architectures, ranks[task.name], report=report)
    validations = [(epoch, tau) for epoch, _, _, tau in curve if tau is not None]
    known = expected["validate_ktau"][: len(validations)]
    assert [epoch for epoch, _ in validations] == [epoch for epoch, _ in known]
    equal = [abs(tau - other) <= 1e-5 for (_, tau), (_, other) in zip(validations, known, strict=True)]
    assert len(equal) == (400 if whole else 3 if task.val_interval == 5 else 10)
    assert sum(equal) >= 395 if whole else all(equal[:3])
    assert [loss for _, loss, _, _ in curve[:3]] == pytest.approx(expected["train_loss"][:3], abs=2e-6)
    assert [tau for _, _, tau, _ in curve[:3]] == pytest.approx(expected["train_ktau"][:3], abs=2e-6)
    if whole:  # and the weights are the published ones
        published = REFERENCE.load(REFERENCE.path(ROOT / "results" / "published", task), task).checkpoint
        again, used = (each["snapshots"][task.snapshot] for each in (fitted, published))
        assert again["epoch"] == used["epoch"]
        for name, value in used["state_dict"].items():
            torch.testing.assert_close(again["state_dict"][name], value, rtol=0, atol=1e-6)
        assert fitted["whole_ktau"] == pytest.approx(published["whole_ktau"], abs=1e-6)


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
    data = ArchPerfDataset(data_folder, task.name)
    predictor, losses, train_taus, validation_taus = plain.train(task, data, task.num_epochs)
    reports = []
    fitted = train(task, data.encodings, data.ranks, report=lambda *values: reports.append(values))
    np.testing.assert_allclose(fitted["train_loss"], losses, rtol=1e-6)
    np.testing.assert_allclose(fitted["train_ktau"], train_taus, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fitted["validate_ktau"], validation_taus, rtol=0, atol=1e-9)
    taus = [dict(fitted["validate_ktau"]).get(epoch) for epoch in range(1, task.num_epochs + 1)]
    assert reports == list(
        zip(range(1, 1 + len(losses)), fitted["train_loss"], fitted["train_ktau"], taus, strict=True)
    )
    last = next(snapshot for snapshot in fitted["snapshots"].values() if snapshot["epoch"] == validation_taus[-1][0])
    if last["epoch"] == task.num_epochs:
        for name, value in predictor.state_dict().items():
            assert torch.equal(last["state_dict"][name], value)
    scoring = Predictor().eval()
    scoring.load_state_dict(fitted["snapshots"][fitted["index"]]["state_dict"])
    start = int(task.train_ratio * 200)
    with torch.no_grad():
        tau = kendalltau(scoring(data.encodings[start:]).numpy(), data.ranks[start:]).statistic
    assert fitted["whole_ktau"] == pytest.approx(tau)


def test_snapshots_ascend_and_of_equal_taus_the_later_stays():
    # One batch of 8: few different taus.
    changes = {"num_epochs": 60, "train_ratio": 0.95}
    fitted = trained(TASKS[0], keep=1000, **changes)
    latest = {tau: epoch for epoch, tau in fitted["validate_ktau"]}
    assert len(latest) < 60
    kept = list(fitted["snapshots"].values())
    assert [(snapshot["ktau"], snapshot["epoch"]) for snapshot in kept] == sorted(latest.items())
    assert list(fitted["snapshots"]) == list(range(-len(latest), 0))
    fewer = list(trained(TASKS[0], keep=5, **changes)["snapshots"].values())
    assert [snapshot["epoch"] for snapshot in fewer] == [snapshot["epoch"] for snapshot in kept[-5:]]
    for a, b in zip(fewer, kept[-5:], strict=True):
        assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])


@pytest.mark.parametrize(("keep", "index"), [(50, -3), (2, -2)])
def test_the_chosen_index_is_the_nearest_kept(keep, index):
    fitted = trained(find_task("veriwild"), num_epochs=3, batch_size=8, keep=keep)
    assert fitted["index"] == index
    assert REFERENCE.snapshot_index(fitted) == index
    used = fitted["snapshots"][index]
    curve = max((tau, epoch) for epoch, tau in fitted["validate_ktau"])
    assert list(REFERENCE.summary(fitted).values()) == [*curve, index, used["ktau"], fitted["whole_ktau"]]
    assert REFERENCE.describe(fitted) == f"snapshot  {index}  validation tau {used['ktau']:.4f}"
    for other, held in ((-1, -1), (0, index), (-index - 1, -1)):
        assert REFERENCE.snapshot_index(fitted, other) == held
        states = [fitted["snapshots"][held]["state_dict"], *REFERENCE.model(fitted, held).networks]
        assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, states), strict=True))
    for other in (index - 1, -index):
        with pytest.raises(InputError, match=f"no snapshot {other}: it holds {-index}, {index} to -1"):
            REFERENCE.snapshot_index(fitted, other)
    only = fitted | {"snapshots": {index: used}}
    assert REFERENCE.snapshot_index(only, 0) == index
    with pytest.raises(InputError, match=f"no snapshot -9: it holds only {index}, the one that scores: train to keep"):
        REFERENCE.snapshot_index(only, -9)


def test_a_nan_tau_ranks_below_every_number_and_is_remarked(monkeypatch):
    taus = iter([math.nan, -0.5, 0.2, math.nan, 0.1])
    monkeypatch.setattr(reference.Batches, "tau", lambda part: next(taus) if part.count == 7 else 0.0)
    fitted = trained(TASKS[0], num_epochs=5)  # 200 - 140 architectures validate: 7 batches
    assert [snapshot["epoch"] for snapshot in fitted["snapshots"].values()] == [4, 2, 5, 3]
    assert math.isnan(fitted["snapshots"][-4]["ktau"])
    remark = REFERENCE.remark(fitted)
    assert remark.startswith("tau is undefined (nan) at 2 of 5 validations, first after epoch 1: ")
    assert remark.endswith("; scoring uses epoch 3, tau 0.2000")
    assert REFERENCE.remark(fitted | {"validate_ktau": [(1, 0.1)]}) is None


def test_a_constant_predictor_gives_nan_and_trains_on(monkeypatch):
    def constant(dropout_ratio=0.5):
        predictor = Predictor(dropout_ratio)
        for parameter in (*predictor.fc2.parameters(), *predictor.net[6].parameters()):
            torch.nn.init.zeros_(parameter)
        return predictor

    monkeypatch.setattr(reference, "Predictor", constant)
    fitted = trained(TASKS[0], num_epochs=2)
    assert all(math.isnan(tau) for tau in [*dict(fitted["validate_ktau"]).values(), *fitted["train_ktau"]])
    assert fitted["train_loss"] == pytest.approx([math.log(2)] * 2)
    assert [snapshot["epoch"] for snapshot in fitted["snapshots"].values()] == [2]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_diverging_loss_ends_the_run_and_keeps_the_snapshots(monkeypatch, loss):
    with pytest.raises(InputError, match=r"^stopped: the loss is nan in epoch 1: lower --lr; nothing was saved"):
        trained(find_task("market1501"), lr=1e30, batch_size=8)
    losses = iter([0.7, 0.6, 0.5, loss])
    monkeypatch.setattr(reference.Trainer, "loss", lambda trainer: next(losses))
    fitted = trained(find_task("market1501"), num_epochs=50, batch_size=8)
    np.testing.assert_array_equal(fitted["train_loss"], [0.7, 0.6, 0.5, loss])
    assert [epoch for epoch, _ in fitted["validate_ktau"]] == [1, 2, 3]
    assert (
        fitted["stopped"] == f"stopped: the loss is {loss} in epoch 4: lower --lr; the snapshots before it were saved"
    )


def test_where_bernoulli_draws_in_its_own_way_it_is_called_as_the_reference_does(monkeypatch):
    if not reference.bernoulli_is_uniform("cpu"):
        pytest.skip("this machine's bernoulli_ is not uniform_() < p")
    losses = []
    for uniform in (True, False):
        monkeypatch.setattr(reference, "bernoulli_is_uniform", lambda device, uniform=uniform: uniform)
        losses.append(trained(find_task("veri"), num_epochs=3, batch_size=8)["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("task", [*TASKS, find_task("own")], ids=lambda task: task.name)
def test_too_few_architectures_say_how_many_are_needed(task):
    for n in (2, 20, task.batch_size):
        with pytest.raises(TooFewError, match=f"^{task.name}: {n} architectures are too few for batches of ") as caught:
            REFERENCE.train_steps(task, n)
        error = caught.value
        assert f"the recipe needs {error.needed}" in str(error)
        assert REFERENCE.train_steps(task, error.needed)[0] == 400
        with pytest.raises(TooFewError):
            REFERENCE.train_steps(task, error.needed - 1)
        n_train, n_validation = (len(part) for part in np.split(np.arange(n), [int(task.train_ratio * n)]))
        assert error.batch_size == min(n_train, n_validation)
        if error.batch_size >= 2:
            steps = REFERENCE.train_steps(dataclasses.replace(task, batch_size=error.batch_size), n)
            assert steps == (400, n_train // error.batch_size)


def write_pickle(path, taus, key=np.float64, zipped=False):
    """A file of the reference, {validation tau: state dict}; returns the state dicts."""
    states = [Predictor().state_dict() for _ in taus]
    content = {key(tau): state for tau, state in zip(taus, states, strict=True)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return states


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", [np.float64, float])
def test_a_file_of_the_reference_is_read_by_its_taus(tmp_path, key, zipped):
    path, taus = tmp_path / "sop_final.pth", [0.5, 0.9, -0.1, 0.7, 0.8]
    states = write_pickle(path, taus, key, zipped)
    encodings = encode(ARCHITECTURES[:9])
    for index, tau in ((None, 0.5), (-1, 0.9), (-2, 0.8), (0, -0.1)):  # sop's own index is -4
        predictor = REFERENCE.load(path, find_task("sop"), index)
        assert predictor.checkpoint["snapshots"][predictor.snapshot]["ktau"] == tau
        expected = Predictor().eval()
        expected.load_state_dict(states[taus.index(tau)])
        with torch.no_grad():
            torch.testing.assert_close(score([predictor.model], ARCHITECTURES[:9])[0], expected(encodings))
    with pytest.raises(InputError, match=r"sop_final\.pth: no snapshot -43: it holds 5, -5 to -1"):
        REFERENCE.load(path, find_task("veriwild"))


def test_a_nan_tau_of_the_reference_ranks_below_every_number(tmp_path):
    write_pickle(tmp_path / "file", [0.3, math.nan, -0.2, math.nan])
    snapshots = REFERENCE.load(tmp_path / "file", TASKS[0]).checkpoint["snapshots"]
    assert [snapshots[index]["ktau"] for index in (-1, -2)] == [0.3, -0.2]
    assert all(math.isnan(snapshots[index]["ktau"]) for index in (-3, -4))


@pytest.mark.parametrize(
    "content",
    [{}, [], {"a": 1}, {0.4: "weights"}, {0.4: {"fc1.weight": 1.0}}, {0.4: {}, "more": {}}, {0.4: {}}, 0.4, None],
    ids=str,
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "file")
    with pytest.raises(InputError, match=r"file: not a checkpoint that main\.py wrote: ") as caught:
        REFERENCE.load(tmp_path / "file", TASKS[0])
    assert "\n" not in str(caught.value)
