"""Ridge regression of the ranks' normal scores on the one-hot choices: the simplest recipe, a baseline.

Fitted part of a checkpoint: "weights" (87,) float64, and "loo_ktau", Kendall's tau of the leave-one-out predictions.
"""

import torch

import checkpoint
from dataset import FEATURES, WIDTH
from metrics import kendall_tau, normal_scores
from recipes.base import Recipe as Base
from scoring import Model

PENALTY = 1.0
# Which of the 87 features encode a choice: all but the embedding, which is the same in every layer.
IS_CHOICE = torch.tensor([index % WIDTH < WIDTH - 1 for index in FEATURES])


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
    """Effects of single choices, in closed form."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        x = encodings.flatten(1)[:, FEATURES].double() * IS_CHOICE
        weights, held_out = ridge(x, normal_scores(ranks))
        return {"weights": weights, "loo_ktau": kendall_tau(held_out[None], torch.as_tensor(ranks)[None]).item()}

    def model(self, content, index=None):
        return Model(torch.diag(content["weights"]))  # x * x = x

    def check(self, path, content):
        checkpoint.check_tensor(path, "weights", content.get("weights"), (len(FEATURES),), torch.float64)
        checkpoint.check_number(path, "loo_ktau", content.get("loo_ktau"))

    def summary(self, content):
        return {"leave-one-out tau": content["loo_ktau"]}
