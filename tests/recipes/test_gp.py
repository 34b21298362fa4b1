"""The Gaussian process against its definition: explicit design rows, dense covariance, plain inverse, autograd."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import kendalltau, norm

import recipes
from common.metrics import normal_scores
from dataset import encode
from recipes import gp
from recipes.gp import fit
from space import FEATURES, sample_architectures
from tasks import TRAIN_FILE, Task

ARCHITECTURES = sample_architectures(160, seed=1)
OTHERS = sample_architectures(300, seed=2)
RECIPE = recipes.get("gp")
# Mean and standard deviation of the normal priors: 27 log variances, log v, log noise, c.
MEAN = np.r_[[-4.5] * 27, -3, -1.5, 0]
SD = np.r_[[1.5] * 27, 1, 1, math.sqrt(0.05)]


def scores(matrix, x):
    """Quadratic form of each row of x: (m,)."""
    return ((x @ matrix) * x).sum(1)


def features(architectures):
    return encode(architectures).flatten(1)[:, FEATURES].double()


def heads(architectures):
    """Ranks by the product of two layers' heads codes (0 for an absent layer), with a little noise."""
    random = np.random.RandomState(0)
    return np.argsort(np.argsort([int(a[1]) * int(a[4]) + 0.1 * random.randn() for a in architectures]))


def design(architectures):
    """(n, 25, 4): for each decision the alternative as -1, 0 or 1 and its one-hot encoding, 0 in an absent layer."""
    rows = []
    for a in architectures:
        codes = [int(a[position]) - 1 for layer in range(12) for position in (3 * layer + 1, 3 * layer + 2)]
        rows.append([(c - 1) * (c >= 0), *(float(c == k) for k in range(3))] for c in ["jkl".index(a[0]), *codes])
    return np.array([list(row) for row in rows])


def grams(a, b):
    """(27, n, m): covariance of centred rows a and b by each of the 25 decisions, smooth heads, smooth MLP ratios."""
    near = np.array([[math.exp(-abs(i - j) / 3) for j in range(12)] for i in range(12)])
    smooth = [np.einsum("ni,ij,mj->nm", a[:, kind::2, 0], near, b[:, kind::2, 0]) for kind in (1, 2)]
    return np.array([*np.einsum("nij,mij->inm", a, b), *smooth])


class Definition:
    """The posterior for given hyperparameters."""

    def __init__(self, architectures, ranks, point):
        self.s, (self.v, self.noise), c = np.exp(point[:27]), np.exp(point[27:29]), point[29]
        self.rows, self.centre = design(architectures), design(architectures).mean(0)
        z = norm.ppf((np.asarray(ranks) + 0.5) / len(ranks))
        self.y = (np.exp(c * z) - 1) / c if c else z

    def covariance(self, a, b):
        first = np.einsum("i,inm->nm", self.s, grams(a - self.centre, b - self.centre))
        return 1 + first + self.v * first**2

    def predict(self, rows, known=slice(None)):
        """Mean and variance, noise included, of the labels of design rows, from the `known` training architectures."""
        train = self.rows[known]
        inverse = np.linalg.inv(self.covariance(train, train) + self.noise * np.eye(len(train)))
        across = self.covariance(rows, train)
        variance = np.diag(self.covariance(rows, rows) - across @ inverse @ across.T) + self.noise
        return across @ inverse @ self.y[known], variance


@pytest.fixture
def found(monkeypatch):
    """Records the hyperparameters of the last fit as `x`."""
    record = SimpleNamespace()

    def recorded(*args, **kwargs):
        result = minimize(*args, **kwargs)
        record.x = MEAN + SD * result.x
        return result

    monkeypatch.setattr(gp, "minimize", recorded)
    return record


@pytest.mark.parametrize("c", [0.4, -0.3, 0.0])
def test_predictions_are_those_of_the_definition(monkeypatch, c):
    point = np.r_[np.random.RandomState(3).randn(27) - 3, np.log(0.2), np.log(0.3), c]
    monkeypatch.setattr(gp, "minimize", lambda *args, **kwargs: SimpleNamespace(x=(point - MEAN) / SD))
    some, ranks = ARCHITECTURES[:40], heads(ARCHITECTURES[:40])
    (fitted, held_out), expected = fit(features(some), ranks), Definition(some, ranks, point)
    atol = 1e-9 if c else 1e-5  # 1e-6 stands for 0
    predicted = scores(fitted["matrix"], features(OTHERS)) + fitted["constant"]
    np.testing.assert_allclose(predicted, expected.predict(design(OTHERS))[0], atol=atol)
    left_out = [expected.predict(expected.rows[[i]], np.arange(40) != i) for i in range(40)]
    np.testing.assert_allclose(held_out, [mean.item() for mean, _ in left_out], atol=atol)
    assert fitted["std"].item() == pytest.approx(math.sqrt(np.mean([variance for _, variance in left_out])), rel=1e-6)


LABELS = {
    "two layers together": heads(ARCHITECTURES),
    "depth alone, no noise": np.array(["jkl".index(a[0]) for a in ARCHITECTURES]),
    "one better than all others": np.arange(160) > 0,
}


@pytest.mark.parametrize("name", LABELS)
def test_hyperparameters_maximise_likelihood_times_prior_for_30_iterations(found, name):
    rows = design(ARCHITECTURES)
    parts, z = torch.from_numpy(grams(rows - rows.mean(0), rows - rows.mean(0))), normal_scores(LABELS[name])

    def log_likelihood(point):
        s, v, noise, c = point[:27].exp(), point[27].exp(), point[28].exp(), point[29]
        first = torch.einsum("j,jil->il", s, parts)
        y = ((c * z).exp() - 1) / c
        covariance = 1 + first + v * first**2 + noise * torch.eye(len(z), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(torch.zeros(len(z)).double(), covariance).log_prob(y)

    def objective(numbers):
        numbers = torch.tensor(numbers, requires_grad=True)
        point = torch.from_numpy(MEAN) + torch.from_numpy(SD) * numbers
        point = torch.cat([point[:29], torch.where(point[29:].abs() > 1e-6, point[29:], point[29:] + 1e-6)])
        value = -log_likelihood(point) + numbers @ numbers / 2
        return value.item(), torch.autograd.grad(value, numbers)[0].numpy()

    reports = []
    fitted, _ = fit(features(ARCHITECTURES), LABELS[name], lambda *numbers: reports.append(numbers))
    bounds, options = [(-5, 5)] * 30, {"maxiter": 30}
    expected = minimize(objective, np.zeros(30), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    np.testing.assert_allclose((found.x - MEAN) / SD, expected.x, atol=1e-3)
    assert fitted["warp"] == pytest.approx(found.x[-1])
    assert [iteration for iteration, _ in reports] == list(range(1, len(reports) + 1))
    assert reports[-1][1] == pytest.approx(-log_likelihood(torch.from_numpy(found.x)).item() / 160, abs=1e-9)


def test_it_learns_what_two_decisions_do_together():
    x, true = features(ARCHITECTURES), [int(a[1]) * int(a[4]) for a in OTHERS]
    predicted = scores(fit(x, heads(ARCHITECTURES))[0]["matrix"], features(OTHERS))
    assert kendalltau(predicted, true).statistic > 0.85
    weights = np.linalg.lstsq(x.numpy(), heads(ARCHITECTURES), rcond=None)[0]
    assert kendalltau(predicted, true).statistic > kendalltau(features(OTHERS).numpy() @ weights, true).statistic


def test_only_the_order_of_the_labels_counts():
    x, ranks = features(ARCHITECTURES[:30]), heads(ARCHITECTURES[:30])
    (ours, held_out), (theirs, also_held_out) = fit(x, ranks), fit(x, (0.5 + 3.0 * ranks).tolist())
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(held_out, also_held_out)


@pytest.mark.parametrize("c", [0.4, -0.4, 1e-6])
@pytest.mark.parametrize("n, probability", [(1, 0.8), (2, 0.8), (7, 0.5), (1000, 0.8), (1000, 0.99)])
def test_the_interval_ends_in_the_bins_of_its_labels(c, n, probability):
    """Bins between the labels of the quantiles k / n; some ends lie where no normal score has the label."""
    means = np.r_[np.random.RandomState(0).randn(200), -9, 9]
    fitted = dict(zip(("constant", "std", "warp"), torch.tensor([0.3, 0.6, c]).double(), strict=True))
    low, high = RECIPE.rank_interval(fitted, torch.from_numpy(means - 0.3), n, probability)
    limits = np.expm1(float(c) * norm.ppf(np.arange(1, n) / n)) / c
    lower, upper = norm.interval(probability, means, 0.6)
    assert low.tolist() == np.searchsorted(limits, lower, side="right").tolist()
    assert high.tolist() == np.searchsorted(limits, upper, side="right").tolist()


@pytest.mark.parametrize(
    "places, labels",
    [
        (range(2), range(2)),
        (range(3), range(3)),
        (range(10), range(10)),
        ([0, 0], range(2)),  # one architecture twice, with two labels
        ([0, 1, 2, 3] * 10, range(40)),
        ([0] * 20 + [1] * 20, [0] * 20 + [20] * 20),
        (range(40), [0] * 39 + [1]),
        (range(40), [0, 1] * 20),
    ],
)
def test_few_architectures_ties_and_duplicates(places, labels):
    fitted, _ = fit(features([ARCHITECTURES[i] for i in places]), list(labels))
    assert all(part.isfinite().all() for part in fitted.values())
    assert fitted["std"] > 0
    low, high = RECIPE.rank_interval(fitted, scores(fitted["matrix"], features(OTHERS)), 300, 0.8)
    assert ((low >= 0) & (low <= high) & (high < 300)).all()


@pytest.fixture(scope="module")
def surrogate_files(generated):
    """{task: ranks} of the training file and of the truth, and the architectures of both."""
    known, truth = (list(json.loads(generated[name]).values()) for name in (TRAIN_FILE, "truth.json"))
    return known, truth, *([entry["arch"] for entry in part] for part in (known, truth))


@pytest.mark.parametrize("task", ["veri", "cplfw"])
def test_intervals_hold_the_surrogates_true_ranks(surrogate_files, found, task):
    known, truth, architectures, others = surrogate_files
    ranks, true = ([entry[f"{task}_rank"] for entry in part] for part in (known, truth))
    fitted, held_out = fit(features(architectures), ranks)
    predicted = scores(fitted["matrix"], features(others))
    low, high = RECIPE.rank_interval(fitted, predicted, len(true), 0.8)
    true = torch.tensor(true)
    assert 0.76 < ((low <= true) & (true <= high)).double().mean() < 0.84
    # Standard error of tau on 500 architectures: 0.01 to 0.03.
    assert kendalltau(held_out, ranks).statistic == pytest.approx(kendalltau(predicted, true).statistic, abs=0.05)
    # One standard deviation stands for all sampled architectures; at the extremes of the space it is larger.
    extremes = [f"l{layer * 12}" for layer in ("111", "331", "131", "311")]
    definition, std = Definition(architectures, ranks, found.x), fitted["std"].item()
    deviations = np.sqrt(definition.predict(design(OTHERS))[1])
    assert deviations.mean() == pytest.approx(std, rel=0.01)
    np.testing.assert_allclose(deviations, std, rtol=0.2)
    at_extremes = np.sqrt(definition.predict(design(extremes))[1])
    assert (at_extremes >= std).all()
    assert (at_extremes < 1.7 * std).all()


@pytest.mark.parametrize("n", [25, 50])
def test_intervals_from_few_labels_are_not_far_too_narrow(surrogate_files, n):
    """80 % intervals, mean of five sets of n labels and three tasks."""
    known, truth, architectures, others = surrogate_files
    others, held = others[:2000], []
    for task in ("vehicleid", "veri", "msmt17"):
        true = np.array([entry[f"{task}_rank"] for entry in truth])
        for start in range(0, 5 * n, n):
            ranks = [entry[f"{task}_rank"] for entry in known[start : start + n]]
            fitted, _ = fit(features(architectures[start : start + n]), ranks)
            predicted = scores(fitted["matrix"], features(others))
            low, high = RECIPE.rank_interval(fitted, predicted, len(true), 0.8)
            held.append(((low.numpy() <= true[:2000]) & (true[:2000] <= high.numpy())).mean())
    assert 0.7 < np.mean(held) < 0.9


def test_random_labels_get_no_leave_one_out_tau_that_looks_good():
    shown = {}
    for n in (10, 50, 100):
        architectures = ARCHITECTURES[:n]
        fitted, _ = RECIPE.learn(Task("mine"), architectures, np.random.RandomState(n).permutation(n))
        shown[n] = RECIPE.summary(fitted), RECIPE.remark(fitted)
    assert shown[10][0] == shown[50][0] == {}
    assert "learnt from 10 labels" in shown[10][1]
    assert abs(shown[100][0]["leave-one-out tau"]) < 0.3
    assert shown[100][1] is None
