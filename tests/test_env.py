"""env.sh in environments whose packages are only names and versions, with a pip that records what it is asked for."""

import os
import re
import subprocess
import sys
import venv
import zipfile

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

GOOD = {"torch": "2.10.0+cpu", "numpy": "1.26.post1", "scipy": "2.0rc1", "tqdm": "4.100", "tensorboard": "2.18.1.dev3"}
PIP = """
import os, sys
from importlib import metadata
if "list" in sys.argv:
    print(*(f"{found.name}=={found.version}" for found in metadata.distributions() if found.name), sep="\\n")
if "install" in sys.argv:
    asked = " ".join(argument for argument in sys.argv if ">=" in argument or "==" in argument)
    kept = ", ".join(sorted(filter(None, open(sys.argv[sys.argv.index("--constraint") + 1]).read().split("\\n"))))
    open(os.environ["RECORD"], "w").write(f"{sys.prefix}: {asked} with {kept}")
sys.exit(os.environ.get("PIP_FAILS") in sys.argv)
"""


@pytest.fixture
def project(project, tmp_path):
    """A copy of the project, in a folder with a space, whose main.py only says that it started."""
    (project / "main.py").write_text("import sys\nprint('started', sys.prefix, sys.argv[1:])\n")
    return project.rename(tmp_path / "the project")


@pytest.fixture
def train(project, tmp_path):
    """Run train.sh: (status, output, lines of stderr, "environment: what pip is asked for with what it keeps" or None).

    Files in the folder that it is run in have the names of Python's own.
    """
    for name in ("fake", "programs"):
        (tmp_path / name).mkdir()
    (tmp_path / "fake" / "pip.py").write_text(PIP)
    (tmp_path / "programs" / "python3").symlink_to(sys.executable)
    for name in ("re.py", "venv.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    record = tmp_path / "record"
    environment = {"PATH": f"{tmp_path}/programs:{os.environ['PATH']}", "PYTHONPATH": tmp_path / "fake"}
    environment |= {"RECORD": record, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}

    def run(script="train.sh", **variables):
        command, options = ["bash", project / script, "--flag", "a b"], {"capture_output": True, "text": True}
        answer = subprocess.run(command, cwd=tmp_path, env=environment | variables, timeout=100, **options)
        asked = record.read_text() if record.exists() else None
        return answer.returncode, answer.stdout, answer.stderr.splitlines(), asked

    return run


def make(folder, packages):
    """A virtual environment, new or as it is, with these packages, as far as their metadata goes."""
    if not folder.exists():
        venv.create(folder, symlinks=True)
    for name, version in packages.items():
        info = site_packages(folder) / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def site_packages(folder):
    return next(folder.glob("lib/python3*/site-packages"))


def requirements(*names):
    """The requirements in these files of the project."""
    text = "\n".join((ROOT / name).read_text() for name in names)
    return list(map(Requirement, re.findall(r"^\w.*", text, re.MULTILINE)))


def test_the_environment_activated_last_is_used_as_it_is_if_it_has_all(train, project, tmp_path):
    conda, other = make(tmp_path / "conda", GOOD), make(tmp_path / "an env", GOOD)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "fake" / "pip.py").write_text("raise SystemExit('called')")
    both = {"CONDA_PREFIX": conda, "VIRTUAL_ENV": other}
    for used, variables in (
        (other, {"VIRTUAL_ENV": other}),
        (conda, {"CONDA_PREFIX": conda}),
        (conda, both | {"PATH": f"{conda}/bin:{os.environ['PATH']}"}),
        (other, both | {"PATH": f"{other}/bin:{os.environ['PATH']}"}),
    ):
        assert train(**variables) == (0, f"started {used} ['--flag', 'a b']\n", [], None)
    assert sorted(tmp_path.rglob("*")) == before


def test_only_missing_packages_are_installed_and_the_others_kept(train, tmp_path):
    packages = {"numpy": "1.26", "scipy": "2.0rc1", "tensorboard": "2.18", "odd": "0.1ubuntu1", "setuptools": "65.5"}
    folder = make(tmp_path / "env", packages | {"tqdm": "4.66"})
    (site_packages(folder) / "tqdm-4.66.dist-info" / "METADATA").write_text("")  # half installed
    status, started, (line,), asked = train(VIRTUAL_ENV=folder)
    assert (status, started) == (0, f"started {folder} ['--flag', 'a b']\n")
    assert line.startswith(f"train.sh: installing torch>=2.6, tqdm>=4.66 into {folder} (PyPI's torch for Linux is")
    kept = "numpy==1.26, scipy==2.0rc1, setuptools==65.5, tensorboard==2.18"
    assert asked == f"{folder}: torch>=2.6 tqdm>=4.66 with {kept}"


def test_without_an_environment_one_is_made_with_the_constraints_and_repaired(train, project):
    status, started, lines, asked = train()
    own, packages = project / ".venv", requirements("requirements.txt")
    pins = [pin for pin in (ROOT / "constraints.txt").read_text().split("\n") if pin.split(" ")[0] in GOOD]
    assert (status, started, len(lines)) == (0, f"started {own} ['--flag', 'a b']\n", 1)
    assert asked == f"{own}: {' '.join(map(str, packages))} with {', '.join(sorted(pins))}"
    kept = {name: version for name, version in GOOD.items() if name != "scipy"}
    make(own, kept | {"setuptools": "65.5.0"})  # which came with pip: torch may need a later one
    pins = [pin for pin in pins if pin.startswith("scipy ")] + [f"{name}=={kept[name]}" for name in kept]
    assert train()[3] == f"{own}: scipy>=1.13 with {', '.join(sorted(pins))}"


def test_what_is_too_old_or_not_exactly_what_is_asked_for_is_named_and_nothing_changes(train, project, tmp_path):
    (project / "requirements.txt").write_text("torch >= 2.6\nnumpy >= 1.26\nscipy == 1.13.1\ntqdm == 4.66.1\n")
    versions = {"torch": "2.5.1+cu124", "numpy": "1.9.3", "scipy": "1.13.1", "tqdm": "4.66.2"}
    folder = make(tmp_path / "an env", versions)
    has = "torch 2.5.1+cu124, numpy 1.9.3, tqdm 4.66.2"
    command = f"'{folder}/bin/python' -m pip install 'torch>=2.6' 'numpy>=1.26' tqdm==4.66.1"
    line = f"train.sh: {folder} has {has}; this installs what is needed: {command}"
    assert train(VIRTUAL_ENV=folder) == (2, "", [line], None)


def test_check_asks_for_all_that_the_two_files_list(train, tmp_path):
    status, _, _, asked = train("check.sh", VIRTUAL_ENV=make(tmp_path / "env", {}), PIP_FAILS="install")
    packages = requirements("requirements.txt", "requirements-dev.txt")
    assert (status, asked.split(": ")[1]) == (2, f"{' '.join(map(str, packages))} with ")


def test_an_environment_that_cannot_be_used_is_said(train, project, tmp_path):
    old, bare = make(tmp_path / "old", GOOD), make(tmp_path / "bare", {})
    (site_packages(old) / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 18, 'final', 0)\n")
    (site_packages(bare) / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    (project / ".venv").symlink_to("/no/where")
    line = "train.sh: /no/where/bin/python is missing, broken or older than Python 3.10: "
    line += "activate another environment (if it is .venv, delete it)"
    assert train(CONDA_PREFIX="/no/where") == (2, "", [line], None)
    for variables, message in (
        ({"VIRTUAL_ENV": old}, f"{old}/bin/python is missing, broken or older than Python 3.10: "),
        ({"PATH": f"{old}/bin:{os.environ['PATH']}"}, "python3 is missing, broken or older than Python 3.10: "),
        ({}, f"cannot make {project}/.venv"),
        ({"VIRTUAL_ENV": bare, "PYTHONPATH": ""}, "pip is missing: apt install python3-venv"),
    ):
        status, started, lines, asked = train(**variables)
        assert (status, started, asked) == (2, "", None)
        assert lines[-1].startswith(f"train.sh: {message}")
    (project / ".venv").unlink()
    (project / ".venv").symlink_to(old)
    assert "/.venv/bin/python is missing, broken or older" in train()[2][0]


@pytest.mark.parametrize("command", ["list", "install"])
def test_a_failing_pip_ends_the_script_each_time(train, command):
    for _ in range(2):
        status, started, lines, asked = train(PIP_FAILS=command)
        assert (status, started, len(lines)) == (2, "", 2)
        assert lines[1].startswith("train.sh: pip failed: torch>=2.6, numpy>=1.26, ")
    assert (asked is None) == (command == "list")  # without what to keep, nothing is installed
    assert train()[0] == 0


def test_a_missing_pip_is_installed_without_a_network(train, project, tmp_path):
    """The real pip: Python has its wheel."""
    pytest.importorskip("ensurepip")
    (project / "requirements.txt").write_text("tqdm >= 4.66\n")
    with zipfile.ZipFile(tmp_path / "tqdm-4.70-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tqdm-4.70.dist-info/METADATA", "Metadata-Version: 2.1\nName: tqdm\nVersion: 4.70\n")
        wheel.writestr("tqdm-4.70.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tqdm-4.70.dist-info/RECORD", "")
    folder = make(tmp_path / "env", {})
    line = f"train.sh: installing tqdm>=4.66 into {folder}"
    answer = train(VIRTUAL_ENV=folder, PYTHONPATH="", PIP_FIND_LINKS=tmp_path.as_uri())
    assert answer == (0, f"started {folder} ['--flag', 'a b']\n", [line], None)
    assert (site_packages(folder) / "tqdm-4.70.dist-info").exists()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_constraints_have_one_version_within_each_range(python):
    on = {"python_version": python}
    pins = [pin for pin in requirements("constraints.txt") if not pin.marker or pin.marker.evaluate(on)]
    for requirement in requirements("requirements.txt", "requirements-dev.txt"):
        if "==" not in str(requirement):
            (pin,) = (pin for pin in pins if pin.name == requirement.name)
            assert requirement.specifier.contains(str(pin.specifier)[2:])
