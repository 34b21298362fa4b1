# Sourced as `. env.sh REQUIREMENTS_FILE...`: puts a Python that has the packages first on PATH, or exits.
# An active environment (venv, conda) gets the packages that it lacks. Without one, .venv is made beside the scripts,
# with the versions of constraints.txt. With -I, Python imports nothing from the caller's folder.
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { echo "${0##*/}: $1" >&2; exit 2; }
own=$root/.venv python=python requirements=()
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  [ -e "$own/bin/pip" ] && python=$own/bin/python || python=python3  # pip comes last: without it, make .venv (again)
fi
"$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null ||
  fail "$python is missing, broken or older than Python 3.10: activate another environment (if it is .venv, delete it)"
[ "$python" != python3 ] || python3 -I -m venv "$own" >&2 || fail "cannot make $own (Debian: apt install python3-venv)"
[ "$python" = python ] || export VIRTUAL_ENV="$own" PATH="$own/bin:$PATH"
(cd "$root" && python -I -c 'import re, sys
from importlib.metadata import version
release = lambda text: [int(number) for number in re.match(r"\d+(\.\d+)*", text)[0].split(".")]
required = "".join(open(path).read() for path in sys.argv[1:])
for name, sign, bound in re.findall(r"^([\w-]+) *(>=|==) *(\S+)", required, re.MULTILINE):
    assert version(name) == bound if sign == "==" else release(version(name)) >= release(bound)
' "$@") 2> /dev/null && return
for file in "$@"; do requirements+=(-r "$root/$file"); done
[ ! "${VIRTUAL_ENV:-}" -ef "$own" ] || requirements+=(-c "$root/constraints.txt")
echo "${0##*/}: installing packages (PyPI's torch for Linux is a CUDA build; the CPU's: pytorch.org/get-started)" >&2
python -I -m pip install --quiet --disable-pip-version-check "${requirements[@]}" >&2 || fail "pip failed: see above"
