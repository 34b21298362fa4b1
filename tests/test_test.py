"""test.py and test.sh as a user runs them: what they write and print, and what they refuse to do."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, make_data, make_entries, run_script

from dataset import Data
from engine.predictors import load, rank_file
from space import sample_architectures
from tasks import TEST_FILE

DATA = ("--data_path", "data", "--results_path", "r", "--tasks", "veri", "sop")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data/ and, in r/, predictors of two tasks by two recipes."""
    folder, architectures = tmp_path_factory.mktemp("trained"), sample_architectures(500, seed=1)
    make_data(folder / "data", make_entries(architectures[:200]), make_entries(architectures[200:], start=201))
    (folder / "data" / "truth.json").touch()
    for flags in (("--num_epochs", 12, "--batch_size", 8), ("--recipe", "gp")):
        answer = run_script("main.py", *DATA, "--log_path", "l", *flags, cwd=folder)
        assert answer.returncode == 0, answer.stderr
    return folder


@pytest.fixture
def test(trained, script, tmp_path):
    """Run test.py on a copy of this folder: test(*flags)."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return lambda *flags, **options: script("test.py", *DATA, *flags, **options)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "options", "name"),
    [
        ((), {}, "test_data_final"),
        (("--model_path_index", -2, "--save_name", "a b"), {"snapshot": -2}, "a b"),
        (("--recipe", "gp", "--uncertainty", "new/u.json"), {"recipe": "gp"}, "test_data_gp"),
    ],
)
def test_it_ranks_the_test_file_and_names_the_predictors(test, tmp_path, monkeypatch, flags, options, name):
    answer = test(*flags)
    monkeypatch.chdir(tmp_path)
    data, submission = Data(Path("data"), "data"), Path(f"Track2_submitA_{name}.json")
    predictors = load(["veri", "sop"], data=data, results="r", **options)
    uncertainty = flags[-2:] if "--uncertainty" in flags else ()
    rank_file(predictors, data.test_file, "ranks", "intervals" if uncertainty else None)
    lines = [f"{each.task.name:<10}  {each.recipe.describe(each.checkpoint, each.snapshot)}" for each in predictors]
    lines.append(f"{submission}: 300 architectures ranked for 2 tasks")
    if uncertainty:
        lines.append(
            "new/u.json: intervals that hold the true rank with probability 0.8; "
            "for the best of many they are too narrow, as it was chosen for its prediction"
        )
        assert Path("new/u.json").read_bytes() == Path("intervals").read_bytes()
    score = os.path.relpath(ROOT / "tools" / "score.py")
    words = shlex.join([str(submission), "data/truth.json", *uncertainty])
    lines.append(f"next: python {score} {words} compares it with the true ranks")
    assert (answer.returncode, answer.stderr, answer.stdout.splitlines()) == (0, "", lines)
    assert submission.read_bytes() == Path("ranks").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--recipe", "ridge", "--uncertainty", "u"), "--uncertainty: the recipe ridge has no rank intervals: use "),
        (("--device", "nowhere"), "--device nowhere: "),
        (("--results_path", "cut"), "cut/veri_final.pth: damaged, or not a checkpoint: "),
        (("--results_path", "renamed"), "renamed/veri_final.pth: a checkpoint of the recipe gp: expected reference"),
        (("--save_name", "used"), "Track2_submitA_used.json: would replace r/sop_final.pth, which "),
        (("--recipe", "gp", "--uncertainty", "r/veri_gp.pth"), "r/veri_gp.pth: would replace r/veri_gp.pth, which "),
        (
            ("--recipe", "gp", "--save_name", "s", "--uncertainty", "Track2_submitA_s.json"),
            "Track2_submitA_s.json: would replace Track2_submitA_s.json, which ",
        ),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(test, tmp_path, flags, message):
    (tmp_path / "Track2_submitA_used.json").symlink_to("r/sop_final.pth")
    for name, content in (("cut", b"PK"), ("renamed", (tmp_path / "r" / "veri_gp.pth").read_bytes())):
        (tmp_path / name).mkdir()
        for task in ("sop", "veri"):
            (tmp_path / name / f"{task}_final.pth").write_bytes(content)
    before = files(tmp_path)
    answer = test(*flags)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert answer.stderr.startswith(f"test.py: {message}")
    assert files(tmp_path) == before


def test_test_sh_ranks_the_test_file_alone_from_any_folder(project, data_folder, tmp_path):
    """The published predictors rank it."""
    shutil.copy(data_folder / TEST_FILE, project / "data")
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PYTHONSAFEPATH": "1"}
    for flags, status in (("--save_name", "s s"), 0), (("--wrong",), 2):
        command = ["bash", project / "test.sh", *flags]
        assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=100).returncode == status
    rank_file(load(), data_folder / TEST_FILE, tmp_path / "ranks")
    assert (tmp_path / "Track2_submitA_s s.json").read_bytes() == (tmp_path / "ranks").read_bytes()
