"""Trained predictors: which checkpoint is used and what is said of it; ranks, intervals and shares by a plain count."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import save_checkpoint
from scipy.stats import norm

import recipes
from common.files import InputError, log, sha256
from dataset import Data, default_folder, encode, project_path
from engine import predictors
from engine.checkpoint import to_bytes
from engine.predictors import check_device, flags, load, rank, rank_file, shares_beaten, shares_intervals
from space import FEATURES, sample_architectures
from tasks import TASKS, find_task

ARCHITECTURES = sample_architectures(50, seed=9)
TASK_NAMES = ["sop", "veri"]
PUBLISHED = Path(project_path("results", "published"))


@pytest.fixture
def data(data_folder, caplog):
    caplog.set_level(logging.INFO, log.name)
    return Data(data_folder, "name")


@pytest.fixture
def own(tmp_path):
    """Checkpoints of gp in the temporary folder: of sop, veri, and of new, which is constant."""
    recipe, random = recipes.get("gp"), np.random.RandomState(0)
    for name, scale, labels in (("sop", 1, 50), ("veri", 2, 60), ("new", 0, 100)):
        matrix = torch.from_numpy(scale * random.randint(-9, 9, (87, 87)) / 256)  # the scores are exact
        fitted = {"matrix": matrix, "constant": 0.25, "std": scale * 0.5, "warp": 0.1, "labels": labels, "loo_ktau": 0}
        save_checkpoint(tmp_path / f"{name}_gp.pth", recipe, find_task(name), fitted)


def own_scores(predictor, architectures):
    x = encode(architectures).flatten(1)[:, FEATURES].double()
    return ((x @ predictor.checkpoint["matrix"]) * x).sum(1).numpy()


def own_intervals(predictor, scores, n):
    """(2, number of scores): the bins between the labels of the quantiles k / n that hold the ends."""
    fitted = predictor.checkpoint
    limits = np.expm1(fitted["warp"] * norm.ppf(np.arange(1, n) / n)) / fitted["warp"]
    return np.searchsorted(limits, norm.interval(0.8, scores + fitted["constant"], fitted["std"]), side="right")


@pytest.mark.parametrize(
    ("trained_on", "labels", "given", "said"),
    [
        ("this data", True, False, ""),
        ("unknown data", True, False, ""),
        ("other data", False, False, ""),
        ("other data", True, True, "not trained on {}: sop; used all the same"),
        ("other data", True, False, "not trained on {}: sop; using the published checkpoints in {}"),
        (None, False, False, "using the published checkpoints in {1}: sop"),
    ],
)
def test_a_task_without_a_checkpoint_of_this_data_gets_the_published_one(
    monkeypatch, data, caplog, tmp_path, trained_on, labels, given, said
):
    monkeypatch.setattr(Data, "results", tmp_path)
    origins = {"this data": {"data": sha256(data.train_file)}, "other data": {"data": "f" * 64}}
    if trained_on:
        checkpoint = torch.load(PUBLISHED / "sop_final.pth", weights_only=True)
        del checkpoint["data"]
        (tmp_path / "sop_final.pth").write_bytes(to_bytes(checkpoint | origins.get(trained_on, {})))
    if not labels:
        data.train_file.unlink()
    (predictor,) = load(["sop_rank", "sop"], data=data, results=tmp_path if given else None)
    assert predictor.path == (PUBLISHED if "published" in said else tmp_path) / "sop_final.pth"
    assert "".join(caplog.messages) == said.format(data.train_file, PUBLISHED)
    assert all((record.levelname == "WARNING") == said.startswith("not trained") for record in caplog.records)


def test_the_tasks_are_by_default_those_that_the_file_labels_and_a_constant_predictor_is_said(
    own, data, caplog, tmp_path
):
    entry = {"arch": ARCHITECTURES[0], "new_accuracy": 1.5, "sop_rank": 1}
    data.train_file.write_text(json.dumps({"a": entry, "b": entry}))
    assert [(each.task, each.path.parent) for each in load()] == [(task, PUBLISHED) for task in TASKS]
    loaded = load(data=data, recipe="gp", results=tmp_path)
    assert [(each.task.name, each.is_constant) for each in loaded] == [("sop", False), ("new", True)]
    assert caplog.messages == [
        f"not trained on {data.train_file}: sop, new; used all the same",
        f"{tmp_path}/new_gp.pth: gives one score to all architectures: it ranks nothing",
    ]


def test_a_missing_or_damaged_checkpoint_is_not_silently_the_published_one(monkeypatch, data, tmp_path):
    monkeypatch.setattr(Data, "results", tmp_path)
    (tmp_path / "sop_final.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"sop_final\.pth: damaged, or not a checkpoint"):
        load(["sop"], data=data)
    missing, results = "a b: no checkpoint of the recipe reference for veri, cplfw", tmp_path / "a b"
    command = f"python main.py --data_path {data.folder} --results_path '{results}' --tasks veri cplfw"
    with pytest.raises(InputError, match=f"{missing}: train it: {command}$"):
        load(["veri", "cplfw"], data=data, results=results)
    with pytest.raises(InputError, match=f"{missing}$"):
        load(["veri", "cplfw"], results=results)
    assert flags(Data(default_folder(), ""), "gp", ["sop", "veri"]) == " --recipe gp --tasks sop veri"


def test_a_file_is_ranked_and_each_task_gets_its_own_intervals(own, data, caplog, tmp_path):
    entries = json.loads(data.test_file.read_text())
    del entries["arch201"]["sop_rank"]
    entries["arch202"] |= {"cplfw_rank": 7, "note": "stays"}
    data.test_file.write_text(json.dumps(entries))
    loaded, paths = load(TASK_NAMES, recipe="gp", results=tmp_path), (tmp_path / "ranks", tmp_path / "intervals")
    assert rank_file(loaded, data.test_file, *paths) == 300
    assert [said.split(" labels: ")[0] for said in caplog.messages] == ["sop: learnt from 50", "veri: learnt from 60"]
    ranks, intervals = (json.loads(path.read_text()) for path in paths)
    architectures = [entry["arch"] for entry in entries.values()]
    for predictor, (name, ranked) in zip(loaded, rank(loaded, architectures).items(), strict=True):
        scores = own_scores(predictor, architectures)
        assert ranked.tolist() == [sum(scores < score) for score in scores]
        assert [entry.pop(f"{name}_rank") for entry in ranks.values()] == ranked.tolist()
        found = [entry.pop(f"{name}_rank_interval") for entry in intervals.values()]
        assert found == own_intervals(predictor, scores, 300).T.tolist()
        for entry in entries.values():
            entry.pop(f"{name}_rank", None)
    entries["arch202"]["cplfw_rank"] = -1  # as of all tasks without a predictor
    assert ranks == entries
    assert intervals == {key: {"arch": entry["arch"]} for key, entry in entries.items()}


def test_shares_are_a_plain_count(own, monkeypatch, tmp_path):
    monkeypatch.setattr(predictors, "SAMPLED", 2000)
    loaded, sample = load(TASK_NAMES, recipe="gp", results=tmp_path), sample_architectures(2000, seed=0)
    architectures = [*ARCHITECTURES[:20], sample[0]]  # the last ties with one of the sampled
    scores, shares = shares_beaten(loaded, architectures)
    intervals = shares_intervals(loaded, scores)
    for predictor, row, found, ends in zip(loaded, scores, shares, intervals, strict=True):
        expected, others = own_scores(predictor, architectures), own_scores(predictor, sample)
        assert row.tolist() == expected.tolist()
        assert found.tolist() == [sum(others > score) / 2000 for score in expected]
        low, high = own_intervals(predictor, expected, 2000)  # of a true rank r, 2000 - r - 1 are worse
        np.testing.assert_allclose(ends, np.stack([2000 - high - 1, 2000 - low], 1) / 2000)
    with pytest.raises(InputError, match="the recipe reference has no rank intervals: use gp"):
        shares_intervals(load(["sop"]), scores[:1])


def test_a_device_that_cannot_compute_is_refused():
    check_device("cpu")
    with pytest.raises(InputError, match=r"^--device meta: [^\n]+$"):
        check_device("meta")
