"""Data of one's own by command: accuracies, tasks of any name, few architectures, and folders named in any way."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import make_data

from recipes.checkpoint import to_bytes
from space import sample_architectures
from tasks import TEST_FILE, TRAIN_FILE

LARGEST, SMALLEST = "l" + "111" * 12, "j" + "331" * 10 + "000000"
ARCHITECTURES = sample_architectures(360, seed=8)


def measured(architectures, **fields):
    """Entries whose accuracy follows the size, with noise: {name: {"arch", each field: its factor times accuracy}}."""
    random, entries = np.random.RandomState(0), {}
    for i, arch in enumerate(architectures):
        accuracy = 80 + (arch.count("1") - arch.count("3")) / 8 + random.randn() / 10
        entries[f"a{i}"] = {"arch": arch} | {field: factor * accuracy for field, factor in fields.items()}
    return entries


@pytest.fixture
def mine(tmp_path):
    """A folder with 60 architectures to learn from, and 200 to rank without labels."""
    train = measured(ARCHITECTURES[:60], faces_accuracy=1)
    return make_data(tmp_path / "mine", train, measured(ARCHITECTURES[160:]))


@pytest.fixture
def run(script, project):
    """Run a script of a copy of the project to a good end: run(name, *flags) gives its output."""

    def run(name, *flags, **options):
        answer = script(name, *flags, root=project, **options)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    return run


@pytest.mark.parametrize(("recipe", "count"), [("reference", 160), ("gp", 60)])
def test_accuracies_have_one_direction_in_every_command(run, project, tmp_path, recipe, count):
    """The same labels as accuracies and, negated, as ranks: what is said of one task is said of the other."""
    labels = {"New-Task_2_accuracy": 1, "other_rank": -1}
    names = ("New-Task_2", "other")
    test = measured(ARCHITECTURES[160:], **labels)
    truth = tmp_path / "truths"
    truth.write_text(json.dumps(test))
    make_data(tmp_path / "mine", measured(ARCHITECTURES[:count], **labels), test)
    data = ("--data_path", "mine")
    flags = (*data, "--recipe", recipe)
    text = run("main.py", *flags)
    assert "New-Task_2_accuracy: only the order of these labels counts, the largest is the best" in text
    assert "other_rank: only the order of these labels counts, the smallest is the best" in text
    suffix = "final" if recipe == "reference" else recipe
    paths = [project / "results" / "mine" / f"{name}_{suffix}.pth" for name in names]
    fitted = [torch.load(path, weights_only=True) for path in paths]
    assert [checkpoint["task"].pop("name") for checkpoint in fitted] == [*names]
    assert to_bytes(fitted[0]) == to_bytes(fitted[1])

    run("test.py", *flags)
    submission = json.loads((tmp_path / f"Track2_submitA_test_mine_{suffix}.json").read_text())
    ranks, accuracies = [], []
    for name, entry in submission.items():
        assert entry["New-Task_2_rank"] == entry["other_rank"]
        ranks.append(entry["other_rank"])
        accuracies.append(test[name]["New-Task_2_accuracy"])
    best = np.argsort(ranks)[:20]
    assert np.mean(np.array(accuracies)[best]) > np.quantile(accuracies, 0.8)
    json_flags = (f"Track2_submitA_test_mine_{suffix}.json", truth, "--json")
    figures = json.loads(run("tools/score.py", *json_flags).splitlines()[-1])["tasks"]
    assert figures["New-Task_2"] == figures["other"] and figures["other"]["tau"] > 0.5

    ranked = json.loads(run("tools/rank.py", LARGEST, SMALLEST, *flags, "--json"))
    for entry, low, high in zip(ranked, (0.9, 0), (1, 0.1), strict=True):
        assert entry["tasks"]["New-Task_2"] == entry["tasks"]["other"]
        assert low <= entry["tasks"]["other"]["beats"] <= high
    if recipe == "gp":
        for name in names:
            run("tools/search.py", *flags, "--tasks", name, "--top", 1, "--json", name)
        assert (tmp_path / "other").read_text().replace("other", names[0]) == (tmp_path / names[0]).read_text()
        arch = json.loads((tmp_path / "other").read_text())["architectures"][0]["arch"]
        assert arch.count("1") - arch.count("3") > max(a.count("1") - a.count("3") for a in ARCHITECTURES)
        table = run("tools/crossval.py", *data, "--recipes", "gp", "ridge")
        cells = [re.findall(rf"^\| {name} (.*)$", table, re.MULTILINE) for name in names]
        assert cells[0] == cells[1] and float(cells[0][0].split()[1]) > 0.5


@pytest.mark.parametrize("field", ["x_rank_accuracy", "_accuracy_rank", "-x_rank", "a b_rank", "_rank"])
def test_a_task_that_no_flag_could_name_is_refused(script, tmp_path, field):
    make_data(tmp_path / "mine", measured(ARCHITECTURES[:60], **{field: 1}))
    flags = ("--data_path", "mine", "--results_path", "r", "--log_path", "l", "--recipe", "ridge")
    answer = script("main.py", *flags)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"main.py: mine/{TRAIN_FILE}: field '{field}': the name of a task ")
    assert len(answer.stderr.splitlines()) == 1


def test_tasks_can_be_named_one_by_one_and_by_their_labels(run, tmp_path):
    make_data(tmp_path / "mine", measured(ARCHITECTURES[:60], b_rank=1, a_accuracy=1, sop_rank=1, veri_accuracy=1))
    flags = ("--data_path", "mine", "--recipe", "ridge", "--tasks", "b", "--tasks", "a_accuracy", "sop")
    text = run("main.py", *flags)
    assert re.findall(r"^(\w+) +\d\.\d+ +\S+$", text, re.MULTILINE) == ["sop", "b", "a"]
    assert "tasks labelled" not in text
    assert "--tasks sop b a finds" in text
    text = run("main.py", *flags[:4])
    assert f"tasks labelled in mine/{TRAIN_FILE}: veri, sop, b, a\n" in text


def test_a_folder_is_the_same_however_it_is_written(run, mine, tmp_path):
    flags = ("--recipe", "ridge", "--data_path")
    run("main.py", *flags, "mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(mine)
    found = set()
    for here, name in (
        (tmp_path, "mine"),
        (tmp_path, "mine/"),
        (tmp_path / "elsewhere", mine),
        (tmp_path / "elsewhere", "link"),
        (mine, "."),
        (mine, "../elsewhere/../mine"),
    ):
        assert "not trained on" not in run("test.py", *flags, name, here=here)
        path = here / "Track2_submitA_test_mine_ridge.json"
        found.add(path.read_bytes())
        path.unlink()
        assert "with these settings: faces\n" in run("main.py", *flags, name, "--resume", here=here)
    assert len(found) == 1


def test_the_outputs_of_two_folders_of_one_name_are_told_apart(run, mine, tmp_path):
    shutil.copytree(mine, tmp_path / "b" / "mine")
    path = tmp_path / "b" / "mine" / TRAIN_FILE
    path.write_text(json.dumps(measured(ARCHITECTURES[60:120], faces_accuracy=1)))
    flags = ("--recipe", "ridge", "--data_path")
    assert "replaces" not in run("main.py", *flags, "mine")
    assert "replaces" not in run("main.py", *flags, "mine")
    text = run("main.py", *flags, "b/mine", "--resume")
    assert "with these settings: no task\n" in text
    assert f"replaces checkpoints that were not trained on b/mine/{TRAIN_FILE}: faces\n" in text
    text = run("test.py", *flags, "mine")
    assert f"not trained on mine/{TRAIN_FILE}: faces; used all the same\n" in text
    assert "used all the same" not in run("test.py", *flags, "b/mine")


def test_a_folder_called_published_is_refused(script, mine, project):
    mine.rename(mine.parent / "published")
    (mine.parent / "link").symlink_to("published")
    for name, path in (("main.py", "published"), ("test.py", "link/")):
        answer = script(name, "--data_path", path, root=project)
        message = f"{name}: --data_path {path}: results/published is the published run: give the folder another name\n"
        assert (answer.returncode, answer.stderr) == (2, message)
    assert not {"results", "logs"} & set(os.listdir(project))


def test_a_test_file_may_hold_what_has_no_labels(run, mine, tmp_path):
    run("main.py", "--data_path", "mine", "--recipe", "ridge")
    run("test.py", "--data_path", "mine", "--recipe", "ridge")
    submission = json.loads((tmp_path / "Track2_submitA_test_mine_ridge.json").read_text())
    content = json.loads((mine / TEST_FILE).read_text())
    assert sorted(entry.pop("faces_rank") for entry in submission.values()) == list(range(200))
    assert submission == content
