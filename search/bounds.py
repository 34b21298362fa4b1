"""Lower bounds on the scores of all architectures that begin with the same options.

The score is q + sum w f(u): a quadratic form q in the options, and networks f whose inputs u are sums over groups of
decisions, u = b + sum_g T[g, c_g], since nothing nonlinear lies between the encoding and the first relu.

1. Intervals. For a prefix, u lies between its fixed terms plus the sums of the free groups' lowest and highest. relu(x)
   lies between relu(low) and relu(high), and W h + b within W m + b -+ |W| r, with m and r the middle and the half-
   width of h's interval. This gives intervals of the inputs of all relus, and of the score.
2. Lines. Over low <= x <= high with low < 0 < high, relu(x) <= high (x - low) / (high - low), and relu(x) >= a x for
   any a from 0 to 1: here 1 if high > -low, after the first layer if high > -2 low, else 0. Elsewhere relu is a line
   itself. From the output back, replace every relu by the line that bounds the score from below, according to the sign
   of its coefficient (CROWN, Zhang et al., arXiv:1811.00866). The result is linear in u, so in the options:
   f >= d + sum_g s T[g, c_g], and each free group takes the option that is best for it alone.
3. The quadratic form. With the prefix fixed it is a constant, a term for each free group's option, and pairs P[g, c,
   h, d] of free groups. A pair is at least the mean of min_d P[g, c, h, d] and min_c P[g, c, h, d], so half of either
   is added to the term of its group. First, means of P over rows and columns are moved to the terms: less is left to
   be bounded.

The terms of 3 are added to those of 2 before the minimum over options. The larger of 1 + 3 and 2 + 3 is used:
intervals win while many groups are free, lines once few are. Being a sum over groups, it also bounds each child of the
prefix, one more group fixed, and most children are dropped before anything is computed for them.

Budgets. A bound on score + p cost, with a multiplier p >= 0, is as simple: p cost adds one term a group (Lagrangian
relaxation). If it exceeds t + p B, no completion within the budget B is as good as t. A few p are tried.
"""

import itertools
from typing import NamedTuple

import numpy as np
import torch

from network import merge_networks
from space import ABSENT

LIMIT = 16  # options of a group of several decisions, at most
MULTIPLES = (0.5, 1.0, 1.5, 2.5)  # of the usual multiplier of a cost: those that are tried
SLANTS = (1, 2, 2)  # by layer: the line below relu(x) is x where high > -slant low, else 0
NOTHING = np.empty((1, 0), np.uint8)  # options of the prefix that fixes no group


class Score(NamedTuple):
    """The score of a model as the bounds need it, float64: x A x, and k networks whose weights are scaled."""

    matrix: torch.Tensor  # A, (features, features)
    first: torch.Tensor  # weights of the first layer (k, features, width)
    weights: tuple = ()  # of the others, (k, out, in)
    biases: tuple = ()  # (k, out, 1)

    @classmethod
    def of(cls, model):
        """Of a recipes.base.Model."""
        features = len(model.space.features)
        matrix = torch.zeros(features, features).double() if model.matrix is None else model.matrix
        if not model.networks:
            return cls(matrix, torch.zeros(0, features, 1).double())
        (first, *weights), biases = merge_networks(model.networks, model.space, dtype=torch.float64)
        scale = torch.tensor(model.weights).double()[:, None, None]
        weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale
        return cls(matrix, first, *(tuple(value.mT for value in values) for values in (weights, biases)))


def groups(space, chosen):
    """Groups of consecutive decisions that are left to a branch, and their options.

    chosen: (decisions,) choices of the parents, 0 elsewhere. Returns (rows, counts). rows (groups, options, decisions)
    has the choices that an option makes, ABSENT elsewhere; the last option of a group that has fewer is repeated.
    counts: how many options each group has.
    """
    free = space.present(chosen[None])[0] & (space.counts > 1)
    free[space.parents] = False
    found, size = [[]], 1  # without decisions there is still one group, with one option
    for i in np.flatnonzero(free):
        size *= space.counts[i]
        if size > LIMIT and found[-1]:
            found.append([])
            size = space.counts[i]
        found[-1].append(i)
    options = [np.array(list(itertools.product(*map(range, space.counts[some])))) for some in found]
    counts = np.array([len(some) for some in options])
    rows = np.full((len(found), counts.max(), len(chosen)), ABSENT, np.int8)
    for row, places, some in zip(rows, found, options, strict=True):
        row[:, places] = some[np.arange(len(row)).clip(max=len(some) - 1)]
    return rows, counts


class Relaxation:
    """The score of all architectures with the same choices of the parents, in sums over groups of other decisions.

    Groups stand in the order of their influence. Options of the first groups of n prefixes are an array (n, fixed). In
    all that is computed for them n is last: it is faster.
    """

    def __init__(self, score, space, chosen):
        """score: Score; chosen: as for `groups`."""
        self.score, self.space = score, space
        rows, counts = groups(space, chosen)
        self.first = np.where(space.present(chosen[None])[0], chosen, ABSENT).astype(np.int8)  # choices of the completion that is first
        base = np.where((rows != ABSENT).any((0, 1)), ABSENT, self.first)
        self.shape = rows.shape[:2]
        self.rows = np.vstack([rows.reshape(-1, len(chosen)), base])
        x = self._encode()
        x, base = x[:-1], x[-1]
        table = (x @ score.first).unflatten(1, self.shape)  # (k, groups, options, width)
        constant, single, pair = self._quadratic(base, x)
        order = self._influence(single, table).argsort(descending=True, stable=True)
        self.counts, self.rows = counts[order], np.vstack([rows[order].reshape(-1, len(chosen)), self.rows[-1:]])
        self.choices = self.rows[:-1].reshape(rows.shape).clip(min=0)
        self._keep_sums(constant, base @ score.first, single[order], pair[order][:, :, order], table[:, order])

    def _encode(self):
        """Features of the rows, float64."""
        x = torch.zeros(len(self.rows), len(self.space.features)).double()
        n, decisions = (self.rows != ABSENT).nonzero()
        first = np.cumsum(self.space.counts) - self.space.counts
        x[n, first[decisions] + self.rows[n, decisions]] = 1
        return x

    def costs(self, cost):
        """Costs of the options, (groups, options), and of the choices that all have."""
        table = cost.table[np.arange(len(cost.table)), self.rows].sum(1)
        return table[:-1].reshape(self.shape), cost.base + table[-1]

    def _quadratic(self, base, x):
        """x A x as constant + sum_g single[g, c_g] + sum_{g < h} pair[g, c_g, h, c_h], pairs of mean 0."""
        matrix, symmetric = self.score.matrix, self.score.matrix + self.score.matrix.t()
        single = (x @ symmetric @ base + (x @ matrix * x).sum(1)).view(self.shape)
        pair = (x @ symmetric @ x.t()).view(self.shape + self.shape)
        places = torch.arange(self.shape[0])
        pair[places, :, places] = 0
        mean = pair.mean(3)
        grand = mean.mean(1)
        pair = pair - mean[..., None] - mean.permute(2, 0, 1)[:, None] + grand[:, None, :, None]
        return base @ matrix @ base, single + (mean - grand[:, None] / 2).sum(2), pair

    def _influence(self, single, table):
        """(groups,): roughly the variance of the score that a group's option causes."""
        influence = single.var(1, correction=0)
        if self.score.weights:
            second, third, fourth = (weight.square() / 2 for weight in self.score.weights)  # a relu passes half
            influence = influence + (fourth @ third @ second @ table.var(2, correction=0).mT).sum((0, 1))
        return influence

    def _keep_sums(self, constant, inputs, single, pair, table):
        """Keep the terms of all sums, and by the number of fixed groups what bounds the free ones."""
        # A row for each option of each group, and one for the base: what it adds to the pairs with each option, to the
        # score, and to the networks' inputs.
        options = torch.cat([pair.flatten(2).flatten(0, 1), single.view(-1, 1), *table.flatten(1, 2)], 1)
        always = torch.cat([torch.zeros(len(options)), constant[None], inputs.flatten()])
        self.terms = torch.cat([options, always[None]])
        lowest, low, high = pair.amin(3), table.amin(2), table.amax(2)
        counts = range(len(single) + 1)
        self.free = [(single[f:] + lowest[f:, :, f:].sum(2) / 2)[..., None] for f in counts]  # with half of the pairs
        self.single, self.pair, self.most = single, pair, pair.abs().amax((1, 3))[..., None]
        # By the number of fixed groups: what a pair of free groups (g, h) adds to the term of g's option, (g, h, option).
        self.splits = {}
        self.low, self.high = ([span[:, f:].sum(1)[..., None] for f in counts] for span in (low, high))
        # M: at least the sum of the absolute values of all terms of any score.
        hidden = (inputs.abs() + torch.maximum(low.abs(), high.abs()).sum(1))[..., None]
        for weight, bias in zip(self.score.weights, self.score.biases, strict=True):
            hidden = weight.abs() @ hidden + bias.abs()
        self.magnitude = sum(
            part.sum().item() for part in (constant.abs(), single.abs().amax(1), self.most, hidden)
        )

    def multipliers(self, extra):
        """Multipliers to try: with the usual one, a group's options differ in p cost as they do in score.

        extra: (groups, options), how much more an option costs than the cheapest of its group.
        """
        _, free = self._relax(NOTHING)[-1]
        dearest = extra.max(1)
        usual = (free.amax(1) - free.amin(1)).mean().item() / dearest.mean()
        return np.minimum(np.multiply(MULTIPLES, usual), self.magnitude / dearest.sum())

    def complete(self, options):
        """Choices of the completion of each prefix that is first among the strings: (n, decisions) int8."""
        places = np.arange(options.shape[1])
        return self.choices[places, options].sum(1, dtype=np.int8) + self.first

    def scores(self, options):
        """Scores of prefixes with all groups fixed: (n,) float64."""
        return self._relax(options)[-1][0].numpy()

    def child_bounds(self, options, penalties):
        """Lower bounds on score + penalty of all completions of each prefix's children: (penalties, options, n).

        A penalty is a sum over groups of a term of the option, (groups, options).
        """
        fixed = options.shape[1]
        relaxed, bounds, rows = self._relax(options), [], self._rows(options)
        for penalty in penalties:
            start, found = penalty.view(-1)[rows].sum(1), []
            for total, free in relaxed:
                free = free + penalty[fixed:, :, None]
                found.append(free[0] + (total + start + free[1:].amin(1).sum(0)))
            bounds.append(torch.stack(found).amax(0))
        return torch.stack(bounds).numpy()

    def tighten(self, options, penalty):
        """Split the pairs of the free groups between their terms so that bounds of prefixes like these are larger."""
        fixed = options.shape[1]
        pair, most, rows = self.pair[fixed:, :, fixed:], self.most[fixed:, fixed:], self._rows(options)
        if not most.any():
            return
        groups = len(pair)
        split = self.splits.setdefault(fixed, pair.new_zeros(groups, groups, self.shape[1]))
        shares = torch.bincount(rows.flatten(), minlength=len(self.terms) - 1).double() / len(options)
        mean = (self.single + penalty)[fixed:] + (shares @ self.pair.flatten(2).flatten(0, 1)).view(self.shape)[fixed:]
        for g in range(groups):
            # What the pairs can add to the terms of g. Each then gets back an equal part of what is over the smallest.
            all_of = (pair[:, :, g] - split[:, g, :, None]).amin(1)
            total = mean[g] + all_of.sum(0)
            split[g] = all_of - (total - total.min()) / groups
            split[g, g] = 0
        split.clamp_(-most, most)
        rest = (pair - split.transpose(1, 2)[..., None]).amin(1)
        self.free[fixed] = (self.single[fixed:] + (split.sum(1) + rest.sum(0)) / 2)[..., None]

    def _rows(self, options):
        """Rows of `terms` of prefixes: (n, fixed)."""
        return torch.from_numpy(options + self.shape[1] * np.arange(options.shape[1]))

    def _relax(self, options):
        """Two bounds as sums: pairs of a constant (n,) and a term for each free group's option (free, options, n)."""
        (n, fixed), (groups, most) = options.shape, self.shape
        last, rows = len(self.terms) - 1, self._rows(options)
        some = torch.nn.functional.pad(rows, (0, 1), value=last)
        sums = torch.nn.functional.embedding_bag(some, self.terms, mode="sum").t().contiguous()
        pairs, (total,), inputs = sums.tensor_split([last, last + 1])
        total = total + pairs.gather(0, rows.t()).sum(0) / 2
        free = self.free[fixed] + pairs[most * fixed :].view(groups - fixed, most, n)
        if not self.score.weights:
            return [(total, free)]
        lowest, constant, slopes = self._relax_networks(inputs.view(*self.score.first.shape[::2], n), fixed)
        slopes = slopes.flatten(0, 1)
        lines = self.terms[most * fixed : -1, last + 1 :] @ slopes
        return [(total + lowest, free), (total + constant + (slopes * inputs).sum(0), free + lines.view(free.shape))]

    def _relax_networks(self, inputs, fixed):
        """Bound the networks' sum, of fixed inputs (k, width, n) and the free groups' span.

        Returns (lowest (n,), d (n,), s (k, width, n)): by intervals, and by lines d + s u.
        """
        weights, biases = self.score.weights, self.score.biases
        intervals = [(inputs + self.low[fixed], inputs + self.high[fixed])]
        for weight, bias in zip(weights, biases, strict=True):
            low, high = (value.clamp(min=0) for value in intervals[-1])
            middle, half = torch.baddbmm(bias, weight, (low + high) / 2), torch.bmm(weight.abs(), (high - low) / 2)
            intervals.append((middle - half, middle + half))
        lowest = intervals.pop()[0].sum((0, 1))
        constant, slopes = torch.zeros_like(lowest), torch.ones_like(biases[-1])
        layers = list(zip(weights, biases, intervals, SLANTS, strict=True))
        for weight, bias, (low, high), slant in reversed(layers):
            constant += (slopes * bias).sum((0, 1))
            slopes = weight.mT @ slopes
            low, high = low.clamp(max=0), high.clamp(min=0)
            upper = high / (high - low).clamp(min=1e-300)  # 0 and 1 where the sign is known
            negative = slopes.clamp(max=0) * upper
            constant -= (negative * low).sum((0, 1))
            slopes = negative + slopes.clamp(min=0) * (high > -slant * low)
        return lowest, constant, slopes
