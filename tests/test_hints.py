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
SCRIPTS = (
    "main.py",
    "test.py",
    "data/surrogate/prepare.py",
    *sorted(f"tools/{p.name}" for p in ROOT.glob("tools/*.py")),
)


@pytest.fixture
def here(tmp_path):
    """The folder that commands are run in, outside of the project."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def run(script, project, here):
    """Run a command as printed, or with more flags: run("python ../project/main.py --tasks sop", ...)."""

    def run(command, *flags, **options):
        program, name, *words = shlex.split(command)
        path = (here / name).resolve()
        assert program == {".sh": "bash", ".py": "python"}[path.suffix]
        name = {"train.sh": "main.py", "test.sh": "test.py"}.get(path.name, str(path.relative_to(project)))
        return script(name, *words, *flags, root=project, here=here, **options)

    return run


def own_data(folder, count, with_test=True):
    test = {f"t{i}": {"arch": arch} for i, arch in enumerate(ARCHITECTURES[-20:])}
    return make_data(folder, make_entries(ARCHITECTURES[:count]), test if with_test else None)


@pytest.mark.parametrize(
    ("folder", "flags", "tasks"),
    [
        ("here/my own 'data'", "--data_path \"my own 'data'\" --results_path 'r 1' --tasks cplfw", 1),
        ("there", "--data_path ../there --recipe gp --tasks sop --uncertainty u.json", 1),
        ("project/data", "--recipe ridge --tasks sop veri", 2),
        (None, "--recipe ridge --tasks sop", 1),
    ],
)
def test_from_missing_checkpoints_over_training_to_a_submission(run, here, tmp_path, folder, flags, tasks):
    if folder:
        own_data(tmp_path / folder, 130)
    answer, hints = run(f"python ../project/test.py {flags}"), []
    while answer.returncode and len(hints) < tasks:
        hints.append(re.fullmatch(r"test\.py: .*: train it: (python .*)\n", answer.stderr)[1])
        trained = run(hints[-1])
        assert trained.returncode == 0, trained.stderr
        logs, run_logs = re.search(
            r"curves: tensorboard --logdir (.*) \((.*)\)$", trained.stdout, re.MULTILINE
        ).groups()
        assert os.path.dirname(run_logs) == logs and list((here / run_logs).glob("*/train/events*"))
        answer = run(f"python ../project/test.py {flags}")
    assert (answer.returncode, len(set(hints))) == (0, tasks)
    (submission,) = here.glob("Track2*")
    before = json.loads(submission.read_text())
    submission.unlink()
    following = re.search(r"^next: (bash .*) ranks the test architectures$", trained.stdout, re.MULTILINE)[1]
    assert run(following).returncode == 0
    task = re.search(r"--tasks (\S+)$", hints[-1])[1]
    after = json.loads(submission.read_text())
    assert [entry[f"{task}_rank"] for entry in after.values()] == [entry[f"{task}_rank"] for entry in before.values()]


def test_without_a_test_file_a_search_is_next_and_where_the_test_file_goes(run, here):
    folder = own_data(here / "mine", 130, with_test=False)
    flags = "--data_path mine --recipe ridge --tasks sop"
    text = run(f"python ../project/main.py {flags}").stdout
    found = run(re.search(r"^next: (python .*) finds the best architecture of all$", text, re.MULTILINE)[1])
    assert found.returncode == 0, found.stderr
    assert "no other architecture has a better predicted score" in found.stdout
    assert run(f"python ../project/test.py {flags}").returncode == 2
    path = re.search(r"^to rank architectures of your choice, put them into (.*)$", text, re.MULTILINE)[1]
    (here / path).write_text(json.dumps({"a": {"arch": ARCHITECTURES[0]}}))
    assert (folder / TEST_FILE).exists()
    assert run(f"python ../project/test.py {flags}").returncode == 0


def test_flags_named_for_too_few_architectures_are_enough(run, here):
    own_data(here / "mine", 60)
    command = "python ../project/main.py --data_path mine"
    answer = run(command, "--num_epochs", 2)
    message = (
        r"main\.py: \w+: 60 architectures are too few .* needs (\d+); or choose --batch_size (\d+) or (--recipe gp)\n"
    )
    needed, size, recipe = re.fullmatch(message, answer.stderr).groups()
    assert run(command, "--num_epochs", 2, "--batch_size", size).returncode == 0
    assert run(command, "--num_epochs", 2, "--batch_size", int(size) + 1).returncode == 2
    assert run(f"{command} {recipe} --tasks sop").returncode == 0
    sampled = sample_architectures(int(needed), seed=4)
    for count, status in ((int(needed) - 1, 2), (int(needed), 0)):
        make_data(here / "mine", make_entries(sampled[:count]))
        assert run(command, "--num_epochs", 1).returncode == status
    own_data(here / "mine", 20)
    assert run(command, "--batch_size", 2, "--num_epochs", 1).returncode == 0
    assert run(command).stderr.endswith("; or choose --batch_size 2 or --recipe gp\n")
    own_data(here / "mine", 3)
    assert run(command).stderr.endswith("; or choose --recipe gp\n")


def test_cross_validation_names_recipes_and_sizes_that_work(run, here):
    own_data(here / "mine", 50)
    command = "python ../project/tools/crossval.py --data_path mine --tasks sop"
    flags = re.search(r"; leave reference out: (--recipes .*)\n", run(command).stderr)[1]
    assert flags == "--recipes gp ridge"
    assert run(f"{command} {flags}").returncode == 0
    sizes = re.search(r"expected numbers from (\d+) to (\d+)", run(command, "--sizes", 99).stderr).groups()
    assert run(command, "--recipes", "ridge", "--sizes", *sizes).returncode == 0


def test_hints_of_ranking_and_scoring(run, here):
    own_data(here / "mine", 130)
    flags = "--data_path mine --tasks sop"
    assert run(f"python ../project/main.py {flags} --num_epochs 9 --val_interval 2 --batch_size 8").returncode == 0
    assert run(f"python ../project/main.py {flags} --recipe gp").returncode == 0
    command = f"python ../project/test.py {flags}"
    first, last = re.search(r"it holds \d+, (-\d+) to (-1)\n", run(command, "--model_path_index", -99).stderr).groups()
    assert {run(command, "--model_path_index", index).returncode for index in (first, last)} == {0}
    assert run(command, "--model_path_index", int(first) - 1).returncode == 2
    flag = re.search(r"has no rank intervals: use (--recipe gp)\n", run(command, "--uncertainty", "u").stderr)[1]
    assert run(f"{command} {flag} --uncertainty u").returncode == 0

    truth = make_entries(ARCHITECTURES[-20:])
    (here / "true").write_text(json.dumps(dict(zip((f"t{i}" for i in range(20)), truth.values(), strict=True))))
    score = "python ../project/tools/score.py Track2_submitA_test_mine_final.json true"
    assert "not counted: cplfw, " in run(score).stderr + run(score).stdout
    error = run(f"{score} --tasks sop cplfw").stderr
    assert "does not predict cplfw: name other --tasks" in error
    assert run(f"{score} --tasks sop").returncode == 0


def test_where_the_surrogate_cannot_be_made_a_command_makes_it_elsewhere(run, project, here):
    def read_only():
        from common import files

        def refuse(path, data):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        files.write_file = refuse

    answer = run("python ../project/main.py --recipe ridge", before=read_only)
    hint, flag = re.search(r"make it elsewhere: (python .*), then (--data_path FOLDER)\n", answer.stderr).groups()
    (here / "made").mkdir()
    made = run(hint.replace("FOLDER", "made"))
    assert made.returncode == 0, made.stderr
    assert {TRAIN_FILE, TEST_FILE, "truth.json"} <= set(os.listdir(here / "made"))
    assert not (project / "data" / "surrogate" / TRAIN_FILE).exists()
    command = "python ../project/main.py --recipe ridge --tasks sop --results_path r --log_path l"
    assert run(f"{command} {flag.replace('FOLDER', 'made')}").returncode == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_commands_whose_flags_exist(script, name):
    answer = script(name, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"usage: {Path(name).name} [-h]")
    usage, text = answer.stdout.split("\n\n", 1)
    shown = re.findall(r"\bpython (\S+\.py)((?: [^\s,<`]+)*)", text)
    assert shown or name == "tools/publish.py"
    for command, flags in shown:
        assert (ROOT / command).exists()
        assert command != name or set(re.findall(r"--\w+", flags)) <= set(re.findall(r"--\w+", usage))
