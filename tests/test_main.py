"""main.py and train.sh as a user runs them: what they write and print, --resume, and whatever ends them early."""

import ctypes
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from helpers import ROOT, Script, make_entries, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import space
from recipes import reference
from tasks import TASKS, TEST_FILE, TRAIN_FILE

SMALL = ("--num_epochs", 4, "--batch_size", 8)
TWO = ("--tasks", "sop", "cplfw", "--jobs", 1, "--log_interval", 1, *SMALL)  # sop first: it has more steps
PUBLISHED = ROOT / "results" / "published"


@pytest.fixture
def where(data_folder):
    return "--data_path", data_folder, "--results_path", "r", "--log_path", "l"


@pytest.fixture
def train(script, where):
    """Run main.py on the small data, into r and l of a temporary folder: train(*flags)."""
    return lambda *flags, **options: script("main.py", *where, *flags, **options)


@pytest.fixture
def stuck(where, tmp_path):
    """A training that is started, and of which one task never ends its second epoch: stuck(task name, *flags)."""

    def start(name, *flags):
        return Script("main.py", *where, *flags, cwd=tmp_path, before=lambda: stop_in_epoch_2(name))

    return start


def stop_in_epoch_2(name):
    fit = reference.Recipe.fit

    def stopping(self, task, encodings, ranks, device, report):
        def report_and_wait(epoch, *figures):
            report(epoch, *figures)
            while task.name == name and epoch == 2:
                signal.pause()

        return fit(self, task, encodings, ranks, device, report_and_wait)

    reference.Recipe.fit = stopping


def diverge(name, epoch):
    """`before` of a training in which the loss of a task is infinite after an epoch."""
    loss = reference.Trainer.loss

    def infinite(self):
        return math.inf if (self.task.name, self.epochs) == (name, epoch) else loss(self)

    return lambda: setattr(reference.Trainer, "loss", infinite)


def living(group):
    """Process ids of a group, without zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
            found += [int(stat.parent.name)] if (its_group, state != "Z") == (str(group), True) else []
    return found


def files(folder):
    """{path below the folder: content}."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def curves(folder):
    """What TensorBoard draws of a task: {(part, tag): [(step, value), ...]}; one event file a part."""
    read = {}
    for part in folder.iterdir():
        events = EventAccumulator(str(part), purge_orphaned_data=False).Reload()
        read |= {(part.name, tag): [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return read


def steps(folder):
    """Epochs of the curves of the losses below a folder of logs."""
    return {name: [step for step, _ in curves(folder / name)["train", f"{name}/loss"]] for name in os.listdir(folder)}


def test_training_writes_checkpoints_and_logs_and_prints_their_figures(train, tmp_path):
    answer = train("--save_name", "mine", *SMALL)
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("task"))
    assert lines[start].split() == ["task", "best", "tau", "epoch", "snapshot", "tau", "whole", "split", "seconds"]
    assert sorted(files(tmp_path / "r")) == sorted(f"{task.name}_final.pth" for task in TASKS)
    sums = [0, 0, 0]
    for task, line in zip(TASKS, lines[start + 1 :], strict=False):
        checkpoint = torch.load(tmp_path / "r" / f"{task.name}_final.pth", weights_only=True)
        taus = checkpoint["validate_ktau"]
        best, epoch = max((tau, epoch) for epoch, tau in taus)
        used = sorted({tau for _, tau in taus})[max(task.snapshot, -len({tau for _, tau in taus}))]
        floats = [best, used, checkpoint["whole_ktau"]]
        sums = [a + b for a, b in zip(sums, floats, strict=True)]
        cells = line.split()
        assert cells[:3] == [task.name, f"{best:.4f}", str(epoch)]
        assert cells[4:6] == [f"{tau:.4f}" for tau in floats[1:]]
    assert lines[start + 9].split() == ["mean", *(f"{value / 8:.4f}" for value in sums)]
    assert "checkpoints: r; curves: tensorboard --logdir l (l/mine)" in lines[start + 10 :]
    assert steps(tmp_path / "l" / "mine") == {task.name: [1, 2, 3, 4] for task in TASKS}


@pytest.mark.parametrize(
    "tasks", [("market1501", "sop"), pytest.param([task.name for task in TASKS], marks=pytest.mark.slow)]
)
def test_a_clone_needs_no_data_and_stays_clean_and_gp_ranks_better(script, project, data_folder, tasks):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(project.parent)}

    def git(*arguments):
        command = ["git", *arguments]
        return subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True, text=True).stdout

    def run(name, *flags):
        answer = script(name, *flags, root=project, here=project)
        assert (answer.returncode, answer.stderr) == (0, "")
        return answer.stdout.splitlines()

    git("init", "--quiet")
    git("add", "--all")
    before = git("status", "--porcelain")
    surrogate = "data: data/surrogate, the surrogate benchmark, as data lacks the competition's files"
    taus = []
    for flags, suffix in (((), "final"), (("--recipe", "gp"), "gp")):
        assert run("main.py", "--tasks", *tasks, *flags)[0] == surrogate
        assert run("test.py", "--tasks", *tasks, *flags)[0] == surrogate
        names = f"Track2_submitA_test_surrogate_{suffix}.json", "data/surrogate/truth.json"
        taus.append(json.loads(run("tools/score.py", *names, "--json", "--tasks", *tasks)[-1])["mean_tau"])
    assert 0.75 < taus[0] < taus[1] - 0.003
    names = sorted(f"{task}_{suffix}.pth" for task in tasks for suffix in ("final", "gp"))
    assert sorted(files(project / "results" / "surrogate")) == names
    assert sorted(os.listdir(project / "logs" / "surrogate")) == ["train_final", "train_gp"]
    assert git("status", "--porcelain") == before

    earlier = {name: files(project / name / "surrogate") for name in ("data", "results", "logs")}
    for name in (TRAIN_FILE, TEST_FILE):
        shutil.copy(data_folder / name, project / "data")
    gp = ("--tasks", "sop", "--recipe", "gp")
    assert run("main.py", *gp)[0] == "data: data, the competition files"
    lines = run("test.py", *gp, "--uncertainty", "intervals.json")
    assert "Track2_submitA_test_gp.json: 300 architectures ranked for 1 task" in lines
    assert (project / "results" / "sop_gp.pth").exists() and (project / "logs" / "train_gp" / "sop").is_dir()
    assert {name: files(project / name / "surrogate") for name in earlier} == earlier
    assert git("status", "--porcelain") == before


def test_a_missing_file_is_not_taken_from_the_surrogate(script, project, data_folder):
    flags = ("--recipe", "ridge", "--tasks", "sop")
    for name, held, missing in (("main.py", TEST_FILE, TRAIN_FILE), ("test.py", TRAIN_FILE, TEST_FILE)):
        shutil.copy(data_folder / held, project / "data")
        (project / "data" / missing).unlink(missing_ok=True)
        if name == "test.py":
            assert script("main.py", *flags, root=project).returncode == 0
        answer = script(name, *flags, root=project)
        message = f"{name}: project/data/{missing}: No such file or directory\n"
        assert (answer.returncode, answer.stderr) == (2, message)
    assert not (project / "data" / "surrogate" / TRAIN_FILE).exists()


def test_flags_win_over_the_settings_of_the_task(train, tmp_path):
    given = {"lr": 2e-3, "weight_decay": 0.0, "batch_size": 10, "train_ratio": 0.75, "seed": 8, "dropout_ratio": 0.1}
    given |= {"val_interval": 2, "num_epochs": 5, "keep": 2}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    losses = set()
    for cos in (True, False):
        assert train("--tasks", "sop", *words, "--cos" if cos else "--no-cos").returncode == 0
        checkpoint = torch.load(tmp_path / "r" / "sop_final.pth", weights_only=True)
        assert checkpoint["task"] == {"name": "sop", "snapshot": -4, "cos": cos, **given}
        assert [epoch for epoch, _ in checkpoint["validate_ktau"]] == [1, 2, 4]
        assert len(checkpoint["snapshots"]) == 2
        losses.add(tuple(checkpoint["train_loss"]))
    assert len(losses) == 2


@pytest.mark.parametrize("recipe", ["gp", "ridge"])
def test_another_recipe_trains_and_resumes(train, tmp_path, recipe):
    shared = ("--recipe", recipe, "--tasks", "sop_rank", "cplfw")
    answer = train(*shared)
    assert (answer.returncode, answer.stderr) == (0, "")
    checkpoints = files(tmp_path / "r")
    assert sorted(checkpoints) == [f"cplfw_{recipe}.pth", f"sop_{recipe}.pth"]
    taus = [torch.load(tmp_path / "r" / name, weights_only=True)["loo_ktau"] for name in sorted(checkpoints)]
    shown = re.findall(r"^(?:cplfw|sop|mean) +(\d\.\d{4})\b", answer.stdout, re.MULTILINE)
    assert shown == [f"{tau:.4f}" for tau in (*taus, sum(taus) / 2)] and min(taus) > 0.7
    assert "already trained" not in answer.stdout
    if recipe == "gp":
        losses = [loss for _, loss in curves(tmp_path / "l" / "train_gp" / "sop")["train", "sop/loss"]]
        assert len(losses) > 5 and losses[-1] < losses[0]
    again = train(*shared, "--resume")
    assert "with these settings: cplfw, sop\n" in again.stdout and "training 0 of 2 tasks" in again.stdout
    assert re.findall(r"^(?:cplfw|sop|mean) +(\d\.\d{4})\b", again.stdout, re.MULTILINE) == shown
    assert files(tmp_path / "r") == checkpoints


def test_resume_skips_only_what_would_be_repeated(train, data_folder, tmp_path, monkeypatch):
    def skipped(*others):
        answer = train("--tasks", "sop", "veri", *SMALL, "--resume", *others)
        assert answer.returncode == 0, answer.stderr
        assert re.findall(r"^(sop|veri) ", answer.stdout.split("task ")[-1], re.MULTILINE) == ["veri", "sop"]
        return re.search(r"with these settings: (.*)", answer.stdout)[1]

    assert skipped() == "no task"
    before = files(tmp_path / "r")
    assert skipped() == "veri, sop"
    (tmp_path / "r" / "sop_final.pth").write_bytes(before["sop_final.pth"][:-1])
    assert skipped() == "veri"
    (tmp_path / "r" / "sop_final.pth").rename(tmp_path / "r" / "veri_final.pth")
    assert skipped() == "no task"
    assert files(tmp_path / "r") == before
    assert skipped("--keep", 3) == skipped("--keep", 4) == "no task"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")  # other kernels
    assert skipped("--keep", 4) == "no task"
    path = data_folder / TRAIN_FILE
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert skipped("--keep", 4) == "no task"


def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(train, stuck, tmp_path):
    assert train(*TWO, "--log_path", "m").returncode == 0
    whole = files(tmp_path / "r")
    shutil.rmtree(tmp_path / "r")
    with stuck("cplfw", *TWO) as process:
        process.read_until("cplfw      epoch    2/")
        process.interrupt()
        assert process.wait() == 130
        assert process.stderr.read() == "main.py: interrupted; finished: sop; --resume skips what is finished\n"
        assert re.search(r"^sop +-?0", process.stdout.read(), re.MULTILINE)  # in the table
        assert not living(process.pid)
    assert files(tmp_path / "r") == {"sop_final.pth": whole["sop_final.pth"]}
    answer = train(*TWO, "--resume")
    assert "already trained" in answer.stdout and "training 1 of 2 tasks" in answer.stdout
    assert files(tmp_path / "r") == whole
    assert steps(tmp_path / "l" / "train_final") == {name: [1, 2, 3, 4] for name in ("sop", "cplfw")}


def test_a_worker_that_dies_is_named_and_the_others_are_kept(stuck, tmp_path):
    with stuck("sop", *TWO) as process:
        process.read_until("sop        epoch    2/")
        (worker,) = set(living(process.pid)) - {process.pid}
        os.kill(worker, signal.SIGKILL)
        assert process.wait() == 1
        assert process.stderr.read() == "main.py: sop: its process died, exit status -9\n"
        output = process.stdout.read()
        assert re.search(r"^cplfw +-?0", output, re.MULTILINE) and not re.search(r"^sop +-?0", output, re.MULTILINE)
        assert re.search(r"^next: .* --tasks cplfw ", output, re.MULTILINE)
    assert list(files(tmp_path / "r")) == ["cplfw_final.pth"]


@pytest.mark.parametrize(("epoch", "saved"), [(1, "nothing was"), (3, "the snapshots before it were")])
def test_a_task_that_diverges_is_named_and_the_others_are_kept(train, tmp_path, epoch, saved):
    answer = train(*SMALL, before=diverge("sop", epoch))
    message = f"main.py: sop: stopped: the loss is inf in epoch {epoch}: lower --lr; {saved} saved\n"
    assert (answer.returncode, answer.stderr) == (1, message)
    names = [task.name for task in TASKS][: 7 + (epoch > 1)]  # sop is the last
    assert sorted(files(tmp_path / "r")) == sorted(f"{name}_final.pth" for name in names)
    flags = " --tasks " + " ".join(names) if epoch == 1 else ""
    assert f" --results_path r{flags} ranks the test architectures\n" in answer.stdout
    expected = {task.name: [1, 2, 3, 4] for task in TASKS} | {"sop": [1, 2, 3][:epoch]}
    assert steps(tmp_path / "l" / "train_final") == expected


@pytest.mark.parametrize("how", ["interrupted", "killed", "a dead worker", "diverged", "a full disk", "repeated"])
def test_checkpoints_and_logs_are_of_exactly_one_run_however_another_ended(train, stuck, tmp_path, how):
    shared, logs = ("--tasks", "cplfw", "--batch_size", 8, "--log_interval", 1), tmp_path / "l" / "train_final"
    assert train(*shared, "--num_epochs", 3).returncode == 0
    before, drawn, status = files(tmp_path / "r"), curves(logs / "cplfw"), 1
    if how in ("diverged", "a full disk"):
        before_it = diverge("cplfw", 1) if how == "diverged" else file_size_limited(100_000)
        status = train(*shared, "--num_epochs", 9, before=before_it).returncode
    elif how != "repeated":
        with stuck("cplfw", *shared, "--num_epochs", 9) as process:
            process.read_until("cplfw      epoch    2/")
            workers = set(living(process.pid)) - {process.pid}
            if how == "interrupted":
                process.interrupt()
            else:
                os.kill(process.pid if how == "killed" else workers.pop(), signal.SIGKILL)
            status = process.wait()
            wait_for(lambda: not living(process.pid))
    assert status == {"interrupted": 130, "killed": -9}.get(how, 1)
    assert files(tmp_path / "r") == before
    if how == "killed":  # its curves stay until the next run, beside nothing else
        assert curves(logs / "cplfw") != drawn
        assert steps(logs)["cplfw"] in ([], [1], [1, 2])
        with stuck("cplfw", *shared, "--num_epochs", 9) as process:
            process.read_until("cplfw      epoch    2/")
            process.interrupt()
            assert process.wait() == 130
    assert curves(logs / "cplfw") == drawn
    assert train(*shared, "--num_epochs", 5).returncode == 0
    assert steps(logs) == {"cplfw": [1, 2, 3, 4, 5]}
    assert len(files(logs)) == 2  # an event file for each part


def test_a_second_training_into_the_same_logs_is_refused_meanwhile(train, stuck, tmp_path):
    with stuck("cplfw", *TWO) as process:
        process.read_until("cplfw      epoch    2/")
        answer = train("--tasks", "veri", "cplfw", *SMALL)
        where = "l/train_final/cplfw"
        assert answer.stderr == f"main.py: {where}: another training writes there: wait, or choose another name\n"
        assert (answer.returncode, list(files(tmp_path / "r"))) == (2, ["sop_final.pth"])
        assert train("--tasks", "cplfw", *SMALL, "--save_name", "other").returncode == 0
        assert train("--tasks", "veri", *SMALL).returncode == 0
    assert train("--tasks", "cplfw", *SMALL).returncode == 0


@pytest.mark.parametrize("recipe", ["reference", "gp", "ridge"])
def test_bytes_depend_neither_on_jobs_nor_on_threads_nor_on_cores(train, script, data_folder, tmp_path, recipe):
    few = SMALL if recipe == "reference" else ()
    tasks, found = ("--tasks", "sop", "veri", "cplfw")[: 2 if recipe == "gp" else 4], []

    def one_core():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    many_threads = {"env": {**os.environ, "OMP_NUM_THREADS": "4"}}
    for jobs, options in ((("--jobs", 1), many_threads), (("--jobs", 3), {}), ((), {"before": one_core})):
        flags = ("--recipe", recipe, *tasks)
        assert train(*flags, *jobs, *few, **options).returncode == 0
        where = ("--data_path", data_folder, "--results_path", "r")
        assert script("test.py", *flags, *where, "--save_name", "s", **options).returncode == 0
        found.append((files(tmp_path / "r"), (tmp_path / "Track2_submitA_s.json").read_bytes()))
    assert len(found[0][0]) == len(tasks) - 1
    assert found[0] == found[1] == found[2]


def test_train_sh_trains_from_any_folder_and_passes_flags_and_status_on(train, where, project, tmp_path):
    assert train("--tasks", "sop", *SMALL).returncode == 0
    expected = files(tmp_path / "r")
    for name in ("train.sh", "env.sh", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "3", "PYTHONSAFEPATH": "1"}

    def run(*words):
        command = ["bash", project / "train.sh", *where, "--results_path", "q q", "--tasks", "sop", *words]
        options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
        return subprocess.run(list(map(str, command)), **options)

    answer = run(*SMALL)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert files(tmp_path / "q q") == expected
    assert not (project / ".venv").exists()
    answer = run("--lr", "0")
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch_size", "1"), "--batch_size 1: must be at least 2"),
        (("--device", "nowhere"), "--device nowhere: "),
        (("--data_path", "nowhere"), "--data_path nowhere: no such folder"),
        (("--data_path", "data/" + TRAIN_FILE), f"--data_path data/{TRAIN_FILE}: no such folder"),
        (("--recipe", "gp", "--train_ratio", "0.5"), "--train_ratio: the recipe gp has no such setting"),
        (("--tasks", "faces"), f"data/{TRAIN_FILE}: does not label the task 'faces': it labels cplfw, vehicleid, "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(train, tmp_path, flags, message):
    answer = train("--data_path", "data", *flags)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"main.py: {message}")
    assert len(answer.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["data"]


def without_labels(entries):
    return {name: {"arch": entry["arch"]} for name, entry in entries.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_labels, "no entry has a label, such as 'sop_rank' or 'sop_accuracy': label a task"),
        (lambda entries: {k: v | {"sop_rank": 0.5} for k, v in entries.items()}, "sop: all labels are equal: "),
        (lambda _: [], "expected an object of architectures"),
    ],
)
def test_a_training_file_that_nothing_can_be_learnt_from_is_one_line(train, data_folder, tmp_path, change, message):
    path = data_folder / TRAIN_FILE
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    answer = train("--recipe", "gp")
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"main.py: {path}: {message}")
    assert len(answer.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize(
    ("flags", "make", "message"),
    [
        (("--results_path", PUBLISHED), None, r".*/published/\w+\.pth: part of the published run"),
        (
            ("--log_path", ROOT / "logs", "--save_name", "published"),
            None,
            r".*published/\w+: part of the published",
        ),
        ((), ("r/sop_final.pth", PUBLISHED / "new.pth"), "r/sop_final.pth: part of the published run"),
        ((), ("r/sop_final.pth", "../data/" + TRAIN_FILE), f"r/sop_final.pth: would replace data/{TRAIN_FILE}, which "),
        ((), ("r/sop_final.pth", "."), "r/sop_final.pth: Is a directory"),
        ((), ("l/train_final/veri", "file"), "l/train_final/veri: File exists"),
        (("--results_path", "data/" + TRAIN_FILE), None, f".*data/{TRAIN_FILE}: File exists"),
        (("--results_path", "/proc/nowhere"), None, "/proc/nowhere: No such file or directory"),
        (("--log_path", "/proc/nowhere"), None, "/proc/nowhere: No such file or directory"),
        (("--log_path", "l\udcff"), None, r"l\\udcff/train_final/\w+: not UTF-8, which TensorBoard needs"),
        (("--save_name", "s\udcff"), None, r"l/s\\udcff/\w+: not UTF-8, which TensorBoard needs"),
    ],
)
def test_what_cannot_or_must_not_be_replaced_is_said_before_training(train, tmp_path, flags, make, message):
    if make:
        path = tmp_path / make[0]
        path.parent.mkdir(parents=True)
        path.symlink_to(make[1]) if make[1] != "file" else path.write_text("old")
    before, published = files(tmp_path), files(PUBLISHED)
    answer = train("--data_path", "data", *flags, "--num_epochs", 10**6, "--batch_size", 8)
    assert answer.returncode == 2
    assert re.match(f"main.py: {message}", answer.stderr), answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert (files(tmp_path), files(PUBLISHED)) == (before, published)


def file_size_limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def unprivileged():
    """Give up the superuser's right to read and write everywhere, if there is one: CAP_DAC_OVERRIDE, _READ_SEARCH."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capget(header, data)
    data[0] &= ~0b110  # effective
    data[1] &= ~0b110  # permitted
    ctypes.CDLL(None).capset(header, data)


@pytest.mark.parametrize("name", ["r", "l/train_final/sop", f"data/{TRAIN_FILE}"])
def test_what_may_not_be_read_or_written_is_said_before_training(train, data_folder, tmp_path, name):
    path = tmp_path / name
    if not path.exists():
        path.mkdir(parents=True)
    path.chmod(0o555 if path.is_dir() else 0)
    answer = train("--batch_size", 8, before=unprivileged)
    why = "cannot be written to" if path.is_dir() else "Permission denied"
    path.chmod(0o755)
    assert answer.returncode == 2
    assert re.fullmatch(f"main.py: (.*/)?{name}: {why}\n", answer.stderr)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_full_disk_is_one_line_a_task(train, tmp_path):
    flags = ("--tasks", "sop", "cplfw", *SMALL)
    for size, place in ((100_000, "r/{0}_final.pth"), (100, "l/train_final/{0}")):
        answer = train(*flags, before=file_size_limited(size))
        assert answer.returncode == 1
        lines = [f"main.py: {task}: {place.format(task)}: File too large" for task in ("cplfw", "sop")]
        assert sorted(answer.stderr.splitlines()) == lines
        assert not files(tmp_path / "r")


def test_shared_and_undefined_ranks_are_said(train, data_folder):
    path = data_folder / TRAIN_FILE
    entries = json.loads(path.read_text())
    entries["arch7"]["veri_rank"] = entries["arch8"]["veri_rank"]
    path.write_text(json.dumps(entries))
    answer = train("--tasks", "sop", "veri", *SMALL)
    assert answer.stdout.startswith("veri_rank: some architectures share a rank\ntraining 2 of 2 tasks on the 200 ")


def test_other_paths_that_are_not_utf_8_work(script, data_folder, tmp_path):
    data_folder.rename(tmp_path / "d\udcff\n")
    flags = ("--data_path", "d\udcff\n", "--results_path", "r\udcff\n", "--recipe", "ridge", "--tasks", "sop")
    answer = script("main.py", *flags, "--log_path", "l\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    words = [line.split()[0] for line in answer.stdout.splitlines()]
    assert set(words) == {"training", "task", "sop", "mean", "checkpoints:", "next:"}
    answer = script("test.py", *flags, "--save_name", "s\udcff\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[1:] == [r"Track2_submitA_s\udcff\n.json: 300 architectures ranked for 1 task"]


def test_two_architectures_are_enough_for_gp(train, data_folder, tmp_path):
    entries = make_entries(space.sample_architectures(2, seed=1))
    (data_folder / TRAIN_FILE).write_text(json.dumps(entries))
    answer = train("--recipe", "gp", "--tasks", "sop")
    assert (answer.returncode, answer.stderr) == (0, "")
    tau = torch.load(tmp_path / "r" / "sop_gp.pth", weights_only=True)["loo_ktau"]
    assert math.isnan(tau) or -1 <= tau <= 1
