"""prepare.py: its effects beside recipes.ridge, which tests/recipes proves, for each task; what the command writes."""

import json

import numpy as np
import torch
from helpers import REAL_DATA, Script, needs_real_data, one_hot
from scipy.stats import kendalltau, norm

from common.files import sha256
from dataset import load_train
from recipes.ridge import ridge
from tasks import TASKS, TRAIN_FILE
from tools import surrogate as prepare


def test_the_effects_are_those_of_ridge_regression_and_the_errors_those_of_five_folds(data_folder):
    architectures, ranks = load_train(data_folder / TRAIN_FILE)
    inputs = torch.tensor(np.array([one_hot(arch)[:, :9].ravel() for arch in architectures])).double()
    order, fitted = np.random.RandomState(0).permutation(200), prepare.fit(architectures, ranks)
    for task in TASKS:
        labels = torch.from_numpy(norm.ppf((ranks[task.name] + 0.5) / 200))
        predicted = torch.zeros(200).double()
        for test in (order[fold::5] for fold in range(5)):
            rest = [i for i in order if i not in test]
            x, y = inputs[rest], labels[rest]
            predicted[test] = y.mean() + (inputs[test] - x.mean(0)) @ ridge(x, y)[0]
        weights = ridge(inputs, labels)[0].reshape(37, 9)
        expected = {
            "depth": weights[0, :3],
            "heads": weights[1::3, 3:6],
            "mlp_ratio": weights[2::3, 6:],
            "residual": (labels - predicted).square().mean().sqrt(),
            "ktau": kendalltau(labels, predicted).statistic,
        }
        assert list(fitted[task.name]) == list(expected)
        for key, values in expected.items():  # rounded to four digits
            np.testing.assert_allclose(fitted[task.name][key], values, rtol=0, atol=5.1e-5)


def test_a_fit_replaces_the_effects_and_the_files_follow(script, project, data_folder):
    answer = script("tools/surrogate.py", "--fit", data_folder, root=project)
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
    with Script("tools/surrogate.py", **flags) as one, Script("tools/surrogate.py", **flags) as two:
        assert (one.wait(), two.wait()) == (0, 0)
        assert one.stdout.read().endswith("project/data/surrogate: holds the surrogate benchmark\n")
    assert {name: sha256(folder / name) for name in written["sha256"]} == written["sha256"]
    assert not list(folder.glob(".*"))


@needs_real_data
def test_the_committed_effects_are_those_of_the_competitions_file(effects):
    assert effects["about"] == prepare.ABOUT
    assert effects["data"] == sha256(REAL_DATA)
    fitted = prepare.fit(*load_train(REAL_DATA))
    for task in TASKS:
        for key, values in fitted[task.name].items():
            np.testing.assert_allclose(effects["tasks"][task.name][key], values, rtol=0, atol=2e-4)
