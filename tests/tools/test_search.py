"""tools/search.py, from the command line to its output; tests/search compares the search itself with brute force."""

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

import numpy as np
import pytest
import torch
from helpers import REFERENCE, ROOT, save_checkpoint

import recipes
from common.files import InputError
from dataset import encode
from network import Predictor
from space import measure, sample_architectures
from tasks import TRAIN_FILE, find_task
from tools import search as tool

PUBLISHED = ("--results_path", ROOT / "results" / "published")
COLUMNS = (("score", 1, 4), ("params", 1e6, 2), ("macs", 1e9, 2))
SLOW = """
import torch
from network import Predictor
from recipes.base import Recipe as Base
from recipes.model import Model

class Recipe(Base):
    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return {}

    def model(self, checkpoint, index=None):
        torch.manual_seed(0)
        return Model(torch.zeros(87, 87).double(), [Predictor().state_dict() for _ in range(20)], [1.0] * 20)
"""


@pytest.fixture
def search(monkeypatch, capsys, data_folder, tmp_path):
    """Search with the published predictors: search(*flags) -> (status, output, content of the JSON file)."""

    def run(*flags):
        path = tmp_path / "out" / "best.json"
        flags = ("--data_path", data_folder, "--json", path, *PUBLISHED, *flags)
        monkeypatch.setattr(sys, "argv", ["search.py", *map(str, flags)])
        status = tool.main()
        return status, capsys.readouterr().out, json.loads(path.read_text()) if path.exists() else None

    return run


@torch.no_grad()
def published_scores(name, architectures):
    """(n,) float64, by the published predictor itself."""
    task = find_task(name)
    checkpoint = REFERENCE.load(REFERENCE.path(ROOT / "results" / "published", task), task).checkpoint
    predictor = Predictor().double().eval()
    predictor.load_state_dict(checkpoint["snapshots"][checkpoint["index"]]["state_dict"])
    return predictor(encode(architectures).double()).numpy()


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
def test_within_a_small_budget_it_lists_all_architectures_by_their_scores(search, tasks):
    architectures = small_architectures()
    scores = published_scores(tasks[0], architectures)
    if len(tasks) > 1:
        sample, scores = sample_architectures(10_000, seed=0), 0
        for name in tasks:
            values = published_scores(name, sample)
            scores = scores + (published_scores(name, architectures) - values.mean()) / values.std() / len(tasks)
    order, sizes = np.argsort(scores, kind="stable"), measure(architectures)
    status, text, content = search("--tasks", *tasks, "--max_params", sizes.parameters.max(), "--top", 999)
    assert not status
    assert [content[key] for key in ("tasks", "recipe", "proven")] == [tasks, "reference", True]
    found = content["architectures"]
    assert [row["arch"] for row in found] == [architectures[i] for i in order]
    assert [row["score"] for row in found] == pytest.approx(scores[order], abs=1e-5 if len(tasks) > 1 else 1e-9)
    assert [row["params"] for row in found] == sizes.parameters[order].tolist()
    assert [row["macs"] for row in found] == sizes.macs[order].tolist()
    assert f", {len(architectures)} scored one by one, in " in text
    assert text.endswith("no other architecture has a better predicted score\n")


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
    beaten = (published_scores("sop", sample_architectures(100_000, seed=0)) > found[0]["score"]).mean()
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["1"])
    assert row[1:] == [f"{found[0][key] / unit:.{d}f}" for key, unit, d in COLUMNS] + [f"{100 * beaten:.3f}"]
    assert f"{best}  " in text
    _, printed = text.split("best score for every number of parameters\n")
    assert [line.split()[-1] for line in printed.splitlines()[2:]] == [row["arch"] for row in front]


def test_mistakes_are_found_before_the_search(search, data_folder, monkeypatch):
    monkeypatch.setattr(tool, "best", None)
    for budget in (("--max_params", 55_882_751), ("--max_macs", 1)):
        with pytest.raises(InputError, match="the smallest has 55,882,752 parameters and 11,457,257,984 multiply-"):
            search(*budget)
    with pytest.raises(InputError, match="would replace"):
        search("--json", data_folder / TRAIN_FILE)
    with pytest.raises(SystemExit):
        search("--top", 1001)
    monkeypatch.setattr(REFERENCE.__class__, "model", lambda *_: lambda encodings: torch.arange(len(encodings)))
    with pytest.raises(InputError, match="--pareto: no bound is known for the recipe reference"):
        search("--pareto", "--tasks", "sop")


def test_of_a_predictor_with_one_score_for_all_nothing_is_the_best(search, monkeypatch):
    monkeypatch.setattr(REFERENCE.__class__, "model", lambda *_: lambda encodings: torch.ones(len(encodings)))
    with pytest.raises(InputError, match=r"^veri, sop: one score for all architectures, so none is the best"):
        search("--tasks", "veri", "sop")


@pytest.fixture
def hard(project, data_folder, tmp_path):
    """Flags of a search that takes minutes, in a copy of the project."""
    table = project / "recipes" / "__init__.py"
    table.write_text(table.read_text().replace('    "ridge"', '    "own": "own",\n    "ridge"'))
    (project / "recipes" / "own.py").write_text(SLOW)
    save_checkpoint(tmp_path / "sop_own.pth", recipes.get("ridge"), find_task("sop"), {"recipe": "own"})
    flags = ("--data_path", data_folder, "--results_path", tmp_path, "--recipe", "own", "--tasks", "sop")
    return (*flags, "--json", "best.json")


def test_ctrl_c_prints_the_best_found_and_the_gap(hard, project, tmp_path):
    terminal, stderr = os.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, project / "tools" / "search.py", *hard]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        os.close(stderr)  # so that reading ends with the process
        bar = ""
        while not re.search(r"best -?\d+\.\d{4}, best possible -?\d+\.\d{4}", bar):
            bar += os.read(terminal, 1000).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    assert re.search(r"\n   1 +-?\d+\.\d{4} ", output)
    assert "\ninterrupted: no architecture's score beats the first by more than " in output
    assert not (tmp_path / "best.json").exists()
