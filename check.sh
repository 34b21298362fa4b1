#!/usr/bin/env bash
# Lint, then run the tests on all cores: bash check.sh [flags of pytest]
set -euo pipefail
cd "$(dirname "$0")"
. ./env.sh requirements.txt requirements-dev.txt
python -m ruff check --quiet .
python -m ruff format --quiet --check .
exec python -m pytest --numprocesses auto --dist worksteal "$@"
