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
def path(tmp_path):
    return tmp_path / "file.pth"


def refused(path, why=""):
    with pytest.raises(InputError, match=rf"file\.pth: damaged, or not a checkpoint: {why}.*\Z"):
        read(path)


def test_the_same_content_gives_the_same_bytes(path):
    path.write_bytes(WHOLE)
    content = read(path)
    torch.testing.assert_close(content["weights"], CONTENT["weights"], rtol=0, atol=0)
    assert content["taus"] == CONTENT["taus"]
    assert to_bytes(content) == WHOLE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a checkpoint",
        b"PK\x03\x04" + bytes(100),
        *(WHOLE[:length] for length in (1, 100, -1)),
        WHOLE.replace(CONTENT["weights"].numpy().tobytes(), bytes(20_000)),
        *(pickle.dumps({0.4: {}}, protocol) for protocol in (0, 5)),
    ],
    ids=len,
)
def test_other_and_damaged_files_are_refused_without_a_warning(path, recwarn, data):
    path.write_bytes(data)
    refused(path)
    assert not list(recwarn)


def test_an_archive_larger_inside_than_outside_is_refused_unread(path, monkeypatch):
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, bytes(50_000_000) if name.endswith("data/0") else whole.read(name))
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("it was unpacked"))
    refused(path, "the file is damaged")


class Code:
    """Makes a file when it is unpickled by a reader that trusts what it reads."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_run(path, tmp_path, zipped):
    torch.save({"a": [1, Code(tmp_path / "ran")]}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "holds more than tensors and numbers")
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # the file does hold code


ENDLESS = []
ENDLESS.append(ENDLESS)


@pytest.mark.filterwarnings("ignore")  # of what is unusual in these tensors
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (torch.eye(3).to_sparse(), "a: b is not a plain tensor on the CPU"),
        (torch.ones(3, device="meta"), "a: b is not a plain tensor on the CPU"),
        (torch.ones(3) + 0j, "a: b is not a plain tensor on the CPU"),
        (torch.ones(1).expand(10**6), "a: b is not a plain tensor on the CPU"),
        (torch.tensor([1, torch.nan]), r"a: b holds numbers that are not finite or above 1e\+30"),
        (torch.tensor([1, -2e30]), r"a: b holds numbers that are not finite or above 1e\+30"),
        ((1, b"bytes"), r"a: b\[1\] is a bytes: expected tensors, numbers, strings, lists, dictionaries"),
        ({1j: 1}, "a: b: key is a complex: expected"),
        (ENDLESS, "maximum recursion"),
    ],
)
def test_what_no_model_can_compute_with_is_refused(path, recwarn, content, why):
    path.write_bytes(to_bytes({"a": {"b": content}}))
    recwarn.clear()
    refused(path, why)
    assert not list(recwarn)


def test_weights_of_a_gpu_are_read_without_one(path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path.write_bytes(to_bytes(CONTENT))
    assert b"cuda:0" in path.read_bytes()
    assert torch.equal(read(path)["weights"], CONTENT["weights"])


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_numbers_of_every_release_are_read(path, module):
    here = np.float64().__reduce__()[0].__module__.encode()
    # As torch.save's older format, whose pickle has no checksum.
    torch.save({np.float64(0.4): 1}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(here, module))
    assert read(path) == {0.4: 1}


def test_versions_name_what_decides_the_last_bits(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    modules = {module.__name__: str(module.__version__) for module in (torch, np, scipy)}
    kernels = f"{torch.backends.cpu.get_cpu_capability()} COMPATIBLE"
    assert versions("cuda") == modules | {"python": platform.python_version(), "device": "cuda", "kernels": kernels}
