"""Gaussian process on the decisions of an architecture and their pairs: ranks better, and predicts rank intervals.

Fitted part of a checkpoint: "matrix" (87, 87), "constant", "std" and "warp", float64, which `fit` describes, "labels",
the number of training architectures, and "loo_ktau", Kendall's tau of the leave-one-out predictions.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006; equation numbers here are theirs.
"""

import itertools
import math

import numpy as np
import torch
from scipy.optimize import minimize

from common.metrics import kendall_tau, normal_scores
from recipes.base import Model
from recipes.base import Recipe as Base
from space import DECISIONS, FEATURE_DECISION, FEATURES, LAYERS

# The features of the three alternatives of each decision: PICK (25, 3, 87) times a vector of 87 effects.
PICK = torch.eye(len(FEATURES)).double()[np.stack([np.flatnonzero(i == FEATURE_DECISION) for i in range(DECISIONS)])]
INDEX = torch.tensor([-1.0, 0.0, 1.0]).double()  # of the alternatives of a decision
# The covariance of the effects of the 87 features is the sum of PARTS (27, 87, 87), each times a variance.
# A part for each decision: a linear effect of the alternative's index, and a free effect of each alternative.
SINGLE = torch.einsum("dai,ab,dbj->dij", PICK, INDEX.outer(INDEX) + torch.eye(3), PICK)
# A part for heads and a part for MLP ratios: linear effects that are similar in layers near each other.
SLOPES = torch.einsum("a,daj->dj", INDEX, PICK)
LAYER = torch.arange(LAYERS).double()
NEARNESS = torch.exp(-(LAYER[:, None] - LAYER).abs() / 3)  # correlation of the effects in two layers
PARTS = torch.cat([SINGLE, torch.stack([SLOPES[kind::2].T @ NEARNESS @ SLOPES[kind::2] for kind in (1, 2)])])

# Hyperparameters and their normal priors, (mean, standard deviation). Few labels do not determine 30 hyperparameters:
# without priors the noise goes to its lower limit and the intervals are far too narrow.
PRIORS = [
    # Log variance of each part. At the means all effects have a variance of 0.6 together, and the labels one of about
    # 1. Two standard deviations are a factor of 20 either way: some decisions matter much, others hardly.
    *[(-4.5, 1.5)] * len(PARTS),
    # Log v of the pairs: together they explain less than single decisions do. With a wider prior, labels that are
    # mostly noise are taken for effects of pairs.
    (-3.0, 1.0),
    # Log noise variance: about a fifth of the labels' variance, hardly less than a thirtieth unless the labels show it.
    (-1.5, 1.0),
    # Warp c: the labels are nearly as linear in the effects as normal scores are.
    (0.0, 0.05**0.5),
]
MEAN, SD = torch.tensor(PRIORS, dtype=torch.float64).T
ENOUGH = 100  # labels from which 80 % intervals hold 75 to 85 % of the true ranks of every task of the competition
LIMIT = 5.0  # hyperparameters stay within so many standard deviations of the prior mean; this keeps some noise
ITERATIONS = 30


class Posterior:
    """The Gaussian process given labels, for one setting of the hyperparameters."""

    def __init__(self, d, z, numbers):
        """d: (n, 87) centred features; z: (n,) normal scores; numbers: standard deviations from the prior means."""
        point = MEAN + SD * torch.from_numpy(numbers)
        self.d, self.z, self.numbers = d, z, numbers
        self.variances, self.pair, self.noise, c = point[:-3].exp(), point[-3].exp(), point[-2].exp(), point[-1]
        self.c = c if abs(c) > 1e-6 else torch.full_like(c, 1e-6)  # the limit at 0, as good as exact, without 0 / 0
        self.metric = (self.variances @ PARTS.flatten(1)).view(PARTS.shape[1:])
        self.single = d @ self.metric @ d.T
        noise = self.noise * torch.eye(len(d), dtype=d.dtype)
        self.root = torch.linalg.cholesky(1 + self.single + self.pair * self.single**2 + noise)
        self.y = torch.expm1(self.c * z) / self.c
        self.weights = torch.cholesky_solve(self.y[:, None], self.root)[:, 0]

    def objective(self):
        """Negative log posterior of the hyperparameters, up to a constant, and its gradient by `numbers`.

        The Jacobian of the warp is left out: without ties the normal scores sum to 0, so it is 1.
        """
        value = self.weights @ self.y / 2 + self.root.diagonal().log().sum()
        by_covariance = torch.cholesky_inverse(self.root).addr_(self.weights, self.weights, alpha=-1).div_(2)  # eq. 5.9
        by_metric = self.d.T @ (by_covariance * (1 + 2 * self.pair * self.single)) @ self.d
        gradient = torch.empty_like(MEAN)
        gradient[:-3] = self.variances * (PARTS.flatten(1) @ by_metric.flatten())
        gradient[-3] = self.pair * (by_covariance * self.single**2).sum()
        gradient[-2] = self.noise * by_covariance.trace()
        gradient[-1] = self.weights @ (self.z * torch.exp(self.c * self.z) - self.y) / self.c
        return value.item() + self.numbers @ self.numbers / 2, (SD * gradient).numpy() + self.numbers


def fit(x, ranks, report=None):
    """Fit a Gaussian process to ranks: the hyperparameters of largest marginal likelihood (eq. 5.8) times prior.

    With d the centred features (n, 87), the covariance of the n labels is

        K = 1 + K1 + v K1 * K1 + noise I,    K1 = d M d',    M = sum of s_j PARTS_j:

    an unknown mean, effects of single decisions, and effects of pairs of decisions. The labels are the normal scores z
    of the ranks, warped to y = (exp(c z) - 1) / c. At most ITERATIONS steps of L-BFGS-B fit the 27 variances s, v, the
    noise and c.

    x: (n, 87) float64 of 0 and 1, the features of n encodings; ranks: n numbers, of which only the order counts;
    report: called after each iteration as report(iteration, negative log marginal likelihood per architecture).

    Returns ({"matrix": A, "constant", "std", "warp": c}, (n,) leave-one-out predictions of the labels). The predicted
    label of features x is x A x + constant; std is its standard deviation, with the noise. One number stands for all
    architectures: with 100 and more labels, that of sampled ones lies within about 20 % of the mean. Where all layers
    have the same extreme option, it is up to 1.7 times as large.
    """
    n, z, centre, iterations = len(ranks), normal_scores(ranks), x.mean(0), itertools.count(1)

    def callback(intermediate_result):  # scipy passes it by this name
        if report:
            likelihood = intermediate_result.fun - intermediate_result.x @ intermediate_result.x / 2
            report(next(iterations), float(likelihood) / n + math.log(2 * math.pi) / 2)

    found = minimize(
        lambda numbers: Posterior(x - centre, z, numbers).objective(),
        np.zeros(len(PRIORS)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LIMIT, LIMIT)] * len(PRIORS),
        options={"maxiter": ITERATIONS},
        callback=callback,
    )
    posterior = Posterior(x - centre, z, found.x)
    d, metric, weights = posterior.d, posterior.metric, posterior.weights
    # Posterior mean (eq. 2.25) of centred features t: sum(weights) + t single + t pairs t. Multiplied out for
    # x = t + centre, with x * x = x, that is one quadratic form and a constant.
    single = metric @ (d.T @ weights)
    pairs = posterior.pair * metric @ (d.T * weights) @ d @ metric
    matrix = pairs + torch.diag(single - 2 * pairs @ centre)
    constant = weights.sum() - single @ centre + centre @ pairs @ centre
    variances = 1 / torch.cholesky_inverse(posterior.root).diagonal()  # leave-one-out, in closed form, eq. 5.12
    fitted = {"matrix": matrix, "constant": constant, "std": variances.mean().sqrt(), "warp": posterior.c}
    return fitted, posterior.y - weights * variances


class Recipe(Base):
    """Maximum posterior on all architectures; nothing is held out."""

    settings = ()  # nothing is random

    def train_steps(self, task, n):
        return ITERATIONS, 1

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        fitted, held_out = fit(encodings.flatten(1)[:, FEATURES].double(), ranks, report)
        tau = kendall_tau(held_out[None], torch.as_tensor(ranks)[None]).item()
        return fitted | {"labels": len(ranks), "loo_ktau": tau}

    def model(self, checkpoint, index=None):
        return Model(checkpoint["matrix"])

    def rank_interval(self, checkpoint, scores, n, probability=0.8):
        """Central intervals of the ranks of m architectures among n, from the predictive standard deviation.

        Rank r fills the quantiles from r / n to (r + 1) / n, so the end y of a label's interval has the rank
        floor(n Phi(log(1 + c y) / c)). This holds where the n are many and drawn like the training architectures.

        scores: (m,); probability: that an interval holds the true rank, above 0 and below 1. Returns (low, high), each
        (m,) int64, 0 <= low <= high < n.
        """
        mean, std, warp = scores.double() + checkpoint["constant"], checkpoint["std"], checkpoint["warp"]
        width = torch.special.ndtri(torch.tensor((1 + probability) / 2).double()) * std
        y = torch.stack([mean - width, mean + width])
        z = torch.log1p((warp * y).clamp(min=-1)) / warp  # infinite where no z has the label y
        low, high = (n * torch.special.ndtr(z)).long().clamp(max=n - 1)
        return low, high

    def summary(self, checkpoint):
        # With fewer labels, random ones get a leave-one-out tau above 0.3 more often than once in twenty times.
        return {"leave-one-out tau": checkpoint["loo_ktau"]} if checkpoint.get("labels", ENOUGH) >= ENOUGH else {}

    def remark(self, checkpoint):
        if checkpoint.get("labels", ENOUGH) >= ENOUGH:
            return None
        return (
            f"learnt from {checkpoint['labels']} labels: with fewer than {ENOUGH}, a task's 80 % intervals may hold 65 "
            "to 90 % of the true ranks, and only cross-validation tells how good the ranking is"
        )
