"""Kendall's tau for many small batches at once, ranks, and the standard error of a cross-validation."""

import numpy as np
import torch

MAX_PAIRED = 4096  # up to here the counts of pairs are exact in float32


def pair_signs(values):
    """(..., n) -> (..., n, n): the sign of values[i] - values[j], 0 where one of them is NaN."""
    return torch.sub(values.unsqueeze(-1), values.unsqueeze(-2)).sign_().nan_to_num_(0)


def kendall_tau(scores, labels, signs=None):
    """Kendall's tau-b of every row of `scores` with the same row of `labels`, as scipy.stats.kendalltau.

    tau_b = (concordant - discordant) / sqrt(pairs untied in scores * pairs untied in labels), Kendall (1945),
    doi:10.1093/biomet/33.3.239. All pairs are compared, in O(b n^2) time and memory, up to n = MAX_PAIRED; larger
    rows go to scipy, which sorts.

    scores, labels: (b, n) tensors; signs: pair_signs(labels), where they are known. Returns (b,) float64 in [-1, 1];
    NaN for a row with a side that is constant, contains NaN, or has fewer than two elements. Raises ValueError where
    the shapes differ or are not (b, n).
    """
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"expected two (b, n) tensors, got {tuple(scores.shape)} and {tuple(labels.shape)}")
    if scores.shape[1] > MAX_PAIRED:
        from scipy.stats import kendalltau  # its import takes half a second, and few need it

        rows = zip(scores.cpu().numpy(), labels.cpu().numpy(), strict=True)
        return torch.tensor([kendalltau(*row).statistic for row in rows], dtype=torch.float64)
    x = pair_signs(scores).float().flatten(1)
    y = (pair_signs(labels) if signs is None else signs).float().flatten(1)
    # Their products count pairs, all twice; as whole numbers below 2**24, up to n = 4096, they are exact.
    balance, untied_x, untied_y = (torch.linalg.vecdot(a, b).double() for a, b in ((x, y), (x, x), (y, y)))
    tau = (balance / untied_x.sqrt() / untied_y.sqrt()).clamp(-1, 1)  # 0 / 0 = NaN where a side is constant
    return tau.masked_fill((scores.isnan() | labels.isnan()).any(1), torch.nan)


def ranks(scores):
    """0-based rank of each of n scores: the number of strictly smaller ones, so that ties share the lowest. O(n log n).

    scores: (n,) array without NaN. Returns (n,) int64 in [0, n).
    """
    scores = np.asarray(scores)
    # Write the ranks back in one pass: a binary search for each score would miss the cache at every step.
    order = np.argsort(scores)
    ascending, first = scores[order], np.ones(len(scores), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    del ascending
    found = np.empty(len(scores), np.int64)
    found[order] = np.flatnonzero(first)[np.cumsum(first) - 1]
    return found


def normal_scores(labels):
    """Normal quantiles of n labels' ranks, Phi^-1((rank + 1/2) / n), ties at their mean rank: (n,) float64 tensor."""
    _, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts + 1) / 2
    return torch.special.ndtri(torch.from_numpy((mean_ranks[inverse] + 0.5) / len(inverse)))


def standard_error(values, test_share):
    """Standard error of the mean of one value a fold, (..., k) -> (...), corrected for what folds share in training.

    test_share: n_test / n_train. The error is the root of the variance over the k folds times (1/k + n_test/n_train)
    (Nadeau and Bengio, 2003, doi:10.1023/A:1024068626366).
    """
    return (values.var(-1, ddof=1) * (1 / values.shape[-1] + test_share)) ** 0.5


def rank_table(measurements, found):
    """True ranks that searches ended with, as Markdown: the tasks' median of the seeds' medians, and the share of 0.

    found: {method: (tasks, measurements, seeds) array of ranks}.
    """

    def cell(i, ranks):
        return f"{np.median(np.median(ranks[:, i], 1)):g} ({(ranks[:, i] == 0).mean():.0%})"

    return markdown("trainings", measurements, found, cell)


def markdown(title, rows, columns, cell, first="--:"):
    """A table as Markdown.

    title: of the column with the names `rows`; columns: {name: values}; cell(i, values): text of row i in a column;
    first: rule below the first column, "---" aligns it left.
    """
    lines = [f"| {title} | {' | '.join(columns)} |", f"|{first}{'|--:' * len(columns)}|"]
    for i, row in enumerate(rows):
        lines.append(f"| {row} | {' | '.join(cell(i, values) for values in columns.values())} |")
    return "\n".join(lines)
