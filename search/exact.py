"""The best of all architectures of a space by a recipes.base.Model, exactly: branch and bound.

There is a branch for every way to decide the parents, the decisions that others depend on. In a branch the other
decisions form groups, and a group takes one of a few options. The search takes the groups in order of influence and
extends prefixes, options of the first groups, by one group at a time. It drops a prefix as soon as a lower bound on the
scores of all its completions exceeds the worst score on the list of the best found so far, or its cheapest completion
exceeds a budget. The list at the end is exact: nothing is sampled or assumed. search/bounds.py has the bound.

The Pareto front is found in one such search. The current front divides the range of costs into intervals. In each
interval a new architecture must beat the best one that is no more expensive, and the interval's end is a budget for it.
We keep a prefix if, in some interval, a completion may do that. For speed we test neighbouring intervals together, with
the largest t + p B among them.
"""

import functools
import math
import time
from typing import NamedTuple

import numpy as np
import torch

from common.files import InputError
from common.processes import delayed_interrupt, one_thread
from search import ParetoFront, SearchResult
from search.bounds import NOTHING, Relaxation, layers
from space import ABSENT, Cost, Space

MAX_BRANCHES = 10_000
OPEN = 8  # branches that are searched at a time: few enough for the memory
GREEDY = 200  # prefixes extended at a time in the greedy first pass
TOGETHER = 32  # parts into which the intervals of a front are divided for tests, at most
BLOCK = 2**12  # prefixes extended at a time by a model without networks: few enough for the cache


class _Block(NamedTuple):
    """n open prefixes of one branch with the same number of fixed groups."""

    options: np.ndarray  # (n, fixed) uint8
    costs: np.ndarray  # (costs, n) of the cheapest completion
    bounds: np.ndarray  # (penalties, n) of all completions; the first penalty is 0
    work: float  # in each of them: an estimate

    def select(self, which):
        """Some of the prefixes."""
        return _Block(self.options[which], self.costs[:, which], self.bounds[:, which], self.work)


def _keys(choices):
    """Byte strings of choices (n, decisions) that are in the order of the architecture strings: (n,)."""
    return (choices + 1).astype(np.uint8, order="C").view(f"S{choices.shape[1]}")[:, 0]


def _slack(cost):
    """How much two sums of a cost, added up in different orders, differ at most."""
    if cost.table.dtype.kind == "i":
        return 0
    return 2.0**-48 * len(cost.table) * (abs(cost.base) + np.abs(cost.table).max(1).sum())


class _Best:
    """The best architectures found so far, ordered by score, then by string."""

    def __init__(self, space, top=None, exclude=()):
        self.top, self.excluded = top, _keys(space.parse(list(exclude)))
        self.tick = None  # of scores: set by the search
        self.scores, self.choices = np.empty(0), np.empty((0, len(space.decisions)), np.int8)
        # What an architecture must beat in each interval of costs: (ticks, cost, the interval's end), and keys.
        self.intervals = np.full((3, 1), math.inf), np.array([b""])

    def ticks(self):
        """Scores in ticks."""
        return np.round(self.scores / self.tick)

    def add(self, scores, choices):
        """Add n architectures, unless they are excluded."""
        new = ~np.isin(_keys(choices), self.excluded)
        self.scores, self.choices = np.append(self.scores, scores[new]), np.vstack([self.choices, choices[new]])
        chosen = self._chosen()
        self.scores, self.choices = self.scores[chosen], self.choices[chosen]
        self._set_intervals()

    def _chosen(self):
        return np.lexsort((_keys(self.choices), self.ticks()))[: self.top]

    def _set_intervals(self):
        if len(self.scores) == self.top:
            self.intervals = np.array([self.ticks()[-1:], [math.inf], [math.inf]]), _keys(self.choices[-1:])


class _Front(_Best):
    """The Pareto front found so far, ordered by cost, which makes the scores improve."""

    def __init__(self, space, cost):
        super().__init__(space)
        self.cost = cost

    def _chosen(self):
        ticks, costs = self.ticks(), self.cost.of(self.choices)
        order = np.lexsort((_keys(self.choices), ticks, costs))
        return order[ticks[order] < np.minimum.accumulate(np.append(math.inf, ticks[order]))[:-1]]

    def _set_intervals(self):
        # Nothing is found yet that is cheaper than the first of the front. Integers end a unit below the next one.
        costs, slack = self.cost.of(self.choices), _slack(self.cost)
        ends = np.append(costs - (not slack) + slack, math.inf)
        ticks, costs = np.append(math.inf, self.ticks()), np.append(-math.inf, costs + slack)
        self.intervals = np.array([ticks, costs, ends]), np.append(b"", _keys(self.choices))


class _Branch:
    """The search in one branch: its open prefixes, and which of them can enter a record."""

    def __init__(self, relax, limits, front):
        """relax: gives the branch's Relaxation; limits: [(Cost, largest value)]; front: of the first cost."""
        self.relax, relaxation = relax, relax()
        self.counts, self.magnitude, self.greedy = relaxation.counts, relaxation.magnitude, len(relaxation.counts) + 1
        tables, base = map(np.array, zip(*(relaxation.costs(cost) for cost, _ in limits), strict=True))
        self.extra = tables - tables.min(2, keepdims=True)  # over the cheapest option of the group
        self.smallest = base + tables.min(2).sum(1)
        self.room = self.extra.max(2).sum(1)  # of each cost, between the cheapest and the most expensive
        multipliers = [np.zeros(len(limits))]  # a row for each penalty: none, or several multiples of one cost
        for i, (cost, limit) in enumerate(limits):
            largest = self.smallest[i] + self.room[i]
            if self.room[i] and (limit < largest or (front and i == 0)):
                multipliers += [*np.eye(len(limits))[i] * relaxation.multipliers(self.extra[i])[:, None]]
            self.room[i] = min(largest, limit) - self.smallest[i] + _slack(cost)
        self.multipliers = np.array(multipliers)
        self.allowance = self.multipliers @ self.room  # what penalties add within the budgets, at most
        self.overall = relaxation.child_bounds(NOTHING, self.penalties()).min(1)  # bounds of all architectures
        # Blocks of open prefixes, the longest last.
        self.stack = [_Block(NOTHING, self.smallest[:, None], self.overall, 1.0)]

    def penalties(self):
        """Penalties of the options: (penalties, groups, options)."""
        return torch.from_numpy(np.tensordot(self.multipliers, self.extra, 1))

    def work(self):
        """What is left to do: an estimate, 1 at the start."""
        return sum(len(block.options) * block.work for block in self.stack)

    def bound(self):
        """Lower bound on the scores of all architectures that are left."""
        return min((block.bounds.T - self.allowance).max(1).min() for block in self.stack)

    def pop(self, size, greedy):
        """Take `size` prefixes from the last block: the most promising ones if greedy, else an evenly spaced sample."""
        block = self.stack.pop()
        place = np.arange(len(block.options))
        taken = place < size if greedy else place % math.ceil(len(place) / size) == 0
        if not taken.all():
            self.stack.append(block.select(~taken))
        return block.select(taken)

    def children(self, block):
        """All prefixes with one more group fixed."""
        n, fixed = block.options.shape
        count = self.counts[fixed]
        penalty = np.bincount((block.bounds.T - self.allowance).argmax(1)).argmax()  # which bounds most of them
        bounds = self.relax().child_bounds(block.options, self.penalties(), penalty)[:, :count]
        costs = block.costs[:, None] + self.extra[:, fixed, :count, None]
        options = np.column_stack([np.tile(block.options, (count, 1)), np.arange(count, dtype=np.uint8).repeat(n)])
        return _Block(options, *(rows.reshape(len(rows), -1) for rows in (costs, bounds)), block.work)

    def possible(self, block, record):
        """For each prefix: could some completion still enter the record? (n,) bool."""
        intervals, keys = record.intervals
        room = np.repeat(self.room[:, None], len(keys), 1)
        room[0] = np.minimum(room[0], intervals[2] - self.smallest[0])
        beaten = intervals[0] * record.tick + self.multipliers @ room
        first = np.unique(np.linspace(0, len(keys), TOGETHER + 1).astype(int)[:-1])
        most, ends, *beaten = np.maximum.reduceat(np.vstack([intervals[1:], beaten]), first, 1)[..., None]
        slack, cost = 1.5 * record.tick, block.costs[0]  # a tick and a margin
        possible = cost <= ends
        for bound, best in zip(block.bounds, beaten, strict=True):
            possible &= bound <= best + slack
        ties = possible & (block.bounds[0] > beaten[0] - slack)
        (near,) = ties.any(0).nonzero()
        if len(near):
            order = keys.argsort()
            largest = keys[order[np.maximum.reduceat(order.argsort(), first)]][:, None]
            wins = (_keys(self.relax().complete(block.options[near])) <= largest) & (cost[near] <= most)
            possible[:, near] &= wins | ~ties[:, near]
        return possible.any(0)


def _branches(space):
    """Choices of the first architecture of each branch: (branches, decisions) int8."""
    rows = np.zeros((1, len(space.decisions)), np.int8)
    if space.parents:
        parents = Space(space.name, [space.decisions[i] for i in space.parents], absent=space.absent)
        if parents.size > MAX_BRANCHES:
            ways = f"{parents.size:,} ways to make the decisions that others depend on"
            raise InputError(f"{space.name}: has {ways}: the exact search takes {MAX_BRANCHES:,}: use search.evolution")
        rows = rows.repeat(parents.size, 0)
        rows[:, space.parents] = parents.parse(parents.all())
    return np.where(space.present(rows), rows, ABSENT).astype(np.int8)


class _Search:
    """Branch and bound over all branches, which fills a record."""

    def __init__(self, model, record, limits):
        self.record, self.space, self.networks = record, model.space, len(model.networks)
        merged, first = layers(model), _branches(model.space)
        nothing = Cost(0, np.zeros((len(first[0]), model.space.counts.max() + 1), np.int64))
        self.limits = [(cost, float(most)) for cost, most in model.space.limits(limits)] or [(nothing, math.inf)]
        relax = functools.lru_cache(OPEN)(lambda i: Relaxation(model, merged, first[i]))
        self.relax, self.branches = [functools.partial(relax, i) for i in range(len(first))], []
        self.bounded = self.over_budget = self.scored = 0

    def run(self, stop, progress):
        """Fill the record, until stop(). Then the branches hold the prefixes that were not examined."""
        for relax in self.relax:
            if stop():
                return
            self.branches.append(_Branch(relax, self.limits, isinstance(self.record, _Front)))
        groups = max(len(branch.counts) for branch in self.branches)
        magnitude = max(branch.magnitude for branch in self.branches) or 1.0
        self.record.tick = (2 + groups / 6 + self.networks) * 2.0**-43 * magnitude
        self.branches.sort(key=_Branch.bound)
        while self.branches and not stop():
            # First a greedy pass through each of the most promising branches, down to a first record.
            some = self.branches[:OPEN]
            branch = next((branch for branch in some if branch.greedy), None) or max(some, key=_Branch.work)
            self._step(branch)
            if not branch.stack:
                self.branches.remove(branch)
            if progress:
                left = len(self.branches[OPEN:]) + sum(map(_Branch.work, self.branches[:OPEN]))
                progress(1 - left / len(self.relax), self.record.scores.min(initial=math.inf), self.open_bound())

    def left(self):
        """Number of architectures neither ruled out nor scored."""
        return self.space.size - self.bounded - self.over_budget - self.scored

    def open_bound(self):
        """Lower bound on the scores of all architectures that are left."""
        return min(map(_Branch.bound, self.branches[: OPEN + 1]), default=-math.inf)

    def _step(self, branch):
        """Extend some open prefixes by a group; complete ones are scored and go into the record."""
        size = GREEDY if branch.greedy else math.ceil(BLOCK / (1 + self.networks))
        block = self._promising(branch, branch.pop(size, branch.greedy))
        branch.greedy = max(0, branch.greedy - 1)
        if block.options.shape[1] == len(branch.counts):
            self._complete(branch.relax(), block.options)
        elif len(block.options):
            children = self._promising(branch, branch.children(block))
            if len(children.options):
                order = (children.bounds - branch.overall).min(0).argsort(kind="stable")  # the most promising first
                work = block.work * len(block.options) / len(order)
                branch.stack.append(children.select(order)._replace(work=work))

    def _complete(self, relaxation, options):
        choices = relaxation.complete(options)
        within = np.ones(len(choices), bool)
        for cost, most in self.limits:
            within &= cost.of(choices) <= most  # where costs are real, sums in this order decide
        self.record.add(relaxation.scores(options)[within], choices[within])
        self.over_budget += (~within).sum().item()
        self.scored += within.sum().item()

    def _promising(self, branch, block):
        """Drop and count the prefixes with no completion that can enter the record; returns the others."""
        completions = math.prod(branch.counts[block.options.shape[1] :].tolist())
        within = (branch.smallest + branch.room >= block.costs.T).all(1)
        possible = within & branch.possible(block, self.record)
        self.over_budget += (~within).sum().item() * completions
        self.bounded += (within & ~possible).sum().item() * completions
        return block.select(possible)


def _late(seconds):
    """A function that returns True once the seconds are over."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    return lambda: time.monotonic() > end


@one_thread()
@torch.inference_mode()
def best(model, top=10, *, limits=None, exclude=(), seconds=None, progress=None):
    """Find the `top` architectures with the smallest scores.

    model: recipes.base.Model without a function. limits: budgets, {name of a cost: largest value}. exclude:
    architectures that are no results, such as measured ones; they count as scored. seconds: time limit. progress:
    called after every block as progress(share of the work done, best score, best score that is left), the share an
    estimate, the scores infinite where there is none. Ctrl-C and the time limit end the search with what it found,
    unproven. Memory does not grow with time. Returns SearchResult. Raises InputError where nothing is within a budget,
    and for more than MAX_BRANCHES branches.
    """
    late = _late(seconds)
    with delayed_interrupt() as interrupted:
        record = _Best(model.space, top, exclude)
        search = _Search(model, record, limits)
        search.run(lambda: interrupted() or late(), progress)
        left = search.left()
        gap = max(0.0, float(record.scores.min(initial=math.inf) - search.open_bound())) if left else 0.0
        counts = search.bounded, search.over_budget, search.scored, left
        return SearchResult(model.space.strings(record.choices), record.scores, *counts, gap, bool(left))


@one_thread()
@torch.inference_mode()
def pareto(model, *, limits=None, seconds=None, progress=None):
    """Find the Pareto front of the space's first cost and the score.

    Every architecture that is not on the front has one on it that costs at most as much and has at least as good a
    score. Among equal scores the front has the cheapest architecture, then the smallest string. Arguments and errors as
    for `best`, but there is no unproven front: raises KeyboardInterrupt at Ctrl-C, and TimeoutError after `seconds`.
    Raises InputError where the space has no costs.
    """
    space = model.space
    if not space.costs:
        raise InputError(f"{space.name}: has no costs: a Pareto front needs one")
    name, cost = next(iter(space.costs.items()))
    record = _Front(space, cost)
    search = _Search(model, record, {name: math.inf} | (limits or {}))
    search.run(_late(seconds), progress)
    if search.left():
        raise TimeoutError(f"the Pareto front is not complete after {seconds} seconds")
    return ParetoFront(space.strings(record.choices), record.scores)
