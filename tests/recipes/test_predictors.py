"""Trained predictors: which checkpoint is used and what is said of it; ranks, intervals and shares by a plain count."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import OwnRecipe, add_recipe, save_checkpoint

from common.files import InputError, log, sha256
from dataset import Data, default_folder, encode, project_path
from network import Predictor
from recipes import predictors
from recipes.checkpoint import to_bytes
from recipes.predictors import check_device, flags, load, rank, rank_file, shares_beaten, shares_intervals
from space import sample_architectures
from tasks import TASKS, find_task

ARCHITECTURES = sample_architectures(50, seed=9)
PUBLISHED = Path(project_path("results", "published"))
SHIFTS = {"sop": 100, "veri": 500}


class Intervals(OwnRecipe):
    """Its intervals lie around the score and a number in the checkpoint."""

    def rank_interval(self, checkpoint, scores, n, probability):
        middle = (scores + checkpoint["shift"]).round().long()
        return middle - round(10 * probability), middle + n

    def remark(self, checkpoint):
        return f"moved by {checkpoint['shift']}"


@pytest.fixture
def data(data_folder, caplog):
    caplog.set_level(logging.INFO, log.name)
    return Data(data_folder, "name")


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Checkpoints of a recipe of one's own in the temporary folder: of sop, veri, and of new, which is constant."""
    recipe = add_recipe(monkeypatch, Intervals)
    for name, shift in (SHIFTS | {"new": 0}).items():
        effects = shift * torch.rand(370, generator=torch.Generator().manual_seed(shift)) / 100
        save_checkpoint(tmp_path / f"{name}_own.pth", recipe, find_task(name), {"effects": effects, "shift": shift})


def own_scores(predictor, architectures):
    return (encode(architectures).flatten(1) @ predictor.checkpoint["effects"]).numpy()


def test_the_published_predictors_rank_as_the_networks_in_their_files(caplog):
    caplog.set_level(logging.INFO, log.name)
    found = rank(load(), ARCHITECTURES)
    assert list(found) == [task.name for task in TASKS]
    for name, ranks in found.items():
        content, network = torch.load(PUBLISHED / f"{name}_final.pth", weights_only=True), Predictor().eval()
        network.load_state_dict(content["snapshots"][content["index"]]["state_dict"])
        with torch.no_grad():
            scores = network(encode(ARCHITECTURES))
        assert ranks.tolist() == [sum(scores < score) for score in scores]
    assert not caplog.messages


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


def test_the_tasks_are_by_default_those_that_the_file_labels_and_a_constant_predictor_is_said(
    own, data, caplog, tmp_path
):
    entry = {"arch": ARCHITECTURES[0], "new_accuracy": 1.5, "sop_rank": 1}
    data.train_file.write_text(json.dumps({"a": entry, "b": entry}))
    loaded = load(data=data, recipe="own", results=tmp_path)
    assert [(each.task.name, each.is_constant) for each in loaded] == [("sop", False), ("new", True)]
    assert caplog.messages == [
        f"not trained on {data.train_file}: sop, new; used all the same",
        f"{tmp_path}/new_own.pth: gives one score to all architectures: it ranks nothing",
    ]


def test_a_missing_or_damaged_checkpoint_is_not_silently_the_published_one(monkeypatch, data, tmp_path):
    monkeypatch.setattr(Data, "results", tmp_path)
    (tmp_path / "sop_final.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"sop_final\.pth: not a checkpoint"):
        load(["sop"], data=data)
    missing, results = r"veri_final\.pth: there is no checkpoint of veri", tmp_path / "a b"
    command = f"python main.py --data_path {data.folder} --results_path '{results}' --tasks veri"
    with pytest.raises(InputError, match=f"{missing}: train it: {command}$"):
        load(["veri"], data=data, results=results)
    with pytest.raises(InputError, match=f"{missing}$"):
        load(["veri"], results=results)
    assert flags(Data(default_folder(), ""), "gp", ["sop", "veri"]) == " --recipe gp --tasks sop veri"


def test_a_file_is_ranked_and_each_task_gets_its_own_intervals(own, data, caplog, tmp_path):
    entries = json.loads(data.test_file.read_text())
    del entries["arch201"]["sop_rank"]
    entries["arch202"] |= {"cplfw_rank": 7, "note": "stays"}
    data.test_file.write_text(json.dumps(entries))
    loaded, paths = load([*SHIFTS], recipe="own", results=tmp_path), (tmp_path / "ranks", tmp_path / "intervals")
    assert rank_file(loaded, data.test_file, *paths) == 300
    assert caplog.messages == ["sop: moved by 100", "veri: moved by 500"]
    ranks, intervals = (json.loads(path.read_text()) for path in paths)
    for name, predictor in zip(SHIFTS, loaded, strict=True):
        scores = own_scores(predictor, [entry["arch"] for entry in entries.values()])
        assert [entry.pop(f"{name}_rank") for entry in ranks.values()] == [sum(scores < score) for score in scores]
        low = scores.round() + SHIFTS[name] - 8
        found = [entry.pop(f"{name}_rank_interval") for entry in intervals.values()]
        assert found == np.stack([low, low + 308], 1).tolist()
        for entry in entries.values():
            entry.pop(f"{name}_rank", None)
    entries["arch202"]["cplfw_rank"] = -1  # as of all tasks without a predictor
    assert ranks == entries
    assert intervals == {key: {"arch": entry["arch"]} for key, entry in entries.items()}


def test_shares_are_a_plain_count(own, monkeypatch, tmp_path):
    monkeypatch.setattr(predictors, "SAMPLED", 2000)
    loaded, sample = load([*SHIFTS], recipe="own", results=tmp_path), sample_architectures(2000, seed=0)
    architectures = [*ARCHITECTURES[:20], sample[0]]  # the last ties with one of the sampled
    scores, shares = shares_beaten(loaded, architectures)
    intervals = shares_intervals(loaded, scores)
    for predictor, row, found, ends in zip(loaded, scores, shares, intervals, strict=True):
        expected = own_scores(predictor, architectures)
        np.testing.assert_allclose(row, expected, rtol=1e-6)
        assert found.tolist() == [sum(own_scores(predictor, sample) > score) / 2000 for score in expected]
        low = np.round(expected) + SHIFTS[predictor.task.name] - 8  # of a true rank r, 2000 - r - 1 are worse
        np.testing.assert_allclose(ends, np.stack([2000 - low - 2008 - 1, 2000 - low], 1) / 2000)
    with pytest.raises(InputError, match="the recipe reference has no rank intervals: use gp"):
        shares_intervals(load(["sop"]), scores[:1])


@pytest.mark.parametrize("name", ["meta", "nowhere"])
def test_a_device_that_cannot_compute_is_refused(name):
    check_device("cpu")
    with pytest.raises(InputError, match=f"^--device {name}: [^\n]+$"):
        check_device(name)
