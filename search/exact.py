"""The best of all 317,297,380,491 architectures by a recipes.model.Model, exactly: branch and bound, in seconds.

For each depth, an architecture takes one of nine options (heads, MLP ratio) in each layer. The search takes the layers
in order of influence and extends prefixes, options of the first layers, by one layer at a time. It drops a prefix as
soon as a lower bound on the scores of all its completions exceeds the worst score on the list of the best found so
far, or its cheapest completion exceeds a budget. The list at the end is exact: nothing is sampled or assumed.

The bound. The score is q + sum w f(u): a quadratic form q in the options, and networks f whose 32 inputs u are sums
over layers, u = b + sum_l T[l, c_l], since nothing nonlinear lies between the encoding and the first relu.

1. Intervals. For a prefix, u lies between its fixed terms plus the sums of the free layers' lowest and highest. relu(x)
   lies between relu(low) and relu(high), and W h + b within W m + b -+ |W| r, with m and r the middle and the half-
   width of h's interval. This gives intervals of the inputs of all relus, and of the score.
2. Lines. Over low <= x <= high with low < 0 < high, relu(x) <= high (x - low) / (high - low), and relu(x) >= a x for
   any a from 0 to 1 (here 1 if high > -low, else 0); elsewhere relu is a line itself. From the output back, replace
   every relu by the line that bounds the score from below, according to the sign of its coefficient (CROWN, Zhang et
   al., arXiv:1811.00866). The result is linear in u, so in the options: f >= d + sum_l s T[l, c_l], and each free
   layer takes the option that is best for it alone.
3. The quadratic form. With the prefix fixed it is a constant, a term for each free layer's option, and pairs P[l, c,
   m, d] of free layers. A pair is at least the mean of min_d P[l, c, m, d] and min_c P[l, c, m, d], so half of either
   is added to the term of its layer. First, means of P over rows and columns are moved to the terms: less is left to
   be bounded.

The terms of 3 are added to those of 2 before the minimum over options. The larger of 1 + 3 and 2 + 3 is used:
intervals win while many layers are free, lines once few are. Being a sum over layers, it also bounds each child of the
prefix, one more layer fixed, and most children are dropped before they are bounded themselves. A budget B,
sum_l cost[c_l] <= B, allows adding a Lagrange multiplier p >= 0: score >= score + p (sum_l cost[c_l] - B), again one
term a layer; the search tries a few multipliers and takes the largest bound.

The Pareto front is found in one such search. The front found so far cuts the parameters into steps, from one of its
architectures to the next larger, and a prefix must beat it in one of them. A few multipliers p give lower bounds on
score + p parameters. Each step is tested with one of them, the best for its end with all layers free: a prefix cannot
beat score t before the end e of a step if its bound exceeds t + p e, and so only the largest t + p e of the steps that
it can reach counts for each multiplier.

Rounding. All is float64. M, the sum of the absolute values of all terms, bounds every number that occurs, so that
rounding moves a score or a bound by less than about 400 * 2**-53 M < MARGIN M. Scores are rounded to multiples of
TICK M; equal after rounding is a tie, which the smaller string wins (on the front the smaller architecture, then the
smaller string). A bound that is equal to the score to beat, within that margin, counts as a tie as well.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch

from common.processes import delayed_interrupt, one_thread
from recipes.model import merge_networks
from space import (
    ABSENT,
    DEPTHS,
    FEATURES,
    LAYERS,
    MIN_DEPTH,
    NUM_ARCHITECTURES,
    OPTION_FEATURES,
    OPTIONS,
    PARAMETERS,
    budgets,
    strings,
)

MARGIN, TICK = 2.0**-43, 2.0**-42
ROUNDING_TICKS = MARGIN / TICK + 1  # that rounding can move a bound and a score apart
# The sort key of an architecture, its depth and options as the digits of a number, sorts as its string does.
PLACES = OPTIONS ** np.arange(LAYERS, -1, -1)
GREEDY = 600  # prefixes extended at a time in the greedy first pass
FACTORS = (0.5, 1.0, 2.0)  # multiples of the multiplier that is best for a budget with all layers free
FRONT_MULTIPLIERS = 4
CELLS = 2**17  # numbers that the networks read for a block: few enough for the cache
START = np.empty((1, 0), np.int64)  # the prefix with all layers free


class SearchResult(NamedTuple):
    """The best architectures, best first, and the account of all others that proves it."""

    architectures: list  # strings
    scores: np.ndarray  # float64
    bounded: int  # architectures ruled out by a bound
    over_budget: int  # ruled out by a budget
    scored: int  # scored one by one
    left: int  # not examined
    gap: float  # no architecture beats the first by more than this; 0 where all are proven the best
    interrupted: bool  # by Ctrl-C


class ParetoFront(NamedTuple):
    """The best architecture for every number of parameters, from the smallest architecture to the best."""

    architectures: list  # strings
    scores: np.ndarray  # float64
    complete: bool  # not interrupted by Ctrl-C, which leaves the front up to where it is proven


class Multiplier(NamedTuple):
    """A Lagrange multiplier of a cost: value (cost(architecture) - reference) is added to the score."""

    cost: object  # space.Cost
    value: float
    reference: int  # a budget, or for the front the size of the smallest architecture


class DepthModel:
    """The score of the architectures of one depth, in sums over layers; layers stand in order of influence."""

    def __init__(self, model, depth):
        self.depth = depth
        # The features of the depth, and of every option in every layer (9 depth, 87).
        base, x = torch.zeros(len(FEATURES)).double(), torch.zeros(OPTIONS * depth, len(FEATURES)).double()
        base[depth - MIN_DEPTH] = 1
        layers = torch.kron(torch.eye(depth), torch.from_numpy(OPTION_FEATURES))
        x[:, len(DEPTHS) : len(DEPTHS) + layers.shape[1]] = layers
        self.constant, single, pair = self._quadratic(model.matrix, base, x)
        table = self._first_layer(model, base, x)
        order = self._influence(single, table).argsort(descending=True, stable=True)
        self.order = order.numpy()
        self._store(single[order], pair[order][:, :, order], table[:, order])

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

    def _first_layer(self, model, base, x):
        """The networks' inputs u as sums, `self.base` and a table (k, depth, 9, 32), and the later layers' weights."""
        self.weights, self.biases, self.base = [], [], base.new_zeros(0, 1, 32)
        if not model.networks:
            return base.new_zeros(0, self.depth, OPTIONS, 32)
        weights, biases = merge_networks(model.networks, dtype=torch.float64)
        scale = torch.tensor(model.weights).double()[:, None, None]
        self.weights, self.biases = [*weights[1:-1], weights[-1] * scale], [*biases[:-1], biases[-1] * scale]
        self.base = (base @ weights[0])[:, None]
        self.constant = self.constant + self.biases[-1].sum()
        return (x @ weights[0]).unflatten(1, (self.depth, OPTIONS))

    def _influence(self, single, table):
        """(depth,): roughly the variance of the score that a layer's option causes."""
        influence = single.var(1, correction=0)
        if self.weights:
            second, third, fourth = (weight.square() / 2 for weight in self.weights)  # a relu passes half
            influence = influence + (table.var(2, correction=0) @ (second @ third @ fourth)).sum((0, 2))
        return influence

    def _store(self, single, pair, table):
        """Keep the sums, and by the number of fixed layers what bounds the free ones."""
        self.single, self.pair = single.flatten(), pair.flatten(2).flatten(0, 1)
        self.table = table.flatten(1, 2).contiguous()  # (k, 9 depth, 32)
        lowest, low, high = pair.amin(3), table.amin(2), table.amax(2)
        self.pair_minimum = [lowest[f:, :, f:].sum(2) / 2 for f in range(self.depth)]  # half of it, for each option
        self.low, self.high = (
            [span[:, f:].sum(1, keepdim=True) for f in range(self.depth + 1)] for span in (low, high)
        )
        # M: at least the sum of the absolute values of all terms of any score.
        hidden = self.base.abs() + torch.maximum(low.abs(), high.abs()).sum(1, keepdim=True)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = hidden @ weight.abs() + bias.abs()
        terms = single.abs().amax(1).sum() + pair.abs().amax((1, 3)).sum()
        self.magnitude = (self.constant.abs() + terms + hidden.sum()).item()

    def completions(self, fixed):
        """Number of completions of a prefix."""
        return OPTIONS ** (self.depth - fixed)

    def minimum_cost(self, cost, prefixes):
        """Cost of the cheapest completion of each prefix: (n,) int64."""
        free = self.depth - prefixes.shape[1]
        return cost.base + cost.table[prefixes].sum(1) + free * cost.table.min()

    def maximum_cost(self, cost):
        """Cost of the most expensive architecture."""
        return cost.base + self.depth * cost.table.max()

    def sort_keys(self, prefixes):
        """Sort key of the completion of each prefix that sorts first among the strings: (n,) int64."""
        first = (self.depth - MIN_DEPTH) * PLACES[0]
        return first + prefixes @ PLACES[1:][self.order][: prefixes.shape[1]]

    def best_multipliers(self, cost, limits):
        """The multipliers that give the best bounds with all layers free, for each of some limits of the cost."""
        extra = torch.from_numpy(cost.table - cost.table.min()).double()
        free = self._terms(START)[-1][1]
        smallest, largest = self.minimum_cost(cost, START)[0], self.maximum_cost(cost)
        values = min((free.amax() - free.amin()) / extra.amax(), self.magnitude / (largest - smallest))
        values = max(float(values), 1e-300) * torch.logspace(-4, 0, 60, dtype=torch.float64)
        room = torch.tensor([min(limit, largest) - smallest for limit in limits]).double()
        bounds = (free + values[:, None, None] * extra).amin(2).sum(1)[:, None] - values[:, None] * room
        return values[bounds.argmax(0)].tolist()

    def scores(self, architectures):
        """Scores of prefixes with all layers fixed: (n,) float64."""
        return self._terms(architectures)[-1][0].numpy()

    def child_bounds(self, prefixes, budget_multipliers=(), front_multipliers=()):
        """Lower bounds on the scores of all completions of each prefix's children: (n, 9, 1 + front multipliers).

        First on the score of those within the budgets, then on the score with each of the front's multipliers added.
        """
        terms, columns = self._terms(prefixes), []
        for multiplier in (Multiplier(PARAMETERS, 0.0, 0), *budget_multipliers, *front_multipliers):
            cost, value, reference = multiplier
            extra = value * torch.from_numpy(cost.table - cost.table.min()).double()
            offset = value * torch.from_numpy(self.minimum_cost(cost, prefixes) - reference).double()
            bounds = []
            for total, free in terms:
                free = free + extra if value else free
                others = total + free[:, 1:].amin(2).sum(1) + offset
                bounds.append(others[:, None] + free[:, 0])
            columns.append(bounds[0] if len(bounds) == 1 else torch.maximum(*bounds))
        budgets = 1 + len(budget_multipliers)
        return torch.stack([torch.stack(columns[:budgets]).amax(0), *columns[budgets:]], 2).numpy()

    def _terms(self, prefixes):
        """Two bounds as sums: pairs of a constant (n,) and a term for each free layer's option (n, free layers, 9)."""
        n, fixed = prefixes.shape
        rows = torch.from_numpy(prefixes + OPTIONS * np.arange(fixed))
        pairs = torch.zeros(n, self.depth * OPTIONS, dtype=torch.float64)
        units = self.base.repeat(1, n, 1)
        for row in rows.t():
            pairs += self.pair[row]
            units += self.table[:, row]
        total = self.constant + self.single[rows].sum(1) + pairs.gather(1, rows).sum(1) / 2
        free = (self.single + pairs)[:, fixed * OPTIONS :]
        if fixed < self.depth:
            free = free + self.pair_minimum[fixed].flatten()
        terms = [(total, free)]
        if self.weights:
            lowest, lines, slopes = self._networks(units, fixed)
            through = total + lines + (slopes * units).sum((0, 2))
            for slope, table in zip(slopes, self.table[:, fixed * OPTIONS :], strict=True):
                free = torch.addmm(free, slope, table.t())
            terms = [(total + lowest, terms[0][1]), (through, free)]
        return [(total, free.view(n, self.depth - fixed, OPTIONS)) for total, free in terms]

    def _networks(self, units, fixed):
        """Bound the networks' sum without their last biases, of fixed inputs (k, n, 32) and the free layers' span.

        Returns (lowest (n,), d (n,), s (k, n, 32)): by intervals, and by lines d + s u.
        """
        spans = [(units + self.low[fixed], units + self.high[fixed])]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            low, high = (value.clamp(min=0) for value in spans[-1])
            middle, half = torch.baddbmm(bias, (low + high) / 2, weight), torch.bmm((high - low) / 2, weight.abs())
            spans.append((middle - half, middle + half))
        lowest = (spans.pop()[0] - self.biases[-1]).sum((0, 2))
        slopes = self.weights[-1].transpose(1, 2)
        lines = torch.zeros_like(lowest)
        for i in (2, 1, 0):
            low, high = spans[i][0].clamp(max=0), spans[i][1].clamp(min=0)
            upper = high / (high - low).clamp(min=1e-300)  # 0 and 1 where the sign is known
            negative = slopes.clamp(max=0) * upper
            lines -= (negative * low).sum((0, 2))
            slopes = negative + slopes.clamp(min=0) * (high > -low)
            if i:
                lines += (slopes * self.biases[i - 1]).sum((0, 2))
                slopes = torch.bmm(slopes, self.weights[i - 1].transpose(1, 2))
        return lowest, lines, slopes


class _Ranking:
    """The best architectures found so far, ordered by score in ticks, then by sort key."""

    def __init__(self, top=1):
        self.top, self.ticks, self.keys, self.sizes = top, np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, *found):
        """Add architectures by their ticks, sort keys and parameters, (n,) each."""
        rows = [np.append(*pair) for pair in zip((self.ticks, self.keys, self.sizes), found, strict=True)]
        keep = self._keep(*rows)
        self.ticks, self.keys, self.sizes = (row[keep] for row in rows)

    def _keep(self, ticks, keys, sizes):
        return np.lexsort((keys, ticks))[: self.top]

    def incumbents(self):
        """What architectures must beat, by steps of parameters: the steps' starts, and the incumbents' places."""
        return np.arange(0, len(self.ticks) == self.top), np.array([-1])[: len(self.ticks) == self.top]

    def loses_tie(self, incumbent, sizes, keys):
        """Whether architectures at least as large, with these sort keys at least, lose ties with incumbents."""
        return keys > self.keys[incumbent]


class _Front(_Ranking):
    """The Pareto front found so far, ordered by parameters, which makes the scores improve."""

    def _keep(self, ticks, keys, sizes):
        order = np.lexsort((keys, ticks, sizes))
        return order[ticks[order] < np.minimum.accumulate(np.append(math.inf, ticks[order]))[:-1]]

    def incumbents(self):
        return self.sizes, np.arange(len(self.sizes))

    def loses_tie(self, incumbent, sizes, keys):
        return (sizes > self.sizes[incumbent]) | super().loses_tie(incumbent, sizes, keys)


class _Branch:
    """The search in one depth: its open prefixes, and which of them cannot enter a record."""

    def __init__(self, model, depth, budgets, front):
        self.model, self.budgets = DepthModel(model, depth), budgets
        self.smallest, largest = self.model.minimum_cost(PARAMETERS, START)[0], self.model.maximum_cost(PARAMETERS)
        budget_multipliers, values = [], np.zeros(1)
        for cost, budget in budgets:
            value = self.model.best_multipliers(cost, [budget])[0]
            reference = min(budget, self.model.maximum_cost(cost))
            budget_multipliers += [Multiplier(cost, factor * value, reference) for factor in FACTORS]
        if front:
            ends = np.linspace(self.smallest, largest, 9)[[-2, 1]]  # for the smallest and the largest multiplier
            between = self.model.best_multipliers(PARAMETERS, ends)
            values = np.append(0, np.geomspace(*between, FRONT_MULTIPLIERS))
        self.multipliers = budget_multipliers, [Multiplier(PARAMETERS, value, self.smallest) for value in values[1:]]
        self.values, self.largest = values[:, None], largest
        self.start = self.model.child_bounds(START, *self.multipliers).min(1)  # bounds of all architectures
        # Blocks of prefixes, their bounds and shares of the work: the most promising first, the longest last.
        self.stack = [(START, self.start, np.ones(1))]

    def pop(self, size):
        """Take the first `size` prefixes of the last block, their bounds and shares."""
        block = self.stack.pop()
        if len(block[0]) > size:
            self.stack.append(tuple(row[size:] for row in block))
        return [row[:size] for row in block]

    def push(self, prefixes, bounds, share):
        """Add a block: first each multiplier's best, then each one's second, and so on."""
        order = bounds.argsort(0, kind="stable").argsort(0).min(1).argsort(kind="stable")
        self.stack.append((prefixes[order], bounds[order], np.full(len(order), share / len(order))))

    def extend(self, prefixes):
        """The children of prefixes, whether they are within the budgets, and their bounds."""
        children = np.column_stack([prefixes.repeat(OPTIONS, 0), np.tile(np.arange(OPTIONS), len(prefixes))])
        within = np.ones(len(children), bool)
        for cost, budget in self.budgets:
            within &= self.model.minimum_cost(cost, children) <= budget
        bounds = self.model.child_bounds(prefixes, *self.multipliers)
        return children, within, bounds.reshape(len(children), bounds.shape[2])

    def limits(self, record, tick, sizes):
        """Bounds that rule out scores as good as the incumbents' up to these sizes: (steps, multipliers), and columns.

        sizes: (steps,), one for each incumbent. The column of a step is that of the multiplier that tests it.
        """
        room = np.clip(sizes, self.smallest, self.largest) - float(self.smallest)
        _, incumbents = record.incumbents()
        columns = (self.start.T - self.values * room).argmax(0)
        return record.ticks[incumbents] * tick + self.values[columns, 0] * room, columns

    def hopeless(self, prefixes, bounds, record, tick):
        """Which prefixes have no completion that can enter the record: (n,) bool."""
        starts, incumbents = record.incumbents()
        if not len(starts):
            return np.zeros(len(prefixes), bool)
        limits, columns = self.limits(record, tick, np.append(starts[1:], self.largest + 1) - 1)
        reached = np.full((len(starts) + 1, len(self.values)), -math.inf)  # largest limits of this step and the next
        reached[np.arange(len(starts)), columns] = limits
        reached = np.maximum.accumulate(reached[::-1])[::-1]
        sizes, slack = self.model.minimum_cost(PARAMETERS, prefixes), ROUNDING_TICKS * tick
        step = np.searchsorted(starts, sizes, side="right") - 1  # the first step that a completion can be in
        lost = record.loses_tie(incumbents[step], sizes, self.model.sort_keys(prefixes))
        first = bounds[np.arange(len(step)), columns[step]] > limits[step] + np.where(lost, -slack, slack)
        return (step >= 0) & first & (bounds > reached[step + 1] + slack).all(1)

    def proven(self, record, tick):
        """Number of architectures of the front, from the first on, that no open prefix can replace."""
        starts, _ = record.incumbents()
        limits, columns = self.limits(record, tick, starts)
        count = len(starts)
        for prefixes, bounds, _ in self.stack:
            reached = self.model.minimum_cost(PARAMETERS, prefixes)[:, None] <= starts
            possible = (reached & (bounds[:, columns] <= limits + ROUNDING_TICKS * tick)).any(0)
            count = min(count, int(np.append(possible, True).argmax()))
        return count


class _Search:
    """Branch and bound over all depths, which fills a record, _Ranking or _Front."""

    def __init__(self, model, record, max_params, max_macs):
        self.record, limits = record, budgets(max_params, max_macs)
        self.branches = [_Branch(model, depth, limits, isinstance(record, _Front)) for depth in DEPTHS.values()]
        self.tick = TICK * (max(branch.model.magnitude for branch in self.branches) or 1.0)
        self.block = max(1, CELLS // (32 * max(1, len(model.networks))))
        self.bounded = self.over_budget = self.scored = 0

    def run(self, interrupted, progress):
        """Fill the record. After an interruption the branches hold the prefixes that were not examined."""
        # Greedy first pass: in every depth, extend the best few of each layer down to a first list to beat.
        for size, greedy in ((GREEDY, True), (self.block, False)):
            for branch in self.branches:
                for _ in range(branch.model.depth + 1) if greedy else itertools.count():
                    if not branch.stack or interrupted():
                        break
                    self._step(branch, size)
                    progress(self)

    def left(self):
        """Number of architectures neither ruled out nor scored."""
        return NUM_ARCHITECTURES - self.bounded - self.over_budget - self.scored

    def open_share(self):
        """The share of the work that is left, where a prefix's open children have equal parts of it: an estimate."""
        return sum(shares.sum() for branch in self.branches for _, _, shares in branch.stack) / len(self.branches)

    def open_bound(self):
        """Lower bound on the scores of all architectures that are left."""
        return min((bounds[:, 0].min() for branch in self.branches for _, bounds, _ in branch.stack), default=math.inf)

    def _step(self, branch, size):
        """Extend the first `size` open prefixes by a layer; complete ones are scored and go into the record."""
        prefixes, bounds, shares = branch.pop(size)
        prefixes, _ = self._promising(branch, prefixes, bounds)
        if prefixes.shape[1] == branch.model.depth:
            ticks = np.round(branch.model.scores(prefixes) / self.tick)
            sizes = branch.model.minimum_cost(PARAMETERS, prefixes)
            self.record.add(ticks, branch.model.sort_keys(prefixes), sizes)
            self.scored += len(prefixes)
        elif len(prefixes):
            children, within, bounds = branch.extend(prefixes)
            self.over_budget += int((~within).sum()) * branch.model.completions(children.shape[1])
            children, bounds = self._promising(branch, children[within], bounds[within])
            if len(children):
                branch.push(children, bounds, shares.sum())

    def _promising(self, branch, prefixes, bounds):
        """Drop prefixes with no completion that can enter the record; return the others and their bounds."""
        hopeless = branch.hopeless(prefixes, bounds, self.record, self.tick)
        self.bounded += int(hopeless.sum()) * branch.model.completions(prefixes.shape[1])
        return prefixes[~hopeless], bounds[~hopeless]

    def found(self):
        """Strings and scores of the architectures of the record."""
        keys = self.record.keys
        options, depths = keys[:, None] // PLACES[1:] % OPTIONS, keys // PLACES[0] + MIN_DEPTH
        options[np.arange(LAYERS) >= depths[:, None]] = ABSENT
        scores = np.empty(len(keys))
        for branch in self.branches:
            some = depths == branch.model.depth
            scores[some] = branch.model.scores(options[some][:, branch.model.order])
        return strings(options), scores


@one_thread()
@torch.inference_mode()
def best(model, top=10, *, max_params=None, max_macs=None, progress=None):
    """Find the `top` architectures with the smallest scores.

    model: a recipes.model.Model. max_params, max_macs: budgets of parameters and multiply-accumulates. progress: called
    after every block as progress(share of the architectures done, best score, best score that is left), the best NaN
    until one is found. Ctrl-C ends the search with what it found, unproven. Memory does not grow with time. Returns
    SearchResult; raises InputError where nothing is within the budgets.
    """

    def report(search):
        if progress:
            found = search.tick * record.ticks[0] if len(record.ticks) else math.nan
            progress(1 - search.left() / NUM_ARCHITECTURES, found, search.open_bound())

    record = _Ranking(top)
    with delayed_interrupt() as interrupted:
        search = _Search(model, record, max_params, max_macs)
        search.run(interrupted, report)
        left, gap = search.left(), 0.0
        if left:
            first = search.tick * record.ticks[0] if len(record.ticks) else math.inf
            gap = max(0.0, float(first - search.open_bound()))
        counts = search.bounded, search.over_budget, search.scored, left
        return SearchResult(*search.found(), *counts, gap, bool(left))


@one_thread()
@torch.inference_mode()
def pareto(model, *, max_params=None, max_macs=None, progress=None):
    """Find the Pareto front of parameters and score.

    Every architecture that is not on the front has one on it with at most as many parameters and at least as good a
    score. Among equal scores the front has the smallest architecture, then the smallest string. Arguments as for
    `best`; progress: called as progress(share of the work done, an estimate). Ctrl-C ends the search with the
    front up to where it is proven. Returns ParetoFront; raises InputError.
    """

    def report(search):
        if progress:
            progress(1 - search.open_share())

    with delayed_interrupt() as interrupted:
        search = _Search(model, _Front(), max_params, max_macs)
        search.run(interrupted, report)
        proven = min(branch.proven(search.record, search.tick) for branch in search.branches)
        architectures, scores = search.found()
        return ParetoFront(architectures[:proven], scores[:proven], not search.left())
