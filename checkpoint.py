"""Checkpoints: one file a task with its settings, its curves and its best snapshots; written whole, read safely.

The reference's files are read too: pickles of {validation tau: state dict}.
"""

import contextlib
import errno
import glob
import hashlib
import io
import os
import pickle
import platform
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from metrics import nan_below
from network import Predictor
from tasks import RECIPES, InputError, first_line, settings


class CheckpointError(InputError):
    """A checkpoint that is damaged, of another task or network, or lacks what is asked of it."""


def path_of(folder, task, recipe="reference"):
    """Where `task` has its checkpoint."""
    return Path(folder) / f"{task.name}_{RECIPES[recipe].ending}.pth"


def fingerprint(path):
    """The sha256 of a file, hexadecimal: which data a checkpoint was trained on."""
    return hashlib.sha256(read_whole(path)).hexdigest()


def versions():
    """The versions that a predictor's last bits depend on."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def _check_file(path):
    """Raise OSError where `path` is there and no file: a pipe may never end, a device must not be replaced."""
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a pipe or a device: expected a file", str(path))


def read_whole(path):
    """The bytes of the file `path`; raises OSError."""
    path = Path(path)
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_whole(path, data):
    """Write the bytes `data` to `path`: beside it first, then renamed, so that `path` is never half-written.

    What a killed process left beside `path` is cleared. Raises OSError, `path` then being as it was.
    """
    path = Path(path)
    _check_file(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if not _alive(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _alive(pid):
    """Whether the file named after the process `pid` may still be in use."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (PermissionError, ValueError):  # another user's process; not a file of ours
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
        "snapshots": _indexed([snapshot._asdict() for snapshot in run.snapshots]),
    }
    write(path, content)


def _indexed(snapshots):
    """{index: snapshot} of snapshots that ascend by their tau: -1 is the best on validation."""
    return dict(enumerate(snapshots, -len(snapshots)))


def write(path, content):
    """Write a checkpoint's content; raises OSError."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def is_of(content, task, data_fingerprint, versions):
    """Whether a checkpoint's content is what training `task` on this data with these versions gives."""
    return (
        content["task"] == settings(task)
        and content.get("data") == data_fingerprint
        and content.get("versions") == versions
        and content.get("stopped", "not said") is None
    )


def slim(path, task):
    """Rewrite the checkpoint of `task` without the snapshots that do not score: all else stays, the index too.

    Raises CheckpointError, OSError.
    """
    content = load(path, task)
    index = _held(path, content, content["index"])
    content["snapshots"] = {index: content["snapshots"][index]}
    write(path, content)


def _held(path, content, index):
    """The index, negative, under which the snapshot called `index` lies in the file."""
    held = list(content["snapshots"])
    if 0 <= index < len(held):
        return held[index]
    if index not in held:
        raise CheckpointError(f"{path}: no snapshot {index}: it holds {len(held)}, {held[0]} to {held[-1]}")
    return index


# All that a NumPy float in a pickle is made of, with the name of its function before and since NumPy 2.
_scalar = np.float64().__reduce__()[0]
NUMPY_FLOAT = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]


def read(path, task):
    """The content of `path`, the checkpoint of `task`; nothing in it is run. Raises CheckpointError, OSError."""
    try:
        data = read_whole(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint of {task.name}: train it first") from None
    _check_archive(path, data)
    try:
        with torch.serialization.safe_globals(NUMPY_FLOAT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is unusual in a file; it is refused, or no matter
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its message is long, and tells how to run what is in the file
        raise CheckpointError(f"{path}: not a checkpoint: damaged, or it holds more than tensors and numbers") from None
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint: {first_line(error)}") from None


def load(path, task):
    """Read the checkpoint of `task` as the dictionary that `save` wrote.

    Of a file of the reference, which does not say more, it has the name of `task`, the index, which is the task's, and
    the snapshots: their taus and state dicts. Raises CheckpointError, OSError.
    """
    content = read(path, task)
    if _is_reference(content):
        taus = sorted(content, key=nan_below)
        snapshots = [{"ktau": float(ktau), "state_dict": content[ktau]} for ktau in taus]
        return {"task": {"name": task.name}, "index": task.snapshot, "snapshots": _indexed(snapshots)}
    if not (is_named(content) and _has_snapshots(content)):
        raise CheckpointError(f"{path}: not a checkpoint: expected main.py's, or validation taus with state dicts")
    check_name(path, content, task)
    return content


def is_named(content):
    """Whether the content is a dictionary that says which task it is of."""
    return isinstance(content, dict) and isinstance(content.get("task"), dict) and "name" in content["task"]


def check_name(path, content, task):
    """Raise CheckpointError unless the content is of `task`."""
    if content["task"]["name"] != task.name:
        raise CheckpointError(f"{path}: the checkpoint of {content['task']['name']}: expected {task.name}")


def _check_archive(path, data):
    """Raise CheckpointError where a zip archive, as torch writes it, is damaged or larger inside than outside."""
    if not data.startswith(b"PK"):
        return  # the older format, a bare pickle
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = archive.infolist()
            stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
            damaged = not stored or sum(record.file_size for record in records) > len(data) or archive.testzip()
    except Exception:  # whatever a damaged archive makes the reader stumble over
        damaged = True
    if damaged:
        raise CheckpointError(f"{path}: not a checkpoint: the file is damaged")


def _has_snapshots(content):
    """Whether this holds snapshots as `save` writes them."""
    return (
        isinstance(content.get("index"), int)
        and isinstance(content.get("snapshots"), dict)
        and bool(content["snapshots"])
        and all(
            isinstance(index, int)
            and isinstance(snapshot, dict)
            and isinstance(snapshot.get("ktau"), float)
            and is_state_dict(snapshot.get("state_dict"))
            for index, snapshot in content["snapshots"].items()
        )
    )


def _is_reference(content):
    """Whether this is {validation tau: state dict}, and no more."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(ktau, float) for ktau in content)  # a NumPy float is one
        and all(map(is_state_dict, content.values()))
    )


def is_state_dict(content):
    """Whether this is a dictionary of tensors as a predictor has them."""
    return isinstance(content, dict) and all(map(is_array, content.values()))


def is_array(value, dtype=torch.float32):
    """Whether this is a tensor of that type that is neither sparse, nor nested, nor without its numbers."""
    return (
        torch.is_tensor(value)
        and value.dtype == dtype
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
    )


class Chosen(NamedTuple):
    """The snapshot that scores a task."""

    index: int
    ktau: float
    state_dict: dict


def choose(path, task, index=None):
    """The snapshot of `task` at `index`, or at the one its checkpoint records.

    The snapshots are sorted ascending by validation tau: -1 is the best, 0 the worst in the file. Raises
    CheckpointError, OSError.
    """
    return pick(path, load(path, task), index)


def pick(path, content, index=None):
    """The same, of the content of `path`, which `load` has read."""
    index = _held(path, content, content["index"] if index is None else index)
    snapshot = content["snapshots"][index]
    check_weights(path, f"snapshot {index}", snapshot["state_dict"])
    return Chosen(index, snapshot["ktau"], snapshot["state_dict"])


def check_weights(path, name, state_dict):
    """Raise CheckpointError unless a dictionary of tensors, called `name`, is a state dict of Predictor, all finite."""
    expected = {name: value.shape for name, value in Predictor().state_dict().items()}
    if {name: value.shape for name, value in state_dict.items()} != expected:
        raise CheckpointError(f"{path}: {name} is of another network: expected the predictor's parameters")
    if not all(value.isfinite().all() for value in state_dict.values()):
        raise CheckpointError(f"{path}: {name} holds weights that are no finite numbers: choose another")
