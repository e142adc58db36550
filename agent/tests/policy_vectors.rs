//! Policies and verdicts against values that the reference implementation computed, and the deviations from it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};

use gait_agent::gate::{Verdict, evaluate};
use gait_agent::intent::{Intent, IntentRequest};
use gait_agent::policy::Policy;
use serde_json::Value;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn rows() -> Vec<Value> {
    let bytes = std::fs::read(vectors().join("expected_v17.json")).unwrap();
    let expected: Value = serde_json::from_slice(&bytes).unwrap();
    let rows = expected["policy_test"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 36);
    rows
}

fn policy(name: &str) -> Policy {
    let path = vectors().join("inputs").join(name);
    Policy::load(path.to_str().unwrap()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn intent(name: &str) -> Intent {
    let bytes = std::fs::read(vectors().join("inputs").join(name)).unwrap();
    IntentRequest::from_json(&bytes).unwrap().normalise().unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map_or_else(Vec::new, |list| list.iter().map(|item| item.as_str().unwrap().into()).collect())
}

/// Where gait does not do what the reference does: verdict, reason codes, violations.
fn deviation(policy: &str, intent: &str) -> Option<(Verdict, Vec<&'static str>, Vec<&'static str>)> {
    match (policy, intent) {
        // A constraint never loosens a block.
        ("p03_constraints.yaml", "i07_egress_tainted.json") => Some((
            Verdict::Block,
            vec!["dataflow_tainted_destination", "matched_rule_taint"],
            vec!["tainted_dataflow"],
        )),
        // `..` does not lead out of an allowed directory.
        ("p03_constraints.yaml", "i08_traversal.json") => Some((
            Verdict::RequireApproval,
            vec!["endpoint_constraint_violation", "endpoint_path_not_allowlisted", "matched_rule_constrain"],
            vec!["endpoint_constraint_violation", "endpoint_path_not_allowlisted"],
        )),
        _ => None,
    }
}

#[test]
fn digest_of_every_policy() {
    for row in rows() {
        let name = row["policy"].as_str().unwrap();
        assert_eq!(policy(name).digest().to_string(), row["policy_digest"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn verdict_of_every_pair() {
    let mut deviations = 0;
    for row in rows() {
        let (policy_name, intent_name) = (row["policy"].as_str().unwrap(), row["intent"].as_str().unwrap());
        let got = evaluate(&policy(policy_name), &intent(intent_name));
        let reference = (
            row["verdict"].as_str().unwrap().parse().unwrap(),
            texts(&row["reason_codes"]),
            texts(&row["violations"]),
        );
        let want = match deviation(policy_name, intent_name) {
            Some((verdict, reasons, violations)) => {
                deviations += 1;
                let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
                let ours = (verdict, owned(reasons), owned(violations));
                assert_ne!(ours, reference, "{policy_name} × {intent_name} is no deviation");
                assert!(ours.0 >= reference.0, "a deviation may only be stricter");
                ours
            }
            None => reference,
        };
        let got = (got.verdict, got.reason_codes, got.violations);
        assert_eq!(got, want, "{policy_name} × {intent_name}");
    }
    assert_eq!(deviations, 2);
}

#[test]
fn approvals_default_to_one() {
    let outcome = evaluate(&policy("p02_match.yaml"), &intent("i05_context.json"));
    assert_eq!((outcome.verdict, outcome.min_approvals), (Verdict::RequireApproval, 1));
    let outcome = evaluate(&policy("p03_constraints.yaml"), &intent("i04_order.json"));
    assert_eq!(outcome.matched_rule.as_deref(), Some("constrain"));
}
