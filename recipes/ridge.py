"""Ridge regression of the ranks' normal scores on the one-hot decisions: the simplest recipe, a baseline.

Fitted part of a checkpoint: "weights" (features,) float64, "labels", the number of training architectures, and
"loo_ktau", Kendall's tau of the leave-one-out predictions.
"""

import torch

from common.metrics import kendall_tau, normal_scores
from recipes.base import Model
from recipes.base import Recipe as Base
from space import ABSENT

PENALTY = 1.0
ENOUGH = 25


def decision_features(space, encodings):
    """The features of n encodings as float64, 0 for those that no decision changes: (n, features)."""
    return encodings.flatten(1)[:, space.features].double() * torch.from_numpy(space.feature_decision != ABSENT)


def ridge(x, labels):
    """Ridge regression without a penalty on the intercept.

    x: (n, d), labels: (n,) or (n, t) float64 tensors. Returns (weights (d,) or (d, t), leave-one-out predictions as
    labels): the weights minimise |labels - intercept - x w|^2 + PENALTY |w|^2. The prediction for i without i is
    y_i - e_i / (1 - H_ii), with the residuals e and the hat matrix H (Hastie et al., The Elements of Statistical
    Learning, 2009, equation 7.52).
    """
    centred, mean = x - x.mean(0), labels.mean(0)
    solved = torch.linalg.solve(centred.T @ centred + PENALTY * torch.eye(x.shape[1], dtype=x.dtype), centred.T)
    weights = solved @ (labels - mean)
    leverage = (centred * solved.T).sum(1) + 1 / len(x)
    residuals = labels - mean - centred @ weights
    shape = (-1, *[1] * (labels.ndim - 1))
    return weights, labels - residuals / (1 - leverage).view(shape)


class Recipe(Base):
    """Effects of single decisions, in closed form."""

    settings = ()  # nothing is random

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        weights, held_out = ridge(decision_features(self.space, encodings), normal_scores(ranks))
        tau = kendall_tau(held_out[None], torch.as_tensor(ranks)[None]).item()
        fitted = {"weights": weights, "labels": len(ranks), "loo_ktau": tau}
        if report and self.summary(fitted):
            report(1, None, None, tau)
        return fitted

    def model(self, checkpoint, index=None):
        return Model(self.space, torch.diag(checkpoint["weights"]))  # x * x = x

    def summary(self, checkpoint):
        # With fewer labels, random ones get a leave-one-out tau above 0.3 more often than once in twenty times.
        return {"leave-one-out tau": checkpoint["loo_ktau"]} if checkpoint.get("labels", ENOUGH) >= ENOUGH else {}
