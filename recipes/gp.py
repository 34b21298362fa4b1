"""Gaussian process on the decisions of an architecture and their pairs: ranks better, and predicts rank intervals.

Fitted part of a checkpoint: the fields of GaussianProcess except leave_one_out, and "loo_ktau", Kendall's tau of the
leave-one-out predictions.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006; equation numbers here are theirs.
"""

import itertools
import math
from typing import NamedTuple

import torch
from scipy.optimize import minimize

from common.metrics import kendall_tau, normal_scores
from recipes.base import Recipe as Base
from recipes.model import Model
from space import DECISIONS, EMBEDDINGS, FEATURE_DECISION, FEATURES, POSITION_KINDS

# Covariance of the three alternatives of one decision: a linear effect of the alternative's index -1, 0, 1 (l l') plus
# a free effect of each alternative (identity matrix).
ALTERNATIVES = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 2.0]], dtype=torch.float64)
DECISION = torch.from_numpy(FEATURE_DECISION).clamp(min=0)  # (87,); that of the embedding does not count
# The same for the 87 features, decision by decision; 0 for the embedding, which never varies within a layer.
BLOCKS = torch.block_diag(*[torch.zeros(1, 1) if kind is EMBEDDINGS else ALTERNATIVES for kind in POSITION_KINDS])
# Hyperparameters: log variance of each decision, log v of the pairs, log noise variance, warp c.
START = [-3.0] * DECISIONS + [-3.0, -2.0, 0.01]
BOUNDS = [(-12, 3)] * (DECISIONS + 1) + [(-7, 3), (-1, 1)]
WARP_PRECISION = 20.0  # of the normal prior on c: a standard deviation of 0.22
ITERATIONS = 30


class GaussianProcess(NamedTuple):
    """A fitted Gaussian process of one task; all float64."""

    matrix: torch.Tensor  # (87, 87), A: the predicted label of features x is x A x + constant
    constant: torch.Tensor  # ()
    std: torch.Tensor  # (), predictive standard deviation of a label: posterior variance and noise
    warp: torch.Tensor  # (), c: a label is (exp(c z) - 1) / c with z the normal score of a rank
    leave_one_out: torch.Tensor  # (n,), label of each training architecture as predicted from the others


def fit(x, labels, report=None):
    """Fit a Gaussian process to ranks by maximum marginal likelihood (eq. 5.8).

    With d the centred features (n, 87), the covariance of the n labels is

        K = K1 + v K1 * K1 + noise I,    K1 = d M d',    M block-diagonal, s_j ALTERNATIVES for decision j:

    effects of single decisions, and of pairs of decisions. The labels are the normal scores z of the ranks, warped to
    y = (exp(c z) - 1) / c and centred. ITERATIONS steps of L-BFGS-B fit the 25 variances s, v, the noise and c.

    The predictive standard deviation hardly depends on the architecture: with 100 and more training architectures of
    the search space it stays within 15 % of its mean, so that one number stands for all.

    x: (n, 87) float64 of 0 and 1, the features of n encodings; labels: n ranks, of which only the order counts;
    report: called after each iteration as report(iteration, negative log marginal likelihood per architecture).
    Returns a GaussianProcess.
    """
    n = len(labels)
    z, centre = normal_scores(labels), x.mean(0)
    d = x - centre

    def model(point):
        """(v, noise, c), M, K1, the Cholesky factor of K, y and K^-1 (y - mean) for given hyperparameters."""
        pair, noise, c = point[DECISIONS].exp(), point[-2].exp(), point[-1]
        c = c if abs(c) > 1e-6 else torch.full_like(c, 1e-6)  # the limit at 0, as good as exact, without 0 / 0
        metric = BLOCKS * point[DECISION].exp()
        first = d @ metric @ d.T
        root = torch.linalg.cholesky(first + pair * first**2 + noise * torch.eye(n, dtype=x.dtype))
        y = torch.expm1(c * z) / c
        return (pair, noise, c), metric, first, root, y, torch.cholesky_solve((y - y.mean())[:, None], root)[:, 0]

    def objective(numbers):
        """Negative log posterior of the hyperparameters, up to a constant, and its gradient.

        The Jacobian of the warp is left out: without ties the normal scores sum to 0, so it is 1.
        """
        (pair, noise, c), metric, first, root, y, weights = model(torch.from_numpy(numbers))
        value = weights @ (y - y.mean()) / 2 + root.diagonal().log().sum() + WARP_PRECISION / 2 * c**2
        slope = torch.cholesky_inverse(root).addr_(weights, weights, alpha=-1).div_(2)  # by K, eq. 5.9
        by_metric = d.T @ (slope * (1 + 2 * pair * first)) @ d * metric
        by_c = (z * torch.exp(c * z) - y) / c
        gradient = x.new_zeros(len(numbers)).index_add_(0, DECISION, by_metric.sum(0))
        gradient[DECISIONS] = pair * (slope * first**2).sum()
        gradient[-2] = noise * slope.trace()
        gradient[-1] = weights @ (by_c - by_c.mean()) + WARP_PRECISION * c
        return value.item(), gradient.numpy()

    iterations = itertools.count(1)

    def callback(intermediate_result):  # scipy passes it by this name
        if report:
            prior = WARP_PRECISION / 2 * intermediate_result.x[-1] ** 2
            report(next(iterations), float(intermediate_result.fun - prior) / n + math.log(2 * math.pi) / 2)

    options = {"maxiter": ITERATIONS}
    found = minimize(objective, START, jac=True, method="L-BFGS-B", bounds=BOUNDS, options=options, callback=callback)
    (pair, _, c), metric, _, root, y, weights = model(torch.from_numpy(found.x))
    # Posterior mean (eq. 2.25) of centred features t: t single + t pairs t. Multiplied out for x = t + centre, with
    # x * x = x, that is one quadratic form and a constant.
    single = metric @ (d.T @ weights)
    pairs = pair * metric @ (d.T * weights) @ d @ metric
    matrix = pairs + torch.diag(single - 2 * pairs @ centre)
    constant = y.mean() - single @ centre + centre @ pairs @ centre
    variances = 1 / torch.cholesky_inverse(root).diagonal()  # leave-one-out predictions in closed form, eq. 5.12
    return GaussianProcess(matrix, constant, variances.mean().sqrt(), c, y - weights * variances)


def rank_interval(fitted, scores, n, probability):
    """Central intervals of the ranks of m architectures among n, from the predictive standard deviation.

    Rank r fills the quantiles from r / n to (r + 1) / n, so the end y of a label's interval has the rank
    floor(n Phi(log(1 + c y) / c)). This holds where the n are many and drawn like the training architectures.

    fitted: fields of a GaussianProcess by name; scores: (m,), x A x with its matrix A; probability: that an interval
    holds the true rank, above 0 and below 1. Returns (low, high), each (m,) int64, 0 <= low <= high < n.
    """
    mean = scores.double() + fitted["constant"]
    width = torch.special.ndtri(fitted["std"].new_tensor((1 + probability) / 2)) * fitted["std"]
    y = torch.stack([mean - width, mean + width])
    z = torch.log1p((fitted["warp"] * y).clamp(min=-1)) / fitted["warp"]  # infinite where no z has the label y
    low, high = (n * torch.special.ndtr(z)).long().clamp(max=n - 1)
    return low, high


class Recipe(Base):
    """Maximum marginal likelihood on all architectures; nothing is held out."""

    def train_steps(self, task, n):
        return ITERATIONS, 1

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        fitted = fit(encodings.flatten(1)[:, FEATURES].double(), ranks, report)._asdict()
        held_out = fitted.pop("leave_one_out")
        return fitted | {"loo_ktau": kendall_tau(held_out[None], torch.as_tensor(ranks)[None]).item()}

    def model(self, checkpoint, index=None):
        return Model(checkpoint["matrix"])

    def rank_interval(self, checkpoint, scores, n, probability):
        return rank_interval(checkpoint, scores, n, probability)

    def summary(self, checkpoint):
        return {"leave-one-out tau": checkpoint["loo_ktau"]}
