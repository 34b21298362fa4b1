"""tools/search.py: several tasks within budgets, beside the functions behind it, and Ctrl-C."""

import itertools
import json
import math
import signal
from pathlib import Path

import pytest

from engine.model import combine
from engine.predictors import load, shares_beaten
from search import exact
from space import VIT

FLAGS = ("--data_path", "data", "--tasks", "veri", "sop", "--json", "new/best.json", "--pareto")
LIMITS = {"params": 57_500_000, "macs": 11_760_000_000}


@pytest.fixture
def search(command, data_folder):
    """search(): tools/search.py with FLAGS and LIMITS."""
    return lambda *more: command("tools/search.py", *FLAGS, "--max", *(f"{k}={v}" for k, v in LIMITS.items()), *more)


def test_the_best_and_the_front_of_the_mean_score_are_written_and_printed(search):
    predictors = load(["veri", "sop"])
    model = combine([each.model for each in predictors], [2.0, 1.0])
    best, front = exact.best(model, limits=LIMITS), exact.pareto(model, limits=LIMITS)
    words = " ".join(search("--weight", "veri=2").stdout.split())
    content = json.loads(Path("new/best.json").read_text())
    for key, (architectures, scores, *_) in (("architectures", best), ("pareto", front)):
        shares, sizes = 100 * shares_beaten(predictors, architectures).beaten, VIT.measure(architectures)
        rows = zip(architectures, scores, sizes["params"], sizes["macs"], *shares, strict=True)
        for entry, (arch, score, params, macs, veri, sop) in zip(content[key], rows, strict=True):
            assert entry == {"arch": arch, "score": score, "params": params, "macs": macs}
            size = f"{params / 1e6:.4g}M {macs / 1e9:.4g}G"
            assert f"{score:.4f} {size} {veri:.3f} {sop:.3f} {arch}" in words
    assert f"{best.architectures[0]} depth 10, heads " in words
    counts = f"bound, {best.over_budget:,} ruled out by the budget, {best.scored:,} scored"
    assert f"{best.bounded:,} ruled out by a {counts}" in words


def test_a_time_limit_prints_the_best_found_so_far_and_how_far_it_may_be_off(search, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 60)
    clock = itertools.count(0, 0.02)
    monkeypatch.setattr(exact.time, "monotonic", lambda: next(clock))
    assert "ended early: no architecture's score beats the first by more than" in search("--seconds", 1).stdout


@pytest.mark.parametrize("name", ["best", "pareto"])
def test_ctrl_c_prints_what_is_found_and_the_gap_and_writes_nothing(search, monkeypatch, name):
    results, function = [], getattr(exact, name)

    def press(share, best, bound):
        if share > 0.5 and math.isfinite(best):
            signal.raise_signal(signal.SIGINT)

    def interrupted(*arguments, progress, **options):
        results.append(function(*arguments, progress=press, **options))
        return results[0]

    monkeypatch.setattr(exact, "BLOCK", 60)  # so that even this small search takes many steps
    monkeypatch.setattr(exact, name, interrupted)
    answer = search()
    assert answer.returncode == 130
    assert not Path("new/best.json").exists()
    assert "for every value of" not in answer.stdout
    if name == "pareto":
        assert "no other architecture has a better predicted score" in answer.stdout and not results
    else:
        assert results[0].gap > 0 and f"beats the first by more than {results[0].gap:.4f}\n" in answer.stdout
        assert all(f"{score:.4f}" in answer.stdout for score in results[0].scores)
