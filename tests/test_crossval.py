import json
import os

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm

import dataset
import recipes
from files import InputError
from recipes.base import Recipe
from tasks import TASKS, find_task
from tools import crossval

ARCHITECTURES = dataset.sample_architectures(53, seed=4)


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

    def model(self, content, index=None):
        return lambda encodings: encodings[:, 1, 3:6] @ torch.tensor([0.0, 1.0, 2.0]) * (not self.constant)


def test_a_recipe_sees_the_training_fold_alone_and_is_judged_on_the_test_fold():
    labels, recipe = np.random.RandomState(0).permutation(53), Spy("spy", "spy")
    train, test = crossval.split(53, 3)[2]
    tau = crossval.test_tau(None, recipe, TASKS[6], ARCHITECTURES, labels, train, test)
    task, encodings, ranks = recipe.seen
    assert task is TASKS[6]
    assert torch.equal(encodings, dataset.encode([ARCHITECTURES[i] for i in train]))
    assert ranks == [labels[i] for i in train]
    expected = kendalltau([int(ARCHITECTURES[i][1]) for i in test], [labels[i] for i in test]).statistic
    assert tau == pytest.approx(expected)
    recipe.constant = True
    assert crossval.test_tau(None, recipe, TASKS[6], ARCHITECTURES, labels, train, test) == 0.0


class Dying(Spy):
    def fit(self, *_):
        os._exit(1)


def test_a_worker_that_dies_is_said(monkeypatch):
    monkeypatch.setattr(recipes, "get", lambda name: Dying(name, name))
    with pytest.raises(InputError, match="ridge: cplfw: its process died, exit status 1"):
        crossval.cross_validate(ARCHITECTURES, {"cplfw": np.arange(53)}, ["ridge"], [0], 1, lambda jobs, total: jobs)


def test_ridge_is_the_regression_of_normal_scores():
    ranks = np.random.RandomState(1).permutation(53)
    recipe = recipes.get("ridge")
    content = recipe.fit(TASKS[0], dataset.encode(ARCHITECTURES), ranks)
    others = dataset.sample_architectures(9, seed=6)

    def one_hot(architectures):
        return np.array(
            [[float(a[i] == c) for i in range(37) if i % 3 or not i for c in "jkl123"] for a in architectures]
        )

    def predict(x, y, test):
        centred = x - x.mean(0)
        weights = np.linalg.inv(centred.T @ centred + np.eye(x.shape[1])) @ centred.T @ (y - y.mean())
        return (test - x.mean(0)) @ weights + y.mean()

    x, y = one_hot(ARCHITECTURES), norm.ppf((ranks + 0.5) / 53)
    expected = predict(x, y, one_hot(others))
    encodings = dataset.encode(others).flatten(1)[:, dataset.FEATURES].double()
    ours = ((encodings @ recipe.model(content).matrix) * encodings).sum(1)
    np.testing.assert_allclose(ours - ours.mean(), expected - expected.mean(), atol=1e-9)
    left_out = [predict(np.delete(x, i, 0), np.delete(y, i), x[i]) for i in range(53)]
    assert content["loo_ktau"] == pytest.approx(kendalltau(left_out, ranks).statistic)


def test_means_corrected_standard_errors_and_paired_differences():
    ours = np.array([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.3]]])  # one seed, three folds, two tasks
    theirs = np.array([[[0.1, 0.1], [0.3, 0.2], [0.3, 0.4]]])

    def cell(*values):
        mean = sum(values) / 3
        variance = sum((value - mean) ** 2 for value in values) / 2
        return f"{mean:.4f} ({(variance * (1 / 3 + 20 / 80)) ** 0.5:.4f})"  # a fifth tests, four fifths train

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


def test_the_command_prints_the_table_and_writes_every_tau(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--seed", 3, "--repeats", 2, "--tasks", "sop", "veri", "--recipes", "ridge")
    answer = script("tools/crossval.py", *flags, "--json", "taus.json")
    assert answer.returncode == 0, answer.stderr
    content = json.loads((tmp_path / "taus.json").read_text())
    assert content["seeds"] == [3, 4]
    assert content["tasks"] == ["veri", "sop"]
    taus = {recipe: np.array(values) for recipe, values in content["tau"].items()}
    assert taus["ridge"].shape == (2, 5, 2)
    assert answer.stdout == f"{crossval.table(content['tasks'], taus)}\n"
    architectures, ranks = dataset.load_train(data_folder / dataset.TRAIN_FILE)
    indices = crossval.split(200, 4)[1]
    expected = crossval.test_tau(None, recipes.get("ridge"), find_task("sop"), architectures, ranks["sop"], *indices)
    assert taus["ridge"][1, 1, 1] == pytest.approx(expected)
