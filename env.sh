# Sourced by train.sh, test.sh and check.sh: sets up Python once. Uses the active environment, else makes .venv here.
# Usage: . env.sh REQUIREMENTS_FILE
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ]; then
  if [ ! -f "$root/.venv/bin/activate" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed" >&2; exit 2; }
    python3 -m venv "$root/.venv" || { echo "python3 -m venv failed: install your system's venv package" >&2; exit 2; }
  fi
  . "$root/.venv/bin/activate"
fi
# Installed once: the stamp names what was asked for, and is made only after pip has succeeded.
stamp=${VIRTUAL_ENV:-$CONDA_PREFIX}/.installed-$1-$(cat "$root/requirements.txt" "$root/$1" | cksum | cut -d ' ' -f 1)
if [ ! -f "$stamp" ]; then
  echo "installing $1, once" >&2
  python -m pip install --quiet --disable-pip-version-check -r "$root/$1" >&2
  touch "$stamp"
fi
