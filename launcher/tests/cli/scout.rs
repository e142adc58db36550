//! `gait scout signal` over sessions and described runs.

use serde_json::Value;

use super::evidence::{described, flip, session};
use super::sandbox::Sandbox;

const REPORT: &str = "gait-out/scout_signal_report.json";

#[test]
fn signal_answers_in_text_and_json() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_b");
    session(&sandbox, "run_a");
    described(&sandbox, None);
    sandbox.write(
        "trace.json",
        r#"{"schema_id": "gait.gate.trace", "run_id": "run_told", "verdict": "block", "violations": ["policy"]}"#,
    );
    for line in [
        "scout signal --runs run_b,run_a",
        "scout signal run_told --runs gait-out/runpack_run_a.zip -traces trace.json --out r.json --json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn two_sessions_of_one_incident_are_one_family_in_any_order_and_twice_the_same_bytes() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_b");
    session(&sandbox, "run_a");
    described(&sandbox, None);
    let mut reports = Vec::new();
    for line in [
        "scout signal --runs run_a,run_b,run_told",
        "scout signal run_told run_b run_a",
        "scout signal --runs ./gait-out/runpack_run_b.zip,run_a run_told run_b gait-out//runpack_run_b.zip",
        "scout signal gait-out",
        "scout signal gait-out",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
        reports.push(sandbox.read(REPORT));
    }
    assert!(reports.iter().all(|report| *report == reports[0]));
    let report: Value = serde_json::from_str(&reports[0]).unwrap();
    assert_eq!((&report["run_count"], &report["family_count"]), (&3.into(), &2.into()));
    assert_eq!(report["families"][0]["run_ids"], serde_json::json!(["run_a", "run_b"]));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&sandbox.path(REPORT).metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// What is suggested is there to be used: the intent, saved, is judged as it was.
#[test]
fn the_suggested_intent_is_one() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_a");
    let answer = sandbox.gait("scout signal run_a --json").json();
    let fixtures = &answer["report"]["top_issues"][0]["suggestions"][0]["fixtures"];
    assert_eq!(fixtures.as_array().unwrap().len(), 2);
    for fixture in fixtures.as_array().unwrap() {
        sandbox.write("intent.json", &fixture["intent"].to_string());
        sandbox.write("policy.yaml", "default_verdict: block\n");
        assert_eq!(sandbox.gait("policy test policy.yaml intent.json").exit, 3, "{fixture}");
    }
}

#[test]
fn bad_inputs_of_signal_are_all_named_and_leave_no_report() {
    let mut sandbox = Sandbox::new();
    for run_id in ["run_a", "run_b", "run_c"] {
        session(&sandbox, run_id);
    }
    flip(&sandbox.path("gait-out/runpack_run_b.zip"), b"run.jsonPK");
    sandbox.write("text.zip", "not a zip").write("trace.json", "{}").write("bad.json", "{").write("d/x", "");
    for (line, exit) in [
        ("scout signal", 6),
        ("scout signal --runs ,", 6),
        ("scout signal run_nothing", 6),
        ("scout signal d", 6),
        ("scout signal run_a ./text.zip nothing.zip", 6),
        ("scout signal run_a run_b ./text.zip", 2),
        ("scout signal gait-out --json", 2),
        ("scout signal run_a --traces nothing.json", 6),
        ("scout signal run_a --traces trace.json", 6),
        ("scout signal run_a --regress bad.json", 6),
        ("scout signal run_a --out d/x/report.json", 1),
        ("scout frobnicate", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    assert!(!sandbox.path(REPORT).exists());
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn report_top_ranks_actions() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_a");
    described(&sandbox, None);
    sandbox.write(
        "trace.json",
        r#"{"schema_id": "gait.gate.trace", "tool_name": "tool.delete", "trace_id": "t1", "verdict": "block"}"#,
    );
    for line in [
        "report top --runs run_a,run_told --limit 2",
        "report top gait-out --traces trace.json --limit 100 --out top.json --json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    let first = sandbox.read("top.json");
    assert_eq!(
        sandbox.gait("report top run_told run_a --traces trace.json --limit 20 --out top.json").exit,
        0
    );
    assert_eq!(sandbox.read("top.json"), first);
    sandbox.write("text.zip", "text").write("empty.json", r#"{"schema_id": "gait.gate.trace"}"#);
    for line in [
        "report top",
        "report top text.zip",
        "report top --traces text.zip",
        "report top --traces empty.json",
        "report top run_a --limit many",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}
