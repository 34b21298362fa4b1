# Sourced by train.sh, test.sh and check.sh: puts a Python first on PATH that has the packages they need, or exits.
# An active environment (venv, conda) keeps every package it has and gets those it lacks. Without one, .venv is made
# beside the scripts, with the versions of constraints.txt. Usage: . env.sh REQUIREMENTS_FILE...
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { echo "${0##*/}: $1" >&2; exit 2; }
pip() { (cd "$root" && python -m pip --disable-pip-version-check "$@"); }  # there: the caller's files are not imported
environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-$root/.venv}} python=python3
[ "$(command -v python)" != "${CONDA_PREFIX:-none}/bin/python" ] || environment=$CONDA_PREFIX  # activated last
[ "$environment" = "$root/.venv" ] && [ ! -e "$environment" ] || python=$environment/bin/python
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null ||
  fail "$python is missing, broken or older than Python 3.10: activate another environment (if it is .venv, delete it)"
[ "$python" != python3 ] || python3 -I -m venv --without-pip "$environment" >&2 || fail "cannot make $environment"
export PATH="$environment/bin:$PATH"
missing=$(cd "$root" && grep -h '^[a-z]' "$@" | python -c 'import re, shlex, sys
from importlib import metadata
release = lambda version: [int(n) for n in re.match(r"[\d.]*", version)[0].split(".") if n]
missing, unfit = [], {}
for name, operator, bound in map(str.split, sys.stdin):
    version = next((found.version for found in metadata.distributions(name=name)), "")
    if not version:  # or half installed
        missing.append(name + operator + bound)
    elif release(version) < release(bound) or (operator == "==" and version != bound):
        unfit[name + operator + bound] = name + " " + version
has, install = ", ".join(unfit.values()), shlex.join([sys.executable, "-m", "pip", "install", *unfit])
sys.exit(f"{sys.argv[1]} has {has}; this installs what is needed: {install}" if unfit else print(*missing))
' "${0##*/}: $environment") || exit 2
[ -n "$missing" ] || return 0
cpu="PyPI's torch for Linux is a CUDA build of 2 to 3 GB; to install PyTorch's CPU build first: pytorch.org/get-started"
echo "${0##*/}: installing ${missing// /, } into $environment$([[ $missing != *torch\>* ]] || echo " ($cpu)")" >&2
pip -V &> /dev/null || python -Im ensurepip --default-pip > /dev/null || fail "pip is missing: apt install python3-venv"
kept=$(pip --isolated list --format=freeze) && pip install --quiet --constraint <(
  [ "$environment" != "$root/.venv" ] || kept=${kept/setuptools==/}  # which came with pip: torch may need a later one
  grep -E '^[^=]+==[0-9.!]+((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[a-z0-9.]+)?$' <<< "$kept"  # pip pins these
  [ "$environment" != "$root/.venv" ] || for m in $missing; do grep "^${m%%[=>]*} " "$root/constraints.txt"; done
) $missing >&2 || fail "pip failed: ${missing// /, } not installed into $environment"
