#!/usr/bin/env bash
# The promises of the 1.6 generation, checked from outside. usage: v1_6.sh GAIT
#
# Needs bash, python3 and a kernel on which `gait exec` enforces. Works in a directory of its own, without a network.
set -euo pipefail

if (($# != 1)) || [[ ! -x $1 ]]; then
    echo "usage: $0 GAIT, the path of a built gait" >&2
    exit 64
fi
gait=$(realpath -- "$1")
examples=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/gait-v1-6.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
mkdir home
export HOME=$scratch/home GAIT_BIN=$gait
unset GAIT_GATE_EVAL_EXIT
passed=0

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    for stream in out err; do
        if [[ -s $stream ]]; then sed "s/^/  $stream: /" "$stream" | head -20 >&2; fi
    done
    exit 1
}

check() { # check WHAT TEST…: the test is a command that has to succeed
    local what=$1
    shift
    "$@" || fail "$what ($*)"
    passed=$((passed + 1))
    printf 'ok   %s\n' "$what"
}

run() { # run STATUS COMMAND…: stdout and stderr go to the files out and err
    local expected=$1 status=0
    shift
    "$@" >out 2>err </dev/null || status=$?
    ((status == expected)) || fail "exit $status, not $expected: $*"
}

field() { # field NAME [FILE]: a field of a JSON document; nested ones with dots
    python3 -c '
import json, sys
value = json.load(open(sys.argv[2]))
for name in sys.argv[1].split("."):
    value = value[int(name)] if isinstance(value, list) else value[name]
print(json.dumps(value) if isinstance(value, (dict, list, bool)) else value)
' "$1" "${2:-out}"
}

is() { [[ $1 == "$2" ]]; }
absent() { [[ ! -e $1 && ! -L $1 ]]; }
matches() { [[ $1 =~ $2 ]]; }

footer='^GAIT run_id=([A-Za-z0-9_-]+) manifest=sha256:([a-f0-9]{64}) verify="gait verify ([A-Za-z0-9_-]+)"$'

echo "== onboarding"
run 0 "$gait" version
run 0 "$gait" demo
check "the demo leaves a runpack" test -s gait-out/runpack_run_demo.zip
demo_footer=$(sed -n 's/^ticket_footer=//p' out)
run 0 "$gait" verify run_demo
check "verify says so in its first word" matches "$(head -1 out)" '^verify ok'
run 0 "$gait" demo --json
check "the demo answers in JSON" is "$(field ok) $(field run_id)" "true run_demo"
first=$(sha256sum <gait-out/runpack_run_demo.zip)
run 0 "$gait" demo
check "the demo makes the same bytes again" is "$first" "$(sha256sum <gait-out/runpack_run_demo.zip)"
cp gait-out/runpack_run_demo.zip tampered.zip
python3 - <<'PY'
import zipfile

with zipfile.ZipFile("gait-out/runpack_run_demo.zip") as source, zipfile.ZipFile("tampered.zip", "w") as goal:
    for name in source.namelist():
        data = source.read(name)
        goal.writestr(name, data.replace(b"demo result", b"demo RESULT").replace(b"tool.fetch", b"tool.FETCH"))
PY
run 2 "$gait" verify tampered.zip
check "a changed runpack does not verify" grep -q '^verify failed' out err

echo "== footer"
check "the footer has its form" matches "$demo_footer" "$footer"
check "it names one run twice" is "${BASH_REMATCH[1]}" "${BASH_REMATCH[3]}"
demo_digest=${BASH_REMATCH[2]}
run 0 "$gait" run receipt --from run_demo
check "receipt rebuilds it from the runpack" is "$(cat out)" "$demo_footer"
cp gait-out/runpack_run_demo.zip alone.zip
run 0 "$gait" run receipt --from ./alone.zip
check "from nothing but the file" is "$(cat out)" "$demo_footer"
run 0 "$gait" verify run_demo --json
check "its digest is the manifest's" is "$(field manifest_digest)" "$demo_digest"
run 2 "$gait" run receipt --from ./tampered.zip
check "a changed runpack has no receipt" test ! -s out

echo "== incident to regression"
mkdir incident
cd incident
cp -r ../gait-out .
run 0 "$gait" regress bootstrap --from run_demo --junit junit.xml --json
check "one command makes the fixture and checks it" is "$(field ok) $(field status)" "true pass"
for file in gait.yaml fixtures/run_demo/runpack.zip fixtures/run_demo/fixture.json regress_result.json junit.xml; do
    check "it leaves $file" test -s "$file"
done
check "the result is the artefact" is "$(field schema_id regress_result.json)" gait.regress.result
check "JUnit is well-formed and green" python3 -c '
import xml.etree.ElementTree as tree
root = tree.parse("junit.xml").getroot()
assert int(root.get("tests")) > 0 and root.get("failures") == "0", root.attrib
assert not root.findall(".//failure")
'
run 0 "$gait" regress run --json
cp ../tampered.zip fixtures/run_demo/runpack.zip
run 5 "$gait" regress run --json --junit junit.xml
check "a broken fixture fails" is "$(field ok) $(field status)" "false fail"
check "with a reason" test -n "$(field top_failure_reason)"
check "with the next command" matches "$(field next_command)" '^gait regress run'
check "with its artefacts" matches "$(field artifact_paths)" 'regress_result.json'
check "JUnit has the failure" grep -q '<failure ' junit.xml
run 5 "$gait" regress run
check "the text says it, too" grep -q 'next:' out err
cd ..

echo "== fail closed: the gate, the wrapper, the sidecar"
check "the gate over the table of cases" "$examples/gate_cases/check.sh" "$gait"
sidecar() { # sidecar STATUS CASE [FLAG…]
    local status=$1 intent=$examples/gate_cases/intents/$2.json
    shift 2
    run "$status" python3 "$examples/sidecar/gate_sidecar.py" --policy "$examples/gate_cases/policy.yaml" \
        --gait-bin "$gait" --trace-out trace.json --approval-audit-out audit.json --intent-file "$intent" "$@"
}
sidecar 0 read_inside
check "the sidecar allows" is "$(field ok) $(field gate_result.verdict) $(field exit_code)" "true allow 0"
check "and points to a trace" is "$(field verdict "$(field trace_path)")" allow
sidecar 3 read_outside
check "it blocks" is "$(field ok) $(field gate_result.verdict)" "true block"
sidecar 4 delete_asks
check "it asks" is "$(field ok) $(field gate_result.verdict)" "true require_approval"
sidecar 6 no_tool
check "a failed evaluation is no verdict" is "$(field ok)" false
sidecar 127 read_inside --gait-bin "$scratch/nothing"
check "nor is a missing gait" is "$(field ok)" false
echo '{}' >empty.json
run 2 python3 "$examples/sidecar/gate_sidecar.py" --policy "$examples/gate_cases/policy.yaml" --intent-file empty.json
check "nor is what is no intent" is "$(field ok)" false

cat >wrapped.py <<'PY'
import sys
from pathlib import Path

from gait import Context, GaitError, Target, ToolAdapter, gate_tool

adapter = ToolAdapter(policy_path=sys.argv[1], gait_bin=sys.argv[2])


@gate_tool(adapter, sys.argv[3], Context("ann", "/workspace", "high"), [Target("path", sys.argv[4], sys.argv[5])])
def tool():
    Path("ran").write_text("")


try:
    tool()
except GaitError as error:
    print(type(error).__name__)
PY
wrapped() { # wrapped TOOL TARGET OPERATION [GAIT]
    rm -f ran
    run 0 env PYTHONPATH="$examples/python" PYTHONDONTWRITEBYTECODE=1 \
        python3 wrapped.py "$examples/gate_cases/policy.yaml" "${4:-$gait}" "$1" "$2" "$3"
}
wrapped tool.read /workspace/notes.txt read
check "the wrapper runs what is allowed" test -e ran
wrapped tool.read /etc/shadow read
check "it does not run what is blocked" absent ran
check "and raises" is "$(cat out)" GateEnforcementError
wrapped tool.delete /workspace/old.txt delete
check "nor what needs an approval" absent ran
wrapped tool.plan /workspace/plan.txt write
check "nor a dry run" absent ran
wrapped tool.read /workspace/notes.txt read "$scratch/nothing"
check "nor without gait" absent ran
check "and raises" is "$(cat out)" GaitCommandError

echo "== signal report"
python3 - <<'PY'
import json

for number in (1, 2, 3):
    tool, place = ("tool.delete", "prod-customers") if number < 3 else ("tool.search", "wiki")
    digest = "a" * 64
    json.dump(
        {
            "run": {"run_id": f"run_incident_{number}", "created_at": "2026-02-05T00:00:00Z",
                    "env": {"os": "linux", "arch": "x86_64", "runtime": "test"}, "timeline": []},
            "intents": [{"intent_id": "intent_1", "tool_name": tool, "args_digest": digest}],
            "results": [{"intent_id": "intent_1", "status": "error" if number < 3 else "ok", "result_digest": digest}],
            "refs": {"receipts": [{"ref_id": "ref_1", "source_type": "db", "source_locator": place,
                                   "query_digest": digest, "content_digest": digest,
                                   "retrieved_at": "2026-02-05T00:00:00Z", "redaction_mode": "reference"}]},
            "capture_mode": "reference",
        },
        open(f"incident_{number}.json", "w"),
    )
PY
for number in 1 2 3; do
    run 0 "$gait" run record --input "incident_$number.json"
done
run 0 "$gait" scout signal --runs run_incident_1,run_incident_2,run_incident_3 --out signal.json --json
check "runs of one incident are one family" is "$(field run_count) $(field family_count)" "3 2"
check "the worst is first" is "$(field top_issues.0.canonical_run_id signal.json)" run_incident_1
check "with a suggestion" test -n "$(field top_issues.0.suggestions.0.summary signal.json)"
cp signal.json once.json
run 0 "$gait" scout signal --runs run_incident_3,run_incident_1,run_incident_2 --out signal.json
check "the order of the runs does not matter" cmp once.json signal.json

echo "== gait exec"
mkdir -p session/work session/secret
cd session
echo precious >secret/file
cat >policy.yaml <<'YAML'
extends: [coding-agent]
rules:
  - name: keep-the-secret
    priority: 0
    effect: block
    match:
      paths: ["**/session/secret/**"]
    justification: The secret folder is not for the workload.
YAML
agent='echo made > work/made; echo made > secret/made; rm secret/file; cat secret/file; true'
run 0 bash -c "cp -r ../session ../unguarded && cd ../unguarded && $agent"
check "without gait all of it happens" test -e ../unguarded/secret/made -a ! -e ../unguarded/secret/file
run 0 "$gait" exec --policy policy.yaml --run-id run_live -- bash -c "$agent"
session_footer=$(tail -1 err)
check "what is allowed happened" is "$(cat work/made)" made
check "what is blocked did not" absent secret/made
check "nothing was removed" is "$(cat secret/file)" precious
check "nothing was read" test ! -s out
check "the session ends with a footer" matches "$session_footer" "$footer"
run 3 "$gait" exec --policy policy.yaml --fail-on block --run-id run_strict -- bash -c "$agent"
run 7 "$gait" exec --policy policy.yaml -- "$gait" exec -- true
run 0 "$gait" verify run_live
run 0 "$gait" run receipt --from run_live
check "and receipt gives the same" is "$(cat out)" "$session_footer"
run 0 "$gait" run inspect --from run_live
check "the evidence names what was blocked" grep -Eq 'block +fs\.delete .*secret/file' out
run 0 "$gait" regress bootstrap --from run_live
check "the session is a regression test" test -s fixtures/run_live/runpack.zip
cp policy.yaml loosened.yaml
sed -i 's/effect: block/effect: allow/' loosened.yaml
check "the loosened policy is another one" bash -c '! cmp -s policy.yaml loosened.yaml'
run 0 "$gait" regress run --policy policy.yaml --fail-on changed gait-out/runpack_run_live.zip
run 5 "$gait" regress run --policy loosened.yaml --fail-on loosened gait-out/runpack_run_live.zip
check "a policy that lets more happen is told, with the file" grep -q 'secret/file' out err
mv loosened.yaml policy.yaml
run 5 "$gait" regress run
check "and the fixture fails under it" grep -q 'next:' out err

printf '\nv1.6 acceptance: %d passed, 0 failed\n' "$passed"
