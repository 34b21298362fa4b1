"""Training tasks side by side: checkpoints, TensorBoard's logs, --resume, and what stays when something goes wrong."""

import errno
import fcntl
import logging
import os
import re
import resource
import signal
import types

import numpy as np
import pytest
import torch
from helpers import REFERENCE, OwnRecipe, add_recipe, make_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dataset
from common.files import InputError, log, sha256
from dataset import Data
from engine import training
from engine.checkpoint import to_bytes
from recipes.base import TooFewError
from space import sample_architectures
from tasks import TRAIN_FILE, find_task

ARCHITECTURES = sample_architectures(40, seed=1)
SHORT = {"num_epochs": 3, "batch_size": 4, "val_interval": 2}


@pytest.fixture
def train(tmp_path, caplog):
    """train(*tasks): train them on 40 architectures, in r/ and l/: TrainingResult; caplog has what it said."""
    caplog.set_level(logging.INFO, log.name)

    def run(*names, **options):
        entries = {name: {"arch": name} for name in ARCHITECTURES}
        for shift, name in enumerate(names):
            for i, entry in enumerate(entries.values()):
                entry[f"{name}_rank"] = (i + shift) % 40
        data = Data(make_data(tmp_path / "data", entries), "data")
        caplog.clear()
        return training.train(data, **{"results": tmp_path / "r", "logs": tmp_path / "l"} | options)

    return run


def test_all_that_is_learnt_is_saved_reported_and_logged(train, tmp_path, caplog):
    reports = []
    result = train("mine", "veri", settings=SHORT, report=lambda *values: reports.append(values))
    assert (list(result.trained), result.errors, result.interrupted) == (["veri", "mine"], {}, False)
    path = tmp_path / "data" / TRAIN_FILE
    assert caplog.messages[1:] == [f"training 2 of 2 tasks on the 40 architectures of {path}"]
    for shift, name in enumerate(("mine", "veri")):
        task = REFERENCE.configure(find_task(name), SHORT)
        fitted, _ = REFERENCE.learn(task, ARCHITECTURES, (np.arange(40) + shift) % 40)
        expected = REFERENCE.header(task, sha256(path), "cpu") | fitted
        assert (tmp_path / "r" / f"{name}_final.pth").read_bytes() == to_bytes(expected)
        found = result.trained[name]
        assert (found.summary, found.error, found.remark) == (REFERENCE.summary(fitted), None, REFERENCE.remark(fitted))
        validations = dict(fitted["validate_ktau"])
        curve = list(zip((1, 2, 3), fitted["train_loss"], fitted["train_ktau"], strict=True))
        expected = [(name, epoch, 3, loss, tau, validations.get(epoch)) for epoch, loss, tau in curve]
        assert [values for values in reports if values[0] == name] == expected
        logged = {}
        for part in ("train", "validate"):
            events = EventAccumulator(str(tmp_path / "l" / name / part)).Reload()
            for tag in events.Tags()["scalars"]:
                logged[part, tag] = [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
            if part == "train":
                (text,) = events.Tensors(f"{name}/settings/text_summary")
                assert b"\n| num_epochs | 3 |\n" in text.tensor_proto.string_val[0]
        assert logged == {
            ("train", f"{name}/loss"): [(epoch, loss) for epoch, loss, _ in curve],
            ("train", f"{name}/ktau"): [(epoch, tau) for epoch, _, tau in curve],
            ("validate", f"{name}/ktau"): list(validations.items()),
        }


# Task -> what is changed in its checkpoint before --resume: trained again, and with the later ones a message is due.
CHANGES = {
    "stopped": {"stopped": "the loss is nan"},
    "other-settings": {"task": {"name": "other-settings", "lr": 1}},
    "other-versions": {"versions": {"torch": "1.0"}},
    "other-data": {"data": "f" * 64},
    "other-recipe": {"recipe": "gp"},
    "no-snapshot": {"index": 5},
    "no-validation": {"validate_ktau": []},
    "huge-epoch": {"validate_ktau": [(10**400, 0.5)]},
    "text-as-number": {"whole_ktau": "x"},
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
    trained = train(*names, settings=SHORT, resume=True).trained
    assert list(trained) == names
    assert trained["same"] == (REFERENCE.summary(torch.load(paths["same"], weights_only=True)), 0, None, None)
    assert {name: path.read_bytes() for name, path in paths.items()} == good
    assert caplog.messages[1:] == [
        f"already trained on {data} with these settings: same",
        f"replaces checkpoints that were not trained on {data}: {', '.join(names[5:])}",
        f"training 11 of 12 tasks on the 40 architectures of {data}",
    ]
    assert [record.levelname for record in caplog.records[1:]] == ["INFO", "WARNING", "INFO"]  # Python shows warnings


class Ending(OwnRecipe):
    """Logs two epochs; `end`, if there is one, then ends the training of the task `wrong`."""

    settings = ("seed",)
    end = None

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        for epoch in (1, 2):
            report(epoch, 0.5, None, 0.25)
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
    return {path.relative_to(folder): path.read_bytes() for path in folder.glob("[rl]/**/*") if path.is_file()}


def refuse():
    raise InputError("why")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def fail_as_tensorboard():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
    ids=("mistake", "dead process", "full disk", "logs fail", "Ctrl-C"),
)
def test_a_task_that_goes_wrong_keeps_its_files_and_the_others_have_new_ones(run, tmp_path, capfd, end, report, error):
    run("right", "wrong")
    before = outputs(tmp_path)
    result = run("right", "wrong", end=end, report=report, seed=2)
    assert (list(result.trained), result.interrupted) == (["right"], error is None)
    assert all(re.fullmatch(error, found) for found in result.errors.values())
    assert ([*result.errors], capfd.readouterr().err) == (["wrong"] if error else [], "")
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


def test_an_output_that_cannot_be_written_is_said_before_training(train, tmp_path, monkeypatch):
    """The second task's: the first one is not trained."""
    monkeypatch.setattr(dataset, "__file__", str(tmp_path / "dataset.py"))  # whose published run is in logs/published
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "b_final.pth").symlink_to(tmp_path / "data" / TRAIN_FILE)
    (tmp_path / "x" / "b").mkdir(parents=True)
    lock = os.open(tmp_path / "x" / "b", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for folders, message in (
        ({}, "r/b_final.pth: would replace .*data"),
        ({"results": tmp_path / "s", "logs": tmp_path / "x"}, "x/b: another training writes there: wait, or choose"),
        ({"logs": tmp_path / "\udcff"}, "/a: not UTF-8, which TensorBoard needs"),
        ({"logs": tmp_path / "logs" / "published"}, "published/a: part of the published run"),
    ):
        with pytest.raises(InputError, match=message):
            train("a", "b", settings=SHORT, **folders)
    os.close(lock)
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests
    with pytest.raises(OSError, match=r"cannot be written to: .*l/a"):
        train("a", "b", settings=SHORT)
    assert not [path for path in tmp_path.rglob("*final.pth") if not path.is_symlink()]


def test_a_task_that_stopped_early_or_ranks_nothing_is_remarked(train, monkeypatch):
    class Constant(OwnRecipe):
        def fit(self, *arguments):
            return {"effects": torch.zeros(370), "stopped": "early"}

    add_recipe(monkeypatch, Constant)
    monkeypatch.setattr(training, "time", types.SimpleNamespace(perf_counter=iter((1.0, 3.5)).__next__))
    found = train("a", recipe="own").trained["a"]
    assert found == ({}, 2.5, "early", "gives one score to all architectures: it ranks nothing")


def test_of_tasks_with_too_few_architectures_the_one_that_needs_most_is_named(train):
    """With a batch size that would do for all."""
    with pytest.raises(TooFewError, match=r"^sop: 40 architectures .*; the recipe needs 246$") as caught:
        train("sop", "mine")
    assert caught.value.batch_size == 4  # a tenth of 40 validate mine
