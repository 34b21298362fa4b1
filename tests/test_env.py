"""env.sh in environments whose packages are only names and versions, with a pip that records what it is asked for."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
GOOD = {"torch": "2.6.0+cpu", "numpy": "1.26", "scipy": "2.0.0rc1", "tqdm": "4.100.0", "tensorboard": "2.18.0"}
ALL = "torch>=2.6 numpy>=1.26 scipy>=1.13 tqdm>=4.66 tensorboard>=2.18"
PIP = """
import os, pathlib, sys
from importlib import metadata
if "list" in sys.argv:
    print(*(f"{found.name}=={found.version}" for found in metadata.distributions() if found.name), sep="\\n")
if "install" in sys.argv:
    record = pathlib.Path(os.environ["RECORD"])
    record.mkdir(exist_ok=True)
    (record / "asked").write_text(" ".join(argument for argument in sys.argv if ">=" in argument or "==" in argument))
    (record / "kept").write_text(open(sys.argv[sys.argv.index("--constraint") + 1]).read())
    (record / "python").write_text(sys.prefix)
sys.exit(os.environ.get("PIP_FAILS") in sys.argv)
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the scripts, in a folder with a space, whose main.py only says that it started."""
    folder = tmp_path / "the project"
    folder.mkdir()
    for name in ("env.sh", "train.sh", "check.sh", "requirements.txt", "requirements-dev.txt", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "main.py").write_text("import sys\nprint('started', sys.prefix, *sys.argv[1:])\n")
    return folder


@pytest.fixture
def train(project, tmp_path):
    """Runs train.sh from another folder: (status, standard output, lines of stderr, what pip was asked for or None)."""
    fake, record, programs = tmp_path / "fake", tmp_path / "record", tmp_path / "programs"
    (fake / "pip").mkdir(parents=True)
    (fake / "pip" / "__main__.py").write_text(PIP)
    (fake / "pip" / "__init__.py").touch()
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if not re.match("PYTHON|PIP_|VIRTUAL_ENV|CONDA_|CDPATH", k)}
    inherited |= {"PATH": f"{programs}:{os.environ['PATH']}", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}

    def run(script="train.sh", **variables):
        variables = {"PYTHONPATH": fake, "RECORD": record} | variables
        answer = subprocess.run(
            ["bash", project / script, "--flag", "a b"],
            cwd=tmp_path,
            env=inherited | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        asked = (record / "asked").read_text() if record.exists() else None
        return answer.returncode, answer.stdout, answer.stderr.splitlines(), asked

    return run


def make(folder, packages):
    """A virtual environment, new or as it is, with these packages, as far as their metadata goes."""
    if not folder.exists():
        venv.create(folder, symlinks=True)
    for name, version in packages.items():
        info = site_packages(folder) / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def site_packages(folder):
    return next(folder.glob("lib/python3*/site-packages"))


def kept(tmp_path):
    """The constraints that pip got, in alphabetical order."""
    return sorted((tmp_path / "record" / "kept").read_text().split("\n"))


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_environment_that_has_all_is_used_as_it_is(train, project, tmp_path, variable):
    folder = make(tmp_path / "an env", GOOD)
    before = sorted(folder.rglob("*"))
    shutil.rmtree(tmp_path / "fake" / "pip")  # not called
    assert train(**{variable: folder}) == (0, f"started {folder} --flag a b\n", [], None)
    assert sorted(folder.rglob("*")) == before
    assert not (project / ".venv").exists()


def test_of_two_environments_the_last_activated_is_used(train, tmp_path):
    conda, other = make(tmp_path / "conda", GOOD), make(tmp_path / "other", GOOD)
    for last in (conda, other):
        path = f"{last}/bin:{os.environ['PATH']}"
        assert train(CONDA_PREFIX=conda, VIRTUAL_ENV=other, PATH=path)[1] == f"started {last} --flag a b\n"


def test_only_missing_packages_are_installed_and_the_others_pinned(train, tmp_path):
    packages = {k: v for k, v in GOOD.items() if k not in ("torch", "tqdm")}
    folder = make(tmp_path / "env", packages | {"setuptools": "65.5.0", "odd": "0.1ubuntu1", "tqdm": "4.66"})
    (site_packages(folder) / "tqdm-4.66.dist-info" / "METADATA").write_text("")  # half installed
    status, started, lines, asked = train(VIRTUAL_ENV=folder)
    assert (status, started, asked) == (0, f"started {folder} --flag a b\n", "torch>=2.6 tqdm>=4.66")
    assert len(lines) == 1
    assert lines[0].startswith(f"train.sh: installing torch>=2.6, tqdm>=4.66 into {folder} (PyPI's torch for Linux is")
    assert (tmp_path / "record" / "python").read_text() == str(folder)
    pins = ["numpy==1.26", "scipy==2.0.0rc1", "setuptools==65.5.0", "tensorboard==2.18.0"]
    assert [line for line in kept(tmp_path) if line] == pins


def test_a_size_is_announced_only_for_torch(train, tmp_path):
    folder = make(tmp_path / "env", {k: v for k, v in GOOD.items() if k != "tqdm"})
    assert train(VIRTUAL_ENV=folder)[2] == [f"train.sh: installing tqdm>=4.66 into {folder}"]


@pytest.mark.parametrize("version", ["2.5.1+cu124", "2.5", "1.13.1", "2.5.9.dev20261101"])
def test_what_is_too_old_is_named_and_nothing_changes(train, tmp_path, version):
    folder = make(tmp_path / "an env", {"torch": version, "numpy": "1.9.3"})
    status, started, lines, asked = train(VIRTUAL_ENV=folder)
    command = f"'{folder}/bin/python' -m pip install 'torch>=2.6' 'numpy>=1.26'"
    assert lines == [f"train.sh: {folder} has torch {version}, numpy 1.9.3; this installs what is needed: {command}"]
    assert (status, started, asked) == (2, "", None)


@pytest.mark.parametrize("version", ["2.6", "2.14.0.dev2026", "2.10.1+cpu", "3.0rc1"])
def test_what_is_new_enough_passes(train, tmp_path, version):
    assert train(VIRTUAL_ENV=make(tmp_path / "env", GOOD | {"torch": version}))[0] == 0


def test_an_exact_version_is_needed_where_one_is_asked_for(train, project, tmp_path):
    (project / "requirements.txt").write_text("tqdm == 4.66.1\n")
    for version, status in (("4.66.1", 0), ("4.66.0", 2), ("4.66.2", 2)):
        assert train(VIRTUAL_ENV=make(tmp_path / version, {"tqdm": version}))[0] == status


def test_check_asks_for_all_that_the_two_files_list(train, project, tmp_path):
    lines = (project / "requirements.txt").read_text() + (project / "requirements-dev.txt").read_text()
    names = re.findall(r"^(\w\S*) ", lines, re.MULTILINE)
    status, _, _, asked = train("check.sh", VIRTUAL_ENV=make(tmp_path / "env", {}), PIP_FAILS="install")
    assert status == 2
    assert re.findall(r"(\S+)[=>]=", asked) == names


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_a_variable_that_names_no_environment_is_one_line(train, project, variable):
    status, started, lines, asked = train(**{variable: "/no/where"})
    assert (status, started, asked, len(lines)) == (2, "", None, 1)
    assert lines[0].startswith("train.sh: /no/where/bin/python is missing, broken or older than Python 3.10: ")
    assert not (project / ".venv").exists()


def test_a_python_too_old_is_one_line(train, project, tmp_path):
    folder = make(tmp_path / "env", GOOD)
    (site_packages(folder) / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 18, 'final', 0)\n")
    for variables in ({"VIRTUAL_ENV": folder}, {"PATH": f"{folder}/bin:{os.environ['PATH']}"}):
        status, started, lines, asked = train(**variables)
        assert (status, started, asked, len(lines)) == (2, "", None, 1)
        assert re.match(r"train\.sh: \S*python3? is missing, broken or older than Python 3\.10: ", lines[0])
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("command", ["list", "install"])
@pytest.mark.parametrize("active", [True, False])
def test_a_failing_pip_ends_the_script_each_time(train, tmp_path, active, command):
    variables = {"VIRTUAL_ENV": make(tmp_path / "env", {})} if active else {}
    for _ in range(2):
        status, started, lines, asked = train(PIP_FAILS=command, **variables)
        assert (status, started, len(lines)) == (2, "", 2)
        assert lines[1].startswith("train.sh: pip failed: torch>=2.6, numpy>=1.26, ")
    assert (asked is None) == (command == "list")  # without what to keep, nothing is installed
    assert train(**variables)[0] == 0


def test_without_an_environment_one_is_made_with_the_constraints_and_repaired(train, project, tmp_path):
    (tmp_path / "venv.py").write_text("raise SystemExit('imported')\n")
    status, started, lines, asked = train()
    assert (status, started, len(lines), asked) == (0, f"started {project / '.venv'} --flag a b\n", 1, ALL)
    own = (ROOT / "constraints.txt").read_text().splitlines()
    names = re.findall(r"^(\w\S*) ", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert [line for line in kept(tmp_path) if line] == sorted(line for line in own if line.split()[0] in names)
    make(project / ".venv", {k: v for k, v in GOOD.items() if k != "scipy"} | {"setuptools": "65.5.0"})
    assert train()[3] == "scipy>=1.13"
    pins = [f"{k}=={v}" for k, v in GOOD.items() if k != "scipy"]
    assert [line for line in kept(tmp_path) if line] == sorted(
        pins + [line for line in own if line.startswith("scipy ")]
    )


def test_without_a_pip_one_is_installed_and_keeps_what_there_is(train, project, tmp_path):
    """The real pip, without a network: its own wheel is Python's."""
    pytest.importorskip("ensurepip")
    (project / "requirements.txt").write_text("tqdm >= 4.66\n")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version, needs in (
        ("tqdm", "4.70", ""),
        ("tqdm", "4.80", "Requires-Dist: other>=2\n"),
        ("other", "2", ""),
    ):
        with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
            wheel.writestr(f"{name}-{version}.dist-info/METADATA", text)
            wheel.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")
    folder = make(tmp_path / "env", {"other": "1.0"})
    variables = {"VIRTUAL_ENV": folder, "PYTHONPATH": "", "PIP_FIND_LINKS": wheels.as_uri()}
    lines = [f"train.sh: installing tqdm>=4.66 into {folder}"]
    assert train(**variables) == (0, f"started {folder} --flag a b\n", lines, None)
    found = {path.name for path in site_packages(folder).glob("[ot]*.dist-info")}
    assert found == {"other-1.0.dist-info", "tqdm-4.70.dist-info"}


def test_where_no_pip_can_be_installed_the_package_is_named(train, tmp_path):
    folder = make(tmp_path / "env", {})
    (site_packages(folder) / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    status, started, lines, _ = train(VIRTUAL_ENV=folder, PYTHONPATH="")
    assert (status, started, lines[-1]) == (2, "", "train.sh: pip is missing: apt install python3-venv")


def test_a_venv_that_cannot_be_made_ends_the_script(train, project):
    (project / ".venv").symlink_to("/no/where")
    status, started, lines, asked = train()
    assert (status, started, asked) == (2, "", None)
    assert lines[-1] == f"train.sh: cannot make {project}/.venv"


def test_the_constraints_lie_within_the_ranges():
    """Every requirement without an exact version has a pin, for this Python exactly one, that its range admits."""
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    for requirement in map(Requirement, re.findall(r"^\w.*", text, re.MULTILINE)):
        for python in ("3.10", "3.11", "3.12", "3.13", "3.14"):
            environment = {"python_version": python}
            found = [p for p in pins if p.name == requirement.name and (not p.marker or p.marker.evaluate(environment))]
            versions = [str(p.specifier).removeprefix("==") for p in found] or [
                str(s)[2:] for s in requirement.specifier if s.operator == "=="
            ]
            assert len(versions) == 1
            assert requirement.specifier.contains(versions[0])


def test_the_check_of_an_environment_does_not_import_the_callers_files(train, tmp_path):
    (tmp_path / "re.py").write_text("raise SystemExit('imported')\n")
    assert train(VIRTUAL_ENV=make(tmp_path / "env", GOOD))[0] == 0
