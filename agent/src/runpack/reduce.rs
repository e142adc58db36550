//! The smallest run that still fails: one intent, and what belongs to it (contract §18.5).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use super::record::{IntentEntry, ResultEntry, RunRecord};
use crate::schema;
use crate::timestamp::Timestamp;

/// What makes an intent worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Predicate {
    /// It has no result.
    #[default]
    MissingResult,
    /// Its result is something else than `ok`.
    NonOkStatus,
}

/// There is no such predicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown predicate {0:?}, expected missing_result or non_ok_status")]
pub struct UnknownPredicate(pub String);

impl FromStr for Predicate {
    type Err = UnknownPredicate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "missing_result" => Ok(Self::MissingResult),
            "non_ok_status" => Ok(Self::NonOkStatus),
            _ => Err(UnknownPredicate(text.to_owned())),
        }
    }
}

impl Predicate {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingResult => "missing_result",
            Self::NonOkStatus => "non_ok_status",
        }
    }

    /// Returns the first intent, in the order of ids, that the predicate holds of.
    #[must_use]
    pub fn first(self, record: &RunRecord) -> Option<&IntentEntry> {
        let results = results_by_intent(record);
        let holds = |intent: &&IntentEntry| match (self, results.get(intent.intent_id.as_str())) {
            (Self::MissingResult, result) => result.is_none(),
            (Self::NonOkStatus, result) => result.is_some_and(|result| !is_ok(result)),
        };
        record.intents.iter().filter(holds).min_by(|a, b| a.intent_id.cmp(&b.intent_id))
    }
}

fn is_ok(result: &ResultEntry) -> bool {
    result.status.trim().eq_ignore_ascii_case("ok")
}

/// Of several results of one intent the last counts.
fn results_by_intent(record: &RunRecord) -> BTreeMap<&str, &ResultEntry> {
    record.results.iter().map(|result| (result.intent_id.as_str(), result)).collect()
}

/// What was left out; the file beside a reduced runpack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields of the contract")]
pub struct ReduceReport {
    pub schema_id: &'static str,
    pub schema_version: &'static str,
    pub created_at: Option<Timestamp>,
    pub producer_version: String,
    pub run_id: String,
    pub reduced_run_id: String,
    pub predicate: &'static str,
    pub selected_intent_id: String,
    pub original_intent_count: usize,
    pub reduced_intent_count: usize,
    pub original_result_count: usize,
    pub reduced_result_count: usize,
    pub original_ref_count: usize,
    pub reduced_ref_count: usize,
    pub still_failing: bool,
}

/// A reduced run.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// The run; to be completed and packed like any other.
    pub record: RunRecord,
    /// What was left out.
    pub report: ReduceReport,
}

/// Reduces a run to the first intent that the predicate holds of; `None` if it holds of none.
#[must_use]
pub fn reduce(record: &RunRecord, predicate: Predicate) -> Option<Reduced> {
    let intent = predicate.first(record)?;
    let result = results_by_intent(record).get(intent.intent_id.as_str()).copied();
    let mut named = BTreeSet::new();
    for payload in intent.args.iter().chain(result.and_then(|result| result.result.as_ref())) {
        references(payload, false, &mut named);
    }
    let mut reduced = RunRecord {
        run: record.run.clone(),
        intents: vec![intent.clone()],
        results: result.cloned().into_iter().collect(),
        refs: record.refs.clone(),
        capture_mode: record.capture_mode.clone(),
    };
    let run_id = format!("{}_reduced_{}", record.run.run_id, predicate.as_str().replace('_', ""));
    reduced.run.run_id.clone_from(&run_id);
    reduced.refs.receipts.retain(|receipt| named.contains(receipt.ref_id.as_str()));
    if let Some(timeline) = &mut reduced.run.timeline {
        let belongs = |name: &str| {
            name == intent.intent_id || reduced.refs.receipts.iter().any(|receipt| receipt.ref_id == name)
        };
        timeline.retain(|event| event.reference.is_empty() || belongs(&event.reference));
    }
    let report = ReduceReport {
        schema_id: schema::REDUCE_REPORT,
        schema_version: schema::VERSION,
        created_at: record.run.created_at,
        producer_version: record.run.producer_version.clone(),
        run_id: record.run.run_id.clone(),
        reduced_run_id: run_id,
        predicate: predicate.as_str(),
        selected_intent_id: intent.intent_id.clone(),
        original_intent_count: record.intents.len(),
        reduced_intent_count: reduced.intents.len(),
        original_result_count: record.results.len(),
        reduced_result_count: reduced.results.len(),
        original_ref_count: record.refs.receipts.len(),
        reduced_ref_count: reduced.refs.receipts.len(),
        still_failing: predicate.first(&reduced).is_some(),
    };
    Some(Reduced { record: reduced, report })
}

/// Collects what a payload refers to: strings below a key that has `ref` in it, and strings that begin with `ref_`.
fn references<'a>(value: &'a Value, below_ref: bool, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) if below_ref || text.starts_with("ref_") => {
            found.insert(text);
        }
        Value::Array(list) => list.iter().for_each(|item| references(item, below_ref, found)),
        Value::Object(map) => {
            for (key, item) in map {
                references(item, below_ref || key.to_lowercase().contains("ref"), found);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runpack::Payloads;

    const INPUT: &[u8] = include_bytes!("../../tests/vectors/inputs/run_record.json");

    fn record() -> RunRecord {
        RunRecord::from_json(INPUT).unwrap().complete(Timestamp::UNSET, Payloads::Keep).unwrap()
    }

    #[test]
    fn the_report_equals_the_vector() {
        let expected: Value =
            serde_json::from_str(include_str!("../../tests/vectors/expected_v17.json")).unwrap();
        let reduced = reduce(&record(), Predicate::MissingResult).unwrap();
        assert_eq!(json!(reduced.report), expected["reduce"]["report"]);
        assert_eq!(reduced.record.intents[0].intent_id, "intent_2");
    }

    #[test]
    fn what_the_intent_names_is_kept_and_the_rest_is_not() {
        let mut record = record();
        record.intents[0].args = Some(json!({"in": {"Source_Refs": ["ref_1", "r"]}, "text": "ref_9"}));
        record.refs.receipts.push(crate::runpack::Receipt { ref_id: "ref_2".into(), ..Default::default() });
        let reduced = reduce(&record, Predicate::NonOkStatus).unwrap();
        assert_eq!(reduced.report.selected_intent_id, "intent_1");
        assert_eq!(reduced.report.reduced_run_id, "run_vec_reduced_nonokstatus");
        assert_eq!(reduced.record.results.len(), 1);
        let kept: Vec<_> = reduced.record.refs.receipts.iter().map(|one| one.ref_id.as_str()).collect();
        assert_eq!(kept, ["ref_1"]);
        let events: Vec<_> =
            reduced.record.run.timeline.unwrap().into_iter().map(|event| event.event).collect();
        assert_eq!(events, ["start"]);
    }

    #[test]
    fn the_first_id_counts_whatever_the_order_and_a_healthy_run_is_not_reduced() {
        let mut record = record();
        record.results.clear();
        record.intents.reverse();
        let reduced = reduce(&record, Predicate::MissingResult).unwrap();
        assert_eq!(reduced.report.selected_intent_id, "intent_1");
        assert!(reduce(&record, Predicate::NonOkStatus).is_none());
        assert_eq!("all".parse::<Predicate>(), Err(UnknownPredicate("all".into())));
    }
}
