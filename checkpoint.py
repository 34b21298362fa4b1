"""Checkpoints: one file a task with its settings, its curves and its best snapshots; written whole, read safely."""

import hashlib
import io
import os
import platform
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from network import Predictor
from tasks import InputError, first_line, settings


class CheckpointError(InputError):
    """A checkpoint that is damaged, of another task or network, or lacks what is asked of it."""


def path_of(folder, task):
    """Where `task` has its checkpoint."""
    return Path(folder) / f"{task.name}_final.pth"


def fingerprint(path):
    """The sha256 of a file, hexadecimal: which data a checkpoint was trained on."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def versions():
    """The versions that a training's last bits depend on."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def write_whole(path, data):
    """Write the bytes `data` to `path`: beside it first, then renamed, so that `path` is never half-written.

    What a killed process left beside `path` is cleared. Raises OSError, `path` then being as it was.
    """
    path = Path(path)
    for left in path.parent.glob(f".{path.name}.*.part"):
        if not _alive(int(left.suffixes[-2][1:])):
            left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def save(path, run, data_fingerprint):
    """Write a training.Run. The file depends on nothing but its arguments and versions(); raises OSError."""
    content = {
        "task": settings(run.task),
        "index": run.index,
        "train_loss": run.train_loss,
        "train_ktau": run.train_ktau,
        "validate_ktau": run.validate_ktau,
        "stopped": run.stopped,
        "data": data_fingerprint,
        "versions": versions(),
        "snapshots": [snapshot._asdict() for snapshot in run.snapshots],
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


class Chosen(NamedTuple):
    """The snapshot that scores a task."""

    index: int
    ktau: float
    state_dict: dict


def load(path, task):
    """Read the checkpoint of `task` as the dictionary that `save` wrote. Raises CheckpointError, OSError."""
    data = Path(path).read_bytes()
    try:
        content = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint: {first_line(error)}") from None
    if content["task"]["name"] != task.name:
        raise CheckpointError(f"{path}: the checkpoint of {content['task']['name']}: expected {task.name}")
    return content


def choose(path, task, index=None):
    """The snapshot of `task` at `index`, or at the one its checkpoint records.

    The snapshots are sorted ascending by validation tau: -1 is the best. Raises CheckpointError, OSError.
    """
    content = load(path, task)
    snapshots = content["snapshots"]
    index = content["index"] if index is None else index
    if not -len(snapshots) <= index < len(snapshots):
        raise CheckpointError(f"{path}: no snapshot {index}: it holds {len(snapshots)}, -{len(snapshots)} to -1")
    snapshot = snapshots[index]
    expected = {name: value.shape for name, value in Predictor().state_dict().items()}
    if {name: value.shape for name, value in snapshot["state_dict"].items()} != expected:
        raise CheckpointError(f"{path}: snapshot {index} is of another network: expected the predictor's parameters")
    return Chosen(index, snapshot["ktau"], snapshot["state_dict"])
