"""Training tasks side by side: checkpoints, TensorBoard's logs, --resume, and what stays when something goes wrong."""

import errno
import fcntl
import logging
import multiprocessing
import os
import re
import resource
import signal
import sys

import numpy as np
import pytest
import torch
from helpers import REFERENCE, ROOT, OwnRecipe, add_recipe, make_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.files import InputError, log, sha256
from dataset import Data, Labels
from engine import training
from engine.checkpoint import to_bytes, versions
from engine.trained import header, learn
from recipes.base import TooFewError
from space import VIT
from tasks import TRAIN_FILE, find_task

ARCHITECTURES, RANKS = VIT.sample(40, seed=1), [7 * i % 40 for i in range(40)]
LABELS = Labels.of(ARCHITECTURES, RANKS, measured=False)
SHORT = {"num_epochs": 3, "batch_size": 4, "val_interval": 2}


@pytest.fixture
def train(tmp_path, caplog):
    """train(*tasks): train them on 40 architectures, in r/ and l/: TrainingResult; caplog has what it said."""
    caplog.set_level(logging.INFO, log.name)

    def run(*names, **options):
        ranks = dict(zip(ARCHITECTURES, RANKS, strict=True))
        entries = {arch: {"arch": arch} | {f"{name}_rank": rank for name in names} for arch, rank in ranks.items()}
        data = Data(make_data(tmp_path / "data", entries), "data")
        caplog.clear()
        where = {"results": tmp_path / "r", "logs": tmp_path / "l", "raise_errors": False}
        return training.train(data, **where | options)

    return run


def test_all_that_is_learnt_is_saved_reported_and_logged(train, tmp_path):
    reports = []
    result = train("mine", "veri", settings=SHORT, report=lambda *values: reports.append(values))
    assert (list(result.trained), result.errors, result.interrupted) == (["veri", "mine"], {}, False)
    task = REFERENCE.configure(find_task("mine"), SHORT)
    fitted, _ = learn(REFERENCE, task, LABELS)
    about = header(REFERENCE, task, sha256(tmp_path / "data" / TRAIN_FILE))
    assert (tmp_path / "r" / "mine_final.pth").read_bytes() == to_bytes(about | fitted)
    assert result.trained["mine"].summary == REFERENCE.summary(fitted)
    losses, taus = fitted["train_loss"], fitted["train_ktau"]
    rows = zip((1, 2, 3), losses, taus, [None] * 3, strict=True)  # few validate: their taus are not shown
    assert [row for row in reports if row[0] == "mine"] == [("mine", epoch, 3, *figures) for epoch, *figures in rows]
    for part, tag, curve in (
        ("train", "loss", enumerate(losses, 1)),
        ("train", "ktau", enumerate(taus, 1)),
    ):
        events = EventAccumulator(str(tmp_path / "l" / "mine" / part)).Reload().Scalars(f"mine/{tag}")
        np.testing.assert_allclose([(event.step, event.value) for event in events], list(curve), rtol=1e-6)


# Task -> what is changed in its checkpoint before --resume: trained again, and with the later ones a message is due.
CHANGES = {
    "stopped": {"stopped": "the loss is nan"},
    "other-settings": {"task": {**SHORT, "name": "other-settings", "lr": 1}},
    "other-versions": {"versions": versions() | {"torch": "1.0"}},
    "other-code": {"code": "f" * 64},
    "other-data": {"data": "f" * 64},
    "other-recipe": {"recipe": "gp"},
    "no-snapshot": {"index": 5},
}


def test_resume_skips_only_what_would_be_repeated_and_says_what_it_replaces(train, tmp_path, caplog):
    names, data = ["missing", "same", *CHANGES, "cut"], tmp_path / "data" / TRAIN_FILE
    train(*names, settings=SHORT)
    paths = {name: tmp_path / "r" / f"{name}_final.pth" for name in names}
    good = {name: path.read_bytes() for name, path in paths.items()}
    for name, change in CHANGES.items():
        paths[name].write_bytes(to_bytes(torch.load(paths[name], weights_only=True) | change))
    paths["cut"].write_bytes(good["cut"][:-1])
    paths["missing"].unlink()
    assert list(train(*names, settings=SHORT, resume=True).trained) == names
    assert {name: path.read_bytes() for name, path in paths.items()} == good
    said = [message for message in caplog.messages[1:] if "other-settings" not in message]
    assert said == [
        f"already trained on {data} with these settings: same",
        "replaces checkpoints of stopped: stopped early, the loss is nan",
        f"replaces checkpoints of other-versions: torch 1.0, now {torch.__version__}",
        "replaces checkpoints of other-code: the recipe's code has changed",
        f"replaces checkpoints that were not trained on {data}: {', '.join(names[6:])}",
        f"training 9 of 10 tasks on the 40 architectures of {data}",
    ]
    (settings,) = set(caplog.messages[1:]) - set(said)
    assert settings.startswith("replaces checkpoints of other-settings: lr 1, now 0.001; ")


def test_other_settings_replace_a_checkpoint_with_a_line(train, caplog):
    for settings in (SHORT, SHORT | {"seed": 5}):
        train("mine", settings=settings)
    keep = "seed 1, now 5: to keep them, choose another results_path and save_name"
    assert f"replaces checkpoints of mine: {keep}" in caplog.messages


def test_labels_in_the_order_of_the_file_are_said(train, monkeypatch, caplog):
    monkeypatch.setattr(sys.modules[__name__], "RANKS", list(range(40)))
    train("mine", settings=SHORT)
    assert (
        "mine: the labels follow the order of the file, whose last entries validate: shuffle the file"
        in caplog.messages
    )
    train("mine", recipe="gp")
    assert not [message for message in caplog.messages if "order of the file" in message]


def test_python_users_get_errors_raised_and_remarks_as_warnings(run, train, caplog):
    with pytest.raises(InputError, match=r"^wrong: why$"):
        run("right", "wrong", end=refuse, raise_errors=True)
    train("mine", recipe="gp", raise_errors=True)
    assert ("WARNING", "mine: only 40 labels: intervals are rough below 100") in [
        (record.levelname, record.message) for record in caplog.records
    ]


@pytest.mark.parametrize(("recipe", "tags"), [("gp", {"likelihood", "ktau"}), ("ridge", {"ktau"})])
def test_recipes_log_a_tau_under_one_tag_and_no_file_without_a_scalar(tmp_path, recipe, tags):
    architectures = VIT.sample(120, seed=1)
    entries = {arch: {"arch": arch, "mine_rank": arch.count("1") + i % 5} for i, arch in enumerate(architectures)}
    data = Data(make_data(tmp_path / "data", entries), "data")
    training.train(data, recipe=recipe, results=tmp_path / "r", logs=tmp_path / "l")
    found = {}
    for path in (tmp_path / "l" / "mine").glob("*/events*"):
        scalars = EventAccumulator(str(path)).Reload()
        found |= {tag.split("/")[1]: scalars.Scalars(tag)[-1].value for tag in scalars.Tags()["scalars"]}
        assert scalars.Tags()["scalars"]
    assert found.keys() == tags
    checkpoint = torch.load(tmp_path / "r" / f"mine_{recipe}.pth", weights_only=True)
    assert found["ktau"] == pytest.approx(checkpoint["loo_ktau"], abs=1e-6)


def train_in(folder):
    options = {"results": folder, "logs": folder, "device": torch.device("cpu")}
    return list(training.train(Data(folder, "data"), recipe="gp", **options).trained)


def test_a_daemonic_process_trains_in_itself(tmp_path):
    entries = {arch: {"arch": arch, "mine_rank": rank} for arch, rank in zip(ARCHITECTURES, RANKS, strict=True)}
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(train_in, [make_data(tmp_path, entries)]) == [["mine"]]


class Ending(OwnRecipe):
    """Logs an epoch; `end`, if there is one, then ends the training of the task `wrong`."""

    end = None

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        report(1, 0.5, None, 0.25)
        if self.end and task.name == "wrong":
            self.end()
        return super().fit(task, encodings, ranks)


@pytest.fixture
def run(train, monkeypatch):
    """Train with `Ending`, one task after the other: run(*tasks, end=None, ...)."""
    add_recipe(monkeypatch, Ending)

    def run(*names, end=None, seed=1, **options):
        monkeypatch.setattr(Ending, "end", end and staticmethod(end))
        return train(*names, recipe="own", jobs=1, settings={"seed": seed}, **options)

    return run


def outputs(folder):
    """{path: bytes} of the files in r/ and l/."""
    paths = [path for path in folder.glob("[rl]/**/*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def refuse():
    raise InputError("why")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def fail_as_tensorboard():
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(name, *_):
    if name == "wrong":
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("end", "report", "error"),
    [
        (refuse, None, "why"),
        (die, None, "its process died, exit status -9"),
        (fill_the_disk, None, "/.*/(r/wrong_own.pth|l/wrong): File too large"),
        (fail_as_tensorboard, None, "/.*/l/wrong: No space left on device"),
        (signal.pause, interrupt, None),
    ],
)
def test_a_task_that_goes_wrong_keeps_its_files_and_the_others_have_new_ones(run, tmp_path, end, report, error):
    run("right", "wrong")
    before = outputs(tmp_path)
    result = run("right", "wrong", end=end, report=report, seed=2)
    assert (list(result.trained), result.interrupted) == (["right"], error is None)
    assert list(result.errors) == (["wrong"] if error else [])
    assert all(re.fullmatch(error, found) for found in result.errors.values())
    after = outputs(tmp_path)
    assert len(after) == len(before) == 6  # a checkpoint and two event files each
    for path, content in before.items():
        assert (after.get(path) == content) == ("wrong" in str(path))


def test_the_logs_of_a_killed_training_are_cleared_by_the_next(run, tmp_path):
    def kill_a_training():
        """Return when none of its processes is left."""
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                run("wrong", end=signal.pause, seed=2, report=lambda *_: die())
            finally:
                os._exit(1)
        os.close(write)
        os.read(read, 1)  # ends when no process holds the other end
        os.close(read)
        os.waitpid(child, 0)

    run("wrong")
    before = outputs(tmp_path)
    for then in ({"end": refuse}, {"resume": True}):
        kill_a_training()
        assert len(outputs(tmp_path)) == 5
        run("wrong", **then)
        assert outputs(tmp_path) == before
    kill_a_training()
    run("wrong")
    after = outputs(tmp_path)
    assert len(after) == 3 and len(after.keys() - before.keys()) == 2  # new logs alone
    assert not [path for path in after if "previous" in path.name]


def test_an_output_that_cannot_be_written_is_said_before_training(train, tmp_path):
    """The second task's: the first one is not trained."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "b_final.pth").symlink_to(tmp_path / "data" / TRAIN_FILE)
    (tmp_path / "x" / "b").mkdir(parents=True)
    lock = os.open(tmp_path / "x" / "b" / ".lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for folders, message in (
        ({}, "r/b_final.pth: would replace .*data"),
        (
            {"results": tmp_path / "s", "logs": tmp_path / "x"},
            "x/b: another training of the same name writes there: wait, or choose",
        ),
        ({"logs": tmp_path / "\udcff"}, "/a: not UTF-8, which TensorBoard needs"),
        ({"logs": ROOT / "logs" / "published"}, "published/a/events: part of the published run"),
    ):
        with pytest.raises(InputError, match=message):
            train("a", "b", settings=SHORT, **folders)
    os.close(lock)
    assert not [path for path in tmp_path.rglob("*final.pth") if not path.is_symlink()]


def test_a_task_that_stopped_early_or_ranks_nothing_is_remarked(train, monkeypatch):
    class Constant(OwnRecipe):
        def fit(self, *arguments):
            return {"effects": torch.zeros(370), "stopped": "early"}

    add_recipe(monkeypatch, Constant)
    found = train("a", recipe="own").trained["a"]
    assert (found.error, found.remark) == ("early", "gives one score to all architectures: it ranks nothing")


def test_of_tasks_with_too_few_architectures_the_one_that_needs_most_is_named(train):
    """With a batch size that would do for all."""
    with pytest.raises(TooFewError, match=r"^sop: 40 architectures .*; the recipe needs 246$") as caught:
        train("sop", "mine")
    assert caught.value.batch_size == 4  # a tenth of 40 validate mine
