"""Trained predictors: which checkpoint is used and what is said of it; ranks, intervals and shares by a plain count."""

import json
import logging

import numpy as np
import pytest
import torch
from helpers import REFERENCE, ROOT, OwnRecipe, add_recipe, save_checkpoint

import dataset
import recipes
from common.files import InputError, log, sha256
from dataset import Data, encode
from network import Predictor
from recipes import predictors
from recipes.predictors import load, rank, rank_file, shares_beaten, shares_intervals
from space import sample_architectures
from tasks import TASKS, TEST_FILE, find_task

ARCHITECTURES, SOP = sample_architectures(50, seed=9), find_task("sop")
PUBLISHED = dataset.project_path("results", "published")


@pytest.fixture
def data(data_folder, caplog):
    caplog.set_level(logging.INFO, log.name)
    return Data(data_folder, "name")


def snapshot(seed):
    """Fitted part of a checkpoint with one snapshot, from a seed."""
    torch.manual_seed(seed)
    held = {"epoch": 1, "ktau": 0.5, "state_dict": Predictor().state_dict()}
    return {"index": -1, "snapshots": {-1: held}, "validate_ktau": [(1, 0.5)], "whole_ktau": 0.5}


@torch.no_grad()
def forward(state_dict, architectures):
    predictor = Predictor().eval()
    predictor.load_state_dict(state_dict)
    return predictor(encode(architectures)).numpy()


def test_the_published_predictors_score_as_the_network_in_their_files(caplog):
    caplog.set_level(logging.INFO, log.name)
    loaded = load()
    assert [predictor.task for predictor in loaded] == list(TASKS)
    found = rank(loaded, ARCHITECTURES)
    assert list(found) == [task.name for task in TASKS]
    for predictor in loaded:
        content = torch.load(ROOT / "results" / "published" / f"{predictor.task.name}_final.pth", weights_only=True)
        scores = forward(content["snapshots"][content["index"]]["state_dict"], ARCHITECTURES)
        assert found[predictor.task.name].tolist() == [sum(scores < score) for score in scores]
    assert not caplog.messages


@pytest.mark.parametrize("labels", ["a training file", "no training file"])
@pytest.mark.parametrize("own", ["own", "other data", "missing"])
def test_a_task_without_a_checkpoint_of_this_data_gets_the_published_one(
    monkeypatch, data, caplog, tmp_path, own, labels
):
    monkeypatch.setattr(Data, "results", tmp_path / "r")
    path, fitted = REFERENCE.path(tmp_path / "r", SOP), snapshot(1)
    if own != "missing":
        save_checkpoint(path, REFERENCE, SOP, fitted, sha256(data.train_file) if own == "own" else "f" * 64)
    if labels == "no training file":
        data.train_file.unlink()
    (predictor,) = load(["sop_rank"], data=data)
    used, said = path, []
    if own == "missing" or (own == "other data" and labels == "a training file"):
        used = REFERENCE.path(PUBLISHED, SOP)
        fitted = torch.load(used, weights_only=True)
        said = [f"using the published checkpoints in {PUBLISHED}: sop"]
        if labels == "a training file":
            said = [f"not trained on {data.train_file}: sop; using the published checkpoints in {PUBLISHED}"]
    assert caplog.messages == said
    assert (predictor.path, predictor.task, predictor.snapshot) == (used, SOP, fitted["index"])
    scores = forward(fitted["snapshots"][fitted["index"]]["state_dict"], ARCHITECTURES)
    np.testing.assert_allclose(predictors.score_all([predictor], ARCHITECTURES)[0], scores, atol=1e-5)


def test_in_a_given_folder_nothing_is_replaced(data, caplog, tmp_path):
    for name in ("sop", "own"):
        save_checkpoint(tmp_path / "r" / f"{name}_final.pth", REFERENCE, find_task(name), snapshot(1))
    loaded = load(["sop", "own"], data=data, results=tmp_path / "r")
    assert [predictor.path.parent for predictor in loaded] == [tmp_path / "r"] * 2
    assert caplog.messages == [f"not trained on {data.train_file}: sop, own; used all the same"]
    again = f" --data_path {data.folder} --results_path {tmp_path}/r --tasks veri"
    with pytest.raises(
        InputError, match=f"veri_final.pth: there is no checkpoint of veri: train it: python .*{again}$"
    ):
        load(["sop", "veri"], data=data, results=tmp_path / "r")
    with pytest.raises(InputError, match=r"veri_final\.pth: there is no checkpoint of veri$"):
        load(["veri"], results=tmp_path / "r")
    with pytest.raises(InputError, match=r"no checkpoint of other: train it: .* --recipe gp .* --tasks other$"):
        load(["other"], data=data, recipe="gp")


def test_the_tasks_are_by_default_those_that_the_file_labels(data, train_entries, tmp_path):
    entries = {
        name: {"arch": entry["arch"], "new_accuracy": i} for i, (name, entry) in enumerate(train_entries.items())
    }
    data.train_file.write_text(json.dumps(entries))
    save_checkpoint(tmp_path / "new_final.pth", REFERENCE, find_task("new"), snapshot(1), sha256(data.train_file))
    assert [predictor.task.name for predictor in load(data=data, results=tmp_path)] == ["new"]


def test_a_damaged_checkpoint_is_not_silently_the_published_one(monkeypatch, data, tmp_path):
    monkeypatch.setattr(Data, "results", tmp_path)
    REFERENCE.path(tmp_path, SOP).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"sop_final\.pth: not a checkpoint"):
        load(["sop"], data=data)


class Intervals(OwnRecipe):
    """Intervals from a number in the checkpoint around the score."""

    def rank_interval(self, checkpoint, scores, n, probability):
        middle = (scores + checkpoint["shift"]).round().long()
        return middle - round(10 * probability), middle + n


@pytest.fixture
def two(monkeypatch, tmp_path):
    """Two predictors of a recipe of one's own, of sop and veri, with intervals."""
    recipe = add_recipe(monkeypatch, Intervals)
    for name, sign, shift in (("sop", 1, 100), ("veri", -1, 500)):
        weights = sign * torch.rand(370, generator=torch.Generator().manual_seed(shift))
        save_checkpoint(tmp_path / f"{name}_own.pth", recipe, find_task(name), {"effects": weights, "shift": shift})
    return load(["sop", "veri"], recipe="own", results=tmp_path)


def own_scores(predictor, architectures):
    return (encode(architectures).flatten(1) @ predictor.checkpoint["effects"]).numpy()


def test_a_file_is_ranked_and_each_task_gets_its_own_intervals(data, two, tmp_path):
    entries = json.loads(data.test_file.read_text())
    del entries["arch201"]["sop_rank"]
    entries["arch202"]["other_rank"] = 7
    entries["arch203"]["note"] = "stays"
    data.test_file.write_text(json.dumps(entries))
    assert rank_file(two, data.folder / TEST_FILE, tmp_path / "ranks", tmp_path / "intervals") == 300
    architectures = [entry["arch"] for entry in entries.values()]
    intervals = {name: {"arch": entry["arch"]} for name, entry in entries.items()}
    for entry in entries.values():
        entry |= dict.fromkeys((*(task.rank_key for task in TASKS), "other_rank"), -1)
    for predictor, shift in zip(two, (100, 500), strict=True):
        scores, key = own_scores(predictor, architectures), predictor.task.rank_key
        for name, score in zip(entries, scores, strict=True):
            entries[name][key] = int(sum(scores < score))
            intervals[name][f"{key}_interval"] = [round(float(score)) + shift - 8, round(float(score)) + shift + 300]
    assert json.loads((tmp_path / "ranks").read_text()) == entries
    assert json.loads((tmp_path / "intervals").read_text()) == intervals
    assert list(json.loads((tmp_path / "ranks").read_text())) == list(entries)


def test_without_intervals_only_ranks_are_written(data, tmp_path):
    loaded = load(["sop"])
    with pytest.raises(InputError, match="the recipe reference has no rank intervals"):
        rank_file(loaded, data.test_file, tmp_path / "ranks", tmp_path / "intervals")
    assert not (tmp_path / "ranks").exists()
    rank_file(loaded, data.test_file, tmp_path / "ranks")
    assert not (tmp_path / "intervals").exists()
    assert sorted(entry["sop_rank"] for entry in json.loads((tmp_path / "ranks").read_text()).values())[:2] == [0, 1]


def test_shares_are_a_plain_count(monkeypatch, two):
    monkeypatch.setattr(predictors, "SAMPLED", 2000)
    architectures, sample = ARCHITECTURES[:20], sample_architectures(2000, seed=0)
    architectures.append(sample[0])  # ties with one of the sampled
    scores, shares = shares_beaten(two, architectures)
    intervals = shares_intervals(two, scores)
    for predictor, row, found, ends, shift in zip(two, scores, shares, intervals, (100, 500), strict=True):
        expected = own_scores(predictor, architectures)
        np.testing.assert_allclose(row, expected, rtol=1e-6)
        assert found.tolist() == [sum(own_scores(predictor, sample) > score) / 2000 for score in expected]
        low = np.round(expected) + shift - 8  # a true rank r has r better ones and 2000 - r - 1 worse ones
        np.testing.assert_allclose(ends, np.stack([2000 - low - 2008 - 1, 2000 - low], 1) / 2000)


def test_a_constant_predictor_is_said(monkeypatch, data, caplog, tmp_path):
    recipe, paths = add_recipe(monkeypatch, OwnRecipe), [tmp_path / f"{name}_own.pth" for name in ("sop", "veri")]
    for path, weights, task in zip(
        paths, (torch.zeros(370), torch.arange(370.0)), (SOP, find_task("veri")), strict=True
    ):
        save_checkpoint(path, recipe, task, {"effects": weights}, sha256(data.train_file))
    loaded = load(["sop", "veri"], data=data, recipe="own", results=tmp_path)
    assert [predictor.is_constant for predictor in loaded] == [True, False]
    assert caplog.messages == [f"{paths[0]}: gives one score to all architectures: it ranks nothing"]
    assert set(rank(loaded, ARCHITECTURES)["sop"]) == {0}


def test_flags_are_those_that_are_needed(data, tmp_path):
    flags, default = predictors.flags, Data(dataset.default_folder(), "")
    assert flags(default, "reference") == ""
    assert flags(default, "gp", ["sop", "veri"]) == " --recipe gp --tasks sop veri"
    spaced = tmp_path / "my data"
    spaced.mkdir()
    expected = f" --data_path '{spaced}' --results_path 'a b'"
    assert flags(Data(spaced, "my data"), recipes.DEFAULT, results="a b") == expected


@pytest.mark.parametrize("name", ["meta", "nowhere", "cpu:x", ""])
def test_a_device_that_cannot_compute_is_refused(name):
    predictors.check_device("cpu")
    with pytest.raises(InputError, match=f"^--device {name}: .") as caught:
        predictors.check_device(name)
    assert "\n" not in str(caught.value)
