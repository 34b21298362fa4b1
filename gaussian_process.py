"""Gaussian process on the choices of an architecture and their pairs: learns from ranks, predicts scores and intervals.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006; equation numbers here are theirs.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

from dataset import LAYERS
from metrics import normal_scores
from network import one_thread
from tasks import SettingError

NUM_CHOICES = 1 + 2 * LAYERS  # depth, then heads and MLP ratio of each layer
# Covariance of the three alternatives of one choice: a linear effect of the alternative's index -1, 0, 1 (l l') plus a
# free effect of each alternative (identity matrix).
CHOICE_KERNEL = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 2.0]], dtype=torch.float64)
# The same for the 87 features (dataset.FEATURES). The embedding never varies within a layer: its block is zero.
BLOCKS = torch.block_diag(CHOICE_KERNEL, *[CHOICE_KERNEL, CHOICE_KERNEL, torch.zeros(1, 1)] * LAYERS)
# Index of the choice that each feature encodes; the embedding gets any index of its layer, as its block is zero.
IN_LAYER = torch.tensor([0, 0, 0, 1, 1, 1, 0])
CHOICE_OF_FEATURE = torch.cat(
    [torch.zeros(3, dtype=torch.int64), *(1 + 2 * layer + IN_LAYER for layer in range(LAYERS))]
)
# Hyperparameters: log variance of each choice, log v of the pairs, log noise variance, warp c.
START = [-3.0] * NUM_CHOICES + [-3.0, -2.0, 0.01]
BOUNDS = [(-12, 3)] * (NUM_CHOICES + 1) + [(-7, 3), (-1, 1)]
WARP_PRECISION = 20.0  # of the normal prior on c: a standard deviation of 0.22
ITERATIONS = 30


class GaussianProcess(NamedTuple):
    """A fitted Gaussian process of one task; all float64."""

    matrix: torch.Tensor  # (87, 87), A: the predicted label of features x is x A x + constant
    constant: torch.Tensor  # ()
    std: torch.Tensor  # (), predictive standard deviation of a label: posterior variance and noise
    warp: torch.Tensor  # (), c: a label is (exp(c z) - 1) / c with z the normal score of a rank
    leave_one_out: torch.Tensor  # (n,), label of each training architecture as predicted from the others


@one_thread()
def fit(x, labels, report=None):
    """Fit a Gaussian process to ranks by maximum marginal likelihood (eq. 5.8).

    With d the centred features (n, 87), the covariance of the n labels is

        K = K1 + v K1 * K1 + noise I,    K1 = d M d',    M block-diagonal, s_j CHOICE_KERNEL for choice j:

    effects of single choices, and of pairs of choices. The labels are the normal scores z of the ranks, warped to
    y = (exp(c z) - 1) / c and centred. ITERATIONS steps of L-BFGS-B fit the 25 variances s, v, the noise and c.

    The predictive standard deviation hardly depends on the architecture: with 100 and more training architectures of
    the search space it stays within 15 % of its mean, so that one number stands for all.

    x: (n, 87) float64 of 0 and 1, the features of n encodings; labels: n ranks, of which only the order counts;
    report: called after each iteration as report(iteration, negative log marginal likelihood per architecture).
    Returns a GaussianProcess. Raises SettingError where all labels are equal.
    """
    n = len(labels)
    if len(np.unique(labels)) < 2:
        raise SettingError(f"all {n} architectures have the same rank: there is no order to learn")
    z, centre = normal_scores(labels), x.mean(0)
    d = x - centre

    def model(point):
        """(v, noise, c), M, K1, the Cholesky factor of K, y and K^-1 (y - mean) for given hyperparameters."""
        pair, noise, c = point[NUM_CHOICES].exp(), point[-2].exp(), point[-1]
        c = c if abs(c) > 1e-6 else torch.full_like(c, 1e-6)  # the limit at 0, as good as exact, without 0 / 0
        metric = BLOCKS * point[CHOICE_OF_FEATURE].exp()
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
        gradient = x.new_zeros(len(numbers)).index_add_(0, CHOICE_OF_FEATURE, by_metric.sum(0))
        gradient[NUM_CHOICES] = pair * (slope * first**2).sum()
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
