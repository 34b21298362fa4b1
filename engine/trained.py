"""One trained task: fit a recipe, describe its checkpoint, and load it from a file."""

import hashlib
import inspect
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import recipes
from common.files import InputError, first_line, read_file
from common.processes import one_thread
from dataset import Labels, encode
from engine.checkpoint import HEADER, check_values, from_bytes, read, to_bytes, versions
from engine.model import score
from recipes import DEFAULT
from recipes.base import Model
from tasks import Task

CHECKED_ON = 1000  # sampled architectures that a model has to score before it is saved or used


class TrainedPredictor(NamedTuple):
    """A task's checkpoint, and the model in it that scores."""

    recipe: object
    task: Task
    path: Path | None  # None where it lies in no file
    checkpoint: dict
    snapshot: int | None  # index of the snapshot that scores, where the recipe keeps several
    model: Model
    is_constant: bool  # gives one score to all architectures: it ranks nothing
    is_foreign: bool = False  # trained on other data than it is used for
    labels: Labels | None = None  # what it was fitted to, where it lies in no file

    def __repr__(self):  # without the weights
        return f"<{self.task.name}: {self.path}>"


def learn(recipe, task, labels, device="cpu", report=None):
    """As fit_labels: (fitted part of a checkpoint, whether it gives all architectures one score)."""
    trained = fit_labels(recipe, task, labels, device, report)
    return trained.checkpoint, trained.is_constant


def fit_labels(recipe, task, labels, device="cpu", report=None):
    """Fit a recipe to dataset.Labels: TrainedPredictor, which lies in no file and has no header.

    Every training goes through here, so that its bytes depend on nothing else. Raises as recipe.fit, and InputError
    where the recipe returns what cannot be saved or cannot score.
    """
    random.seed(task.seed)
    np.random.seed(task.seed % 2**32)
    torch.manual_seed(task.seed)
    with one_thread():
        encodings = encode(recipe.space, labels.architectures)
        fitted = recipe.fit(task, encodings, labels if recipe.takes_labels else labels.ranks, device, report)
    where = f"recipe {recipe.name}, task {task.name}: what `fit` returns"
    if not isinstance(fitted, dict) or not fitted.keys().isdisjoint(HEADER):
        raise InputError(f"{where}: expected a dictionary without the keys {', '.join(HEADER)}")
    check_values(where, fitted)
    try:
        from_bytes(to_bytes(fitted))
    except Exception as error:
        raise InputError(f"{where}: cannot be saved and read back: {type(error).__name__}") from None
    index = recipe.snapshot_index(fitted)
    return TrainedPredictor(
        recipe, task, None, fitted, index, *checked_model(recipe, task, fitted, index), labels=labels
    )


def checked_model(recipe, task, checkpoint, index):
    """(Model, whether it gives one score to all): checks that it scores CHECKED_ON sampled architectures."""
    model = recipe.model(checkpoint, index)
    if not isinstance(model, Model):
        model = Model(recipe.space, function=model)
    name = f"recipe {recipe.name}, task {task.name}"
    scores = score([model], recipe.space.some(CHECKED_ON), names=[name])[0]
    if recipe.rank_interval:  # its fields may be damaged, too
        recipe.rank_interval(checkpoint, scores, scores, 0.5)
    return model, bool((scores == scores[0]).all())


def fit(space, architectures, accuracies, recipe="gp"):
    """Learn from lists, without files: a TrainedPredictor, which scores, ranks and proposes as those of `load` do.

    space: space.Space; architectures: n strings or objects {decision: choice}; accuracies: n numbers, larger is better,
    None where there is none; recipe: name. Raises InputError.
    """
    for i, accuracy in enumerate(accuracies):
        if accuracy is not None and not abs(accuracy) < 1e300:
            raise InputError(f"architecture {i}: accuracy is {accuracy}: expected a finite number or None")
    numbers = [None if accuracy is None else -accuracy for accuracy in accuracies]
    labels = Labels.of(space.strings(space.parse(architectures)), numbers, measured=True)
    if not labels.ranks.any():
        raise InputError("all accuracies are equal: there is no order to learn")
    return fit_labels(recipes.get(recipe, space), Task("own"), labels)


def header(recipe, task, data, device="cpu"):
    """A checkpoint without the fitted part; data: dataset.digest of the training file."""
    about = {"task": {"name": task.name} | {name: getattr(task, name) for name in recipe.settings}}
    about |= {} if recipe.name == DEFAULT else {"recipe": recipe.name}
    about |= {"space": recipe.space.digest} if recipe.space.digest else {}
    return about | {"data": data, "code": _code(recipe), "versions": versions(device), "stopped": None}


def _code(recipe):
    """SHA-256 of the files that decide what a recipe learns; None for one that is in no file."""
    try:
        files = [inspect.getfile(part) for part in (type(recipe), *recipe.modules)]
    except (TypeError, OSError):
        return None
    return hashlib.sha256(b"".join(map(read_file, files))).hexdigest()


def load_checkpoint(recipe, path, task, index=None):
    """Load the checkpoint of `task` at `path`: TrainedPredictor. index: of a snapshot, by default the recorded one.

    Raises InputError where it is not a checkpoint of this task and recipe, or cannot score; OSError.
    """
    checkpoint = read(path)
    try:
        checkpoint = recipe.convert(checkpoint, task)
        found, name = checkpoint.get("recipe", DEFAULT), checkpoint["task"]["name"]
        if found != recipe.name:
            raise InputError(f"a checkpoint of the recipe {found}: expected {recipe.name}")
        if name != task.name:
            raise InputError(f"a checkpoint of {name}: expected {task.name}")
        if checkpoint.get("space") != recipe.space.digest:
            raise InputError("trained on another space, or space.json has changed since: train it again")
        index = recipe.snapshot_index(checkpoint, index)
        recipe.describe(checkpoint, index)
        return TrainedPredictor(recipe, task, path, checkpoint, index, *checked_model(recipe, task, checkpoint, index))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # any other content, or a mistake in a recipe
        what = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{path}: the recipe {recipe.name} cannot use it, train it again: {what}") from error
