"""env.sh in environments whose packages are only names and versions, with a pip that records what it is asked for."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
GOOD = {"torch": "2.6.0+cpu", "numpy": "1.26", "scipy": "2.0.0rc1", "tqdm": "4.100.0", "tensorboard": "2.18.0"}
PIP = """
import os, pathlib, sys
record = pathlib.Path(os.environ["RECORD"])
record.mkdir(exist_ok=True)
(record / "asked").write_text(" ".join(a for a in sys.argv[2:] if not a.startswith("-") and a != "/dev/stdin"))
(record / "kept").write_text(open(sys.argv[sys.argv.index("--constraint") + 1]).read())
(record / "python").write_text(sys.prefix)
sys.exit(int(os.environ.get("PIP_STATUS", 0)))
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the scripts, in a folder with a space, whose main.py only says that it started."""
    folder = tmp_path / "the project"
    folder.mkdir()
    for name in ("env.sh", "train.sh", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "main.py").write_text("import sys\nprint('started', sys.prefix, *sys.argv[1:])\n")
    return folder


@pytest.fixture
def train(project, tmp_path):
    """Runs train.sh from another folder: (status, started or not, lines of stderr, what pip was asked for or None)."""
    fake = tmp_path / "fake" / "pip"
    fake.mkdir(parents=True)
    (fake / "__main__.py").write_text(PIP)
    (fake / "__init__.py").touch()
    record = tmp_path / "record"

    def run(**variables):
        inherited = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "CDPATH")}
        variables = {"PYTHONPATH": fake.parent, "RECORD": record} | variables
        command = ["bash", project / "train.sh", "--flag", "a b"]
        answer = subprocess.run(
            command, cwd=tmp_path, env=inherited | variables, stdin=subprocess.DEVNULL, capture_output=True, text=True
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


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_environment_that_has_all_is_used_as_it_is(train, project, tmp_path, variable):
    folder = make(tmp_path / "an env", GOOD)
    before = sorted(folder.rglob("*"))
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
    others = {"Ruamel.Yaml": "0.18", "odd": "0.1ubuntu1", "broken": "1"}
    folder = make(tmp_path / "env", packages | others)
    (site_packages(folder) / "broken-1.dist-info" / "METADATA").write_text("")
    shutil.copytree(site_packages(folder) / "numpy-1.26.dist-info", tmp_path / "fake" / "numpy-1.27.dist-info")
    metadata = tmp_path / "fake" / "numpy-1.27.dist-info" / "METADATA"  # earlier on the path
    metadata.write_text(metadata.read_text().replace("1.26", "1.27"))
    status, started, lines, asked = train(VIRTUAL_ENV=folder)
    assert (status, started, asked) == (0, f"started {folder} --flag a b\n", "torch>=2.6 tqdm>=4.66")
    assert len(lines) == 1
    assert lines[0].startswith(f"train.sh: installing torch>=2.6, tqdm>=4.66 into {folder} (for Linux, PyPI's torch is")
    assert (tmp_path / "record" / "python").read_text() == str(folder)
    kept = (tmp_path / "record" / "kept").read_text().splitlines()
    assert sorted(kept) == ["numpy==1.27", "ruamel-yaml==0.18", "scipy==2.0.0rc1", "tensorboard==2.18.0"]


def test_a_size_is_announced_only_for_torch(train, tmp_path):
    folder = make(tmp_path / "env", {k: v for k, v in GOOD.items() if k != "tqdm"})
    assert train(VIRTUAL_ENV=folder)[2] == [f"train.sh: installing tqdm>=4.66 into {folder}"]


@pytest.mark.parametrize("version", ["2.5.1", "2.5.1+cu124", "2.5", "1.13.1", "2.5.9.dev20261101"])
def test_what_is_too_old_is_named_and_nothing_changes(train, tmp_path, version):
    folder = make(tmp_path / "an env", {"torch": version, "numpy": "1.9.3"})
    status, started, lines, asked = train(VIRTUAL_ENV=folder)
    command = f"'{folder}/bin/python' -m pip install 'torch>=2.6' 'numpy>=1.26'"
    assert lines == [
        f"train.sh: {folder} has torch {version}, numpy 1.9.3; this installs the versions needed: {command}"
    ]
    assert (status, started, asked) == (2, "", None)


@pytest.mark.parametrize("version", ["2.6", "2.6.0", "2.14.0.dev2026", "2.10.1+cpu", "3.0rc1"])
def test_what_is_new_enough_passes(train, tmp_path, version):
    assert train(VIRTUAL_ENV=make(tmp_path / "env", GOOD | {"torch": version}))[0] == 0


def test_an_exact_version_is_needed_where_one_is_asked_for(train, project, tmp_path):
    (project / "requirements.txt").write_text("tqdm == 4.66.1\n")
    for version, status in (("4.66.1", 0), ("4.66.0", 2), ("4.66.2", 2)):
        assert train(VIRTUAL_ENV=make(tmp_path / version, {"tqdm": version}))[0] == status


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_a_variable_that_names_no_environment_is_one_line(train, project, variable):
    status, started, lines, asked = train(**{variable: "/no/where"})
    assert (status, started, asked, len(lines)) == (2, "", None, 1)
    assert lines[0].startswith("train.sh: /no/where/bin/python, of the active environment, is missing")
    assert not (project / ".venv").exists()


def test_a_python_too_old_is_one_line(train, project, tmp_path):
    folder = make(tmp_path / "env", GOOD)
    (site_packages(folder) / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 18, 'final', 0)\n")
    for variables in ({"VIRTUAL_ENV": folder}, {"PATH": f"{folder}/bin:{os.environ['PATH']}"}):
        status, started, lines, asked = train(**variables)
        assert (status, started, asked, len(lines)) == (2, "", None, 1)
        assert lines[0].startswith("train.sh: activate an environment with Python 3.10 or later (")
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("active", [True, False])
def test_a_failing_pip_ends_the_script_each_time(train, project, tmp_path, active):
    variables = {"VIRTUAL_ENV": make(tmp_path / "env", {})} if active else {}
    for _ in range(2):
        status, started, lines, _ = train(PIP_STATUS="1", **variables)
        assert (status, started, len(lines)) == (2, "", 2)
        assert lines[1].startswith("train.sh: pip failed: torch>=2.6, numpy>=1.26, ")
    assert train(**variables)[0] == 0


def test_without_an_environment_one_is_made_with_the_constraints_and_repaired(train, project, tmp_path):
    status, started, _, asked = train()
    assert (status, started) == (0, f"started {project / '.venv'} --flag a b\n")
    assert asked == "torch>=2.6 numpy>=1.26 scipy>=1.13 tqdm>=4.66 tensorboard>=2.18"
    assert (tmp_path / "record" / "kept").read_text() == (ROOT / "constraints.txt").read_text().strip()
    make(project / ".venv", {k: v for k, v in GOOD.items() if k != "scipy"})
    assert train()[3] == "scipy>=1.13"
    kept = (tmp_path / "record" / "kept").read_text()
    assert sorted(re.findall(r"^(?:numpy|torch).*", kept, re.MULTILINE)) == ["numpy==1.26", "torch==2.6.0+cpu"]
    assert re.findall(r"^scipy.*", kept, re.MULTILINE) == [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("scipy")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_read_only_checkout_is_one_line(train, project):
    project.chmod(0o555)
    lines = [f"train.sh: {project} is read-only, so .venv cannot be made: activate an environment"]
    assert train() == (2, "", lines, None)


def test_a_venv_that_cannot_be_made_ends_the_script(train, project):
    (project / ".venv").touch()
    status, started, lines, asked = train()
    assert (status, started, asked) == (2, "", None)
    assert lines[-1] == f"train.sh: cannot make {project}/.venv: delete it, or activate another"


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


def test_the_environment_of_these_tests_satisfies_the_ranges(tmp_path):
    command = ["bash", "-c", f'set -eu; . "{ROOT}/env.sh" requirements-dev.txt; command -v python']
    answer = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"VIRTUAL_ENV": sys.prefix}, capture_output=True, text=True
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{sys.prefix}/bin/python\n", "")
