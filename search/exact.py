"""The best of all 317,297,380,491 architectures by a scoring.Model, exactly: branch and bound, in seconds.

For each depth, an architecture is a choice from nine (heads, MLP ratio) in each layer. The search takes the layers in
order of influence and extends prefixes, choices of the first layers, by one layer at a time. It drops a prefix as
soon as a lower bound on the scores of all its completions exceeds the worst score on the list of the best found so
far, or its cheapest completion exceeds a budget. The list at the end is exact: nothing is sampled or assumed.

The bound. The score is q + sum w f(u): a quadratic form q in the choices, and networks f whose 32 inputs u are sums
over layers, u = b + sum_l T[l, c_l], since nothing nonlinear lies between the encoding and the first relu.

1. Intervals. For a prefix, u lies between its fixed terms plus the sums of the free layers' least and largest. relu(x)
   lies between relu(low) and relu(high), and W h + b within W m + b -+ |W| r, with m and r the middle and the half-
   width of h's interval. This gives intervals of the inputs of all relus, and of the score.
2. Lines. Over low <= x <= high with low < 0 < high, relu(x) <= high (x - low) / (high - low), and relu(x) >= a x for
   any a from 0 to 1 (here 1 if high > -low, else 0); elsewhere relu is a line itself. From the output back, replace
   every relu by the line that bounds the score from below, according to the sign of its coefficient (CROWN, Zhang et
   al., arXiv:1811.00866). The result is linear in u, so in the choices: f >= d + sum_l s T[l, c_l], and each free
   layer takes the choice that is best for it alone.
3. The quadratic form. With the prefix fixed it is a constant, a term for each free layer's choice, and pairs P[l, c,
   m, d] of free layers. A pair is at least the mean of min_d P[l, c, m, d] and min_c P[l, c, m, d], so half of either
   is added to the term of its layer. First, means of P over rows and columns are moved to the terms: less is left to
   be bounded.

The terms of 3 are added to those of 2 before the minimum over choices. The larger of 1 + 3 and 2 + 3 is used:
intervals win while many layers are free, lines once few are. With all layers fixed the bound is the score. A budget
B, sum_l cost[c_l] <= B, allows adding a price p >= 0: score >= score + p (sum_l cost[c_l] - B), again one term a
layer; the search tries a few prices and takes the largest bound.

Rounding. All is float64. M, the sum of the absolute values of all terms, bounds every number that occurs, so that
rounding moves a score or a bound by less than about 400 * 2**-53 M < MARGIN M. Scores that differ by less than
TICK M count as equal; among equal scores the smaller string is better. A prefix whose bound is equal to the worst
score on the list within that margin goes on only if it can have the smaller string.
"""

import contextlib
import copy
import itertools
import math
import signal
import threading
from typing import NamedTuple

import numpy as np
import torch
from scoring import merge_networks

from dataset import DEPTHS, LAYERS
from network import one_thread
from space import CHOICES, MACS, NUM_RATIOS, PARAMETERS, check_budgets, strings

MARGIN, TICK = 2.0**-43, 2.0**-42
SLACK = MARGIN / TICK + 1  # ticks that rounding can move a bound and a score apart
# The code of an architecture, its depth and choices as the digits of a number, sorts as its string does.
PLACES = CHOICES ** np.arange(LAYERS, -1, -1)
DIVE = 100  # prefixes extended at a time in the first dive
PRICES = (0.5, 1.0, 2.0)  # multiples of the price that is best with all layers free
CELLS = 2**17  # numbers that the networks read for a block: few enough for the cache


class Found(NamedTuple):
    """The best architectures, best first, and the account of all others that proves it."""

    architectures: list  # strings
    scores: np.ndarray  # float64
    bounded: int  # architectures ruled out by a bound
    over_budget: int  # ruled out by a budget
    scored: int  # scored one by one
    left: int  # not examined
    gap: float  # no architecture beats the first by more than this; 0 where all are proven the best
    interrupted: bool  # by Ctrl-C


class _Depth:
    """The score of the architectures of one depth, in sums over layers; layers stand in order of influence."""

    def __init__(self, model, depth, allowed, limits):
        self.depth, features = depth, len(model.matrix)
        layer, choice = torch.arange(depth).repeat_interleave(CHOICES), torch.arange(CHOICES).repeat(depth)
        x, base = torch.zeros(depth * CHOICES, features).double(), torch.zeros(features).double()
        first, rows = len(DEPTHS) + 7 * layer, torch.arange(depth * CHOICES)  # as dataset.FEATURES: 3 + 3 + 1 a layer
        x[rows, first + choice // NUM_RATIOS] = x[rows, first + 3 + choice % NUM_RATIOS] = x[rows, first + 6] = 1
        base[depth - min(DEPTHS.values())] = 1
        mask = torch.from_numpy(allowed[:depth].copy())
        constant, single, pair = self._quadratic(model.matrix, base, x, mask)
        self.weights, self.biases, table = [], [], single.new_zeros(0, depth, CHOICES, 32)
        self.base = single.new_zeros(0, 1, 32)
        if model.networks:
            weights, biases = merge_networks(model.networks, dtype=torch.float64)
            scale = torch.tensor(model.weights).double()[:, None, None]
            self.weights, self.biases = [*weights[1:-1], weights[-1] * scale], [*biases[:-1], biases[-1] * scale]
            self.base = (base @ weights[0])[:, None]
            table = (x @ weights[0]).unflatten(1, (depth, CHOICES))
        self.constant = constant + sum(bias.sum() for bias in self.biases[-1:])
        order = self._influence(single, table, mask).argsort(descending=True, stable=True)
        self.order, mask, forbidden = order.numpy(), mask[order], ~mask[order]
        single, pair, table = single[order], pair[order][:, :, order], table[:, order]
        self.allowed, self.single, self.pair = mask.numpy(), single.flatten(), pair.flatten(2).flatten(0, 1)
        self.table = table.flatten(1, 2).contiguous()  # (k, 9 depth, 32)
        lowest = pair.masked_fill(forbidden, math.inf).amin(3)  # (depth, 9, depth)
        low = table.masked_fill(forbidden[..., None], math.inf).amin(2)
        high = table.masked_fill(forbidden[..., None], -math.inf).amax(2)
        # By the number of fixed layers: half the least of the pairs among the free, and the span of the free inputs.
        self.slack = [(lowest[f:, :, f:].sum(2) / 2).masked_fill(forbidden[f:], math.inf) for f in range(depth)]
        self.low, self.high = ([span[:, f:].sum(1, keepdim=True) for f in range(depth + 1)] for span in (low, high))
        self.magnitude = self._magnitude(single, pair, torch.maximum(low.abs(), high.abs()).sum(1, keepdim=True))
        self.completions = [math.prod(self.allowed[f:].sum(1).tolist()) for f in range(depth + 1)]
        self.prices = [(cost, most, *self._prices(cost, most)) for cost, _, most in limits]

    @staticmethod
    def _quadratic(matrix, base, x, mask):
        """x A x as constant + sum_l single[l, c_l] + sum_{l < m} pair[l, c_l, m, c_m], pairs of mean 0."""
        depth, symmetric = len(mask), matrix + matrix.t()
        single = (x @ symmetric @ base + (x @ matrix * x).sum(1)).view(depth, CHOICES)
        pair = (x @ symmetric @ x.t()).view(depth, CHOICES, depth, CHOICES)
        pair[torch.arange(depth), :, torch.arange(depth)] = 0
        weight = mask.double() / mask.sum(1, keepdim=True)
        mean = torch.einsum("lcmd,md->lcm", pair, weight)
        grand = torch.einsum("lcm,lc->lm", mean, weight)
        pair = pair - mean[..., None] - mean.permute(2, 0, 1)[:, None] + grand[:, None, :, None]
        return base @ matrix @ base, single + (mean - grand[:, None] / 2).sum(2), pair

    def _influence(self, single, table, mask):
        """(depth,): roughly the variance of the score that a layer's choice causes."""
        influence = np.nanvar(single.masked_fill(~mask, math.nan), 1)
        if self.weights:
            second, third, fourth = (weight.square() / 2 for weight in self.weights)  # a relu passes half
            inputs = np.nanvar(table.masked_fill(~mask[..., None], math.nan), 2)  # (k, depth, 32)
            influence = influence + (inputs @ (second @ third @ fourth).numpy()).sum((0, 2))
        return torch.from_numpy(influence)

    def _magnitude(self, single, pair, span):
        """M: at least the sum of the absolute values of all terms of any score."""
        hidden = self.base.abs() + span
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = hidden @ weight.abs() + bias.abs()
        return (self.constant.abs() + single.abs().amax(1).sum() + pair.abs().amax((1, 3)).sum() + hidden.sum()).item()

    def size(self, cost, prefixes, most=False):
        """Cost of the cheapest completion of each prefix, or of the most expensive: (n,) int64."""
        free = np.where(self.allowed, cost.table, -1 if most else 2**62)[prefixes.shape[1] :]
        return cost.base + cost.table[prefixes].sum(1) + (free.max(1) if most else free.min(1)).sum()

    def codes(self, prefixes):
        """Code of the completion of each prefix that sorts first among the strings: (n,) int64."""
        places, fixed = PLACES[1:][self.order], prefixes.shape[1]
        first = (self.depth - min(DEPTHS.values())) * PLACES[0] + (self.allowed.argmax(1) * places)[fixed:].sum()
        return prefixes @ places[:fixed] + first

    def _prices(self, cost, most):
        """Extra cost of each choice over the cheapest of its layer, (depth, 9), and the prices to try for a budget.

        The prices are PRICES times the one that gives the best bound with all layers free.
        """
        extra = np.where(self.allowed, cost.table, 2**62)
        extra = torch.from_numpy(np.where(self.allowed, cost.table - extra.min(1, keepdims=True), 0)).double()
        start = np.empty((1, 0), np.int64)
        free = self._terms(start)[-1][1]
        spread = free.masked_fill(free == math.inf, -math.inf).amax() - free.amin()
        prices = spread / extra.amax().clamp(min=1) * torch.logspace(-4, 0, 60)
        values = (free + prices[:, None, None] * extra).amin(2).sum(1) - prices * (most - self.size(cost, start)[0])
        return extra, [factor * prices[values.argmax()].item() for factor in PRICES]

    def bound(self, prefixes):
        """Lower bounds on the scores of all completions within the budgets, (n,) float64; the score if complete."""
        terms, fixed = self._terms(prefixes), prefixes.shape[1]
        if fixed == self.depth:
            return terms[-1][0].numpy()
        bounds = [total + free.amin(2).sum(1) for total, free in terms]
        for cost, most, extra, prices in self.prices:
            rest = torch.from_numpy(most - self.size(cost, prefixes)).double()  # a float times integers is float32
            for price in prices:
                priced = price * extra[fixed:]
                bounds += [total + (free + priced).amin(2).sum(1) - price * rest for total, free in terms]
        return torch.stack(bounds).amax(0).numpy()

    def _terms(self, prefixes):
        """Two bounds as sums: pairs of a constant (n,) and a term for each free layer's choice (n, free layers, 9)."""
        n, fixed = prefixes.shape
        rows = torch.from_numpy(prefixes + CHOICES * np.arange(fixed))
        pairs = torch.zeros(n, self.depth * CHOICES, dtype=torch.float64)
        units = self.base.repeat(1, n, 1)
        for row in rows.t():
            pairs += self.pair[row]
            units += self.table[:, row]
        total = self.constant + self.single[rows].sum(1) + pairs.gather(1, rows).sum(1) / 2
        free = (self.single + pairs)[:, fixed * CHOICES :]
        if fixed < self.depth:
            free = free + self.slack[fixed].flatten()
        terms = [(total, free)]
        if self.weights:
            least, lines, slopes = self._networks(units, fixed)
            through = total + lines + (slopes * units).sum((0, 2))
            for slope, table in zip(slopes, self.table[:, fixed * CHOICES :], strict=True):
                free = torch.addmm(free, slope, table.t())
            terms = [(total + least, terms[0][1]), (through, free)]
        return [(total, free.view(n, self.depth - fixed, CHOICES)) for total, free in terms]

    def _networks(self, units, fixed):
        """Bound the networks' sum without their last biases, of fixed inputs (k, n, 32) and the free layers' span.

        Returns (least (n,), d (n,), s (k, n, 32)): by intervals, and by lines d + s u.
        """
        spans = [(units + self.low[fixed], units + self.high[fixed])]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            low, high = (value.clamp(min=0) for value in spans[-1])
            middle, half = torch.baddbmm(bias, (low + high) / 2, weight), torch.bmm((high - low) / 2, weight.abs())
            spans.append((middle - half, middle + half))
        least = (spans.pop()[0] - self.biases[-1]).sum((0, 2))
        slopes = self.weights[-1].transpose(1, 2)
        lines = torch.zeros_like(least)
        for i in (2, 1, 0):
            low, high = spans[i][0].clamp(max=0), spans[i][1].clamp(min=0)
            upper = high / (high - low).clamp(min=1e-300)  # 0 and 1 where the sign is known
            negative = slopes.clamp(max=0) * upper
            lines -= (negative * low).sum((0, 2))
            slopes = negative + slopes.clamp(min=0) * (high > -low)
            if i:
                lines += (slopes * self.biases[i - 1]).sum((0, 2))
                slopes = torch.bmm(slopes, self.weights[i - 1].transpose(1, 2))
        return least, lines, slopes


class _Best:
    """The best architectures found so far, ordered by score in ticks, then by code."""

    def __init__(self, top=1):
        self.top, self.ticks, self.codes, self.sizes = top, np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)

    def rival(self, sizes):
        """Ticks, code and parameters that prefixes must beat; sizes: (n,) parameters of their smallest completions."""
        full = len(self.ticks) == self.top
        return (self.ticks[-1], self.codes[-1], 2**62) if full else (math.inf, 0, 0)

    def add(self, *found):
        """Add architectures by their ticks, codes and parameters, (n,) each. The old arrays stay as they are."""
        rows = [np.append(*pair) for pair in zip((self.ticks, self.codes, self.sizes), found, strict=True)]
        keep = self._keep(*rows)
        self.ticks, self.codes, self.sizes = (row[keep] for row in rows)

    def _keep(self, ticks, codes, sizes):
        return np.lexsort((codes, ticks))[: self.top]


class _Front(_Best):
    """The Pareto front found so far, ordered by parameters, which makes the scores improve."""

    def rival(self, sizes):
        last = np.searchsorted(self.sizes, sizes, side="right") - 1  # the best among those as small; -1: there is none
        return [np.append(row, end)[last] for row, end in ((self.ticks, math.inf), (self.codes, 0), (self.sizes, 0))]

    def _keep(self, ticks, codes, sizes):
        order = np.lexsort((codes, ticks, sizes))
        return order[ticks[order] < np.minimum.accumulate(np.append(math.inf, ticks[order]))[:-1]]


class _Search:
    """Branch and bound over the given depths, which fills a record, _Best or _Front."""

    def __init__(self, model, largest, allowed, depths, limits):
        """limits: (Cost, least, most) each; a most of None is no limit."""
        self.sign = -1 if largest else 1
        signed = model._replace(matrix=self.sign * model.matrix, weights=[self.sign * w for w in model.weights])
        allowed = np.ones((LAYERS, CHOICES), bool) if allowed is None else np.asarray(allowed, bool)
        self.limits = [(cost, least, min(most, 2**60)) for cost, least, most in limits if most is not None]
        self.depths = [_Depth(signed, depth, allowed, self.limits) for depth in depths or DEPTHS.values()]
        self.magnitude = max(depth.magnitude for depth in self.depths) or 1.0
        self.tick = TICK * self.magnitude
        self.block = max(1, CELLS // (32 * CHOICES * max(1, len(model.networks))))
        self.total = sum(depth.completions[0] for depth in self.depths)
        self.bounded = self.over_budget = self.scored = 0
        # Of each depth (prefixes, their bounds, ascending), the longest prefixes last.
        start = np.empty((1, 0), np.int64)
        self.stacks = [[(start, depth.bound(start))] for depth in self.depths]

    def run(self, record, interrupted, progress=None):
        """Fill the record. After an interruption the stacks hold the prefixes that were not examined."""
        # First dive: in every depth, extend the best few of each layer down to a first list to beat. Then all the rest.
        for size, diving in ((DIVE, True), (self.block, False)):
            for depth, stack in zip(self.depths, self.stacks, strict=True):
                for _ in range(depth.depth) if diving else itertools.count():
                    if not stack or interrupted():
                        break
                    self._step(depth, stack, size, record)
                    if progress:
                        best = self.sign * self.tick * record.ticks[0] if len(record.ticks) else math.nan
                        progress((self.total - self.left()) / self.total, best, self.sign * self.least())

    def left(self):
        """Number of architectures neither ruled out nor scored."""
        return self.total - self.bounded - self.over_budget - self.scored

    def least(self):
        """Least bound of the prefixes on the stacks."""
        return min((bounds[0] for stack in self.stacks for _, bounds in stack), default=math.inf)

    def _step(self, depth, stack, size, record):
        """Extend the first `size` prefixes on the stack by a layer; complete ones are scored and go into the record."""
        prefixes, bounds = stack.pop()
        if len(prefixes) > size:
            stack.append((prefixes[size:], bounds[size:]))
        prefixes, _ = self._promising(depth, prefixes[:size], bounds[:size], record)
        children, bounds = self._promising(depth, *self._extend(depth, prefixes), record)
        if children.shape[1] == depth.depth:
            self.scored += len(children)
            record.add(np.round(bounds / self.tick), depth.codes(children), depth.size(PARAMETERS, children))
        elif len(children):
            order = bounds.argsort(kind="stable")
            stack.append((children[order], bounds[order]))

    def _extend(self, depth, prefixes):
        """Add a layer to the prefixes: those within the budgets, and their bounds."""
        choices = np.flatnonzero(depth.allowed[prefixes.shape[1]])
        children = np.column_stack([prefixes.repeat(len(choices), 0), np.tile(choices, len(prefixes))])
        within = np.ones(len(children), bool)
        for cost, least, most in self.limits:
            within &= (depth.size(cost, children) <= most) & (depth.size(cost, children, most=True) >= least)
        self.over_budget += int((~within).sum()) * depth.completions[children.shape[1]]
        return children[within], depth.bound(children[within])

    def _promising(self, depth, prefixes, bounds, record):
        """Drop prefixes with no completion that can enter the record; return the others and their bounds."""
        sizes, codes, ticks = depth.size(PARAMETERS, prefixes), depth.codes(prefixes), bounds / self.tick
        for cost, least, _ in self.limits:
            sizes = np.maximum(sizes, least) if cost is PARAMETERS else sizes
        rival, code, size = record.rival(sizes)
        hopeless = (ticks > rival + SLACK) | (ticks >= rival - SLACK) & ((sizes > size) | (codes > code))
        self.bounded += int(hopeless.sum()) * depth.completions[prefixes.shape[1]]
        return prefixes[~hopeless], bounds[~hopeless]

    def scores(self, codes):
        """Strings and scores of the architectures with these codes."""
        choices = codes[:, None] // PLACES[1:] % CHOICES
        depths = codes // PLACES[0] + min(DEPTHS.values())
        choices[np.arange(LAYERS) >= depths[:, None]] = -1
        scores = np.empty(len(codes))
        for depth in self.depths:
            some = depths == depth.depth
            scores[some] = self.sign * depth.bound(choices[some][:, depth.order])
        return strings(choices), scores


@contextlib.contextmanager
def interruption():
    """Delay Ctrl-C to the end of a step: yields a function that returns True once it was pressed."""
    event = threading.Event()

    def note(*arguments):
        if event.is_set() and callable(before):
            before(*arguments)  # asked again: do not wait for a slow step
        event.set()

    in_main = threading.current_thread() is threading.main_thread()  # signals are the main thread's
    before = signal.signal(signal.SIGINT, note) if in_main else None
    try:
        yield event.is_set
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


@one_thread()
@torch.inference_mode()
def best(model, top=10, max_params=None, max_macs=None, largest=False, progress=None, allowed=None, depths=None):
    """Find the `top` architectures with the smallest scores, or the largest.

    model: a scoring.Model. max_params, max_macs: budgets of parameters and multiply-accumulates. progress: called
    after every block as progress(share of the architectures done, best score, best score that is left), the best NaN
    until one is found. allowed: (12, 9) bool, the choices that each layer may take, 3 * heads code + MLP ratio code,
    codes counted from 0; depths: those to search. Ctrl-C ends the search with what it found, unproven. Memory does not
    grow with time. Returns Found; raises BudgetError where nothing is within the budgets.
    """
    check_budgets(max_params, max_macs)
    with interruption() as interrupted:
        search = _Search(model, largest, allowed, depths, [(PARAMETERS, 0, max_params), (MACS, 0, max_macs)])
        record = _Best(top)
        search.run(record, interrupted, progress)
        gap = 0.0
        if search.left():
            gap = max(0.0, float(search.tick * record.ticks[0] - search.least())) if len(record.ticks) else math.inf
        counts = search.bounded, search.over_budget, search.scored, search.left()
        return Found(*search.scores(record.codes), *counts, gap, bool(search.left()))


@one_thread()
@torch.inference_mode()
def pareto(
    model, max_params=None, max_macs=None, largest=False, progress=None, allowed=None, depths=None, window=1_000_000
):
    """Find the Pareto front of parameters and score: (architectures, scores, whether it is complete).

    Every architecture that is not on the front has one on it with at most as many parameters and at least as good a
    score. The search goes from the smallest architecture to the best, `window` parameters at a time; prefixes must beat
    the front of all smaller ones. Among equal scores the front has the smallest architecture, then the smallest string.
    Other arguments as for `best`; progress: called as progress(share done). Ctrl-C ends the search with the front up to
    the window it was in.
    """
    check_budgets(max_params, max_macs)
    limits, front, record = [(PARAMETERS, 0, max_params), (MACS, 0, max_macs)], _Front(), _Best()
    with interruption() as interrupted:
        full = _Search(model, largest, allowed, depths, limits)
        full.run(record, interrupted)
        start = min(depth.size(PARAMETERS, np.empty((1, 0), int))[0] for depth in full.depths)
        end = record.sizes[0] if len(record.sizes) else start  # nothing larger is on the front
        for low in range(start, end + 1, window):
            found, high = copy.copy(front), min(end, low + window - 1)
            search = _Search(model, largest, allowed, depths, [(PARAMETERS, low, high), *limits[1:]])
            search.run(found, interrupted)
            if interrupted():
                break
            front = found
            if progress:
                progress((high + 1 - start) / (end + 1 - start))
        return (*full.scores(front.codes), not interrupted())
