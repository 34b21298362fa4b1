#!/usr/bin/env bash
# Lint, then run the tests on all cores: bash check.sh [flags of pytest]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # sh check.sh
set -euo pipefail
cd "$(dirname "$0")"
. ./env.sh requirements.txt requirements-dev.txt
python -m ruff check --quiet .
python -m ruff format --quiet --check .
exec python -m pytest --numprocesses auto --dist worksteal "$@"
