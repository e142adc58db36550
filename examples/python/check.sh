#!/usr/bin/env bash
# Tests the wrapper. usage: check.sh [GAIT]; GAIT_BIN by default.
set -euo pipefail
GAIT_BIN=$(realpath -- "${1:-${GAIT_BIN:?name the gait binary}}")
export GAIT_BIN
cd "$(dirname "$0")"
python3 -B -m unittest -q
