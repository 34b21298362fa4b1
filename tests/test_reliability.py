"""Interruptions, full disks and other processes: nothing that existed is lost or half-written."""

import argparse
import contextlib
import ctypes
import dataclasses
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Script, wait_for

import checkpoint
import cli
import dataset
import files
import recipes
import submission
import surrogate
import training
from metrics import ranks
from recipes.reference import fitted
from tasks import TASKS, find_task
from workers import Result, run_jobs

LONG = ("--num_epochs", 100_000, "--batch_size", 8, "--log_interval", 1)


@pytest.fixture(scope="module")
def contents():
    """Two checkpoints' contents, from short runs of one task."""
    encodings, recipe = dataset.encode(dataset.sample_architectures(60, seed=1)), recipes.get("reference")
    tasks = [dataclasses.replace(find_task("sop"), num_epochs=6, batch_size=8, seed=seed) for seed in (1, 2)]
    runs = [training.train(task, encodings, range(60)) for task in tasks]
    return [recipe.header(task, "f" * 64, "cpu") | fitted(run) for task, run in zip(tasks, runs, strict=True)]


def load(path, name="sop", recipe="reference"):
    """Content of a checkpoint whose scoring snapshot is checked."""
    recipe = recipes.get(recipe)
    content = recipe.load(path, find_task(name))
    recipe.snapshot_index(path, content)
    return content


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid):
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def training_script(data_folder, cwd, *flags):
    return Script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", *flags, cwd=cwd)


@pytest.mark.parametrize("kind", ["checkpoint", "submission"])
def test_kill_at_50_random_moments_leaves_the_old_file_or_the_new(tmp_path, contents, kind):
    path, moments = tmp_path / "file", random.Random(0)
    data = [b"old" * 500_000, b"new" * 500_000]
    if kind == "checkpoint":
        for i, content in enumerate(contents):
            checkpoint.save(path, content)
            data[i] = path.read_bytes()
    killed = 0
    for _ in range(50):
        pid = os.fork()
        if not pid:
            while True:  # write one after the other until killed
                for content, written in zip(contents, data, strict=True):
                    if kind == "checkpoint":
                        checkpoint.save(path, content)
                    else:
                        files.write_file(path, written)
        time.sleep(moments.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        assert not path.exists() or path.read_bytes() in data
    assert killed == 50
    files.write_file(path, data[0])
    assert list(tmp_path.iterdir()) == [path]  # no litter after the next run


def test_killing_the_training_ends_its_workers(data_folder, tmp_path):
    with training_script(data_folder, tmp_path, *LONG) as process:
        process.read_until("epoch    2/")
        workers = children(process.pid)
        assert workers
        process.kill()
        wait_for(lambda: all(map(ended, workers)))
    assert not list((tmp_path / "r").iterdir())


def test_ctrl_c_ends_all_processes_and_says_what_was_finished(data_folder, tmp_path):
    short = ("--tasks", "sop", "--num_epochs", 2, "--batch_size", 8)
    with training_script(data_folder, tmp_path, *short) as process:
        process.wait()
    with training_script(data_folder, tmp_path, "--tasks", "sop", "cplfw", *LONG) as process:
        process.read_until("epoch    2/")
        workers = children(process.pid)
        process.interrupt()
        assert process.wait() == 130
        assert all(map(ended, workers))
        stderr = process.stderr.read()
    assert stderr.splitlines() == ["main.py: interrupted; finished: no task"]
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["sop_final.pth"]
    load(tmp_path / "r" / "sop_final.pth")


def test_ctrl_c_ends_a_cross_validation(data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--jobs", 2, "--recipes", "reference", "--json", "taus.json")
    with Script("tools/crossval.py", *flags, cwd=tmp_path) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.interrupt()
        assert process.wait() == 130
        stderr = process.stderr.read()
    assert stderr.endswith("crossval.py: interrupted\n")
    assert "Traceback" not in stderr
    wait_for(lambda: all(map(ended, workers)), 2)
    assert not (tmp_path / "taus.json").exists()


def test_ctrl_c_keeps_what_was_finished(data_folder, tmp_path):
    flags = ("--tasks", "sop", "cplfw", "--jobs", 1, "--val_interval", 1000, "--batch_size", 8, "--num_epochs", 150)
    with training_script(data_folder, tmp_path, *flags, "--log_interval", 50) as process:
        process.read_until("sop        epoch  150/150")  # the longer one is first
        process.read_until("cplfw      epoch   50/150")
        process.interrupt()
        assert process.wait() == 130
        assert process.stderr.read() == "main.py: interrupted; finished: sop\n"
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["sop_final.pth"]


def test_a_worker_that_dies_is_named_and_the_others_are_kept(data_folder, tmp_path):
    flags = ("--tasks", "sop", "cplfw", "--jobs", 2, "--num_epochs", 100, "--batch_size", 8, "--log_interval", 1)
    with training_script(data_folder, tmp_path, *flags) as process:
        process.read_until("sop        epoch    2/")
        os.kill(children(process.pid)[0], signal.SIGKILL)  # started first: sop, which has more steps
        assert process.wait() == 1
        assert process.stderr.read() == "main.py: sop: its process died, exit status -9\n"
        assert re.search(r"^cplfw +-?\d", process.stdout.read(), re.MULTILINE)  # in the table
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["cplfw_final.pth"]


def file_size_limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_is_full_is_one_line_and_the_old_files_stay(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", "cplfw")
    flags += ("--num_epochs", 6, "--batch_size", 8)
    assert script("main.py", *flags).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    logs = {path: path.read_bytes() for path in (tmp_path / "l").rglob("events*")}
    # Too large for the disk: the checkpoint; the curves, which a thread of their own writes; the very last of them.
    almost = min(len(data) for path, data in logs.items() if path.parent.name == "train") - 1
    for size, place in ((300_000, "r/{0}_final.pth"), (100, "l/train_final/{0}"), (almost, "l/train_final/{0}")):
        answer = script("main.py", *flags, "--seed", 7, before=file_size_limited(size))
        assert answer.returncode == 1
        assert answer.stderr.splitlines() == [
            f"main.py: {task}: {place.format(task)}: File too large" for task in ("cplfw", "sop")
        ]
        if size != almost:  # else they are whole and new
            assert {path: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
        assert all(path.read_bytes() == data for path, data in logs.items())


def unprivileged():
    """Give up the superuser's right to read and write everywhere, if there is one: CAP_DAC_OVERRIDE, _READ_SEARCH."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capget(header, data)
    data[0] &= ~0b110  # effective
    data[1] &= ~0b110  # permitted
    ctypes.CDLL(None).capset(header, data)


def test_what_may_not_be_read_or_written_is_said_before_training(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--batch_size", 8)
    folders = [tmp_path / "r", tmp_path / "l" / "train_final"]
    for folder in folders:
        folder.mkdir(parents=True)
    for path in (data_folder / dataset.TRAIN_FILE, *folders):
        mode = path.stat().st_mode
        path.chmod(0o555 if path.is_dir() else 0)
        answer = script("main.py", *flags, before=unprivileged)
        path.chmod(mode)
        what = "cannot be written to" if path.is_dir() else "Permission denied"
        name = path.relative_to(tmp_path) if path in folders else path
        assert (answer.returncode, answer.stderr) == (2, f"main.py: {name}: {what}\n")
        assert not any(list(folder.iterdir()) for folder in folders)


def test_a_submission_that_cannot_be_written_leaves_the_old_one(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--tasks", "sop")
    script("main.py", *flags, "--log_path", "l", "--num_epochs", 2, "--batch_size", 8)
    submission = tmp_path / "Track2_submitA_test_final.json"
    submission.write_text("old")
    answer = script("test.py", *flags, before=file_size_limited(9999))
    assert answer.returncode == 2
    assert answer.stderr == "test.py: Track2_submitA_test_final.json: File too large\n"
    assert submission.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("flag", ["--results_path", "--log_path"])
@pytest.mark.parametrize("folder", ["/proc/nowhere", "file"])
def test_a_folder_that_cannot_be_made_is_said_before_training(script, data_folder, tmp_path, flag, folder):
    (tmp_path / "file").write_text("old")
    other = {"--results_path": "--log_path", "--log_path": "--results_path"}[flag]
    answer = script("main.py", "--data_path", data_folder, flag, folder, other, "other", "--batch_size", 8)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"main.py: {folder}")
    assert len(answer.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "old"


def test_two_trainings_into_one_folder_and_scoring_meanwhile(data_folder, tmp_path):
    flags = ("--tasks", "sop", "veri", "--num_epochs", 15, "--batch_size", 8, "--val_interval", 1)
    expected = []
    for seed in (1, 2):
        with training_script(data_folder, tmp_path, *flags, "--seed", seed) as process:
            assert process.wait() == 0
        expected.append({path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()})
    seen = set()
    with (
        training_script(data_folder, tmp_path, *flags, "--seed", 1) as one,
        training_script(data_folder, tmp_path, *flags, "--seed", 2) as two,
    ):
        while one.poll() is None or two.poll() is None:
            for task in ("sop", "veri"):
                path = tmp_path / "r" / f"{task}_final.pth"
                load(path, task)
                data = path.read_bytes()
                assert data in (expected[0][path.name], expected[1][path.name])
                seen.add((path.name, data))
        assert (one.returncode, two.returncode) == (0, 0)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["sop_final.pth", "veri_final.pth"]
    assert len(seen) >= 2


def test_resume_skips_only_what_would_be_repeated(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--num_epochs", 2, "--batch_size", 8)
    script("main.py", *flags, "--tasks", "sop", "veri")
    script("main.py", *flags, "--tasks", "cplfw", "--lr", 1e-2)
    (tmp_path / "r" / "msmt17_final.pth").write_bytes(b"damaged")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "r").iterdir()}
    answer = script("main.py", *flags, "--resume")
    assert answer.returncode == 0
    lines = answer.stdout.splitlines()
    assert any(line.endswith("with these settings and versions: veri, sop") for line in lines)
    assert any(line.startswith("training 6 tasks") for line in lines)
    assert [line.split()[0] for line in lines[-12:-2]] == ["task", *(task.name for task in TASKS), "mean"]
    same = [name for name, changed in times.items() if (tmp_path / "r" / name).stat().st_mtime_ns == changed]
    assert sorted(same) == ["sop_final.pth", "veri_final.pth"]

    content = json.loads((data_folder / dataset.TRAIN_FILE).read_text())
    content = dict(reversed(content.items()))
    (data_folder / dataset.TRAIN_FILE).write_text(json.dumps(content))
    answer = script("main.py", *flags, "--resume")
    assert "versions: no task" in answer.stdout


@pytest.fixture
def saved(tmp_path, contents):
    path = tmp_path / "sop_final.pth"
    checkpoint.save(path, contents[0])
    return path


def refused(path, reason):
    with pytest.raises(checkpoint.CheckpointError, match=reason) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_weights_is_noticed(saved):
    data = bytearray(saved.read_bytes())
    weights = load(saved)["snapshots"][-1]["state_dict"]["fc1.weight"]
    start = data.index(weights.numpy().tobytes()[:64])
    data[start + 20] ^= 1
    saved.write_bytes(data)
    refused(saved, "the file is damaged")


def test_a_truncated_checkpoint_is_refused(saved):
    data = saved.read_bytes()
    for length in (0, 1, 2, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved, "not a checkpoint")


def test_an_archive_larger_inside_than_outside_is_refused_unread(saved, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
        small.writestr("archive/data/bomb", bytes(50_000_000))
    saved.write_bytes(buffer.getvalue())
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    refused(saved, "the file is damaged")


def scaled(content, factor):
    """`content` with all weights of its snapshots multiplied."""
    snapshots = {
        index: snapshot | {"state_dict": {name: value * factor for name, value in snapshot["state_dict"].items()}}
        for index, snapshot in content["snapshots"].items()
    }
    return content | {"snapshots": snapshots}


@pytest.mark.parametrize("factor", [torch.nan, torch.inf, 1e38])
def test_weights_that_are_no_numbers_or_huge_are_refused(tmp_path, contents, factor):
    path = tmp_path / "sop_final.pth"
    checkpoint.save(path, scaled(contents[0], factor))
    refused(path, "holds numbers that are not finite or above 1e[+]30")


def test_scores_that_overflow_are_refused(data_folder, tmp_path, contents, monkeypatch):
    (tmp_path / "r").mkdir()
    checkpoint.save(tmp_path / "r" / "sop_final.pth", scaled(contents[0], 1e20))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(files.InputError, match="sop: 300 of 300 scores are not finite: train it again"):
        submission.rank_test_file(scoring_arguments(data_folder, "r", "sop"))
    assert not list(tmp_path.glob("*.json"))


def scoring_arguments(data_folder, results, task, recipe="reference", uncertainty=None):
    """What test.py passes to rank_test_file."""
    return argparse.Namespace(
        data_path=str(data_folder),
        results_path=str(results),
        tasks=(find_task(task),),
        recipe=recipe,
        device="cpu",
        model_path_index=None,
        save_name="test",
        uncertainty=uncertainty,
        largest=False,
    )


def test_ranks_of_a_hundred_thousand_ties():
    assert (ranks(np.zeros(100_000, np.float32)) == 0).all()
    scores = np.random.RandomState(0).randint(3, size=100_000)
    smaller = np.array([(scores < value).sum() for value in range(3)])
    assert (ranks(scores) == smaller[scores]).all()


def test_text_from_a_file_cannot_break_a_message_into_lines(script, data_folder):
    (data_folder / dataset.TRAIN_FILE).write_text('{"arch\\n\\u001b[31m%s": {}}' % ("x" * 10**6))
    answer = script("main.py", "--data_path", data_folder)
    assert answer.returncode == 2
    assert len(answer.stderr) < 1200
    assert len(answer.stderr.splitlines()) == 1
    assert "\x1b" not in answer.stderr
    assert "arch\\n\\x1b[31mxxx" in answer.stderr


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\xff\xfe{\x00}\x00", b'{"a": ' + b"9" * 5000 + b"}"])
def test_files_of_bytes_are_refused(script, data_folder, data):
    for name in ("main.py", "test.py"):
        file = dataset.TRAIN_FILE if name == "main.py" else dataset.TEST_FILE
        (data_folder / file).write_bytes(data)
    answer = script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l")
    assert answer.returncode == 2
    assert dataset.TRAIN_FILE in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (data_folder.parent / "r").exists()


def test_a_folder_in_place_of_the_file_is_refused(script, data_folder):
    (data_folder / dataset.TRAIN_FILE).unlink()
    (data_folder / dataset.TRAIN_FILE).mkdir()
    answer = script("main.py", "--data_path", data_folder)
    assert answer.returncode == 2
    assert answer.stderr == f"main.py: {data_folder / dataset.TRAIN_FILE}: Is a directory\n"


def test_a_line_of_100_mb_is_refused_in_one_short_line(tmp_path, capsys):
    path = tmp_path / "file.json"
    path.write_bytes(b'{"' + b"a" * 100_000_000 + b'": {}}')
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: dataset.load_train(path))
    assert ended.value.code == 2
    stderr = capsys.readouterr().err
    assert f": {path}: aaa" in stderr
    assert stderr.endswith("aaa: 'arch' is missing\n")
    assert len(stderr) < 1200
    assert len(stderr.splitlines()) == 1


def test_a_file_that_fails_while_it_is_read_is_named():
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
        dataset.load_train("/proc/self/mem")


@pytest.mark.parametrize("kind", ["device", "pipe"])
@pytest.mark.parametrize(
    "read",
    [dataset.load_train, files.sha256, load],
)
def test_what_may_never_end_is_not_read(tmp_path, kind, read):
    path = tmp_path / "file"
    if kind == "device":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=(b"",), daemon=True).start()  # else a reader would wait
    with pytest.raises(OSError, match=r"a pipe or a device: expected a file: .*file"):
        read(path)


def test_a_pipe_or_a_folder_is_not_replaced_by_a_file(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"a pipe or a device: expected a file: .*pipe"):
        files.write_file(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError):
        files.write_file(".", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_run_without_standard_streams_comes_out_right(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--tasks", "sop")
    options = {"preexec_fn": lambda: [os.close(descriptor) for descriptor in (0, 1, 2)]}
    answer = script("main.py", *flags, "--log_path", "l", "--num_epochs", 2, "--batch_size", 8, **options)
    assert answer.returncode == 0
    load(tmp_path / "r" / "sop_final.pth")


def test_output_that_cannot_be_written_at_the_end_is_one_line():
    command = [sys.executable, "-c", "import cli; cli.run(lambda: print('the results'))"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (answer.returncode, answer.stderr) == (2, "-c: No space left on device\n")


def test_too_little_memory_is_one_line():
    command = [sys.executable, "-c", "import cli; cli.run(lambda: bytearray(2**62))"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (2, "-c: MemoryError\n")


REFUSED = "would replace .*, which this command reads or writes: choose another name"


def test_an_output_that_would_replace_an_input_is_refused(script, data_folder, tmp_path, monkeypatch):
    flags = ("--data_path", data_folder, "--results_path", "r", "--recipe", "gp", "--tasks", "sop")
    assert script("main.py", *flags, "--log_path", "l").returncode == 0
    (tmp_path / "link").symlink_to(data_folder / dataset.TRAIN_FILE)
    (tmp_path / "hard").hardlink_to(tmp_path / "r" / "sop_gp.pth")
    (tmp_path / "submission").symlink_to("Track2_submitA_test.json")  # does not exist yet
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    for name in (
        data_folder / dataset.TEST_FILE,
        data_folder / ".." / "data" / dataset.TRAIN_FILE,
        "link",
        "hard",
        "r/sop_gp.pth",
        "Track2_submitA_test.json",
        "submission",
        ROOT / "data" / "surrogate" / surrogate.EFFECTS_FILE,
    ):
        with pytest.raises(files.InputError, match=REFUSED):
            submission.rank_test_file(scoring_arguments(data_folder, "r", "sop", "gp", Path(name)))
    Path("Track2_submitA_test.json").symlink_to("link")
    with pytest.raises(files.InputError, match=REFUSED):
        submission.rank_test_file(scoring_arguments(data_folder, "r", "sop", "gp"))
    Path("Track2_submitA_test.json").unlink()
    answer = script("tools/crossval.py", "--data_path", data_folder, "--recipes", "ridge", "--json", "link")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    Path("r", "sop_gp.pth").unlink()
    Path("r", "sop_gp.pth").symlink_to(data_folder / dataset.TRAIN_FILE)
    answer = script("main.py", *flags, "--log_path", "l")
    assert answer.returncode == 2
    assert answer.stderr.startswith("main.py: r/sop_gp.pth: would replace ")
    Path("r", "sop_gp.pth").unlink()
    before.pop(tmp_path / "r" / "sop_gp.pth")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["/proc/nowhere/file", "folder", "x" * 300, "file/below"])
def test_unusable_intervals_are_said_before_scoring(data_folder, tmp_path, monkeypatch, script, name):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--recipe", "gp", "--tasks", "sop")
    assert script("main.py", *flags).returncode == 0
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submission, "score", lambda *_: pytest.fail("it was scored"))
    with pytest.raises(OSError):
        submission.rank_test_file(scoring_arguments(data_folder, "r", "sop", "gp", Path(name)))
    assert not list(tmp_path.glob("Track2*"))


def test_a_folder_in_place_of_a_checkpoint_or_a_file_in_place_of_a_log_is_said_before_training(
    script, data_folder, tmp_path
):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", *LONG)
    (tmp_path / "l" / "train_final").mkdir(parents=True)
    (tmp_path / "l" / "train_final" / "veri").write_text("old")
    answer = script("main.py", *flags)
    assert (answer.returncode, answer.stderr) == (2, "main.py: l/train_final/veri: File exists\n")
    (tmp_path / "l" / "train_final" / "veri").unlink()
    (tmp_path / "r" / "sop_final.pth").mkdir()
    answer = script("main.py", *flags)
    assert (answer.returncode, answer.stderr) == (2, "main.py: r/sop_final.pth: Is a directory\n")


def test_the_published_run_is_not_replaced_through_a_link(script, data_folder, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "sop_final.pth").symlink_to(ROOT / "results" / "published" / "new.pth")
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", *LONG)
    answer = script("main.py", *flags)
    assert answer.returncode == 2
    assert answer.stderr.startswith("main.py: r/sop_final.pth: part of the published run")


def test_a_link_stays_and_its_target_is_replaced(script, data_folder, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "elsewhere").mkdir()
    names = {
        "r/sop_gp.pth": "elsewhere/one",
        "Track2_submitA_test_gp.json": "elsewhere/two",
        "i.json": "elsewhere/three",
    }
    for link, target in names.items():
        (tmp_path / link).symlink_to(tmp_path / target)
        (tmp_path / target).write_text("old")
    flags = ("--data_path", data_folder, "--results_path", "r", "--recipe", "gp", "--tasks", "sop")
    assert script("main.py", *flags, "--log_path", "l").returncode == 0
    assert script("test.py", *flags, "--uncertainty", "i.json").returncode == 0
    for link, target in names.items():
        assert (tmp_path / link).readlink() == tmp_path / target
        assert (tmp_path / target).stat().st_size > 1000
    assert len(list((tmp_path / "elsewhere").iterdir())) == 3


def test_only_what_nobody_writes_any_more_is_cleared(tmp_path):
    target, left = tmp_path / "file", tmp_path / ".file.0123456789abcdef.part"
    descriptor, temporary = files._create_locked(target)  # another writer's
    left.write_text("left by a killed process")
    files.write_file(target, b"new")
    assert sorted(tmp_path.iterdir()) == sorted([temporary, target])
    os.close(descriptor)
    files.write_file(target, b"newer")
    assert list(tmp_path.iterdir()) == [target]
    long = tmp_path / ("\N{OHM SIGN}" * 85)  # 255 bytes
    files.write_file(long, b"new")
    assert long.read_bytes() == b"new"


INTERRUPTED = {
    "main.py": ("--num_epochs", 20, "--results_path", "r", "--log_path", "l"),
    "test.py": ("--results_path", ROOT / "results" / "published"),
    "tools/crossval.py": ("--recipes", "ridge"),
    "tools/score.py": ("/dev/stdin", "/dev/stdin"),
}


@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize("name", INTERRUPTED)
def test_ctrl_c_while_libraries_are_imported_or_later(data_folder, tmp_path, name, times):
    flags = [] if name == "tools/score.py" else ["--data_path", data_folder]
    command = [sys.executable, ROOT / name, *INTERRUPTED[name], *flags]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, start_new_session=True, **options)
    maps = Path(f"/proc/{process.pid}/maps")
    wait_for(lambda: "numpy" in maps.read_text() or process.poll() is not None, 60)
    time.sleep(random.Random(f"{name} {times}").uniform(0, 0.6))
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02 * (times > 1))
    _, stderr = process.communicate(timeout=60)
    lines = [line.split("\r")[-1] for line in stderr.decode().splitlines()]  # without tqdm's bar
    if process.returncode != 0:
        assert process.returncode == 130
        assert "interrupted" in lines[-1]
        assert all("it/s" in line for line in lines[:-1])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_a_cross_validation_ends_its_workers(data_folder, tmp_path, number):
    flags = ("--data_path", data_folder, "--jobs", 2, "--recipes", "reference")
    with Script("tools/crossval.py", *flags, cwd=tmp_path) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.kill(number)
        wait_for(lambda: all(map(ended, workers)), 2)
        assert process.wait() == -number


def test_a_task_whose_worker_died_is_not_called_finished(data_folder, tmp_path):
    with training_script(data_folder, tmp_path, "--tasks", "sop", "cplfw", "--jobs", 2, *LONG) as process:
        process.read_until("sop        epoch    2/")
        wait_for(lambda: len(children(process.pid)) == 2)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_for(lambda: len(children(process.pid)) == 1)
        time.sleep(0.1)
        process.interrupt()
        assert process.wait() == 130
        assert process.stderr.read().splitlines()[-1] == "main.py: interrupted; finished: no task"


def test_a_bug_in_a_recipe_is_shown_once_and_the_other_tasks_are_kept(tmp_path, capfd):
    def job(send, number):
        return 1 / number

    results = dict(run_jobs([("a", job, (0,)), ("b", job, (2,)), ("c", job, (0,))], 2))
    assert results["b"] == Result(0.5)
    for key in ("a", "c"):
        assert results[key].error == "ZeroDivisionError: division by zero: see the traceback above"
    assert capfd.readouterr().err.count("Traceback") == 1


DAMAGES = {
    "a tau that is None": {"validate_ktau": [(1, None)]},
    "a curve of strings": {"validate_ktau": ["a"]},
    "a curve of triples": {"validate_ktau": [(1, 2, 3)]},
    "a curve that is a tensor": {"validate_ktau": torch.zeros(3, 2)},
    "an empty curve": {"validate_ktau": []},
    "a task that is a tensor": {"task": torch.zeros(2)},
    "a task that holds a tensor": {"task": {"name": "sop", "lr": torch.zeros(2)}},
    "data that are a tensor": {"data": torch.zeros(2)},
    "versions that hold a tensor": {"versions": {"python": torch.zeros(2)}},
    "a recipe that is a tensor": {"recipe": torch.zeros(2)},
    "stopped by a tensor": {"stopped": torch.zeros(2)},
    "snapshots that are a list": {"snapshots": [1]},
    "an index that is a tensor": {"index": torch.zeros(2)},
    "an index of nothing": {"index": -7},
    "weights that are missing": {"snapshots": {-1: {"epoch": 1, "ktau": 0.5, "state_dict": {}}}},
}


def one_epoch(data_folder):
    """Flags of a training of sop for one epoch."""
    folders = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l")
    return (*folders, "--batch_size", 8, "--num_epochs", 1, "--tasks", "sop")


def test_a_damaged_checkpoint_is_trained_again(script, data_folder, tmp_path, contents):
    flags = one_epoch(data_folder)
    assert script("main.py", *flags).returncode == 0
    path = tmp_path / "r" / "sop_final.pth"
    content, good = checkpoint.read(path), path.read_bytes()
    for damage in DAMAGES.values():
        checkpoint.save(path, content | damage)
        refused(path, "not a checkpoint|a checkpoint of the recipe|no snapshot -7|of another network")
    answer = script("main.py", *flags, "--resume")
    assert answer.returncode == 0
    assert path.read_bytes() == good
    assert "versions: no task" in answer.stdout


def test_another_keep_or_kernel_is_trained_again(script, data_folder, tmp_path, monkeypatch):
    flags = one_epoch(data_folder)
    script("main.py", *flags)
    assert "versions: sop" in script("main.py", *flags, "--resume").stdout
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert "versions: no task" in script("main.py", *flags, "--resume").stdout
    assert "versions: sop" in script("main.py", *flags, "--resume").stdout
    assert "versions: no task" in script("main.py", *flags, "--resume", "--keep", 3).stdout
    assert checkpoint.versions("cuda") != checkpoint.versions("cpu")
    kernels = [sys.executable, "-c", "import checkpoint; print(checkpoint.versions()['kernels'])"]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    plain = subprocess.run(kernels, cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    assert plain in ("DEFAULT COMPATIBLE\n", "NO AVX COMPATIBLE\n")  # the latter before torch 2.7


@pytest.mark.parametrize("recipe", ["gp", "ridge"])
def test_huge_numbers_of_the_other_recipes_are_refused(tmp_path, recipe):
    encodings, ranked = dataset.encode(dataset.sample_architectures(60, seed=1)), np.arange(60)
    task, chosen, path = find_task("sop"), recipes.get(recipe), tmp_path / "file"
    content = chosen.header(task, "f" * 64, "cpu") | chosen.fit(task, encodings, ranked)
    for name, value in content.items():
        for wrong in (1e308, torch.nan, -torch.inf):
            if torch.is_tensor(value):
                checkpoint.save(path, content | {name: torch.full_like(value, wrong)})
                with pytest.raises(checkpoint.CheckpointError, match=f"{name} holds numbers that are not finite"):
                    chosen.load(path, task)
        if torch.is_tensor(value) or name == "loo_ktau":
            for damaged in (None, "text", [1], value if name == "loo_ktau" else torch.zeros(3, 3, 3)):
                if damaged is not value:
                    checkpoint.save(path, content | {name: damaged})
                    with pytest.raises(checkpoint.CheckpointError, match=f"{name}: expected a "):
                        chosen.load(path, task)
            checkpoint.save(path, {key: kept for key, kept in content.items() if key != name})
            with pytest.raises(checkpoint.CheckpointError, match=f"{name}: expected a "):
                chosen.load(path, task)


def damaged_effects():
    content = json.loads((ROOT / "data" / "surrogate" / surrogate.EFFECTS_FILE).read_text())
    yield from ("{", "[]", "null", "", "3", '"text"', "{}", "[" * 100_000, "\udcff")
    for changed in (
        {"sha256": None},
        {"sha256": {}},
        {"sha256": {**content["sha256"], "another": "0"}},
        {"sha256": dict.fromkeys(content["sha256"], 0)},
        {"tasks": []},
        {"tasks": {"sop": {}}},
        *(
            {"tasks": {**content["tasks"], "sop": {**content["tasks"]["sop"], "residual": r}}}
            for r in (None, [1], 1e300)
        ),
    ):
        yield json.dumps({**content, **changed})
    yield json.dumps({"tasks": content["tasks"]})
    yield json.dumps({**content, "tasks": {**content["tasks"], "sop": 1}})


def test_damaged_effects_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(surrogate, "generate", lambda _: {dataset.TRAIN_FILE: b"other"})
    for text in damaged_effects():
        (tmp_path / surrogate.EFFECTS_FILE).write_text(text, errors="surrogateescape")
        with pytest.raises(dataset.DataError, match=r"effects\.json: (damaged: |makes another )") as caught:
            surrogate.make(tmp_path / "made", tmp_path / surrogate.EFFECTS_FILE)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_the_surrogate_replaces_no_other_file(tmp_path, monkeypatch):
    (tmp_path / dataset.TRAIN_FILE).write_text("the competition's")
    with pytest.raises(dataset.DataError, match="not the surrogate's: choose a folder without it"):
        surrogate.make(tmp_path, ROOT / "data" / "surrogate" / surrogate.EFFECTS_FILE)
    assert (tmp_path / dataset.TRAIN_FILE).read_text() == "the competition's"


@pytest.mark.parametrize("flags", [("--log_path", "l\udcff"), ("--log_path", "l", "--save_name", "s\udcff")])
def test_a_log_folder_that_is_not_utf_8_is_said_before_training(script, data_folder, flags):
    answer = script("main.py", "--data_path", data_folder, "--results_path", "r", *flags, *LONG)
    assert answer.returncode == 2
    assert answer.stderr.endswith(": not UTF-8, which TensorBoard needs: choose another --log_path or --save_name\n")
    assert len(answer.stderr.splitlines()) == 1


def test_other_paths_that_are_not_utf_8_work(script, data_folder, tmp_path):
    data_folder.rename(tmp_path / "d\udcff\n")
    flags = ("--data_path", "d\udcff\n", "--results_path", "r\udcff\n", "--recipe", "gp", "--tasks", "sop")
    answer = script("main.py", *flags, "--log_path", "l\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert all(
        line.split()[0] in ("training", "sop", "task", "mean", "checkpoints:", "next:")
        for line in answer.stdout.splitlines()
    )
    answer = script("test.py", *flags, "--save_name", "s\udcff\n", "--uncertainty", "i\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line.split()[0] for line in answer.stdout.splitlines()] == [
        "sop",
        "Track2_submitA_s\\udcff\\n.json:",
        "i\\n:",
    ]


def test_a_path_outside_of_an_ascii_locale_is_one_line(script, data_folder, monkeypatch):
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)
    answer = script(
        "main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "\N{OHM SIGN}", *LONG, timeout=100
    )
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert "not UTF-8" in answer.stderr


def test_too_few_descriptors_or_too_little_address_space_is_one_line(script, data_folder):
    flags = (
        "--data_path",
        data_folder,
        "--results_path",
        "r",
        "--log_path",
        "l",
        "--tasks",
        "cplfw",
        "--num_epochs",
        1,
    )
    for resource_limit, limit in ((resource.RLIMIT_NOFILE, 10), (resource.RLIMIT_AS, 300 << 20)):
        answer = script("main.py", *flags, preexec_fn=lambda: resource.setrlimit(resource_limit, (limit, limit)))  # noqa: B023
        assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize("name", ["main.py", "tools/score.py"])
def test_a_deleted_folder_is_one_line(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    command = f"rmdir {folder}; exec {sys.executable} {ROOT / name} a b"
    answer = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
    expected = f"{Path(name).name}: the current folder was deleted: change to another\n"
    assert (answer.returncode, answer.stderr) == (2, expected)


def test_a_file_as_the_data_folder_is_said(script, data_folder):
    for name, flags in {"main.py": (), "test.py": (), "tools/crossval.py": (), "tools/surrogate.py": ("fit",)}.items():
        answer = script(name, *flags, "--data_path", data_folder / dataset.TRAIN_FILE)
        assert answer.returncode == 2
        assert answer.stderr.endswith(f"{dataset.TRAIN_FILE}: is a file: expected the folder of {dataset.TRAIN_FILE}\n")
