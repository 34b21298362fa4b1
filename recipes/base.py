"""The interface of a recipe: what a user's own one has to have, and what it returns."""

import abc
import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch

from common.files import InputError


class TooFewError(InputError):
    """There are too few architectures for a recipe: it needs `needed`, or batches of at most `batch_size`."""

    def __init__(self, message, needed, batch_size):
        super().__init__(message)
        self.needed, self.batch_size = needed, batch_size


class Model(NamedTuple):
    """Score of an architecture with features x: x A x + the weighted sum of the networks' scores, or a function's.

    A high score predicts a high rank number, that is a bad architecture. Where there is a function, nothing bounds the
    scores of the whole space.
    """

    space: object  # space.Space
    matrix: torch.Tensor | None = None  # (features, features) float64, A
    networks: tuple = ()  # state dicts of network.Predictor
    weights: tuple = ()  # a float for each network
    function: object = None  # from encodings (m, rows, columns) to (m,) real numbers; then there is nothing else


class Recipe(abc.ABC):
    """A way to learn one task and to score architectures with it. Subclasses write `fit` and `model`."""

    settings = ("seed",)  # the fields of tasks.Task that it uses and that a checkpoint records; each is a flag
    modules = ()  # modules besides its own that decide what it learns
    loss_name = "loss"  # of what `fit` reports, in TensorBoard
    takes_labels = False  # `fit` gets a dataset.Labels instead of ranks
    # A recipe with uncertainty has a method rank_interval(checkpoint, scores (m,), population (n,), probability). It
    # returns two (m,) tensors, the ends of intervals that hold the true rank with that probability, among the n
    # architectures whose scores are the population.
    rank_interval = None

    def __init__(self, name, suffix, space):
        self.name, self.suffix, self.space = name, suffix, space

    @abc.abstractmethod
    def fit(self, task, encodings, ranks, device="cpu", report=None):
        """Learn one task, on one thread; random, numpy and torch are seeded with task.seed.

        task: tasks.Task; encodings: (n, rows, columns) float32 tensor; ranks: (n,) int64 array, 0 is the best, ties
        allowed (with takes_labels, a dataset.Labels); report: called after each epoch as report(epoch, loss, train tau,
        validation tau), with None for what is not known.
        Returns the fitted part of a checkpoint: a dictionary of tensors, numbers and strings. Raises TooFewError where
        n is too small.
        """

    @abc.abstractmethod
    def model(self, checkpoint, index=None):
        """Model of a trained task: a Model, or a function from (m, rows, columns) encodings to (m,) scores.

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
            if name not in (*self.settings, "seed"):
                raise InputError(f"{name}: the recipe {self.name} has no such setting")
        return dataclasses.replace(task, **settings)

    def path(self, folder, task):
        """Path of the task's checkpoint in `folder`."""
        return Path(folder, f"{task.name}_{self.suffix}.pth")
