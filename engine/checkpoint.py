"""Checkpoints: one file a task, written atomically and read safely.

A checkpoint is a dictionary that torch.save wrote, of tensors, numbers, strings, lists and dictionaries:

    task      {"name": name of the task, and the value of each setting that the recipe uses}
    recipe    name of the recipe; absent for the recipe `reference`
    space     SHA-256 of the search space, space.Space.digest; absent for the competition's
    data      SHA-256 of the training file, dataset.digest
    code      SHA-256 of the recipe's files
    versions  versions, device and CPU kernels of the training, as `versions` returns them
    stopped   None, or why training ended early

and the result of the recipe's `fit`, which each file in recipes/ describes. The reference's own pickles, {validation
tau: state dict}, can be read as well.
"""

import io
import os
import pickle
import platform
import zipfile

import numpy as np
import scipy
import torch

from common.files import InputError, first_line, read_file

# Keys that a recipe must not use; it may set "stopped".
HEADER = ("task", "recipe", "space", "data", "code", "versions")
MAX_WEIGHT = 1e30  # scores are computed in float32; sums of numbers up to this size stay finite there


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


def to_bytes(checkpoint):
    """Bytes of a checkpoint's file; the same checkpoint gives the same bytes."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


# Parts of a pickled NumPy float; the function has another name since NumPy 2. Allowed once, as loads in other threads
# would see a context end.
_scalar = np.float64().__reduce__()[0]
torch.serialization.add_safe_globals(
    [
        (_scalar, "numpy.core.multiarray.scalar"),
        (_scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float64)),
    ]
)


def from_bytes(data):
    """The inverse of to_bytes; no code in the data is run. Raises what torch.load raises."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def read(path):
    """Read a file that torch.save wrote; no code in it is run.

    Raises InputError where it is damaged or holds anything but plain, finite tensors and simple values; OSError.
    """
    data = read_file(path)
    try:
        _check_archive(data)
        checkpoint = from_bytes(data)
        check_values("it", checkpoint)
        return checkpoint
    except pickle.UnpicklingError:  # its message is long, and tells how to run the code in the file
        raise InputError(f"{path}: damaged, or not a checkpoint: holds more than tensors and numbers") from None
    except Exception as error:
        raise InputError(f"{path}: damaged, or not a checkpoint: {first_line(error)}") from None


def _check_archive(data):
    """Raise where a zip archive, as torch writes it, is damaged or expands beyond its file size."""
    if not data.startswith(b"PK"):
        return  # the older format, a bare pickle
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = archive.infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if not stored or sum(record.file_size for record in records) > len(data) or archive.testzip():
            raise InputError("the file is damaged")


def check_values(name, value):
    """Raise InputError, which calls it `name`, unless `value` can be saved, read back and computed with.

    That is a dense real CPU tensor of numbers up to MAX_WEIGHT, a number, a string, None, or a list, tuple or
    dictionary of these.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            check_values(f"{name}: key", key)
            check_values(key if name == "it" else f"{name}: {key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_values(f"{name}[{i}]", item)
    elif torch.is_tensor(value):
        dense = value.layout == torch.strided and not (value.is_nested or value.is_quantized or value.is_complex())
        if not dense or value.device.type != "cpu" or value.nbytes > value.untyped_storage().nbytes():
            raise InputError(f"{name} is not a plain tensor on the CPU")
        if not (value.double().abs() <= MAX_WEIGHT).all():
            raise InputError(f"{name} holds numbers that are not finite or above {MAX_WEIGHT:g}")
    elif not isinstance(value, str | int | float | None):
        raise InputError(f"{name} is a {type(value).__name__}: expected tensors, numbers, strings, lists, dictionaries")
