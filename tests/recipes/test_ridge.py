"""Ridge regression by its definition: least squares with a row more for each weight."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import save_checkpoint
from scipy.stats import kendalltau, norm

import recipes
from common.files import InputError
from recipes.model import score
from space import sample_architectures
from tasks import find_task

ARCHITECTURES, RANKS = sample_architectures(60, seed=1), np.random.RandomState(0).permutation(60)
RECIPE, TASK = recipes.get("ridge"), find_task("sop")


def decisions(architectures):
    """(n, 75): 1 where the depth, or a layer's heads or MLP ratio, has a code."""
    characters = [[a[0], *(a[3 * layer + i] for layer in range(12) for i in (1, 2))] for a in architectures]
    return np.array([[c == code for c in row for code in ("jkl" if c in "jkl" else "123")] for row in characters])


def predict(train, labels, others):
    """Labels of `others` by the regression on `train`."""
    x, y = train - train.mean(0), labels - labels.mean()
    rows, zeros = np.vstack([x, np.eye(x.shape[1])]), np.zeros(x.shape[1])
    weights = np.linalg.lstsq(rows, np.append(y, zeros), rcond=None)[0]
    return labels.mean() + (others - train.mean(0)) @ weights


@pytest.fixture(scope="module")
def fitted():
    return RECIPE.learn(TASK, ARCHITECTURES, RANKS)[0]


def test_scores_are_the_predicted_normal_scores_up_to_a_constant(fitted):
    others = sample_architectures(300, seed=2)
    expected = predict(decisions(ARCHITECTURES), norm.ppf((RANKS + 0.5) / 60), decisions(others))
    scores = score([RECIPE.model(fitted)], others)[0].numpy()
    np.testing.assert_allclose(scores - scores.mean(), expected - expected.mean(), atol=1e-5)


def test_the_tau_is_that_of_predictions_from_all_the_others(fitted):
    x, labels = decisions(ARCHITECTURES), norm.ppf((RANKS + 0.5) / 60)
    kept = [np.arange(60) != i for i in range(60)]
    predicted = [predict(x[others], labels[others], x[i]) for i, others in enumerate(kept)]
    tau = kendalltau(predicted, RANKS).statistic
    assert fitted["loo_ktau"] == pytest.approx(tau)
    assert RECIPE.summary(fitted) == {"leave-one-out tau": fitted["loo_ktau"]}
    assert RECIPE.describe(fitted) == f"leave-one-out tau {tau:.4f}"


@pytest.mark.parametrize("wrong", [None, "text", [1.0], torch.zeros(3, 3, 3), torch.full((87,), torch.nan), "missing"])
def test_other_content_is_refused(fitted, tmp_path, wrong):
    path = RECIPE.path(tmp_path, TASK)
    save_checkpoint(path, RECIPE, TASK, {"loo_ktau": 0.5} | ({} if wrong == "missing" else {"weights": wrong}))
    with pytest.raises(InputError, match=r"sop_ridge\.pth: not a checkpoint"):
        RECIPE.load(path, TASK)
    save_checkpoint(path, RECIPE, TASK, fitted)
    assert RECIPE.load(path, TASK).checkpoint.keys() == RECIPE.header(TASK, "", "cpu").keys() | fitted.keys()
    with pytest.raises(InputError, match="a checkpoint of sop: expected veri"):
        RECIPE.load(path, find_task("veri"))
    with pytest.raises(InputError, match="--lr: the recipe ridge has no such setting"):
        RECIPE.configure(TASK, {"lr": 0.1})
    with pytest.raises(InputError, match="the recipe ridge has no snapshots"):
        RECIPE.load(path, TASK, -2)


def test_the_penalty_does_not_depend_on_the_settings(fitted):
    other = RECIPE.learn(dataclasses.replace(TASK, seed=7, weight_decay=0.5), ARCHITECTURES, RANKS)[0]
    assert torch.equal(other["weights"], fitted["weights"])
