"""Regularized evolution (Real et al., arXiv:1802.01548), for models whose scores cannot be bounded."""

import collections
import math

import numpy as np
from files import InputError

from dataset import DEPTHS, LAYERS
from search import Found, interruption
from space import CHOICES, HEADS, MACS, NUM_ARCHITECTURES, NUM_RATIOS, PARAMETERS, check_budgets, strings

POPULATION, SAMPLE, BATCH = 100, 25, 10


def evolve(score, evaluations=10_000, seed=0, top=10, max_params=None, max_macs=None, largest=False, progress=None):
    """Search for the `top` architectures with the smallest scores, or the largest; nothing is proven.

    The first POPULATION architectures are random. Then SAMPLE random members of the population compete, and the best
    has a child that differs in one choice (depth, heads or MLP ratio of a layer) and replaces the oldest member. BATCH
    architectures are scored at a time. One above a budget shrinks in random layers until it fits. Among equal scores
    the smaller string is better.

    score: a function from a list of n architecture strings to n numbers; evaluations: number of architectures, with the
    random ones and repeated ones; progress: called after every batch as progress(share done, best score). Ctrl-C ends
    the search with what it found. Returns search.Found; raises BudgetError where nothing is within the budgets,
    InputError for a score that is NaN.
    """
    check_budgets(max_params, max_macs)
    random, sign, scored = np.random.RandomState(seed), -1 if largest else 1, {}
    limits = [(cost, most) for cost, most in ((PARAMETERS, max_params), (MACS, max_macs)) if most is not None]
    living = collections.deque(maxlen=POPULATION)
    with interruption() as interrupted:
        for start in range(0, evaluations, BATCH):
            if interrupted():
                break
            children = []
            for _ in range(min(BATCH, evaluations - start)):
                if len(living) < POPULATION:
                    child = random.randint(CHOICES, size=LAYERS)
                    child[random.choice(list(DEPTHS.values())) :] = -1
                else:
                    rivals = [living[i] for i in random.randint(POPULATION, size=SAMPLE)]
                    child = _mutate(min(rivals, key=lambda member: member[0])[1], random)
                children.append(_shrink(child, limits, random))
            names = strings(np.array(children))
            new = [name for name in dict.fromkeys(names) if name not in scored]
            values = np.asarray(score(new) if new else [], float)
            if np.isnan(values).any():
                raise InputError(f"{new[np.isnan(values).argmax()]}: its score is NaN: train the model again")
            scored.update(zip(new, (sign * values).tolist(), strict=True))
            living.extend((scored[name], child) for name, child in zip(names, children, strict=True))
            if progress:
                progress((start + len(children)) / evaluations, sign * min(scored.values()))
        found = sorted(scored, key=lambda name: (scored[name], name))[:top]
        values = np.array([sign * scored[name] for name in found])
        return Found(found, values, 0, 0, len(scored), NUM_ARCHITECTURES - len(scored), math.inf, interrupted())


def _mutate(parent, random):
    """Copy with another depth, or with other heads or another MLP ratio in one layer."""
    child, depth = parent.copy(), (parent >= 0).sum()
    place = random.randint(1 + 2 * depth)
    if place == 2 * depth:
        depth = random.choice([other for other in DEPTHS.values() if other != depth])
        child = np.where(child < 0, random.randint(CHOICES, size=LAYERS), child)
        child[depth:] = -1
    else:
        code = np.array(divmod(child[place // 2], NUM_RATIOS))
        code[place % 2] = (code[place % 2] + random.randint(1, NUM_RATIOS)) % NUM_RATIOS
        child[place // 2] = NUM_RATIOS * code[0] + code[1]
    return child


def _shrink(child, limits, random):
    """Make an architecture smaller, in random layers, until it is within the limits, (Cost, most) each."""
    while any(cost.of(child[None])[0] > most for cost, most in limits):
        large = np.flatnonzero((child >= 0) & (child < CHOICES - 1))
        if len(large):
            place = random.choice(large)
            heads, ratio = divmod(child[place], NUM_RATIOS)
            last = ratio == NUM_RATIOS - 1
            child[place] += NUM_RATIOS if last or (heads < len(HEADS) - 1 and random.randint(2)) else 1
        else:
            child[(child >= 0).sum() - 1] = -1
    return child
