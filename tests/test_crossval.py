import json
import os
from dataclasses import replace

import ensemble
import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm

import dataset
import training
from network import Predictor
from tasks import ENSEMBLE, TASKS
from tools import crossval

ARCHITECTURES = dataset.sample_architectures(53, seed=4)


def test_the_folds_are_those_of_the_protocol():
    p = np.random.RandomState(7).permutation(53).tolist()
    splits = crossval.splits(53, 7)
    assert len(splits) == 5
    for fold, (rest, test) in enumerate(splits):
        assert test.tolist() == [p[i] for i in range(53) if i % 5 == fold]
        assert rest.tolist() == [p[i] for i in range(53) if i % 5 != fold]


def test_a_training_sees_the_rest_alone_and_is_judged_on_the_test_fold():
    labels = np.random.RandomState(0).permutation(53)
    seen = []

    def training(place, encodings, ranks, architectures):
        seen.append((place, encodings, ranks.tolist(), architectures))
        return {"length": [int(a[1]) for a in architectures], "constant": torch.zeros(len(architectures))}

    job, taus = crossval.evaluate((training, 3, 2, 6, ARCHITECTURES, labels))
    rest, test = crossval.splits(53, 3)[2]
    ((place, encodings, ranks, architectures),) = seen
    assert (job, place) == ((3, 2, 6), 6)
    assert torch.equal(encodings, dataset.encode([ARCHITECTURES[i] for i in rest]))
    assert ranks == [labels[i] for i in rest]
    assert architectures == [ARCHITECTURES[i] for i in test]
    expected = kendalltau([int(ARCHITECTURES[i][1]) for i in test], [labels[i] for i in test]).statistic
    assert taus == {"length": pytest.approx(expected), "constant": 0.0}


def test_every_recipe_gives_a_score_an_architecture(monkeypatch):
    """And the three of the reference's training are of its snapshots, as they are named."""
    quick = replace(ENSEMBLE[0], num_epochs=15, batch_size=5, lr=5e-3, dropout_ratio=0.1)
    monkeypatch.setattr(crossval, "TASKS", [replace(TASKS[0], num_epochs=6, batch_size=5, snapshot=-3)])
    monkeypatch.setattr(crossval, "ENSEMBLE", [quick])
    monkeypatch.setattr(crossval, "AVERAGED", 2)
    encodings = dataset.encode(ARCHITECTURES)
    ranks = np.argsort(np.argsort([a.count("3") for a in ARCHITECTURES], kind="stable"))
    others = dataset.sample_architectures(31, seed=5)
    scores = {}
    for training_of, names in crossval.TRAININGS.items():
        made = training_of(0, encodings, ranks, others)
        assert tuple(made) == names
        scores |= made
    assert all(len(row) == 31 for row in scores.values())
    run = training.train(crossval.TASKS[0], encodings, ranks)
    each = []
    for snapshot in run.snapshots:
        predictor = Predictor().eval()
        predictor.load_state_dict(snapshot.state_dict)
        with torch.no_grad():
            each.append(predictor(dataset.encode(others)).numpy())
    np.testing.assert_allclose(scores["best"], each[-1], atol=1e-5)
    np.testing.assert_allclose(scores["reference"], each[-3], atol=1e-5)
    (opinion,) = ensemble.opinions([ensemble.train(quick, encodings, ranks)], others)
    assert len(opinion) > 1
    assert torch.equal(scores["process"], opinion[0])
    assert torch.equal(scores["members"], opinion[1:].mean(0))
    assert torch.equal(scores["ensemble"], ensemble.combine(opinion))
    places = [np.argsort(np.argsort(row, kind="stable")) for row in each[-2:]]
    np.testing.assert_allclose(scores["average"], np.mean(places, 0), atol=1)


def die(*_):
    os._exit(1)


def test_a_worker_that_dies_is_said(monkeypatch):
    monkeypatch.setattr(crossval, "TRAININGS", {die: ("ridge",)})
    ranks = {task.name: np.arange(53) for task in TASKS}
    with pytest.raises(ChildProcessError, match="a worker process died"):
        crossval.cross_validate(ARCHITECTURES, ranks, TASKS[:1], ["ridge"], [0], 1, lambda futures, total: futures)


def test_ridge_is_the_regression_of_quantiles():
    ranks = np.random.RandomState(1).permutation(53)
    others = dataset.sample_architectures(9, seed=6)
    ours = crossval.ridge(0, dataset.encode(ARCHITECTURES), ranks, others)["ridge"]
    x, test = (
        np.array([[float(a[i] == c) for i in range(37) if i % 3 or not i for c in "jkl123"] for a in part])
        for part in (ARCHITECTURES, others)
    )
    y = norm.ppf((ranks + 0.5) / 53)
    centre = x.mean(0)
    weights = np.linalg.inv((x - centre).T @ (x - centre) + np.eye(x.shape[1])) @ (x - centre).T @ y
    np.testing.assert_allclose(ours, (test - centre) @ weights, atol=1e-9)


def test_means_standard_errors_and_paired_differences():
    ours = np.array([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.3]]])  # one seed, three folds, two tasks
    theirs = np.array([[[0.1, 0.1], [0.3, 0.2], [0.3, 0.4]]])

    def cell(*values):
        mean = sum(values) / 3
        return f"{mean:.4f} ({(sum((value - mean) ** 2 for value in values) / 2 / 3) ** 0.5:.4f})"

    assert crossval.table(TASKS[:2], {"a": ours, "b": theirs}).splitlines() == [
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
    assert answer.stdout == f"{crossval.table(TASKS[5:6] + TASKS[7:], taus)}\n"
    architectures, ranks = dataset.load_train(data_folder / dataset.TRAIN_FILE)
    rest, test = crossval.splits(200, 4)[1]
    seen = dataset.encode([architectures[i] for i in rest])
    others = [architectures[i] for i in test]
    expected = kendalltau(crossval.ridge(7, seen, ranks["sop"][rest], others)["ridge"], ranks["sop"][test]).statistic
    assert taus["ridge"][1, 1, 1] == pytest.approx(expected)
