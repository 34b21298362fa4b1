"""The interface of a recipe. Subclasses write `fit` and `model`; the rest has defaults."""

import abc
import dataclasses
from pathlib import Path

import torch

import checkpoint
from tasks import SettingError


class Recipe(abc.ABC):
    """A way to learn one task and to score architectures with it."""

    settings = ()  # the fields of tasks.Task that it uses; each is a flag of main.py
    # Or a method (content, scores (m,), n, probability) that returns two (m,) tensors: the lowest and the highest rank
    # of the interval that holds the true rank among n with that probability.
    rank_interval = None

    def __init__(self, name, suffix):
        self.name, self.suffix = name, suffix

    @abc.abstractmethod
    def fit(self, task, encodings, ranks, device="cpu", report=None):
        """Learn one task.

        task: tasks.Task; encodings: (n, 37, 10) float32 tensor; ranks: (n,) int64 array, 0 the best, ties allowed;
        report: called after each epoch as report(epoch, loss, train tau, validation tau), a tau None where there is
        none. Returns the fitted part of a checkpoint's content: a dictionary of tensors, numbers and strings. Raises
        SettingError where it cannot learn from so few architectures.
        """

    @abc.abstractmethod
    def model(self, content, index=None):
        """Return what scores architectures: a scoring.Model, or a function from (m, 37, 10) encodings to (m,) scores.

        content: of a checkpoint; index: a snapshot's, for a recipe that keeps several, as `snapshot_index` returns it.
        """

    def train_steps(self, task, n):
        """(epochs, batches an epoch) of training on n architectures; raises SettingError where n is too small."""
        if n < 2:
            raise SettingError(f"{task.name}: {n} architecture: there is no order to learn")
        return 1, 1

    def check(self, path, content, task):
        """Raise CheckpointError unless the fitted part of the content can score. The default looks at tensors only."""
        for name, value in content.items():
            if torch.is_tensor(value):
                checkpoint.check_tensor(path, name, value)

    def convert(self, content, task):
        """Return the content of a file in another format as this recipe's; the default is to return it as it is."""
        return content

    def snapshot_index(self, path, content, index=None):
        """Index of the snapshot that scores: `index`, or the recorded one; raises CheckpointError if there is none."""
        if index is not None:
            raise checkpoint.CheckpointError(f"{path}: the recipe {self.name} has no snapshots to choose from")

    def summary(self, content):
        """Figures of a trained task for the closing table: {column: number}. Means are taken of the floats."""
        return {}

    def describe(self, content, index=None):
        """What scores the task, in a few words."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.summary(content).items()) or self.name

    def remark(self, content):
        """One line about a trained task that a user should read, or None."""
        return None

    def configure(self, task, settings):
        """`task` with the given settings, {name: value}; raises SettingError for one that the recipe does not have."""
        for name in settings:
            if name not in self.settings:
                raise SettingError(f"--{name}: the recipe {self.name} has no such setting")
        return dataclasses.replace(task, **settings)

    def header(self, task, data, device):
        """What a checkpoint says of its training, but for the fitted part; `data` is the training file's SHA-256."""
        about = {"task": {"name": task.name} | {name: getattr(task, name) for name in self.settings}}
        about |= {} if self.name == "reference" else {"recipe": self.name}
        return about | {"data": data, "versions": checkpoint.versions(device), "stopped": None}

    def path(self, folder, task):
        """Path of the task's checkpoint in `folder`."""
        return Path(folder, f"{task.name}_{self.suffix}.pth")

    def load(self, path, task):
        """Read the checkpoint of `task` at `path`: its content. Raises CheckpointError, OSError."""
        try:
            content = self.convert(checkpoint.read(path), task)
        except FileNotFoundError:
            command = f"train it: python main.py --recipe {self.name} --tasks {task.name}"
            raise checkpoint.CheckpointError(f"{path}: there is no checkpoint of {task.name}: {command}") from None
        checkpoint.check_header(path, content, task, self.name)
        self.check(path, content, task)
        return content
