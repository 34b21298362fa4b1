"""Load trained predictors: the user's own, or the published ones where there are none."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import recipes
import surrogate
from dataset import TRAIN_FILE, labelled_tasks, load_entries, sample_architectures
from files import InputError, first_line, say, sha256
from folders import PUBLISHED, choose_folders, project_folder
from scoring import score
from tasks import TASKS, find_task

SAMPLED = 100_000  # architectures that stand for the search space


class Loaded(NamedTuple):
    """Checkpoint and model of one task."""

    path: Path
    content: dict
    index: int | None  # the snapshot that scores
    model: object  # as Recipe.model


def load_models(tasks, recipe=recipes.DEFAULT, folder=None):
    """Models of the named tasks for scoring.score, by default the published ones.

    tasks: names such as "sop"; folder: of the checkpoints. Raises CheckpointError, SettingError, OSError.
    """
    recipe, folder = recipes.get(recipe), folder or project_folder("results", PUBLISHED)
    models = []
    for task in map(find_task, tasks):
        path = recipe.path(folder, task)
        content = recipe.load(path, task)
        models.append(recipe.model(content, recipe.snapshot_index(path, content)))
    return models


def load_predictors(args, index=None):
    """Choose the folders and the tasks of `args`, and load their checkpoints: (recipe, [Loaded]), one for each task.

    Without --tasks, the tasks are all that the training file labels, or all eight if there is no such file. Without
    --results_path, a task that has no checkpoint trained on this data gets the published one, if there is one, with a
    message. index: of the snapshot, by default the recorded one. Raises as choose_folders, surrogate.prepare and
    Recipe.load, and InputError for a device that torch cannot use.
    """
    check_device(args.device)
    given = args.results_path is not None
    choose_folders(args)
    surrogate.prepare(args.data_path)
    train_file = Path(args.data_path, TRAIN_FILE)
    data = sha256(train_file) if train_file.exists() else None
    if args.tasks is None:
        args.tasks = labelled_tasks(train_file, load_entries(train_file)[1]) if data else TASKS
    recipe, published = recipes.get(args.recipe), project_folder("results", PUBLISHED)
    loaded, stand_ins, others = [], [], []
    for task in args.tasks:
        path, stand_in = recipe.path(args.results_path, task), recipe.path(published, task)
        content = recipe.load(path, task) if given or path.exists() or not stand_in.exists() else None
        other = data not in (None, content.get("data", data) if content else None)  # trained on another file
        if content is None or (other and not given and stand_in.exists()):
            path, content = stand_in, recipe.load(stand_in, task)
            stand_ins.append(task.name)
        elif other:
            others.append(task.name)
        chosen = recipe.snapshot_index(path, content, index)
        loaded.append(Loaded(path, content, chosen, recipe.model(content, chosen)))
    if stand_ins:
        say(f"not trained on {train_file}: {', '.join(stand_ins)}; using the published checkpoints in {published}")
        if args.largest:
            raise InputError("--largest: in the published predictors smaller is better: train on your own labels first")
    if others:
        say(f"not trained on {train_file}: {', '.join(others)}; used all the same")
    return recipe, loaded


def check_device(name):
    """Raise InputError unless torch can compute on the device called `name`."""
    try:
        torch.zeros(1, device=name).item()  # "meta" holds no numbers
    except Exception as error:
        raise InputError(f"--device {name}: {first_line(error)}") from None


def shares_beaten(models, architectures, device="cpu", largest=False):
    """Scores of n architectures by k models, and the share of the search space that each beats: two (k, n) arrays.

    The space is represented by SAMPLED sampled architectures. An architecture beats those with larger scores, or with
    `largest` those with smaller scores. Shares are in [0, 1]. Raises InputError for a score that is NaN.
    """
    values = score(models, [*architectures, *sample_architectures(SAMPLED, seed=0)], device).numpy()
    if np.isnan(values).any():
        raise InputError(f"{np.isnan(values).sum()} of {values.size} scores are NaN: train the models again")
    scores, sample = values[:, : len(architectures)], np.sort(values[:, len(architectures) :])
    side = "left" if largest else "right"
    smaller = np.stack([np.searchsorted(ordered, row, side) for ordered, row in zip(sample, scores, strict=True)])
    return scores, (smaller if largest else SAMPLED - smaller) / SAMPLED
