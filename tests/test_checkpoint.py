import dataclasses
import hashlib

import pytest
import torch

import checkpoint
import dataset
import training
from tasks import TASKS, find_task, settings


@pytest.fixture(scope="module")
def run():
    encodings = dataset.encode(dataset.sample_architectures(100, seed=1))
    return training.train(dataclasses.replace(find_task("veri"), num_epochs=20, batch_size=8), encodings, range(100))


@pytest.fixture
def saved(run, tmp_path):
    path = checkpoint.path_of(tmp_path, run.task)
    checkpoint.save(path, run, "f" * 64)
    return path


def test_the_file_has_its_name_and_holds_all_there_is_to_know(run, saved):
    assert saved.name == "veri_final.pth"
    content = torch.load(saved, weights_only=True)
    assert content["task"] == settings(run.task)
    assert content["data"] == "f" * 64
    assert content["versions"]["torch"] == torch.__version__
    assert content["train_loss"] == run.train_loss
    assert content["validate_ktau"] == run.validate_ktau
    assert [epoch for epoch, _ in run.validate_ktau] == [1, 5, 10, 15, 20]
    assert [snapshot["epoch"] for snapshot in content["snapshots"]] == [snapshot.epoch for snapshot in run.snapshots]


def test_the_same_run_gives_the_same_bytes(run, saved, tmp_path):
    checkpoint.save(tmp_path / "again.pth", run, "f" * 64)
    assert saved.read_bytes() == (tmp_path / "again.pth").read_bytes()


def test_the_recorded_snapshot_is_chosen_unless_told_otherwise(run, saved):
    chosen = checkpoint.choose(saved, run.task)
    assert (chosen.index, chosen.ktau) == (-1, run.snapshots[-1].ktau)
    for index in (-2, 0):
        chosen = checkpoint.choose(saved, run.task, index)
        assert chosen.ktau == run.snapshots[index].ktau
        assert torch.equal(chosen.state_dict["fc1.weight"], run.snapshots[index].state_dict["fc1.weight"])


def test_an_index_out_of_range_says_how_many_there_are(run, saved):
    count = len(run.snapshots)
    for index in (-count - 1, count):
        with pytest.raises(checkpoint.CheckpointError, match=f"no snapshot {index}: it holds {count}, -{count} to -1"):
            checkpoint.choose(saved, run.task, index)


def test_the_checkpoint_of_another_task_is_refused(saved):
    with pytest.raises(checkpoint.CheckpointError, match="the checkpoint of veri: expected cplfw"):
        checkpoint.choose(saved, TASKS[0])


def test_a_file_that_is_no_checkpoint_is_refused(saved, run):
    for data in (b"", b"not a checkpoint", saved.read_bytes()[:5000]):
        saved.write_bytes(data)
        with pytest.raises(checkpoint.CheckpointError, match=r"veri_final\.pth: not a checkpoint"):
            checkpoint.choose(saved, run.task)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoint.write_whole(path, b"old")
    monkeypatch.setattr(checkpoint.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_whole(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    (tmp_path / f".file.{2**22 + 1}.part").write_bytes(b"half")  # above the largest process id
    checkpoint.write_whole(tmp_path / "file", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_fingerprint(tmp_path):
    (tmp_path / "data").write_bytes(b"x" * 10**6)
    assert checkpoint.fingerprint(tmp_path / "data") == hashlib.sha256(b"x" * 10**6).hexdigest()
