"""A Gaussian process over the choices of an architecture: the ensemble's second opinion.

The predictors learn from pairs, this learns from the ranks themselves; the two err differently.
"""

import torch
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import rankdata

from dataset import COLUMNS, LENGTH, WIDTH

# The places of the 25 choices in a flattened encoding, three alternatives each: depth, then every layer's heads and MLP
# ratio. The embedding, in the last column, is no choice.
CHOICES = [WIDTH * row + column for row in range(LENGTH) for column in range(WIDTH - 1) if column in COLUMNS[row]]
COUNT = len(CHOICES) // 3
# How alike two alternatives of one choice are: l l' + x x', with x the one-hot and l = -1, 0, 1 the alternative as a
# number. Both are 0 in a layer that is absent.
ALIKE = [[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 2.0]]
ITERATIONS = 30


def choices(encodings):
    """(n, 37, 10) encodings -> (n, 75): the one-hot choices, all 0 in a layer that is absent."""
    return encodings.flatten(1)[:, CHOICES]


def quantiles(ranks):
    """The normal quantiles of n ranks, equal where they are: (n,) float64 tensor."""
    return torch.from_numpy(ndtri((rankdata(ranks) - 0.5) / len(ranks)))


def fit(encodings, ranks):
    """Fit ranks by maximum marginal likelihood (Rasmussen and Williams, Gaussian Processes for ML, 2006, chapter 5).

    With d the centred one-hot choices (n, 75), the covariance of the n architectures is

        K = K1 + v K1 * K1 + noise,    K1 = d M d',    M block-diagonal, s_j ALIKE for choice j:

    effects of single choices, and of pairs of them. The labels are the ranks' normal quantiles z, warped to
    (exp(c z) - 1) / c. The 25 variances s, v, the noise and the warp c are those of the best likelihood.

    encodings: (n, 37, 10); ranks: n numbers. Returns a float64 matrix A (75, 75): the posterior mean of an architecture
    with the one-hot choices x is x A x + constant, since all the covariance knows is single choices and pairs of them.
    """
    n = len(ranks)
    z, x = quantiles(ranks), choices(encodings).double()
    centre = x.mean(0)
    d, alike = x - centre, torch.kron(torch.eye(COUNT), torch.tensor(ALIKE)).double()

    def model(point):
        """M, v, K and the labels, given log s, log v, the log of the noise, and c."""
        pair, noise, c = point[COUNT].exp(), point[COUNT + 1].exp(), point[COUNT + 2]
        metric = alike * point[:COUNT].exp().repeat_interleave(3)
        first = d @ metric @ d.T
        y = torch.expm1(c * z) / c
        return metric, pair, first + pair * first**2 + noise * torch.eye(n), y - y.mean()

    def negative_log_likelihood(numbers):
        """And its gradient. A weak prior holds the warp near 0; its Jacobian is 1, since the quantiles sum to 0."""
        point = torch.tensor(numbers, requires_grad=True)
        with torch.enable_grad():
            _, _, covariance, y = model(point)
            root = torch.linalg.cholesky(covariance)
            white = torch.linalg.solve_triangular(root, y[:, None], upper=False)
            value = white.square().sum() / 2 + root.diagonal().log().sum() + 10 * point[COUNT + 2] ** 2
            return value.item(), torch.autograd.grad(value, point)[0].numpy()

    start = [-3.0] * COUNT + [-3.0, -2.0, 0.01]
    bounds = [(-12, 3)] * (COUNT + 1) + [(-7, 3), (-1, 1)]
    options = {"maxiter": ITERATIONS}
    found = minimize(negative_log_likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    metric, pair, covariance, y = model(torch.from_numpy(found.x))
    weights = torch.linalg.solve(covariance, y)
    pairs = pair * metric @ (d.T * weights) @ d @ metric
    # In d it is single d + d pairs d; multiplied out, with x * x = x.
    single = metric @ (d.T @ weights)
    return pairs + torch.diag(single - 2 * pairs @ centre)


def predict(matrices, encodings):
    """The posterior means, up to a constant, of k matrices that `fit` returned: (k, n) for n encodings (n, 37, 10)."""
    x = choices(encodings)
    return torch.stack([((x @ matrix.to(x.dtype)) * x).sum(1) for matrix in matrices])
