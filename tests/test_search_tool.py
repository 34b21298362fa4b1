"""tools/search.py, from the command line to its output; tests/test_search.py compares the search with brute force."""

import fcntl
import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios

import checkpoint
import numpy as np
import pytest
import torch
from conftest import ROOT

import dataset
import recipes
from network import Predictor
from space import BudgetError, measure
from tasks import find_task
from tools import search as tool

RECIPE = """
import torch
from network import Predictor
from recipes.base import Recipe as Base
from scoring import Model

class Recipe(Base):
    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return {}

    def model(self, content, index=None):
        return MODEL
"""
FUNCTION = 'lambda encodings: encodings.flatten(1) @ content["weights"]'
SLOW = "Model(torch.zeros(87, 87).double(), [Predictor().state_dict() for _ in range(20)], [1.0] * 20)"

PUBLISHED = ("--results_path", ROOT / "results" / "published")  # said, since --largest is for checkpoints of one's own


@pytest.fixture
def search(monkeypatch, capsys, data_folder, tmp_path):
    """Search with the published predictors: search(*flags) -> (status, output, content of the JSON file)."""

    def run(*flags):
        path = tmp_path / "out" / "best.json"
        flags = ("--data_path", data_folder, "--json", path, *flags)
        monkeypatch.setattr(sys, "argv", ["search.py", *map(str, flags)])
        status = tool.main()
        return status, capsys.readouterr().out, json.loads(path.read_text()) if path.exists() else None

    return run


@torch.no_grad()
def published_scores(name, architectures):
    """(n,) float64, by the published predictor itself."""
    recipe, task = recipes.get("reference"), find_task(name)
    content = recipe.load(recipe.path(ROOT / "results" / "published", task), task)
    predictor = Predictor().double().eval()
    predictor.load_state_dict(content["snapshots"][content["index"]]["state_dict"])
    return predictor(dataset.encode(architectures).double()).numpy()


def small_architectures(upgrades=3):
    """All with up to so many more heads than the smallest, which has 10 layers, or one larger MLP ratio."""
    found = set()
    for layers in itertools.combinations_with_replacement(range(-1, 10), upgrades):
        heads = [3 - layers.count(layer) for layer in range(10)]
        if min(heads) > 0:
            found.add("j" + "".join(f"{h}31" for h in heads) + "000000")
    for layer in range(10):
        found.add("j" + "".join(f"3{3 - (i == layer)}1" for i in range(10)) + "000000")
    return sorted(found)


@pytest.mark.parametrize("tasks", [["sop"], ["veri", "sop"]])
@pytest.mark.parametrize("largest", [False, True])
def test_within_a_small_budget_it_lists_all_architectures_by_their_scores(search, tasks, largest):
    architectures = small_architectures()
    scores = published_scores(tasks[0], architectures)
    if len(tasks) > 1:
        sample, scores = dataset.sample_architectures(10_000, seed=0), 0
        for name in tasks:
            values = published_scores(name, sample)
            scores = scores + (published_scores(name, architectures) - values.mean()) / values.std() / len(tasks)
    order = np.argsort(-scores if largest else scores, kind="stable")
    sizes = measure(architectures)
    budget = int(sizes.parameters.max())
    status, text, content = search(
        "--tasks", *tasks, "--max_params", budget, "--top", 999, *["--largest"] * largest, *PUBLISHED
    )
    assert not status
    assert content["tasks"] == tasks
    assert (content["recipe"], content["largest"], content["proven"]) == ("reference", largest, True)
    found = content["architectures"]
    assert [row["arch"] for row in found] == [architectures[i] for i in order]
    assert [row["score"] for row in found] == pytest.approx(scores[order], abs=1e-5 if len(tasks) > 1 else 1e-9)
    assert [row["params"] for row in found] == sizes.parameters[order].tolist()
    assert [row["macs"] for row in found] == sizes.macs[order].tolist()
    assert f", {len(architectures)} scored one by one, in " in text
    assert text.endswith("there are no better ones\n")


def test_the_best_of_the_whole_space_beat_every_neighbour_and_the_front_ends_with_it(search):
    macs = 12_000_000_000
    status, text, content = search("--tasks", "sop", "--pareto", "--top", 3, "--max_macs", macs)
    assert not status
    found, front = content["architectures"], content["pareto"]
    assert front[-1] == {**found[0], "score": pytest.approx(found[0]["score"])}
    best = found[0]["arch"]
    places = [i for i in range(1, 31) if i % 3]
    changes = itertools.product(itertools.combinations(places, 2), itertools.product("123", repeat=2))
    near = {best[:i] + a + best[i + 1 : j] + b + best[j + 1 :] for (i, j), (a, b) in changes}
    near = np.array(sorted(near))[measure(sorted(near)).macs <= macs].tolist()
    assert published_scores("sop", near).min() == pytest.approx(found[0]["score"], abs=1e-9)
    assert (np.diff([row["params"] for row in front]) > 0).all()
    assert (np.diff([row["score"] for row in front]) < 0).all()
    assert max(row["macs"] for row in (*found, *front)) <= macs
    beaten = (published_scores("sop", dataset.sample_architectures(100_000, seed=0)) > found[0]["score"]).mean()
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["1"])
    assert row[1:] == [f"{found[0][key] / unit:.{d}f}" for key, unit, d in FORMATS] + [f"{100 * beaten:.3f}"]
    assert f"{best}  " in text


FORMATS = (("score", 1, 4), ("params", 1e6, 2), ("macs", 1e9, 2))


def test_mistakes_are_found_before_the_search(search, data_folder, monkeypatch):
    monkeypatch.setattr(tool.search, "best", None)
    for budget in (("--max_params", 55_882_751), ("--max_macs", 1)):
        with pytest.raises(BudgetError, match="the smallest has 55,882,752 parameters and 11,457,257,984 multiply-"):
            search(*budget)
    train_file = data_folder / dataset.TRAIN_FILE
    with pytest.raises(tool.InputError, match="would replace"):
        search("--json", train_file)
    with pytest.raises(SystemExit):
        search("--top", 1001)


@pytest.fixture
def own(project, data_folder, tmp_path):
    """Add a recipe of one's own, with this model, to a copy of the project; the command that searches with it."""

    def add(model):
        table = project / "recipes" / "__init__.py"
        table.write_text(table.read_text().replace('    "ridge"', '    "own": "own",\n    "ridge"'))
        (project / "recipes" / "own.py").write_text(RECIPE.replace("MODEL", model))
        content = {"task": {"name": "sop"}, "recipe": "own", "data": "f" * 64, "versions": {}, "stopped": None}
        checkpoint.save(tmp_path / "sop_own.pth", content | {"weights": torch.linspace(-1, 1, 370).sin()})
        flags = ("--data_path", data_folder, "--results_path", tmp_path, "--recipe", "own", "--tasks", "sop")
        return ("tools/search.py", *flags)

    return add


def test_a_recipe_that_is_no_scoring_model_is_searched_by_evolution(script, own, project, tmp_path):
    answer = script(*own(FUNCTION), "--json", "best.json", root=project)
    assert answer.returncode == 0, answer.stderr
    assert "nothing is proven: this recipe's model is not a scoring.Model" in answer.stdout
    content = json.loads((tmp_path / "best.json").read_text())
    assert content["proven"] is False
    found = content["architectures"]
    encodings = dataset.encode([row["arch"] for row in found]).flatten(1)
    scores = (encodings @ torch.linspace(-1, 1, 370).sin()).tolist()
    assert [row["score"] for row in found] == pytest.approx(scores, abs=1e-5)


def test_without_a_scoring_model_there_is_no_front(search, monkeypatch):
    monkeypatch.setattr(recipes.get("reference").__class__, "model", lambda *_: len)
    with pytest.raises(tool.InputError, match="--pareto: no bound is known for the recipe reference"):
        search("--pareto", "--tasks", "sop")


def test_ctrl_c_prints_the_best_found_and_the_gap(own, project, tmp_path):
    name, *flags = own(SLOW)
    command = [sys.executable, project / name, *flags, "--json", "best.json"]
    terminal, stderr = os.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        os.close(stderr)  # so that reading ends with the process
        bar = ""
        while not re.search(r"best -?\d+\.\d{4}, best possible -?\d+\.\d{4}", bar):  # the search takes minutes
            bar += os.read(terminal, 1000).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    assert re.search(r"\n   1 +-?\d+\.\d{4} ", output)
    assert "\ninterrupted: no architecture's score beats the first by more than " in output
    assert not (tmp_path / "best.json").exists()
