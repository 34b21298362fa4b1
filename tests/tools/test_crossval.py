"""tools/crossval.py beside a plain loop over folds: tables, and what happens where a recipe cannot be fitted."""

import json
import os
from pathlib import Path
from statistics import mean, variance

import numpy as np
import pytest
from helpers import OwnRecipe, add_recipe, make_data, make_entries
from scipy.stats import kendalltau

from dataset import encode
from space import VIT
from tasks import find_task

ARCHITECTURES = VIT.sample(53, seed=4)
ENTRIES, TASKS = make_entries(ARCHITECTURES), ["cplfw", "veri"]


class FirstBatch(OwnRecipe):
    """An architecture's score is its likeness to the mean of the first training batch."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return super().fit(task, encodings[: task.batch_size], ranks)


@pytest.fixture
def run(command, tmp_path, monkeypatch):
    """run(*flags): cross-validate, among others with the recipe `own`: (what it prints, content of the JSON)."""
    make_data(tmp_path / "small", ENTRIES)
    add_recipe(monkeypatch, FirstBatch)

    def run(*flags):
        answer = command("tools/crossval.py", "--data_path", "small", "--json", "taus", *flags)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout, json.loads(Path("taus").read_text())

    return run


def expected_taus(seed, size=None):
    """Of FirstBatch on every fold and task, in a plain loop."""
    x, taus = encode(VIT, ARCHITECTURES).flatten(1), np.zeros((5, 2))
    p = np.random.RandomState(seed).permutation(53)
    for fold, t in np.ndindex(taus.shape):
        train, test = [p[k] for k in range(53) if k % 5 != fold][:size], p[fold::5]
        scores = x[test] @ x[train[: find_task(TASKS[t]).batch_size]].mean(0)
        ranks = np.array([entry[f"{TASKS[t]}_rank"] for entry in ENTRIES.values()])
        taus[fold, t] = kendalltau(scores, ranks[test]).statistic
    return taus


def cell(values, share=1 / 4):
    """Mean of one value a fold, and its standard error; share: test architectures for a training one."""
    return f"{mean(values):.4f} ({(variance(values) * (1 / len(values) + share)) ** 0.5:.4f})"


def test_every_tau_their_means_and_the_paired_differences(run):
    flags = ("--seed", 3, "--repeats", 2, "--tasks", *TASKS, "--recipes", "own", "ridge", "--jobs", 3)
    table, content = run(*flags)
    taus = {name: np.array(values) for name, values in content.pop("tau").items()}
    assert content == {"seeds": [3, 4], "tasks": TASKS}
    assert taus["own"] == pytest.approx(np.stack([expected_taus(seed) for seed in (3, 4)]))
    a, b = (taus[name].reshape(10, 2) for name in ("own", "ridge"))
    for name, pair in ("cplfw", (a[:, 0], b[:, 0])), ("veri", (a[:, 1], b[:, 1])), ("**mean**", (a.mean(1), b.mean(1))):
        assert f"| {name} | {' | '.join(map(cell, pair))} |\n" in table
    assert table.endswith(f"| own |  | {cell((a - b).mean(1))} |\n| ridge | {cell((b - a).mean(1))} |  |\n")


def test_sizes_train_on_the_first_of_each_fold_and_say_who_needs_more(run):
    flags = ("--sizes", 42, 2, 42, "--seed", 5, "--tasks", *TASKS, "--recipes", "reference", "own")
    table, content = run(*flags)
    taus = np.stack([expected_taus(5, size) for size in (2, 42)])
    assert np.array(content["tau"]["own"]) == pytest.approx(taus[:, None])
    assert set(np.ravel(content["tau"]["reference"])) == {None} and content["sizes"] == [2, 42]
    assert content["test_architectures"] == 53 / 5
    for size, row in zip((2, 42), taus, strict=True):
        assert f"| {size} | - | {cell(row.mean(1), 53 / 5 / size)} |\n" in table
        assert f"- reference cannot train on {size}: " in table


def test_ten_architectures_are_enough_a_constant_score_counts_as_0_and_a_dead_process_is_named(
    run, command, tmp_path, monkeypatch
):
    flags = ("--recipes", "own", "--tasks", "sop")
    make_data(tmp_path / "small", make_entries(ARCHITECTURES[:10]))
    monkeypatch.setattr(FirstBatch, "fit", lambda self, task, encodings, *_: {"effects": 0 * encodings[0].flatten()})
    assert "| sop | 0.0000 (0.0000) |" in run(*flags)[0]
    monkeypatch.setattr(FirstBatch, "fit", lambda *_: os._exit(1))
    status, _, errors = command("tools/crossval.py", "--data_path", "small", *flags)
    assert (status, errors.splitlines()[-1]) == (2, "crossval.py: own: sop: its process died, exit status 1")
