import json

import numpy as np
import pytest
from helpers import REAL_DATA, needs_real_data, one_hot
from scipy.stats import kendalltau, norm

from common.files import sha256
from data.surrogate import prepare
from dataset import load_train
from tasks import TASKS, TRAIN_FILE


def least_squares(inputs, labels):
    """Ridge regression as least squares with a row more for each weight: predictor, weights."""
    mean, intercept, used = inputs.mean(0), labels.mean(0), inputs.any(0)
    rows = np.vstack([(inputs - mean)[:, used], np.eye(used.sum())])
    targets = np.vstack([labels - intercept, np.zeros((used.sum(), labels.shape[1]))])
    weights = np.zeros((inputs.shape[1], labels.shape[1]))
    weights[used] = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return lambda inputs: intercept + (inputs - mean) @ weights, weights


def test_the_fit_equals_least_squares(data_folder):
    architectures, ranks = load_train(data_folder / TRAIN_FILE)
    fitted = prepare.fit(architectures, ranks)
    inputs = np.array([one_hot(architecture) for architecture in architectures], float)[:, :, :9].reshape(200, -1)
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


def test_a_fit_replaces_the_effects_and_the_files_follow(script, project, data_folder, tmp_path):
    answer = script("data/surrogate/prepare.py", "--fit", data_folder, root=project)
    assert (answer.returncode, answer.stderr) == (0, "")
    written = json.loads((project / "data" / "surrogate" / "effects.json").read_text())
    assert written["data"] == sha256(data_folder / TRAIN_FILE)
    assert written["tasks"] == prepare.fit(*load_train(data_folder / TRAIN_FILE))
    table = [
        f"{name:<10}  tau {task['ktau']:.4f}  residual {task['residual']:.4f}"
        for name, task in written["tasks"].items()
    ]
    assert answer.stdout.splitlines() == [*table, "project/data/surrogate/effects.json: written"]
    answer = script("data/surrogate/prepare.py", "--output", "made/here", root=project)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [
        "making the surrogate benchmark in made/here",
        "made/here: holds the surrogate benchmark",
    ]
    assert {path.name: sha256(path) for path in (tmp_path / "made" / "here").iterdir()} == written["sha256"]


def test_mistakes_are_one_line(script, data_folder):
    for flags, message in (
        (("--fit", data_folder, "--output", "x"), "argument --output: not allowed with argument --fit (see --help)"),
        (("--fit", "nowhere"), f"--data_path nowhere: no such folder: expected the folder of {TRAIN_FILE}"),
        (("--fit", "."), f"{TRAIN_FILE}: No such file or directory"),
        (("--output", data_folder), f"{data_folder / TRAIN_FILE}: not the surrogate's: choose a folder without it"),
    ):
        answer = script("data/surrogate/prepare.py", *flags)
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
        assert answer.stderr.startswith(f"prepare.py: {message}")


@needs_real_data
def test_the_committed_effects_are_those_of_the_competitions_file(effects):
    assert effects["about"] == prepare.ABOUT
    assert effects["data"] == sha256(REAL_DATA)
    fitted = prepare.fit(*load_train(REAL_DATA))
    for task in TASKS:
        for key, values in fitted[task.name].items():
            np.testing.assert_allclose(effects["tasks"][task.name][key], values, rtol=0, atol=2e-4)
