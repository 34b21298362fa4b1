"""The Gaussian process against its definition: explicit effects, dense covariance, autograd."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import BENCHMARKS, TableOf, needs_benchmarks
from scipy.optimize import minimize
from scipy.stats import kendalltau, norm, rankdata
from toy import TOY, one_hot

import recipes
from dataset import Labels
from engine.model import score
from engine.trained import learn
from recipes import gp
from space import VIT, Decision, Space
from tasks import TRAIN_FILE, Task

CELL = Space("cell", [Decision("categorical", f"edge {i}", ("a", "b", "c", "d")) for i in range(4)])
ORDERS = {"depth": 3, "heads": 3, "mlp_ratio": 3, "size": 3}  # numbers of choices of the ordinal kinds


def effects(space, architectures):
    """{decision: (n, choices) one-hot, 0 where absent}, without constants."""
    x = np.array([one_hot(space, architecture) for architecture in architectures])
    found = {}
    for i, decision in enumerate(space.decisions):
        if len(decision.choices) > 1:
            columns = np.flatnonzero(np.isin(np.arange(space.shape[1]) + i * space.shape[1], space.features))
            found[decision.name] = torch.from_numpy(x[:, i, columns]).double()
    return found


def of_kinds(space):
    """Names of the decisions of each kind, in order."""
    kinds = {}
    for decision in space.decisions:
        kinds.setdefault(re.sub(r" \d+", "", decision.name), []).append(decision.name)
    return kinds


class Process:
    """The process of some training architectures, given its hyperparameters; z: scores of their labels."""

    def __init__(self, space, architectures, z, counts, point):
        self.space, self.rows, self.point = space, effects(space, architectures), point
        self.means = {name: rows.mean(0) for name, rows in self.rows.items()}
        c = torch.where(point[-1].abs() > 1e-6, point[-1], point[-1] + 1e-6)
        self.y, self.noise = ((c * z).exp() - 1) / c, point[-2].exp() / counts
        self.covariance = self.between(self.rows, self.rows) + torch.diag(self.noise)

    def between(self, a, b):
        """Covariance of the labels of some rows of effects, without their noise."""
        a, b = ({name: rows - self.means[name] for name, rows in each.items()} for each in (a, b))
        index = {count: torch.linspace(-1, 1, count).double() for count in (2, 3, 4)}
        parts = []
        for name in self.rows:
            parts.append(a[name] @ b[name].T)
            if re.sub(r" \d+", "", name) in ORDERS:
                parts[-1] = parts[-1] + torch.outer(a[name] @ index[3], b[name] @ index[3])
        for kind, names in of_kinds(self.space).items():
            if len(names) > 1 and names[0] in self.rows:
                part = 0
                for i, one in enumerate(names):
                    for j, other in enumerate(names):
                        alike = (
                            torch.outer(a[one] @ index[3], b[other] @ index[3])
                            if kind in ORDERS
                            else a[one] @ b[other].T
                        )
                        part = part + np.exp(-abs(i - j) / 3) * alike
                parts.append(part)
        first = torch.einsum("p,pnm->nm", self.point[:-3].exp(), torch.stack(parts))
        return 1 + first + self.point[-3].exp() * first**2

    def predict(self, rows, known=None):
        """Means and variances of the labels of rows of effects, from the `known` training architectures."""
        known = torch.ones(len(self.y), dtype=bool) if known is None else known
        across = self.between({name: of[known] for name, of in self.rows.items()}, rows)
        weights = torch.linalg.solve(self.covariance[known][:, known], across)
        return weights.T @ self.y[known], self.between(rows, rows).diagonal() - (weights * across).sum(0)


def prior(space):
    """Means and standard deviations of the hyperparameters: log variances, log v, log noise, c."""
    variance, parts = 0.0, 0
    for names in of_kinds(space).values():
        decisions = [decision for decision in space.decisions if decision.name in names and len(decision.choices) > 1]
        for decision in decisions:
            count, is_ordinal = len(decision.choices), decision.type == "ordinal"
            free, linear = 1 - 1 / count, np.mean(np.linspace(-1, 1, count) ** 2)
            variance += free + is_ordinal * linear + (len(decisions) > 1) * (linear if is_ordinal else free)
        parts += len(decisions) + (len(decisions) > 1)
    mean = -4.5 + np.log(148 / 3 / variance)
    return [
        torch.from_numpy(np.r_[[first] * parts, rest])
        for first, rest in ((mean, [-3, -1.5, 0]), (1.5, [1, 1, 0.05**0.5]))
    ]


ARCHITECTURES, OTHERS = VIT.sample(120, seed=1), VIT.sample(300, seed=2)
RANDOM = np.random.RandomState(0)
CASES = {
    "two layers": (
        VIT,
        ARCHITECTURES,
        [int(a[1]) * int(a[4]) for a in ARCHITECTURES] + np.random.RandomState(0).randn(120) / 10,
    ),
    "depth": (VIT, ARCHITECTURES, np.array(["jkl".index(a[0]) for a in ARCHITECTURES])),
    "two labels": (VIT, ARCHITECTURES[:2], np.arange(2)),
    "toy": (TOY, TOY.all()[:20], RANDOM.permutation(20)),
    "cell, measured several times": (
        CELL,
        CELL.sample(40, 0) + CELL.sample(40, 0)[:9],
        np.random.RandomState(2).randn(49),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_process_of_the_largest_likelihood_times_prior(monkeypatch, case):
    space, architectures, numbers = CASES[case]
    labels, reports, points = Labels.of(architectures, numbers.tolist(), measured=False), [], []
    monkeypatch.setattr(gp, "minimize", lambda *args, **kwargs: points.append(minimize(*args, **kwargs)) or points[-1])
    recipe, n = recipes.get("gp", space), len(labels.ranks)
    fitted, _ = learn(recipe, Task("mine"), labels, report=lambda *values: reports.append(values))
    mean, sd = prior(space)
    z = torch.from_numpy(norm.ppf((rankdata(labels.values) - 0.5) / n))
    counts = torch.tensor([architectures.count(name) for name in labels.architectures])
    of = lambda standardised: Process(space, labels.architectures, z, counts, mean + sd * standardised)  # noqa: E731
    process, others = of(torch.from_numpy(points[0].x)), space.some(300) if space is not VIT else OTHERS
    predicted = score([recipe.model(fitted)], others)[0] + fitted["constant"]
    expected, _ = process.predict(effects(space, others))
    torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-4, check_dtype=False)
    left_out = []
    for i in range(n):
        alone = {name: rows[[i]] for name, rows in process.rows.items()}
        left_out.append(process.predict(alone, torch.arange(n) != i))
    means, variances = map(torch.cat, zip(*left_out, strict=True))
    found = [fitted["labels"], fitted["std"] ** 2, fitted["loo_ktau"]]
    expected = [n, (variances + process.noise).mean(), kendalltau(means, labels.ranks).statistic]
    np.testing.assert_allclose(found, expected, rtol=1e-6)

    def log_likelihood(process):
        return torch.distributions.MultivariateNormal(torch.zeros(n).double(), process.covariance).log_prob(process.y)

    def objective(standardised):
        standardised = torch.tensor(standardised, requires_grad=True)
        value = standardised @ standardised / 2 - log_likelihood(of(standardised))
        return value.item(), torch.autograd.grad(value, standardised)[0].numpy()

    options = {"bounds": [(-5, 5)] * len(mean), "options": {"maxiter": 30}}
    expected = minimize(objective, np.zeros(len(mean)), jac=True, method="L-BFGS-B", **options)
    np.testing.assert_allclose(points[0].x, expected.x, atol=2e-3)
    likelihoods = [loss for _, loss, *_ in reports if loss is not None]
    assert likelihoods[-1] == pytest.approx(-log_likelihood(process).item() / n, abs=1e-9)


def test_labels_are_used_as_they_are_where_that_predicts_better():
    """Labels that are additive, and others of which only the order is that of additive ones."""
    random, sample = np.random.RandomState(0), VIT.sample(400, seed=3)
    sums = VIT.measure(sample)["params"] / 1e6
    recipe, taus = recipes.get("gp"), []
    for values in (sums, sums.max() - 40 * np.exp(-((sums - 55) / 6))):
        fits = []
        for measured in (True, False):
            labels = Labels.of(sample[:60], (values + random.randn(400) / 1e3)[:60].tolist(), measured)
            fitted, _ = learn(recipe, Task("x"), labels)
            fits.append(
                (fitted["loo_ktau"], kendalltau(score([recipe.model(fitted)], sample[60:])[0], values[60:]).statistic)
            )
        taus.append(fits)
        assert fits[0][0] >= fits[1][0]  # the better of both by leave-one-out
    assert taus[0][0][1] > taus[0][1][1]


@pytest.mark.parametrize(
    "values", [[1.0] * 14 + [1 + 1e-15], [1e-320 * i for i in range(15)], [2.0**60] * 14 + [2.0**60 + 4096]]
)
def test_labels_that_differ_less_than_rounding_are_used_by_their_order(values):
    sample = VIT.sample(15, seed=1)
    fitted, _ = learn(recipes.get("gp"), Task("x"), Labels.of(sample, values, True))
    ranked = Labels.of(sample, values, False)
    assert torch.equal(fitted["matrix"], learn(recipes.get("gp"), Task("x"), ranked)[0]["matrix"])


@pytest.mark.parametrize(("n", "probability"), [(1, 0.8), (7, 0.5), (1000, 0.99), (3000, 0.8)])
@pytest.mark.parametrize("std", [0.02, 0.6])
def test_the_ends_of_an_interval_have_the_ranks_of_the_mixture_of_all_predictions(n, probability, std):
    means = np.random.RandomState(0).standard_t(3, n)
    some = np.r_[means[:50], means.min() - 9, means.max() + 9]
    ends = RECIPE.rank_interval({"std": torch.tensor(std)}, *map(torch.from_numpy, (some, means)), probability)
    expected = [norm.cdf((end[:, None] - means) / std).sum(1) for end in norm.interval(probability, some, std)]
    np.testing.assert_allclose(ends, np.clip(np.floor(expected), 0, n - 1), rtol=0, atol=1 + n / 500)


RECIPE = recipes.get("gp")


@pytest.fixture(scope="module")
def surrogate(generated):
    """surrogate(task): training architectures and their ranks, test architectures and their true ranks."""
    files = [json.loads(generated[name]).values() for name in (TRAIN_FILE, "truth.json")]
    return lambda task: [[entry[field] for entry in file] for file in files for field in ("arch", f"{task}_rank")]


def share_held(recipe, labels, architectures, true):
    """Share of the true ranks that lie in their 80 % intervals."""
    fitted, _ = learn(recipe, Task("x"), labels)
    scores = score([recipe.model(fitted)], architectures)[0]
    low, high = recipe.rank_interval(fitted, scores, scores, 0.8)
    return ((low.numpy() <= true) & (true <= high.numpy())).mean()


def test_intervals_hold_whatever_was_chosen_to_be_measured(surrogate):
    """500 random architectures; 100 of the better half; 25 random ones, mean of five choices."""
    architectures, ranks, others, true = surrogate("veri")
    true, half = rankdata(true[:9000]) - 1, np.flatnonzero(np.array(ranks) < 250)[:100]
    held = [
        np.mean([share_held(RECIPE, labels_of(architectures, ranks, some), others[:9000], true) for some in choices])
        for choices in ([range(500)], [half], [range(i, i + 25) for i in range(0, 125, 25)])
    ]
    assert 0.76 < held[0] < 0.86 and 0.7 < held[1] < 0.9 and 0.7 < held[2] < 0.9


def labels_of(architectures, ranks, some):
    return Labels.of([architectures[i] for i in some], [ranks[i] for i in some], measured=False)


@needs_benchmarks
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "task", "at_50", "at_200"),
    [
        ("nas-bench-macro", "cifar10", 0.875, 0.916),
        ("nas-bench-201", "cifar10", 0.526, 0.681),
        ("hw-gpt-s", "text", 0.918, 0.967),
        ("nas-bench-mr", "cls_10c", 0.492, 0.604),
    ],
)
def test_real_trainings_are_ranked_from_few_labels(name, task, at_50, at_200):
    """Mean tau of five choices; 80 % intervals from 200 labels."""
    table = TableOf(BENCHMARKS / name, task)
    for count, wanted in ((50, at_50 - 0.03), (200, at_200 - 0.015)):
        taus, held = zip(*(table.replay("gp", count, seed) for seed in range(5, 10)), strict=True)
        assert np.mean(taus) > wanted
    assert 0.7 < np.mean(held) < 0.88


def test_a_user_is_warned_of_few_labels():
    assert RECIPE.summary({"labels": 99, "loo_ktau": 0.5}) == {}
    assert RECIPE.remark({"labels": 99}).startswith("only 99 labels: ")
    for enough in ({"labels": 100}, {}):
        assert RECIPE.summary(enough | {"loo_ktau": 0.5}) == {"leave-one-out tau": 0.5}
        assert RECIPE.remark(enough) is None
