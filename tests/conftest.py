"""Fixtures: small data, scripts, and a copy of the project."""

import json
import shutil
import signal

import hypothesis
import pytest
import torch
from helpers import ROOT, make_data, make_entries, run_script

from common.files import log
from data.surrogate import generate
from space import sample_architectures
from tasks import TASKS

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def the_projects_folders_stay():
    """Fail at the end where a test, or somebody meanwhile, made something in the project's own results/ or logs/."""
    before = {path for name in ("results", "logs") for path in (ROOT / name).rglob("*")}
    yield
    assert {path for name in ("results", "logs") for path in (ROOT / name).rglob("*")} == before


@pytest.fixture(autouse=True)
def own_handlers():
    """Take off what cli.run puts on the log of the tests' own process."""
    yield
    log.handlers.clear()


@pytest.fixture
def train_entries():
    return make_entries(sample_architectures(200, seed=1))


@pytest.fixture
def data_folder(tmp_path, train_entries):
    """A folder with a training file of 200 architectures and a test file of 300, whose ranks are placeholders."""
    exclude = [entry["arch"] for entry in train_entries.values()]
    test = make_entries(sample_architectures(300, seed=2, exclude=exclude), start=201)
    for entry in test.values():
        entry.update({task.rank_key: -1 for task in TASKS})
    return make_data(tmp_path / "data", train_entries, test)


@pytest.fixture
def script(tmp_path):
    """run_script in a temporary folder: script(name, *flags)."""

    def run(name, *flags, here=tmp_path, **options):
        return run_script(name, *flags, cwd=here, **options)

    return run


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
    for name in ("common", "data", "logs/published", "recipes", "results/published", "search", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for pattern in ("*.py", "*.sh", "*.txt", "*.ipynb", ".gitignore"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, folder)
    return folder
