#!/usr/bin/env bash
# Score the test architectures and write the submission: bash test.sh [flags of test.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # sh test.sh
set -euo pipefail
here=$(dirname "$0")
. "$here/env.sh" requirements.txt
exec python "$here/test.py" "$@"
