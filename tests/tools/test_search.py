"""tools/search.py, from its flags to what it prints and writes; tests/search checks the search itself."""

import fcntl
import json
import os
import re
import signal
import struct
import termios

import pytest
import torch
from helpers import OwnRecipe, Script, add_recipe, save_checkpoint

from dataset import encode
from engine.model import combine
from engine.predictors import load, shares_beaten
from search import exact
from space import NUM_ARCHITECTURES, measure
from tasks import TRAIN_FILE, find_task


@pytest.fixture
def search(script, data_folder, tmp_path):
    """search(*flags): the answer of the command, the lines that it prints, and the content of the JSON file."""

    def run(*flags, **options):
        path = tmp_path / "new" / "best.json"
        path.unlink(missing_ok=True)
        answer = script("tools/search.py", "--data_path", "data", "--json", "new/best.json", *flags, **options)
        return answer, answer.stdout.splitlines(), json.loads(path.read_text()) if path.exists() else None

    return run


def entries(architectures, scores):
    """Entries of the JSON."""
    rows = zip(architectures, scores, *measure(architectures)[-2:], strict=True)
    return [{"arch": arch, "score": score, "params": params, "macs": macs} for arch, score, params, macs in rows]


def check_table(lines, rows, predictors, layers):
    """Compare a printed table with the JSON's entries."""
    assert lines[1].split() == ["#", "score", "M", "params", "G", "MACs", *(each.task.name for each in predictors)]
    words = [line.split() for line in lines[2:]]
    words = [row + second for row, second in zip(words[::2], words[1::2], strict=True)] if layers else words
    shares = 100 * shares_beaten(predictors, [row["arch"] for row in rows])[1].T
    for i, (row, found) in enumerate(zip(rows, words, strict=True)):
        sizes = f"{row['score']:.4f}", f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e9:.2f}"
        codes = re.findall("([123])([123])1", row["arch"][1:]) if layers else []
        units = [f"{13 - int(heads)}/{4.5 - int(ratio) / 2:g}" for heads, ratio in codes]
        assert found == [str(i + 1), *sizes, *(f"{share:.3f}" for share in shares[i]), row["arch"], *units]


def test_it_prints_and_writes_the_best_and_the_front_which_may_be_interrupted(search, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 60)  # so that even this small search takes many steps
    tasks, limits = ["veri", "sop"], {"max_params": 57_500_000, "max_macs": 11_760_000_000}
    predictors = load(tasks)
    model = combine([each.model for each in predictors])
    best, front = exact.best(model, 12, **limits), exact.pareto(model, **limits)
    flags = ("--tasks", *tasks, "--top", 12, "--pareto", "--max_params", 57_500_000, "--max_macs", 11_760_000_000)
    answer, whole, content = search(*flags)
    ours, others = entries(*best[:2]), entries(*front[:2])
    about = {"tasks": tasks, "recipe": "reference", "proven": True}
    assert (answer.returncode, content) == (0, about | {"architectures": ours, "pareto": others})
    start = whole.index("searching for the best by the mean of 2 tasks, standardised, recipe reference") + 1
    middle = whole.index("best score for every number of parameters")
    check_table(whole[start : middle - 3], ours, predictors, layers=True)
    check_table(whole[middle + 1 :], others, predictors, layers=False)
    counts = (
        f"{best.bounded:,} ruled out by a bound, {best.over_budget:,} ruled out by the budget, "
        f"{best.scored:,} scored one by one, in "
    )
    assert whole[middle - 3].startswith(f"of 317,297,380,491 architectures {counts}")
    assert whole[middle - 2 : middle] == ["no other architecture has a better predicted score", ""]

    def stop(share, *numbers):
        if share > 0.91:
            signal.raise_signal(signal.SIGINT)

    pareto = exact.pareto
    monkeypatch.setattr(exact, "pareto", lambda model, progress, **limits: pareto(model, progress=stop, **limits))
    answer, part, content = search(*flags)
    assert (answer.returncode, content, part.pop()) == (130, None, "new/best.json: not written")
    assert part[middle] == "best score for every number of parameters, up to where it was interrupted"
    assert 0 < len(part) - middle - 3 < len(others)
    assert part[middle + 1 :] == whole[middle + 1 : len(part)]


def test_mistakes_are_one_line_in_a_new_python(search):
    for flags, message in (
        (("--max_macs", 1), "no architecture is within the budget: the smallest has "),
        (("--json", f"data/{TRAIN_FILE}"), f"data/{TRAIN_FILE}: would replace "),
    ):
        answer, *_ = search(*flags, env=os.environ)
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
        assert answer.stderr.startswith(f"search.py: {message}")


def test_a_model_that_is_a_function_is_searched_by_evolution_without_proof(search, monkeypatch, tmp_path):
    recipe, task, effects = add_recipe(monkeypatch, OwnRecipe), find_task("sop"), torch.linspace(-1, 1, 370).sin()
    flags = ("--results_path", tmp_path, "--recipe", "own", "--tasks", "sop")
    save_checkpoint(recipe.path(tmp_path, task), recipe, task, {"effects": effects})
    answer, lines, content = search(*flags, "--max_params", 70_000_000)
    rows = content["architectures"]
    assert (answer.returncode, content["proven"], len(rows)) == (0, False, 10)
    assert max(row["params"] for row in rows) <= 70_000_000
    assert "searching for the best by the score of sop, recipe own" in lines
    counts = re.match(r"of 317,297,380,491 architectures (\S+) scored one by one, (\S+) left, in ", lines[-2]).groups()
    assert sum(int(text.replace(",", "")) for text in counts) == NUM_ARCHITECTURES
    assert lines[-1] == "nothing is proven: this recipe's model is a function, so regularized evolution searched"
    scores = encode([row["arch"] for row in rows]).flatten(1) @ effects
    assert [row["score"] for row in rows] == pytest.approx(scores.tolist(), abs=1e-5)
    answer, *_ = search(*flags, "--pareto")
    assert answer.stderr == "search.py: --pareto: no bound is known for the recipe own: its model is a function\n"
    save_checkpoint(recipe.path(tmp_path, task), recipe, task, {"effects": effects * 0})
    answer, *_ = search(*flags)
    assert answer.stderr == "search.py: sop: one score for all architectures, so none is the best: train again\n"


def test_ctrl_c_prints_the_best_found_and_the_gap(monkeypatch, tmp_path, data_folder):
    monkeypatch.setattr(exact, "BLOCK", 1)  # so that the search takes minutes
    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    flags = ("--data_path", data_folder, "--json", "best.json", "--pareto")
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
