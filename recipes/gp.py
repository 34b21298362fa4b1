"""Gaussian process on pairs of choices: ranks better than the reference's method, and predicts rank intervals.

Fitted part of a checkpoint: the fields of gaussian_process.GaussianProcess except leave_one_out, and "loo_ktau",
Kendall's tau of the leave-one-out predictions.
"""

import torch

import checkpoint
import gaussian_process
from dataset import FEATURES
from metrics import kendall_tau
from recipes.base import Recipe as Base
from scoring import Model


class Recipe(Base):
    """Maximum marginal likelihood on all architectures; nothing is held out."""

    def train_steps(self, task, n):
        super().train_steps(task, n)
        return gaussian_process.ITERATIONS, 1

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        content = gaussian_process.fit(encodings.flatten(1)[:, FEATURES].double(), ranks, report)._asdict()
        held_out = content.pop("leave_one_out")
        return content | {"loo_ktau": kendall_tau(held_out[None], torch.as_tensor(ranks)[None]).item()}

    def model(self, content, index=None):
        return Model(content["matrix"])

    def rank_interval(self, content, scores, n, probability):
        return gaussian_process.rank_interval(content, scores, n, probability)

    def check(self, path, content):
        shapes = {"matrix": (len(FEATURES), len(FEATURES)), "constant": (), "std": (), "warp": ()}
        for name, shape in shapes.items():
            checkpoint.check_tensor(path, name, content.get(name), shape, torch.float64)
        if not (content["std"] > 0 and content["warp"] != 0):
            raise checkpoint.CheckpointError(f"{path}: std and warp: expected numbers other than 0")
        checkpoint.check_number(path, "loo_ktau", content.get("loo_ktau"))

    def summary(self, content):
        return {"leave-one-out tau": content["loo_ktau"]}
