import argparse
import dataclasses
import fcntl
import hashlib
import math
import pickle
import zipfile

import numpy as np
import pytest
import torch
from conftest import REFERENCE_RECIPE, choose, save_run

import checkpoint
import dataset
import experiment
import files
import training
from files import sha256, write_file
from network import Predictor
from tasks import TASKS, find_task


@pytest.fixture(scope="module")
def run():
    encodings = dataset.encode(dataset.sample_architectures(100, seed=1))
    return training.train(dataclasses.replace(find_task("veri"), num_epochs=20, batch_size=8), encodings, range(100))


@pytest.fixture
def saved(run, tmp_path):
    path = REFERENCE_RECIPE.path(tmp_path, run.task)
    save_run(path, run)
    return path


def test_the_file_has_its_name_and_holds_all_there_is_to_know(run, saved):
    assert saved.name == "veri_final.pth"
    content = torch.load(saved, weights_only=True)
    assert content["task"] == dataclasses.asdict(run.task)
    assert content["data"] == "f" * 64
    assert content["versions"]["torch"] == torch.__version__
    assert content["train_loss"] == run.train_loss
    assert content["validate_ktau"] == run.validate_ktau
    assert [epoch for epoch, _ in run.validate_ktau] == [1, 5, 10, 15, 20]
    for index, snapshot in enumerate(run.snapshots, -len(run.snapshots)):
        assert content["snapshots"][index]["epoch"] == snapshot.epoch


def test_the_same_run_gives_the_same_bytes(run, saved, tmp_path):
    save_run(tmp_path / "again.pth", run)
    assert saved.read_bytes() == (tmp_path / "again.pth").read_bytes()


def test_the_recorded_snapshot_is_chosen_unless_told_otherwise(run, saved):
    chosen = choose(saved, run.task)
    assert (chosen.index, chosen.ktau) == (-1, run.snapshots[-1].ktau)
    for index in (-2, 0):
        chosen = choose(saved, run.task, index)
        assert chosen.ktau == run.snapshots[index].ktau
        assert torch.equal(chosen.state_dict["fc1.weight"], run.snapshots[index].state_dict["fc1.weight"])


def test_one_snapshot_alone_says_where_more_come_from(run, saved):
    content = REFERENCE_RECIPE.load(saved, run.task)
    content["snapshots"] = {-1: content["snapshots"][-1]}
    checkpoint.save(saved, content)
    assert choose(saved, run.task, 0).index == -1
    expected = "no snapshot -2: it holds only -1, the one that scores: train to keep more"
    with pytest.raises(checkpoint.CheckpointError, match=expected):
        choose(saved, run.task, -2)


def test_an_index_out_of_range_says_how_many_there_are(run, saved):
    count = len(run.snapshots)
    for index in (-count - 1, count):
        with pytest.raises(checkpoint.CheckpointError, match=f"no snapshot {index}: it holds {count}, -{count} to -1"):
            choose(saved, run.task, index)


def test_the_checkpoint_of_another_task_is_refused(saved):
    with pytest.raises(checkpoint.CheckpointError, match="a checkpoint of veri: expected cplfw"):
        choose(saved, TASKS[0])


def test_a_file_that_is_no_checkpoint_is_refused(saved, run):
    for data in (b"", b"not a checkpoint", saved.read_bytes()[:5000]):
        saved.write_bytes(data)
        with pytest.raises(checkpoint.CheckpointError, match=r"veri_final\.pth: not a checkpoint"):
            choose(saved, run.task)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_file(path, b"old")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_cleared_and_what_another_writes_is_not(tmp_path):
    stale, used = (tmp_path / f".file.{name}.part" for name in ("stale", "used"))
    stale.write_bytes(b"half")
    with open(used, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_file(tmp_path / "file", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [used.name, "file"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("other/target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "other" / "target").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["target"]


def test_sha256(tmp_path):
    (tmp_path / "data").write_bytes(b"x" * 10**6)
    assert sha256(tmp_path / "data") == hashlib.sha256(b"x" * 10**6).hexdigest()


def networks(count):
    return [Predictor().state_dict() for _ in range(count)]


def write_reference(path, content, new_format=True):
    torch.save(content, path, _use_new_zipfile_serialization=new_format)


def rewrite(path, old, new):
    """Replace bytes in the pickle of a file that torch.save wrote, in either format."""
    if not zipfile.is_zipfile(path):
        path.write_bytes(path.read_bytes().replace(old, new))
        return
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in records.items():
            file.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("key", [np.float64, float])
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_a_file_of_the_reference_is_read_by_its_taus(tmp_path, key, module, new_format):
    path, states = tmp_path / "sop_final.pth", networks(5)
    taus = [0.5, 0.9, -0.1, 0.7, 0.8]
    write_reference(path, {key(tau): state for tau, state in zip(taus, states, strict=True)}, new_format)
    rewrite(path, np.float64().__reduce__()[0].__module__.encode(), module)
    for index, ktau in ((None, 0.5), (-1, 0.9), (-2, 0.8), (0, -0.1)):  # sop's own index is -4
        chosen = choose(path, find_task("sop"), index)
        assert chosen.ktau == ktau
        expected = states[taus.index(ktau)]
        assert all(torch.equal(chosen.state_dict[name], value) for name, value in expected.items())
    assert choose(path, find_task("sop")).index == -4
    with pytest.raises(checkpoint.CheckpointError, match="no snapshot -43: it holds 5, -5 to -1"):
        choose(path, find_task("veriwild"))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_of_the_reference_written_on_a_gpu_is_read_without_one(tmp_path, monkeypatch, new_format):
    path, states = tmp_path / "cplfw_final.pth", networks(1)
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    write_reference(path, {np.float64(0.4): states[0]}, new_format)
    assert b"cuda:0" in path.read_bytes()
    chosen = choose(path, TASKS[0])
    assert chosen.state_dict["fc2.weight"].device.type == "cpu"
    assert torch.equal(chosen.state_dict["fc2.weight"], states[0]["fc2.weight"])


def test_a_nan_tau_of_the_reference_ranks_below_every_number(tmp_path):
    path, states = tmp_path / "cplfw_final.pth", networks(4)
    taus = [0.3, math.nan, -0.2, math.nan]
    write_reference(path, {np.float64(tau): state for tau, state in zip(taus, states, strict=True)})
    read = [choose(path, TASKS[0], index).ktau for index in (-1, -2, -3, -4)]
    assert read[:2] == [0.3, -0.2]
    assert all(math.isnan(tau) for tau in read[2:])


class Code:
    """Makes a file when it is unpickled by a reader that trusts what it reads."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("place", ["key", "value", "beside", "inside"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, place, new_format):
    path, ran, state = tmp_path / "cplfw_final.pth", tmp_path / "ran", networks(1)[0]
    content = {
        "key": {Code(ran): state},
        "value": {np.float64(0.4): Code(ran)},
        "beside": {np.float64(0.4): state, "more": Code(ran)},
        "inside": {np.float64(0.4): {**state, "more": Code(ran)}},
    }[place]
    write_reference(path, content, new_format)
    with pytest.raises(checkpoint.CheckpointError, match=r"cplfw_final\.pth: not a checkpoint: .*tensors") as e:
        choose(path, TASKS[0])
    assert "\n" not in str(e.value)
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists()  # the file does hold code


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"a": 1},
        {"task": {"name": "cplfw"}, "index": -1, "snapshots": []},
        {np.float64(0.4): "weights"},
        {np.float64(0.4): {"fc1.weight": 1.0}},
        {0.4: {}, "more": {}},
        {np.float32(0.4): {}},
    ],
    ids=str,
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path, content):
    write_reference(tmp_path / "cplfw_final.pth", content)
    with pytest.raises(checkpoint.CheckpointError, match=r"cplfw_final\.pth: not a checkpoint: "):
        choose(tmp_path / "cplfw_final.pth", TASKS[0])


def test_another_network_is_refused(tmp_path):
    path, state = tmp_path / "cplfw_final.pth", networks(1)[0]
    for changed in ({**state, "fc2.bias": torch.zeros(2)}, {**state, "fc3.bias": torch.zeros(1)}, {}):
        write_reference(path, {np.float64(0.4): changed})
        with pytest.raises(checkpoint.CheckpointError, match="snapshot -1 is of another network"):
            choose(path, TASKS[0])


@pytest.mark.filterwarnings("ignore")  # of what is unusual in these tensors
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.float8_e4m3fn),
        lambda weight: weight.to(torch.complex64),
        lambda weight: torch.nested.nested_tensor([weight, weight]),
    ],
    ids=("sparse", "csr", "meta", "float8", "complex", "nested"),
)
def test_tensors_that_no_predictor_has_are_refused(tmp_path, convert):
    path, state = tmp_path / "cplfw_final.pth", networks(1)[0]
    write_reference(path, {np.float64(0.4): {**state, "fc1.weight": convert(state["fc1.weight"])}})
    with pytest.raises(checkpoint.CheckpointError, match=r"cplfw_final\.pth: not a checkpoint: "):
        choose(path, TASKS[0])


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_refused_without_a_warning(tmp_path, recwarn, protocol):
    path = tmp_path / "cplfw_final.pth"
    path.write_bytes(pickle.dumps({0.4: {}}, protocol))
    with pytest.raises(checkpoint.CheckpointError, match=r"cplfw_final\.pth: not a checkpoint: "):
        choose(path, TASKS[0])
    assert not list(recwarn)


def test_only_a_whole_checkpoint_of_the_same_training_is_taken_as_trained(run, saved, tmp_path, monkeypatch):
    def trained(task=run.task, data="f" * 64, device="cpu"):
        args = argparse.Namespace(results_path=tmp_path, device=device)
        return experiment._trained_before(REFERENCE_RECIPE, task, data, args)

    assert trained().summary["tau"] == run.snapshots[-1].ktau
    assert trained(data="e" * 64) is None
    assert trained(dataclasses.replace(run.task, lr=1.0)) is None
    assert trained(dataclasses.replace(run.task, keep=7)) is None
    assert trained(device="cuda") is None
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert trained() is None
    monkeypatch.delenv("MKL_CBWR")
    content = torch.load(saved, weights_only=True)
    spoiled = [{name: value for name, value in content.items() if name != missing} for missing in content]
    spoiled += [{**content, "index": -99}, {**content, "stopped": "the loss is nan"}, {**content, "validate_ktau": []}]
    spoiled += [torch.load(saved, weights_only=True)]
    spoiled[-1]["snapshots"][-1]["state_dict"]["fc2.bias"].fill_(torch.nan)
    for name, other in zip([*content, "index", "stopped", "no curve", "no numbers"], spoiled, strict=True):
        torch.save(other, saved)
        read = name not in ("train_loss", "train_ktau", "whole_ktau")
        assert (trained() is None) == read, name


def test_every_numpy_type_allowed_is_needed(tmp_path, monkeypatch):
    path, module = tmp_path / "cplfw_final.pth", np.float64().__reduce__()[0].__module__.encode()
    for i, spelling in enumerate((b"numpy.core.multiarray", b"numpy._core.multiarray", module, module)):
        write_reference(path, {np.float64(0.4): networks(1)[0]})
        rewrite(path, module, spelling)
        choose(path, TASKS[0])
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "NUMPY_FLOAT", checkpoint.NUMPY_FLOAT[:i] + checkpoint.NUMPY_FLOAT[i + 1 :])
            with pytest.raises(checkpoint.CheckpointError, match="more than tensors"):
                choose(path, TASKS[0])
