"""A user's own recipe: one file and one line, and every command takes it; what it returns is checked."""

import json
import os
import re

import numpy as np
import pytest
import torch
from helpers import OwnRecipe, add_recipe

from dataset import encode, load_train
from space import sample_architectures
from tasks import TEST_FILE, TRAIN_FILE

SIMILAR = """
import random

import numpy
import torch

from recipes.base import Recipe as Base


class Recipe(Base):
    settings = ("seed",)

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        drawn = [random.random(), numpy.random.rand(), torch.rand(1), torch.get_num_threads()]
        return {"known": encodings.flatten(1), "ranks": torch.as_tensor(ranks).float(), "drawn": drawn}

    def model(self, checkpoint, index=None):
        def predict(encodings):
            distances = torch.cdist(encodings.flatten(1), checkpoint["known"])
            return (-(distances**2) / 8).softmax(1) @ checkpoint["ranks"]

        return predict
"""
WHERE = ("--data_path", "data", "--results_path", "r", "--recipe")


@pytest.fixture
def similar(project, data_folder, script):
    """Run a script of a copy of the project with the recipe `similar`: similar(name, *flags)."""
    (project / "recipes" / "similar.py").write_text(SIMILAR)
    table = project / "recipes" / "__init__.py"
    table.write_text(table.read_text().replace("RECIPES = {\n", 'RECIPES = {\n    "similar": "like",\n'))

    def run(name, *flags):
        threads = {"env": {**os.environ, "OMP_NUM_THREADS": "4"}} if name == "main.py" else {}  # a worker uses one
        answer = script(name, *flags, "--tasks", "sop", "veri", root=project, **threads)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    return run


def test_it_trains_resumes_and_ranks(similar, data_folder, tmp_path):
    train = ("main.py", *WHERE, "similar", "--log_path", "l")
    assert "next: bash project/test.sh --recipe similar --data_path data --results_path r" in similar(*train)
    before = {name: (tmp_path / "r" / f"{name}_like.pth").read_bytes() for name in ("sop", "veri")}
    assert "with these settings: veri, sop\ntraining 0 of 2 tasks" in similar(*train, "--resume")
    similar(*train, "--jobs", 1)
    assert {name: (tmp_path / "r" / f"{name}_like.pth").read_bytes() for name in before} == before
    drawn = [torch.load(tmp_path / "r" / "sop_like.pth", weights_only=True)["drawn"]]
    similar(*train, "--seed", 5)
    drawn.append(torch.load(tmp_path / "r" / "sop_like.pth", weights_only=True)["drawn"])
    assert all(a != b for a, b in zip(*[numbers[:3] for numbers in drawn], strict=True)) and drawn[0][3] == 1

    similar("test.py", *WHERE, "similar", "--save_name", "s")
    submission = json.loads((tmp_path / "Track2_submitA_s.json").read_text())
    architectures, known = load_train(data_folder / TRAIN_FILE)
    x, y = (encode(a).flatten(1).double().numpy() for a in (architectures, [e["arch"] for e in submission.values()]))
    weights = np.exp(-((y[:, None] - x[None]) ** 2).sum(2) / 8)
    for name, ranks in known.items():
        scores = weights @ ranks / weights.sum(1)
        expected = [(scores < score).sum() for score in scores]
        found = [entry[f"{name}_rank"] for entry in submission.values()]
        if name in before:
            assert np.abs(np.array(found) - expected).sum() <= 6  # near ties may fall either way
        else:
            assert set(found) == {-1}


def test_rank_search_and_crossval_take_it(similar, tmp_path):
    similar("main.py", *WHERE, "similar", "--log_path", "l")
    large, small = "l" + "111" * 12, "j" + "331" * 10 + "000000"
    lines = similar("tools/rank.py", large, small, *WHERE, "similar").splitlines()
    shares = [float(line.split()[1]) for line in lines if line.endswith("%")]
    assert min(shares[:2]) > 99 > 1 > max(shares[2:])
    text = similar("tools/search.py", *WHERE, "similar", "--top", 3, "--json", "best.json")
    assert "nothing is proven" in text
    best = json.loads((tmp_path / "best.json").read_text())
    assert not best["proven"] and len(best["architectures"]) == 3
    assert all(entry["arch"].count("1") > entry["arch"].count("3") for entry in best["architectures"])
    table = similar("tools/crossval.py", "--data_path", "data", "--recipes", "similar", "ridge", "--jobs", 2)
    assert table.startswith("| tau | similar | ridge |\n")
    taus = re.search(r"\*\*mean\*\* \| (\d\.\d+) \(.*?\) \| (\d\.\d+)", table)
    assert 0.3 < float(taus[1]) < float(taus[2]) < 1


def wrong_fit(returned):
    class Recipe(OwnRecipe):
        def fit(self, task, encodings, ranks, device="cpu", report=None):
            return returned

    return Recipe


def wrong_model(scores):
    class Recipe(OwnRecipe):
        def model(self, checkpoint, index=None):
            return lambda encodings: scores(torch.arange(len(encodings)))

    return Recipe


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (wrong_fit(None), "what `fit` returns: expected a dictionary"),
        (wrong_fit({"data": 1}), "what `fit` returns: expected a dictionary without the keys "),
        (wrong_fit({"w": np.zeros(3)}), "what `fit` returns: w is a ndarray: expected tensors"),
        (
            wrong_fit({"w": [torch.tensor([torch.nan])]}),
            r"what `fit` returns: w\[0\] holds numbers that are not finite",
        ),
        (wrong_model(lambda n: n[:, None].float()), "its model returns 1000 x 1 torch.float32: expected 1000 real "),
        (wrong_model(lambda n: n[1:]), "its model returns 999 torch.int64: expected 1000 real numbers"),
        (wrong_model(lambda n: n > 3), "its model returns 1000 torch.bool: expected 1000 real numbers"),
        (wrong_model(lambda n: n * 1j), "its model returns 1000 torch.complex64: expected 1000 real numbers"),
        (wrong_model(lambda n: n / (n != 3)), "1 of 1000 scores are not finite"),
    ],
)
def test_what_it_returns_is_checked_before_anything_is_saved(
    monkeypatch, script, data_folder, tmp_path, recipe, message
):
    add_recipe(monkeypatch, recipe)
    answer = script("main.py", *WHERE, "own", "--log_path", "l", "--tasks", "sop")
    assert answer.returncode == 1
    assert re.fullmatch(rf"main\.py: sop: recipe own, task sop: {message}.*\n", answer.stderr), answer.stderr
    assert not list((tmp_path / "r").iterdir())


def test_a_bug_in_it_is_shown_once_and_the_other_tasks_are_kept(monkeypatch, script, data_folder, tmp_path):
    class Recipe(OwnRecipe):
        def fit(self, task, *others):
            if task.name != "sop":
                raise ZeroDivisionError("the bug")
            return super().fit(task, *others)

    add_recipe(monkeypatch, Recipe)
    answer = script("main.py", *WHERE, "own", "--log_path", "l", "--tasks", "sop", "veri", "cplfw")
    assert answer.returncode == 1
    assert answer.stderr.count("Traceback") == answer.stderr.count('raise ZeroDivisionError("the bug")') == 1
    lines = [f"main.py: {n}: ZeroDivisionError: the bug: see the traceback above" for n in ("cplfw", "veri")]
    assert sorted(answer.stderr.splitlines()[-2:]) == lines
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["sop_own.pth"]


def test_a_model_that_no_longer_scores_is_one_line_wherever_it_is_used(monkeypatch, script, data_folder):
    add_recipe(monkeypatch, OwnRecipe)
    flags = (*WHERE, "own", "--tasks", "sop")
    assert script("main.py", *flags, "--log_path", "l").returncode == 0
    monkeypatch.undo()
    add_recipe(monkeypatch, wrong_model(lambda n: n[1:]))
    where = "r/sop_own.pth: recipe own, task sop: its model returns 999 torch.int64: expected 1000 real numbers\n"
    for name in ("test.py", "tools/rank.py"):
        answer = script(name, *([sample_architectures(1, seed=0)[0]] if "rank" in name else []), *flags)
        assert (answer.returncode, answer.stderr) == (2, f"{name.split('/')[-1]}: {where}")
    answer = script("tools/crossval.py", "--data_path", "data", "--recipes", "own", "--tasks", "sop")
    assert (answer.returncode, "own" in answer.stderr.splitlines()[-1]) == (2, True)
    assert json.loads((data_folder / TEST_FILE).read_text())["arch201"]["sop_rank"] == -1
