//! The actions that can do most harm, over many runs and traces (contract §20.4).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::contract::{NamedRun, Weights, contains_any, identifier, tool_class};
use super::evidence::{Attached, EvidenceError, TraceFacts};
use super::observe::{ObserveError, open_sealed};
use super::sensitivity::sensitivity;
use super::session::Decided;
use crate::gate::Verdict;
use crate::runpack::Runpack;
use crate::schema;
use crate::timestamp::Timestamp;

/// More are no top.
pub const MAX_TOP: usize = 20;

/// What in a trace says that much is reached, and that something is.
const WIDE: &[&str] = &["prod", "payment", "finance", "customer", "pii", "ssn", "delete", "drop", "destroy"];
const SOME: &[&str] = &["internal", "staging", "queue"];
/// Reasons that weigh double.
const HEAVY: &[&str] =
    &["violation_", "blocked", "approval", "destructive", "credential", "prompt_injection"];

/// One action, with where it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopAction {
    /// Its place, counted from 1.
    pub rank: usize,
    /// What it weighs.
    pub score: u32,
    /// The contract's class of the tool.
    pub tool_class: &'static str,
    /// How much it reaches, 1 to 3.
    pub blast_radius: u32,
    /// The run; `unknown` for a trace that names none.
    pub run_id: String,
    /// Its number in the run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub intent_id: String,
    /// The digest of its intent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub intent_digest: String,
    /// The decision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// The tool.
    pub tool_name: String,
    /// What was decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// Why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reason_codes: Vec<String>,
    /// `runpack` or `trace`.
    pub source_type: &'static str,
    /// The file.
    pub source_artifact: String,
    /// What a session's action reached; additive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What sorts the actions.
type Key = (Reverse<u32>, Reverse<u32>, Reverse<u32>, [String; 5], &'static str, String);

/// What `gait report top` reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopReport {
    /// `gait.report.top_actions`.
    pub schema_id: &'static str,
    /// `1.0.0`.
    pub schema_version: &'static str,
    /// 1980: the same files give the same bytes.
    pub created_at: Timestamp,
    /// The version of gait.
    pub producer_version: &'static str,
    /// Runs, those of traces included.
    pub run_count: usize,
    /// Trace files.
    pub trace_count: usize,
    /// Actions that were looked at.
    pub action_count: usize,
    /// The first of them.
    pub top_actions: Vec<TopAction>,
}

/// Collects the top actions; memory does not grow with the runs.
#[derive(Debug)]
pub struct TopActions {
    limit: usize,
    runs: BTreeSet<String>,
    traces: usize,
    actions: usize,
    top: BTreeMap<Key, TopAction>,
}

impl TopActions {
    /// Begins; at most [`MAX_TOP`] are kept.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, MAX_TOP);
        Self { limit, runs: BTreeSet::new(), traces: 0, actions: 0, top: BTreeMap::new() }
    }

    fn add(&mut self, mut action: TopAction, weight: u32) {
        self.actions += 1;
        let bonus = match action.verdict.as_str() {
            "block" => 15,
            "require_approval" => 12,
            "error" => 8,
            _ => 0,
        };
        let reason = |code: &String| if contains_any(&code.to_lowercase(), HEAVY) { 2 } else { 1 };
        let reasons: u32 = action.reason_codes.iter().map(reason).sum();
        action.score = weight * 100 + action.blast_radius * 10 + bonus + reasons;
        let names =
            [&action.run_id, &action.intent_id, &action.intent_digest, &action.trace_id, &action.tool_name];
        let key = (
            Reverse(action.score),
            Reverse(weight),
            Reverse(action.blast_radius),
            names.map(Clone::clone),
            action.source_type,
            action.source_artifact.clone(),
        );
        self.top.insert(key, action);
        if self.top.len() > self.limit {
            self.top.pop_last();
        }
    }

    /// Adds the actions of a runpack.
    ///
    /// # Errors
    ///
    /// As [`super::observe()`].
    pub fn add_runpack(&mut self, path: &Path) -> Result<(), ObserveError> {
        let (mut runpack, run_id) = open_sealed(path)?;
        let blank = |tool_name: &str| {
            let (tool_class, weight) = tool_class(tool_name);
            let action = TopAction {
                rank: 0,
                score: 0,
                tool_class,
                blast_radius: 1,
                run_id: run_id.clone(),
                intent_id: String::new(),
                intent_digest: String::new(),
                trace_id: String::new(),
                tool_name: tool_name.to_owned(),
                verdict: String::new(),
                reason_codes: Vec::new(),
                source_type: "runpack",
                source_artifact: path.display().to_string(),
                target: None,
            };
            (action, weight)
        };
        self.runs.insert(run_id.clone());
        if runpack.is_session() {
            return self.add_session(&mut runpack, blank);
        }
        let mut statuses: BTreeMap<String, String> = BTreeMap::new();
        runpack.each_result(|result| {
            statuses.insert(result.intent_id, identifier(&result.status));
        })?;
        let mut reached = NamedRun::default();
        reached.refs(&runpack.refs()?);
        let (facts, _) = reached.finish(&Attached::default());
        let blast_radius = Weights::of_names(&facts, 1).sensitivity;
        runpack.each_intent(|intent| {
            let name = intent.tool_name.trim();
            if name.is_empty() {
                return;
            }
            let (mut action, weight) = blank(name);
            action.blast_radius = blast_radius;
            let status = statuses.get(&intent.intent_id);
            let failed = status.filter(|status| !matches!(status.as_str(), "ok" | "success"));
            action.reason_codes =
                failed.map(|status| format!("result_status_{status}")).into_iter().collect();
            action.intent_id = intent.intent_id;
            self.add(action, weight);
        })?;
        Ok(())
    }

    /// A session knows of each action what was decided and what it reached.
    fn add_session(
        &mut self,
        runpack: &mut Runpack,
        blank: impl Fn(&str) -> (TopAction, u32),
    ) -> Result<(), ObserveError> {
        let mut number = 0;
        runpack.trace_lines(|line| {
            let decided: Decided = serde_json::from_slice(line)?;
            number += 1;
            let (mut action, weight) = blank(&decided.tool_name);
            action.intent_id = crate::trace::intent_id(number);
            action.intent_digest = decided.intent_digest.to_string();
            action.verdict = decided.judged().to_string();
            action.reason_codes = reasons(&action.verdict, &decided.violations);
            if let Some(target) = decided.target {
                action.blast_radius = sensitivity(&target);
                action.target = Some(target.value);
            }
            self.add(action, weight);
            Ok(())
        })?;
        Ok(())
    }

    /// Adds the action of a trace file.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are something else.
    pub fn add_trace(&mut self, bytes: &[u8], source: &Path) -> Result<(), EvidenceError> {
        let trace = TraceFacts::parse(bytes)?;
        self.traces += 1;
        let run_id = trace.run_id().unwrap_or("unknown").to_owned();
        self.runs.insert(run_id.clone());
        let name = trace.tool_name.trim().to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let violations = trace.violations.clone().unwrap_or_default();
        let text = format!("{name} {}", violations.join(" ")).to_lowercase();
        let blast_radius = if contains_any(&text, WIDE) {
            3
        } else if contains_any(&text, SOME) {
            2
        } else {
            1
        };
        let verdict = Some(trace.verdict.trim()).filter(|verdict| !verdict.is_empty()).map(identifier);
        let verdict = verdict.unwrap_or_default();
        let (tool_class, weight) = tool_class(&name);
        let action = TopAction {
            rank: 0,
            score: 0,
            tool_class,
            blast_radius,
            run_id,
            intent_id: String::new(),
            intent_digest: trace.intent_digest.trim().to_lowercase(),
            trace_id: trace.trace_id.trim().to_owned(),
            tool_name: name,
            reason_codes: reasons(&verdict, &violations),
            verdict,
            source_type: "trace",
            source_artifact: source.display().to_string(),
            target: None,
        };
        self.add(action, weight);
        Ok(())
    }

    /// Returns the report; `None` if there was no action at all.
    #[must_use]
    pub fn finish(self) -> Option<TopReport> {
        let ranked = |(at, action): (usize, TopAction)| TopAction { rank: at + 1, ..action };
        (self.actions > 0).then(|| TopReport {
            schema_id: schema::TOP_ACTIONS,
            schema_version: schema::VERSION,
            created_at: Timestamp::UNSET,
            producer_version: schema::PRODUCER_VERSION,
            run_count: self.runs.len(),
            trace_count: self.traces,
            action_count: self.actions,
            top_actions: self.top.into_values().enumerate().map(ranked).collect(),
        })
    }
}

impl TopReport {
    /// Returns the text of the report file: indented, in the contract's order.
    ///
    /// # Errors
    ///
    /// Never for what a report holds.
    pub fn to_file_text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

fn reasons(verdict: &str, violations: &[String]) -> Vec<String> {
    let stopped = Some(verdict).filter(|verdict| !verdict.is_empty() && *verdict != Verdict::Allow.as_str());
    let mut reasons: BTreeSet<String> = stopped.map(|it| format!("trace_verdict_{it}")).into_iter().collect();
    reasons.extend(violations.iter().map(|one| format!("violation_{}", identifier(one))));
    reasons.into_iter().collect()
}
