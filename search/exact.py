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
from search.bounds import NOTHING, Relaxation, Score
from space import Space

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
        self.top, self.excluded, self.tick = top, _keys(space.parse(list(exclude))), None  # of scores: set by the search
        self.found = np.empty((3, 0))  # scores in ticks, costs, scores
        self.choices = np.empty((0, len(space.decisions)), np.int8)

    def add(self, scores, costs, choices):
        """Add n architectures, unless they are excluded."""
        if len(self.excluded):
            new = ~np.isin(_keys(choices), self.excluded)
            scores, costs, choices = scores[new], costs[new], choices[new]
        found = np.hstack([self.found, [np.round(scores / self.tick), costs, scores]])
        choices = np.vstack([self.choices, choices])
        chosen = self._chosen(*found[:2], _keys(choices))
        self.found, self.choices = found[:, chosen], choices[chosen]

    def _chosen(self, ticks, costs, keys):
        return np.lexsort((keys, ticks))[: self.top]

    def intervals(self):
        """What an architecture must beat in each interval of costs: ticks, cost, the interval's end; and the key."""
        last = slice(self.top - 1, self.top)
        ticks, keys = [*self.found[0, last], math.inf][:1], [*_keys(self.choices[last]), b""][:1]
        return np.array([ticks, [math.inf], [math.inf]]), np.array(keys)


class _Front(_Best):
    """The Pareto front found so far, ordered by cost, which makes the scores improve."""

    def __init__(self, space, cost):
        super().__init__(space)
        # The end of an interval is below the next one's start by a unit, where costs are integers.
        self.slack, self.unit = _slack(cost), int(cost.table.dtype.kind == "i")

    def _chosen(self, ticks, costs, keys):
        order = np.lexsort((keys, ticks, costs))
        return order[ticks[order] < np.minimum.accumulate(np.append(math.inf, ticks[order]))[:-1]]

    def intervals(self):
        # Nothing is found yet that is cheaper than the first of the front.
        ticks, costs, _ = np.hstack([[[math.inf], [-math.inf], [0]], self.found])
        ends = np.append(costs[1:] - self.unit, math.inf)
        return np.array([ticks, costs + self.slack, ends + self.slack]), np.append(b"", _keys(self.choices))


class _Branch:
    """The search in one branch: its open prefixes, and which of them can enter a record."""

    def __init__(self, relax, limits, front):
        """relax: gives the branch's Relaxation; limits: [(Cost, largest value)], with `front` the front's cost first."""
        self.relax, relaxation = relax, relax()
        self.counts, self.magnitude = relaxation.counts, relaxation.magnitude
        costs = [relaxation.costs(cost) for cost, _ in limits]
        tables = np.array([table for table, _ in costs]).reshape(-1, *relaxation.shape)
        self.extra = tables - tables.min(2, keepdims=True)  # over the cheapest option of the group
        smallest = np.array([base for _, base in costs]) + tables.min(2).sum(1)
        room = self.extra.max(2).sum(1)  # of each cost, between the cheapest and the most expensive
        rows = [np.zeros(len(limits))]
        for i, (cost, limit) in enumerate(limits):
            if room[i] and (front and not i or limit < smallest[i] + room[i]):
                rows += [*np.eye(len(limits))[i] * relaxation.multipliers(self.extra[i])[:, None]]
            room[i] = min(room[i], limit - smallest[i]) + _slack(cost)
        # A row for each penalty, a sum of multiples of the costs: none, or several multiples of one.
        self.multipliers, self.room, self.largest = np.array(rows), room, smallest + room
        self.origin = np.where(np.arange(len(limits)), -math.inf, smallest)  # where intervals are measured from
        self.overall = relaxation.child_bounds(NOTHING, self.penalties()).min(1)  # bounds of all architectures
        # Blocks of open prefixes, the longest last.
        self.stack = [_Block(NOTHING, smallest[:, None], self.overall, 1.0)]
        self.total = 1.0  # work at the start

    def penalties(self):
        """Penalties of the options: (penalties, groups, options)."""
        return torch.from_numpy(np.tensordot(self.multipliers, self.extra, 1))

    def work(self):
        """What is left to do: an estimate."""
        return sum(len(block.options) * block.work for block in self.stack)

    def bound(self):
        """Lower bound on the scores of all architectures that are left."""
        allowance = (self.multipliers @ self.room)[:, None]  # what penalties add within the budgets, at most
        return min(((block.bounds - allowance).max(0).min() for block in self.stack), default=math.inf)

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
        (n, fixed), penalties, relaxation = block.options.shape, self.penalties(), self.relax()
        count = self.counts[fixed]
        # The pairs are split for these prefixes, with the penalties that bound them best.
        best = (block.bounds - (self.multipliers @ self.room)[:, None]).argmax(0)
        weights = torch.from_numpy(np.bincount(best, minlength=len(penalties)) / n)
        relaxation.tighten(block.options, torch.tensordot(weights, penalties, 1))
        bounds = relaxation.child_bounds(block.options, penalties)[:, :count]
        costs = block.costs[:, None] + self.extra[:, fixed, :count, None]
        options = np.column_stack(
            [np.tile(block.options, (count, 1)), np.arange(count, dtype=np.uint8).repeat(n)]
        )
        return _Block(options, *(rows.reshape(len(rows), len(options)) for rows in (costs, bounds)), 0)

    def possible(self, block, record):
        """For each prefix: could some completion still enter the record? (n,) bool."""
        intervals, keys = record.intervals()
        room = np.minimum(self.room[:, None], intervals[2] - self.origin[:, None])
        beaten = intervals[0] * record.tick + self.multipliers @ room
        first = np.unique(np.linspace(0, len(keys), TOGETHER + 1).astype(int)[:-1])
        most, ends, *beaten = np.maximum.reduceat(np.vstack([intervals[1:], beaten]), first, 1)[..., None]
        cost = block.costs[:1].sum(0)  # the front's, or 0
        slack = 1.5 * record.tick  # a tick and a margin
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
    """Choices of the parents in each branch, 0 for all other decisions: (branches, decisions) int8."""
    rows = np.zeros((1, len(space.decisions)), np.int8)
    if space.parents:
        parents = Space(space.name, [space.decisions[i] for i in space.parents], absent=space.absent)
        if parents.size > MAX_BRANCHES:
            ways = f"there are {parents.size:,} ways to decide what other decisions depend on"
            raise InputError(f"{space.name}: {ways}: more than {MAX_BRANCHES:,} need evolution, which proves nothing")
        rows = rows.repeat(parents.size, 0)
        rows[:, space.parents] = parents.parse(parents.all())
    return rows


class _Search:
    """Branch and bound over all branches, which fills a record."""

    def __init__(self, model, record, limits):
        self.record, self.space = record, model.space
        self.limits = [(cost, float(most)) for cost, most in limits]
        self.most = np.array([most for _, most in self.limits])
        score, chosen, self.networks = Score.of(model), _branches(model.space), len(model.networks)
        relax = functools.lru_cache(OPEN)(lambda i: Relaxation(score, model.space, chosen[i]))
        self.relax = [functools.partial(relax, i) for i in range(len(chosen))]
        self.size = max(1, BLOCK // (1 + self.networks))
        self.open, self.waiting = [], None  # branches, those that wait from the most promising on
        self.bounded = self.over_budget = self.scored = 0

    def run(self, stop, progress):
        """Fill the record, until stop(). Then the branches hold the prefixes that were not examined."""
        branches = []
        for relax in self.relax:
            if stop():
                return
            branches.append(_Branch(relax, self.limits, isinstance(self.record, _Front)))
        self.waiting = sorted(branches, key=_Branch.bound)
        groups = max(len(branch.counts) for branch in branches)
        magnitude = max(branch.magnitude for branch in branches) or 1.0
        self.record.tick = (2 + groups / 6 + self.networks) * 2.0**-43 * magnitude
        while self.left() and not stop():
            while self.waiting and len(self.open) < OPEN and not stop():
                self._greedy(self.waiting.pop(0), stop)
            self.open = [branch for branch in self.open if branch.stack]
            if self.open:
                self._step(max(self.open, key=_Branch.work), self.size, greedy=False)
            if progress:
                progress(self._share(), self.record.found[2].min(initial=math.inf), self.open_bound())

    def _greedy(self, branch, stop):
        """Open a branch: extend the best few prefixes of each length, down to a first record."""
        self.open.append(branch)
        for _ in range(len(branch.counts) + 1):
            if branch.stack and not stop():
                self._step(branch, GREEDY, greedy=True)
        branch.total = branch.work()

    def _share(self):
        """Share of the work that is done: an estimate."""
        left = len(self.waiting) + sum(branch.work() / branch.total for branch in self.open if branch.stack)
        return 1 - left / len(self.relax)

    def left(self):
        """Number of architectures neither ruled out nor scored."""
        return self.space.size - self.bounded - self.over_budget - self.scored

    def open_bound(self):
        """Lower bound on the scores of all architectures that are left."""
        if self.waiting is None:
            return -math.inf
        return min((branch.bound() for branch in self.open + self.waiting[:1]), default=math.inf)

    def _step(self, branch, size, greedy):
        """Extend `size` open prefixes by a group; complete ones are scored and go into the record."""
        block = self._promising(branch, branch.pop(size, greedy))
        n, fixed = block.options.shape
        if fixed == len(branch.counts):
            self._complete(branch.relax(), block.options)
        elif n:
            children = self._promising(branch, branch.children(block))
            if len(children.options):
                order = (children.bounds - branch.overall).min(0).argsort(kind="stable")  # the most promising first
                work = 0.5 ** (fixed + 1) if greedy else block.work * n / len(order)
                branch.stack.append(children.select(order)._replace(work=work))

    def _complete(self, relaxation, options):
        choices = relaxation.complete(options)
        costs = np.array([cost.of(choices) for cost, _ in self.limits]).reshape(len(self.limits), len(choices))
        within = np.all(costs <= self.most[:, None], 0)  # which sums of real costs decide, added up as Cost.of does
        self.record.add(relaxation.scores(options[within]), costs[:1].sum(0)[within], choices[within])
        self.over_budget += (~within).sum().item()
        self.scored += within.sum().item()

    def _promising(self, branch, block):
        """Drop and count the prefixes with no completion that can enter the record; returns the others."""
        completions = math.prod(branch.counts[block.options.shape[1] :].tolist())
        within = (block.costs <= branch.largest[:, None]).all(0)
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
        search = _Search(model, record, model.space.limits(limits))
        search.run(lambda: interrupted() or late(), progress)
        scores, left = record.found[2], search.left()
        gap = max(0.0, float(scores.min(initial=math.inf) - search.open_bound()))
        counts = search.bounded, search.over_budget, search.scored, left
        return SearchResult(model.space.strings(record.choices), scores, *counts, gap, bool(left))


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
    search = _Search(model, record, space.limits({name: math.inf} | dict(limits or {})))
    search.run(_late(seconds), progress)
    if search.left():
        raise TimeoutError(f"the Pareto front is not complete after {seconds} seconds")
    return ParetoFront(space.strings(record.choices), record.found[2])
