#!/usr/bin/env bash
# Score the test architectures and write the submission: bash test.sh [flags of test.py]
set -euo pipefail
here=$(dirname "$0")
. "$here/env.sh" requirements.txt
exec python "$here/test.py" "$@"
