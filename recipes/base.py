"""The interface of a recipe. Subclasses write `fit` and `model`; the rest has defaults."""

import abc
import dataclasses
from pathlib import Path

import torch

from checkpoint import CheckpointError, check_tensor, read, versions
from recipes import DEFAULT
from tasks import SettingError


class Recipe(abc.ABC):
    """A way to learn one task and to score architectures with it."""

    settings = ()  # the fields of tasks.Task that it uses; each is a flag of main.py
    # A recipe with uncertainty has a method rank_interval(content, scores (m,), n, probability). It returns two (m,)
    # tensors, the ends of intervals that hold the true rank among n architectures with that probability.
    rank_interval = None

    def __init__(self, name, suffix):
        self.name, self.suffix = name, suffix

    @abc.abstractmethod
    def fit(self, task, encodings, ranks, device="cpu", report=None):
        """Learn one task.

        task: tasks.Task; encodings: (n, 37, 10) float32 tensor; ranks: (n,) int64 array, 0 is the best, ties allowed;
        report: called after each epoch as report(epoch, loss, train tau, validation tau), with None for a missing tau.
        Returns the fitted part of a checkpoint's content: a dictionary of tensors, numbers and strings. Raises
        SettingError where n is too small.
        """

    @abc.abstractmethod
    def model(self, content, index=None):
        """Model of a trained task: a scoring.Model, or a function from (m, 37, 10) encodings to (m,) scores.

        content: of its checkpoint; index: of a snapshot, as `snapshot_index` returns it, where a recipe keeps several.
        """

    def train_steps(self, task, n):
        """(epochs, batches an epoch) of training on n architectures; raises SettingError where n is too small."""
        if n < 2:
            raise SettingError(f"{task.name}: {n} architecture: there is no order to learn")
        return 1, 1

    def check(self, path, content):
        """Raise CheckpointError unless the fitted part of the content can score. The default checks tensors only."""
        for name, value in content.items():
            if torch.is_tensor(value):
                check_tensor(path, name, value)

    def convert(self, content, task):
        """Convert the content of a file in another format to this recipe's; the default changes nothing."""
        return content

    def snapshot_index(self, path, content, index=None):
        """Checked index of a snapshot, by default the recorded one; None for recipes without snapshots.

        Raises CheckpointError where there is no such snapshot.
        """
        if index is not None:
            raise CheckpointError(f"{path}: the recipe {self.name} has no snapshots to choose from")

    def summary(self, content):
        """Figures of a trained task for the closing table: {column: number}. Means are taken of the floats."""
        return {}

    def describe(self, content, index=None):
        """A few words on the scoring model of a trained task."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.summary(content).items()) or self.name

    def remark(self, content):
        """A line about a trained task that a user should read, or None."""
        return None

    def configure(self, task, settings):
        """`task` with the given settings, {name: value}; raises SettingError for one that the recipe does not have."""
        for name in settings:
            if name not in self.settings:
                raise SettingError(f"--{name}: the recipe {self.name} has no such setting")
        return dataclasses.replace(task, **settings)

    def header(self, task, data, device):
        """The content of a checkpoint without the fitted part; data: SHA-256 of the training file."""
        about = {"task": {"name": task.name} | {name: getattr(task, name) for name in self.settings}}
        about |= {} if self.name == DEFAULT else {"recipe": self.name}
        return about | {"data": data, "versions": versions(device), "stopped": None}

    def _check_header(self, path, content, task):
        """Raise CheckpointError unless the content is a checkpoint of `task` by this recipe."""
        about = content.get("task") if isinstance(content, dict) else None
        plain = isinstance(about, dict) and all(isinstance(value, str | int | float) for value in about.values())
        if plain and "data" in content:  # --resume compares it
            data, stopped, found = content["data"], content.get("stopped"), content.get("versions")
            plain = isinstance(data, str) and isinstance(stopped, str | None) and isinstance(found, dict)
            plain = plain and all(isinstance(value, str) for value in found.values())
        if not plain or "name" not in about:
            raise CheckpointError(f"{path}: not a checkpoint: expected a file that main.py wrote")
        found = content.get("recipe", DEFAULT)
        if found != self.name:
            found = found[:40] if isinstance(found, str) else "another program"
            raise CheckpointError(f"{path}: a checkpoint of the recipe {found}: expected {self.name}")
        if about["name"] != task.name:
            raise CheckpointError(f"{path}: a checkpoint of {about['name']}: expected {task.name}")

    def path(self, folder, task):
        """Path of the task's checkpoint in `folder`."""
        return Path(folder, f"{task.name}_{self.suffix}.pth")

    def load(self, path, task):
        """Read the checkpoint of `task` at `path`: its content. Raises CheckpointError, OSError."""
        try:
            content = self.convert(read(path), task)
        except FileNotFoundError:
            command = f"train it on this data: python main.py --recipe {self.name} --tasks {task.name}"
            raise CheckpointError(f"{path}: there is no checkpoint of {task.name}: {command}") from None
        self._check_header(path, content, task)
        self.check(path, content)
        return content
