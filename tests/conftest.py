"""Fixtures: small data files in the competition's format, made from sampled architectures."""

import contextlib
import fcntl
import gc
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import checkpoint
import dataset
import recipes
import recipes.reference
import surrogate
from tasks import TASKS

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / dataset.TRAIN_FILE
REFERENCE = ROOT.parent / "shared" / "reference" / "cpu_curves.json"

OLD_TORCH = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7),
    reason="recorded with torch 2.13; torch 2.6 draws other dropout masks from a seed",
)


torch.set_num_threads(1)


def make_content(architectures, start=1, seed=0):
    """A file's content: ranks that follow the number of heads, with noise."""
    random = np.random.RandomState(seed)
    content = {f"arch{start + i}": {} for i in range(len(architectures))}
    for task in TASKS:
        quality = [a.count("3") - a.count("1") + random.randn() for a in architectures]
        for entry, rank in zip(content.values(), np.argsort(np.argsort(quality)).tolist(), strict=True):
            entry[task.rank_key] = rank
    for entry, architecture in zip(content.values(), architectures, strict=True):
        entry["arch"] = architecture
    return content


@pytest.fixture(autouse=True, scope="session")
def the_projects_folders_stay():
    """Fail at the end where a test, or somebody meanwhile, made something in the project's own results/ or logs/."""
    before = {path for name in ("results", "logs") for path in (ROOT / name).rglob("*")}
    yield
    assert {path for name in ("results", "logs") for path in (ROOT / name).rglob("*")} == before


@pytest.fixture(autouse=True)
def garbage_is_collected():
    """What cli.run leaves off for a script's short life is on again for the next test."""
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def train_content():
    return make_content(dataset.sample_architectures(200, seed=1))


@pytest.fixture
def data_folder(tmp_path, train_content):
    """A folder with a training file of 200 architectures and a test file of 300, whose ranks are placeholders."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / dataset.TRAIN_FILE).write_text(json.dumps(train_content))
    exclude = [entry["arch"] for entry in train_content.values()]
    content = make_content(dataset.sample_architectures(300, seed=2, exclude=exclude), start=201)
    for entry in content.values():
        entry.update({task.rank_key: -1 for task in TASKS})
    (folder / dataset.TEST_FILE).write_text(json.dumps(content))
    return folder


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


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
        sys.path[:] = [str(root), *(folder for folder in sys.path if folder not in (*own, f"{ROOT}/tests"))]

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self):
        """Exit status."""
        wait_for(lambda: self.poll() is not None, 100)
        return self.returncode

    def read_until(self, text):
        """Read the output up to a line with `text`."""
        for line in self.stdout:
            if text in line:
                return
        raise AssertionError(f"ended without '{text}': {self.stderr.read()}")

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def interrupt(self):
        """Do as Ctrl-C does."""
        os.killpg(self.pid, signal.SIGINT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
        self.stdout.close()
        self.stderr.close()


@pytest.fixture
def script(tmp_path):
    """Run a script of the project at `root` to its end, by default in a temporary folder: script(name, *flags).

    With options of subprocess.run it runs in a Python of its own, else, which is quicker, in a fork of the tests.
    """

    def run(name, *flags, root=ROOT, here=tmp_path, before=lambda: None, **options):
        if options:
            command = [sys.executable, str(root / name), *map(str, flags)]
            return subprocess.run(command, cwd=here, capture_output=True, text=True, **options)
        with Script(name, *flags, cwd=here, root=root, before=before) as process:
            status = process.wait()
            return subprocess.CompletedProcess(name, status, process.stdout.read(), process.stderr.read())

    return run


@pytest.fixture(scope="session")
def effects():
    """What the committed effects.json holds."""
    return json.loads((ROOT / "data" / "surrogate" / surrogate.EFFECTS_FILE).read_text())


@pytest.fixture(scope="session")
def generated(effects):
    """The surrogate's files, {name: bytes}."""
    return surrogate.generate(effects["tasks"])


@pytest.fixture
def project(tmp_path):
    """A copy of the project as a clone has it, without data, results or logs: the folder."""
    folder = tmp_path / "project"
    (folder / "data" / "surrogate").mkdir(parents=True)
    for path in (*ROOT.glob("*.py"), ROOT / ".gitignore", ROOT / "data" / "surrogate" / surrogate.EFFECTS_FILE):
        shutil.copy(path, folder / path.relative_to(ROOT))
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


REFERENCE_RECIPE = recipes.get("reference")


def save_run(path, run, data="f" * 64):
    """Write a training.Run as the recipe `reference` does."""
    fitted = recipes.reference.fitted(run)
    checkpoint.save(path, REFERENCE_RECIPE.header(run.task, data, "cpu") | {"whole_ktau": 0.5} | fitted)


def choose(path, task, index=None):
    """(index, tau, state dict) of a snapshot in a checkpoint of the recipe `reference`."""
    content = REFERENCE_RECIPE.load(path, task)
    index = REFERENCE_RECIPE.snapshot_index(path, content, index)
    snapshot = content["snapshots"][index]
    return SimpleNamespace(index=index, ktau=snapshot["ktau"], state_dict=snapshot["state_dict"])


def model_of(state_dict):
    """The scoring.Model of one predictor."""
    return REFERENCE_RECIPE.model({"index": -1, "snapshots": {-1: {"state_dict": state_dict}}})
