"""tools/surrogate.py: its effects beside recipes.ridge, which tests/recipes proves; what the command writes."""

import json
import multiprocessing

import numpy as np
import torch
from helpers import REAL_DATA, files, needs_real_data, one_hot
from scipy.stats import kendalltau, norm

from common.files import sha256
from dataset import load_train
from recipes.ridge import ridge
from tasks import TASKS, TRAIN_FILE
from tools import surrogate


def test_the_effects_are_those_of_ridge_regression_and_the_errors_those_of_five_folds(data_folder):
    architectures, ranks = load_train(data_folder / TRAIN_FILE)
    x, order = torch.tensor(np.array([one_hot(a)[:, :9] for a in architectures])).double(), np.arange(200)
    np.random.RandomState(0).shuffle(order)
    fitted = surrogate.fit(architectures, ranks)
    for task in TASKS:
        y, predicted = torch.from_numpy(norm.ppf((ranks[task.name] + 0.5) / 200)), torch.zeros(200).double()
        for fold in range(5):
            test, rest = order[fold::5], np.delete(order, np.s_[fold::5])
            weights, _ = ridge(x[rest].flatten(1), y[rest])
            predicted[test] = y[rest].mean() + (x[test] - x[rest].mean(0)).flatten(1) @ weights
        weights = ridge(x.flatten(1), y)[0].view(37, 9)
        expected = {"depth": weights[0, :3], "heads": weights[1::3, 3:6], "mlp_ratio": weights[2::3, 6:]}
        expected |= {"residual": (y - predicted).square().mean().sqrt(), "ktau": kendalltau(y, predicted).statistic}
        assert list(fitted[task.name]) == list(expected)
        for key, values in expected.items():  # rounded to four digits
            np.testing.assert_allclose(fitted[task.name][key], values, rtol=0, atol=5.1e-5)


def test_a_fit_replaces_the_effects_and_the_files_follow(command, home, data_folder):
    answer, folder = command("tools/surrogate.py", "--fit", "data"), home / "data" / "surrogate"
    written, tasks = json.loads((folder / "effects.json").read_text()), surrogate.fit(*load_train(f"data/{TRAIN_FILE}"))
    assert (answer.returncode, written["data"], written["tasks"]) == (0, sha256(f"data/{TRAIN_FILE}"), tasks)
    rows = [f"{name} tau {task['ktau']:.4f} residual {task['residual']:.4f}" for name, task in tasks.items()]
    assert [" ".join(line.split()) for line in answer.stdout.splitlines()[:8]] == rows
    other = multiprocessing.get_context("fork").Process(target=command, args=("tools/surrogate.py",))
    other.start()  # two at once make the same whole files
    assert command("tools/surrogate.py").returncode == 0
    other.join()
    assert {name: sha256(folder / name) for name in written["sha256"]} == written["sha256"]
    assert len(files(folder)) == 4


@needs_real_data
def test_the_committed_effects_are_those_of_the_competitions_file(effects):
    assert (effects["about"], effects["data"]) == (surrogate.ABOUT, sha256(REAL_DATA))
    for name, fitted in surrogate.fit(*load_train(REAL_DATA)).items():
        assert effects["tasks"][name].keys() == fitted.keys()
        for key, values in fitted.items():
            np.testing.assert_allclose(effects["tasks"][name][key], values, rtol=0, atol=2e-4)
