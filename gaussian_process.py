"""A Gaussian process over the choices of an architecture: the ensemble's second opinion.

The predictors learn from pairs, this learns from the ranks themselves; the two err differently.
"""

import torch
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import rankdata

from dataset import LAYERS

CHOICES = 1 + 2 * LAYERS  # depth, then each layer's heads and MLP ratio
# How alike two alternatives of a choice are: l l' + x x', with x the one-hot and l = -1, 0, 1 the alternative as a
# number. All are 0 in a layer that is absent; the embedding, which is always the same, is no choice.
ALIKE = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 2.0]], dtype=torch.float64)
BLOCKS = torch.block_diag(ALIKE, *[ALIKE, ALIKE, torch.zeros(1, 1)] * LAYERS)  # (87, 87), as USED
# Which choice each of the 87 is of; the embedding is counted to the heads, where its zero block makes no difference.
IN_LAYER = torch.tensor([0, 0, 0, 1, 1, 1, 0])
CHOICE = torch.cat([torch.zeros(3, dtype=torch.int64), *(1 + 2 * layer + IN_LAYER for layer in range(LAYERS))])
ITERATIONS = 30


def quantiles(ranks):
    """The normal quantiles of n ranks, equal where they are: (n,) float64 tensor."""
    return torch.from_numpy(ndtri((rankdata(ranks) - 0.5) / len(ranks)))


def fit(x, ranks):
    """Fit ranks by maximum marginal likelihood (Rasmussen and Williams, Gaussian Processes for ML, 2006, chapter 5).

    With d the centred encodings (n, 87), the covariance of the n architectures is

        K = K1 + v K1 * K1 + noise,    K1 = d M d',    M block-diagonal, s_j ALIKE for choice j:

    effects of single choices, and of pairs of them. The labels are the ranks' normal quantiles z, warped to
    (exp(c z) - 1) / c. The 25 variances s, v, the noise and the warp c are what ITERATIONS steps up the likelihood
    find; a prior of standard deviation 0.22 holds c near 0.

    x: (n, 87) float64, the USED part of n encodings; ranks: n numbers. Returns a float64 matrix A (87, 87): the
    posterior mean is x A x + constant, since all that the covariance knows is single choices and pairs of them.
    """
    n, z, centre = len(ranks), quantiles(ranks), x.mean(0)
    d = x - centre

    def model(point):
        """M, v, K and the labels, given log s, log v, the log of the noise, and c."""
        pair, noise, c = point[CHOICES].exp(), point[CHOICES + 1].exp(), point[CHOICES + 2]
        metric = BLOCKS * point[CHOICE].exp()
        first = d @ metric @ d.T
        y = torch.expm1(c * z) / c
        return metric, pair, first + pair * first**2 + noise * torch.eye(n, dtype=x.dtype), y - y.mean()

    def negative_log_likelihood(numbers):
        """And its gradient. The Jacobian of the warp is left out: the quantiles sum to 0, so it is 1."""
        point = torch.tensor(numbers, requires_grad=True)
        _, _, covariance, y = model(point)
        root = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(root, y[:, None], upper=False)
        value = white.square().sum() / 2 + root.diagonal().log().sum() + 10 * point[CHOICES + 2] ** 2
        return value.item(), torch.autograd.grad(value, point)[0].numpy()

    start = [-3.0] * CHOICES + [-3.0, -2.0, 0.01]
    bounds = [(-12, 3)] * (CHOICES + 1) + [(-7, 3), (-1, 1)]
    options = {"maxiter": ITERATIONS}
    found = minimize(negative_log_likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    metric, pair, covariance, y = model(torch.from_numpy(found.x))
    weights = torch.linalg.solve(covariance, y)
    pairs = pair * metric @ (d.T * weights) @ d @ metric
    # In d it is single d + d pairs d; multiplied out, with x * x = x.
    single = metric @ (d.T @ weights)
    return pairs + torch.diag(single - 2 * pairs @ centre)
