"""What the commands advise is what helps: every command and flag that they print is run as printed."""

import errno
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from helpers import ROOT, make_data, make_entries

from space import sample_architectures
from tasks import TEST_FILE, TRAIN_FILE

ARCHITECTURES = sample_architectures(150, seed=3)
SCRIPTS = ["main.py", "test.py", "tools/surrogate.py", *(f"tools/{p.name}" for p in ROOT.glob("tools/*.py"))]


@pytest.fixture
def here(tmp_path):
    """The folder that commands are run in, outside of the project."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def run(script, project, here):
    """Run a command as printed, or with more flags: run("python '../the project/main.py' --tasks sop", ...)."""
    project = project.rename(project.parent / "the project")

    def run(command, *flags, status=0, **options):
        program, name, *words = shlex.split(command)
        path = (here / name).resolve()
        assert program == {".sh": "bash", ".py": "python"}[path.suffix]
        name = {"train.sh": "main.py", "test.sh": "test.py"}.get(path.name, path.relative_to(project))
        answer = script(name, *words, *flags, root=project, here=here, **options)
        assert answer.returncode == status, answer.stderr
        return answer.stdout + answer.stderr

    return run


def advice(pattern, output):
    """The groups of a pattern for a line of the output."""
    return re.search(f"^{pattern}$", output, re.MULTILINE).groups()


def own_data(folder, count, test=ARCHITECTURES[-20:]):
    return make_data(folder, make_entries(ARCHITECTURES[:count]), {arch: {"arch": arch} for arch in test} or None)


@pytest.mark.parametrize(
    ("folder", "flags"),
    [
        ("here/my own 'data'", "--data_path \"my own 'data'\" --results_path 'r 1' --tasks cplfw"),
        ("the project/data", "--recipe ridge --tasks sop veri"),
        (None, "--recipe gp --tasks sop"),
    ],
)
def test_from_missing_checkpoints_over_training_to_a_submission(run, here, tmp_path, folder, flags):
    if folder:
        own_data(tmp_path / folder, 130)
    test = f"python '../the project/test.py' {flags}"
    (command,) = advice(r"test\.py: .*: train it: (python .*)", run(test, status=2))
    output = run(command)
    logs, run_logs = advice(r".*; curves: tensorboard --logdir (.*) \((.*)\)", output)
    assert [os.path.dirname(run_logs)] == shlex.split(logs)
    for task in flags.split("--tasks ")[1].split():
        assert list((here / run_logs / task / "train").glob("events*"))
    run(test)
    (submission,) = here.glob("Track2*")
    before = json.loads(submission.read_text())
    (command,) = advice("next: (bash .*) ranks the test architectures", output)
    run(command)
    assert json.loads(submission.read_text()) == before


def test_without_a_test_file_a_search_is_next_and_where_the_test_file_goes(run, here):
    own_data(here / "mine", 130, test=())
    flags = "--data_path mine --recipe ridge --tasks sop"
    output = run(f"python '../the project/main.py' {flags}")
    (command,) = advice("next: (python .*) finds the best architecture of all", output)
    assert "no other architecture has a better predicted score" in run(command)
    (path,) = advice("to rank architectures of your choice, put them into (.*)", output)
    test = f"python '../the project/test.py' {flags}"
    assert f"{path}: is missing: put the architectures to rank there, entries with 'arch'" in run(test, status=2)
    (here / path).write_text(json.dumps({"a": {"arch": ARCHITECTURES[0]}}))
    run(test)


def test_flags_named_for_too_few_architectures_are_enough(run, here):
    own_data(here / "mine", 60)
    command = "python '../the project/main.py' --data_path mine --num_epochs 1"
    choices = r".* needs (\d+); or choose (--batch_size \d+) or (--recipe gp)"
    needed, size, recipe = advice(choices, run(command, status=2))
    run(f"{command} {size}")
    run(f"python '../the project/main.py' --data_path mine --tasks sop {recipe}")
    make_data(here / "mine", make_entries(sample_architectures(int(needed), seed=4)))
    run(command)


def test_cross_validation_names_recipes_and_sizes_that_work(run, here):
    own_data(here / "mine", 50)
    command = "python '../the project/tools/crossval.py' --data_path mine --tasks sop"
    (flags,) = advice(".*; leave reference out: (--recipes gp ridge)", run(command, status=2))
    run(f"{command} {flags}")
    sizes = advice(r".*expected numbers from (\d+) to (\d+).*", run(command, "--sizes", 99, status=2))
    run(command, "--recipes", "ridge", "--sizes", *sizes)


def test_snapshots_and_the_recipe_that_ranking_names_work(run, here):
    own_data(here / "mine", 130)
    flags = "--data_path mine --tasks sop"
    run(f"python '../the project/main.py' {flags} --num_epochs 9 --val_interval 2 --batch_size 8")
    run(f"python '../the project/main.py' {flags} --recipe gp")
    command = f"python '../the project/test.py' {flags}"
    first, last = advice(r".*it holds \d+, (-\d+) to (-1)", run(command, "--model_path_index", -99, status=2))
    for index in (first, last):
        run(command, "--model_path_index", index)
    (recipe,) = advice(".*has no rank intervals: use (--recipe gp)", run(command, "--uncertainty", "u", status=2))
    run(f"{command} {recipe} --uncertainty u")


def test_where_the_surrogate_cannot_be_made_a_command_makes_it_elsewhere(run, here):
    def refused_with(number):
        def refuse(*_):
            raise OSError(number, os.strerror(number))

        return lambda: setattr(os, "replace", refuse)

    train = "python '../the project/main.py' --recipe ridge --tasks sop --results_path r --log_path l"
    for number in (errno.EACCES, errno.EROFS):
        refused = run(train, status=2, before=refused_with(number))
        make, flag = advice(".*make it elsewhere: (python .*), then (--data_path FOLDER)", refused)
    (here / "made").mkdir()
    run(make.replace("FOLDER", "made"))
    assert {TRAIN_FILE, TEST_FILE, "truth.json"} <= set(os.listdir(here / "made"))
    flag = flag.replace("FOLDER", "made")
    run(f"{train} {flag}")
    output = run(f"python '../the project/test.py' --recipe ridge --tasks sop --results_path r {flag}")
    (command,) = advice("next: (python .*) compares it with the true ranks", output)
    assert "true rank of the best" in run(command)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_commands_whose_flags_exist(script, project, name):
    answer = script(name, "--help", root=project)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"usage: {Path(name).name} [-h]")
    usage, text = answer.stdout.split("\n\n", 1)
    shown = re.findall(r"\bpython (\S+\.py)((?: [^\s,<`]+)*)", text)
    assert shown or name == "tools/publish.py"
    for command, flags in shown:
        assert (ROOT / command).exists()
        assert command != name or set(re.findall(r"--\w+", flags)) <= set(re.findall(r"--\w+", usage))
