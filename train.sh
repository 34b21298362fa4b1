#!/usr/bin/env bash
# Train the eight predictors: bash train.sh [flags of main.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # sh train.sh
set -euo pipefail
here=$(dirname "$0")
. "$here/env.sh" requirements.txt
exec python "$here/main.py" "$@"
