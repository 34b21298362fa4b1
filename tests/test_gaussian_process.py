import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import kendalltau, norm

import dataset
import gaussian_process
from gaussian_process import GaussianProcess, fit, rank_interval
from metrics import normal_scores
from tasks import SettingError

ARCHITECTURES = dataset.sample_architectures(160, seed=1)
OTHERS = dataset.sample_architectures(300, seed=2)


def scores(matrix, x):
    """Quadratic form of each row of x: (m,)."""
    return ((x @ matrix) * x).sum(1)


def features(architectures):
    return dataset.encode(architectures).flatten(1)[:, dataset.FEATURES].double()


def heads(architectures):
    """Ranks by the product of two layers' heads codes (0 for an absent layer), with a little noise."""
    random = np.random.RandomState(0)
    return np.argsort(np.argsort([int(a[1]) * int(a[4]) + 0.1 * random.randn() for a in architectures]))


def design(architectures):
    """(n, 25, 4): for each choice the alternative as -1, 0 or 1 and its one-hot encoding, 0 in an absent layer."""
    rows = []
    for a in architectures:
        choices = [int(a[position]) - 1 for layer in range(12) for position in (3 * layer + 1, 3 * layer + 2)]
        rows.append([(c - 1) * (c >= 0), *(float(c == k) for k in range(3))] for c in ["jkl".index(a[0]), *choices])
    return np.array([list(row) for row in rows])


class Definition:
    """The posterior from its definition: explicit design rows, dense covariance, plain inverse."""

    def __init__(self, architectures, ranks, point):
        self.s, (self.v, self.noise), c = np.exp(point[:25]), np.exp(point[25:27]), point[27]
        self.rows, self.centre = design(architectures), design(architectures).mean(0)
        z = norm.ppf((np.asarray(ranks) + 0.5) / len(ranks))
        self.y = (np.exp(c * z) - 1) / c if c else z

    def covariance(self, a, b):
        first = np.einsum("ijk,ljk,j->il", a - self.centre, b - self.centre, self.s)
        return first + self.v * first**2

    def predict(self, rows, known=slice(None)):
        """Mean and variance, noise included, of the labels of design rows, from the `known` training architectures."""
        train = self.rows[known]
        inverse = np.linalg.inv(self.covariance(train, train) + self.noise * np.eye(len(train)))
        across = self.covariance(rows, train)
        mean = self.y.mean() + across @ inverse @ (self.y[known] - self.y.mean())
        return mean, np.diag(self.covariance(rows, rows) - across @ inverse @ across.T) + self.noise


@pytest.fixture
def spy(monkeypatch):
    """Records `found` and the `bounds` of the last fit."""
    record = SimpleNamespace()

    def recorded(*args, **kwargs):
        record.bounds, record.found = kwargs["bounds"], minimize(*args, **kwargs)
        return record.found

    monkeypatch.setattr(gaussian_process, "minimize", recorded)
    return record


@pytest.mark.parametrize("c", [0.4, -0.3, 0.0])
def test_predictions_are_those_of_the_definition(monkeypatch, c):
    point = np.r_[np.random.RandomState(3).randn(25) - 3, np.log(0.2), np.log(0.3), c]
    monkeypatch.setattr(gaussian_process, "minimize", lambda *args, **kwargs: SimpleNamespace(x=point))
    some, ranks = ARCHITECTURES[:40], heads(ARCHITECTURES[:40])
    fitted, expected = fit(features(some), ranks), Definition(some, ranks, point)
    atol = 1e-10 if c else 1e-5  # 1e-6 stands for 0
    found = scores(fitted.matrix, features(OTHERS)) + fitted.constant
    np.testing.assert_allclose(found, expected.predict(design(OTHERS))[0], atol=atol)
    left_out = [expected.predict(expected.rows[[i]], np.arange(40) != i) for i in range(40)]
    np.testing.assert_allclose(fitted.leave_one_out, [mean.item() for mean, _ in left_out], atol=atol)
    assert fitted.std.item() == pytest.approx(math.sqrt(np.mean([variance for _, variance in left_out])), rel=1e-6)


BOUNDS = [(-12, 3)] * 26 + [(-7, 3), (-1, 1)]
BINDING = {
    "interaction": (heads(ARCHITECTURES), []),
    "noise": (np.array(["jkl".index(a[0]) for a in ARCHITECTURES]), [(-2, -7)]),  # depth alone, no noise
    "warp": (np.arange(160) > 0, [(-1, 1)]),  # one architecture better than all others
}


@pytest.mark.parametrize("name", BINDING)
def test_hyperparameters_maximise_likelihood_and_prior_for_30_iterations(spy, name):
    """Against an objective with an explicit covariance, and automatic gradients."""
    ranks, binding = BINDING[name]
    rows = torch.from_numpy(design(ARCHITECTURES))
    rows = rows - rows.mean(0)
    grams = torch.einsum("ijk,ljk->jil", rows, rows)
    z = normal_scores(ranks)

    def log_density(point):
        s, v, noise, c = point[:25].exp(), point[25].exp(), point[26].exp(), point[27]
        first = torch.einsum("j,jil->il", s, grams)
        y = ((c * z).exp() - 1) / c
        covariance = first + v * first**2 + noise * torch.eye(len(z), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(y.mean().expand(len(z)), covariance).log_prob(y)

    def objective(numbers):
        point = torch.tensor(numbers, requires_grad=True)
        value = -log_density(point) + point[27] ** 2 / (2 * 0.05)  # normal prior, variance 0.05
        return value.item(), torch.autograd.grad(value, point)[0].numpy()

    reports = []
    fitted = fit(features(ARCHITECTURES), ranks, lambda *numbers: reports.append(numbers))
    start = np.r_[np.full(26, -3.0), -2.0, 0.01]
    expected = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=BOUNDS, options={"maxiter": 30})
    np.testing.assert_allclose(spy.found.x, expected.x, atol=1e-4)
    assert spy.bounds == BOUNDS
    assert all(spy.found.x[index] == bound for index, bound in binding)
    assert fitted.warp == spy.found.x[-1]
    assert [iteration for iteration, _ in reports] == list(range(1, len(reports) + 1))
    assert reports[-1][1] == pytest.approx(-log_density(torch.from_numpy(spy.found.x)).item() / 160, abs=1e-9)
    if name == "interaction":
        assert len(reports) == 30


def test_it_learns_what_two_choices_do_together():
    x, true = features(ARCHITECTURES), [int(a[1]) * int(a[4]) for a in OTHERS]
    found = scores(fit(x, heads(ARCHITECTURES)).matrix, features(OTHERS))
    assert kendalltau(found, true).statistic > 0.85
    weights = np.linalg.lstsq(x.numpy(), heads(ARCHITECTURES), rcond=None)[0]
    assert kendalltau(found, true).statistic > kendalltau(features(OTHERS).numpy() @ weights, true).statistic


def test_only_the_order_of_the_labels_counts():
    x, ranks = features(ARCHITECTURES[:30]), heads(ARCHITECTURES[:30])
    for ours, theirs in zip(fit(x, ranks), fit(x, (0.5 + 3.0 * ranks).tolist()), strict=True):
        assert torch.equal(ours, theirs)


def test_ties_share_the_mean_of_their_normal_scores_ranks():
    np.testing.assert_allclose(normal_scores([5, 0, 5, 9]), norm.ppf(np.array([2, 0.5, 2, 3.5]) / 4))


@pytest.mark.parametrize("c", [0.4, -0.4, 1e-6])
@pytest.mark.parametrize("n, probability", [(1, 0.8), (2, 0.8), (7, 0.5), (1000, 0.8), (1000, 0.99)])
def test_the_interval_ends_in_the_bins_of_its_labels(c, n, probability):
    """Bins between the labels of the quantiles k / n; some ends lie where no normal score has the label."""
    means = np.r_[np.random.RandomState(0).randn(200), -9, 9]
    fitted = GaussianProcess(None, *torch.tensor([0.3, 0.6, c]).double(), None)
    low, high = rank_interval(fitted._asdict(), torch.from_numpy(means - 0.3), n, probability)
    limits = np.expm1(float(c) * norm.ppf(np.arange(1, n) / n)) / c
    lower, upper = norm.interval(probability, means, 0.6)
    assert low.tolist() == np.searchsorted(limits, lower, side="right").tolist()
    assert high.tolist() == np.searchsorted(limits, upper, side="right").tolist()


@pytest.mark.parametrize("labels", [[], [3], [1, 1], [2] * 40])
def test_labels_without_an_order_are_refused(labels):
    with pytest.raises(SettingError, match=f"^all {len(labels)} architectures have the same rank"):
        fit(features(ARCHITECTURES[: len(labels)]) if labels else torch.zeros(0, 87).double(), labels)


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
    fitted = fit(features([ARCHITECTURES[i] for i in places]), list(labels))
    assert all(part.isfinite().all() for part in fitted)
    assert fitted.std > 0
    low, high = rank_interval(fitted._asdict(), scores(fitted.matrix, features(OTHERS)), 300, 0.8)
    assert ((low >= 0) & (low <= high) & (high < 300)).all()


@pytest.fixture(scope="module")
def surrogate_files(generated):
    """Training entries, true entries, and the features of both."""
    known, truth = (list(json.loads(generated[name]).values()) for name in (dataset.TRAIN_FILE, "truth.json"))
    return known, truth, *(features([entry["arch"] for entry in part]) for part in (known, truth))


@pytest.mark.parametrize("task", ["veri", "cplfw"])
def test_intervals_hold_the_surrogates_true_ranks(surrogate_files, spy, task):
    known, truth, x, others = surrogate_files
    ranks, true = ([entry[f"{task}_rank"] for entry in part] for part in (known, truth))
    fitted = fit(x, ranks)
    found = scores(fitted.matrix, others)
    low, high = rank_interval(fitted._asdict(), found, len(true), 0.8)
    true = torch.tensor(true)
    assert 0.76 < ((low <= true) & (true <= high)).double().mean() < 0.84
    # Standard error of tau on 500 architectures: 0.01 to 0.03.
    on_others = kendalltau(found, true).statistic
    assert kendalltau(fitted.leave_one_out, ranks).statistic == pytest.approx(on_others, abs=0.05)
    # One standard deviation stands for all architectures, the extremes of the search space included.
    extremes = [f"l{choice * 12}" for choice in ("111", "331", "131", "311")]
    expected = Definition([entry["arch"] for entry in known], ranks, spy.found.x)
    deviations = np.sqrt(expected.predict(design([*OTHERS, *extremes]))[1])
    assert deviations.mean() == pytest.approx(fitted.std.item(), rel=0.01)
    np.testing.assert_allclose(deviations, fitted.std.item(), rtol=0.15)
