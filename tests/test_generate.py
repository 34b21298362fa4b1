"""The surrogate's files: their bytes, what they say of the effects, and when they are made."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import one_hot
from scipy.stats import kendalltau

from common.files import InputError, sha256
from data.surrogate import generate
from tasks import TASKS, TEST_FILE, TRAIN_FILE


def test_the_files_follow_the_competitions_format(generated):
    assert list(generated) == [TRAIN_FILE, TEST_FILE, "truth.json"]
    training, test, truth = (json.loads(data) for data in generated.values())
    assert [*training, *test] == [f"arch{i}" for i in range(1, 100_001)]
    assert len({entry["arch"] for entry in (*training.values(), *test.values())}) == 100_000
    for task in TASKS:
        assert sorted(entry[task.rank_key] for entry in training.values()) == list(range(500))
        assert sorted(entry.pop(task.rank_key) for entry in truth.values()) == list(range(99_500))
        assert {entry.pop(task.rank_key) for entry in test.values()} == {-1}
    assert truth == test


def test_ranks_follow_the_effects_and_noise_of_the_fitted_size(effects, generated):
    for name, tolerance in (("truth.json", 0.015), (TRAIN_FILE, 0.1)):
        entries = list(json.loads(generated[name]).values())[:8000]
        encodings = np.array([one_hot(entry["arch"]) for entry in entries])
        for task in TASKS:
            of_task = effects["tasks"][task.name]
            sums = encodings[:, 0, :3] @ of_task["depth"]
            for kind, made in (("heads", encodings[:, 1::3, 3:6]), ("mlp_ratio", encodings[:, 2::3, 6:9])):
                sums += (made * of_task[kind]).sum((1, 2))
            correlation = np.std(sums) / np.hypot(np.std(sums), of_task["residual"])
            expected = 2 / np.pi * np.arcsin(correlation)  # of two normal variables
            tau = kendalltau(sums, [entry[task.rank_key] for entry in entries]).statistic
            assert tau == pytest.approx(expected, abs=tolerance)


@pytest.fixture
def folder(tmp_path, monkeypatch, effects, generated):
    """A folder with effects.json alone, which stands in for data/surrogate."""
    make = generate.generate
    monkeypatch.setattr(generate, "generate", lambda tasks: generated if tasks == effects["tasks"] else make(tasks))
    shutil.copy(generate.EFFECTS, tmp_path)
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(generate, "EFFECTS", tmp_path / "effects.json")
    monkeypatch.chdir(tmp_path.parent)
    return tmp_path


def test_files_are_made_once_and_again_when_damaged_or_lost(folder, effects, caplog):
    caplog.set_level("INFO")
    damaged, lost = folder / TRAIN_FILE, folder / "truth.json"
    for times in (1, 2):
        generate.make(folder)
        generate.make(folder)
        assert caplog.messages == [f"making the surrogate benchmark in {folder.name}"] * times
        assert {name: sha256(folder / name) for name in effects["sha256"]} == effects["sha256"]
        damaged.write_bytes(damaged.read_bytes()[:-1])
        lost.unlink()


def test_no_other_file_is_replaced(folder):
    other = folder / "other"
    other.mkdir()
    generate.make(other)
    (other / TRAIN_FILE).write_text("mine")
    (folder / TEST_FILE).symlink_to("target")
    for place, name in ((other, TRAIN_FILE), (folder, TEST_FILE)):
        with pytest.raises(InputError, match=f"{name}: not the surrogate's: choose a folder without it"):
            generate.make(place)
    assert (other / TRAIN_FILE).read_text() == "mine"
    assert sorted(os.listdir(folder)) == [TEST_FILE, "effects.json", "other"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, restore it: Expecting"),
        ("[" * 100_000, "damaged, restore it: maximum recursion"),
        ("[]", "damaged, restore it: list indices"),
        ("{}", "damaged, restore it: 'sha256'"),
        ('{"sha256": {"x": ""}, "tasks": {"cplfw": {}}}', "damaged, restore it: 'residual'"),
        (None, f"makes another {TRAIN_FILE} than its SHA-256 says"),
    ],
    ids=range(6),
)
def test_damaged_effects_are_refused_in_one_line(folder, effects, text, message):
    """Without a text they have another sum."""
    (folder / "effects.json").write_text(text or json.dumps(effects | {"sha256": {TRAIN_FILE: ""}}))
    with pytest.raises(InputError, match=rf"^.*effects\.json: {message}.*\Z"):
        generate.make(folder)
    assert os.listdir(folder) == ["effects.json"]
