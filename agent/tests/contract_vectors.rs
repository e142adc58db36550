//! Digests against values that the reference implementation computed.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};

use gait_agent::intent::{Intent, IntentError, IntentRequest};
use serde_json::Value;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(vectors().join("expected_v17.json")).unwrap()).unwrap()
}

fn intent(name: &str) -> Intent {
    let bytes = std::fs::read(vectors().join("inputs").join(name)).unwrap();
    IntentRequest::from_json(&bytes).unwrap().normalise().unwrap()
}

#[test]
fn args_digest_of_every_intent() {
    let expected = expected();
    let digests = expected["args_digest"].as_object().unwrap();
    assert_eq!(digests.len(), 9);
    for (name, digest) in digests {
        assert_eq!(intent(name).args_digest().to_string(), digest.as_str().unwrap(), "{name}");
    }
}

#[test]
fn intent_digest_of_every_intent() {
    let expected = expected();
    let rows = expected["policy_test"].as_array().unwrap();
    assert_eq!(rows.len(), 36);
    for row in rows {
        let name = row["intent"].as_str().unwrap();
        assert_eq!(
            intent(name).intent_digest().to_string(),
            row["intent_digest"].as_str().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn normalising_twice_changes_nothing() {
    for name in ["i03_infer.json", "i04_order.json", "i05_context.json", "i09_declared_class.json"] {
        let once = intent(name);
        let again: IntentRequest = serde_json::from_value(serde_json::json!({
            "tool_name": once.tool_name(), "args": once.args(), "targets": once.targets(),
            "arg_provenance": once.arg_provenance(), "skill_provenance": once.skill_provenance(),
            "context": once.context(), "created_at": once.created_at(),
        }))
        .unwrap();
        assert_eq!(again.normalise().unwrap(), once, "{name}");
    }
}

#[test]
fn what_cannot_be_normalised_says_why() {
    let context = r#""context":{"identity":"i","workspace":"/w","risk_class":"low"}"#;
    let cases = [
        ("{}".to_owned(), "tool_name is required"),
        (r#"{"tool_name":"t"}"#.to_owned(), "context identity is required"),
        (format!(r#"{{"tool_name":"t","args":{{"\r":1}},{context}}}"#), "an argument has a blank name"),
        (
            format!(r#"{{"tool_name":"t","args":{{"a":1," a":2}},{context}}}"#),
            "the argument \"a\" is given twice",
        ),
        (
            format!(r#"{{"tool_name":"t","targets":[{{"kind":"disk","value":"x"}}],{context}}}"#),
            "unsupported target kind \"disk\"",
        ),
        (
            format!(
                r#"{{"tool_name":"t","targets":[{{"kind":"path","value":"x","endpoint_class":"fs.eat"}}],{context}}}"#
            ),
            "unsupported endpoint_class \"fs.eat\"",
        ),
        (
            format!(r#"{{"tool_name":"t","skill_provenance":{{"skill_name":"s","source":"r"}},{context}}}"#),
            "skill_provenance publisher is required",
        ),
        (format!(r#"{{"tool_name":"t","created_at":"soon",{context}}}"#), "created_at is invalid"),
        (format!(r#"{{"tool_name":"t","tool_name":"u",{context}}}"#), "intent is not strict JSON"),
        ("[]".to_owned(), "not an intent request"),
    ];
    for (text, want) in cases {
        let error: IntentError =
            IntentRequest::from_json(text.as_bytes()).and_then(IntentRequest::normalise).unwrap_err();
        assert_eq!(error.to_string(), want, "{text}");
    }
}

#[test]
fn null_lists_are_empty() {
    let text = r#"{"tool_name":"t","args":null,"targets":null,"arg_provenance":null,
        "context":{"identity":"i","workspace":"/w","risk_class":"low"}}"#;
    let intent = IntentRequest::from_json(text.as_bytes()).unwrap().normalise().unwrap();
    assert!(intent.targets().is_empty() && intent.args().is_empty());
}
