import json
import os
import re
from statistics import mean, variance

import numpy as np
import pytest
from helpers import OwnRecipe, add_recipe, make_data, make_entries
from scipy.stats import kendalltau

from dataset import encode
from space import sample_architectures
from tasks import TRAIN_FILE, find_task
from tools import crossval

ARCHITECTURES = sample_architectures(53, seed=4)
ENTRIES = make_entries(ARCHITECTURES)


class FirstBatch(OwnRecipe):
    """An architecture's score is its likeness to the mean of the first training batch."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return super().fit(task, encodings[: task.batch_size], ranks)


@pytest.fixture
def run(script, tmp_path, monkeypatch):
    """run(*flags): cross-validate, among others with the recipe `own`."""
    make_data(tmp_path / "small", ENTRIES)
    add_recipe(monkeypatch, FirstBatch)
    return lambda *flags, **options: script("tools/crossval.py", "--data_path", "small", *flags, **options)


def expected_taus(tasks, seed, size=None):
    """Of FirstBatch on every fold and task, in a plain loop."""
    x, taus = encode(ARCHITECTURES).flatten(1), np.zeros((5, len(tasks)))
    p = np.random.RandomState(seed).permutation(53)
    for fold, t in np.ndindex(taus.shape):
        train, test = [p[k] for k in range(53) if k % 5 != fold][:size], p[fold::5]
        scores = x[test] @ x[train[: find_task(tasks[t]).batch_size]].mean(0)
        ranks = np.array([entry[f"{tasks[t]}_rank"] for entry in ENTRIES.values()])
        taus[fold, t] = kendalltau(scores, ranks[test]).statistic
    return taus


def cell(values, share=1 / 4):
    """Mean of one value a fold, and its standard error; share: test architectures for a training one."""
    return f"{mean(values):.4f} ({(variance(values) * (1 / len(values) + share)) ** 0.5:.4f})"


def test_means_corrected_standard_errors_and_paired_differences():
    taus = {name: np.random.RandomState(seed).rand(2, 5, 2) for seed, name in enumerate("ab")}
    a, b = (values.reshape(10, 2) for values in taus.values())
    assert crossval.table(["cplfw", "vehicleid"], taus).splitlines() == [
        "| tau | a | b |",
        "|---|--:|--:|",
        f"| cplfw | {cell(a[:, 0])} | {cell(b[:, 0])} |",
        f"| vehicleid | {cell(a[:, 1])} | {cell(b[:, 1])} |",
        f"| **mean** | {cell(a.mean(1))} | {cell(b.mean(1))} |",
        "",
        "| row less column | a | b |",
        "|---|--:|--:|",
        f"| a |  | {cell((a - b).mean(1))} |",
        f"| b | {cell((b - a).mean(1))} |  |",
    ]


def test_the_command_prints_the_table_and_writes_every_tau(run, tmp_path):
    tasks = ["cplfw", "veri"]
    flags = ("--seed", 3, "--repeats", 2, "--tasks", *tasks, "--recipes", "own", "ridge", "--jobs", 3)
    answer = run(*flags, "--json", "new/taus.json")
    assert answer.returncode == 0, answer.stderr
    content = json.loads((tmp_path / "new" / "taus.json").read_text())
    taus = {name: np.array(values) for name, values in content.pop("tau").items()}
    assert content == {"seeds": [3, 4], "tasks": tasks}
    assert taus["own"] == pytest.approx(np.stack([expected_taus(tasks, seed) for seed in (3, 4)]))
    assert answer.stdout == f"{crossval.table(tasks, taus)}\n"
    assert list(taus) == ["own", "ridge"]


def test_sizes_train_on_the_first_of_each_fold_and_say_who_needs_more(run, tmp_path):
    tasks, sizes = ["cplfw", "veri"], [2, 42]
    flags = ("--sizes", 42, 2, 42, "--seed", 5, "--tasks", *tasks, "--recipes", "reference", "own")
    answer = run(*flags, "--json", "sizes.json")
    assert answer.returncode == 0, answer.stderr
    taus = np.stack([expected_taus(tasks, 5, size) for size in sizes])
    assert answer.stdout.splitlines() == [
        "| labels | reference | own |",
        "|--:|--:|--:|",
        f"| 2 | - | {cell(taus[0].mean(1), 53 / 5 / 2)} |",
        f"| 42 | - | {cell(taus[1].mean(1), 53 / 5 / 42)} |",
        "- reference cannot train on 2: cplfw: 2 architectures are too few for batches of 8: "
        "1 train and 1 validate; the recipe needs 24",
        "- reference cannot train on 42: veri: 42 architectures are too few for batches of 32: "
        "33 train and 9 validate; the recipe needs 156",
    ]
    content = json.loads((tmp_path / "sizes.json").read_text())
    assert np.array(content["tau"].pop("own")) == pytest.approx(taus[:, None])
    nothing = {"reference": [[[[None] * 2] * 5]] * 2}
    assert content == {"seeds": [5], "tasks": tasks, "sizes": sizes, "tau": nothing}


def test_the_reference_is_cross_validated_in_a_new_python(run):
    answer = run("--recipes", "reference", "--tasks", "cplfw", env=os.environ)
    assert answer.returncode == 0, answer.stderr
    assert float(re.search(r"\| cplfw \| (\S+) \(", answer.stdout)[1]) > 0.2


def test_ten_architectures_are_enough_and_a_constant_score_counts_as_0(run, tmp_path, monkeypatch):
    make_data(tmp_path / "small", make_entries(ARCHITECTURES[:10]))
    monkeypatch.setattr(FirstBatch, "fit", lambda self, task, encodings, *_: {"effects": 0 * encodings[0].flatten()})
    assert "| sop | 0.0000 (0.0000) |" in run("--recipes", "own", "--tasks", "sop").stdout


@pytest.mark.parametrize(
    ("n", "flags", "message"),
    [
        (53, "--sizes 1 20", "--sizes: expected numbers from 2 to 42, which a fold of 53 architectures trains on"),
        (53, "--sizes 20 43", "--sizes: expected numbers from 2 to 42, which a fold of 53 architectures trains on"),
        (53, "--seed 4294967295 --repeats 2", "--repeats: the last seed is above 2**32 - 1 (see --help)"),
        (
            53,
            f"--json small/{TRAIN_FILE}",
            f"small/{TRAIN_FILE}: would replace small/{TRAIN_FILE}, which this command reads or writes: "
            "choose another name",
        ),
        (
            53,
            "--tasks sop",
            "sop: 42 architectures are too few for batches of 50: 33 train and 9 validate; the recipe needs 246; "
            "leave reference out: --recipes gp ridge own",
        ),
        (53, "--recipes own --tasks sop", "own: sop: its process died, exit status 1"),
        (9, "", f"small/{TRAIN_FILE}: 9 architectures: expected at least 10"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, tmp_path, monkeypatch, n, flags, message):
    make_data(tmp_path / "small", make_entries(ARCHITECTURES[:n]))
    monkeypatch.setattr(FirstBatch, "fit", lambda *_: os._exit(1))
    answer = run(*flags.split())
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.splitlines()[-1] == f"crossval.py: {message}"
