"""The scripts as a user runs them, end to end, on small sampled data."""

import json
import re
import subprocess
import sys

import ensemble
import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import checkpoint
import cli
import dataset
import main
import training
from metrics import ranks
from network import Predictor
from tasks import TASKS, InputError, find_task

SMALL = ("--num_epochs", 4, "--batch_size", 8)


def weights(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pth")}


def test_training_then_scoring(script, data_folder, tmp_path):
    trained = script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", *SMALL)
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert "share a rank" not in trained.stdout
    assert sum("epoch    4/4" in line for line in lines) == 8
    assert [line.split()[0] for line in lines[-10:]] == ["task", *(task.name for task in TASKS), "mean"]
    assert sorted(weights(tmp_path / "r")) == sorted(f"{task.name}_final.pth" for task in TASKS)

    scored = script("test.py", "--data_path", data_folder, "--results_path", "r")
    assert scored.returncode == 0, scored.stderr
    submission = json.loads((tmp_path / "Track2_submitA_test_final.json").read_text())
    content = json.loads((data_folder / dataset.TEST_FILE).read_text())
    assert list(submission) == list(content)
    encodings = dataset.encode([entry["arch"] for entry in content.values()])
    for task, line in zip(TASKS, scored.stdout.splitlines(), strict=False):
        chosen = checkpoint.choose(tmp_path / "r" / f"{task.name}_final.pth", task)
        assert line.split() == [task.name, "snapshot", str(chosen.index), "validation", "tau", f"{chosen.ktau:.4f}"]
        predictor = Predictor().eval()
        predictor.load_state_dict(chosen.state_dict)
        with torch.no_grad():
            expected = ranks(predictor(encodings))
        ours = [entry.pop(task.rank_key) for entry in submission.values()]
        assert all(type(rank) is int for rank in ours)
        assert sum(abs(a - b) for a, b in zip(ours, expected, strict=True)) <= 4  # near ties may fall either way
        for entry in content.values():
            del entry[task.rank_key]
    assert submission == content


def test_training_then_scoring_an_ensemble(script, data_folder, tmp_path):
    shared = ("--data_path", data_folder, "--results_path", "r", "--recipe", "ensemble", "--tasks", "sop", "cplfw")
    flags = (*shared, "--log_path", "l", "--num_epochs", 15, "--batch_size", 8, "--lr", 3e-3)
    flags += ("--dropout_ratio", 0.1, "--resume")
    trained = script("main.py", *flags)
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert sum("epoch   60/60" in line for line in lines) == 2
    assert [line.split()[:2] for line in lines[-3:]] == [["task", "members"], ["cplfw", "4"], ["sop", "4"]]
    assert sorted(weights(tmp_path / "r")) == ["cplfw_ensemble.pth", "sop_ensemble.pth"]
    events = EventAccumulator(str(tmp_path / "l" / "train_ensemble" / "sop" / "train")).Reload()
    assert [event.step for event in events.Scalars("sop/ktau")] == list(range(1, 61))
    assert not (tmp_path / "l" / "train_ensemble" / "sop" / "validate").exists()

    before = weights(tmp_path / "r")
    again = script("main.py", *flags)
    assert "already trained on" in again.stdout and "versions: cplfw, sop" in again.stdout
    assert "training 0 ensembles" in again.stdout
    assert weights(tmp_path / "r") == before
    other = script("main.py", *flags, "--jobs", 1, "--seed", 10, "--tasks", "sop")
    assert "versions: no task" in other.stdout and "training 1 ensemble on" in other.stdout
    assert weights(tmp_path / "r")["sop_ensemble.pth"] != before["sop_ensemble.pth"]
    assert script("main.py", *flags, "--jobs", 1).returncode == 0
    assert weights(tmp_path / "r") == before

    scored = script("test.py", *shared, "--uncertainty", "u.json")
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.splitlines()[0] == "cplfw       a Gaussian process and 4 predictors"
    assert "not trained on" not in scored.stdout
    submission = json.loads((tmp_path / "Track2_submitA_test_ensemble.json").read_text())
    deviations = json.loads((tmp_path / "u.json").read_text())
    assert list(submission) == list(deviations)
    architectures = [entry["arch"] for entry in submission.values()]
    assert [entry["arch"] for entry in deviations.values()] == architectures
    for task in (find_task("sop"), find_task("cplfw")):
        content = ensemble.load(tmp_path / "r" / f"{task.name}_ensemble.pth", task)
        (opinion,) = ensemble.opinions([ensemble.pick(content)], architectures)
        assert [entry[task.rank_key] for entry in submission.values()] == ranks(ensemble.combine(opinion)).tolist()
        written = [entry[f"{task.rank_key}_std"] for entry in deviations.values()]
        assert written == pytest.approx(ensemble.uncertainty(opinion), abs=0.051)
        assert max(written) > 1
    assert all(entry["veri_rank"] == -1 for entry in submission.values())

    train_file = data_folder / dataset.TRAIN_FILE
    train_file.write_text(train_file.read_text() + " ")
    assert f"not trained on {train_file}: cplfw, sop; used all the same" in script("test.py", *shared).stdout


def test_an_ensemble_whose_members_diverge_is_named_and_the_old_one_kept(script, data_folder, tmp_path):
    old = tmp_path / "r" / "sop_ensemble.pth"
    old.parent.mkdir()
    old.write_text("old")
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", "--lr", "1e30")
    answer = script("main.py", *flags, "--recipe", "ensemble")
    assert answer.returncode == 1
    assert answer.stderr == (
        "main.py: sop: all its predictors collapsed or diverged: train longer, or lower --lr; nothing was saved\n"
    )
    assert old.read_text() == "old"


def test_results_do_not_depend_on_jobs(script, data_folder, tmp_path):
    for jobs in (1, 3):
        flags = ("--data_path", data_folder, "--results_path", f"r{jobs}", "--log_path", "l", "--jobs", jobs, *SMALL)
        assert script("main.py", *flags).returncode == 0
        script("test.py", "--data_path", data_folder, "--results_path", f"r{jobs}", "--save_name", jobs)
    assert len(weights(tmp_path / "r1")) == 8
    assert weights(tmp_path / "r1") == weights(tmp_path / "r3")
    first, second = (tmp_path / f"Track2_submitA_{jobs}.json" for jobs in (1, 3))
    assert first.read_bytes() == second.read_bytes()


def test_flags_win_over_the_tasks_settings(script, data_folder, tmp_path):
    flags = ("--lr", 2e-3, "--weight_decay", 0, "--batch_size", 10, "--train_ratio", 0.75, "--seed", 8)
    flags += ("--dropout_ratio", 0.1, "--no-cos", "--val_interval", 2, "--num_epochs", 5, "--keep", 2)
    script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", *flags)
    content = torch.load(tmp_path / "r" / "sop_final.pth", weights_only=True)
    assert content["task"] == {
        "name": "sop",
        "lr": 2e-3,
        "weight_decay": 0.0,
        "batch_size": 10,
        "train_ratio": 0.75,
        "seed": 8,
        "dropout_ratio": 0.1,
        "cos": False,
        "val_interval": 2,
        "snapshot": -4,
        "num_epochs": 5,
    }
    assert [epoch for epoch, _ in content["validate_ktau"]] == [1, 2, 4]
    assert len(content["snapshots"]) == 2
    encodings = dataset.ArchPerfDataset(data_folder, "sop")
    run = training.train(
        main.parse_arguments(["--tasks", "sop", *map(str, flags)]).tasks[0], encodings.encodings, encodings.ranks
    )
    assert content["train_loss"] == run.train_loss


def test_cos_can_be_asked_for():
    assert main.parse_arguments(["--cos"]).tasks[0].cos
    assert not main.parse_arguments([]).tasks[0].cos
    assert main.parse_arguments([]).tasks == list(TASKS)


def test_only_the_named_tasks_are_trained_and_filled(script, data_folder, tmp_path):
    shared = ("--data_path", data_folder, "--results_path", "r", "--tasks", "sop_rank", "cplfw")
    assert script("main.py", *shared, "--log_path", "l", *SMALL).returncode == 0
    assert sorted(weights(tmp_path / "r")) == ["cplfw_final.pth", "sop_final.pth"]
    assert script("test.py", *shared, "--model_path_index", -2, "--save_name", "two").returncode == 0
    for entry in json.loads((tmp_path / "Track2_submitA_two.json").read_text()).values():
        assert entry["veri_rank"] == -1
        assert entry["sop_rank"] >= 0 and entry["cplfw_rank"] >= 0


def test_the_index_given_is_used_for_every_task(script, data_folder):
    script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", *SMALL)
    scored = script("test.py", "--data_path", data_folder, "--results_path", "r", "--model_path_index", "-1")
    assert [line.split()[2] for line in scored.stdout.splitlines()[:8]] == ["-1"] * 8
    scored = script("test.py", "--data_path", data_folder, "--results_path", "r", "--model_path_index", "9")
    assert scored.returncode == 2
    assert "no snapshot 9: it holds" in scored.stderr


def test_the_logs_hold_both_curves_of_every_task(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--save_name", "mine")
    assert script("main.py", *flags, *SMALL, "--seed", 5).returncode == 0
    assert script("main.py", *flags, *SMALL, "--val_interval", 2).returncode == 0  # takes the first run's place
    for task in TASKS:
        content = checkpoint.load(tmp_path / "r" / f"{task.name}_final.pth", task)
        read = {}
        for part in ("train", "validate"):
            events = EventAccumulator(str(tmp_path / "l" / "mine" / task.name / part)).Reload()
            read |= {(part, tag): events.Scalars(tag) for tag in events.Tags()["scalars"]}
            if part == "train":
                assert events.Tags()["tensors"] == [f"{task.name}/settings/text_summary"]
        assert set(read) == {
            ("train", f"{task.name}/loss"),
            ("train", f"{task.name}/ktau"),
            ("validate", f"{task.name}/ktau"),
        }
        curve = read["validate", f"{task.name}/ktau"]
        assert [event.step for event in curve] == [1, 2, 4]
        assert [event.value for event in curve] == pytest.approx([tau for _, tau in content["validate_ktau"]])
        assert [event.value for event in read["train", f"{task.name}/loss"]] == pytest.approx(content["train_loss"])


def test_without_the_packages_a_script_goes_on_in_the_environment_that_has_them(project, tmp_path):
    command = [sys.executable, "-S", str(project / "tools" / "score.py"), "no.json", "no.json"]  # -S: no packages
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 2
    assert re.fullmatch(r"score.py: No module named '\w+': bash train.sh installs what is needed\n", answer.stderr)
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (2, "score.py: no.json: No such file or directory\n")


TOOLS = (
    "tools/surrogate.py",
    "tools/score.py",
    "tools/traverse.py",
    "tools/publish.py",
    "tools/plot.py",
    "tools/bench.py",
    "tools/crossval.py",
)


@pytest.mark.parametrize("name", ["main.py", "test.py", *TOOLS])
@pytest.mark.parametrize("flags", [("--help",), ("--wrong",), ("--tasks", "imagenet")])
def test_help_and_wrong_flags_answer_without_torch(name, flags):
    code = f"import runpy, sys; sys.argv = {[name, *flags]!r}; sys.modules['torch'] = None; "
    code += f"runpy.run_path({name!r}, run_name='__main__')"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == (0 if flags == ("--help",) else 2), answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) == (0 if flags == ("--help",) else 1)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("main.py", ("--batch_size", "1"), "main.py: --batch_size 1: must be at least 2"),
        ("main.py", ("--num_epochs", "0"), "main.py: --num_epochs 0: must be at least 1"),
        ("main.py", ("--jobs", "0"), "main.py: argument --jobs: '0': expected an integer above 0"),
        ("main.py", ("--save_name", "../x"), "main.py: argument --save_name: '../x': expected a name without a path"),
        ("main.py", ("--device", "nowhere"), "main.py: --device nowhere: "),
        ("main.py", ("--data_path", "nowhere"), "main.py: nowhere/CVPR_2022_NAS_Track2_train.json: No such file"),
        (
            "test.py",
            ("--data_path", ".", "--results_path", "nowhere"),
            "test.py: nowhere/cplfw_final.pth: there is no checkpoint of cplfw",
        ),
        ("main.py", ("--recipe", "best"), "main.py: argument --recipe: invalid choice: 'best'"),
        ("main.py", ("--recipe", "ensemble", "--train_ratio", "0.5"), "main.py: --train_ratio: an ensemble has no"),
        ("main.py", ("--recipe", "ensemble", "--val_interval", "2"), "main.py: --val_interval: an ensemble has no"),
        ("test.py", ("--recipe", "ensemble", "--model_path_index", "-1"), "test.py: --model_path_index: an ensemble"),
        ("main.py", ("--recipe", "ensemble", "--keep", "3"), "main.py: --keep: an ensemble has no snapshots"),
        ("test.py", ("--recipe", "ensemble", "--uncertainty", ""), "test.py: argument --uncertainty: '': expected a"),
        ("tools/crossval.py", ("--seed", "4294967295", "--repeats", "2"), "crossval.py: --repeats: the last seed"),
        ("test.py", ("--uncertainty", "u.json"), "test.py: --uncertainty: only with --recipe ensemble"),
        (
            "test.py",
            ("--data_path", ".", "--results_path", "nowhere", "--recipe", "ensemble"),
            "test.py: nowhere/cplfw_ensemble.pth: there is no checkpoint of cplfw",
        ),
        ("tools/crossval.py", ("--seed", "-1"), "crossval.py: argument --seed: '-1': expected an integer from 0"),
        ("tools/crossval.py", ("--recipes", "gp"), "crossval.py: argument --recipes: invalid choice: 'gp'"),
        ("test.py", ("--model_path_index", "best"), "test.py: argument --model_path_index: invalid int value"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(script, name, flags, message):
    answer = script(name, *flags)
    assert answer.returncode == 2
    assert answer.stderr.startswith(message)
    assert len(answer.stderr.splitlines()) == 1


def test_a_flag_cannot_break_a_message_into_lines(capsys):
    with pytest.raises(SystemExit):
        main.parse_arguments(["--tasks", "\n" + "x" * 10**6])
    stderr = capsys.readouterr().err
    assert "unknown task '\\nxxx" in stderr
    assert len(stderr) < 1200
    assert len(stderr.splitlines()) == 1


def test_a_device_without_numbers_is_refused():
    with pytest.raises(InputError, match="--device meta: "):
        cli.check_device("meta")


def test_a_file_named_in_bytes_is_described_by_its_name():
    assert cli.describe(PermissionError(13, "Permission denied", b"logs/events")) == "logs/events: Permission denied"


def test_an_empty_path_is_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.make_folder("")


def test_shared_ranks_are_said(script, data_folder):
    path = data_folder / dataset.TRAIN_FILE
    content = json.loads(path.read_text())
    content["arch7"]["veri_rank"] = content["arch8"]["veri_rank"]
    path.write_text(json.dumps(content))
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", "veri")
    answer = script("main.py", *flags, *SMALL)
    assert answer.returncode == 0
    assert answer.stdout.startswith("some architectures share a rank, which is allowed: veri\ntraining 2 predictors")


def test_a_part_smaller_than_a_batch_is_said_before_training(script, data_folder, tmp_path):
    answer = script("main.py", "--data_path", data_folder, "--results_path", "r", "--batch_size", 30)
    assert answer.returncode == 2
    assert "vehicleid: the validation part has 20 of the 200 architectures" in answer.stderr
    assert not (tmp_path / "r").exists()


def test_a_diverging_task_is_named_and_the_others_kept(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", "--lr", "1e30")
    answer = script("main.py", *flags, *SMALL)
    assert answer.returncode == 1
    assert answer.stderr.startswith("main.py: sop: stopped: the loss is ")
    assert find_task("sop").name in answer.stderr
