"""Files of checkpoints: what is not one, is damaged or holds code is refused in one line; nothing in it is run."""

import io
import pickle
import platform
import zipfile

import numpy as np
import pytest
import scipy
import torch

from common.files import InputError
from engine.checkpoint import read, to_bytes, versions

CONTENT = {"name": "a", "weights": torch.arange(5000.0), "taus": [0.5, None, {-1: (1, True)}]}
WHOLE = to_bytes(CONTENT)


@pytest.fixture
def refused(tmp_path):
    """refused(data, why): fail unless a file with these bytes is refused in one line, which ends with why."""

    def check(data, why):
        path = tmp_path / "file.pth"
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"\A.*file\.pth: damaged, or not a checkpoint: {why}\Z"):
            read(path)

    return check


def test_what_is_read_gives_the_same_bytes(tmp_path):
    (tmp_path / "file.pth").write_bytes(WHOLE)
    content = read(tmp_path / "file.pth")
    assert torch.equal(content["weights"], CONTENT["weights"]) and content["taus"] == CONTENT["taus"]
    assert to_bytes(content) == WHOLE


def compressed(data):
    """The same archive, which now may need more memory than its size says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WHOLE[:100],
        WHOLE[:-1],
        WHOLE.replace(CONTENT["weights"].numpy().tobytes(), bytes(20_000)),
        compressed(WHOLE),
        pickle.dumps({0.4: {}}),
    ],
    ids=len,
)
def test_other_and_damaged_files_are_refused(refused, data):
    refused(data, ".*")


class Code:
    """Makes a file when it is unpickled by a reader that trusts what it reads."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_run(refused, tmp_path, zipped):
    buffer = io.BytesIO()
    torch.save({"a": [1, Code(tmp_path / "ran")]}, buffer, _use_new_zipfile_serialization=zipped)
    refused(buffer.getvalue(), "holds more than tensors and numbers")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "file.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # the file does hold code


ENDLESS = []
ENDLESS.append(ENDLESS)


@pytest.mark.filterwarnings("ignore")  # of what is unusual in these tensors
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (torch.eye(3).to_sparse(), "a: b is not a plain tensor on the CPU"),
        (torch.ones(1).expand(10**6), "a: b is not a plain tensor on the CPU"),
        (torch.tensor([1, torch.nan]), r"a: b holds numbers that are not finite or above 1e\+30"),
        (torch.tensor([1, -2e30]), r"a: b holds numbers that are not finite or above 1e\+30"),
        ((1, b"bytes"), r"a: b\[1\] is a bytes: expected tensors, numbers, strings, lists, dictionaries"),
        (ENDLESS, "maximum recursion .*"),
    ],
)
def test_what_no_model_can_compute_with_is_refused(refused, content, why):
    refused(to_bytes({"a": {"b": content}}), why)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_numbers_of_every_release_are_read(tmp_path, module):
    here, path = np.float64().__reduce__()[0].__module__.encode(), tmp_path / "file.pth"
    torch.save({np.float64(0.4): 1}, path, _use_new_zipfile_serialization=False)  # without a checksum
    path.write_bytes(path.read_bytes().replace(here, module))
    assert read(path) == {0.4: 1}


def test_versions_name_what_decides_the_last_bits(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    modules = {module.__name__: str(module.__version__) for module in (torch, np, scipy)}
    kernels = f"{torch.backends.cpu.get_cpu_capability()} COMPATIBLE"
    assert versions("cuda") == modules | {"python": platform.python_version(), "device": "cuda", "kernels": kernels}
