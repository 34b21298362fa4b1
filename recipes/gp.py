"""Gaussian process with effects of single decisions and of pairs. Ranks better than `reference` and gives intervals.

Fitted part of a checkpoint: "matrix" (features, features), "constant", "std" and "warp", float64, as `fit` has them,
"labels", the number of training architectures, and "loo_ktau", Kendall's tau of the leave-one-out predictions.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006; equation numbers here are theirs.
"""

import itertools
import math
import os
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

from common.files import InputError, log
from common.metrics import kendall_tau, normal_scores
from recipes.base import Model
from recipes.base import Recipe as Base

# Hyperparameters: the log variance of each part (`parts`), log v of the pairs, log noise variance, and the warp c. They
# have normal priors, (mean, standard deviation): few labels do not determine 30 hyperparameters, and without priors the
# noise goes to its lower limit and the intervals are far too narrow.
PART = (-4.5, 1.5)  # on VIT; two standard deviations are a factor of 20: some decisions matter much, others hardly
VIT_VARIANCE = 148 / 3  # of VIT's parts together, as `parts` has it: at the prior mean all effects have variance 0.6
OTHERS = (
    # Together the pairs explain less than single decisions do. With a wider prior, labels that are mostly noise are
    # taken for effects of pairs.
    (-3.0, 1.0),
    (-1.5, 1.0),  # noise: about a fifth of the labels' variance, hardly less than a thirtieth unless the labels show it
    (0.0, 0.05**0.5),  # the labels are nearly as linear in the effects as normal scores are
)
RANGE = 3  # places in a kind over which the correlation of effects falls to 1 / e
ENOUGH = 100  # with at least this many labels, 80 % intervals covered 75 to 85 % of true ranks on each competition task
LIMIT = 5.0  # hyperparameters stay within so many standard deviations of the prior mean; this keeps some noise
ITERATIONS = 30
MANY = 2000  # labels above which time, of the third power, and memory, of the second, are worth a line
GRID = 1000  # bins of the predictions of all that are ranked


def parts(space):
    """Parts of the covariance of the effects of a space's features, (p, f, f), and their variance in all.

    A part for each decision: a free effect of each choice and, of an ordinal decision, a linear effect of its place.
    A part for each kind of several decisions, whose effects are similar in places near each other: the linear effects
    of an ordinal kind, all effects of a categorical one. The variance is the one that the summed effects
    of an architecture with uniform choices have, if each part is taken once.
    """
    pick = torch.eye(len(space.features)).double()
    effects, found = {}, []  # (choices, f) of each decision that is one
    for i in np.flatnonzero(space.counts > 1):
        effects[i] = pick[space.feature_decision == i]
        covariance = torch.eye(len(effects[i])).double()
        if space.decisions[i].type == "ordinal":
            covariance += _places(space.counts[i]).outer(_places(space.counts[i]))
        found.append(effects[i].T @ covariance @ effects[i])
    for places in space.kinds.values():
        if places[0] in effects and len(places) > 1:
            order = torch.arange(len(places)).double()
            near = torch.exp(-(order[:, None] - order).abs() / RANGE)
            alike = torch.stack([effects[i] for i in places], 1)  # (choices, places, f)
            if space.decisions[places[0]].type == "ordinal":
                alike = torch.einsum("c,cdf->df", _places(len(alike)), alike)[None]
            found.append((alike.mT @ near @ alike).sum(0))
    found = torch.stack(found)
    blocks = [rows @ found.sum(0) @ rows.T for rows in effects.values()]
    return found, sum((block.diagonal().mean() - block.mean()).item() for block in blocks)


def _places(count):
    """Places of ordered choices: from -1 to 1."""
    return torch.linspace(-1, 1, count, dtype=torch.float64)


class Prior(NamedTuple):
    """Independent normal priors of the hyperparameters."""

    parts: torch.Tensor  # (p, f, f) float64
    mean: torch.Tensor  # (p + 3,) float64
    sd: torch.Tensor

    @classmethod
    def of(cls, space):
        """The prior on a space: whatever the number of its decisions, all effects together have the same variance."""
        found, variance = parts(space)
        mean = PART[0] + math.log(VIT_VARIANCE / variance)
        return cls(found, *torch.tensor([*[(mean, PART[1])] * len(found), *OTHERS], dtype=torch.float64).T)


class Posterior:
    """The Gaussian process given labels, for one setting of the hyperparameters."""

    def __init__(self, prior, d, z, counts, standardised):
        """prior: Prior; d: (n, f) centred features; z: (n,) scores of the labels; counts: (n,) measurements of each.

        standardised: the hyperparameters in standard deviations from their prior means.
        """
        self.prior, point = prior, prior.mean + prior.sd * torch.from_numpy(standardised)
        self.d, self.z, self.counts, self.standardised = d, z, counts, standardised
        self.variances, self.pair, self.noise, c = point[:-3].exp(), point[-3].exp(), point[-2].exp(), point[-1]
        self.c = c if abs(c) > 1e-6 else torch.full_like(c, 1e-6)  # c -> 0 is the identity; 1e-6 avoids 0 / 0
        self.metric = (self.variances @ prior.parts.flatten(1)).view(prior.parts.shape[1:])
        self.single = d @ self.metric @ d.T
        noise = torch.diag(self.noise / counts)
        self.root = torch.linalg.cholesky(1 + self.single + self.pair * self.single**2 + noise)
        self.y = torch.expm1(self.c * z) / self.c
        self.weights = torch.cholesky_solve(self.y[:, None], self.root)[:, 0]

    def objective(self):
        """Negative log posterior of the hyperparameters, up to a constant, and its gradient.

        The Jacobian of the warp is left out: without ties the normal scores sum to 0, so it is 1.
        """
        value = self.weights @ self.y / 2 + self.root.diagonal().log().sum()
        by_covariance = torch.cholesky_inverse(self.root).addr_(self.weights, self.weights, alpha=-1).div_(2)  # eq. 5.9
        by_metric = self.d.T @ (by_covariance * (1 + 2 * self.pair * self.single)) @ self.d
        gradient = torch.empty_like(self.prior.mean)
        gradient[:-3] = self.variances * (self.prior.parts.flatten(1) @ by_metric.flatten())
        gradient[-3] = self.pair * (by_covariance * self.single**2).sum()
        gradient[-2] = self.noise * (by_covariance / self.counts).trace()
        gradient[-1] = self.weights @ (self.z * torch.exp(self.c * self.z) - self.y) / self.c
        prior = self.standardised @ self.standardised / 2
        return value.item() + prior, (self.prior.sd * gradient).numpy() + self.standardised


def fit(prior, x, z, counts, report=None, measured=False):
    """Fit a Gaussian process: the hyperparameters of largest marginal likelihood (eq. 5.8) times prior.

    With d the centred features (n, f), the covariance of the n labels is

        K = 1 + K1 + v K1 * K1 + noise / counts,    K1 = d M d',    M = sum of s_j parts_j:

    an unknown mean, effects of single decisions, effects of pairs of decisions, and the noise of a mean of some
    measurements. The scores z of the labels are warped to y = (exp(c z) - 1) / c. At most ITERATIONS steps of L-BFGS-B
    fit the variances s, v, the noise and c.

    prior: Prior; x: (n, f) float64 of 0 and 1, the features of n encodings; z: (n,) float64, labels of mean 0 and
    variance about 1; counts: (n,) float64, how many measurements each label is the mean of; report: called after each
    iteration as report(iteration, negative log marginal likelihood per architecture); measured: z are no normal scores,
    so that their noise may be smaller than the prior allows: std comes from the leave-one-out errors.

    Returns ({"matrix": A, "constant", "std", "warp": c}, (n,) leave-one-out predictions of y). The predicted y of
    features x is x A x + constant; std is its standard deviation, with the noise. We use one standard deviation for all
    architectures. On VIT with 100 labels or more the true ones of sampled architectures differ from it by at most about
    20 %; at corners of the space (all layers extreme) by up to 1.7 times.
    """
    centre, iterations = x.mean(0), itertools.count(1)

    def callback(intermediate_result):  # scipy passes it by this name
        if report:
            likelihood = intermediate_result.fun - intermediate_result.x @ intermediate_result.x / 2
            report(next(iterations), float(likelihood) / len(x) + math.log(2 * math.pi) / 2)

    found = minimize(
        lambda standardised: Posterior(prior, x - centre, z, counts, standardised).objective(),
        np.zeros(len(prior.mean)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LIMIT, LIMIT)] * len(prior.mean),
        options={"maxiter": ITERATIONS},
        callback=callback,
    )
    posterior = Posterior(prior, x - centre, z, counts, found.x)
    d, metric, weights = posterior.d, posterior.metric, posterior.weights
    # Posterior mean (eq. 2.25) of centred features t: sum(weights) + t single + t pairs t. Multiplied out for
    # x = t + centre, with x * x = x, that is one quadratic form and a constant.
    single = metric @ (d.T @ weights)
    pairs = posterior.pair * metric @ (d.T * weights) @ d @ metric
    matrix = pairs + torch.diag(single - 2 * pairs @ centre)
    constant = weights.sum() - single @ centre + centre @ pairs @ centre
    variances = 1 / torch.cholesky_inverse(posterior.root).diagonal()  # leave-one-out, in closed form, eq. 5.12
    errors = weights * variances  # of the leave-one-out predictions
    std = errors.square().mean().sqrt() if measured else variances.mean().sqrt()
    return {"matrix": matrix, "constant": constant, "std": std, "warp": posterior.c}, posterior.y - errors


class Recipe(Base):
    """Maximum posterior on all architectures; nothing is held out."""

    settings = ()  # nothing is random
    loss_name = "likelihood"  # negative log, per architecture
    takes_labels = True

    def train_steps(self, task, n):
        needed, there = 64 * n**2 / 1e9, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        if needed > there:
            raise InputError(f"{task.name}: {n} labels need {needed:.0f} GB of memory, here are {there:.0f}: use ridge")
        return ITERATIONS, 1

    def fit(self, task, encodings, labels, device="cpu", report=None):
        """Of normal scores and, where they are measured, the labels themselves, those that predict better are used."""
        if len(encodings) > MANY:
            minutes, gb = 0.4 * (len(encodings) / MANY) ** 3 * (1 + labels.measured), 64 * len(encodings) ** 2 / 1e9
            log.info(f"{task.name}: {len(encodings)} labels take about {minutes:.0f} minutes and {gb:.1f} GB of memory")
        x, prior = encodings.flatten(1)[:, self.space.features].double(), Prior.of(self.space)
        counts, candidates = torch.as_tensor(labels.counts).double(), [normal_scores(labels.ranks)]
        if labels.measured:
            values = torch.as_tensor(labels.values)
            spread = values.std()
            candidates += [(values - values.mean()) / spread] if spread > 1e-12 * values.abs().max() else []
        best = None
        for z in candidates:
            fitted, held_out = fit(prior, x, z, counts, None if best else report, z is not candidates[0])
            tau = kendall_tau(held_out[None], torch.as_tensor(labels.ranks)[None]).item()
            if best is None or tau > best["loo_ktau"]:
                best = fitted | {"labels": len(x), "loo_ktau": tau}
        if report and self.summary(best):
            report(ITERATIONS, None, None, best["loo_ktau"])
        return best

    def model(self, checkpoint, index=None):
        return Model(self.space, checkpoint["matrix"])

    def rank_interval(self, checkpoint, scores, population, probability=0.8):
        """Central intervals of the ranks of m architectures among n, from the predictive standard deviation s.

        The n labels are distributed as F(y) = mean of Phi((y - mu_j) / s) over the n predictions mu_j, so the ends of
        the interval of i have the ranks n F(mu_i - w) and n F(mu_i + w). F is computed on a grid.

        scores: (m,); population: (n,) scores of all that are ranked; probability: that an interval holds the true rank,
        above 0 and below 1. Returns (low, high), each (m,) int64, 0 <= low <= high < n.
        """
        std, mean, n = float(checkpoint["std"]), population.double(), len(population)
        width = torch.special.ndtri(torch.tensor((1 + probability) / 2).double()) * std
        low, high = mean.min().item() - 6 * std, mean.max().item() + 6 * std
        counts, grid = torch.histc(mean, GRID, low, high), torch.linspace(low, high, 2 * GRID + 1, dtype=torch.float64)
        below = torch.special.ndtr((grid[:, None] - grid[1::2]) / std) @ counts  # the bins' middles stand for them
        ends = torch.stack([scores.double() - width, scores.double() + width])
        place = ((ends - low) / (high - low) * 2 * GRID).clamp(0, 2 * GRID - 1e-9)
        left = place.long()
        found = torch.lerp(below[left], below[left + 1], place - left)
        low, high = found.long().clamp(max=n - 1)
        return low, high

    def summary(self, checkpoint):
        # With fewer labels even random ones reach a leave-one-out tau of 0.3 more than 5 % of the time.
        return {"leave-one-out tau": checkpoint["loo_ktau"]} if checkpoint.get("labels", ENOUGH) >= ENOUGH else {}

    def remark(self, checkpoint):
        if checkpoint.get("labels", ENOUGH) >= ENOUGH:
            return None
        return f"only {checkpoint['labels']} labels: intervals are rough below {ENOUGH}"
