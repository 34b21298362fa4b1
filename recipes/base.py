"""The interface of a recipe. Subclasses write `fit` and `model`; the rest has defaults."""

import abc
import dataclasses
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.files import InputError, first_line
from common.processes import one_thread
from dataset import encode
from recipes import DEFAULT, PROBABILITY
from recipes.checkpoint import HEADER, check_values, from_bytes, read, to_bytes, versions
from recipes.model import score
from space import sample_architectures
from tasks import Task

TRIED = 1000  # sampled architectures that a model has to score before it is saved or used


class TooFewError(InputError):
    """There are too few architectures for a recipe: it needs `needed`, or batches of at most `batch_size`."""

    def __init__(self, message, needed, batch_size):
        super().__init__(message)
        self.needed, self.batch_size = needed, batch_size


class TrainedPredictor(NamedTuple):
    """A task's checkpoint, and the model in it that scores."""

    recipe: object
    task: Task
    path: Path
    checkpoint: dict
    snapshot: int | None  # index of the snapshot that scores, where the recipe keeps several
    model: object  # as Recipe.model returns it
    is_constant: bool  # gives one score to all architectures: it ranks nothing

    def __repr__(self):  # without the weights
        return f"<{self.task.name}: {self.path}>"


class Recipe(abc.ABC):
    """A way to learn one task and to score architectures with it."""

    settings = ()  # the fields of tasks.Task that it uses; each is a flag of main.py
    # A recipe with uncertainty has a method rank_interval(checkpoint, scores (m,), n, probability). It returns two (m,)
    # tensors, the ends of intervals that hold the true rank among n architectures with that probability.
    rank_interval = None

    def __init__(self, name, suffix):
        self.name, self.suffix = name, suffix

    @abc.abstractmethod
    def fit(self, task, encodings, ranks, device="cpu", report=None):
        """Learn one task, on one thread and from a fixed seed of random, numpy and torch.

        task: tasks.Task; encodings: (n, 37, 10) float32 tensor; ranks: (n,) int64 array, 0 is the best, ties allowed;
        report: called after each epoch as report(epoch, loss, train tau, validation tau), with None for a missing tau.
        Returns the fitted part of a checkpoint: a dictionary of tensors, numbers and strings. Raises TooFewError where
        n is too small.
        """

    @abc.abstractmethod
    def model(self, checkpoint, index=None):
        """Model of a trained task: a recipes.model.Model, or a function from (m, 37, 10) encodings to (m,) scores.

        index: of a snapshot, as `snapshot_index` returns it, where a recipe keeps several.
        """

    def train_steps(self, task, n):
        """(epochs, batches an epoch) of training on n architectures; raises TooFewError where n is too small."""
        return 1, 1

    def convert(self, checkpoint, task):
        """Convert a file in another format to a checkpoint of this recipe; the default changes nothing."""
        return checkpoint

    def snapshot_index(self, checkpoint, index=None):
        """Index of a snapshot in the checkpoint, by default the recorded one; None for recipes without snapshots.

        Raises InputError where there is no such snapshot.
        """
        if index is not None:
            raise InputError(f"the recipe {self.name} has no snapshots to choose from")

    def summary(self, checkpoint):
        """Figures of a trained task for the closing table: {column: number}. Means are taken of the floats."""
        return {}

    def describe(self, checkpoint, index=None):
        """A few words on the scoring model of a trained task."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.summary(checkpoint).items()) or self.name

    def remark(self, checkpoint):
        """A line about a trained task that a user should read, or None."""
        return None

    def configure(self, task, settings):
        """`task` with the given settings, {name: value}; raises InputError for one that the recipe does not have."""
        for name in settings:
            if name not in self.settings:
                raise InputError(f"--{name}: the recipe {self.name} has no such setting")
        return dataclasses.replace(task, **settings)

    def learn(self, task, architectures, ranks, device="cpu", report=None):
        """Fit one task to n architecture strings and their ranks: (fitted part of a checkpoint, is it constant).

        Every training goes through here, so that its bytes depend on nothing else. Raises as `fit`, and InputError
        where the recipe returns what cannot be saved or cannot score.
        """
        random.seed(task.seed)
        np.random.seed(task.seed % 2**32)
        torch.manual_seed(task.seed)
        with one_thread():
            fitted = self.fit(task, encode(architectures), ranks, device, report)
        where = f"recipe {self.name}, task {task.name}: what `fit` returns"
        if not isinstance(fitted, dict) or not fitted.keys().isdisjoint(HEADER):
            raise InputError(f"{where}: expected a dictionary without the keys {', '.join(HEADER)}")
        check_values(where, fitted)
        try:
            from_bytes(to_bytes(fitted))
        except Exception as error:
            raise InputError(f"{where}: cannot be saved and read back: {type(error).__name__}") from None
        _, is_constant = self._try(fitted, task, self.snapshot_index(fitted))
        return fitted, is_constant

    def _try(self, checkpoint, task, index):
        """(model, whether it gives one score to all): checks that the model scores TRIED sampled architectures."""
        model = self.model(checkpoint, index)
        name = f"recipe {self.name}, task {task.name}"
        scores = score([model], sample_architectures(TRIED, seed=0), names=[name])[0]
        if self.rank_interval:  # its fields may be damaged, too
            self.rank_interval(checkpoint, scores, TRIED, PROBABILITY)
        return model, bool((scores == scores[0]).all())

    def header(self, task, data, device):
        """A checkpoint without the fitted part; data: SHA-256 of the training file."""
        about = {"task": {"name": task.name} | {name: getattr(task, name) for name in self.settings}}
        about |= {} if self.name == DEFAULT else {"recipe": self.name}
        return about | {"data": data, "versions": versions(device), "stopped": None}

    def path(self, folder, task):
        """Path of the task's checkpoint in `folder`."""
        return Path(folder, f"{task.name}_{self.suffix}.pth")

    def load(self, path, task, index=None):
        """Load the checkpoint of `task` at `path`: TrainedPredictor. index: of a snapshot, by default the recorded one.

        Raises InputError where it is not a checkpoint of this task and recipe, or cannot score; OSError.
        """
        checkpoint = read(path)
        try:
            checkpoint = self.convert(checkpoint, task)
            found, name = checkpoint.get("recipe", DEFAULT), checkpoint["task"]["name"]
            if found != self.name:
                raise InputError(f"a checkpoint of the recipe {found}: expected {self.name}")
            if name != task.name:
                raise InputError(f"a checkpoint of {name}: expected {task.name}")
            index = self.snapshot_index(checkpoint, index)
            self.describe(checkpoint, index)
            return TrainedPredictor(self, task, path, checkpoint, index, *self._try(checkpoint, task, index))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # any other content, or a mistake in a recipe
            what = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(f"{path}: the recipe {self.name} cannot use it, train it again: {what}") from error
