"""The surrogate's files: their bytes, what they say of the effects, and when they are made."""

import json

import numpy as np
import pytest
from helpers import files
from scipy.stats import kendalltau
from toy import one_hot

from common.files import InputError
from data.surrogate import generate
from space import VIT
from tasks import TASKS, TEST_FILE, TRAIN_FILE


def test_the_files_follow_the_competitions_format(generated):
    training, test, truth = (json.loads(generated[name]) for name in (TRAIN_FILE, TEST_FILE, "truth.json"))
    assert [*training, *test] == [f"arch{i}" for i in range(1, 100_001)]
    assert len({entry["arch"] for entry in (*training.values(), *test.values())}) == 100_000
    keys = [task.rank_key for task in TASKS]
    assert all(entry == truth[name] | dict.fromkeys(keys, -1) for name, entry in test.items())
    for key in keys:
        for entries in (training, truth):
            assert sorted(entry[key] for entry in entries.values()) == list(range(len(entries)))


def test_ranks_follow_the_effects_and_noise_of_the_fitted_size(effects, generated):
    for name, tolerance in (("truth.json", 0.015), (TRAIN_FILE, 0.1)):
        entries = list(json.loads(generated[name]).values())[:8000]
        encodings = np.array([one_hot(VIT, entry["arch"]) for entry in entries])
        for task, made in effects["tasks"].items():
            weights = np.zeros((37, 10))
            weights[0, :3], weights[1::3, 3:6], weights[2::3, 6:9] = list(made.values())[:3]
            sums = (encodings * weights).sum((1, 2))
            correlation = sums.std() / np.hypot(sums.std(), made["residual"])
            tau = kendalltau(sums, [entry[f"{task}_rank"] for entry in entries]).statistic
            assert tau == pytest.approx(2 / np.pi * np.arcsin(correlation), abs=tolerance)  # of two normal variables


def test_files_are_made_once_and_again_when_damaged_or_lost(home, generated, caplog):
    folder = generate.FOLDER
    caplog.set_level("INFO")
    for times in (1, 2):
        generate.make(folder)
        generate.make(folder)
        assert len(caplog.messages) == times
        assert files(folder).items() >= generated.items()
        (folder / TRAIN_FILE).write_bytes(generated[TRAIN_FILE][:-1])
        (folder / "truth.json").unlink()


def test_no_other_file_is_replaced(home):
    (home / TRAIN_FILE).write_text("mine")
    (generate.FOLDER / TEST_FILE).symlink_to("target")
    for place, name in ((home, TRAIN_FILE), (generate.FOLDER, TEST_FILE)):
        before = files(place)
        with pytest.raises(InputError, match=f"{name}: not the surrogate's: move it to a folder of its own"):
            generate.make(place)
        assert files(place) == before


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
def test_damaged_effects_are_refused_in_one_line(home, effects, text, message):
    """Without a text they have another sum."""
    generate.EFFECTS.write_text(text or json.dumps(effects | {"sha256": {TRAIN_FILE: ""}}))
    with pytest.raises(InputError, match=rf"^.*effects\.json: {message}.*\Z"):
        generate.make(generate.FOLDER)
    assert list(files(generate.FOLDER)) == ["effects.json"]
