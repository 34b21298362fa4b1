"""Ridge regression by its dual form: a weight for each architecture, then for each decision."""

import numpy as np
import pytest
from helpers import one_hot
from scipy.stats import kendalltau, norm

import recipes
from common.files import InputError
from engine.model import score
from space import sample_architectures
from tasks import Task

ARCHITECTURES, RANKS = sample_architectures(60, seed=1), np.random.RandomState(0).permutation(60)
LABELS = norm.ppf((RANKS + 0.5) / 60)
RECIPE = recipes.get("ridge")


def decisions(architectures):
    """One-hot encodings without the column of the embedding, which no decision changes."""
    return np.array([one_hot(architecture)[:, :9].ravel() for architecture in architectures])


def predict(train, labels, others):
    """Labels of `others` by the regression on `train`."""
    x = train - train.mean(0)
    weights = x.T @ np.linalg.solve(x @ x.T + np.eye(len(x)), labels - labels.mean())
    return labels.mean() + (others - train.mean(0)) @ weights


def test_scores_and_tau_are_those_of_the_definition():
    fitted, _ = RECIPE.learn(Task("mine", seed=7, weight_decay=0.5), ARCHITECTURES, RANKS)
    x, others = decisions(ARCHITECTURES), sample_architectures(300, seed=2)
    expected, scores = predict(x, LABELS, decisions(others)), score([RECIPE.model(fitted)], others)[0].numpy()
    np.testing.assert_allclose(scores - scores.mean(), expected - expected.mean(), atol=1e-5)
    left_out = [predict(np.delete(x, i, 0), np.delete(LABELS, i), x[i]) for i in range(60)]
    tau = kendalltau(left_out, RANKS).statistic
    assert RECIPE.summary(fitted) == {"leave-one-out tau": pytest.approx(tau)}
    assert RECIPE.describe(fitted) == f"leave-one-out tau {tau:.4f}"
    with pytest.raises(InputError, match="the recipe ridge has no snapshots to choose from"):
        RECIPE.snapshot_index(fitted, -2)


@pytest.mark.parametrize(("labels", "columns"), [(24, []), (25, ["leave-one-out tau"])])
def test_a_tau_of_few_labels_is_not_shown(labels, columns):
    fitted, _ = RECIPE.learn(Task("mine"), ARCHITECTURES[:labels], RANKS[:labels])
    assert list(RECIPE.summary(fitted)) == columns
