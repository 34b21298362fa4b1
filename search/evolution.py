"""Regularized evolution (Real et al., arXiv:1802.01548), for models whose scores cannot be bounded."""

import collections
import math

import numpy as np

from common.processes import delayed_interrupt
from search import SearchResult
from space import ABSENT

BATCH = 10  # architectures scored at a time
STEPS = 200  # changes that make one architecture smaller, at most
IDLE = 1000  # batches without a new architecture, after which the search ends
HOPELESS = 3  # the same, while none is found at all


def evolve(space, score, evaluations=10_000, seed=0, top=10, *, population=100, sample=25, limits=None, progress=None):
    """Search for the `top` architectures with the smallest scores; nothing is proven, unless all can be scored.

    The first `population` architectures are random. Then `sample` random members of the population compete, and the
    best has a child that differs in one decision, and replaces the oldest member. An architecture above a budget is
    made smaller by random changes until it fits. Among equal scores the smaller string is better.

    space: space.Space; score: a function from a list of n architecture strings to n numbers, none NaN; evaluations:
    number of architectures, with the random ones and repeated ones; limits: {cost: largest value}; progress: called
    after every batch as progress(share done, best score). Ctrl-C ends the search with what it found. Returns
    SearchResult; raises InputError where nothing is within the budgets.
    """
    bounds, whole = space.limits(limits), space.size <= evaluations
    rows = space.parse(space.all()) if whole else ()
    random, scored, living, idle = np.random.RandomState(seed), {}, collections.deque(maxlen=population), 0
    with delayed_interrupt() as interrupted:
        for start in range(0, evaluations, BATCH):
            if interrupted() or idle > (IDLE if scored else HOPELESS) or (whole and start >= space.size):
                break
            size = min(BATCH, evaluations - start)
            children = [row for row in rows[start : start + BATCH] if not _excess(row[None], bounds)[0]]
            for _ in range(0 if whole else size):
                if len(living) < population:
                    child = space.draw(1, random)[0]
                else:
                    rivals = [living[i] for i in random.randint(population, size=sample)]
                    child = mutate(space, min(rivals, key=lambda member: member[0])[1], random)
                children.append(shrink(space, child, bounds, random))
            children = [child for child in children if child is not None]
            names = space.strings(np.array(children, np.int64).reshape(-1, len(space.decisions)))
            new = [name for name in dict.fromkeys(names) if name not in scored]
            idle = 0 if new or whole else idle + 1
            scored.update(zip(new, np.asarray(score(new) if new else [], float).tolist(), strict=True))
            living.extend((scored[name], child) for name, child in zip(names, children, strict=True))
            if progress and scored:
                progress((start + size) / evaluations, min(scored.values()))
        found = sorted(scored, key=lambda name: (scored[name], name))[:top]
        values, left = np.array([scored[name] for name in found]), space.size - len(scored)
        if whole and not interrupted():
            return SearchResult(found, values, 0, left, len(scored), 0, 0.0, False)
        return SearchResult(found, values, 0, 0, len(scored), left, math.inf, interrupted())


def mutate(space, parent, random):
    """Copy of some choices with another one in a present decision; what becomes present with it is random."""
    places = np.flatnonzero((parent != ABSENT) & (space.counts > 1))
    place = random.choice(places)
    child = space.draw(1, random)[0] if place in space.parents else parent.copy()
    drawn = np.where(child == ABSENT, 0, child)
    child = np.where(parent == ABSENT, drawn, parent)
    child[place] = (parent[place] + random.randint(1, space.counts[place])) % space.counts[place]
    return np.where(space.present(child[None])[0], child, ABSENT)


def shrink(space, child, bounds, random):
    """Choices changed one by one until they are within the bounds, (Cost, largest value) each; None if that fails."""
    for _ in range(STEPS):
        excess = _excess(child[None], bounds)[0]
        if not excess:
            return child
        options = [(i, c) for i in np.flatnonzero(child != ABSENT) for c in range(space.counts[i]) if c != child[i]]
        cheapest = space.cheapest(next(cost for cost, most in bounds if cost.of(child[None])[0] > most))
        rows = np.tile(np.where(child == ABSENT, np.maximum(cheapest, 0), child), (len(options), 1))
        rows[range(len(options)), [i for i, _ in options]] = [c for _, c in options]
        rows = np.where(space.present(rows), rows, ABSENT)
        better = np.flatnonzero(_excess(rows, bounds) < excess)
        child = rows[random.choice(better)] if len(better) else cheapest
    return None


def _excess(rows, bounds):
    """By how much some choices are over the bounds, as a sum of shares: (n,)."""
    over = [np.maximum(cost.of(rows) - most, 0) / max(abs(most), 1) for cost, most in bounds]
    return np.sum(over, 0) if bounds else np.zeros(len(rows))
