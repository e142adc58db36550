#!/usr/bin/env bash
# Has gait judge every case. usage: check.sh [GAIT]; GAIT_BIN by default.
set -euo pipefail
gait=$(realpath -- "${1:-${GAIT_BIN:?name the gait binary}}")
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

checked=0
while read -r name verdict exit_code; do
    for verb in "gate eval --policy $here/policy.yaml --intent" "policy test $here/policy.yaml"; do
        status=0
        # shellcheck disable=SC2086 # the verb is several words
        answer=$("$gait" $verb "$here/intents/$name.json" --json) || status=$?
        said=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1]).get("verdict"))' "$answer")
        if [[ $said != "$verdict" || $status != "$exit_code" ]]; then
            echo "$name: $verb said $said, exit $status; expected $verdict, exit $exit_code" >&2
            exit 1
        fi
        checked=$((checked + 1))
    done
done < <(python3 -c '
import json, sys
for case in json.load(open(sys.argv[1])):
    print(case["name"], case["verdict"], case["exit"])
' "$here/cases.json")
((checked > 0)) || { echo "no case was checked" >&2; exit 1; }
echo "gate cases: $checked passed"
