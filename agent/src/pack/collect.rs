//! Which documents beside a run belong to an incident: those of its time, and of its decisions.

use std::collections::BTreeSet;

use serde_json::Value;

use super::write::{Build, PackError};
use crate::schema;
use crate::sign::{Limits, parse_strict};
use crate::timestamp::Timestamp;

/// The documents that lie beside a run, as bytes; whatever is none of these is passed over.
#[derive(Debug, Default)]
pub struct Sources {
    /// `trace_*.json`.
    pub traces: Vec<Vec<u8>>,
    /// `regress*.json`.
    pub regress: Vec<Vec<u8>>,
    /// `approval_audit_*.json`.
    pub approvals: Vec<Vec<u8>>,
    /// `credential_evidence_*.json`.
    pub credentials: Vec<Vec<u8>>,
}

/// What was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Trace records.
    pub traces: usize,
    /// Regression results.
    pub regress: usize,
    /// Records of approvals.
    pub approvals: usize,
    /// Records of credentials.
    pub credentials: usize,
    /// The policies of the traces.
    pub policy_digests: BTreeSet<String>,
}

/// Adds the documents of the time from `from` to `to` to a pack. Approvals and credentials belong to it only if one of
/// its traces is theirs, as far as there are traces.
///
/// # Errors
///
/// Fails if a document of the right kind and time lacks what a summary needs.
pub fn collect(
    pack: &mut Build,
    sources: &Sources,
    (from, to): (Timestamp, Timestamp),
) -> Result<Collected, PackError> {
    let mut collected = Collected::default();
    let mut trace_ids = BTreeSet::new();
    let text = |document: &Value, key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let in_time = |bytes: &[u8], schema_id: &str| {
        let document = parse_strict(bytes, Limits::DOCUMENT).ok()?;
        let at: Timestamp = text(&document, "created_at")?.parse().ok()?;
        let fits = text(&document, "schema_id")? == schema_id && (from..=to).contains(&at);
        fits.then_some(document)
    };
    for bytes in &sources.traces {
        if let Some(trace) = in_time(bytes, schema::TRACE) {
            pack.trace(bytes)?;
            collected.traces += 1;
            trace_ids.extend(text(&trace, "trace_id"));
            collected.policy_digests.extend(text(&trace, "policy_digest"));
        }
    }
    for bytes in &sources.regress {
        if in_time(bytes, schema::REGRESS_RESULT).is_some() {
            pack.regress(bytes)?;
            collected.regress += 1;
        }
    }
    let known = |document: &Value| {
        trace_ids.is_empty() || text(document, "trace_id").is_some_and(|id| trace_ids.contains(&id))
    };
    for bytes in &sources.approvals {
        if in_time(bytes, "gait.gate.approval_audit_record").is_some_and(|it| known(&it)) {
            pack.approval(bytes)?;
            collected.approvals += 1;
        }
    }
    for bytes in &sources.credentials {
        if in_time(bytes, "gait.gate.broker_credential_record").is_some_and(|it| known(&it)) {
            pack.credential(bytes)?;
            collected.credentials += 1;
        }
    }
    Ok(collected)
}
