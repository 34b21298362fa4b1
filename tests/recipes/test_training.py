"""Training tasks side by side: checkpoints, TensorBoard's logs, --resume, and what stays when something goes wrong."""

import json
import logging

import numpy as np
import pytest
import torch
from helpers import REFERENCE, OwnRecipe, add_recipe, make_data, small_train_entries
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from common.files import InputError, log, sha256
from dataset import Data
from recipes import training
from recipes.checkpoint import to_bytes
from space import sample_architectures
from tasks import TASKS, find_task

FAST = {"num_epochs": 3, "batch_size": 8, "val_interval": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Data(make_data(tmp_path_factory.mktemp("training") / "data", small_train_entries()), "data")


@pytest.fixture
def train(data, tmp_path, caplog):
    """train(*tasks, settings=..., data=..., ...) in r/ and l/: TrainingResult; caplog has what it said."""
    caplog.set_level(logging.INFO, log.name)

    def run(*tasks, data=data, **options):
        caplog.clear()
        if "recipe" not in options:
            options["settings"] = FAST | options.get("settings", {})
        folders = {"results": tmp_path / "r", "logs": tmp_path / "l"}
        return training.train(data, tasks or None, jobs=options.pop("jobs", 2), **folders, **options)

    return run


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("jobs", [1, 3])
def test_all_that_is_learnt_is_saved_reported_and_logged(train, data, tmp_path, caplog, jobs):
    reports = []
    result = train(jobs=jobs, report=lambda *values: reports.append(values))
    assert (list(result.trained), result.errors, result.interrupted) == ([task.name for task in TASKS], {}, False)
    assert caplog.messages == [f"training 8 of 8 tasks on the 200 architectures of {data.train_file}"]
    entries = json.loads(data.train_file.read_text()).values()
    for task in TASKS:
        task = REFERENCE.configure(task, FAST)
        ranks = np.array([entry[task.rank_key] for entry in entries])
        fitted, _ = REFERENCE.learn(task, [entry["arch"] for entry in entries], ranks)
        expected = REFERENCE.header(task, sha256(data.train_file), "cpu") | fitted
        assert REFERENCE.path(tmp_path / "r", task).read_bytes() == to_bytes(expected)
        found = result.trained[task.name]
        assert found.summary == REFERENCE.summary(fitted)
        assert (found.error, found.remark) == (None, REFERENCE.remark(fitted))
        validations = dict(fitted["validate_ktau"])
        curve = list(zip(range(1, 4), fitted["train_loss"], fitted["train_ktau"], strict=True))
        assert [values for name, *values in reports if name == task.name] == [
            [epoch, 3, loss, tau, validations.get(epoch)] for epoch, loss, tau in curve
        ]
        logged = {}
        for part in ("train", "validate"):
            events = EventAccumulator(str(tmp_path / "l" / task.name / part)).Reload()
            for tag in events.Tags()["scalars"]:
                logged[part, tag] = [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
            if part == "train":
                (text,) = events.Tensors(f"{task.name}/settings/text_summary")
                assert f"| lr | {task.lr} |" in text.tensor_proto.string_val[0].decode()
        assert logged == {
            ("train", f"{task.name}/loss"): [(epoch, loss) for epoch, loss, _ in curve],
            ("train", f"{task.name}/ktau"): [(epoch, tau) for epoch, _, tau in curve],
            ("validate", f"{task.name}/ktau"): list(validations.items()),
        }


# What is wrong with a checkpoint -> the changes, or what changes its snapshot that scores.
LIST = torch.zeros(2)
DAMAGES = {
    "index-5": {"index": 5},
    "index-of-nothing": {"index": -7},
    "index-of-tensor": {"index": LIST},
    "index-of-list": {"index": []},
    "index-half": {"index": 1.5},
    "snapshots-list": {"snapshots": [1]},
    "snapshots-none": {"snapshots": {}},
    "task-tensor": {"task": LIST},
    "task-without-name": {"task": {}},
    "task-other": {"task": {"name": "sop"}},
    "recipe-tensor": {"recipe": LIST},
    "recipe-other": {"recipe": "gp"},
    "ktau-none": lambda used: used | {"ktau": None},
    "ktau-tensor": lambda used: used | {"ktau": LIST},
    "no-weights": lambda used: used | {"state_dict": {}},
    "weights-list": lambda used: used | {"state_dict": [LIST]},
    "another-network": lambda used: used | {"state_dict": used["state_dict"] | {"fc2.bias": LIST}},
    "nan-weights": lambda used: used | {"state_dict": {k: v * torch.nan for k, v in used["state_dict"].items()}},
    "sparse-weights": lambda used: used | {"state_dict": {k: v.to_sparse() for k, v in used["state_dict"].items()}},
    "overflowing": lambda used: used | {"state_dict": {k: v * 1e20 for k, v in used["state_dict"].items()}},
}
# These can score: only --resume reads what is wrong.
UNREAD = {
    "whole-text": {"whole_ktau": "x"},
    "whole-tensor": {"whole_ktau": LIST},
    "whole-huge": {"whole_ktau": 10**400},
    "epoch-huge": {"validate_ktau": [(10**400, 0.5)]},
    "tau-none": {"validate_ktau": [(1, None)]},
    "curve-of-text": {"validate_ktau": ["a"]},
    "curve-of-triples": {"validate_ktau": [(1, 2, 3)]},
    "curve-empty": {"validate_ktau": []},
    "data-tensor": {"data": LIST},
    "versions-of-tensors": {"versions": {"python": LIST}},
    "stopped-early": {"stopped": "the loss is nan"},
    "settings-of-tensors": {"task": {"name": "settings-of-tensors", "lr": LIST}},
}
MISSING = ("task", "data", "stopped", "index", "snapshots", "whole_ktau", "validate_ktau")


def damaged(checkpoint, name):
    """A checkpoint's bytes with the damage called `name`."""
    damage = (DAMAGES | UNREAD).get(name, {})
    if callable(damage):
        index = checkpoint["index"]
        damage = {"snapshots": checkpoint["snapshots"] | {index: damage(checkpoint["snapshots"][index])}}
    content = {key: value for key, value in (checkpoint | damage).items() if name != f"without-{key}"}
    return to_bytes(content)[: -9 if name == "cut" else None]


@pytest.mark.filterwarnings("ignore")  # torch's, of a tensor as a key
def test_a_damaged_checkpoint_is_refused_in_one_line_and_trained_again(train, tmp_path, caplog):
    names = [*DAMAGES, *UNREAD, *(f"without-{key}" for key in MISSING), "cut", "right"]
    architectures, good = sample_architectures(40, seed=1), {}
    entries = {a: {"arch": a} | {f"{name}_rank": i for name in names} for i, a in enumerate(architectures)}
    folder, settings = Data(make_data(tmp_path / "many", entries), "many"), {"num_epochs": 1, "batch_size": 4}
    fitted, _ = REFERENCE.learn(REFERENCE.configure(find_task("any"), FAST | settings), architectures, np.arange(40))
    (tmp_path / "r").mkdir()
    for name in names:
        task = REFERENCE.configure(find_task(name), FAST | settings)
        path, checkpoint = (
            REFERENCE.path(tmp_path / "r", task),
            REFERENCE.header(task, sha256(folder.train_file), "cpu"),
        )
        good[path] = to_bytes(checkpoint | fitted)
        path.write_bytes(damaged(checkpoint | fitted, name))
        if name in (*DAMAGES, "without-task", "without-index", "without-snapshots", "cut"):
            with pytest.raises(InputError, match=rf"{name}_final\.pth: ") as caught:
                REFERENCE.load(path, task)
            assert "\n" not in str(caught.value)
        else:
            REFERENCE.load(path, task)
    result = train(data=folder, settings=settings, resume=True)
    assert [path.name for path, data in good.items() if path.read_bytes() != data] == []
    assert f"already trained on {folder.train_file} with these settings: right" in caplog.messages
    assert list(result.trained) == names
    assert len(main.table(result.trained).splitlines()) == len(names) + 2


class Unreliable(OwnRecipe):
    """Logs one epoch; fails on the task `fails`, and diverges on `diverges`, while the file `bad` is there."""

    bad = None

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        report(1, 0.5, None, 0.25)
        if self.bad.exists() and task.name == "fails":
            raise InputError("stopped: nothing was saved")
        fitted = super().fit(task, encodings, ranks)
        return fitted | ({"stopped": "stopped: early"} if self.bad.exists() and task.name == "diverges" else {})


@pytest.fixture
def unreliable(monkeypatch, tmp_path, train):
    """A function that trains three tasks with Unreliable; and the file that makes two of them go wrong."""
    bad = tmp_path / "bad"
    monkeypatch.setattr(Unreliable, "bad", bad)
    add_recipe(monkeypatch, Unreliable)
    architectures = sample_architectures(30, seed=1)
    fields = ("fails_rank", "diverges_rank", "works_rank")
    entries = {a: {"arch": a} | dict.fromkeys(fields, i) for i, a in enumerate(architectures)}
    folder = Data(make_data(tmp_path / "many", entries), "many")
    return lambda **options: train(recipe="own", data=folder, **options), bad


def test_a_task_that_fails_keeps_its_files_and_the_others_theirs(unreliable, tmp_path):
    run, bad = unreliable
    run()
    before = contents(tmp_path / "r") | contents(tmp_path / "l")
    assert len([path for path in before if "tfevents" in path.name]) == 6
    bad.touch()
    result = run()
    assert result.errors == {"fails": "stopped: nothing was saved"}
    assert {name: task.error for name, task in result.trained.items()} == {"diverges": "stopped: early", "works": None}
    after = contents(tmp_path / "r") | contents(tmp_path / "l")
    assert len(after) == len(before)
    for path, data in before.items():
        kept = "fails" in path.relative_to(tmp_path).as_posix()
        if path.suffix == ".pth":
            assert (after[path] == data) == (kept or "works" in path.name)
        else:
            assert (path in after) == kept  # a complete run replaces the logs before it


def own_logs(folder):
    return sorted(path.name for path in (folder / "l" / "fails").glob("*/*"))


@pytest.mark.parametrize("then", ["completes", "fails", "is skipped"])
def test_what_a_killed_training_logged_is_cleared(unreliable, tmp_path, then):
    run, bad = unreliable
    run()
    complete = own_logs(tmp_path)
    for path in (tmp_path / "l" / "fails").glob("*/*"):  # as a killed training leaves them
        path.rename(path.with_name(path.name.replace("tfevents", "previous")))
        path.with_name("events.out.tfevents.killed").write_bytes(b"")
    if then == "fails":
        bad.touch()
    assert ("fails" in run(resume=then == "is skipped").errors) == (then == "fails")
    left = own_logs(tmp_path)
    assert len(left) == 2
    assert all("tfevents" in name and "killed" not in name for name in left)
    assert (left == complete) == (then != "completes")


def test_a_constant_predictor_is_remarked(train, monkeypatch):
    class Constant(OwnRecipe):
        def fit(self, *arguments):
            return {"effects": torch.zeros(370)}

    add_recipe(monkeypatch, Constant)
    assert train("sop", recipe="own").trained["sop"].remark == "gives one score to all architectures: it ranks nothing"
