"""How well scores order architectures: Kendall's tau for many small batches at once, and ranks."""

import math

import numpy as np
import torch

from tasks import InputError


def pair_order(values):
    """(..., n) -> (..., n, n) float32: 1 where values[i] > values[j], -1 where smaller, 0 where equal."""
    rows, columns = values.unsqueeze(-1), values.unsqueeze(-2)
    return (rows > columns).float() - (rows < columns).float()


def kendall_tau(scores, labels):
    """Kendall's tau-b of every row of `scores` with the same row of `labels`, as scipy.stats.kendalltau.

    tau_b = (concordant - discordant) / sqrt(pairs untied in scores * pairs untied in labels), Kendall (1945),
    doi:10.1093/biomet/33.3.239. All pairs are compared, so this is for batches: time and memory are O(b n^2).

    scores, labels: (b, n) tensors. Returns (b,) float64 in [-1, 1]; NaN for a row of which one side is constant,
    contains NaN, or has fewer than two elements. Raises ValueError where the shapes differ or are not (b, n).
    """
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"expected two (b, n) tensors, got {tuple(scores.shape)} and {tuple(labels.shape)}")
    x, y = pair_order(scores), pair_order(labels)
    balance = (x * y).sum((1, 2), dtype=torch.float64)  # counts every pair twice, as the two below do
    untied_x = x.abs_().sum((1, 2), dtype=torch.float64)
    untied_y = y.abs_().sum((1, 2), dtype=torch.float64)
    tau = (balance / untied_x.sqrt() / untied_y.sqrt()).clamp(-1, 1)  # 0 / 0 = NaN where a side is constant
    return tau.masked_fill((scores.isnan() | labels.isnan()).any(1), torch.nan)


def nan_below(ktau):
    """The key that sorts taus with NaN, which a constant predictor has, below every number."""
    return -math.inf if math.isnan(ktau) else ktau


def ranks(scores):
    """0-based rank of each of the n scores: how many are strictly smaller, so that ties share the lowest. O(n log n).

    scores: (n,) array. Returns (n,) int64 in [0, n). Raises InputError where a score is NaN: it has no rank.
    """
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        raise InputError(
            f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN and have no rank: use other weights"
        )
    return np.searchsorted(np.sort(scores), scores, side="left")
