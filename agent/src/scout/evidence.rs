//! Files beside the runpacks: trace records and regression results that speak of a run.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::contract::identifier;
use crate::schema;
use crate::sign::{Limits, ParseError, parse_strict};

/// What a failing grader without reasons is counted as.
const REGRESS_FAILURE: &str = "regress_failure";

/// A file beside the runpacks cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Not strict JSON.
    #[error("not strict JSON")]
    Parse(#[from] ParseError),
    /// Another document.
    #[error("not a {expected} document but {found:?}")]
    Schema {
        /// The schema id that was expected.
        expected: &'static str,
        /// The one that was found.
        found: String,
    },
    /// Another shape.
    #[error("unexpected shape")]
    Shape(#[from] serde_json::Error),
}

/// What the files say of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) reasons: BTreeSet<String>,
    pub(super) traces: u64,
    pub(super) regress: bool,
}

/// What the files beside the runpacks say, by run.
#[derive(Debug, Clone, Default)]
pub struct SideEvidence(BTreeMap<String, Attached>);

/// Of a trace record, what the signal needs. Ids are text here: other producers name traces as they like.
#[derive(Deserialize)]
pub(super) struct TraceFacts {
    #[serde(default)]
    correlation_id: String,
    #[serde(default)]
    pub(super) trace_id: String,
    #[serde(default)]
    pub(super) tool_name: String,
    #[serde(default)]
    pub(super) intent_digest: String,
    #[serde(default)]
    run_id: String,
    #[serde(default)]
    pub(super) verdict: String,
    #[serde(default)]
    pub(super) violations: Option<Vec<String>>,
}

impl TraceFacts {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        document(bytes, schema::TRACE)
    }

    /// Returns the run that the record names. The reference's records have no field for it, so it is looked for where
    /// callers put it; ours is additive.
    pub(super) fn run_id(&self) -> Option<&str> {
        let named = Some(self.run_id.trim()).filter(|id| !id.is_empty());
        named.or_else(|| run_id_in(&self.correlation_id)).or_else(|| run_id_in(&self.trace_id))
    }
}

#[derive(Deserialize)]
struct RegressResult {
    #[serde(default)]
    graders: Option<Vec<Grader>>,
}

#[derive(Deserialize)]
struct Grader {
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    reason_codes: Option<Vec<String>>,
    #[serde(default)]
    details: Option<serde_json::Map<String, Value>>,
}

impl SideEvidence {
    /// Returns what is known of a run.
    pub(super) fn of(&self, run_id: &str) -> Attached {
        self.0.get(run_id).cloned().unwrap_or_default()
    }

    /// Takes in a trace record. One that names no run tells nothing.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are something else.
    pub fn add_trace(&mut self, bytes: &[u8]) -> Result<(), EvidenceError> {
        let trace = TraceFacts::parse(bytes)?;
        let Some(run_id) = trace.run_id() else { return Ok(()) };
        let attached = self.0.entry(run_id.to_owned()).or_default();
        attached.traces += 1;
        let verdict = trace.verdict.trim();
        if !verdict.is_empty() && verdict != "allow" {
            attached.reasons.insert(format!("trace_verdict_{}", identifier(verdict)));
        }
        let violations = trace.violations.into_iter().flatten();
        attached.reasons.extend(violations.map(|one| format!("violation_{}", identifier(&one))));
        Ok(())
    }

    /// Takes in a regression result.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are something else.
    pub fn add_regress(&mut self, bytes: &[u8]) -> Result<(), EvidenceError> {
        let result: RegressResult = document(bytes, schema::REGRESS_RESULT)?;
        for grader in result.graders.into_iter().flatten() {
            if grader.status.trim().eq_ignore_ascii_case("pass") {
                continue;
            }
            let detail = grader.details.as_ref().and_then(|details| details.get("run_id"));
            let named = detail.and_then(Value::as_str).map(str::trim).filter(|id| !id.is_empty());
            let run_id = named.unwrap_or_else(|| grader.name.split('/').next().unwrap_or_default().trim());
            if run_id.is_empty() {
                continue;
            }
            let attached = self.0.entry(run_id.to_owned()).or_default();
            attached.regress = true;
            let codes = grader.reason_codes.unwrap_or_default();
            if codes.is_empty() {
                attached.reasons.insert(REGRESS_FAILURE.to_owned());
            }
            attached.reasons.extend(codes.iter().map(|code| identifier(code)));
        }
        Ok(())
    }
}

fn document<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    schema_id: &'static str,
) -> Result<T, EvidenceError> {
    let value = parse_strict(bytes, Limits::DOCUMENT)?;
    let found = value.get("schema_id").and_then(Value::as_str).unwrap_or_default();
    if found != schema_id {
        return Err(EvidenceError::Schema { expected: schema_id, found: found.to_owned() });
    }
    Ok(serde_json::from_value(value)?)
}

/// Finds the first run id in a text: `run_`, then letters, digits, `_` and `-`.
fn run_id_in(text: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices("run_").find_map(|(at, start)| {
        let rest = &text[at + start.len()..];
        let end = rest.find(|c: char| !plain(c)).unwrap_or(rest.len());
        (end > 0).then(|| &text[at..at + start.len() + end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_found_inside_other_ids() {
        assert_eq!(run_id_in("x:run_a-1_b:y"), Some("run_a-1_b"));
        assert_eq!(run_id_in("run_ run_b"), Some("run_b"));
        assert_eq!(run_id_in("0123abcd"), None);
    }

    fn trace(extra: &str) -> Vec<u8> {
        format!(r#"{{"schema_id":"gait.gate.trace","verdict":"block","violations":["A b"],{extra}}}"#)
            .into_bytes()
    }

    #[test]
    fn a_trace_is_attached_to_the_run_that_it_names_anywhere() {
        for extra in [
            r#""run_id":"run_a""#,
            r#""correlation_id":"x run_a y""#,
            r#""correlation_id":"0123","trace_id":"t_run_a""#,
        ] {
            let mut side = SideEvidence::default();
            side.add_trace(&trace(extra)).unwrap();
            let attached = side.of("run_a");
            assert_eq!(attached.traces, 1, "{extra}");
            assert_eq!(Vec::from_iter(attached.reasons), ["trace_verdict_block", "violation_a_b"]);
        }
        let mut side = SideEvidence::default();
        side.add_trace(&trace(r#""trace_id":"012345""#)).unwrap();
        assert!(side.0.is_empty());
    }

    #[test]
    fn failing_graders_give_reasons_and_passing_ones_none() {
        let mut side = SideEvidence::default();
        let result = r#"{"schema_id":"gait.regress.result","graders":[
            {"name":"f/diff","status":"fail","reason_codes":["Unexpected-Diff"],"details":{"run_id":"run_a"}},
            {"name":"run_b/diff","status":"fail","reason_codes":null},
            {"name":"run_c/diff","status":"PASS","reason_codes":["x"]}]}"#;
        side.add_regress(result.as_bytes()).unwrap();
        assert_eq!(Vec::from_iter(side.of("run_a").reasons), ["unexpected_diff"]);
        assert_eq!(Vec::from_iter(side.of("run_b").reasons), [REGRESS_FAILURE]);
        assert!(!side.of("run_c").regress);
    }

    #[test]
    fn other_documents_are_refused() {
        let mut side = SideEvidence::default();
        assert!(matches!(side.add_trace(b"{}"), Err(EvidenceError::Schema { .. })));
        assert!(matches!(side.add_regress(&trace(r#""x":1"#)), Err(EvidenceError::Schema { .. })));
        assert!(matches!(side.add_trace(b"{"), Err(EvidenceError::Parse(_))));
        let twice = br#"{"schema_id":"gait.gate.trace","verdict":"block","verdict":"allow"}"#;
        assert!(matches!(side.add_trace(twice), Err(EvidenceError::Parse(_))));
    }
}
