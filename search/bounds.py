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
   h, d] of free groups. First, means of P over rows and columns are moved to the terms: less is left to be bounded.
   Then each pair is split: P[g, c, h, d] - a[g, h, c] - a[h, g, d] is at least the mean of its minima over d and over
   c, so a[g, h, c] and half of the minimum over d are added to the term of c, and likewise for d. Any splits a are
   valid. They start at 0. Before prefixes are extended, a round of coordinate ascent makes the bound for their mean
   terms larger (message passing, Globerson and Jaakkola, Fixing max-product, NIPS 2007).

The terms of 3 are added to those of 2 before the minimum over options. The larger of 1 + 3 and 2 + 3 is used:
intervals win while many groups are free, lines once few are. Being a sum over groups, it also bounds each child of the
prefix, one more group fixed, and most children are dropped before anything is computed for them.

Budgets. A bound on score + p cost, with a multiplier p >= 0, is as simple: p cost adds one term a group (Lagrangian
relaxation). If it exceeds t + p B, no completion within the budget B is as good as t. A few p are tried.

Rounding. All is float64, and bounds and scores are sums of the same terms. M, the sum of the absolute values of all
terms, is at least what the networks have at any of their layers. Multipliers are capped so that p (largest - smallest
cost) <= M, splits at twice the largest entry of their pair. Each rounding error is at most 2**-53 times the largest
intermediate sum, which is M but for small factors: with splits, the terms of 3 are up to 3.5 M. Adding them up for G
groups and k networks of widths 32, 16 and 32, a bound or score is off by less than (360 + 20 G + 200 k) 2**-53 M,
(600 + 200 k) 2**-53 M for the 12 groups of ViT:
- A group takes part in 15 sums: 3 of fixed options, 3.5 of splits, 4.5 of minima, 1 of penalties, 3 through networks.
- A network has 193 products in its lines: 49 with biases, 80 with ends of intervals, 64 with inputs.
- Intervals are off by less than 95 and the lines by as much, the lines' slopes by 61, and other sums by 76.
The margin within which scores and bounds compare is twice that and more: (2 + G / 6 + k) 2**-44 M, which is
(1024 + 85 G + 512 k) 2**-53 M. Scores are rounded to multiples of a tick of two margins. Equal after rounding is a tie,
which the smaller string wins (on the front the cheaper architecture, then the smaller string); so is a bound that
equals the score to beat, within a tick and a margin.
"""

import numpy as np
import torch

from network import merge_networks
from space import ABSENT

LIMIT = 16  # options of a group of several decisions, at most
MULTIPLES = (0.5, 1.0, 1.5, 2.5)  # of the usual multiplier of a cost: those that are tried
SLANTS = (1, 2, 2)  # by layer: the line below relu(x) is x where high > -slant low, else 0
NOTHING = np.empty((1, 0), np.uint8)  # options of the prefix that fixes no group


def layers(model):
    """Weights of the model's networks, float64: first layer (k, features, width), others (k, out, in), biases."""
    if not model.networks:
        return torch.zeros(0, len(model.space.features), 1).double(), [], []
    (first, *weights), biases = merge_networks(model.networks, model.space, dtype=torch.float64)
    scale = torch.tensor(model.weights).double()[:, None, None]
    weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale
    return first, *([value.mT for value in values] for values in (weights, biases))


def groups(free, counts):
    """Pack decisions, in their order, into groups: [(options, decisions) choices, ABSENT for decisions of others].

    free: which of the decisions, (decisions,) bool; counts: how many choices they have. There is always a group.
    """
    found = [np.full((1, len(free)), ABSENT, np.int8)]
    for i in np.flatnonzero(free):
        if len(found[-1]) > 1 and len(found[-1]) * counts[i] > LIMIT:
            found.append(np.full_like(found[0][:1], ABSENT))
        choices = np.tile(np.arange(counts[i]), len(found[-1]))
        found[-1] = found[-1].repeat(counts[i], 0)
        found[-1][:, i] = choices
    return found


class Relaxation:
    """The score of all architectures with the same choices of the parents, in sums over groups of other decisions.

    Groups stand in the order of their influence. Options of the first groups of n prefixes are an array (n, fixed). In
    all that is computed for them n is last: it is faster.
    """

    def __init__(self, model, networks, first):
        """model: recipes.base.Model; networks: its `layers`; first: choices of the first architecture, (decisions,)."""
        space, self.first, (inputs, self.weights, self.biases) = model.space, first, networks
        free = (first != ABSENT) & (space.counts > 1)
        free[space.parents] = False
        found = groups(free, space.counts)
        self.counts = np.array([len(options) for options in found])
        # A group that has fewer options repeats its last.
        rows = np.stack([options[np.arange(self.counts.max()).clip(max=len(options) - 1)] for options in found])
        self.shape, self.base = rows.shape[:2], np.where(free, ABSENT, first)
        chosen = np.vstack([*rows, self.base])
        x, (n, decisions) = torch.zeros(len(chosen), len(space.features)).double(), (chosen != ABSENT).nonzero()
        x[n, (np.cumsum(space.counts) - space.counts)[decisions] + chosen[n, decisions]] = 1
        x, base = x[:-1], x[-1]
        table = (x @ inputs).unflatten(1, self.shape)  # (k, groups, options, width)
        constant, single, pair = self._quadratic(model.matrix, base, x)
        order = self._influence(single, table).argsort(descending=True, stable=True).numpy()
        self.counts, self.rows = self.counts[order], rows[order]
        self._keep_sums(constant, base @ inputs, single[order], pair[order][:, :, order], table[:, order])

    def _quadratic(self, matrix, base, x):
        """x A x as constant + sum_g single[g, c_g] + sum_{g < h} pair[g, c_g, h, c_h], pairs of mean 0."""
        matrix = torch.zeros(2 * base.shape).double() if matrix is None else matrix
        symmetric, places = matrix + matrix.t(), torch.arange(self.shape[0])
        single = (x @ symmetric @ base + (x @ matrix * x).sum(1)).view(self.shape)
        pair = (x @ symmetric @ x.t()).view(self.shape + self.shape)
        pair[places, :, places] = 0
        mean = pair.mean(3)
        grand = mean.mean(1)
        pair = pair - mean[..., None] - mean.permute(2, 0, 1)[:, None] + grand[:, None, :, None]
        return base @ matrix @ base, single + (mean - grand[:, None] / 2).sum(2), pair

    def _influence(self, single, table):
        """(groups,): roughly the variance of the score that a group's option causes."""
        influence = single.var(1, correction=0)
        if self.weights:
            second, third, fourth = (weight.square() / 2 for weight in self.weights)  # a relu passes half
            influence = influence + (fourth @ third @ second @ table.var(2, correction=0).mT).sum((0, 1))
        return influence

    def _keep_sums(self, constant, inputs, single, pair, table):
        """Keep the terms of all sums, and by the number of fixed groups what bounds the free ones."""
        # A row for each option of each group, and one for the base: what it adds to the pairs with each option, to the
        # score, and to the networks' inputs.
        options = torch.cat([pair.flatten(2).flatten(0, 1), single.view(-1, 1), *table.flatten(1, 2)], 1)
        always = torch.cat([torch.zeros(len(options)), constant[None], inputs.flatten()])
        self.terms, self.single, self.pair = torch.cat([options, always[None]]), single, pair
        low, high, counts = table.amin(2), table.amax(2), range(len(single) + 1)
        self.low, self.high = ([span[:, f:].sum(1)[..., None] for f in counts] for span in (low, high))
        self.splits, self.most = [pair[f:, 0, f:] * 0 for f in counts], pair.abs().amax((1, 3))[..., None]
        # M: at least the sum of the absolute values of all terms of any score.
        hidden = (inputs.abs() + torch.maximum(low.abs(), high.abs()).sum(1))[..., None]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = weight.abs() @ hidden + bias.abs()
        self.magnitude = sum(part.sum().item() for part in (constant.abs(), single.abs().amax(1), self.most, hidden))

    def costs(self, cost):
        """Costs of the options, (groups, options), and of all else."""
        return cost.table[np.arange(len(self.base)), self.rows].sum(2), cost.of(self.base[None])[0]

    def multipliers(self, extra):
        """Multipliers to try: with the usual one, a group's options differ in p cost as they do in score.

        extra: (groups, options), how much more an option costs than the cheapest of its group.
        """
        _, free = self._relax(NOTHING)[-1]
        dearest = extra.max(1)
        usual = (free.amax(1) - free.amin(1)).mean().item() / dearest.mean()
        return np.minimum(np.multiply(MULTIPLES, usual), self.magnitude / dearest.sum())

    def complete(self, options):
        """Choices of the first completion of each prefix: (n, decisions) int8."""
        return self.first + self.rows[np.arange(options.shape[1]), options].clip(min=0).sum(1, dtype=np.int8)

    def scores(self, options):
        """Scores of prefixes with all groups fixed: (n,) float64."""
        return self._relax(options)[-1][0].numpy()

    def child_bounds(self, options, penalties, main=0):
        """Lower bounds on score + penalty of all completions of each prefix's children: (penalties, options, n).

        penalties: (penalties, groups, options), a term for each option; main: index of the most important one.
        """
        fixed, rows, bounds = options.shape[1], self._rows(options), []
        relaxed = self._relax(options)
        halves = self._halves(fixed, relaxed[-1][1].mean(2) + penalties[main, fixed:])
        for penalty in penalties:
            start, found = penalty.view(-1)[rows].sum(1), []
            for total, free in relaxed:
                free = free + (halves + penalty[fixed:])[..., None]
                found.append(free[0] + (total + start + free[1:].amin(1).sum(0)))
            bounds.append(torch.stack(found).amax(0))
        return torch.stack(bounds).numpy()

    def _halves(self, fixed, terms):
        """What pairs of free groups add to terms of their options, with better splits: (free, options).

        terms: means over the prefixes that are extended, (free, options).
        """
        pair, split, most = self.pair[fixed:, :, fixed:], self.splits[fixed], self.most[fixed:, fixed:]
        for g in range(len(pair)):
            # The most that its pairs can add to the terms of g. What the sum is over its minimum goes back to them.
            added = (pair[:, :, g] - split[:, g, :, None]).amin(1)
            total = terms[g] + added.sum(0)
            split[g] = added - (total - total.min()) / len(pair)
        split.clamp_(-2 * most, 2 * most)  # so that M bounds the rounding; 0 within a group
        return (split.sum(1) + (pair - split.mT[..., None]).amin(1).sum(0)) / 2

    def _rows(self, options):
        """Rows of `terms` of prefixes: (n, fixed)."""
        return torch.from_numpy(options + self.shape[1] * np.arange(options.shape[1]))

    def _relax(self, options):
        """Two bounds as sums: pairs of a constant (n,) and a term for each free group's option (free, options, n).

        Pairs of free groups are left out.
        """
        (n, fixed), last, rows = options.shape, len(self.terms) - 1, self._rows(options)
        some = torch.nn.functional.pad(rows, (0, 1), value=last)
        sums = torch.nn.functional.embedding_bag(some, self.terms, mode="sum").t().contiguous()
        pairs, (total,), inputs = sums.tensor_split([last, last + 1])
        total = total + pairs.gather(0, rows.t()).sum(0) / 2
        free = pairs.view(*self.shape, n)[fixed:] + self.single[fixed:, :, None]
        if not self.weights:
            return [(total, free)]
        lowest, constant, slopes = self._relax_networks(inputs.view(*self.low[0].shape[:2], n), fixed)
        slopes = slopes.flatten(0, 1)
        lines = self.terms[self.shape[1] * fixed : -1, last + 1 :] @ slopes
        return [(total + lowest, free), (total + constant + (slopes * inputs).sum(0), free + lines.view(free.shape))]

    def _relax_networks(self, inputs, fixed):
        """Bound the networks' sum, of fixed inputs (k, width, n) and the free groups' span.

        Returns (lowest (n,), d (n,), s (k, width, n)): by intervals, and by lines d + s u.
        """
        intervals = [(inputs + self.low[fixed], inputs + self.high[fixed])]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            low, high = (value.clamp(min=0) for value in intervals[-1])
            middle, half = torch.baddbmm(bias, weight, (low + high) / 2), torch.bmm(weight.abs(), (high - low) / 2)
            intervals.append((middle - half, middle + half))
        lowest = intervals.pop()[0].sum((0, 1))
        constant, slopes = torch.zeros_like(lowest), torch.ones_like(self.biases[-1])
        layers = list(zip(self.weights, self.biases, intervals, SLANTS, strict=True))
        for weight, bias, (low, high), slant in reversed(layers):
            constant += (slopes * bias).sum((0, 1))
            slopes = weight.mT @ slopes
            low, high = low.clamp(max=0), high.clamp(min=0)
            upper = high / (high - low).clamp(min=1e-300)  # 0 and 1 where the sign is known
            negative = slopes.clamp(max=0) * upper
            constant -= (negative * low).sum((0, 1))
            slopes = negative + slopes.clamp(min=0) * (high > -slant * low)
        return lowest, constant, slopes
