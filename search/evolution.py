"""Regularized evolution (Real et al., arXiv:1802.01548), for models whose scores cannot be bounded."""

import collections
import math

import numpy as np

from common.processes import delayed_interrupt
from search import SearchResult
from space import ABSENT, DEPTHS, HEADS, LAYERS, MLP_RATIOS, NUM_ARCHITECTURES, OPTIONS, budgets, strings

POPULATION, SAMPLE, BATCH = 100, 25, 10


def evolve(score, evaluations=10_000, seed=0, top=10, *, max_params=None, max_macs=None, progress=None):
    """Search for the `top` architectures with the smallest scores; nothing is proven.

    The first POPULATION architectures are random. Then SAMPLE random members of the population compete, and the best
    has a child that differs in one decision (depth, or heads or MLP ratio of a layer) and replaces the oldest member.
    BATCH architectures are scored at a time. One above a budget shrinks in random layers until it fits. Among equal
    scores the smaller string is better.

    score: a function from a list of n architecture strings to n numbers, none NaN; evaluations: number of
    architectures, with the random ones and repeated ones; progress: called after every batch as progress(share done,
    best score). Ctrl-C ends the search with what it found. Returns SearchResult; raises InputError where nothing is
    within the budgets.
    """
    limits = budgets(max_params, max_macs)
    random, scored, living = np.random.RandomState(seed), {}, collections.deque(maxlen=POPULATION)
    with delayed_interrupt() as interrupted:
        for start in range(0, evaluations, BATCH):
            if interrupted():
                break
            size = min(BATCH, evaluations - start)
            children = [_shrink(_child(living, random), limits, random) for _ in range(size)]
            names = strings(np.array(children))
            new = [name for name in dict.fromkeys(names) if name not in scored]
            scored.update(zip(new, np.asarray(score(new) if new else [], float).tolist(), strict=True))
            living.extend((scored[name], child) for name, child in zip(names, children, strict=True))
            if progress:
                progress((start + size) / evaluations, min(scored.values()))
        found = sorted(scored, key=lambda name: (scored[name], name))[:top]
        values, left = np.array([scored[name] for name in found]), NUM_ARCHITECTURES - len(scored)
        return SearchResult(found, values, 0, 0, len(scored), left, math.inf, interrupted())


def _child(living, random):
    """A random architecture while the population is small, then a child of the best of a random sample."""
    if len(living) < POPULATION:
        child = random.randint(OPTIONS, size=LAYERS)
        child[random.choice(list(DEPTHS.values())) :] = ABSENT
        return child
    sample = [living[i] for i in random.randint(POPULATION, size=SAMPLE)]
    return _mutate(min(sample, key=lambda member: member[0])[1], random)


def _mutate(parent, random):
    """Copy with another depth, or with other heads or another MLP ratio in one layer."""
    child, depth = parent.copy(), (parent >= 0).sum()
    place = random.randint(1 + 2 * depth)
    if place == 2 * depth:
        depth = random.choice([other for other in DEPTHS.values() if other != depth])
        child = np.where(child < 0, random.randint(OPTIONS, size=LAYERS), child)
        child[depth:] = ABSENT
    else:
        code = np.array(divmod(child[place // 2], len(MLP_RATIOS)))
        code[place % 2] = (code[place % 2] + random.randint(1, len(MLP_RATIOS))) % len(MLP_RATIOS)
        child[place // 2] = len(MLP_RATIOS) * code[0] + code[1]
    return child


def _shrink(child, limits, random):
    """Make an architecture smaller, in random layers, until it is within the limits, (Cost, largest value) each."""
    while any(cost.of(child[None])[0] > limit for cost, limit in limits):
        large = np.flatnonzero((child >= 0) & (child < OPTIONS - 1))
        if len(large):
            place = random.choice(large)
            heads, ratio = divmod(child[place], len(MLP_RATIOS))
            last = ratio == len(MLP_RATIOS) - 1
            child[place] += len(MLP_RATIOS) if last or (heads < len(HEADS) - 1 and random.randint(2)) else 1
        else:
            child[(child >= 0).sum() - 1] = ABSENT
    return child
