"""Regularized evolution (Real et al., arXiv:1802.01548), for models whose scores cannot be bounded."""

import collections
import math

import numpy as np

from common.processes import delayed_interrupt
from search import SearchResult
from space import ABSENT

BATCH = 10  # architectures scored at a time
PATIENCE = 1000  # children in a row without a new architecture, after which there is hardly one left


def evolve(space, score, evaluations=10_000, seed=0, top=10, *, population=100, sample=25, limits=None, progress=None):
    """Search for the `top` architectures with the smallest scores; nothing is proven.

    The first architectures, `population` of them, are random. Then `sample` random members of the population compete,
    and the best has a child, which differs in one decision and replaces the oldest member. A child above a budget
    changes further decisions until it is within. Among equal scores the smaller string is better.

    space: space.Space; score: a function from a list of n architecture strings to n numbers, none NaN; evaluations:
    number of architectures, with the random ones and repeated ones; limits: budgets, {name of a cost: largest value};
    progress: called after every batch as progress(share done, best score). Ctrl-C ends the search with what it found,
    and so do PATIENCE repeated architectures in a row. Returns SearchResult; raises InputError where nothing is within
    a budget.
    """
    limits, random = [(cost, float(most)) for cost, most in space.limits(limits)], np.random.RandomState(seed)
    scored, living, done, idle = {}, collections.deque(maxlen=population), 0, 0
    with delayed_interrupt() as interrupted:
        while done < evaluations and idle < PATIENCE and not interrupted():
            size = min(BATCH, evaluations - done, population - len(living) or BATCH)
            children = [_shrink(space, _child(space, living, sample, random), limits, random) for _ in range(size)]
            children = [child for child in children if child is not None]
            names = space.strings(np.array(children).reshape(-1, len(space.decisions)).astype(np.int64))
            new = [name for name in dict.fromkeys(names) if name not in scored]
            scored.update(zip(new, np.asarray(score(new) if new else [], float).tolist(), strict=True))
            living.extend((scored[name], child) for name, child in zip(names, children, strict=True))
            done, idle = done + size, 0 if new else idle + size
            if progress:
                progress(done / evaluations, min(scored.values(), default=math.inf))
        found = sorted(scored, key=lambda name: (scored[name], name))[:top]
        values, left = np.array([scored[name] for name in found]), space.size - len(scored)
        return SearchResult(found, values, 0, 0, len(scored), left, math.inf if left else 0.0, interrupted())


def _child(space, living, sample, random):
    """Random choices while the population is small, then a copy of the best rival's with another choice."""
    if len(living) < living.maxlen:
        return space.draw(1, random)[0]
    rivals = [living[i] for i in random.randint(len(living), size=sample)]
    parent = min(rivals, key=lambda rival: rival[0])[1]
    places = np.flatnonzero((parent != ABSENT) & (space.counts > 1))
    if not len(places):
        return parent
    child, i = np.where(parent == ABSENT, random.randint(space.counts), parent), random.choice(places)
    child[i] = (child[i] + random.randint(1, space.counts[i])) % space.counts[i]
    return np.where(space.present(child[None])[0], child, ABSENT)


def _shrink(space, child, limits, random):
    """Change one decision at a time until the child is within the limits; None where that takes too long."""
    decisions = np.arange(len(child)).repeat(space.counts)
    choices = np.concatenate([np.arange(count) for count in space.counts])
    for _ in range(len(choices)):
        over = _over(child[None], limits)
        if not over.any():
            return child
        cost = limits[random.choice(over.nonzero()[1])][0]
        # All changes of one decision. What becomes present takes its cheapest choice.
        prices = np.where(np.arange(space.counts.max()) < space.counts[:, None], cost.table[:, :-1], math.inf)
        rows = np.where(child == ABSENT, prices.argmin(1), child)[None].repeat(len(choices), 0)
        rows[np.arange(len(rows)), decisions] = choices
        rows = np.where(space.present(rows), rows, ABSENT)
        left = _over(rows, limits)
        (helpful,) = ((left <= over).all(1) & (left < over).any(1)).nonzero()
        child = rows[random.choice(helpful)] if len(helpful) else space.cheapest(cost)
    return None


def _over(choices, limits):
    """By how much n architectures exceed each limit, a pair (Cost, largest value): (n, limits)."""
    return np.array([(cost.of(choices) - most).clip(min=0) for cost, most in limits]).reshape(-1, len(choices)).T
