"""Interruptions, full disks and other processes: nothing that existed is lost or half-written."""

import contextlib
import ctypes
import dataclasses
import io
import json
import os
import random
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
from conftest import ROOT

import checkpoint
import cli
import dataset
import training
from metrics import ranks
from tasks import TASKS, find_task

LONG = ("--num_epochs", 100_000, "--batch_size", 8, "--log_interval", 1)


@pytest.fixture(scope="module")
def runs():
    """Two short runs of one task."""
    encodings = dataset.encode(dataset.sample_architectures(60, seed=1))
    task = dataclasses.replace(find_task("sop"), num_epochs=6, batch_size=8)
    return [training.train(dataclasses.replace(task, seed=seed), encodings, range(60)) for seed in (1, 2)]


@contextlib.contextmanager
def started(name, *flags, cwd, **options):
    """One of the scripts, running in a process group of its own; killed at the end."""
    command = [sys.executable, str(ROOT / name), *map(str, flags)]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_until(process, text):
    """Read the output up to a line with `text`."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended without '{text}': {process.stderr.read()}")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid):
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def trained(data_folder, cwd, *flags):
    return started("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", *flags, cwd=cwd)


@pytest.mark.parametrize("kind", ["checkpoint", "submission"])
def test_kill_at_50_random_moments_leaves_the_old_file_or_the_new(tmp_path, runs, kind):
    path, moments = tmp_path / "file", random.Random(0)
    contents = [b"old" * 500_000, b"new" * 500_000]
    if kind == "checkpoint":
        for i, run in enumerate(runs):
            checkpoint.save(path, run, "f" * 64)
            contents[i] = path.read_bytes()
    killed = 0
    for _ in range(50):
        pid = os.fork()
        if not pid:
            while True:  # write one after the other until killed
                for i, run in enumerate(runs):
                    if kind == "checkpoint":
                        checkpoint.save(path, run, "f" * 64)
                    else:
                        checkpoint.write_whole(path, contents[i])
        time.sleep(moments.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        assert not path.exists() or path.read_bytes() in contents
    assert killed == 50
    checkpoint.write_whole(path, contents[0])
    assert list(tmp_path.iterdir()) == [path]  # no litter after the next run


def test_killing_the_training_ends_its_workers(data_folder, tmp_path):
    with trained(data_folder, tmp_path, *LONG) as process:
        read_until(process, "epoch    2/")
        workers = children(process.pid)
        assert workers
        process.kill()
        wait_for(lambda: all(map(ended, workers)))
    assert not list((tmp_path / "r").iterdir())


def test_ctrl_c_ends_all_processes_and_says_what_was_finished(data_folder, tmp_path):
    short = ("--tasks", "sop", "--num_epochs", 2, "--batch_size", 8)
    with trained(data_folder, tmp_path, *short) as process:
        process.wait()
    with trained(data_folder, tmp_path, "--tasks", "sop", "cplfw", *LONG) as process:
        read_until(process, "epoch    2/")
        workers = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert all(map(ended, workers))
        stderr = process.communicate()[1]
    assert stderr.splitlines() == ["main.py: interrupted; finished: no task"]
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["sop_final.pth"]
    checkpoint.choose(tmp_path / "r" / "sop_final.pth", find_task("sop"))


def test_ctrl_c_ends_a_cross_validation(data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--jobs", 2, "--recipes", "ensemble", "--json", "taus.json")
    with started("tools/crossval.py", *flags, cwd=tmp_path) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.endswith("crossval.py: interrupted\n")
    assert "Traceback" not in stderr
    assert all(map(ended, workers))
    assert not (tmp_path / "taus.json").exists()


def test_ctrl_c_keeps_what_was_finished(data_folder, tmp_path):
    flags = ("--tasks", "sop", "cplfw", "--jobs", 1, "--val_interval", 1000, "--batch_size", 8, "--num_epochs", 300)
    with trained(data_folder, tmp_path, *flags, "--log_interval", 100) as process:
        read_until(process, "sop        epoch  300/300")  # the longer one is first
        read_until(process, "cplfw      epoch  100/300")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert process.communicate()[1] == "main.py: interrupted; finished: sop\n"
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["sop_final.pth"]


def test_a_worker_that_dies_is_named_and_the_others_are_kept(data_folder, tmp_path):
    flags = ("--tasks", "sop", "cplfw", "--jobs", 2, "--num_epochs", 300, "--batch_size", 8, "--log_interval", 1)
    with trained(data_folder, tmp_path, *flags) as process:
        read_until(process, "sop        epoch    2/")
        os.kill(children(process.pid)[0], signal.SIGKILL)  # started first: sop, which has more steps
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
    assert stderr == "main.py: sop: its process died, exit status -9\n"
    assert "cplfw" in stdout.splitlines()[-2]
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
        answer = script("main.py", *flags, "--seed", 7, preexec_fn=file_size_limited(size))
        assert answer.returncode == 1
        assert answer.stderr.splitlines() == [
            f"main.py: {task}: {place.format(task)}: File too large" for task in ("cplfw", "sop")
        ]
        if size != almost:  # else they are whole and new
            assert {path: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
        assert all(path.read_bytes() == data for path, data in logs.items())


def unprivileged():
    """Give up the superuser's right to read and write everywhere, if there is one: PR_CAPBSET_DROP, CAP_DAC_*."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability)


def test_what_may_not_be_read_or_written_is_said_before_training(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--batch_size", 8)
    folders = [tmp_path / "r", tmp_path / "l" / "train_final"]
    for folder in folders:
        folder.mkdir(parents=True)
    for path in (data_folder / dataset.TRAIN_FILE, *folders):
        mode = path.stat().st_mode
        path.chmod(0o555 if path.is_dir() else 0)
        answer = script("main.py", *flags, preexec_fn=unprivileged)
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
    answer = script("test.py", *flags, preexec_fn=file_size_limited(9999))
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
    flags = ("--tasks", "sop", "veri", "--num_epochs", 30, "--batch_size", 8, "--val_interval", 1)
    expected = []
    for seed in (1, 2):
        with trained(data_folder, tmp_path, *flags, "--seed", seed) as process:
            assert process.wait() == 0
        expected.append({path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()})
    seen = set()
    with (
        trained(data_folder, tmp_path, *flags, "--seed", 1) as one,
        trained(data_folder, tmp_path, *flags, "--seed", 2) as two,
    ):
        while one.poll() is None or two.poll() is None:
            for task in ("sop", "veri"):
                path = tmp_path / "r" / f"{task}_final.pth"
                checkpoint.choose(path, find_task(task))
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
    assert any(line.startswith("training 6 predictors") for line in lines)
    assert [line.split()[0] for line in lines[-10:]] == ["task", *(task.name for task in TASKS), "mean"]
    same = [name for name, changed in times.items() if (tmp_path / "r" / name).stat().st_mtime_ns == changed]
    assert sorted(same) == ["sop_final.pth", "veri_final.pth"]

    content = json.loads((data_folder / dataset.TRAIN_FILE).read_text())
    content = dict(reversed(content.items()))
    (data_folder / dataset.TRAIN_FILE).write_text(json.dumps(content))
    answer = script("main.py", *flags, "--resume")
    assert "versions: no task" in answer.stdout


@pytest.fixture
def saved(tmp_path, runs):
    path = tmp_path / "sop_final.pth"
    checkpoint.save(path, runs[0], "f" * 64)
    return path


def refused(path, reason):
    with pytest.raises(checkpoint.CheckpointError, match=reason) as caught:
        checkpoint.choose(path, find_task("sop"))
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_weights_is_noticed(saved):
    data = bytearray(saved.read_bytes())
    start = data.index(checkpoint.choose(saved, find_task("sop")).state_dict["fc1.weight"].numpy().tobytes()[:64])
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


def test_weights_that_are_no_numbers_are_refused(tmp_path, runs):
    run = runs[0]
    snapshot = run.snapshots[run.index]
    state = {**snapshot.state_dict, "fc2.bias": torch.tensor([torch.nan])}
    path = tmp_path / "sop_final.pth"
    checkpoint.save(path, dataclasses.replace(run, snapshots=[snapshot._replace(state_dict=state)]), "f" * 64)
    refused(path, "weights that are no finite numbers")


def test_scores_that_overflow_are_refused(script, data_folder, tmp_path, runs):
    run = runs[0]
    huge = {name: value * 1e30 for name, value in run.snapshots[-1].state_dict.items()}
    (tmp_path / "r").mkdir()
    snapshots = [run.snapshots[-1]._replace(state_dict=huge)]
    checkpoint.save(tmp_path / "r" / "sop_final.pth", dataclasses.replace(run, snapshots=snapshots), "f" * 64)
    answer = script("test.py", "--data_path", data_folder, "--results_path", "r", "--tasks", "sop")
    assert answer.returncode == 2
    assert "300 scores are NaN and have no rank" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.json"))


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


@pytest.mark.parametrize("load", [dataset.load_train, dataset.load_test])
def test_a_line_of_100_mb_is_refused_in_one_short_line(tmp_path, capsys, load):
    path = tmp_path / "file.json"
    path.write_bytes(b'{"' + b"a" * 100_000_000 + b'": {}}')
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: load(path))
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
    [dataset.load_train, dataset.load_test, checkpoint.fingerprint, lambda path: checkpoint.load(path, TASKS[0])],
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
        checkpoint.write_whole(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError):
        checkpoint.write_whole(".", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_run_without_standard_streams_comes_out_right(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--tasks", "sop")
    options = {"preexec_fn": lambda: [os.close(descriptor) for descriptor in (0, 1, 2)]}
    answer = script("main.py", *flags, "--log_path", "l", "--num_epochs", 2, "--batch_size", 8, **options)
    assert answer.returncode == 0
    checkpoint.choose(tmp_path / "r" / "sop_final.pth", find_task("sop"))


def test_output_that_cannot_be_written_at_the_end_is_one_line():
    command = [sys.executable, "-c", "import cli; cli.run(lambda: print('the results'))"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (answer.returncode, answer.stderr) == (2, "-c: No space left on device\n")


def test_too_little_memory_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: bytearray(2**62))
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(": MemoryError\n")
