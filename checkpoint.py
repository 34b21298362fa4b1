"""Checkpoints: one file a task, written atomically and read safely.

A checkpoint is a dictionary that torch.save wrote, of tensors, numbers, strings, lists and dictionaries:

    task      {"name": name of the task, and the value of each setting that the recipe uses}
    recipe    name of the recipe; absent for the recipe `reference`
    data      SHA-256 of the training file
    versions  versions, device and CPU kernels of the training, as `versions` returns them
    stopped   None, or why training ended early

and the result of the recipe's `fit`, which each file in recipes/ describes. The reference's own pickles, {validation
tau: state dict}, can be read as well.
"""

import io
import os
import pickle
import platform
import warnings
import zipfile

import numpy as np
import scipy
import torch

from files import InputError, first_line, read_file, write_file
from network import Predictor


class CheckpointError(InputError):
    """A checkpoint that is damaged, belongs to another task or recipe, or lacks a snapshot."""


def versions(device="cpu"):
    """Versions, device and CPU kernels, which decide the last bits of the weights: {name: string}."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "device": str(device),
        "kernels": " ".join([torch.backends.cpu.get_cpu_capability(), os.environ.get("MKL_CBWR", "")]).strip(),
    }


def save(path, content):
    """Write a checkpoint. The same content gives the same bytes. Raises OSError."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getbuffer())


# Parts of a pickled NumPy float; the function has another name since NumPy 2.
_scalar = np.float64().__reduce__()[0]
NUMPY_FLOAT = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]


def read(path):
    """Read a file that torch.save wrote; no code in it is run. Raises CheckpointError, OSError."""
    data = read_file(path)
    _check_archive(path, data)
    try:
        with torch.serialization.safe_globals(NUMPY_FLOAT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual tensors, which the recipe's check refuses
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its message is long, and tells how to run the code in the file
        raise CheckpointError(f"{path}: not a checkpoint: damaged, or it holds more than tensors and numbers") from None
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint: {first_line(error)}") from None


def _check_archive(path, data):
    """Raise CheckpointError where a zip archive, as torch writes it, is damaged or expands beyond its file size."""
    if not data.startswith(b"PK"):
        return  # the older format, a bare pickle
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = archive.infolist()
            stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
            damaged = not stored or sum(record.file_size for record in records) > len(data) or archive.testzip()
    except Exception:  # zipfile raises many types for a damaged archive
        damaged = True
    if damaged:
        raise CheckpointError(f"{path}: not a checkpoint: the file is damaged")


# Scores are computed in float32; sums of numbers up to this size stay finite there.
LARGEST = 1e30


def is_plain(value):
    """True for a dense real tensor on the CPU, as opposed to a sparse, nested, quantised or meta tensor."""
    return (
        torch.is_tensor(value)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_nested or value.is_quantized or value.is_complex())
    )


def check_tensor(path, name, value, shape=None, dtype=None):
    """Raise CheckpointError unless `value` is a plain tensor of that shape and type, its numbers at most LARGEST."""
    if not (is_plain(value) and shape in (None, value.shape) and dtype in (None, value.dtype)):
        expected = "" if shape is None else f" of shape {' x '.join(map(str, shape))}"
        raise CheckpointError(f"{path}: not a checkpoint: {name}: expected a tensor{expected}")
    if not (value.double().abs() <= LARGEST).all():
        raise CheckpointError(f"{path}: {name} holds numbers that are not finite or above {LARGEST:g}")


def check_number(path, name, value):
    """Raise CheckpointError unless `value` is a float."""
    if not isinstance(value, float):
        raise CheckpointError(f"{path}: not a checkpoint: {name}: expected a number")


def check_weights(path, name, state_dict):
    """Raise CheckpointError, which calls it `name`, unless `state_dict` holds the predictor's parameters."""
    expected = {key: value.shape for key, value in Predictor().state_dict().items()}
    if {key: getattr(value, "shape", None) for key, value in state_dict.items()} != expected:
        raise CheckpointError(f"{path}: {name} is of another network: expected the predictor's parameters")
    for key, value in state_dict.items():
        check_tensor(path, f"{name}: {key}", value, dtype=torch.float32)
