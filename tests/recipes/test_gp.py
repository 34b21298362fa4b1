"""The Gaussian process against its definition: explicit design rows, dense covariance, autograd."""

import json

import numpy as np
import pytest
import torch
from helpers import one_hot
from scipy.optimize import minimize
from scipy.stats import kendalltau, norm, rankdata

import recipes
from engine.model import score
from recipes import gp
from space import sample_architectures
from tasks import TRAIN_FILE, Task

ARCHITECTURES, OTHERS = sample_architectures(160, seed=1), sample_architectures(300, seed=2)
RECIPE = recipes.get("gp")
# Mean and standard deviation of the normal priors: 27 log variances, log v, log noise, c.
MEAN = torch.from_numpy(np.r_[[-4.5] * 27, -3, -1.5, 0])
SD = torch.from_numpy(np.r_[[1.5] * 27, 1, 1, 0.05**0.5])


def design(architectures):
    """(n, 25, 4): for each decision its alternative as -1, 0 or 1 and its one-hot encoding, 0 in an absent layer."""
    x = np.array([one_hot(architecture) for architecture in architectures])
    decisions = x[:, [0, *(row for row in range(37) if row % 3)], :9].reshape(-1, 25, 3, 3).sum(2)
    return torch.from_numpy(np.concatenate([decisions @ [[-1.0], [0.0], [1.0]], decisions], 2))


class Process:
    """The process of some training architectures and ranks, given its hyperparameters."""

    def __init__(self, architectures, ranks, point):
        self.rows, self.point = design(architectures), point
        z = torch.from_numpy(norm.ppf((rankdata(ranks) - 0.5) / len(ranks)))
        c = torch.where(point[29].abs() > 1e-6, point[29], point[29] + 1e-6)
        self.y = ((c * z).exp() - 1) / c
        self.covariance = self.between(self.rows, self.rows) + point[28].exp() * torch.eye(len(z)).double()

    def between(self, a, b):
        """Covariance of the labels of design rows a and b, without their noise."""
        a, b, layer = a - self.rows.mean(0), b - self.rows.mean(0), torch.arange(12).double()
        near = torch.exp(-(layer[:, None] - layer).abs() / 3)
        smooth = [torch.einsum("ni,ij,mj->nm", a[:, kind::2, 0], near, b[:, kind::2, 0]) for kind in (1, 2)]
        parts = torch.cat([torch.einsum("nij,mij->inm", a, b), torch.stack(smooth)])
        first = torch.einsum("p,pnm->nm", self.point[:27].exp(), parts)
        return 1 + first + self.point[27].exp() * first**2

    def predict(self, rows, known=slice(None)):
        """Means and variances of the labels of design rows, from the `known` training architectures."""
        across = self.between(self.rows[known], rows)
        weights = torch.linalg.solve(self.covariance[known][:, known], across)
        variances = self.between(rows, rows).diagonal() + self.point[28].exp() - (weights * across).sum(0)
        return weights.T @ self.y[known], variances


@pytest.fixture
def learn(monkeypatch):
    """learn(architectures, ranks, report): what is fitted, and the process with the hyperparameters found."""
    found = []

    def record(*args, **kwargs):
        found.append(minimize(*args, **kwargs))
        return found[-1]

    def learn(architectures, ranks, report=None):
        fitted, _ = RECIPE.learn(Task("mine"), architectures, ranks, report=report)
        return fitted, Process(architectures, ranks, MEAN + SD * torch.from_numpy(found[-1].x))

    monkeypatch.setattr(gp, "minimize", record)
    return learn


@pytest.mark.parametrize(
    ("architectures", "ranks"),
    [
        # What two layers do together, with noise; depth, without noise; one better than all others.
        (ARCHITECTURES, [int(a[1]) * int(a[4]) for a in ARCHITECTURES] + np.random.RandomState(0).randn(160) / 10),
        (ARCHITECTURES, np.array(["jkl".index(a[0]) for a in ARCHITECTURES])),
        (ARCHITECTURES, np.arange(160).clip(max=1)),
        # Few labels; each architecture twice, with two labels.
        (ARCHITECTURES[:2], np.arange(2)),
        (ARCHITECTURES[:20] * 2, np.arange(40)),
    ],
)
def test_it_is_the_process_of_the_largest_likelihood_times_prior(learn, architectures, ranks):
    n, reports = len(ranks), []
    fitted, process = learn(architectures, ranks, lambda *numbers: reports.append(numbers))
    predicted = score([RECIPE.model(fitted)], OTHERS)[0] + fitted["constant"]
    torch.testing.assert_close(predicted, process.predict(design(OTHERS))[0], rtol=0, atol=1e-4, check_dtype=False)
    left_out = [process.predict(process.rows[[i]], np.arange(n) != i) for i in range(n)]
    means, variances = map(torch.cat, zip(*left_out, strict=True))
    found = [fitted["labels"], fitted["std"] ** 2, fitted["loo_ktau"]]
    np.testing.assert_allclose(found, [n, variances.mean(), kendalltau(means, ranks).statistic], rtol=1e-6)
    assert fitted["warp"].item() == pytest.approx(process.point[29].item(), abs=2e-6)  # never closer to 0 than 1e-6

    def log_likelihood(process):
        return torch.distributions.MultivariateNormal(torch.zeros(n).double(), process.covariance).log_prob(process.y)

    def objective(numbers):
        numbers = torch.tensor(numbers, requires_grad=True)
        value = numbers @ numbers / 2 - log_likelihood(Process(architectures, ranks, MEAN + SD * numbers))
        return value.item(), torch.autograd.grad(value, numbers)[0].numpy()

    bounds, options = [(-5, 5)] * 30, {"maxiter": 30}
    expected = minimize(objective, np.zeros(30), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    np.testing.assert_allclose((process.point - MEAN) / SD, expected.x, atol=1e-3)
    iterations, likelihoods = zip(*reports, strict=True)
    assert iterations == tuple(range(1, len(reports) + 1))
    assert likelihoods[-1] == pytest.approx(-log_likelihood(process).item() / n, abs=1e-9)


@pytest.mark.parametrize("c", [0.4, -0.4, 1e-6])
@pytest.mark.parametrize("n, probability", [(1, 0.8), (7, 0.5), (1000, 0.99)])
def test_the_interval_ends_in_the_bins_of_its_labels(c, n, probability):
    """Bins between the labels of the quantiles k / n; some ends lie where no normal score has the label."""
    means = np.r_[np.random.RandomState(0).randn(200), -9, 9]
    fitted = dict(zip(("constant", "std", "warp"), torch.tensor([0.3, 0.6, c]).double(), strict=True))
    low, high = RECIPE.rank_interval(fitted, torch.from_numpy(means - 0.3), n, probability)
    limits = np.expm1(c * norm.ppf(np.arange(1, n) / n)) / c
    ends = norm.interval(probability, means, 0.6)
    np.testing.assert_array_equal([low, high], np.searchsorted(limits, ends, side="right"))


@pytest.fixture(scope="module")
def surrogate(generated):
    """surrogate(task): training architectures and their ranks, test architectures and their true ranks."""
    files = [json.loads(generated[name]).values() for name in (TRAIN_FILE, "truth.json")]
    return lambda task: [[entry[field] for entry in file] for file in files for field in ("arch", f"{task}_rank")]


def share_held(fitted, architectures, true):
    """Share of the true ranks, among 99,500, in their 80 % intervals."""
    low, high = RECIPE.rank_interval(fitted, score([RECIPE.model(fitted)], architectures)[0], 99_500, 0.8)
    true = torch.tensor(true)
    return ((low <= true) & (true <= high)).double().mean()


@pytest.mark.parametrize("task", ["veri", "cplfw"])
def test_intervals_hold_the_surrogates_true_ranks(surrogate, learn, task):
    architectures, ranks, others, true = surrogate(task)
    fitted, process = learn(architectures, np.array(ranks))
    assert 0.76 < share_held(fitted, others, true) < 0.84
    # One standard deviation stands for all sampled architectures; at the extremes of the space it is larger.
    extremes = [f"l{layer * 12}" for layer in ("111", "331", "131", "311")]
    deviations, larger = (process.predict(design(some))[1].sqrt() / fitted["std"] for some in (OTHERS, extremes))
    assert deviations.mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(deviations, 1, atol=0.2)
    assert ((larger >= 1) & (larger < 1.7)).all()


def test_intervals_from_few_labels_are_not_far_too_narrow(surrogate, learn):
    """From 25 labels, mean of five sets of labels and three tasks."""
    shares = []
    for task in ("vehicleid", "veri", "msmt17"):
        architectures, ranks, others, true = surrogate(task)
        for start in range(0, 125, 25):
            some = slice(start, start + 25)
            fitted, _ = learn(architectures[some], np.array(ranks[some]))
            shares.append(share_held(fitted, others[:2000], true[:2000]))
    assert 0.7 < np.mean(shares) < 0.9


def test_a_user_is_warned_of_few_labels():
    assert RECIPE.summary({"labels": 99, "loo_ktau": 0.5}) == {}
    assert RECIPE.remark({"labels": 99}).startswith("learnt from 99 labels: with fewer than 100, ")
    for enough in ({"labels": 100}, {}):
        assert RECIPE.summary(enough | {"loo_ktau": 0.5}) == {"leave-one-out tau": 0.5}
        assert RECIPE.remark(enough) is None
