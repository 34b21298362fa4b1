"""tools/search.py, from its flags to what it prints and writes; tests/search checks the search itself."""

import fcntl
import json
import os
import re
import signal
import struct
import sys
import termios

import numpy as np
import pytest
import torch
from helpers import ROOT, OwnRecipe, Script, add_recipe, save_checkpoint

from common.files import InputError
from dataset import encode
from network import Predictor
from recipes.model import Model
from search import exact
from space import NUM_ARCHITECTURES, measure, sample_architectures
from tasks import TRAIN_FILE, find_task
from tools import search as tool


@pytest.fixture
def search(monkeypatch, capsys, data_folder, tmp_path):
    """search(*flags) -> (exit status, lines printed, content of the JSON file)."""

    def run(*flags):
        path = tmp_path / "out" / "best.json"
        path.unlink(missing_ok=True)
        flags = ("--data_path", data_folder, "--json", path, *flags)
        monkeypatch.setattr(sys, "argv", ["search.py", *map(str, flags)])
        status = tool.main()
        content = json.loads(path.read_text()) if path.exists() else None
        return status or 0, capsys.readouterr().out.splitlines(), content

    return run


@torch.no_grad()
def published_scores(name, architectures):
    """(n,) float64, by the published predictor itself."""
    checkpoint = torch.load(ROOT / "results" / "published" / f"{name}_final.pth", weights_only=True)
    predictor = Predictor().double().eval()
    predictor.load_state_dict(checkpoint["snapshots"][find_task(name).snapshot]["state_dict"])
    return predictor(encode(architectures).double()).numpy()


def check_table(lines, rows, tasks, layers):
    """Compare a printed table with the JSON's entries, and with shares beaten counted here."""
    assert lines[1].split() == ["#", "score", "M", "params", "G", "MACs", *tasks]
    words = [line.split() for line in lines[2:]]
    words = [row + second for row, second in zip(words[::2], words[1::2], strict=True)] if layers else words
    sample, names = sample_architectures(100_000, seed=0), [row["arch"] for row in rows]
    scores = [(published_scores(task, sample), published_scores(task, names)) for task in tasks]
    for i, (row, found) in enumerate(zip(rows, words, strict=True)):
        sizes = f"{row['score']:.4f}", f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e9:.2f}"
        codes = re.findall("([123])([123])1", row["arch"][1:]) if layers else []
        units = [f"{13 - int(heads)}/{4.5 - int(ratio) / 2:g}" for heads, ratio in codes]
        place = 4 + len(tasks)
        assert found[:4] + found[place:] == [str(i + 1), *sizes, row["arch"], *units]
        beaten = [100 * (of_sample > of_rows[i]).mean() for of_sample, of_rows in scores]
        assert list(map(float, found[4:place])) == pytest.approx(beaten, abs=0.002)  # float32


def test_within_a_small_budget_it_lists_all_architectures_by_their_scores(search):
    names, limit, tasks = {"j" + "331" * 10 + "000000"}, 56_500_000, ["veri", "sop"]
    for _ in range(3):
        names |= {a[:i] + str(int(a[i]) - 1) + a[i + 1 :] for a in names for i in range(31) if a[i] in "23"}
    names = np.array(sorted(names))
    names = names[measure(names).parameters <= limit]
    scores, sample = 0, sample_architectures(10_000, seed=0)
    for task in tasks:
        values = published_scores(task, sample)
        scores = scores + (published_scores(task, names) - values.mean()) / values.std() / 2
    order = scores.argsort(kind="stable")
    status, lines, content = search("--tasks", *tasks, "--max_params", limit, "--top", 999)
    sizes, found = measure(names[order]), content.pop("architectures")
    assert (status, content) == (0, {"tasks": tasks, "recipe": "reference", "proven": True})
    rows = zip(names[order], scores[order], sizes.parameters, sizes.macs, strict=True)
    assert found == [
        {"arch": arch, "score": pytest.approx(score, abs=1e-5), "params": params, "macs": macs}
        for arch, score, params, macs in rows
    ]
    start = lines.index("searching for the best by the mean of 2 tasks, standardised, recipe reference")
    check_table(lines[start + 1 : -2], found, tasks, layers=True)
    counts = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:ruled|scored|arch)", lines[-2])]
    assert counts[0] == sum(counts[1:]) == NUM_ARCHITECTURES
    assert f", {len(names)} scored one by one, in " in lines[-2]
    assert lines[-1] == "no other architecture has a better predicted score"


def test_the_front_ends_with_the_best_or_where_it_is_interrupted(search, monkeypatch):
    title = "best score for every number of parameters"
    flags = ("--tasks", "vehicleid", "--pareto", "--top", 1, "--max_macs", 16_000_000_000)
    status, lines, content = search(*flags)
    (best,), front = content["architectures"], content["pareto"]
    assert (status, content["proven"]) == (0, True)
    assert "searching for the best by the score of vehicleid, recipe reference" in lines
    assert front[-1] == {**best, "score": pytest.approx(best["score"])}
    scores = published_scores("vehicleid", [row["arch"] for row in front])
    assert [row["score"] for row in front] == pytest.approx(scores, abs=1e-9)
    whole = lines[lines.index(title) + 1 :]
    check_table(whole, front, ["vehicleid"], layers=False)

    def stop(share, *numbers):
        if share > 0.95:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(tool, "pareto", lambda model, progress, **limits: exact.pareto(model, progress=stop, **limits))
    status, lines, content = search(*flags)
    part = lines[lines.index(f"{title}, up to where it was interrupted") + 1 :]
    assert (status, content) == (130, None)
    assert 3 < len(part) < len(whole)
    assert part == whole[: len(part)]


def test_mistakes_are_found_before_the_search(search, data_folder, monkeypatch):
    monkeypatch.setattr(tool, "best", None)
    with pytest.raises(InputError, match="no architecture is within the budget: the smallest has "):
        search("--max_macs", 1)
    with pytest.raises(InputError, match="would replace"):
        search("--json", data_folder / TRAIN_FILE)


@pytest.fixture
def own(monkeypatch, tmp_path):
    """own(effects): adds a recipe of one's own, with a checkpoint of sop; flags for the search with it."""

    def add(effects, recipe_class=OwnRecipe):
        recipe, task = add_recipe(monkeypatch, recipe_class), find_task("sop")
        save_checkpoint(recipe.path(tmp_path, task), recipe, task, {"effects": effects})
        return ("--results_path", tmp_path, "--recipe", "own", "--tasks", "sop")

    return add


def test_a_model_that_is_a_function_is_searched_by_evolution_without_proof(search, own):
    effects = torch.linspace(-1, 1, 370).sin()
    flags = own(effects)
    status, lines, content = search(*flags, "--max_params", 70_000_000)
    rows = content["architectures"]
    assert (status, content["proven"], len(rows)) == (0, False, 10)
    assert max(row["params"] for row in rows) <= 70_000_000
    counts = re.match(r"of 317,297,380,491 architectures (\S+) scored one by one, (\S+) left, in ", lines[-2]).groups()
    assert sum(int(text.replace(",", "")) for text in counts) == NUM_ARCHITECTURES
    assert lines[-1] == "nothing is proven: this recipe's model is a function, so regularized evolution searched"
    scores = encode([row["arch"] for row in rows]).flatten(1) @ effects
    assert [row["score"] for row in rows] == pytest.approx(scores.tolist(), abs=1e-5)
    with pytest.raises(InputError, match=r"^--pareto: no bound is known for the recipe own: its model is a function$"):
        search(*flags, "--pareto")
    with pytest.raises(InputError, match=r"^sop: one score for all architectures, so none is the best: train again$"):
        search(*own(effects * 0))


class Hard(OwnRecipe):
    """A recipe whose model takes minutes to search."""

    def model(self, checkpoint, index=None):
        return Model(torch.zeros(87, 87).double(), tuple(Predictor().state_dict() for _ in range(20)), (1.0,) * 20)


def test_ctrl_c_prints_the_best_found_and_the_gap(own, tmp_path, data_folder):
    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    flags = ("--data_path", data_folder, *own(torch.zeros(1), Hard), "--json", "best.json", "--pareto")
    with Script("tools/search.py", *flags, cwd=tmp_path, before=lambda: os.dup2(theirs, 2)) as process:
        os.close(theirs)  # so that reading ends with the process
        bar = ""
        while not (said := re.search(r"best (-?\d+\.\d{4}), best possible (-?\d+\.\d{4})", bar)):
            bar += os.read(terminal, 1000).decode(errors="replace")
        process.interrupt()
        assert process.wait() == 130
        output = process.stdout.read()
    os.close(terminal)
    best = float(re.search(r"\n   1 +(-?\d+\.\d{4}) ", output)[1])
    gap = float(re.search(r"\ninterrupted: no architecture's score beats the first by more than (.*)\n", output)[1])
    assert best <= float(said[1])
    assert 0 < gap <= best - float(said[2]) + 1e-3
    assert output.endswith("\nbest.json: not written\n")
    assert not (tmp_path / "best.json").exists()
