# Sourced by train.sh, test.sh and check.sh: puts a Python first on PATH that has the packages they need, or exits.
# An active environment (venv, conda) keeps every package it has and gets those it lacks. Without one, .venv is made
# beside the scripts, with the versions of constraints.txt.
# Usage: . env.sh REQUIREMENTS_FILE
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { echo "${0##*/}: $1" >&2; exit 2; }

environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-$root/.venv}}
[ "$(command -v python)" != "${CONDA_PREFIX:-none}/bin/python" ] || environment=$CONDA_PREFIX  # activated last
python=$environment/bin/python
if [ ! -x "$python" ]; then
  [ "$environment" = "$root/.venv" ] || fail "$python, of the active environment, is missing: activate another, or none"
  [ -w "$root" ] || fail "$root is read-only, so .venv cannot be made: activate an environment"
  python=python3
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null ||
  fail "activate an environment with Python 3.10 or later ($python: $("$python" -V 2>&1 || true))"
if [ "$python" = python3 ]; then
  python3 -m venv --without-pip "$environment" >&2 || fail "cannot make $environment: delete it, or activate another"
  python=$environment/bin/python
fi
export PATH="$environment/bin:$PATH"

# From $root: a module of the caller's folder must not replace one of Python's.
(cd "$root" && "$python" - "${0##*/}" "$1" "$environment" << 'EOF_PYTHON') || exit
import re, shlex, signal, subprocess, sys
from importlib import metadata, util
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for Ctrl-C
script, requirements, environment = sys.argv[1:]

def fail(message):
    print(f"{script}: {message}", file=sys.stderr)
    sys.exit(2)

def release(version):  # (2, 6, 0) for 2.6.0+cpu and for 2.6.0.dev1
    return tuple(map(int, re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)[1].split(".")))

missing, unfit = [], {}
text = Path("requirements.txt").read_text() + Path(requirements).read_text()
for name, operator, bound in dict.fromkeys(re.findall(r"^([\w-]+) ([>=]=) ([\d.]+)", text, re.M)):
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None  # as a half-installed package has
    if not version:
        missing.append(f"{name}{operator}{bound}")
    elif release(version) < release(bound) or (operator == "==" and version != bound):
        unfit[f"{name}{operator}{bound}"] = f"{name} {version}"
if unfit:
    command = shlex.join([sys.executable, "-m", "pip", "install", *unfit])
    fail(f"{environment} has {', '.join(unfit.values())}; this installs the versions needed: {command}")
if missing:
    size = " (for Linux, PyPI's torch is a CUDA build: 2 to 3 GB to download)" if "torch>" in " ".join(missing) else ""
    print(f"{script}: installing {', '.join(missing)} into {environment}{size}", file=sys.stderr)
    present = {}
    for found in metadata.distributions():
        present.setdefault(re.sub(r"[-_.]+", "-", found.name or "").lower(), found.version)  # the first on the path
    pep440 = r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?"  # pip cannot pin others
    pins = [f"{name}=={version}" for name, version in present.items() if re.fullmatch(pep440, version or "")]
    if Path(environment).resolve() == Path(".venv").resolve():
        pins += [line for line in Path("constraints.txt").read_text().splitlines() if line.split()[0] not in present]
    run = [sys.executable, "-m"]
    ensurepip = [*run, "ensurepip", "--default-pip"]
    if not util.find_spec("pip") and subprocess.run(ensurepip, stdout=subprocess.DEVNULL).returncode:
        fail("pip is missing and cannot be installed (Debian, Ubuntu: apt install python3-venv)")
    run += ["pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", "/dev/stdin", *missing]
    if subprocess.run(run, input="\n".join(pins).encode(), stdout=subprocess.DEVNULL).returncode:
        fail(f"pip failed: {', '.join(missing)} not installed, nothing started")
EOF_PYTHON
