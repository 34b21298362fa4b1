#!/usr/bin/env bash
# Lint, then run the tests: bash check.sh [flags of pytest]
set -euo pipefail
cd "$(dirname "$0")"
. ./env.sh requirements-dev.txt
python -m ruff check --quiet .
python -m ruff format --quiet --check .
exec python -m pytest "$@"
