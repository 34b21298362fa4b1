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

The Pareto front is found in one such search. The front found so far cuts the parameters into steps, from one of its
architectures to the next larger one. A completion must beat the architecture at the start of its step, and the step's
end is a budget for it: a prefix goes on if it can do so in any step. For speed neighbouring steps are tested together,
with the largest t + p B of the group.

Rounding. All is float64. M, the sum of the absolute values of all terms, bounds every sum above but for small factors,
and multipliers are capped so that p (largest - smallest cost) <= M. Counting each rounding with the largest sum that it
can occur in, those of k networks move a bound or a score by less than (600 + 200 k) 2**-53 M: 130 in the intervals,
280 + 193 k in the lines, the rest in 3 and the sums over layers. So the two compare within a margin of
(4 + k) 2**-44 M = (2048 + 512 k) 2**-53 M. Scores are rounded to multiples of a tick of two margins. Equal after
rounding is a tie, which the smaller string wins (on the front the smaller architecture, then the smaller string); so is
a bound that equals the score to beat, within a tick and a margin.
"""

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
    budgets,
    strings,
)

# The sort key of an architecture, its depth and options as the digits of a number, sorts as its string does.
PLACES = OPTIONS ** np.arange(LAYERS, -1, -1)
GREEDY = 200  # prefixes extended at a time in the greedy first pass
MULTIPLES = (0.5, 1.0, 1.5, 2.5)  # of the usual multiplier of a cost: those that are tried
GROUPS = 32  # of steps of the front, at most
BLOCK = 2**12  # prefixes extended at a time by a model without networks: few enough for the cache
SLANTS = (1, 2, 2)  # by layer: the line below relu(x) is x where high > -slant low, else 0
NO_LAYERS = np.empty((1, 0), np.int64)  # options of the prefix that fixes none


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


class _Block(NamedTuple):
    """n open prefixes of one depth with the same number of fixed layers."""

    fixed: int
    keys: np.ndarray  # (n,) sort key of the completion that sorts first among the strings
    costs: np.ndarray  # (costs, n) of the cheapest completion, parameters first
    bounds: np.ndarray  # (penalties, n) of all completions; the first penalty is 0
    work: float  # in each of them: an estimate

    def select(self, which):
        """Some of the prefixes."""
        return self._replace(keys=self.keys[which], costs=self.costs[:, which], bounds=self.bounds[:, which])


class _Best:
    """The best architectures found so far: columns of `found`, ordered by score, then by sort key."""

    def __init__(self, top=None):
        self.top, self.tick = top, None  # of scores: set by the search
        self.found = np.empty((4, 0))  # scores in ticks, sort keys, parameters, scores

    def add(self, scores, keys, sizes):
        """Add architectures by their scores, sort keys and parameters, (n,) each."""
        found = np.hstack([self.found, [np.round(scores / self.tick), keys, sizes, scores]])
        self.found = found[:, self._chosen(*found[:3])]

    def _chosen(self, ticks, keys, sizes):
        return np.lexsort((keys, ticks))[: self.top]

    def steps(self):
        """What a prefix must beat, by steps of parameters: ticks, sort key, parameters, and the end of the step."""
        ticks, keys, *_ = self.found[:, -1] if self.found.shape[1] == self.top else (math.inf, 0)
        return np.array([[ticks], [keys], [math.inf], [math.inf]])

    def result(self, n=None):
        """Strings and scores of the first n."""
        keys = self.found[1, :n, None].astype(np.int64)
        options, depths = keys // PLACES[1:] % OPTIONS, keys // PLACES[0] + MIN_DEPTH
        return strings(np.where(np.arange(LAYERS) < depths, options, ABSENT)), self.found[3, :n]


class _Front(_Best):
    """The Pareto front found so far, ordered by parameters, which makes the scores improve."""

    def _chosen(self, ticks, keys, sizes):
        order = np.lexsort((keys, ticks, sizes))
        return order[ticks[order] < np.minimum.accumulate(np.append(math.inf, ticks[order]))[:-1]]

    def steps(self):
        # Nothing is found yet that is smaller than the first of the front.
        return np.vstack([np.hstack([[[math.inf], [0], [0]], self.found[:3]]), np.append(self.found[2] - 1, math.inf)])


class _Branch:
    """The search in one depth: its open prefixes, and which of them can enter a record."""

    def __init__(self, model, depth, limits, front):
        """limits: budgets, [(Cost, largest value)], the first of the parameters."""
        self.model = DepthModel(model, depth)
        smallest, self.largest = np.array([self.model.span(cost) for cost, _ in limits]).T
        self.extra = np.array([cost.table - cost.table.min() for cost, _ in limits])  # over the cheapest option
        # By penalty: the multiplier, the largest cost less the smallest, and what the ends of a front's steps start at.
        self.penalties, columns = [torch.zeros(OPTIONS).double()], [(0.0, 0, -math.inf)]
        for i, (cost, limit) in enumerate(limits):
            if front or limit < self.largest[i]:
                self.largest[i] = min(limit, self.largest[i])
                for multiplier in self.model.multipliers(cost):
                    self.penalties.append(torch.from_numpy(multiplier * self.extra[i]))
                    columns.append((multiplier, self.largest[i] - smallest[i], -math.inf if i else smallest[0]))
        multipliers, room, _ = self.columns = np.array(columns).T[..., None]
        self.allowance = multipliers * room  # what they add to a score within the budgets, at most
        self.overall = self.model.child_bounds(NO_LAYERS, self.penalties).min(1)  # bounds of all architectures
        # Blocks of open prefixes, the longest last.
        self.stack = [_Block(0, np.array([(depth - MIN_DEPTH) * PLACES[0]]), smallest[:, None], self.overall, 1.0)]

    def work(self):
        """What is left to do: an estimate."""
        return sum(len(block.keys) * block.work for block in self.stack)

    def pop(self, size, greedy):
        """Take `size` prefixes of the last block: the first, or every so many, so that all parts are alike."""
        block = self.stack.pop()
        place = np.arange(len(block.keys))
        taken = place < size if greedy else place % math.ceil(len(place) / size) == 0
        if not taken.all():
            self.stack.append(block.select(~taken))
        return block.select(taken)

    def options(self, block):
        """Options of the fixed layers: (n, fixed)."""
        return block.keys[:, None] // self.model.places[: block.fixed] % OPTIONS

    def children(self, block):
        """All prefixes with one more layer fixed."""
        keys = block.keys + self.model.places[block.fixed] * np.arange(OPTIONS)[:, None]
        costs = block.costs[:, None] + self.extra[..., None]
        bounds = self.model.child_bounds(self.options(block), self.penalties)
        return _Block(block.fixed + 1, keys.ravel(), *(rows.reshape(len(rows), -1) for rows in (costs, bounds)), 0)

    def possible(self, block, record, groups=GROUPS):
        """Which groups of the record's steps each prefix may have a completion in that enters it: (groups, n) bool."""
        steps = record.steps()
        multipliers, room, origin = self.columns
        beaten = steps[0] * record.tick + multipliers * np.minimum(room, steps[3] - origin)
        first = np.unique(np.linspace(0, steps.shape[1], groups + 1).astype(int)[:-1])
        keys, sizes, ends, *beaten = np.maximum.reduceat(np.vstack([steps[1:], beaten]), first, 1)[..., None]
        slack = 1.5 * record.tick  # a tick and a margin
        wins_ties = (block.keys <= keys) & (block.costs[0] <= sizes)
        possible = (block.costs[0] <= ends) & (wins_ties | (block.bounds[0] <= beaten[0] - slack))
        for bound, most in zip(block.bounds, beaten, strict=True):
            possible &= bound <= most + slack
        return possible


class _Search:
    """Branch and bound over all depths, which fills a record."""

    def __init__(self, model, record, max_params, max_macs):
        self.record, limits = record, budgets(math.inf if max_params is None else max_params, max_macs)
        self.branches = [_Branch(model, depth, limits, isinstance(record, _Front)) for depth in DEPTHS.values()]
        magnitude = max(branch.model.magnitude for branch in self.branches) or 1.0
        record.tick = (4 + len(model.networks)) * 2.0**-43 * magnitude
        self.size = max(1, BLOCK // (1 + len(model.networks)))
        self.bounded = self.over_budget = self.scored = 0

    def run(self, interrupted, progress):
        """Fill the record. After an interruption the branches hold the prefixes that were not examined."""
        # Greedy first pass: in every depth, extend the best few of each layer down to a first record.
        for branch in self.branches:
            for _ in range(branch.model.depth + 1):
                if branch.stack and not interrupted():
                    self._step(branch, GREEDY, greedy=True)
        total = self._work()
        while self.left() and not interrupted():
            self._step(max(self.branches, key=_Branch.work), self.size, greedy=False)
            if progress:
                progress(1 - self._work() / total, self.record.found[3].min(initial=math.inf), self.open_bound())

    def _work(self):
        return sum(branch.work() for branch in self.branches)

    def left(self):
        """Number of architectures neither ruled out nor scored."""
        return NUM_ARCHITECTURES - self.bounded - self.over_budget - self.scored

    def open_bound(self):
        """Lower bound on the scores of all architectures that are left."""
        bounds = [block.bounds - branch.allowance for branch in self.branches for block in branch.stack]
        return min((rows.max(0).min() for rows in bounds), default=math.inf)

    def proven(self):
        """Number of architectures of the front, from the first on, that no open prefix can replace."""
        first = steps = 1 + self.record.found.shape[1]  # the first that an open prefix can be in
        for branch in self.branches:
            for block in branch.stack:
                possible = branch.possible(block, self.record, groups=steps).any(1)
                first = min([first, *np.flatnonzero(possible)])
        return max(0, first - 1)

    def _step(self, branch, size, greedy):
        """Extend `size` open prefixes by a layer; complete ones are scored and go into the record."""
        block = self._promising(branch, branch.pop(size, greedy))
        if block.fixed == branch.model.depth:
            self.record.add(branch.model.scores(branch.options(block)), block.keys, block.costs[0])
            self.scored += len(block.keys)
        elif len(block.keys):
            children = self._promising(branch, branch.children(block))
            if len(children.keys):
                order = (children.bounds - branch.overall).min(0).argsort(kind="stable")  # the most promising first
                work = 0.5**children.fixed if greedy else block.work * len(block.keys) / len(order)
                branch.stack.append(children.select(order)._replace(work=work))

    def _promising(self, branch, block):
        """Drop and count the prefixes with no completion that can enter the record; returns the others."""
        completions = OPTIONS ** (branch.model.depth - block.fixed)
        within = (block.costs <= branch.largest[:, None]).all(0)
        possible = within & branch.possible(block, self.record).any(0)
        self.over_budget += (~within).sum().item() * completions
        self.bounded += (within & ~possible).sum().item() * completions
        return block.select(possible)


@one_thread()
@torch.inference_mode()
def best(model, top=10, *, max_params=None, max_macs=None, progress=None):
    """Find the `top` architectures with the smallest scores.

    model: a recipes.model.Model. max_params, max_macs: budgets of parameters and multiply-accumulates. progress: called
    after every block as progress(share of the work done, best score, best score that is left), the share an estimate,
    the scores infinite where there is none. Ctrl-C ends the search with what it found, unproven. Memory does not grow
    with time. Returns SearchResult; raises InputError where nothing is within the budgets.
    """
    with delayed_interrupt() as interrupted:
        search = _Search(model, _Best(top), max_params, max_macs)
        search.run(interrupted, progress)
        (architectures, scores), left = search.record.result(), search.left()
        gap = max(0.0, float(scores.min(initial=math.inf) - search.open_bound()))
        counts = search.bounded, search.over_budget, search.scored, left
        return SearchResult(architectures, scores, *counts, gap, bool(left))


@one_thread()
@torch.inference_mode()
def pareto(model, *, max_params=None, max_macs=None, progress=None):
    """Find the Pareto front of parameters and score.

    Every architecture that is not on the front has one on it with at most as many parameters and at least as good a
    score. Among equal scores the front has the smallest architecture, then the smallest string. Arguments as for
    `best`. Ctrl-C ends the search with the front up to where it is proven. Returns ParetoFront; raises InputError.
    """
    with delayed_interrupt() as interrupted:
        search = _Search(model, _Front(), max_params, max_macs)
        search.run(interrupted, progress)
        return ParetoFront(*search.record.result(search.proven()), not search.left())
