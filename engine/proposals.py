"""What to measure next: random architectures first, then the best predicted ones, by a predictor fitted at once."""

from typing import NamedTuple

import numpy as np

import recipes
from common.files import InputError
from dataset import Data, read_train
from engine.model import combine, score
from engine.predictors import Shares, shares_beaten
from engine.trained import TrainedPredictor, fit_labels
from search.evolution import evolve
from search.exact import best
from tasks import find_task

RANDOM = 25  # labels from which predictions choose
NOTHING = "no architecture within the budgets is left"
TRIES = 100_000  # random architectures, among which those within the budgets are chosen


class Proposals(NamedTuple):
    """Architectures to measure next."""

    architectures: list  # strings
    shares: Shares | None  # of the space that each is predicted to beat; None for random ones
    reason: str  # how they were chosen, a line


def propose(source, count=10, *, tasks=None, recipe="gp", limits=None, random=RANDOM, seed=0, seconds=60):
    """Propose `count` architectures to measure next: Proposals; fewer where the space or the budgets have no more.

    source: a dataset.Data, whose training file says what is measured, or one or several trained predictors of
    engine.trained.fit. tasks, recipe, random: only for Data: names of the tasks and of the recipe that is fitted to
    their labels; while a task has fewer than `random` labels, the proposals are random ones, by `seed`. Otherwise they
    are the best of all that are not known, by the mean of the tasks' standardised scores; what stands in the file is
    known, measured or not. limits: {cost: largest value}; seconds: time limit of the exact search. Raises InputError,
    OSError.
    """
    if isinstance(source, Data):
        space, known, labels = source.space, [], {}
        if source.train_file.exists():
            entries, _, labels = read_train(source.train_file, tasks, space)
            known = space.strings(space.parse([entry["arch"] for entry in entries.values()]))
        fewest = min((len(of_task.ranks) for of_task in labels.values()), default=0)
    else:
        predictors = [source] if isinstance(source, TrainedPredictor) else list(source)
        space, fewest = predictors[0].recipe.space, random
        known = [name for predictor in predictors for name in predictor.labels.architectures]
    if count < 1:
        raise InputError(f"count is {count}: expected at least 1")
    known = set(known)
    count = min(count, space.size - len(known))
    if not count:
        return Proposals([], None, f"all {space.size:,} architectures of the space are known")
    if fewest < random:
        found = _random(space, count, limits, known, seed)
        reason = f"random; predictions choose from {random} measured architectures on, here are {fewest}"
        return Proposals(found, None, reason if found else NOTHING)
    if isinstance(source, Data):
        for name, of_task in labels.items():
            if not of_task.ranks.any():
                raise InputError(f"{name}: all labels are equal: there is no order to learn")
        recipe = recipes.get(recipe, space)
        predictors = [fit_labels(recipe, find_task(name), of_task) for name, of_task in labels.items()]
    model, name = combine([predictor.model for predictor in predictors]), predictors[0].recipe.name
    if model.function is None:
        result = best(model, count, limits=limits, exclude=known, seconds=seconds)
        how = f"unproven, ended early: others may be better by {result.gap:.4f}"
    else:
        top = count + len(known)
        result = evolve(space, lambda names: score([model], names)[0], top=top, limits=limits, seed=seed)
        how = "by evolution, unproven"
    found = [each for each in result.architectures if each not in known][:count]
    how = how if result.left else "proven"
    if not found:
        return Proposals([], None, NOTHING)
    return Proposals(found, shares_beaten(predictors, found), f"the best predicted by {name}, {how}")


def _random(space, count, limits, known, seed):
    """Random architectures within the limits; where these are rare, an evolution without a goal finds them."""
    if not limits:
        return space.sample(count, seed, known)
    names, random = space.sample(min(space.size, TRIES), seed), np.random.RandomState(seed)
    costs = space.measure(names)
    within = np.all([costs[cost] <= most for cost, most in limits.items()], 0)
    found = [name for name, is_within in zip(names, within, strict=True) if is_within and name not in known]
    if len(found) < count and space.size > TRIES:
        drawn = evolve(space, lambda names: random.rand(len(names)), top=TRIES, limits=limits, seed=seed).architectures
        found += [name for name in drawn if name not in {*known, *found}]
    return found[:count]
