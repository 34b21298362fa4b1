"""tools/search.py, from its flags to what it prints and writes; tests/search checks the search itself."""

import fcntl
import itertools
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
from helpers import ROOT, OwnRecipe, Script, add_recipe, make_data, save_checkpoint

import recipes
from common.files import InputError
from dataset import encode, load_train
from network import Predictor
from recipes.model import Model
from search import exact
from space import FEATURES, NUM_ARCHITECTURES, measure, sample_architectures
from tasks import TRAIN_FILE, find_task
from tools import search as tool

PUBLISHED = ("--results_path", ROOT / "results" / "published")


@pytest.fixture
def search(monkeypatch, capsys, data_folder, tmp_path):
    """search(*flags) -> (exit status, lines printed, content of the JSON file)."""

    def run(*flags):
        path = tmp_path / "out" / "best.json"
        flags = ("--data_path", data_folder, "--json", path, *flags)
        monkeypatch.setattr(sys, "argv", ["search.py", *map(str, flags)])
        status = tool.main()
        content = json.loads(path.read_text()) if path.exists() else None
        return status or 0, capsys.readouterr().out.splitlines(), content

    return run


@torch.no_grad()
def published_scores(name, architectures):
    """(n,) float64, by the published predictor itself."""
    recipe, task = recipes.get("reference"), find_task(name)
    checkpoint = recipe.load(recipe.path(PUBLISHED[1], task), task).checkpoint
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


def layers_of(architecture):
    """The layers in real units, from the string."""
    heads, ratios = {"1": 12, "2": 11, "3": 10}, {"1": "4", "2": "3.5", "3": "3"}
    layers = re.findall("([123])([123])1", architecture[1:])
    return " ".join(f"{heads[first]}/{ratios[second]}" for first, second in layers)


def check_table(lines, rows, tasks, layers):
    """The printed table against the JSON's entries, and shares beaten counted here."""
    assert lines[1].split() == ["#", "score", "M", "params", "G", "MACs", *tasks]
    sample = sample_architectures(100_000, seed=0)
    scores = [(published_scores(task, sample), published_scores(task, [row["arch"] for row in rows])) for task in tasks]
    for i, row in enumerate(rows):
        number, score, params, macs, *rest = lines[2 + (i if not layers else 2 * i)].split()
        expected = str(i + 1), f"{row['score']:.4f}", f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e9:.2f}"
        assert (number, score, params, macs) == expected
        beaten = [100 * (of_sample > of_rows[i]).mean() for of_sample, of_rows in scores]
        assert list(map(float, rest[: len(tasks)])) == pytest.approx(beaten, abs=0.002)  # float32
        assert rest[len(tasks) :] == ([] if layers else [row["arch"]])
        if layers:
            assert lines[3 + 2 * i].strip() == f"{row['arch']}  {layers_of(row['arch'])}"


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
    limit = int(sizes.parameters.max())
    status, lines, content = search("--tasks", *tasks, "--max_params", limit, "--top", 999, *PUBLISHED)
    found = content.pop("architectures")
    assert (status, content) == (0, {"tasks": tasks, "recipe": "reference", "proven": True})
    assert [row["arch"] for row in found] == [architectures[i] for i in order]
    assert [row["score"] for row in found] == pytest.approx(scores[order], abs=1e-5 if len(tasks) > 1 else 1e-9)
    assert [row["params"] for row in found] == sizes.parameters[order].tolist()
    assert [row["macs"] for row in found] == sizes.macs[order].tolist()
    start = 1 + next(i for i, line in enumerate(lines) if line.startswith("searching for the best by "))
    by = {1: "the score of sop", 2: "the mean of 2 tasks, standardised"}[len(tasks)]
    assert lines[start - 1] == f"searching for the best by {by}, recipe reference"
    check_table(lines[start:], found, tasks, layers=True)
    counts = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:ruled|scored|arch)", lines[-2])]
    assert counts[0] == sum(counts[1:]) == NUM_ARCHITECTURES
    assert f", {len(architectures)} scored one by one, in " in lines[-2]
    assert lines[-1] == "no other architecture has a better predicted score"


def test_the_best_of_the_whole_space_beats_every_neighbour_and_the_front_ends_with_it(search):
    macs = 12_000_000_000
    status, lines, content = search("--tasks", "sop", "--pareto", "--top", 3, "--max_macs", macs)
    assert (status, content["proven"]) == (0, True)
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
    place = lines.index("best score for every number of parameters")
    check_table(lines[place + 1 :], front, ["sop"], layers=False)
    assert len(lines) == place + 3 + len(front)


def test_an_interrupted_front_is_printed_as_far_as_it_is_proven(search, monkeypatch):
    steps, title = [], "best score for every number of parameters"

    def counted(model, *, progress, **limits):
        stop, place = 9 * len(steps) // 10, itertools.count(1)  # in the second search

        def count(*numbers):
            steps.append(numbers)
            if next(place) == stop:
                signal.raise_signal(signal.SIGINT)

        return exact.pareto(model, progress=count, **limits)

    monkeypatch.setattr(tool, "pareto", counted)
    (status, whole, content), (stopped, part, _) = (
        search("--tasks", "vehicleid", "--pareto", "--top", 1) for _ in range(2)
    )
    assert (status, stopped) == (0, 130)
    whole = whole[whole.index(title) + 1 :]
    part = part[part.index(f"{title}, up to where it was interrupted") + 1 :]
    assert 10 < len(part) < len(whole) == 2 + len(content["pareto"])
    assert part == whole[: len(part)]


def test_mistakes_are_found_before_the_search(search, data_folder, monkeypatch):
    monkeypatch.setattr(tool, "best", None)
    for budget in (("--max_params", 55_882_751), ("--max_macs", 1)):
        with pytest.raises(InputError, match=r"^no architecture is within the budget: the smallest has 55,882,752 "):
            search(*budget)
    with pytest.raises(InputError, match="would replace"):
        search("--json", data_folder / TRAIN_FILE)
    with pytest.raises(SystemExit):
        search("--top", 1001)


def test_labels_of_accuracy_need_no_flag(search, tmp_path):
    random, entries = np.random.RandomState(0), {}
    for i, arch in enumerate(sample_architectures(150, seed=1)):
        entries[f"a{i}"] = {"arch": arch, "own_accuracy": arch.count("1") + 0.1 * random.randn()}
    folder, recipe, task = make_data(tmp_path / "mine", entries), recipes.get("gp"), find_task("own")
    architectures, ranks = load_train(folder / TRAIN_FILE)
    fitted, _ = recipe.learn(task, architectures, ranks["own"])
    save_checkpoint(recipe.path(tmp_path / "r", task), recipe, task, fitted)
    flags = ("--data_path", folder, "--results_path", tmp_path / "r", "--recipe", "gp", "--pareto", "--top", 2)
    status, _, content = search(*flags)
    assert (status, content["tasks"], content["proven"]) == (0, ["own"], True)
    first = content["architectures"][0]
    assert first["arch"].count("1") > max(map(str.count, architectures, "1" * 150))
    x = encode([first["arch"], *sample_architectures(20_000, seed=3)]).flatten(1)[:, FEATURES].double()
    scores = ((x @ fitted["matrix"]) * x).sum(1)
    assert first["score"] == pytest.approx(scores[0].item(), abs=1e-9)
    assert first["score"] < scores[1:].min()
    assert content["pareto"][-1]["arch"] == first["arch"]


class Flexible(OwnRecipe):
    """A user's recipe whose model the checkpoint decides."""

    def model(self, checkpoint, index=None):
        if "networks" not in checkpoint:
            return super().model(checkpoint)
        return Model(torch.zeros(87, 87).double(), tuple(Predictor().state_dict() for _ in range(20)), (1.0,) * 20)


@pytest.fixture
def own(monkeypatch, tmp_path):
    """own(checkpoint's content): adds a recipe of one's own, with a checkpoint; flags for the search with it."""

    def add(fitted):
        recipe = add_recipe(monkeypatch, Flexible)
        save_checkpoint(recipe.path(tmp_path, find_task("sop")), recipe, find_task("sop"), fitted)
        return ("--results_path", tmp_path, "--recipe", "own", "--tasks", "sop")

    return add


def test_a_model_that_is_a_function_is_searched_by_evolution_without_proof(search, own):
    effects = torch.linspace(-1, 1, 370).sin()
    flags = own({"effects": effects})
    status, lines, content = search(*flags, "--max_params", 70_000_000)
    assert (status, content["proven"], len(content["architectures"])) == (0, False, 10)
    assert lines[-1] == "nothing is proven: this recipe's model is a function, so regularized evolution searched"
    rows = content["architectures"]
    assert max(row["params"] for row in rows) <= 70_000_000
    scores = encode([row["arch"] for row in rows]).flatten(1) @ effects
    assert [row["score"] for row in rows] == pytest.approx(scores.tolist(), abs=1e-5)
    sample = np.array(sample_architectures(20_000, seed=3))
    sample = sample[measure(sample.tolist()).parameters <= 70_000_000].tolist()
    assert rows[0]["score"] < (encode(sample).flatten(1) @ effects).min()
    with pytest.raises(InputError, match=r"^--pareto: no bound is known for the recipe own: its model is a function$"):
        search(*flags, "--pareto")


def test_a_predictor_that_tells_nothing_apart_is_refused(search, own):
    with pytest.raises(InputError, match=r"^sop: one score for all architectures, so none is the best: train again$"):
        search(*own({"effects": torch.zeros(370)}))


def test_ctrl_c_prints_the_best_found_and_the_gap(own, tmp_path, data_folder):
    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    flags = ("--data_path", data_folder, *own({"networks": 20}), "--json", "best.json", "--pareto")
    with Script("tools/search.py", *flags, cwd=tmp_path, before=lambda: os.dup2(theirs, 2)) as process:
        os.close(theirs)  # so that reading ends with the process
        bar = ""
        while not re.search(r"best -?\d+\.\d{4}, best possible -?\d+\.\d{4}", bar):  # the search takes minutes
            bar += os.read(terminal, 1000).decode(errors="replace")
        process.interrupt()
        assert process.wait() == 130
        output = process.stdout.read()
    os.close(terminal)
    best = float(re.search(r"\n   1 +(-?\d+\.\d{4}) ", output)[1])
    gap = float(
        re.search(r"\ninterrupted: no architecture's score beats the first by more than (\d+\.\d+)\n", output)[1]
    )
    possible = float(re.findall(r"best possible (-?\d+\.\d+)", bar)[0])
    assert 0 < gap <= best - possible + 1e-3
    assert not (tmp_path / "best.json").exists()
