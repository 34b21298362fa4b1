"""prepare.py: the fit beside least squares, and what the command writes."""

import json

import numpy as np
from helpers import REAL_DATA, Script, needs_real_data, one_hot
from scipy.stats import kendalltau, norm

from common.files import sha256
from data.surrogate import prepare
from dataset import load_train
from tasks import TASKS, TRAIN_FILE


def ridge_weights(inputs, labels):
    """Ridge regression with penalty 1 as least squares with a row more for each weight."""
    rows = np.vstack([inputs - inputs.mean(0), np.eye(inputs.shape[1])])
    targets = np.vstack([labels - labels.mean(0), np.zeros((inputs.shape[1], labels.shape[1]))])
    return np.linalg.lstsq(rows, targets, rcond=None)[0]


def test_the_fit_equals_least_squares(data_folder):
    architectures, ranks = load_train(data_folder / TRAIN_FILE)
    inputs = np.array([one_hot(architecture) for architecture in architectures], float)[:, :, :9].reshape(200, -1)
    labels = norm.ppf((np.stack([ranks[task.name] for task in TASKS], 1) + 0.5) / 200)
    order, predicted = np.random.RandomState(0).permutation(200), np.zeros_like(labels)
    for fold in range(5):
        test = order[fold::5]
        x, y = np.delete(inputs, test, 0), np.delete(labels, test, 0)
        predicted[test] = y.mean(0) + (inputs[test] - x.mean(0)) @ ridge_weights(x, y)
    weights = ridge_weights(inputs, labels).T.reshape(8, 37, 9)
    fitted = prepare.fit(architectures, ranks)
    for i, task in enumerate(TASKS):
        expected = {
            "depth": weights[i, 0, :3],
            "heads": weights[i, 1::3, 3:6],
            "mlp_ratio": weights[i, 2::3, 6:],
            "residual": np.sqrt(np.mean((labels - predicted)[:, i] ** 2)),
            "ktau": kendalltau(labels[:, i], predicted[:, i]).statistic,
        }
        assert list(fitted[task.name]) == list(expected)
        for key, values in expected.items():  # rounded to four digits
            np.testing.assert_allclose(fitted[task.name][key], values, rtol=0, atol=5.1e-5)


def test_a_fit_replaces_the_effects_and_the_files_follow(script, project, data_folder):
    answer = script("data/surrogate/prepare.py", "--fit", data_folder, root=project)
    assert (answer.returncode, answer.stderr) == (0, "")
    folder = project / "data" / "surrogate"
    written = json.loads((folder / "effects.json").read_text())
    assert written["data"] == sha256(data_folder / TRAIN_FILE)
    assert written["tasks"] == prepare.fit(*load_train(data_folder / TRAIN_FILE))
    table = [
        f"{name:<10}  tau {task['ktau']:.4f}  residual {task['residual']:.4f}"
        for name, task in written["tasks"].items()
    ]
    assert answer.stdout.splitlines() == [*table, "project/data/surrogate/effects.json: written"]
    flags = {"cwd": project.parent, "root": project}  # two at once make the same whole files
    with Script("data/surrogate/prepare.py", **flags) as one, Script("data/surrogate/prepare.py", **flags) as two:
        assert (one.wait(), two.wait()) == (0, 0)
        assert one.stdout.read().endswith("project/data/surrogate: holds the surrogate benchmark\n")
    assert {name: sha256(folder / name) for name in written["sha256"]} == written["sha256"]
    assert not list(folder.glob(".*"))


def test_a_mistake_is_one_line(script, data_folder):
    answer = script("data/surrogate/prepare.py", "--output", data_folder)
    message = f"prepare.py: {data_folder / TRAIN_FILE}: not the surrogate's: choose a folder without it\n"
    assert (answer.returncode, answer.stderr) == (2, message)


@needs_real_data
def test_the_committed_effects_are_those_of_the_competitions_file(effects):
    assert effects["about"] == prepare.ABOUT
    assert effects["data"] == sha256(REAL_DATA)
    fitted = prepare.fit(*load_train(REAL_DATA))
    for task in TASKS:
        for key, values in fitted[task.name].items():
            np.testing.assert_allclose(effects["tasks"][task.name][key], values, rtol=0, atol=2e-4)
