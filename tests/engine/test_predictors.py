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
from common.files import InputError, log
from common.paths import project_path
from dataset import Data, digest, encode, load_entries
from engine import predictors
from engine.checkpoint import to_bytes
from engine.predictors import MissingError, load, rank, shares_beaten
from engine.submission import write_submission
from space import VIT
from tasks import TASKS, find_task

ARCHITECTURES = VIT.sample(50, seed=9)
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
        fitted = {
            "matrix": matrix,
            "constant": 0.25,
            "std": (1 + scale) * 0.25,
            "warp": 0.1,
            "labels": labels,
            "loo_ktau": 0,
        }
        save_checkpoint(tmp_path / f"{name}_gp.pth", recipe, find_task(name), fitted)


def own_scores(predictor, architectures):
    x = encode(VIT, architectures).flatten(1)[:, VIT.features].double()
    return ((x @ predictor.checkpoint["matrix"]) * x).sum(1).numpy()


def own_intervals(predictor, scores, population):
    """(2, number of scores): the ends' ranks in the mixture of the predictive distributions of the population."""
    std, n = predictor.checkpoint["std"], len(population)
    ends = np.stack(norm.interval(0.8, scores, std))
    return np.clip(np.floor(norm.cdf((ends[..., None] - population) / std).sum(-1)), 0, n - 1)


@pytest.mark.parametrize(
    ("trained_on", "labels", "given", "said"),
    [
        ("this data", True, False, ""),
        ("unknown data", True, False, ""),
        ("other data", False, False, ""),
        ("other data", True, True, "not trained on {}: sop; trained on an older file"),
        ("other data", True, False, "not trained on {}: sop; using the published checkpoints in {}"),
        (None, False, False, "using the published checkpoints in {1}: sop"),
    ],
)
def test_a_task_without_a_checkpoint_of_this_data_gets_the_published_one(
    monkeypatch, data, caplog, tmp_path, trained_on, labels, given, said
):
    monkeypatch.setattr(Data, "results", tmp_path)
    origins = {"this data": {"data": digest(load_entries(data.train_file)[1])}, "other data": {"data": "f" * 64}}
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
        f"not trained on {data.train_file}: sop, new; trained on an older file",
        f"{tmp_path}/new_gp.pth: gives one score to all architectures: it ranks nothing",
    ]


def test_a_missing_or_damaged_checkpoint_is_not_silently_the_published_one(monkeypatch, data, tmp_path):
    monkeypatch.setattr(Data, "results", tmp_path)
    (tmp_path / "sop_final.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"sop_final\.pth: damaged, or not a checkpoint"):
        load(["sop"], data=data)
    (tmp_path / "veri_gp.pth").touch()
    with pytest.raises(MissingError, match=r"no checkpoint of the recipe reference for veri, cplfw$") as caught:
        load(["veri", "cplfw"], results=tmp_path)
    assert (caught.value.tasks, caught.value.recipes) == (["veri", "cplfw"], ["gp"])


def test_a_file_is_ranked_and_each_task_gets_its_own_intervals(own, data, caplog, tmp_path):
    entries = json.loads(data.test_file.read_text())
    del entries["arch201"]["sop_rank"]
    entries["arch202"] |= {"cplfw_rank": 7, "note": "stays"}
    data.test_file.write_text(json.dumps(entries))
    loaded, paths = load(TASK_NAMES, recipe="gp", results=tmp_path), (tmp_path / "ranks", tmp_path / "intervals")
    assert write_submission(loaded, data.test_file, *paths) == 300
    assert [said.split(" labels: ")[0] for said in caplog.messages] == ["sop: only 50", "veri: only 60"]
    ranks, intervals = (json.loads(path.read_text()) for path in paths)
    architectures = [entry["arch"] for entry in entries.values()]
    for predictor, (name, ranked) in zip(loaded, rank(loaded, architectures).items(), strict=True):
        scores = own_scores(predictor, architectures)
        assert ranked.tolist() == [sum(scores < score) for score in scores]
        assert [entry.pop(f"{name}_rank") for entry in ranks.values()] == ranked.tolist()
        found = [entry.pop(f"{name}_rank_interval") for entry in intervals.values()]
        np.testing.assert_allclose(found, own_intervals(predictor, scores, scores).T, atol=1)
        for entry in entries.values():
            entry.pop(f"{name}_rank", None)
    entries["arch202"]["cplfw_rank"] = -1  # as of all tasks without a predictor
    assert ranks == entries
    assert intervals == {key: {"arch": entry["arch"]} for key, entry in entries.items()}


def test_ranks_of_other_tasks_stay_in_a_submission_of_the_same_architectures(own, data, caplog, tmp_path):
    path, others = tmp_path / "ranks", {}
    for name in TASK_NAMES:
        write_submission(load([name], recipe="gp", results=tmp_path), data.test_file, path)
    assert "keeps sop_rank, which other predictors filled in" in caplog.messages[-1]
    both = load(TASK_NAMES, recipe="gp", results=tmp_path)
    write_submission(both, data.test_file, tmp_path / "both")
    assert json.loads(path.read_text()) == json.loads((tmp_path / "both").read_text())
    entries = json.loads(data.test_file.read_text())
    others = dict(list(entries.items())[:200])
    data.test_file.write_text(json.dumps(others))
    write_submission(both[:1], data.test_file, path)  # of other architectures
    assert {entry["veri_rank"] for entry in json.loads(path.read_text()).values()} == {-1}


def test_shares_are_a_plain_count(own, monkeypatch, tmp_path):
    monkeypatch.setattr(predictors, "SAMPLED", 2000)
    loaded, sample = load(TASK_NAMES, recipe="gp", results=tmp_path), VIT.sample(2000, seed=0)
    architectures = [*ARCHITECTURES[:20], sample[0]]  # the last ties with one of the sampled
    shares = shares_beaten(loaded, architectures)
    for predictor, row, found, ends in zip(loaded, *shares, strict=True):
        expected, others = own_scores(predictor, architectures), own_scores(predictor, sample)
        assert row.tolist() == expected.tolist()
        assert found.tolist() == [sum(others > score) / 2000 for score in expected]
        low, high = own_intervals(predictor, expected, others)  # of a true rank r, 2000 - r - 1 are worse
        np.testing.assert_allclose(ends, np.stack([2000 - high - 1, 2000 - low], 1) / 2000, atol=1 / 2000)
    assert shares_beaten(load(["sop"]), ARCHITECTURES).intervals is None
