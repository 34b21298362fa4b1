import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import REAL_DATA
from scipy.stats import kendalltau, norm
from test_dataset import walk

import dataset
import surrogate
from files import sha256
from tasks import TASKS
from tools import surrogate as tool


@pytest.fixture
def folder(effects, tmp_path):
    """A folder with effects.json alone."""
    (tmp_path / surrogate.EFFECTS_FILE).write_text(json.dumps(effects))
    return tmp_path


def digests(folder):
    return {path.name: sha256(path) for path in folder.iterdir() if path.name != surrogate.EFFECTS_FILE}


def test_the_files_are_those_whose_sha256_is_written_down(effects, generated):
    assert {name: hashlib.sha256(data).hexdigest() for name, data in generated.items()} == effects["sha256"]


def test_the_files_follow_the_competitions_format(generated, tmp_path):
    assert list(generated) == [dataset.TRAIN_FILE, dataset.TEST_FILE, "truth.json"]
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
    dataset.encode([entry["arch"] for entry in test.values()])


def additive(effects, architecture):
    """The sum of the effects of an architecture's choices."""
    total = effects["depth"]["jkl".index(architecture[0])]
    for layer in range("jkl".index(architecture[0]) + 10):
        heads, ratio = architecture[1 + 3 * layer], architecture[2 + 3 * layer]
        total += effects["heads"][layer][int(heads) - 1] + effects["mlp_ratio"][layer][int(ratio) - 1]
    return total


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_ranks_follow_the_effects_and_noise_of_the_fitted_size(effects, generated, task):
    effects = effects["tasks"][task.name]
    for name, tolerance in ((surrogate.TRUTH_FILE, 0.015), (dataset.TRAIN_FILE, 0.1)):
        entries = list(json.loads(generated[name]).values())[:8000]
        sums = [additive(effects, entry["arch"]) for entry in entries]
        correlation = np.std(sums) / np.hypot(np.std(sums), effects["residual"])
        expected = 2 / np.pi * np.arcsin(correlation)  # of two normal variables
        tau = kendalltau(sums, [entry[task.rank_key] for entry in entries]).statistic
        assert tau == pytest.approx(expected, abs=tolerance)


def test_the_files_are_made_once_and_made_again_when_damaged(folder, effects, generated, monkeypatch, capsys):
    surrogate.make(folder)
    assert "making the surrogate benchmark" in capsys.readouterr().out
    assert digests(folder) == effects["sha256"]
    monkeypatch.setattr(surrogate, "generate", lambda _: pytest.fail("made again"))
    surrogate.make(folder)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(surrogate, "generate", lambda _: generated)
    for name in generated:
        (folder / name).write_bytes(generated[name][:-100])
        surrogate.make(folder)
        (folder / name).unlink()
        surrogate.make(folder)
        assert digests(folder) == effects["sha256"]


def test_effects_that_make_other_files_are_refused(folder, effects):
    changed = json.loads(json.dumps(effects))
    changed["tasks"]["sop"]["heads"][3][1] += 0.5
    (folder / surrogate.EFFECTS_FILE).write_text(json.dumps(changed))
    with pytest.raises(dataset.DataError, match=r"effects\.json: makes another CVPR_2022_NAS_Track2_train\.json than"):
        surrogate.make(folder)
    assert digests(folder) == {}


def test_two_at_once_make_the_same_whole_files(project, effects):
    command = [sys.executable, "tools/surrogate.py", "generate"]
    both = [subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    for process in both:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert digests(project / "data" / "surrogate") == effects["sha256"]


def least_squares(inputs, labels):
    """Ridge regression as least squares with a row more for each weight: predictor, weights."""
    mean, intercept, used = inputs.mean(0), labels.mean(0), inputs.any(0)
    rows = np.vstack([(inputs - mean)[:, used], np.eye(used.sum())])
    targets = np.vstack([labels - intercept, np.zeros((used.sum(), labels.shape[1]))])
    weights = np.zeros((inputs.shape[1], labels.shape[1]))
    weights[used] = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return lambda inputs: intercept + (inputs - mean) @ weights, weights


def test_the_fit_equals_least_squares(data_folder):
    architectures, ranks = dataset.load_train(data_folder / dataset.TRAIN_FILE)
    fitted = tool.fit(architectures, ranks)
    inputs = np.array([walk(architecture) for architecture in architectures], float)[:, :, :9].reshape(200, -1)
    labels = np.array([norm.ppf((ranks[task.name] + 0.5) / 200) for task in TASKS]).T
    weights = least_squares(inputs, labels)[1].T.reshape(-1, 37, 9)
    order, predicted = np.random.RandomState(0).permutation(200), np.zeros_like(labels)
    for fold in range(5):
        rest = np.delete(np.arange(200), order[fold::5])
        predicted[order[fold::5]] = least_squares(inputs[rest], labels[rest])[0](inputs[order[fold::5]])
    for i, task in enumerate(TASKS):
        effects = fitted[task.name]
        np.testing.assert_allclose(effects["depth"], weights[i, 0, :3], atol=6e-5)
        for layer in range(12):
            np.testing.assert_allclose(effects["heads"][layer], weights[i, 1 + 3 * layer, 3:6], atol=6e-5)
            np.testing.assert_allclose(effects["mlp_ratio"][layer], weights[i, 2 + 3 * layer, 6:9], atol=6e-5)
        assert effects["residual"] == pytest.approx(np.sqrt(np.mean((labels - predicted)[:, i] ** 2)), abs=6e-5)
        assert effects["ktau"] == pytest.approx(kendalltau(labels[:, i], predicted[:, i]).statistic, abs=6e-5)


def test_a_fit_replaces_the_effects_and_the_files_follow(script, project, data_folder):
    answer = script("tools/surrogate.py", "fit", "--data_path", data_folder, root=project)
    assert answer.returncode == 0, answer.stderr
    assert [line.split()[0] for line in answer.stdout.splitlines()[:-1]] == [task.name for task in TASKS]
    written = json.loads((project / "data" / "surrogate" / "effects.json").read_text())
    assert written["data"] == sha256(data_folder / dataset.TRAIN_FILE)
    assert written["tasks"] == tool.fit(*dataset.load_train(data_folder / dataset.TRAIN_FILE))
    assert script("tools/surrogate.py", "generate", root=project).returncode == 0
    assert digests(project / "data" / "surrogate") == written["sha256"]


@pytest.mark.skipif(not REAL_DATA.exists(), reason="needs the competition's training file in ../shared/data")
def test_the_committed_effects_are_those_of_the_competitions_file(effects):
    assert effects["about"] == tool.ABOUT
    assert effects["data"] == sha256(REAL_DATA)
    fitted = tool.fit(*dataset.load_train(REAL_DATA))
    for task in TASKS:
        for key, values in fitted[task.name].items():
            np.testing.assert_allclose(effects["tasks"][task.name][key], values, rtol=0, atol=2e-4)
