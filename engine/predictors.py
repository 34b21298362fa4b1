"""Trained predictors: load the user's own, or the published ones where there are none; scores, ranks, intervals."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import recipes
from common.files import InputError, log
from common.metrics import ranks
from common.paths import PUBLISHED, project_path
from dataset import digest, label_fields, load_entries
from engine.model import score
from engine.trained import load_checkpoint
from space import VIT
from tasks import TASKS, find_task

SAMPLED = 100_000  # architectures that stand for the search space


class MissingError(InputError):
    """Tasks without a checkpoint; `tasks` are their names, `recipes` have checkpoints for the first."""

    def __init__(self, message, tasks, recipes):
        super().__init__(message)
        self.tasks, self.recipes = tasks, recipes


def load(tasks=None, *, data=None, recipe=recipes.DEFAULT, results=None, snapshot=None):
    """Load trained predictors: a list of engine.trained.TrainedPredictor, one for each task.

    data: dataset.Data to use them for; without it and `results`, they are the published ones. tasks: names, by default
    all that the data's training file labels, or the eight if there is none. results: folder of the checkpoints, by
    default the data's; a task that has no checkpoint for this data falls back to the published one, if any, and says
    so. snapshot: index of a snapshot, by default the recorded one. Raises MissingError, InputError, OSError.
    """
    recipe = recipes.get(recipe, data.space if data else VIT)
    if data:
        data.check_owner(results)
    published = Path(project_path("results", PUBLISHED))
    sha = None  # of what the training file holds
    if data and data.train_file.exists():
        _, entries = load_entries(data.train_file, data.space)
        sha, tasks = digest(entries), tasks or label_fields(data.train_file, entries)
    elif data and data.space is not VIT and not tasks:
        raise InputError(f"{data.train_file}: is missing: put the architectures that you have measured there")
    folder = Path(results or (data.results if data else published))
    folders = [folder, published] if not results and recipe.space is VIT else [folder]
    wanted = map(find_task, tasks or [task.name for task in TASKS])
    found = {task: [path for path in (recipe.path(f, task) for f in folders) if path.exists()] for task in wanted}
    missing = [task.name for task, paths in found.items() if not paths]
    if missing:
        message = f"{folder}: no checkpoint of the recipe {recipe.name} for {', '.join(missing)}"
        there = [name for name, end in recipes.RECIPES.items() if (folder / f"{missing[0]}_{end}.pth").exists()]
        raise MissingError(message, missing, there)
    predictors = []
    for task, paths in found.items():
        for path in paths:
            predictor = load_checkpoint(recipe, path, task, snapshot)
            # The reference's own checkpoints do not record their data.
            is_foreign = sha is not None and predictor.checkpoint.get("data", sha) != sha
            if not is_foreign:
                break
        predictors.append(predictor._replace(is_foreign=is_foreign))
    _say_origin(predictors, data, published)
    return predictors


def _say_origin(predictors, data, published):
    """Say which predictors are the published ones, which were trained on other data, and which rank nothing."""
    names = {}
    for predictor in predictors if data else ():
        names.setdefault((predictor.is_foreign, predictor.path.parent == published), []).append(predictor.task.name)
    for (foreign, is_published), tasks in names.items():
        use = f"using the published checkpoints in {published}" if is_published else "trained on an older file"
        if foreign:
            log.warning(f"not trained on {data.train_file}: {', '.join(tasks)}; {use}")
        elif is_published:
            log.info(f"{use}: {', '.join(tasks)}")
    for predictor in predictors:
        if predictor.is_constant:
            log.warning(f"{predictor.path}: gives one score to all architectures: it ranks nothing")


def score_all(predictors, architectures, device="cpu"):
    """Scores of n architectures by k predictors, as engine.model.score: (k, n)."""
    names = [f"recipe {predictor.recipe.name}, task {predictor.task.name}" for predictor in predictors]
    return score([predictor.model for predictor in predictors], architectures, device, names)


def rank(predictors, architectures, device="cpu"):
    """Ranks of n architecture strings: {task name: (n,) int64 in [0, n)}, 0 is the best; ties share the lowest."""
    scores = score_all(predictors, architectures, device)
    return {predictor.task.name: ranks(row) for predictor, row in zip(predictors, scores, strict=True)}


def rank_intervals(predictor, scores, population, probability=0.8):
    """Intervals of the ranks of m architectures among n: (m, 2) int64, [low, high].

    scores: (m,); population: (n,) scores of all that are ranked; probability: with which an interval holds the true
    rank, for an architecture that was not chosen for its score: for the best of many, the interval is too optimistic.
    Raises InputError where the recipe has no intervals.
    """
    if predictor.recipe.rank_interval is None:
        raise InputError(f"the recipe {predictor.recipe.name} has no rank intervals: use gp")
    if remark := predictor.recipe.remark(predictor.checkpoint):
        log.warning(f"{predictor.task.name}: {remark}")
    return torch.stack(predictor.recipe.rank_interval(predictor.checkpoint, scores, population, probability), 1)


class Shares(NamedTuple):
    """How much of the search space each of n architectures beats, by k predictors."""

    scores: np.ndarray  # (k, n)
    beaten: np.ndarray  # (k, n) in [0, 1]: the share of sampled architectures with larger scores
    intervals: np.ndarray | None  # (k, n, 2), of the share that is truly beaten, where the recipe has intervals


def sample_text(space):
    """What shares_beaten compares with, in words."""
    return f"{SAMPLED:,} sampled architectures" if space.size > SAMPLED else f"all {space.size:,} architectures"


def shares_beaten(predictors, architectures, device="cpu", probability=0.8):
    """Compare n architecture strings with SAMPLED sampled ones, or with all if there are fewer: Shares.

    probability: of the intervals, as in rank_intervals.
    """
    sample = predictors[0].recipe.space.some(SAMPLED)
    values, n = score_all(predictors, [*architectures, *sample], device), len(architectures)
    scores, population = values[:, :n], values[:, n:].sort(1).values
    beaten = (len(sample) - torch.searchsorted(population, scores.contiguous(), right=True)).double() / len(sample)
    intervals = None
    if predictors[0].recipe.rank_interval:
        rows = zip(predictors, scores, population, strict=True)
        ends = np.stack([rank_intervals(each, *pair, probability) for each, *pair in rows])
        # An architecture of true rank r is worse than r of the sampled ones and better than the others. `+ 1` takes in
        # the whole bin of the upper end.
        intervals = 1 - (ends + np.array([0, 1]))[..., ::-1] / len(sample)
    return Shares(scores.numpy(), beaten.numpy(), intervals)
