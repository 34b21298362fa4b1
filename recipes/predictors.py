"""Trained predictors: load the user's own, or the published ones where there are none, and rank architectures."""

import json
import os
import shlex
from pathlib import Path

import numpy as np
import torch

import recipes
from common.files import InputError, first_line, log, sha256, write_file
from common.metrics import ranks
from dataset import PUBLISHED, default_folder, label_fields, load_entries, project_path, quoted_path
from recipes.model import score
from space import sample_architectures
from tasks import TASKS, find_task

SAMPLED = 100_000  # architectures that stand for the search space
NOT_PREDICTED = -1  # in a submission, rank of a task that has no predictor; the surrogate's placeholder, too


def check_device(name):
    """Raise InputError unless torch can compute on the device called `name`."""
    try:
        torch.zeros(1, device=name).item()  # "meta" holds no numbers
    except Exception as error:
        raise InputError(f"--device {name}: {first_line(error)}") from None


def flags(data, recipe, tasks=None, results=None):
    """Flags that make a command use this data, recipe name, task names and folder of checkpoints, each as needed."""
    words = ["--recipe", recipe] if recipe != recipes.DEFAULT else []
    words += ["--data_path", data.folder] if not os.path.samefile(data.folder, default_folder()) else []
    words += ["--results_path", results] if results else []
    words += ["--tasks", *tasks] if tasks else []
    return "".join(f" {shlex.quote(str(word))}" for word in words)


def load(tasks=None, *, data=None, recipe=recipes.DEFAULT, results=None, snapshot=None):
    """Load trained predictors: a list of recipes.base.TrainedPredictor, one for each task.

    data: dataset.Data to use them for; without it and `results`, they are the published ones. tasks: names, by default
    all that the data's training file labels, or the eight if there is none. results: folder of the checkpoints, by
    default the data's; there, a task without a checkpoint trained on this data gets the published one, if there is one,
    with a message. snapshot: index of a snapshot, by default the recorded one. Raises InputError, OSError.
    """
    recipe, published = recipes.get(recipe), Path(project_path("results", PUBLISHED))
    sha = None  # of the training file
    if data and data.train_file.exists():
        sha = sha256(data.train_file)
        tasks = tasks or label_fields(data.train_file, load_entries(data.train_file)[1])
    folder = Path(results or (data.results if data else published))
    wanted = map(find_task, tasks or [task.name for task in TASKS])
    fallback = {task: not results and recipe.path(published, task).exists() for task in wanted}
    missing = [task.name for task in fallback if not fallback[task] and not recipe.path(folder, task).exists()]
    if missing:
        words = data and flags(data, recipe.name, missing, results)
        train = f": train it: python {quoted_path('main.py')}{words}" if data else ""
        raise InputError(f"{folder}: no checkpoint of the recipe {recipe.name} for {', '.join(missing)}{train}")
    predictors = []
    for task, has_fallback in fallback.items():
        path, ours = recipe.path(folder, task), recipe.path(published, task)
        predictor = recipe.load(path if path.exists() else ours, task, snapshot)
        if has_fallback and sha and _data_of(predictor, sha) != sha:
            predictor = recipe.load(ours, task, snapshot)
        predictors.append(predictor)
    _say_origin(predictors, data, sha, published)
    return predictors


def _data_of(predictor, default):
    """SHA-256 of the training file of a predictor; the reference's own checkpoints do not record it."""
    return predictor.checkpoint.get("data", default)


def _say_origin(predictors, data, sha, published):
    """Say which predictors are the published ones, which were trained on other data, and which rank nothing."""
    names = {}
    for predictor in predictors if data else ():
        foreign = sha is not None and _data_of(predictor, sha) != sha
        names.setdefault((foreign, predictor.path.parent == published), []).append(predictor.task.name)
    for (foreign, is_published), tasks in names.items():
        if foreign:
            use = f"using the published checkpoints in {published}" if is_published else "used all the same"
            log.warning(f"not trained on {data.train_file}: {', '.join(tasks)}; {use}")
        elif is_published:
            log.info(f"using the published checkpoints in {published}: {', '.join(tasks)}")
    for predictor in predictors:
        if predictor.is_constant:
            log.warning(f"{predictor.path}: gives one score to all architectures: it ranks nothing")


def score_all(predictors, architectures, device="cpu"):
    """Scores of n architectures by k predictors, as recipes.model.score: (k, n)."""
    names = [f"recipe {predictor.recipe.name}, task {predictor.task.name}" for predictor in predictors]
    return score([predictor.model for predictor in predictors], architectures, device, names)


def rank(predictors, architectures, device="cpu"):
    """Ranks of n architecture strings: {task name: (n,) int64 in [0, n)}, 0 is the best; ties share the lowest."""
    scores = score_all(predictors, architectures, device)
    return {predictor.task.name: ranks(row) for predictor, row in zip(predictors, scores, strict=True)}


def submission_path(name):
    """Path of the submission called `name`, in the current folder."""
    return Path(f"Track2_submitA_{name}.json")


def rank_file(predictors, test_file, path, intervals_path=None, device="cpu"):
    """Rank the architectures of a test file for k tasks, and write a submission; returns the number of architectures.

    The submission is the test file with `<task>_rank` filled in; the ranks of other tasks become NOT_PREDICTED.
    intervals_path: also write {key: {"arch": string, "<task>_rank_interval": [low, high], ...}}, intervals that hold
    the true rank among all with probability PROBABILITY. Raises as load_entries and score, OSError.
    """
    architectures, entries = load_entries(test_file)
    scores = score_all(predictors, architectures, device)
    intervals = {key: {"arch": entry["arch"]} for key, entry in entries.items()}
    others = {field for entry in entries.values() for field in entry if field.endswith("_rank")}
    for field in others.difference(predictor.task.rank_key for predictor in predictors):
        for entry in entries.values():
            entry[field] = NOT_PREDICTED
    for predictor, row in zip(predictors, scores, strict=True):
        for entry, found in zip(entries.values(), ranks(row).tolist(), strict=True):
            entry[predictor.task.rank_key] = found
        if intervals_path:
            ends = rank_intervals(predictor, row, len(entries))
            for entry, interval in zip(intervals.values(), ends.tolist(), strict=True):
                entry[f"{predictor.task.rank_key}_interval"] = interval
    write_file(path, json.dumps(entries).encode())
    if intervals_path:
        write_file(intervals_path, json.dumps(intervals).encode())
    return len(entries)


def rank_intervals(predictor, scores, n):
    """Intervals of the ranks among n architectures of those with these scores (m,): (m, 2) int64, [low, high].

    An interval holds the true rank with probability PROBABILITY, for an architecture that was not chosen for its score:
    for the best of many, it is too optimistic. Raises InputError where the recipe has no intervals.
    """
    if predictor.recipe.rank_interval is None:
        raise InputError(f"the recipe {predictor.recipe.name} has no rank intervals: use gp")
    if remark := predictor.recipe.remark(predictor.checkpoint):
        log.info(f"{predictor.task.name}: {remark}")
    low, high = predictor.recipe.rank_interval(predictor.checkpoint, scores, n, recipes.PROBABILITY)
    return torch.stack([low, high], 1)


def shares_beaten(predictors, architectures, device="cpu"):
    """Scores of n architectures by k predictors, and the share of the search space that each beats: two (k, n) arrays.

    The space is represented by SAMPLED sampled architectures. An architecture beats those with larger scores. Shares
    are in [0, 1].
    """
    values = score_all(predictors, [*architectures, *sample_architectures(SAMPLED, seed=0)], device).numpy()
    scores, sample = values[:, : len(architectures)], np.sort(values[:, len(architectures) :])
    lower = [np.searchsorted(ordered, row, "right") for ordered, row in zip(sample, scores, strict=True)]
    return scores, (SAMPLED - np.stack(lower)) / SAMPLED


def shares_intervals(predictors, scores):
    """Intervals of the shares of the space that n architectures truly beat, as rank_intervals: (k, n, 2) in [0, 1]."""
    ends = [rank_intervals(each, torch.from_numpy(row), SAMPLED) for each, row in zip(predictors, scores, strict=True)]
    ends = np.stack(ends) + np.array([0, 1])  # of the sampled ones, a true rank r has r before it and the rest after it
    return 1 - ends[..., ::-1] / SAMPLED
