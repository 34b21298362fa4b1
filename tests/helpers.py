"""What several tests share: paths, small data files, and scripts that run as a user runs them."""

import contextlib
import fcntl
import json
import os
import runpy
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from engine.checkpoint import to_bytes
from recipes.base import Recipe as Base
from tasks import TASKS, TEST_FILE, TRAIN_FILE

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data" / TRAIN_FILE
needs_real_data = pytest.mark.skipif(not REAL_DATA.exists(), reason="the competition's training file is not there")
old_torch = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7),
    reason="recorded with torch 2.13; torch 2.6 draws other dropout masks from a seed",
)
REFERENCE = recipes.get("reference")


def make_entries(architectures, start=1, seed=0):
    """Entries of a file: ranks of all eight tasks that follow the number of heads, with noise."""
    random = np.random.RandomState(seed)
    entries = {f"arch{start + i}": {} for i in range(len(architectures))}
    for task in TASKS:
        quality = [a.count("3") - a.count("1") + random.randn() for a in architectures]
        for entry, rank in zip(entries.values(), np.argsort(np.argsort(quality)).tolist(), strict=True):
            entry[task.rank_key] = rank
    for entry, architecture in zip(entries.values(), architectures, strict=True):
        entry["arch"] = architecture
    return entries


def make_data(folder, train, test=None):
    """Write entries as the training file and the test file of a new folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAIN_FILE).write_text(json.dumps(train))
    if test is not None:
        (folder / TEST_FILE).write_text(json.dumps(test))
    return folder


def save_checkpoint(path, recipe, task, fitted, data="f" * 64):
    """Write a checkpoint as main.py does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(recipe.header(task, data, "cpu") | fitted))


class Script:
    """A script of the project at `root`, forked from the tests, which have torch, into a process group of its own.

    Use it as a context: it is killed at the end. `before` is called in the process before the script starts.
    """

    def __init__(self, name, *flags, cwd, root=ROOT, before=lambda: None):
        pipes = [os.pipe() for _ in range(2)]
        self.pid, self.returncode = os.fork(), None
        if not self.pid:
            self._run(root, name, list(map(str, flags)), cwd, before, [write for _, write in pipes])
        for read, write in pipes:
            os.close(write)
            fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 2**20)  # all of the output: nobody reads it before the end
        self.stdout, self.stderr = (open(read, newline="") for read, _ in pipes)  # noqa: SIM115

    @staticmethod
    def _run(root, name, flags, cwd, before, outputs):
        status = 1
        try:
            os.setsid()
            os.chdir(cwd)
            for descriptor, output in enumerate(outputs, 1):
                os.dup2(output, descriptor)
                os.close(output)
            sys.stdin = open(os.devnull)  # noqa: SIM115
            sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
            if root != ROOT:
                Script._use_modules_of(root)
            sys.argv = [str(root / name), *flags]
            before()
            runpy.run_path(sys.argv[0], run_name="__main__")
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    @staticmethod
    def _use_modules_of(root):
        own = (str(ROOT), str(root))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if file.startswith(own) and "site-packages" not in file:
                del sys.modules[name]
        sys.path[:] = [folder for folder in sys.path if folder not in (*own, f"{ROOT}/tests")]  # a script adds its own

    def wait(self):
        """Exit status."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def read_until(self, text):
        """Read the output up to a line with `text`."""
        for line in self.stdout:
            if text in line:
                return
        raise AssertionError(f"ended without '{text}': {self.stderr.read()}")

    def interrupt(self):
        """Do as Ctrl-C does."""
        os.killpg(self.pid, signal.SIGINT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
        self.stdout.close()
        self.stderr.close()


def run_script(name, *flags, cwd, root=ROOT, before=lambda: None, **options):
    """Run a script of the project at `root` to its end: subprocess.CompletedProcess.

    With options of subprocess.run it runs in a Python of its own, else, which is quicker, in a fork of the tests.
    """
    if options:
        command = [sys.executable, str(root / name), *map(str, flags)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, **options)
    with Script(name, *flags, cwd=cwd, root=root, before=before) as process:
        status = process.wait()
        return subprocess.CompletedProcess(name, status, process.stdout.read(), process.stderr.read())


def one_hot(architecture):
    """Encode one string by walking along it: (37, 10) float32."""
    encoding = np.zeros((37, 10), np.float32)
    encoding[0, "jkl".index(architecture[0])] = 1
    for row in range(1, 37, 3):
        heads, ratio, embedding = map(int, architecture[row : row + 3])
        if embedding:
            encoding[row, 2 + heads] = encoding[row + 1, 5 + ratio] = encoding[row + 2, 9] = 1
    return encoding


class OwnRecipe(Base):
    """A user's recipe with nothing but what it must have: an architecture's score is its likeness to the mean one."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return {"effects": encodings.mean(0).flatten()}

    def model(self, checkpoint, index=None):
        return lambda encodings: encodings.flatten(1) @ checkpoint["effects"]


def add_recipe(monkeypatch, recipe_class, name="own"):
    """Add a recipe to the project's; returns it."""
    monkeypatch.setitem(recipes.RECIPES, name, name)
    monkeypatch.setitem(sys.modules, f"recipes.{name}", types.SimpleNamespace(Recipe=recipe_class))
    return recipes.get(name)
