"""Ridge regression by its dual form: a weight for each architecture, then for each decision."""

import numpy as np
import pytest
from scipy.stats import kendalltau, norm
from toy import TOY, one_hot

import recipes
from common.files import InputError
from dataset import Labels
from engine.model import score
from engine.trained import learn
from space import VIT
from tasks import Task

ARCHITECTURES, RANKS = VIT.sample(60, seed=1), np.random.RandomState(0).permutation(60)
RECIPE = recipes.get("ridge")


def decisions(space, architectures):
    """One-hot encodings without the rows of constants."""
    rows = [len(decision.choices) > 1 for decision in space.decisions]
    return np.array([one_hot(space, architecture)[rows].ravel() for architecture in architectures])


def predict(train, labels, others):
    """Labels of `others` by the regression on `train`."""
    x = train - train.mean(0)
    weights = x.T @ np.linalg.solve(x @ x.T + np.eye(len(x)), labels - labels.mean())
    return labels.mean() + (others - train.mean(0)) @ weights


@pytest.mark.parametrize(
    ("space", "known", "others"), [(VIT, ARCHITECTURES, VIT.sample(300, 2)), (TOY, TOY.all(), TOY.all())]
)
def test_scores_and_tau_are_those_of_the_definition(space, known, others):
    recipe, ranks = recipes.get("ridge", space), RANKS[len(known) > RANKS]
    fitted, _ = learn(recipe, Task("mine", seed=7), Labels.of(known, ranks.tolist(), measured=True))
    x, labels = decisions(space, known), norm.ppf((ranks + 0.5) / len(ranks))
    expected, scores = predict(x, labels, decisions(space, others)), score([recipe.model(fitted)], others)[0].numpy()
    np.testing.assert_allclose(scores - scores.mean(), expected - expected.mean(), atol=1e-5)
    left_out = [predict(np.delete(x, i, 0), np.delete(labels, i), x[i]) for i in range(len(x))]
    tau = kendalltau(left_out, ranks).statistic
    assert fitted["loo_ktau"] == pytest.approx(tau)
    with pytest.raises(InputError, match="the recipe ridge has no snapshots to choose from"):
        recipe.snapshot_index(fitted, -2)


@pytest.mark.parametrize(("labels", "columns"), [(24, []), (25, ["leave-one-out tau"])])
def test_a_tau_of_few_labels_is_not_shown(labels, columns):
    some = Labels.of(ARCHITECTURES[:labels], RANKS[:labels].tolist(), measured=False)
    fitted, _ = learn(RECIPE, Task("mine"), some)
    assert list(RECIPE.summary(fitted)) == columns
