"""The best of all 317,297,380,491 architectures by a engine.model.Model, exactly: branch and bound, in seconds.

For each depth, an architecture takes one of nine options (heads, MLP ratio) in each layer. The search takes the layers
in order of influence and extends prefixes, options of the first layers, by one layer at a time. It drops a prefix as
soon as a lower bound on the scores of all its completions exceeds the worst score on the list of the best found so
far, or its cheapest completion exceeds a budget. The list at the end is exact: nothing is sampled or assumed.

search/bounds.py has the bound.

The Pareto front is found in one such search. The front found so far cuts the parameters into steps, from one of its
architectures to the next larger one. A completion must beat the architecture at the start of its step, and the step's
end is a budget for it: a prefix goes on if it can do so in any step. For speed neighbouring steps are tested together,
with the largest t + p B of the group.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from common.processes import delayed_interrupt, one_thread
from search import ParetoFront, SearchResult
from search.bounds import NO_LAYERS, PLACES, DepthModel
from space import ABSENT, DEPTHS, LAYERS, MIN_DEPTH, NUM_ARCHITECTURES, OPTIONS, budgets, strings

GREEDY = 200  # prefixes extended at a time in the greedy first pass
GROUPS = 32  # of steps of the front, at most
BLOCK = 2**12  # prefixes extended at a time by a model without networks: few enough for the cache


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

    def result(self):
        """Strings and scores."""
        keys = self.found[1, :, None].astype(np.int64)
        options, depths = keys // PLACES[1:] % OPTIONS, keys // PLACES[0] + MIN_DEPTH
        return strings(np.where(np.arange(LAYERS) < depths, options, ABSENT)), self.found[3]


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

    def possible(self, block, record):
        """Which groups of the record's steps each prefix may have a completion in that enters it: (groups, n) bool."""
        steps = record.steps()
        multipliers, room, origin = self.columns
        beaten = steps[0] * record.tick + multipliers * np.minimum(room, steps[3] - origin)
        first = np.unique(np.linspace(0, steps.shape[1], GROUPS + 1).astype(int)[:-1])
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

    model: a engine.model.Model. max_params, max_macs: budgets of parameters and multiply-accumulates. progress: called
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
    `best`. Returns ParetoFront; raises InputError, and KeyboardInterrupt at Ctrl-C.
    """
    search = _Search(model, _Front(), max_params, max_macs)
    search.run(lambda: False, progress)
    return ParetoFront(*search.record.result())
