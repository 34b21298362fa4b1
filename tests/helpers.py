"""What several tests share: paths, small data files, checkpoints, and commands that run in this process."""

import gzip
import io
import json
import re
import runpy
import sys
import types
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, rankdata

import cli
import recipes
from common.files import log
from dataset import Labels
from engine.checkpoint import to_bytes
from engine.model import score
from engine.trained import header, learn
from recipes.base import Recipe as Base
from space import read_space
from tasks import TASKS, TEST_FILE, TRAIN_FILE, Task

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data" / TRAIN_FILE
BENCHMARKS = ROOT.parent / "shared" / "benchmarks"
needs_benchmarks = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the public tables are not there")
needs_real_data = pytest.mark.skipif(not REAL_DATA.exists(), reason="the competition's training file is not there")
old_torch = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7),
    reason="recorded with torch 2.13; torch 2.6 draws other dropout masks from a seed",
)
REFERENCE = recipes.get("reference")
README = (ROOT / "README.md").read_text()
(README_RECIPE,) = re.findall(r"^```python\n(import torch\n.*?)^```$", README, re.MULTILINE | re.DOTALL)


def make_entries(architectures, start=1, seed=0):
    """Entries of a file: ranks of all eight tasks that follow the number of heads, with noise."""
    random, ranks = np.random.RandomState(seed), {}
    for task in TASKS:
        quality = [a.count("3") - a.count("1") + random.randn() for a in architectures]
        ranks[task.rank_key] = np.argsort(np.argsort(quality)).tolist()
    rows = zip(*ranks.values(), architectures, strict=True)
    return {f"arch{start + i}": dict(zip((*ranks, "arch"), row, strict=True)) for i, row in enumerate(rows)}


def make_data(folder, train, test=None):
    """Write entries as the training file and the test file of a new folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAIN_FILE).write_text(json.dumps(train))
    if test is not None:
        (folder / TEST_FILE).write_text(json.dumps(test))
    return folder


def save_checkpoint(path, recipe, task, fitted, data="f" * 64):
    """Write a checkpoint as main.py does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(header(recipe, task, data) | fitted))


class Answer(NamedTuple):
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def run_command(name, *flags, text=b""):
    """Run a command of the project, such as tools/rank.py, in this process and folder: Answer. text: standard input."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [name])
        patch.setattr(log, "propagate", False)  # pytest-xdist cannot send all that is said
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        try:
            status = cli.call(runpy.run_path(str(ROOT / name))["main"], list(map(str, flags)))
        except SystemExit as ended:  # by argparse
            status = ended.code
    return Answer(status or 0, out.getvalue(), err.getvalue())


def files(folder):
    """{path below the folder: content}."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TableOf:
    """A public table of real trainings of one task, without repeated networks, to replay fits to some of it."""

    def __init__(self, folder, task):
        self.space, table = (
            read_space(folder / "space.json"),
            json.loads(gzip.decompress((folder / "table.json.gz").read_bytes())),
        )
        entries = {entry.get("same_network_as", entry["arch"]): entry for entry in table.values()}.values()
        self.architectures = [entry["arch"] for entry in entries]
        self.values = np.array([-entry[f"{task}_accuracy"] for entry in entries])

    def labels(self, some):
        """dataset.Labels of some architectures."""
        return Labels.of([self.architectures[i] for i in some], self.values[some].tolist(), measured=True)

    def replay(self, recipe, count, seed):
        """Tau of a recipe that is fitted to `count` random labels on all others, and how many 80 % intervals hold."""
        order, recipe = np.random.RandomState(seed).permutation(len(self.values)), recipes.get(recipe, self.space)
        fitted, _ = learn(recipe, Task("x"), self.labels(order[:count]))
        others, true = [self.architectures[i] for i in order[count:]], self.values[order[count:]]
        scores = score([recipe.model(fitted)], others)[0]
        low, high = recipe.rank_interval(fitted, scores, scores)
        ranks = rankdata(true) - 1
        return kendalltau(scores, true).statistic, ((low.numpy() <= ranks) & (ranks <= high.numpy())).mean()


class OwnRecipe(Base):
    """A user's recipe with nothing but what it must have: an architecture's score is its likeness to the mean one."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return {"effects": encodings.mean(0).flatten()}

    def model(self, checkpoint, index=None):
        return lambda encodings: encodings.flatten(1) @ checkpoint["effects"]


def add_recipe(monkeypatch, recipe_class, name="own"):
    """Add a recipe to the project's; returns it."""
    monkeypatch.setitem(recipes.RECIPES, name, name)
    monkeypatch.setitem(sys.modules, f"recipes.{name}", types.SimpleNamespace(Recipe=recipe_class))
    return recipes.get(name)
