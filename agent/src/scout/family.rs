//! Families: runs of one fingerprint, ranked by what they can do harm.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::contract::{Weights, level};
use super::driver::{Suggestion, drivers, suggestions};
use super::fingerprint::{Kind, RunFingerprint};
use super::observe::RunObservation;
use crate::schema;
use crate::sign::Digest;
use crate::timestamp::Timestamp;

/// More issues are not at the top.
const TOP_ISSUES: usize = 10;
/// More runs of one family do not raise its score.
const COUNTED_RUNS: usize = 10;

/// The weights of a family of sessions, from endpoint classes and places rather than names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// Of the most privileged class, 1 to 4.
    pub privilege: u32,
    /// Of the most sensitive target, 1 to 3.
    pub sensitivity: u32,
    /// 2 if a policy stopped something.
    pub posture: u32,
    /// The sum by the contract's formula.
    pub score: u32,
    /// Its name.
    pub level: &'static str,
}

/// Runs of one fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Family {
    /// `fam_` and the beginning of the fingerprint.
    pub family_id: String,
    /// The fingerprint.
    pub fingerprint: Digest,
    /// Runs.
    pub count: usize,
    /// Their ids, sorted.
    pub run_ids: Vec<String>,
    /// The first of them.
    pub canonical_run_id: String,
    /// The first of the reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_failure_reason: Option<String>,
    /// What is behind it, sorted.
    pub drivers: Vec<&'static str>,
    /// By the contract's formula.
    pub severity_score: u32,
    /// Its name.
    pub severity_level: &'static str,
    /// The runpacks, sorted.
    pub artifact_pointers: Vec<String>,
    /// What to do.
    pub suggestions: Vec<Suggestion>,
    /// What sessions are ranked by; additive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
}

/// A family among the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields of the family")]
pub struct Issue {
    /// Its place, counted from 1.
    pub rank: usize,
    pub family_id: String,
    pub fingerprint: Digest,
    pub count: usize,
    pub canonical_run_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_failure_reason: Option<String>,
    pub drivers: Vec<&'static str>,
    pub severity_score: u32,
    pub severity_level: &'static str,
    pub suggestions: Vec<Suggestion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
}

/// What `gait scout signal` reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SignalReport {
    /// `gait.scout.signal_report`.
    pub schema_id: &'static str,
    /// `1.0.0`.
    pub schema_version: &'static str,
    /// 1980: the same files give the same bytes.
    pub created_at: Timestamp,
    /// The version of gait.
    pub producer_version: &'static str,
    /// Runs.
    pub run_count: usize,
    /// Families.
    pub family_count: usize,
    /// Of every run, by run and runpack.
    pub fingerprints: Vec<RunFingerprint>,
    /// The most severe first.
    pub families: Vec<Family>,
    /// The first of the families.
    pub top_issues: Vec<Issue>,
}

impl SignalReport {
    /// Groups and ranks runs; their order does not matter.
    #[must_use]
    pub fn build(mut runs: Vec<RunObservation>) -> Self {
        runs.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut groups: BTreeMap<Digest, Vec<&RunObservation>> = BTreeMap::new();
        for run in &runs {
            groups.entry(run.entry.fingerprint).or_default().push(run);
        }
        let mut families: Vec<_> =
            groups.into_iter().map(|(fingerprint, runs)| Family::of(fingerprint, &runs)).collect();
        families
            .sort_by_key(|family| (Reverse(family.rank_score()), Reverse(family.count), family.fingerprint));
        let top_issues =
            families.iter().take(TOP_ISSUES).enumerate().map(|(at, family)| family.issue(at + 1)).collect();
        Self {
            schema_id: schema::SIGNAL_REPORT,
            schema_version: schema::VERSION,
            created_at: Timestamp::UNSET,
            producer_version: schema::PRODUCER_VERSION,
            run_count: runs.len(),
            family_count: families.len(),
            families,
            top_issues,
            fingerprints: runs.into_iter().map(|run| run.entry).collect(),
        }
    }

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

impl Family {
    /// Makes the family of runs that are sorted.
    fn of(fingerprint: Digest, runs: &[&RunObservation]) -> Self {
        let run_ids: BTreeSet<&String> = runs.iter().map(|run| &run.entry.run_id).collect();
        let pointers: BTreeSet<&String> = runs.iter().map(|run| &run.entry.source_runpack).collect();
        let reasons: BTreeSet<String> =
            runs.iter().flat_map(|run| run.entry.facts.reason_code_vector.iter().cloned()).collect();
        let drivers = drivers(&reasons, runs.iter().any(|run| run.stopped));
        // At most ten.
        let more = runs.len().min(COUNTED_RUNS) as u32;
        let severity_score = runs.iter().map(|run| run.severity).max().unwrap_or_default() + more;
        let heaviest = runs.iter().filter_map(|run| run.weights).max_by_key(|weights| weights.score());
        let fixtures = runs.iter().map(|run| &run.fixtures).find(|fixtures| !fixtures.is_empty());
        let digits = fingerprint.to_string();
        Self {
            family_id: format!("fam_{}", &digits[..12]),
            fingerprint,
            count: runs.len(),
            canonical_run_id: run_ids.first().map(|id| (*id).clone()).unwrap_or_default(),
            run_ids: run_ids.into_iter().cloned().collect(),
            top_failure_reason: reasons.first().cloned(),
            suggestions: suggestions(&drivers, fixtures.map_or(&[], Vec::as_slice)),
            drivers,
            severity_score,
            severity_level: level(severity_score),
            artifact_pointers: pointers.into_iter().cloned().collect(),
            risk: heaviest.map(|weights| Risk::of(weights, more)),
        }
    }

    /// Sessions are ranked by what they did, runs that a caller describes by their names.
    fn rank_score(&self) -> u32 {
        self.risk.map_or(self.severity_score, |risk| risk.score)
    }

    fn issue(&self, rank: usize) -> Issue {
        Issue {
            rank,
            family_id: self.family_id.clone(),
            fingerprint: self.fingerprint,
            count: self.count,
            canonical_run_id: self.canonical_run_id.clone(),
            top_failure_reason: self.top_failure_reason.clone(),
            drivers: self.drivers.clone(),
            severity_score: self.severity_score,
            severity_level: self.severity_level,
            suggestions: self.suggestions.clone(),
            risk: self.risk,
        }
    }
}

impl Issue {
    /// Returns the score that the ranking goes by, and its name.
    #[must_use]
    pub fn ranked_by(&self) -> (u32, &'static str) {
        self.risk.map_or((self.severity_score, self.severity_level), |risk| (risk.score, risk.level))
    }
}

impl Risk {
    fn of(weights: Weights, more: u32) -> Self {
        let Weights { privilege, sensitivity, posture, .. } = weights;
        let score = weights.score() + more;
        Self { privilege, sensitivity, posture, score, level: level(score) }
    }
}

impl RunObservation {
    fn order(&self) -> (&str, &str, Kind) {
        (&self.entry.run_id, &self.entry.source_runpack, self.entry.kind)
    }
}
