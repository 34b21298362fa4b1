"""env.sh with the real pip, and packages that are only names and versions."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

NEWEST = dict.fromkeys(("torch", "numpy", "scipy", "tqdm", "tensorboard"), "99")
OTHERS = {"torch": "2.10.0+cpu", "scipy": "1.9.3", "tqdm": "4.100rc1"}


def requirements(*names):
    """The requirements in these files of the project."""
    text = "\n".join((ROOT / name).read_text() for name in names)
    return list(map(Requirement, re.findall(r"^\w.*", text, re.MULTILINE)))


def constraints(**python):
    """The lines of constraints.txt for a Python, by default this one: {name: version}."""
    pins = [pin for pin in requirements("constraints.txt") if not pin.marker or pin.marker.evaluate(python)]
    versions = {pin.name: str(pin.specifier)[2:] for pin in pins}
    assert len(versions) == len(pins)
    return versions


@pytest.fixture
def train(project, tmp_path, monkeypatch):
    """train(**environment): run train.sh of a clone, from another folder: (status, output, lines of errors).

    pip finds the versions of the constraints, NEWEST and OTHERS, packages that are only names and versions.
    """
    pytest.importorskip("ensurepip")
    project = project.rename(tmp_path / "the project")
    (project / "main.py").write_text("import sys; print(sys.prefix, sys.argv[1:])")
    (tmp_path / "re.py").write_text("raise SystemExit('imported')")
    for name, version in [*constraints().items(), *NEWEST.items(), *OTHERS.items()]:
        about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
        about |= {"WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n", "RECORD": ""}
        with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for file, content in about.items():
                wheel.writestr(f"{name}-{version}.dist-info/{file}", content)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    variables = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": tmp_path.as_uri()}
    variables |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONSAFEPATH": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def run(**environment):
        command = ["bash", project / "train.sh", "--flag", "a b"]
        answer = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)
        return answer.returncode, answer.stdout, answer.stderr.splitlines()

    return run


def installed(folder):
    """{name: version} of the packages that an environment has of NEWEST; its pip fails when it is called again."""
    (path,) = folder.glob("lib/python3*/site-packages")
    (path / "pip" / "__init__.py").write_text("raise SystemExit('called')")
    return {found.name: found.version for found in metadata.distributions(path=[str(path)]) if found.name in NEWEST}


def test_without_an_environment_one_is_made_once_with_the_constraints(train, tmp_path):
    own = tmp_path / "the project" / ".venv"
    status, output, errors = train()
    assert (status, output, len(errors)) == (0, f"{own} ['--flag', 'a b']\n", 1)
    assert installed(own) == {name: constraints()[name] for name in NEWEST}
    assert train() == (0, output, [])


def test_an_active_environment_gets_what_it_lacks_and_keeps_the_rest(train, tmp_path):
    folder = tmp_path / "an env"
    venv.create(folder, with_pip=True, symlinks=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", *map("==".join, OTHERS.items())], check=True)
    active = {"VIRTUAL_ENV": str(folder), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    status, output, errors = train(**active, PIP_FIND_LINKS="")
    assert (status, output, errors[-1]) == (2, "", "train.sh: pip failed: see above")
    status, output, errors = train(**active)
    assert (status, output, len(errors)) == (0, f"{folder} ['--flag', 'a b']\n", 1)
    assert installed(folder) == NEWEST | OTHERS | {"scipy": "99"}  # 1.9.3 was too old
    assert train(**active) == (0, output, [])


@pytest.mark.parametrize(("name", "active"), [("python3", {}), ("python", {"CONDA_PREFIX": "somewhere"})])
def test_a_python_that_is_too_old_is_said(train, tmp_path, name, active):
    (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")  # to the question whether it is new enough
    (tmp_path / name).chmod(0o755)
    status, output, (line,) = train(PATH=f"{tmp_path}:{os.environ['PATH']}", **active)
    assert (status, output) == (2, "")
    assert line.startswith(f"train.sh: {name} is missing, broken or older than Python 3.10: ")
    assert not (tmp_path / "the project" / ".venv").exists()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_constraints_have_one_version_within_each_range(python):
    versions = constraints(python_version=python)
    for requirement in requirements("requirements.txt", "requirements-dev.txt"):
        if "==" not in str(requirement):
            assert requirement.specifier.contains(versions[requirement.name])
