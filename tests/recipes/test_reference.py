"""The reference's method: the plain loop's curves and weights, snapshots, and the reference's own files."""

import contextlib
import dataclasses
import json
import math

import numpy as np
import plain
import pytest
import torch
from helpers import REAL_DATA, REFERENCE, needs_real_data, old_torch
from scipy.stats import kendalltau

import network
from common.files import InputError
from dataset import ArchPerfDataset, Labels, encode, load_train
from engine.model import score
from engine.predictors import load
from engine.trained import learn, load_checkpoint
from network import Predictor
from recipes import reference
from recipes.base import Model, TooFewError
from recipes.reference import best_validation, train
from space import VIT
from tasks import TASKS, Task, find_task

ENCODINGS, RANKS = encode(VIT, VIT.sample(200, seed=1)), np.random.RandomState(0).permutation(200)


# The reference's own curves on two kinds of CPU: they round differently, and training shows it.
KINDS = [REAL_DATA.parents[1] / "reference" / name for name in ("cpu_curves.json", "cpu_curves_intel.json")]
CURVES = ("train_loss", "train_ktau", "validate_ktau")


def curves(task, labels, epochs):
    """The curves of the first epochs, and the fitted part of the checkpoint if they are all."""
    reports, fitted = [], None

    def report(*values):
        reports.append(values)
        if len(reports) == epochs < task.num_epochs:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        fitted, _ = learn(REFERENCE, task, labels, report=report)
    _, losses, train_taus, _ = zip(*reports, strict=True)
    return [losses, train_taus, [(epoch, tau) for epoch, _, _, tau in reports if tau is not None]], fitted


@old_torch
@needs_real_data
@pytest.mark.parametrize("epochs", [10, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_the_curves_are_the_references_on_this_kind_of_cpu(epochs):
    """In all eight tasks; on the published run's kind of CPU, its snapshots come out as well."""
    _, labels = load_train(REAL_DATA)
    found, fitted = {}, {}
    for task in TASKS:
        found[task.rank_key], fitted[task.name] = curves(task, labels[task.name], epochs)

    def is_of(kind):
        expected = json.loads(kind.read_text())["tasks"]
        pairs = [(curve, expected[key][name]) for key in found for name, curve in zip(CURVES, found[key], strict=True)]
        return all(np.allclose(curve, other[: len(curve)], rtol=0, atol=1e-6, equal_nan=True) for curve, other in pairs)

    kinds = [kind.stem for kind in KINDS if is_of(kind)]
    if not kinds:
        for task in TASKS:
            data = ArchPerfDataset(REAL_DATA.parent, task.name)
            for curve, other in zip(found[task.rank_key], plain.train(task, data, epochs)[1:], strict=True):
                np.testing.assert_allclose(curve, other, rtol=1e-6, atol=1e-9)
        pytest.skip("the reference was not run on this kind of CPU; the curves are those of the plain loop")
    if epochs == 400 and "cpu_curves" in kinds:
        for published in load():
            task, learnt = published.task, fitted[published.task.name]
            snapshots = [each["snapshots"][task.snapshot] for each in (learnt, published.checkpoint)]
            torch.testing.assert_close(*snapshots, rtol=0, atol=1e-6)
            assert learnt["whole_ktau"] == pytest.approx(published.checkpoint["whole_ktau"], abs=1e-6)


def trained(**settings):
    return train(dataclasses.replace(find_task("veriwild"), batch_size=8, cos=False, **settings), ENCODINGS, RANKS)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 16, "weight_decay": 0.0},
        {"cos": False, "seed": 9, "batch_size": 7},
        {"val_interval": 2, "dropout_ratio": 0.0, "train_ratio": 0.6, "lr": 3e-3},
    ],
)
def test_curves_and_weights_are_those_of_the_plain_loop(data_folder, changes):
    task = dataclasses.replace(find_task("dukemtmc"), num_epochs=4, keep=4, snapshot=-1, **changes)
    data, start, reports = ArchPerfDataset(data_folder, task.name), int(task.train_ratio * 200), []
    fitted = train(task, data.encodings, data.ranks, report=lambda *values: reports.append(values))
    predictor, losses, train_taus, validation_taus = plain.train(task, data, 4)
    np.testing.assert_allclose(fitted["train_loss"], losses, rtol=1e-6)
    np.testing.assert_allclose(fitted["train_ktau"], train_taus, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fitted["validate_ktau"], validation_taus, rtol=0, atol=1e-9)
    validated, taus = 200 - start, map(dict(fitted["validate_ktau"]).get, range(1, 5))
    taus = list(taus) if validated >= 25 else [None] * 4
    assert fitted.get("validated", 200) == (200 if validated >= 25 else validated)
    assert reports == list(zip(range(1, 5), fitted["train_loss"], fitted["train_ktau"], taus, strict=True))
    (last,) = (each for each in fitted["snapshots"].values() if each["epoch"] == 4)
    torch.testing.assert_close(last["state_dict"], predictor.state_dict(), rtol=0, atol=0)
    predictor.load_state_dict(fitted["snapshots"][-1]["state_dict"])
    with torch.no_grad():
        scores = predictor.eval()(data.encodings[start:]).numpy()
    assert fitted["whole_ktau"] == pytest.approx(kendalltau(scores, data.ranks[start:]).statistic)


@pytest.mark.parametrize(("keep", "epochs"), [(9, [4, 6, 7, 5, 3]), (3, [7, 5, 3])])
def test_snapshots_ascend_and_of_equal_taus_the_later_stays(monkeypatch, keep, epochs):
    taus = [math.nan, -0.5, 0.2, math.nan, 0.1, -0.9, -0.5]  # nan is the lowest
    monkeypatch.setattr(reference.Trainer, "validate", lambda trainer: taus[trainer.epochs - 1])
    fitted = trained(keep=keep, num_epochs=7)
    np.testing.assert_equal(
        [(index, each["epoch"], each["ktau"]) for index, each in fitted["snapshots"].items()],
        [(i - len(epochs), epoch, taus[epoch - 1]) for i, epoch in enumerate(epochs)],
    )
    assert fitted["index"] == -1  # the authors' -43 is of 400 validations
    early = trained(num_epochs=3)["snapshots"][-1]
    torch.testing.assert_close(fitted["snapshots"][-1], early, rtol=0, atol=0)


def test_a_diverging_loss_ends_the_run_and_keeps_the_snapshots(monkeypatch):
    with pytest.raises(InputError, match=r"^stopped: the loss is nan in epoch 1: lower lr; nothing was saved$"):
        trained(lr=1e30)
    losses = [0.7, 0.6, 0.5, math.inf]
    monkeypatch.setattr(reference.Trainer, "loss", lambda trainer: losses[trainer.epochs - 1])
    fitted = trained()
    assert (fitted["train_loss"], len(fitted["train_ktau"])) == (losses, 4)
    assert [epoch for epoch, _ in fitted["validate_ktau"]] == [1, 2, 3]
    assert fitted["stopped"] == "stopped: the loss is inf in epoch 4: lower lr; the snapshots before it were saved"


@pytest.mark.parametrize("task", [*TASKS, Task("own")], ids=lambda task: task.name)
def test_too_few_architectures_say_how_many_are_needed(task):
    sizes = [task.split_sizes(n) for n in range(400)]
    needed = next(n for n, split in enumerate(sizes) if min(split) >= task.batch_size)
    for n in range(needed):
        with pytest.raises(TooFewError) as caught:
            REFERENCE.train_steps(task, n)
        assert (caught.value.needed, caught.value.batch_size) == (needed, min(sizes[n]))
    assert REFERENCE.train_steps(task, needed) == (400, sizes[needed][0] // task.batch_size)


@pytest.mark.parametrize(("interval", "epochs", "place"), [(1, 400, -43), (1, 40, -1), (20, 400, -1)])
def test_the_authors_place_holds_for_as_many_validations_as_they_had(interval, epochs, place):
    task = dataclasses.replace(find_task("veriwild"), batch_size=40, num_epochs=epochs, val_interval=interval)
    assert train(task, ENCODINGS, RANKS)["index"] == place
    assert train(dataclasses.replace(task, snapshot=-2), ENCODINGS, RANKS)["index"] == -2


def test_the_best_validation_is_the_latest_of_equal_taus_and_never_nan():
    assert best_validation([(1, 0.5), (5, 0.9), (10, math.nan), (15, 0.9), (20, -1.0)]) == (0.9, 15)
    tau, epoch = best_validation([(1, math.nan), (2, math.nan)])
    assert math.isnan(tau) and epoch == 2


STATES = [Predictor(*VIT.shape).state_dict() for _ in range(3)]
CHECKPOINT = {
    "task": {"name": "sop", "snapshot": -2},
    "index": -2,
    "validate_ktau": [(1, 0.17), (5, 0.22), (10, 0.2)],
    "whole_ktau": 0.25,
    "snapshots": {
        -3: {"epoch": 1, "ktau": 0.17, "state_dict": STATES[0]},
        -2: {"epoch": 10, "ktau": 0.2, "state_dict": STATES[1]},
        -1: {"epoch": 5, "ktau": 0.22, "state_dict": STATES[2]},
    },
}


def test_snapshots_are_chosen_by_their_place():
    places = {index: REFERENCE.snapshot_index(CHECKPOINT, index) for index in (None, -1, -3, 0, 2)}
    assert places == {None: -2, -1: -1, -3: -3, 0: -3, 2: -1}
    for index in (-4, 3):
        with pytest.raises(InputError, match=f"^no snapshot {index}: it holds 3, -3 to -1$"):
            REFERENCE.snapshot_index(CHECKPOINT, index)
    only = {"index": -2, "snapshots": {-2: None}}
    with pytest.raises(InputError, match="no snapshot -1: it holds only -2, which ranks: train to keep more"):
        REFERENCE.snapshot_index(only, -1)
    assert REFERENCE.model(CHECKPOINT).networks == (STATES[1],)
    assert REFERENCE.model(CHECKPOINT, -1).networks == (STATES[2],)


def test_what_a_user_reads_about_a_trained_task():
    figures = {"best tau": 0.22, "epoch": 5, "snapshot": -2, "tau": 0.2, "whole split": 0.25}
    assert REFERENCE.summary(CHECKPOINT) == figures
    assert REFERENCE.describe(CHECKPOINT) == "snapshot  -2  validation tau 0.2000"
    assert REFERENCE.describe(CHECKPOINT, -1) == "snapshot  -1  validation tau 0.2200"
    assert REFERENCE.remark(CHECKPOINT) is None
    remark = REFERENCE.remark(CHECKPOINT | {"validate_ktau": [(1, 0.1), (2, math.nan), (3, math.nan)]})
    assert remark.startswith("at 2 of 3 validations, first after epoch 2, the network gave all architectures")
    assert remark.endswith("; the snapshot of epoch 10 ranks, tau 0.2000")
    remark = REFERENCE.remark(CHECKPOINT | {"validate_ktau": [(1, 0.3)]})
    assert remark == "the snapshot that ranks has a tau of 0.2000, the best one 0.3000"
    remark = REFERENCE.remark(CHECKPOINT | {"index": -1})
    assert remark == "the authors' snapshot -2 is of another number of validations: the best on validation ranks"
    few = CHECKPOINT | {"validated": 24}
    assert (REFERENCE.summary(few), REFERENCE.describe(few)) == ({}, "snapshot  -2")
    assert REFERENCE.remark(few).startswith("only 24 architectures validate, too few for a tau")


def test_a_network_that_cannot_be_merged_scores_itself(monkeypatch):
    """A researcher replaces an activation or widens a layer: scores are the edited network's."""

    class Edited(Predictor):
        def __init__(self, *shape, **kwargs):
            super().__init__(*shape, **kwargs)
            self.net[1] = torch.nn.GELU()

    class Wider(Predictor):
        def __init__(self, *shape, **kwargs):
            super().__init__(*shape, **kwargs)
            self.net[0], self.net[3] = torch.nn.Linear(64, 40), torch.nn.Linear(40, 16)

    architectures = VIT.sample(20, seed=1)
    for edited, is_merged in ((Edited, False), (Wider, True)):
        for module in (reference, network):
            monkeypatch.setattr(module, "Predictor", edited)
        labels = Labels.of(VIT.sample(60, seed=1), list(range(60)), measured=False)
        fitted, _ = learn(REFERENCE, Task("x", num_epochs=3, batch_size=6), labels)
        model, theirs = REFERENCE.model(fitted), edited(*VIT.shape).eval()
        theirs.load_state_dict(fitted["snapshots"][fitted["index"]]["state_dict"])
        assert isinstance(model, Model) == is_merged
        assert fitted.get("by_autograd", False) != is_merged
        model = model if is_merged else Model(VIT, function=model)
        torch.testing.assert_close(
            score([model], architectures)[0].float(), theirs(encode(VIT, architectures)).detach()
        )


def test_a_file_of_the_reference_is_read_by_its_taus(tmp_path):
    taus = [0.5, math.nan, np.float64(0.9), -0.1, 0.7, np.float64(0.8)]
    states = {tau: Predictor(*VIT.shape).state_dict() for tau in taus}
    torch.save(states, tmp_path / "file", _use_new_zipfile_serialization=False)
    for index, tau in ((None, 0.5), (-1, 0.9), (-2, 0.8), (0, math.nan), (1, -0.1)):  # sop's own index is -4
        predictor = load_checkpoint(REFERENCE, tmp_path / "file", find_task("sop"), index)
        torch.testing.assert_close(predictor.model.networks, (states[tau],), rtol=0, atol=0)
        np.testing.assert_equal(predictor.checkpoint["snapshots"][predictor.snapshot]["ktau"], tau)
    with pytest.raises(InputError, match="file: no snapshot -43: it holds 6, -6 to -1"):
        load_checkpoint(REFERENCE, tmp_path / "file", find_task("veriwild"))


@pytest.mark.parametrize("content", [{}, [], {0.4: {}}, {0.4: Predictor(*VIT.shape).state_dict(), "more": {}}], ids=len)
def test_a_file_that_holds_anything_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "file")
    with pytest.raises(InputError, match=r"file: the recipe reference cannot use it, train it again: .*\Z"):
        load_checkpoint(REFERENCE, tmp_path / "file", TASKS[0])
