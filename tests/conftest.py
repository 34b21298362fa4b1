"""Fixtures: small data, commands, a folder that stands in for the project's, and a copy of the project."""

import json
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest
import torch
from helpers import ROOT, make_data, make_entries, run_command

from common import paths
from data.surrogate import generate
from space import VIT
from tasks import TASKS

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def the_projects_folders_stay():
    """Fail at the end where a test, or somebody meanwhile, made something in the project's own results/ or logs/."""
    paths = lambda: {*ROOT.glob("results/**/*"), *ROOT.glob("logs/**/*")}  # noqa: E731
    before = paths()
    yield
    assert paths() == before


@pytest.fixture
def train_entries():
    return make_entries(VIT.sample(200, seed=1))


@pytest.fixture
def data_folder(tmp_path, train_entries):
    """A folder with a training file of 200 architectures and a test file of 300, whose ranks are placeholders."""
    exclude = [entry["arch"] for entry in train_entries.values()]
    test = make_entries(VIT.sample(300, seed=2, exclude=exclude), start=201)
    for entry in test.values():
        entry.update({task.rank_key: -1 for task in TASKS})
    return make_data(tmp_path / "data", train_entries, test)


@pytest.fixture
def home(tmp_path, monkeypatch, effects, generated):
    """A folder that commands take for the project's: as in a clone, with the published run and without data."""
    make, folder = generate.generate, tmp_path / "the project"
    for name in ("results/published", "logs/published"):
        shutil.copytree(ROOT / name, folder / name)
    surrogate = folder / "data" / "surrogate"
    surrogate.mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(folder / "common" / "paths.py"))
    monkeypatch.setattr(generate, "generate", lambda tasks: generated if tasks == effects["tasks"] else make(tasks))
    monkeypatch.setattr(generate, "FOLDER", surrogate)
    monkeypatch.setattr(generate, "EFFECTS", Path(shutil.copy(generate.EFFECTS, surrogate)))
    return folder


@pytest.fixture
def command(home, tmp_path, monkeypatch):
    """Run a command in the temporary folder, for the project in `home`: command(name, *flags)."""
    monkeypatch.chdir(tmp_path)
    return run_command


@pytest.fixture(scope="session")
def effects():
    """What the committed effects.json holds."""
    return json.loads(generate.EFFECTS.read_text())


@pytest.fixture(scope="session")
def generated(effects):
    """The surrogate's files, {name: bytes}."""
    return generate.generate(effects["tasks"])


@pytest.fixture
def project(tmp_path):
    """A copy of the project as a clone has it, without tests: the folder."""
    folder = tmp_path / "project"
    ignore = shutil.ignore_patterns("__pycache__", "CVPR_*", "truth.json", "own")
    for name in ("common", "data", "engine", "logs/published", "recipes", "results/published", "search", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for pattern in ("*.py", "*.sh", "*.t*", "*.ipynb", ".gitignore"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, folder)
    return folder
