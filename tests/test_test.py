"""test.py and test.sh as a user runs them, with predictors that main.py trained."""

import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, make_data, make_entries, run_script, small_train_entries

import recipes
from data.surrogate import generate
from dataset import encode
from network import Predictor
from space import FEATURES, sample_architectures
from tasks import TASKS, TEST_FILE, TRAIN_FILE

DATA = ("--data_path", "data", "--results_path", "r")
NAMES = ("veri", "sop")
SUBMISSION = "Track2_submitA_test_data_{}.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data and, in r/, predictors of two tasks by each recipe; the truth is what data/TEST_FILE lacks."""
    folder, train = tmp_path_factory.mktemp("trained"), small_train_entries()
    exclude = [entry["arch"] for entry in train.values()]
    truth = make_entries(sample_architectures(300, seed=2, exclude=exclude), start=201)
    (folder / "truth").write_text(json.dumps(truth))
    test = {name: entry | dict.fromkeys(list(entry)[:-1], 7) | {"note": "any"} for name, entry in truth.items()}
    make_data(folder / "data", train, test)
    for recipe in recipes.RECIPES:
        few = ("--num_epochs", 12, "--batch_size", 8) if recipe == recipes.DEFAULT else ()
        flags = ("--tasks", *NAMES, "--recipe", recipe, *few)
        answer = run_script("main.py", *DATA, "--log_path", "l", *flags, cwd=folder)
        assert answer.returncode == 0, answer.stderr
    return folder


@pytest.fixture
def test(trained, script, tmp_path):
    """Run test.py on a copy of this folder: test(*flags)."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return lambda *flags, **options: script("test.py", *DATA, "--tasks", *NAMES, *flags, **options)


def read(path):
    return json.loads(path.read_text())


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def smaller(scores):
    """How many scores are smaller than each."""
    return [sum(other < score for other in scores) for score in scores]


@pytest.mark.parametrize("index", [None, 0, -2])
def test_ranks_are_those_of_a_ranking_step_by_step(test, tmp_path, index):
    answer = test(*(() if index is None else ("--model_path_index", index)))
    assert (answer.returncode, answer.stderr) == (0, "")
    *lines, last = answer.stdout.splitlines()
    path = tmp_path / SUBMISSION.format("final")
    assert last == f"{path.name}: 300 architectures ranked for 2 tasks"
    expected = read(tmp_path / "data" / TEST_FILE)
    for entry in expected.values():
        entry.update({task.rank_key: -1 for task in TASKS})
    for name, line in zip(NAMES, lines, strict=True):
        snapshots = torch.load(tmp_path / "r" / f"{name}_final.pth", weights_only=True)["snapshots"]
        in_order = sorted(snapshots.values(), key=lambda snapshot: snapshot["ktau"])
        place = {"veri": -1, "sop": -4}[name] if index is None else index  # -1 and -4 are the authors'
        place = max(place, -len(in_order)) if place < 0 else place - len(in_order)
        chosen = in_order[place]
        assert line.split() == [name, "snapshot", str(place), "validation", "tau", f"{chosen['ktau']:.4f}"]
        predictor = Predictor().eval()
        predictor.load_state_dict(chosen["state_dict"])
        with torch.no_grad():
            scores = predictor(encode([entry["arch"] for entry in expected.values()])).tolist()
        for entry, rank in zip(expected.values(), smaller(scores), strict=True):
            entry[f"{name}_rank"] = rank
    found = read(path)
    assert list(found) == list(expected)
    for name in NAMES:
        key = f"{name}_rank"
        ranks = [(entry[key], other.pop(key)) for entry, other in zip(found.values(), expected.values(), strict=True)]
        assert sum(abs(a - b) for a, b in ranks) <= 4  # near ties may fall either way
        assert {type(entry.pop(key)) for entry in found.values()} == {int}
    assert found == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model_path_index", "99"), "r/veri_final.pth: no snapshot 99: it holds "),
        (
            ("--model_path_index", "-1", "--recipe", "gp"),
            "r/veri_gp.pth: the recipe gp has no snapshots to choose from",
        ),
        (("--uncertainty", "u.json"), "--uncertainty: the recipe reference has no rank intervals: use --recipe gp"),
        (("--recipe", "ridge", "--uncertainty", "u.json"), "--uncertainty: the recipe ridge has no rank intervals"),
        (("--device", "nowhere"), "--device nowhere: "),
        (("--data_path", "nowhere"), "--data_path nowhere: no such folder"),
        (("--results_path", "nowhere"), "nowhere/veri_final.pth: there is no checkpoint of veri: train it: python "),
        (("--tasks", "faces"), "r/faces_final.pth: there is no checkpoint of faces: train it: python "),
        (("--data_path", "r"), f"r/{TEST_FILE}: No such file or directory"),
        (("--data_path", "damaged"), f"damaged/{TEST_FILE}: line 1 column 2: not JSON: "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(test, tmp_path, flags, message):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / TEST_FILE).write_text("{")
    before = files(tmp_path)
    answer = test(*flags)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"test.py: {message}")
    assert len(answer.stderr.splitlines()) == 1
    assert files(tmp_path) == before


def test_intervals_are_those_of_each_process_and_hold_the_truth(test, tmp_path):
    answer = test("--recipe", "gp", "--uncertainty", "new/u.json")
    assert (answer.returncode, answer.stderr) == (0, "")
    intervals, submission = read(tmp_path / "new" / "u.json"), read(tmp_path / SUBMISSION.format("gp"))
    architectures = [entry["arch"] for entry in submission.values()]
    assert {name: entry.pop("arch") for name, entry in intervals.items()} == dict(
        zip(submission, architectures, strict=True)
    )
    x = encode(architectures).flatten(1)[:, FEATURES].double().numpy()
    truth, recipe = read(tmp_path / "truth"), recipes.get("gp")
    for name in NAMES:
        checkpoint = torch.load(tmp_path / "r" / f"{name}_gp.pth", weights_only=True)
        scores = np.einsum("ni,ij,nj->n", x, checkpoint["matrix"].numpy(), x)
        ranks = np.array([entry[f"{name}_rank"] for entry in submission.values()])
        assert np.abs(ranks - smaller(scores)).max() <= 1  # near ties in float32
        found = np.array([entry.pop(f"{name}_rank_interval") for entry in intervals.values()])
        expected = np.stack(recipe.rank_interval(checkpoint, torch.from_numpy(scores), 300, recipes.PROBABILITY), 1)
        assert np.abs(found - expected).max() <= 1
        true = np.array([entry[f"{name}_rank"] for entry in truth.values()])
        assert 0.7 < np.mean((found[:, 0] <= true) & (true <= found[:, 1])) < 0.95
        assert (np.diff(found[np.argsort(ranks)], axis=0) >= 0).all()  # a worse rank has no better interval
    assert not any(intervals.values())


REFUSED = [
    ("data/" + TEST_FILE, None),
    ("data/../data/" + TRAIN_FILE, None),
    ("data/truth.json", None),
    ("link", "data/" + TRAIN_FILE),
    ("hard", "r/sop_gp.pth"),
    ("r/veri_gp.pth", None),
    (SUBMISSION.format("gp"), None),
    ("submission", SUBMISSION.format("gp")),
    (generate.EFFECTS, None),
    (ROOT / "results" / "published" / "new", None),
    (SUBMISSION.format("gp"), "data/" + TEST_FILE),  # the submission itself
]


@pytest.mark.parametrize(("name", "target"), REFUSED)
def test_an_output_that_would_replace_an_input_or_the_published_run_is_refused(test, tmp_path, name, target):
    shutil.copy(tmp_path / "truth", tmp_path / "data" / "truth.json")
    if name == "hard":
        (tmp_path / name).hardlink_to(tmp_path / target)
    elif target:
        (tmp_path / name).symlink_to(target)
    before = files(tmp_path)
    answer = test("--recipe", "gp", *(("--uncertainty", name) if (name, target) != REFUSED[-1] else ()))
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    why = "part of the published run, which stays" if "published" in str(name) else "would replace "
    assert answer.stderr.startswith(f"test.py: {name}: {why}")
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["/proc/nowhere/file", "r", "x" * 300, "truth/below"])
def test_intervals_that_cannot_be_written_are_said_before_ranking(test, tmp_path, name):
    answer = test("--recipe", "gp", "--uncertainty", name)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert not list(tmp_path.glob("Track2*"))


def test_a_full_disk_leaves_the_submission_before_it(test, tmp_path):
    path = tmp_path / SUBMISSION.format("final")
    path.write_text("old")
    answer = test(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999)))
    assert (answer.returncode, answer.stderr) == (2, f"test.py: {path.name}: File too large\n")
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_a_link_stays_and_its_target_is_replaced(test, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for link, target in ((SUBMISSION.format("gp"), "one"), ("i.json", "two")):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere" / target)
    (tmp_path / "elsewhere" / "one").write_text("old")
    assert test("--recipe", "gp", "--uncertainty", "i.json").returncode == 0
    assert "sop_rank" in read(tmp_path / "elsewhere" / "one")["arch201"]
    assert "sop_rank_interval" in read(tmp_path / "elsewhere" / "two")["arch201"]
    assert (tmp_path / "i.json").is_symlink() and len(list((tmp_path / "elsewhere").iterdir())) == 2


def test_predictors_of_other_data_are_named_and_used_all_the_same(test, tmp_path):
    path = tmp_path / "data" / TRAIN_FILE
    path.write_text(path.read_text() + " ")
    assert test().stdout.startswith(f"not trained on data/{TRAIN_FILE}: veri, sop; used all the same\n")


def test_the_test_file_alone_is_ranked_by_the_published_predictors(test, script, project):
    shutil.copytree(ROOT / "results" / "published", project / "results" / "published")
    shutil.copy(project.parent / "data" / TEST_FILE, project / "data")
    answer = script("test.py", root=project, here=project)
    assert (answer.returncode, answer.stderr) == (0, "")
    said = f"using the published checkpoints in results/published: {', '.join(task.name for task in TASKS)}\n"
    assert answer.stdout.startswith(f"data: data, the competition files\n{said}")
    submission = read(project / "Track2_submitA_test_final.json")
    assert all(0 <= entry[task.rank_key] < 300 for entry in submission.values() for task in TASKS)


def test_test_sh_ranks_from_any_folder_and_passes_flags_and_status_on(test, project, tmp_path):
    assert test("--recipe", "ridge").returncode == 0
    for name in ("test.sh", "env.sh", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PYTHONSAFEPATH": "1"}

    def run(*flags):
        command = ["bash", project / "test.sh", *DATA, "--tasks", *NAMES, "--recipe", "ridge", *flags]
        options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
        return subprocess.run(command, **options)

    answer = run("--save_name", "s s")
    assert (answer.returncode, answer.stderr) == (0, "")
    submissions = [(tmp_path / name).read_bytes() for name in ("Track2_submitA_s s.json", SUBMISSION.format("ridge"))]
    assert submissions[0] == submissions[1]
    assert run("--save_name", "").returncode == 2


def test_a_constant_predictor_is_said_by_every_command(test, script, tmp_path):
    flags = (*DATA, "--tasks", "veri", "sop")
    short = ("--log_path", "l", "--num_epochs", 3, "--val_interval", 2, "--batch_size", 8, "--lr", 10)
    trained = script("main.py", *flags, *short)
    assert trained.returncode == 0, trained.stderr
    nothing = "gives one score to all architectures: it ranks nothing\n"
    assert f"\nsop: {nothing}" in trained.stdout
    said = f"r/sop_final.pth: {nothing}"
    ranked = test()
    assert ranked.returncode == 0 and said in ranked.stdout
    submission = read(tmp_path / SUBMISSION.format("final"))
    assert {entry["sop_rank"] for entry in submission.values()} == {0}
    assert said in script("tools/rank.py", "l" + "111" * 12, *flags).stdout
