//! `gait run inspect`: the intents of a run with what came of them.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use gait_agent::runpack::{Decision, ReadError, Runpack};
use serde::Serialize;

use super::super::args::RunFrom;
use super::super::output::one_line;
use super::super::verify::Verified;
use super::super::{Answer, CliError};
use super::{holding, unreadable};

#[derive(Serialize)]
struct Inspection {
    artifact_type: &'static str,
    run_id: String,
    path: String,
    capture_mode: String,
    intents_total: usize,
    results_total: usize,
    entries: Vec<Entry>,
    unmatched_results: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    index: usize,
    intent_id: String,
    tool_name: String,
    created_at: Option<String>,
    args_digest: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What is known of an intent besides itself.
#[derive(Serialize, Default)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reason_codes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    /// How often the decision was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

#[derive(Serialize)]
struct Target {
    kind: String,
    value: String,
    operation: String,
    endpoint_class: &'static str,
}

/// Lists the intents of a run with what came of them.
///
/// # Errors
///
/// A runpack that is not there, is something else, or does not hold.
pub(in super::super) fn inspect(args: &RunFrom) -> Result<Answer, CliError> {
    let verified = holding(args)?;
    let inspection = read(&verified).map_err(|error| unreadable(&verified.path, error))?;
    Answer::ok(&inspection, text(&inspection))
}

fn read(verified: &Verified) -> Result<Inspection, ReadError> {
    let mut runpack = Runpack::open(&verified.path)?;
    let manifest = runpack.manifest()?;
    let intents = runpack.intents()?;
    let mut unmatched = Vec::new();
    let known: BTreeSet<_> = intents.iter().map(|intent| intent.intent_id.as_str()).collect();
    let mut outcomes: HashMap<String, Outcome> = HashMap::new();
    let results = runpack.results()?;
    let results_total = results.len();
    for result in results {
        if !known.contains(result.intent_id.as_str()) {
            unmatched.push(result.intent_id);
            continue;
        }
        let outcome = outcomes.entry(result.intent_id).or_default();
        outcome.status = Some(result.status);
        outcome.result_digest = Some(result.result_digest);
    }
    if runpack.is_session() {
        runpack.decisions(|decision| {
            // The intents of a session are derived from its decisions, in the same order.
            let index = usize::try_from(decision.number - 1).unwrap_or(usize::MAX);
            if let Some(intent) = intents.get(index) {
                add_decision(outcomes.entry(intent.intent_id.clone()).or_default(), decision);
            }
        })?;
    }
    let entries = intents.into_iter().enumerate().map(|(at, intent)| Entry {
        index: at + 1,
        outcome: outcomes.remove(&intent.intent_id).unwrap_or_default(),
        intent_id: intent.intent_id,
        tool_name: intent.tool_name,
        created_at: intent.created_at.map(|time| time.to_string()),
        args_digest: intent.args_digest,
    });
    let entries: Vec<_> = entries.collect();
    Ok(Inspection {
        artifact_type: "runpack",
        run_id: manifest.run_id,
        path: verified.path.display().to_string(),
        capture_mode: manifest.capture_mode,
        intents_total: entries.len(),
        results_total,
        entries,
        unmatched_results: unmatched,
    })
}

fn add_decision(outcome: &mut Outcome, decision: Decision) {
    let Decision { count, record, .. } = decision;
    outcome.count = Some(count);
    outcome.verdict = Some(record.verdict.as_str());
    outcome.reason_codes = record.reason_codes;
    outcome.violations = record.violations;
    outcome.matched_rule = record.matched_rule;
    outcome.enforced = record.enforced;
    outcome.target = record.target.map(|target| Target {
        kind: target.kind,
        value: target.value,
        operation: target.operation,
        endpoint_class: target.endpoint_class.as_str(),
    });
}

fn text(inspection: &Inspection) -> String {
    let mut text = format!(
        "run inspect: run_id={} capture={} intents={} results={}\n",
        inspection.run_id, inspection.capture_mode, inspection.intents_total, inspection.results_total
    );
    for entry in &inspection.entries {
        let outcome = &entry.outcome;
        let verdict = outcome.verdict.or(outcome.status.as_deref()).unwrap_or("-");
        // Writing to a String cannot fail.
        _ = write!(text, "{:>6}  {verdict:<16} ", entry.index);
        match &outcome.target {
            Some(target) => {
                let value = one_line(&target.value);
                _ = write!(text, "{:<9} {:<8} {value}", target.endpoint_class, target.operation);
            }
            None => _ = write!(text, "{}", one_line(&entry.tool_name)),
        }
        if let Some(count @ 2..) = outcome.count {
            _ = write!(text, "  ×{count}");
        }
        if let Some(rule) = &outcome.matched_rule {
            _ = write!(text, "  rule={}", one_line(rule));
        } else if !outcome.reason_codes.is_empty() {
            _ = write!(text, "  {}", outcome.reason_codes.join(","));
        }
        if outcome.enforced == Some(false) {
            text.push_str("  not enforced");
        }
        text.push('\n');
    }
    if !inspection.unmatched_results.is_empty() {
        _ = writeln!(text, "results without intent: {}", one_line(&inspection.unmatched_results.join(", ")));
    }
    text
}
