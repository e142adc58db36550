//! Makes the documents of runs, suites, reports and packs that `schemas.rs` holds to their schemas.

use std::path::Path;

use gait_agent::action::Object;
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use serde_json::{Value, json};

use super::evidence::{described, session, session_of};
use super::run::{INPUT, JUDGED, judged_session};
use super::sandbox::Sandbox;
use super::schemas::{Schemas, entries};

/// A trace with all that a summary or a ranking of actions asks for.
const TRACE: &str = r#"{"schema_id": "gait.gate.trace", "trace_id": "t1", "tool_name": "tool.delete",
    "verdict": "block", "run_id": "run_vec", "intent_digest": "aa", "violations": ["policy"],
    "created_at": "2023-11-14T23:00:00Z", "policy_digest": "aa"}"#;

fn runs(sandbox: &Sandbox) {
    sandbox.write("run.json", INPUT).write("other.json", &INPUT.replace("\"error\"", "\"ok\""));
    sandbox.write("missing.json", &INPUT.replace("http.fetch", "think"));
}

pub(super) fn run_documents(schemas: &mut Schemas) {
    let mut sandbox = Sandbox::new();
    runs(&sandbox);
    sandbox.gait("run record run.json");
    sandbox.gait("run record other.json --run-id run_other");
    sandbox.gait("run record missing.json --run-id run_m");
    sandbox.gait("demo");
    session(&sandbox, "run_a");
    let events = [
        (Operation::Unlink, Object::Path(b"/etc/a\nverify ok\x1b[2J"), Verdict::Allow, "all"),
        (Operation::Write, Object::Path(b"/etc/new"), Verdict::Allow, "all"),
    ];
    session_of(&sandbox, "run_b", &events);
    judged_session(&sandbox, JUDGED);
    for (pair, exit) in [
        ("run_vec run_vec", 0),
        ("run_vec run_other", 2),
        ("run_vec run_demo", 2),
        ("run_demo run_vec", 2),
        ("run_a run_b", 2),
        ("run_a run_p", 2),
        ("run_a run_vec", 2),
        ("run_vec run_a", 2),
        ("run_a run_b --privacy metadata", 2),
    ] {
        let answered = sandbox.gait(&format!("run diff {pair} --output d.json --json"));
        assert_eq!(answered.exit, exit, "{pair}");
        schemas.see("runpack/run_diff_output", &answered.json());
        schemas.see_file("runpack/run_diff", &sandbox.path("d.json"));
    }
    for predicate in ["missing_result", "non_ok_status"] {
        let line = format!("run reduce run_vec --predicate {predicate} --out r.zip --report-out r.json");
        assert_eq!(sandbox.gait(&line).exit, 0);
        schemas.see_file("runpack/reduce_report", &sandbox.path("r.json"));
    }
    sandbox.env("OTHER", "1");
    let unsafe_line = "run replay run_vec --real-tools --unsafe-real-tools --allow-tools tool.delete --json";
    for line in [
        "run replay run_vec --json",
        "run replay run_m --json",
        "run replay run_a --json",
        &format!("{unsafe_line} --unsafe-real-tools-env OTHER"),
    ] {
        let answered = sandbox.gait(line);
        schemas.see("runpack/replay_output", &answered.json());
    }
}

/// Adds fields to a document that gait wrote.
fn add(path: &Path, fields: Value) {
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    std::fs::write(path, document.to_string()).unwrap();
}

pub(super) fn regress_documents(schemas: &mut Schemas) {
    let mut sandbox = Sandbox::new();
    runs(&sandbox);
    sandbox.gait("run record run.json");
    judged_session(&sandbox, JUDGED);
    for run in ["run_vec", "run_p"] {
        assert_eq!(sandbox.gait(&format!("regress init --from {run}")).exit, 0, "{run}");
        schemas.see_file("regress/regress_fixture", &sandbox.path(&format!("fixtures/{run}/fixture.json")));
    }
    schemas.see_file("regress/regress_config", &sandbox.path("gait.yaml"));
    sandbox.gait("regress run --output result.json");
    schemas.see_file("regress/regress_result", &sandbox.path("result.json"));

    // What a person may add: gait reads it, and grades by it.
    let told = sandbox.path("fixtures/run_vec/fixture.json");
    add(
        &told,
        json!({"candidate_runpack": "runpack.zip", "diff_allow_changed_files": ["results.jsonl"],
            "expected_tool_sequence": ["other"], "expected_verdict_sequence": ["allow"],
            "context_conformance": true, "allow_context_runtime_drift": true,
            "expected_context_set_digest": "x", "session_chain": {}, "checkpoint_index": 1}),
    );
    let judged = sandbox.path("fixtures/run_p/fixture.json");
    let mut fixture: Value = serde_json::from_str(&std::fs::read_to_string(&judged).unwrap()).unwrap();
    for (key, value) in [
        ("workspace", json!("w")),
        ("command", json!(["true"])),
        ("live_ignore", json!(["fs.read *"])),
        (
            "expected",
            json!([{"intent_id": "intent_3", "about": "x", "recorded": "block", "verdict": "allow"}]),
        ),
    ] {
        fixture["exec"][key] = value;
    }
    std::fs::write(&judged, fixture.to_string()).unwrap();
    for path in [&told, &judged] {
        schemas.see_file("regress/regress_fixture", path);
    }
    assert_eq!(sandbox.gait("regress run --output result.json --json").exit, 5);
    schemas.see_file("regress/regress_result", &sandbox.path("result.json"));

    let other = JUDGED.replace("effect: block", "effect: allow").replace("[fs.read]", "[fs.write]");
    sandbox.write("other.yaml", &other);
    for (policy, exit) in [("policy.yaml", 0), ("other.yaml", 5)] {
        let line = format!("regress run --policy {policy} gait-out/runpack_run_p.zip --output r.json --json");
        let answered = sandbox.gait(&line);
        assert_eq!(answered.exit, exit, "{policy}");
        schemas.see("regress/regress_review_output", &answered.json());
        schemas.see_file("regress/regress_review", &sandbox.path("r.json"));
    }
}

pub(super) fn report_documents(schemas: &mut Schemas) {
    let mut sandbox = Sandbox::new();
    runs(&sandbox);
    sandbox.gait("run record run.json");
    session(&sandbox, "run_a");
    sandbox.write("t.json", TRACE);
    sandbox.gait("regress init --from run_vec");
    add(&sandbox.path("fixtures/run_vec/fixture.json"), json!({"expected_replay_exit_code": 2}));
    assert_eq!(sandbox.gait("regress run").exit, 5);
    let line = "scout signal run_vec run_a --traces t.json --regress regress_result.json --out s.json";
    assert_eq!(sandbox.gait(line).exit, 0);
    schemas.see_file("scout/signal_report", &sandbox.path("s.json"));
    let report: Value = serde_json::from_str(&sandbox.read("s.json")).unwrap();
    for fingerprint in report["fingerprints"].as_array().unwrap() {
        schemas.see("scout/run_fingerprint", fingerprint);
    }
    assert_eq!(sandbox.gait("report top run_vec run_a --traces t.json --limit 20 --out top.json").exit, 0);
    schemas.see_file("report/top_actions", &sandbox.path("top.json"));

    sandbox.write("a/x.py", "@tool\ndef read_notes(): pass\n\n@tool\ndef send_email(to): pass\n");
    assert_eq!(sandbox.gait("scout snapshot --roots a --out a.json").exit, 0);
    sandbox
        .write("a/x.py", "@tool\ndef drop_table(): pass\n")
        .write("a/y.py", "@tool\ndef send_email(): pass\n");
    sandbox.write("a/.mcp.json", r#"{"mcpServers": {"files": {"command": "x"}}}"#);
    assert_eq!(sandbox.gait("scout snapshot --roots a --out b.json").exit, 0);
    assert_eq!(sandbox.gait("scout diff a.json b.json --out d.json").exit, 2);
    for (schema, name) in [("snapshot", "a.json"), ("snapshot", "b.json"), ("diff", "d.json")] {
        schemas.see_file(&format!("scout/inventory_{schema}"), &sandbox.path(name));
    }
}

pub(super) fn pack_documents(schemas: &mut Schemas) {
    let mut sandbox = Sandbox::new();
    runs(&sandbox);
    sandbox.gait("run record run.json");
    session(&sandbox, "run_a");
    described(&sandbox, None);
    sandbox.gait("regress bootstrap --from run_told");
    sandbox.write("t.json", TRACE).write("gait-out/trace_in.json", TRACE);
    for line in [
        "guard pack --run run_vec --trace t.json --regress regress_result.json --case-id C-1 --out p.zip",
        "guard pack --run run_told --template pci --out p.zip",
        "incident pack --from run_a --window 2h --out p.zip",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
        for (name, bytes) in entries(&sandbox.path("p.zip")) {
            let name = name.strip_suffix(".json").unwrap();
            schemas.see(&format!("guard/{name}"), &serde_json::from_slice(&bytes).unwrap());
        }
    }
}
