#!/usr/bin/env bash
# Runs the demo of the README: the job is done, the orders are refused. usage: check.sh [GAIT]; GAIT_BIN by default.
set -euo pipefail
gait=$(realpath -- "${1:-${GAIT_BIN:?name the gait binary}}")
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# No terminal: an action that asks for approval is blocked, as for any program that nobody watches.
"$gait" exec --out-dir "$scratch/out" -- python3 examples/demo_agent/agent.py </dev/null 2>&1 | tee "$scratch/demo.txt"
grep -q '^agent: the job is finished$' "$scratch/demo.txt"
orders=$(grep -c '^order ' "$scratch/demo.txt")
refused=$(grep -c '^order .* -> refused: ' "$scratch/demo.txt")
if ((orders != 4 || refused != 4)); then
    echo "the demo was to see 4 orders refused, saw $refused of $orders" >&2
    exit 1
fi
"$gait" verify "$scratch"/out/runpack_*.zip
