"""main.py and train.sh as a user runs them: what they write and print, Ctrl-C and --resume, and mistakes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, OwnRecipe, Script, add_recipe, make_data

from common.files import InputError
from recipes import reference
from tasks import TASKS

PUBLISHED = ROOT / "results" / "published"
SMALL = ("--num_epochs", 4, "--batch_size", 8)


@pytest.fixture
def where(data_folder):
    return "--data_path", data_folder, "--results_path", "r", "--log_path", "l"


@pytest.fixture
def train(script, where):
    """Run main.py on the small data, into r and l of a temporary folder: train(*flags)."""
    return lambda *flags, **options: script("main.py", *where, *flags, **options)


def files(folder):
    """{path below the folder: content}."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Noted(OwnRecipe):
    """Fails for one task, and has figures, an error and a remark of two."""

    def fit(self, task, *others):
        if task.name == "sop":
            raise InputError("nothing was saved")
        notes = {
            "veri": {"whole tau": 0.25, "count": 7},
            "cplfw": {"whole tau": 0.5, "count": 12345, "stopped": "early"},
        }
        return super().fit(task, *others) | notes[task.name]

    def summary(self, checkpoint):
        return {key: checkpoint[key] for key in ("count", "whole tau")}

    def remark(self, checkpoint):
        return "look at it" if checkpoint["count"] == 7 else None


def test_figures_remarks_and_errors_of_each_task_are_printed(train, monkeypatch, data_folder, train_entries, tmp_path):
    add_recipe(monkeypatch, Noted)
    fields = ("arch", "cplfw_rank", "veri_rank", "sop_rank")
    make_data(data_folder, {key: {field: entry[field] for field in fields} for key, entry in train_entries.items()})
    answer = train("--recipe", "own")
    assert (answer.returncode, answer.stderr) == (1, "main.py: cplfw: early\nmain.py: sop: nothing was saved\n")
    lines = answer.stdout.split("train.json\n")[1].splitlines()
    assert [line.rsplit(maxsplit=1)[0] for line in lines[1:3]] == [
        "cplfw       1.234e+04     0.5000",
        "veri                7     0.2500",
    ]
    flags = f"--recipe own --data_path {data_folder} --results_path r --tasks cplfw veri"
    assert [lines[0], *lines[3:]] == [
        "task            count  whole tau    seconds",
        "mean                      0.3750",
        "veri: look at it",
        "checkpoints: r; curves: tensorboard --logdir l (l/train_own)",
        f"next: bash {os.path.relpath(ROOT / 'test.sh', tmp_path)} {flags} ranks the test architectures",
    ]


@pytest.mark.parametrize(
    "tasks", [("market1501", "sop"), pytest.param([task.name for task in TASKS], marks=pytest.mark.slow)]
)
def test_a_clone_needs_no_data_and_stays_clean_and_gp_ranks_better(script, project, tasks):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words):
        return subprocess.run(["git", *words], cwd=project, env=environment, check=True, capture_output=True).stdout

    def run(name, *flags):
        answer = script(name, *flags, "--tasks", *tasks, root=project, here=project)
        assert (answer.returncode, answer.stderr) == (0, "")
        return answer.stdout

    git("init")
    git("add", "--all")
    before, taus = git("status", "--porcelain"), []
    for recipe, suffix in (("reference", "final"), ("gp", "gp")):
        for name in ("main.py", "test.py"):
            said = run(name, "--recipe", recipe)
            assert said.startswith("data: data/surrogate, the surrogate benchmark, as data lacks the competition's")
        figures = run(
            "tools/score.py", f"Track2_submitA_test_surrogate_{suffix}.json", "data/surrogate/truth.json", "--json"
        )
        taus.append(json.loads(figures.splitlines()[-1])["mean_tau"])
    assert 0.75 < taus[0] < taus[1] - 0.003
    names = {f"{task}_{suffix}.pth" for task in tasks for suffix in ("final", "gp")}
    assert files(project / "results" / "surrogate").keys() == names
    assert sorted(os.listdir(project / "logs" / "surrogate")) == ["train_final", "train_gp"]
    assert git("status", "--porcelain") == before


def test_a_bar_ends_full_where_a_recipe_needed_fewer_steps(train):
    def on_a_terminal():
        sys.stderr.isatty = lambda: True

    bars = train("--recipe", "gp", "--tasks", "sop", before=on_a_terminal).stderr
    (steps,) = re.findall(r"sop +(\d+)/\1 ", bars)[-1:]
    assert "/30 " in bars and int(steps) < 30


def test_flags_win_over_the_settings_of_the_task(train, tmp_path):
    given = {"lr": 2e-3, "weight_decay": 0.0, "batch_size": 10, "train_ratio": 0.75, "seed": 8, "dropout_ratio": 0.1}
    given |= {"val_interval": 2, "num_epochs": 5, "keep": 2}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    answer = train("--tasks", "sop_rank", "--save_name", "mine", "--no-cos", *words)
    assert "\ncheckpoints: r; curves: tensorboard --logdir l (l/mine)\n" in answer.stdout
    assert " --tasks sop ranks the test architectures\n" in answer.stdout
    checkpoint = torch.load(tmp_path / "r" / "sop_final.pth", weights_only=True)
    assert checkpoint["task"] == {"name": "sop", "snapshot": -4, "cos": False} | given
    assert [epoch for epoch, _ in checkpoint["validate_ktau"]] == [1, 2, 4]


def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(train, where, tmp_path):
    flags = ("--tasks", "sop", "cplfw", "--jobs", 1, "--log_interval", 1, *SMALL)  # sop first: it has more steps
    assert train(*flags).returncode == 0
    whole, fit = files(tmp_path / "r"), reference.Recipe.fit
    shutil.rmtree(tmp_path / "r")

    def stop_in_cplfw(self, task, encodings, ranks, device, report):
        def report_and_wait(epoch, *figures):
            report(epoch, *figures)
            while task.name == "cplfw" and epoch == 2:
                signal.pause()

        return fit(self, task, encodings, ranks, device, report_and_wait)

    before = lambda: setattr(reference.Recipe, "fit", stop_in_cplfw)  # noqa: E731
    with Script("main.py", *where, *flags, cwd=tmp_path, before=before) as process:
        process.read_until("cplfw      epoch    2/")
        process.interrupt()
        assert process.wait() == 130
        assert process.stderr.read() == "main.py: interrupted; finished: sop; --resume skips what is finished\n"
        assert re.search(r"^sop +-?0", process.stdout.read(), re.MULTILINE)  # in the table
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert files(tmp_path / "r") == {"sop_final.pth": whole["sop_final.pth"]}
    assert "training 1 of 2 tasks" in train(*flags, "--resume").stdout
    assert files(tmp_path / "r") == whole
    assert len(files(tmp_path / "l")) == 4  # an event file for each part of each task


@pytest.mark.parametrize("recipe", ["reference", "gp", "ridge"])
def test_bytes_depend_neither_on_jobs_nor_on_threads_nor_on_cores(train, script, where, tmp_path, recipe):
    flags, few = ("--recipe", recipe, "--tasks", "sop", "veri"), SMALL if recipe == "reference" else ()

    def one_core():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    many_threads, found = {"env": {**os.environ, "OMP_NUM_THREADS": "4"}}, []
    for jobs, options in ((("--jobs", 1), many_threads), (("--jobs", 3), {}), ((), {"before": one_core})):
        assert train(*flags, *jobs, *few, **options).returncode == 0
        assert script("test.py", *where[:4], *flags, "--save_name", "s", **options).returncode == 0
        found.append((files(tmp_path / "r"), (tmp_path / "Track2_submitA_s.json").read_bytes()))
    assert len(found[0][0]) == 2
    assert found[0] == found[1] == found[2]


def test_train_sh_trains_from_any_folder_and_passes_flags_and_status_on(train, where, project, tmp_path):
    flags = ("--tasks", "sop", "--recipe", "ridge")
    assert train(*flags).returncode == 0
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PYTHONSAFEPATH": "1"}

    def run(*words):
        command = ["bash", project / "train.sh", *where, *flags, "--results_path", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    answer = run("q q")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert files(tmp_path / "q q") == files(tmp_path / "r")
    assert not (project / ".venv").exists()
    answer = run("")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)


FEW = "sop: 200 architectures are too few for batches of 50: "


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch_size", "1"), "--batch_size 1: must be at least 2"),
        (("--snapshot", "-1"), "unrecognized arguments: --snapshot -1"),
        (("--device", "nowhere"), "--device nowhere: "),
        (("--data_path", "nowhere"), "--data_path nowhere: no such folder"),
        (("--recipe", "gp", "--train_ratio", "0.5"), "--train_ratio: the recipe gp has no such setting"),
        (("--results_path", "/proc/nowhere", "--recipe", "gp"), "/proc/nowhere: No such file or directory"),
        (
            ("--tasks", "sop", "--train_ratio", "0.99"),
            f"{FEW}198 train and 2 validate; the recipe needs 4901; or choose --batch_size 2 or --recipe gp\n",
        ),
        (
            ("--tasks", "sop", "--train_ratio", "0.995"),
            f"{FEW}199 train and 1 validate; the recipe needs 9801; or choose --recipe gp\n",
        ),
        (("--results_path", PUBLISHED, "--num_epochs", 10**6, "--batch_size", 8), f"{PUBLISHED}/"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(train, tmp_path, flags, message):
    published = files(PUBLISHED)
    answer = train(*flags)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert answer.stderr.startswith(f"main.py: {message}")
    assert not [name for name in files(tmp_path) if not name.startswith("data/")]
    assert files(PUBLISHED) == published


def test_paths_that_are_not_utf_8_work(script, data_folder, tmp_path):
    data_folder.rename(tmp_path / "d\udcff\n")
    flags = ("--data_path", "d\udcff\n", "--results_path", "r\udcff\n", "--recipe", "ridge", "--tasks", "sop")
    answer = script("main.py", *flags, "--log_path", "l\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    words = {line.split()[0] for line in answer.stdout.splitlines()}
    assert words == {"training", "task", "sop", "mean", "checkpoints:", "next:"}
    answer = script("test.py", *flags, "--save_name", "s\udcff\n")
    assert answer.stdout.splitlines()[1:] == [r"Track2_submitA_s\udcff\n.json: 300 architectures ranked for 1 task"]
