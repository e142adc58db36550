#!/usr/bin/env bash
# Runs every acceptance script. usage: check.sh [GAIT]; GAIT_BIN by default.
set -euo pipefail
gait=$(realpath -- "${1:-${GAIT_BIN:?name the gait binary}}")
cd "$(dirname "$0")"
for script in v*.sh; do
    "./$script" "$gait"
done
