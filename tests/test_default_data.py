"""Which data and which checkpoints are used where none are named."""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import REFERENCE_RECIPE, save_run

import dataset
import folders
import predictors
import surrogate
import training
from checkpoint import CheckpointError
from network import Predictor
from tasks import TASKS, find_task

FILES = (dataset.TRAIN_FILE, dataset.TEST_FILE)


def run_git(folder, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bare_clone_trains_scores_and_evaluates_and_the_competitions_files_switch_over(script, project, data_folder):
    run_git(project, "init", "--quiet")
    run_git(project, "add", "--all")
    run_git(project, "commit", "--quiet", "--message", "all")
    where = {"root": project}

    trained = script("main.py", "--num_epochs", 8, **where)
    assert trained.returncode == 0, trained.stderr
    surrogate_line = (
        "data: the surrogate benchmark in project/data/surrogate, as project/data lacks the competition's files"
    )
    assert trained.stdout.splitlines()[0] == surrogate_line
    scored = script("test.py", **where)
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.splitlines()[0] == surrogate_line
    assert "published" not in scored.stdout
    submission, truth = "Track2_submitA_test_final.json", "project/data/surrogate/truth.json"
    evaluated = script("tools/score.py", submission, truth, "--json", **where)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["mean"] > 0.2  # the direction is learnt; a full training reaches 0.76
    assert sorted(path.name for path in (project / "results" / "surrogate").iterdir()) == sorted(
        f"{task.name}_final.pth" for task in TASKS
    )
    assert (project / "logs" / "surrogate" / "train_final" / "sop" / "train").is_dir()
    assert run_git(project, "status", "--porcelain") == ""

    earlier = {name: contents(project / name / "surrogate") for name in ("data", "results", "logs")}
    for name in FILES:
        shutil.copy(data_folder / name, project / "data")
    trained = script("main.py", "--num_epochs", 2, "--tasks", "sop", "--batch_size", 8, **where)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[0] == "data: the competition's files in project/data"
    scored = script("test.py", "--tasks", "sop", **where)
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.splitlines()[0] == "data: the competition's files in project/data"
    assert scored.stdout.splitlines()[-1] == f"{submission}: 300 architectures ranked for 1 task"
    assert [path.name for path in (project / "results").glob("*.pth")] == ["sop_final.pth"]
    assert (project / "logs" / "train_final" / "sop" / "train").is_dir()
    for name, files in earlier.items():
        assert files and contents(project / name / "surrogate") == files


@pytest.fixture
def root(tmp_path, generated, effects, monkeypatch):
    """A folder that stands in for the project's, with the surrogate's files."""
    folder = tmp_path / "root"
    (folder / "data" / "surrogate").mkdir(parents=True)
    for name, data in (*generated.items(), (surrogate.EFFECTS_FILE, json.dumps(effects).encode())):
        (folder / "data" / "surrogate" / name).write_bytes(data)
    for module in (folders, predictors, surrogate):
        if hasattr(module, "project_folder"):
            monkeypatch.setattr(module, "project_folder", lambda *names: str(folder.joinpath(*names)))
    return folder


def chosen(**given):
    arguments = argparse.Namespace(**{"data_path": None, "results_path": None, "log_path": None, **given})
    folders.choose_folders(arguments)
    return arguments.data_path, arguments.results_path, arguments.log_path


@pytest.mark.parametrize("names", [FILES, FILES[:1], FILES[1:]])
def test_one_of_the_competitions_files_is_enough_to_use_their_folder(root, names, capsys):
    for name in names:
        (root / "data" / name).write_text("{}")
    assert chosen() == (f"{root}/data", f"{root}/results", f"{root}/logs")
    assert capsys.readouterr().out == f"data: the competition's files in {root}/data\n"


def test_without_them_the_surrogate_is_used_and_said(root, capsys):
    assert chosen() == (f"{root}/data/surrogate", f"{root}/results/surrogate", f"{root}/logs/surrogate")
    assert capsys.readouterr().out.startswith(f"data: the surrogate benchmark in {root}/data/surrogate, as ")


def test_folders_that_are_given_win(root, capsys):
    assert chosen(results_path="r", log_path="l") == (f"{root}/data/surrogate", "r", "l")
    capsys.readouterr()
    assert chosen(data_path="d") == ("d", f"{root}/results", f"{root}/logs")
    assert capsys.readouterr().out == ""


def test_the_surrogate_named_by_its_path_is_the_surrogate(root, monkeypatch):
    (root / "data" / dataset.TRAIN_FILE).write_text("{}")
    (root / "data" / "surrogate" / dataset.TEST_FILE).unlink()
    monkeypatch.chdir(root / "data")
    assert chosen(data_path="surrogate/") == ("surrogate/", f"{root}/results/surrogate", f"{root}/logs/surrogate")
    surrogate.prepare("surrogate/")
    assert (root / "data" / "surrogate" / dataset.TEST_FILE).exists()


VERI, SOP = find_task("veri"), find_task("sop")


def save(folder, task, data):
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = training.Snapshot(1, 0.5, Predictor().state_dict())
    run = training.Run(task, validate_ktau=[(1, 0.5)], snapshots=[snapshot])
    save_run(REFERENCE_RECIPE.path(folder, task), run, data)


def checkpoints(**given):
    defaults = {"data_path": None, "results_path": None, "tasks": (VERI, SOP), "recipe": "reference", "device": "cpu"}
    _, loaded = predictors.load_predictors(argparse.Namespace(**{**defaults, "largest": False, **given}))
    for task, (path, content, *_) in zip((VERI, SOP), loaded, strict=True):
        assert content["data"] == torch.load(path, weights_only=True)["data"]
        assert content["task"]["name"] == task.name
    return [str(each.path.parent) for each in loaded]


def test_a_task_not_trained_on_the_data_is_scored_by_its_published_checkpoint(root, effects, capsys):
    own, published = str(root / "results" / "surrogate"), str(root / "results" / "published")
    with pytest.raises(CheckpointError, match=r"surrogate/veri_final\.pth: there is no checkpoint of veri"):
        checkpoints()
    capsys.readouterr()
    for task in (VERI, SOP):
        save(root / "results" / "published", task, "1" * 64)
    assert checkpoints() == [published] * 2
    training_file = root / "data" / "surrogate" / dataset.TRAIN_FILE
    said = f"not trained on {training_file}: {{}}; using the published checkpoints in {root}/results/published"
    assert capsys.readouterr().out.splitlines()[1:] == [said.format("veri, sop")]
    save(Path(own), VERI, effects["sha256"][dataset.TRAIN_FILE])
    save(Path(own), SOP, "0" * 64)  # of other data
    assert checkpoints() == [own, published]
    assert capsys.readouterr().out.splitlines()[1:] == [said.format("sop")]
    save(Path(own), SOP, effects["sha256"][dataset.TRAIN_FILE])
    assert checkpoints() == [own] * 2
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_checkpoints_that_are_named_are_used_whatever_they_were_trained_on(root, tmp_path, capsys):
    for task in (VERI, SOP):
        save(tmp_path / "r", task, "1" * 64)
    assert checkpoints(results_path=str(tmp_path / "r")) == [str(tmp_path / "r")] * 2
    assert "published" not in capsys.readouterr().out


def test_the_test_file_alone_is_scored_by_the_published_checkpoints(root, capsys):
    (root / "data" / dataset.TEST_FILE).write_text("{}")
    for task in (VERI, SOP):
        save(root / "results" / "published", task, "0" * 64)
    assert checkpoints() == [str(root / "results" / "published")] * 2
    said = f"not trained on {root / 'data' / dataset.TRAIN_FILE}: veri, sop; using the published checkpoints in "
    assert capsys.readouterr().out.splitlines()[1] == f"{said}{root}/results/published"


def test_a_missing_file_is_not_taken_from_the_surrogate(script, project, data_folder):
    shutil.copy(data_folder / dataset.TRAIN_FILE, project / "data")
    flags = ("--num_epochs", 1, "--tasks", "sop", "--batch_size", 8)
    assert script("main.py", *flags, root=project).returncode == 0
    answer = script("test.py", "--tasks", "sop", root=project)
    assert answer.returncode == 2
    assert answer.stderr == f"test.py: project/data/{dataset.TEST_FILE}: No such file or directory\n"
    (project / "data" / dataset.TRAIN_FILE).rename(project / "data" / dataset.TEST_FILE)
    answer = script("main.py", *flags, root=project)
    assert answer.returncode == 2
    assert answer.stderr == f"main.py: project/data/{dataset.TRAIN_FILE}: No such file or directory\n"
    assert [path.name for path in (project / "data" / "surrogate").iterdir()] == [surrogate.EFFECTS_FILE]
