"""Lower bounds on the scores of all architectures that begin with the same options.

The score is q + sum w f(u): a quadratic form q in the options, and networks f whose 32 inputs u are sums
over layers, u = b + sum_l T[l, c_l], since nothing nonlinear lies between the encoding and the first relu.

1. Intervals. For a prefix, u lies between its fixed terms plus the sums of the free layers' lowest and highest. relu(x)
   lies between relu(low) and relu(high), and W h + b within W m + b -+ |W| r, with m and r the middle and the half-
   width of h's interval. This gives intervals of the inputs of all relus, and of the score.
2. Lines. Over low <= x <= high with low < 0 < high, relu(x) <= high (x - low) / (high - low), and relu(x) >= a x for
   any a from 0 to 1: here 1 if high > -low, after the first layer if high > -2 low, else 0. Elsewhere relu is a line
   itself. From the output back, replace every relu by the line that bounds the score from below, according to the sign
   of its coefficient (CROWN, Zhang et al., arXiv:1811.00866). The result is linear in u, so in the options:
   f >= d + sum_l s T[l, c_l], and each free layer takes the option that is best for it alone.
3. The quadratic form. With the prefix fixed it is a constant, a term for each free layer's option, and pairs P[l, c,
   m, d] of free layers. A pair is at least the mean of min_d P[l, c, m, d] and min_c P[l, c, m, d], so half of either
   is added to the term of its layer. First, means of P over rows and columns are moved to the terms: less is left to
   be bounded.

The terms of 3 are added to those of 2 before the minimum over options. The larger of 1 + 3 and 2 + 3 is used:
intervals win while many layers are free, lines once few are. Being a sum over layers, it also bounds each child of the
prefix, one more layer fixed, and most children are dropped before anything is computed for them.

Budgets. A bound on score + p cost, with a multiplier p >= 0, is as simple: p cost adds one term a layer (Lagrangian
relaxation). If it exceeds t + p B, no completion within the budget B is as good as t. A few p are tried.

Rounding. All is float64. M, the sum of the absolute values of all terms, bounds every sum above but for small factors,
and multipliers are capped so that p (largest - smallest cost) <= M. Counting each rounding with the largest sum that it
can occur in, those of k networks move a bound or a score by less than (600 + 200 k) 2**-53 M: 130 in the intervals,
280 + 193 k in the lines, the rest in 3 and the sums over layers. So the two compare within a margin of
(4 + k) 2**-44 M = (2048 + 512 k) 2**-53 M. Scores are rounded to multiples of a tick of two margins. Equal after
rounding is a tie, which the smaller string wins (on the front the smaller architecture, then the smaller string); so is
a bound that equals the score to beat, within a tick and a margin.
"""

import numpy as np
import torch

from network import merge_networks
from space import DEPTHS, FEATURES, LAYERS, MIN_DEPTH, OPTION_FEATURES, OPTIONS

# The sort key of an architecture, its depth and options as the digits of a number, sorts as its string does.
PLACES = OPTIONS ** np.arange(LAYERS, -1, -1)
MULTIPLES = (0.5, 1.0, 1.5, 2.5)  # of the usual multiplier of a cost: those that are tried
SLANTS = (1, 2, 2)  # by layer: the line below relu(x) is x where high > -slant low, else 0
NO_LAYERS = np.empty((1, 0), np.int64)  # options of the prefix that fixes none


class DepthModel:
    """The score of the architectures of one depth, in sums over layers; layers stand in order of influence.

    The options of n prefixes are an array (n, fixed layers). In all that is computed for them n is last: it is faster.
    """

    def __init__(self, model, depth):
        self.depth, self.rows = depth, OPTIONS * depth
        # The features of the depth, and of every option in every layer (9 depth, 87).
        base = torch.eye(len(FEATURES)).double()[depth - MIN_DEPTH]
        layers = torch.kron(torch.eye(depth, LAYERS), torch.from_numpy(OPTION_FEATURES))
        x = torch.nn.functional.pad(layers, (len(DEPTHS), 0))
        first = self._keep_networks(model)
        table = (x @ first).unflatten(1, (depth, OPTIONS))  # (k, depth, 9, 32)
        constant, single, pair = self._quadratic(model.matrix, base, x)
        order = self._influence(single, table).argsort(descending=True, stable=True)
        self.places = PLACES[1:][order.numpy()]
        self._keep_sums(constant, base @ first, single[order], pair[order][:, :, order], table[:, order])

    def _keep_networks(self, model):
        """Keep the weights (k, out, in) and biases (k, out, 1) of all layers but the first; its weights (k, 87, 32)."""
        self.weights, self.biases = [], []
        if not model.networks:
            return torch.zeros(0, len(FEATURES), 32).double()
        (first, *weights), biases = merge_networks(model.networks, dtype=torch.float64)
        scale = torch.tensor(model.weights).double()[:, None, None]
        weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale
        self.weights, self.biases = ([value.mT for value in values] for values in (weights, biases))
        return first

    def _quadratic(self, matrix, base, x):
        """x A x as constant + sum_l single[l, c_l] + sum_{l < m} pair[l, c_l, m, c_m], pairs of mean 0."""
        shape, symmetric = (self.depth, OPTIONS), matrix + matrix.t()
        single = (x @ symmetric @ base + (x @ matrix * x).sum(1)).view(shape)
        pair = (x @ symmetric @ x.t()).view(shape + shape)
        pair[torch.arange(self.depth), :, torch.arange(self.depth)] = 0
        mean = pair.mean(3)
        grand = mean.mean(1)
        pair = pair - mean[..., None] - mean.permute(2, 0, 1)[:, None] + grand[:, None, :, None]
        return base @ matrix @ base, single + (mean - grand[:, None] / 2).sum(2), pair

    def _influence(self, single, table):
        """(depth,): roughly the variance of the score that a layer's option causes."""
        influence = single.var(1, correction=0)
        if self.weights:
            second, third, fourth = (weight.square() / 2 for weight in self.weights)  # a relu passes half
            influence = influence + (fourth @ third @ second @ table.var(2, correction=0).mT).sum((0, 1))
        return influence

    def _keep_sums(self, constant, inputs, single, pair, table):
        """Keep the terms of all sums, and by the number of fixed layers what bounds the free ones."""
        # A row for each option in each layer, and one for the depth: what it adds to the pairs with each option, to the
        # score, and to the networks' inputs.
        options = torch.cat([pair.flatten(2).flatten(0, 1), single.view(-1, 1), *table.flatten(1, 2)], 1)
        always = torch.cat([torch.zeros(self.rows), constant[None], inputs.flatten()])
        self.terms = torch.cat([options, always[None]])
        lowest, low, high = pair.amin(3), table.amin(2), table.amax(2)
        counts = range(self.depth + 1)
        self.free = [(single[f:] + lowest[f:, :, f:].sum(2) / 2)[..., None] for f in counts]  # with half of the pairs
        self.low, self.high = ([span[:, f:].sum(1)[..., None] for f in counts] for span in (low, high))
        # M: at least the sum of the absolute values of all terms of any score.
        hidden = (inputs.abs() + torch.maximum(low.abs(), high.abs()).sum(1))[..., None]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = weight.abs() @ hidden + bias.abs()
        self.magnitude = sum(
            part.sum().item() for part in (constant.abs(), single.abs().amax(1), pair.abs().amax((1, 3)), hidden)
        )

    def span(self, cost):
        """Cost of the cheapest and of the most expensive architecture."""
        return cost.base + self.depth * cost.table.min(), cost.base + self.depth * cost.table.max()

    def multipliers(self, cost):
        """Multipliers to try: with the usual one, a layer's options differ in p cost as they do in score."""
        _, free = self._relax(NO_LAYERS)[-1]
        usual = (free.amax(1) - free.amin(1)).mean().item() / np.ptp(cost.table)
        smallest, largest = self.span(cost)
        return np.minimum(np.multiply(MULTIPLES, usual), self.magnitude / (largest - smallest))

    def scores(self, options):
        """Scores of prefixes with all layers fixed: (n,) float64."""
        return self._relax(options)[-1][0].numpy()

    def child_bounds(self, options, penalties):
        """Lower bounds on score + penalty of all completions of each prefix's children: (penalties, 9, n).

        A penalty is a sum over layers of a term of the option, (9,) each.
        """
        relaxed, bounds = self._relax(options), []
        for penalty in penalties:
            fixed, found = penalty[options].sum(1), []
            for total, free in relaxed:
                free = free + penalty[:, None]
                found.append(free[0] + (total + fixed + free[1:].amin(1).sum(0)))
            bounds.append(torch.stack(found).amax(0))
        return torch.stack(bounds).numpy()

    def _relax(self, options):
        """Two bounds as sums: pairs of a constant (n,) and a term for each free layer's option (free layers, 9, n)."""
        n, fixed = options.shape
        rows = torch.from_numpy(np.column_stack([options + OPTIONS * np.arange(fixed), np.full(n, self.rows)]))
        sums = torch.nn.functional.embedding_bag(rows, self.terms, mode="sum").t().contiguous()
        pairs, (total,), inputs = sums.tensor_split([self.rows, self.rows + 1])
        total = total + pairs.gather(0, rows[:, :-1].t()).sum(0) / 2
        free = self.free[fixed] + pairs[OPTIONS * fixed :].view(self.depth - fixed, OPTIONS, n)
        if not self.weights:
            return [(total, free)]
        lowest, constant, slopes = self._relax_networks(inputs.view(len(inputs) // 32, 32, n), fixed)
        slopes = slopes.flatten(0, 1)
        lines = self.terms[OPTIONS * fixed : -1, self.rows + 1 :] @ slopes
        return [(total + lowest, free), (total + constant + (slopes * inputs).sum(0), free + lines.view(free.shape))]

    def _relax_networks(self, inputs, fixed):
        """Bound the networks' sum, of fixed inputs (k, 32, n) and the free layers' span.

        Returns (lowest (n,), d (n,), s (k, 32, n)): by intervals, and by lines d + s u.
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
