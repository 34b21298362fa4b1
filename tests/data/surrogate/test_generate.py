import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from helpers import Script
from scipy.stats import kendalltau

from common.files import InputError, sha256
from data.surrogate import generate
from dataset import encode
from tasks import TASKS, TEST_FILE, TRAIN_FILE


def digests(folder):
    return {path.name: sha256(path) for path in folder.iterdir() if path.name != "effects.json"}


def test_the_files_are_those_whose_sha256_is_written_down(effects, generated):
    assert {name: hashlib.sha256(data).hexdigest() for name, data in generated.items()} == effects["sha256"]


def test_the_files_follow_the_competitions_format(generated):
    assert list(generated) == [TRAIN_FILE, TEST_FILE, "truth.json"]
    training, test, truth = (json.loads(data) for data in generated.values())
    assert [json.dumps(content).encode() for content in (training, test, truth)] == list(generated.values())
    assert list(training) == [f"arch{i}" for i in range(1, 501)]
    assert list(test) == list(truth) == [f"arch{i}" for i in range(501, 100_001)]
    assert len({entry["arch"] for content in (training, test) for entry in content.values()}) == 100_000
    for task in TASKS:
        assert sorted(entry[task.rank_key] for entry in training.values()) == list(range(500))
        assert sorted(entry[task.rank_key] for entry in truth.values()) == list(range(99_500))
        assert {entry.pop(task.rank_key) for entry in test.values()} == {-1}
        for entry in truth.values():
            del entry[task.rank_key]
    assert truth == test
    encode([entry["arch"] for entry in test.values()])


def additive(effects, architecture):
    """The sum of the effects of an architecture's choices."""
    total = effects["depth"]["jkl".index(architecture[0])]
    for layer in range("jkl".index(architecture[0]) + 10):
        heads, ratio = architecture[1 + 3 * layer], architecture[2 + 3 * layer]
        total += effects["heads"][layer][int(heads) - 1] + effects["mlp_ratio"][layer][int(ratio) - 1]
    return total


def test_ranks_follow_the_effects_and_noise_of_the_fitted_size(effects, generated):
    for name, tolerance in (("truth.json", 0.015), (TRAIN_FILE, 0.1)):
        entries = list(json.loads(generated[name]).values())[:8000]
        for task in TASKS:
            of_task = effects["tasks"][task.name]
            sums = [additive(of_task, entry["arch"]) for entry in entries]
            correlation = np.std(sums) / np.hypot(np.std(sums), of_task["residual"])
            expected = 2 / np.pi * np.arcsin(correlation)  # of two normal variables
            tau = kendalltau(sums, [entry[task.rank_key] for entry in entries]).statistic
            assert tau == pytest.approx(expected, abs=tolerance)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with effects.json alone, which stands in for data/surrogate."""
    shutil.copy(generate.EFFECTS, tmp_path)
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(generate, "EFFECTS", tmp_path / "effects.json")
    monkeypatch.chdir(tmp_path.parent)
    return tmp_path


def test_files_are_made_once_and_again_when_damaged_or_lost(folder, effects, generated, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(generate, "generate", lambda _: generated)
    generate.make(folder)
    assert caplog.messages == [f"making the surrogate benchmark in {folder.name}"]
    assert digests(folder) == effects["sha256"]
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    generate.make(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert len(caplog.messages) == 1
    for name in generated:
        (folder / name).write_bytes(generated[name][:-100])
        generate.make(folder)
        (folder / name).unlink()
        generate.make(folder)
        assert digests(folder) == effects["sha256"]


def test_no_other_file_is_replaced(folder, tmp_path_factory, generated, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setattr(generate, "generate", lambda _: generated)
    for place, name in ((other, TRAIN_FILE), (other, "truth.json"), (folder, TEST_FILE)):
        path = place / name
        path.symlink_to("target") if place is folder else path.write_text("mine")
        before = [(path.name, path.is_symlink()) for path in place.iterdir()]
        with pytest.raises(InputError, match=f"{name}: not the surrogate's: choose a folder without it"):
            generate.make(place)
        assert [(path.name, path.is_symlink()) for path in place.iterdir()] == before
        assert place is folder or path.read_text() == "mine"
        path.unlink()
    generate.make(other)
    generate.make(other)  # its own files are known by their sums


@pytest.mark.parametrize("number", [13, 30])
def test_where_nothing_can_be_written_another_folder_is_proposed(folder, generated, monkeypatch, number):
    def write(path, _):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(generate, "generate", lambda _: generated)
    monkeypatch.setattr(generate, "write_file", write)
    elsewhere = "make it elsewhere: python .*prepare.py --output FOLDER, then --data_path FOLDER"
    with pytest.raises(OSError, match=f"{os.strerror(number)}: {elsewhere}: .*{TRAIN_FILE}"):
        generate.make(folder)


def changed_effects():
    """Texts of effects.json that make nothing, or other files."""
    content = json.loads(generate.EFFECTS.read_text())
    yield from ("{", "[]", "null", "", "3", '"text"', "{}", "[" * 100_000, "\udcff")
    yield json.dumps({"tasks": content["tasks"]})
    for changed in (
        {"sha256": None},
        {"sha256": {**content["sha256"], "another": "0"}},
        {"sha256": dict.fromkeys(content["sha256"], 0)},
        {"tasks": []},
        {"tasks": {**content["tasks"], "sop": 1}},
    ):
        yield json.dumps(content | changed)
    for name, value in (("residual", None), ("residual", [1]), ("residual", 0.5), ("heads", [[0, 0, 0]] * 11)):
        damaged = json.loads(json.dumps(content))
        damaged["tasks"]["cplfw"][name] = value
        yield json.dumps(damaged)


def test_damaged_effects_are_refused_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(generate, "TOTAL", 1000)  # is quicker, and makes other files anyway
    for text in changed_effects():
        (folder / "effects.json").write_text(text, errors="surrogateescape")
        with pytest.raises(
            InputError, match=r"effects\.json: (damaged, restore it: |makes another .* restore it)"
        ) as e:
            generate.make(folder)
        assert "\n" not in str(e.value)
    assert digests(folder) == {}


def test_two_at_once_make_the_same_whole_files(project, effects):
    flags = {"cwd": project.parent, "root": project}
    with Script("data/surrogate/prepare.py", **flags) as one, Script("data/surrogate/prepare.py", **flags) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    folder = project / "data" / "surrogate"
    assert {name: sha256(folder / name) for name in effects["sha256"]} == effects["sha256"]
    assert not list(folder.glob(".*"))
