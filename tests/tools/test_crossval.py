import json
import os
import re

import numpy as np
import pytest
import torch
from helpers import add_recipe, make_data, make_entries
from scipy.stats import kendalltau

import recipes
from common.files import InputError
from dataset import encode, load_train
from recipes.base import Recipe
from space import FEATURES, sample_architectures
from tasks import TASKS, TRAIN_FILE, find_task
from tools import crossval

ARCHITECTURES = sample_architectures(53, seed=4)
CROSSVAL = ("tools/crossval.py", "--data_path", "small")


@pytest.fixture
def small(tmp_path):
    """A folder with 53 architectures: own-1_accuracy, the larger the better, orders them as sop_rank does."""
    entries = make_entries(ARCHITECTURES)
    for entry in entries.values():
        entry["own-1_accuracy"] = -entry["sop_rank"] / 7
    return make_data(tmp_path / "small", entries)


def test_the_folds_are_those_of_the_protocol():
    p = np.random.RandomState(7).permutation(53).tolist()
    splits = crossval.split(53, 7)
    assert len(splits) == 5
    for fold, (train, test) in enumerate(splits):
        assert test.tolist() == [p[i] for i in range(53) if i % 5 == fold]
        assert train.tolist() == [p[i] for i in range(53) if i % 5 != fold]


class Spy(Recipe):
    """Scores by the first layer's heads, or gives all architectures one score; remembers its training data."""

    constant = False

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        self.seen = task, encodings, ranks.tolist()
        return {}

    def model(self, checkpoint, index=None):
        return lambda encodings: encodings[:, 1, 3:6] @ torch.tensor([0.0, 1.0, 2.0]) * (not self.constant)


def test_a_recipe_sees_the_training_fold_alone_and_is_judged_on_the_test_fold():
    labels, recipe = np.random.RandomState(0).permutation(53), Spy("spy", "spy")
    train, test = crossval.split(53, 3)[2]
    tau = crossval.fold_tau(None, recipe, TASKS[6], ARCHITECTURES, labels, train, test)
    task, encodings, ranks = recipe.seen
    assert task is TASKS[6]
    assert torch.equal(encodings, encode([ARCHITECTURES[i] for i in train]))
    assert ranks == [labels[i] for i in train]
    expected = kendalltau([int(ARCHITECTURES[i][1]) for i in test], [labels[i] for i in test]).statistic
    assert tau == pytest.approx(expected)
    recipe.constant = True
    assert crossval.fold_tau(None, recipe, TASKS[6], ARCHITECTURES, labels, train, test) == 0.0


class Dying(Spy):
    def fit(self, *_):
        os._exit(1)


def test_a_worker_that_dies_is_said(monkeypatch):
    monkeypatch.setattr(recipes, "get", lambda name: Dying(name, name))
    with pytest.raises(InputError, match=r"^ridge: cplfw: its process died, exit status 1"):
        crossval.cross_validate(ARCHITECTURES, {"cplfw": np.arange(53)}, ["ridge"], [0], 1, progress=lambda x, total: x)


def cell(*values, share=1 / 4):
    """Mean of the values of k folds, and its standard error; share: test architectures for a training one."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.4f} ({(variance * (1 / len(values) + share)) ** 0.5:.4f})"


def test_means_corrected_standard_errors_and_paired_differences():
    ours = np.array([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.3]]])  # one seed, three folds, two tasks
    theirs = np.array([[[0.1, 0.1], [0.3, 0.2], [0.3, 0.4]]])
    assert crossval.table(["cplfw", "vehicleid"], {"a": ours, "b": theirs}).splitlines() == [
        "| tau | a | b |",
        "|---|--:|--:|",
        f"| cplfw | {cell(0.1, 0.3, 0.5)} | {cell(0.1, 0.3, 0.3)} |",
        f"| vehicleid | {cell(0.2, 0.4, 0.3)} | {cell(0.1, 0.2, 0.4)} |",
        f"| **mean** | {cell(0.15, 0.35, 0.4)} | {cell(0.1, 0.25, 0.35)} |",
        "",
        "| row less column | a | b |",
        "|---|--:|--:|",
        f"| a |  | {cell(0.05, 0.1, 0.05)} |",
        f"| b | {cell(-0.05, -0.1, -0.05)} |  |",
    ]


def expected_taus(folder, task, seed, size=None):
    """Of ridge on every fold, in a plain loop."""
    architectures, ranks = load_train(folder / TRAIN_FILE, [task])
    ranks, x, taus = ranks[task], encode(architectures).flatten(1)[:, FEATURES].double(), []
    p = np.random.RandomState(seed).permutation(len(architectures))
    for fold in range(5):
        train, test = np.array([i for k, i in enumerate(p) if k % 5 != fold])[:size], p[fold::5]
        fitted = recipes.get("ridge").fit(find_task(task), encode([architectures[i] for i in train]), ranks[train])
        taus.append(kendalltau(x[test] @ fitted["weights"], ranks[test]).statistic)
    return taus


def test_the_command_prints_the_table_and_writes_every_tau(script, small, tmp_path):
    flags = ("--seed", 3, "--repeats", 2, "--tasks", "own-1", "--tasks", "sop", "--recipes", "ridge", "--jobs", 3)
    answer = script(*CROSSVAL, *flags, "--json", "new/taus.json")
    assert answer.returncode == 0, answer.stderr
    content = json.loads((tmp_path / "new" / "taus.json").read_text())
    assert (content["seeds"], content["tasks"], list(content["tau"])) == ([3, 4], ["sop", "own-1"], ["ridge"])
    expected = [[expected_taus(small, task, seed) for task in content["tasks"]] for seed in (3, 4)]
    assert np.array(content["tau"]["ridge"]) == pytest.approx(np.array(expected).swapaxes(1, 2))
    rows = dict(re.findall(r"^\| (\S+) \| (.*) \|$", answer.stdout, re.MULTILINE))
    for task, taus in zip(content["tasks"], np.moveaxis(content["tau"]["ridge"], 2, 0), strict=True):
        assert rows[task] == cell(*taus.ravel())
    assert rows["own-1"] == rows["sop"]


def test_sizes_train_on_the_first_of_each_fold_and_say_who_needs_more(script, small, tmp_path):
    flags = ("--sizes", 30, 10, 30, "--seed", 5, "--tasks", "veri", "sop", "--json", "sizes.json")
    answer = script(*CROSSVAL, *flags, "--recipes", "reference", "ridge")
    assert answer.returncode == 0, answer.stderr
    content = json.loads((tmp_path / "sizes.json").read_text())
    assert (content["seeds"], content["tasks"], content["sizes"]) == ([5], ["veri", "sop"], [10, 30])
    assert content["tau"]["reference"] == [[[[None] * 2] * 5]] * 2
    taus = np.array(content["tau"]["ridge"])
    assert taus.shape == (2, 1, 5, 2)
    for i, t in np.ndindex(2, 2):
        assert taus[i, 0, :, t] == pytest.approx(expected_taus(small, ("veri", "sop")[t], 5, (10, 30)[i]))
    needs = "architectures are too few for batches of 32"
    assert answer.stdout.splitlines() == [
        "| labels | reference | ridge |",
        "|--:|--:|--:|",
        f"| 10 | - | {cell(*taus[0].mean(2).ravel(), share=53 / 5 / 10)} |",
        f"| 30 | - | {cell(*taus[1].mean(2).ravel(), share=53 / 5 / 30)} |",
        f"- reference cannot train on 10: veri: 10 {needs}: 8 train and 2 validate; the recipe needs 156",
        f"- reference cannot train on 30: veri: 30 {needs}: 24 train and 6 validate; the recipe needs 156",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sizes", "1", "20"), "--sizes: expected numbers from 2 to 42, which a fold of 53 architectures trains on"),
        (("--sizes", "20", "43"), "--sizes: expected numbers from 2 to 42, which a fold of 53 architectures trains on"),
        (("--sizes", "0"), "argument --sizes: '0': expected an integer above 0"),
        (("--seed", "4294967295", "--repeats", "2"), "--repeats: the last seed is above 2**32 - 1"),
        (("--seed", "4294967296"), "argument --seed: '4294967296': expected an integer from 0 to 2**32 - 1"),
        (("--seed", "-1"), "argument --seed: '-1': expected an integer from 0 to 2**32 - 1"),
        (("--recipes", "best"), "argument --recipes: invalid choice: 'best'"),
        (("--json", f"small/{TRAIN_FILE}"), f"small/{TRAIN_FILE}: would replace "),
        (("--json", ""), "argument --json: '': expected a file's name"),
        (
            ("--tasks", "sop"),
            "sop: 42 architectures are too few for batches of 50: 33 train and 9 validate; the recipe",
        ),
        (("--tasks", "nothing"), f"small/{TRAIN_FILE}: does not label the task 'nothing': it labels cplfw, "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(script, small, flags, message):
    answer = script(*CROSSVAL, *flags)
    assert (answer.returncode, "|" in answer.stdout, len(answer.stderr.splitlines())) == (2, False, 1)
    assert answer.stderr.startswith(f"crossval.py: {message}")


@pytest.mark.parametrize(("count", "status"), [(9, 2), (10, 0)])
def test_ten_architectures_are_enough(script, small, count, status):
    make_data(small, make_entries(ARCHITECTURES[:count]))
    answer = script(*CROSSVAL, "--recipes", "ridge", "--tasks", "sop")
    assert answer.returncode == status
    assert not status or answer.stderr.endswith(f"{TRAIN_FILE}: 9 architectures: expected at least 10\n")


def test_an_own_recipe_is_compared_with_the_others(script, small, tmp_path, monkeypatch):
    add_recipe(monkeypatch, Spy, "heads")
    answer = script(*CROSSVAL, "--recipes", "ridge", "heads", "--tasks", "sop", "--json", "taus.json")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("| tau | ridge | heads |\n")
    _, ranks = load_train(small / TRAIN_FILE, ["sop"])
    heads = np.array([int(architecture[1]) for architecture in ARCHITECTURES])
    taus = [kendalltau(heads[test], ranks["sop"][test]).statistic for _, test in crossval.split(53, 0)]
    content = json.loads((tmp_path / "taus.json").read_text())
    assert np.array(content["tau"]["heads"])[0, :, 0] == pytest.approx(taus)
