"""Files of checkpoints: what is not one, is damaged or holds code is refused in one line; nothing in it is run."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from common.files import InputError
from recipes import checkpoint
from recipes.checkpoint import read, to_bytes, versions

CONTENT = {"name": "a", "weights": torch.arange(5000.0), "taus": [0.5, {-1: (1, None)}]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(to_bytes(CONTENT))
    return path


def refused(path, why):
    with pytest.raises(InputError, match=rf"file\.pth: not a checkpoint: .*{why}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_the_same_content_gives_the_same_bytes(path):
    content = read(path)
    assert torch.equal(content["weights"], CONTENT["weights"])
    assert content["taus"] == CONTENT["taus"]
    assert to_bytes(content) == path.read_bytes()


@pytest.mark.parametrize(
    "data", [b"", b"P", b"not a checkpoint", b"PK\x03\x04" + bytes(100), b"\x80\x02.", b"\x80" * 99]
)
def test_other_files_are_refused(path, data):
    path.write_bytes(data)
    refused(path, "")


def test_a_cut_file_is_refused(path):
    data = path.read_bytes()
    for length in (1, 2, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(path, "")


def test_a_flipped_bit_in_the_weights_is_noticed(path):
    data = bytearray(path.read_bytes())
    data[data.index(CONTENT["weights"].numpy().tobytes()[:4000]) + 3000] ^= 1
    path.write_bytes(data)
    refused(path, "the file is damaged")


def test_an_archive_larger_inside_than_outside_is_refused_unread(path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
        small.writestr("archive/data/bomb", bytes(50_000_000))
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    refused(path, "the file is damaged")


class Code:
    """Makes a file when it is unpickled by a reader that trusts what it reads."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", [lambda code: {code: 1}, lambda code: {"a": [1, code]}, lambda code: code])
def test_code_is_refused_and_not_run(path, tmp_path, place, zipped):
    ran = tmp_path / "ran"
    torch.save(place(Code(ran)), path, _use_new_zipfile_serialization=zipped)
    refused(path, "damaged, or it holds more than tensors and numbers")
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists()  # the file does hold code


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_refused_without_a_warning(path, recwarn, protocol):
    path.write_bytes(pickle.dumps({0.4: {}}, protocol))
    refused(path, "")
    assert not list(recwarn)


@pytest.mark.filterwarnings("ignore")  # of what is unusual in these tensors
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.complex64),
        lambda weight: torch.nested.nested_tensor([weight, weight]),
        lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        lambda weight: torch.where(torch.eye(2, 3) > 0, torch.nan, weight),
        lambda weight: -weight / 0,
        lambda weight: weight + 2e30,
        lambda weight: weight.double() - 1e308,
        lambda weight: weight.half() / 0,
    ],
    ids=("sparse", "csr", "meta", "complex", "nested", "quantised", "nan", "infinite", "huge", "double", "half"),
)
def test_tensors_that_no_model_can_compute_with_are_refused(path, recwarn, convert):
    weight = convert(torch.ones(2, 3))
    recwarn.clear()
    path.write_bytes(to_bytes({"a": {"weight": weight}}))
    refused(path, "a: weight ")
    assert not list(recwarn)


@pytest.mark.parametrize("content", [{"a": b"bytes"}, {1, 2}, {"a": torch.float32}, {"a": np.float32(1)}, {"a": 1j}])
def test_other_values_are_refused(path, content):
    torch.save(content, path)
    refused(path, "")


def test_a_list_that_holds_itself_is_refused(path):
    endless = []
    endless.append(endless)
    path.write_bytes(to_bytes(endless))
    refused(path, "recursion")


def test_weights_of_a_gpu_are_read_without_one(path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    for zipped in (True, False):
        torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
        assert b"cuda:0" in path.read_bytes()
        assert torch.equal(read(path)["weights"], CONTENT["weights"])


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_of_every_release_are_read_with_what_is_allowed_and_no_less(path, monkeypatch, module):
    here = np.float64().__reduce__()[0].__module__
    # As torch.save's older format, whose pickle has no checksum.
    torch.save({np.float64(0.4): 1}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(here.encode(), module.encode()))
    assert read(path) == {0.4: 1}
    needed = [
        i for i, item in enumerate(checkpoint.NUMPY_FLOAT) if not isinstance(item, tuple) or item[1].startswith(module)
    ]
    assert len(needed) == 3
    for i in needed:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "NUMPY_FLOAT", checkpoint.NUMPY_FLOAT[:i] + checkpoint.NUMPY_FLOAT[i + 1 :])
            refused(path, "more than tensors")


def test_versions_name_what_decides_the_last_bits(monkeypatch):
    found = versions("cuda")
    assert (found["torch"], found["numpy"], found["device"]) == (str(torch.__version__), np.__version__, "cuda")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert versions()["kernels"] == f"{torch.backends.cpu.get_cpu_capability()} COMPATIBLE"
