//! `gait policy simulate`: what a changed policy would say of intents that are known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use gait_agent::gate::{GateOutcome, Verdict, evaluate};
use serde::Serialize;

use super::gate::read_intent;
use super::output::one_line;
use super::{Answer, CliError};
use crate::policy_source::load_policy;

/// Directories in each other, before it is a mistake.
const MAX_DEPTH: usize = 16;
/// How many changes the text shows; JSON has them all.
const SHOWN_CHANGES: usize = 20;

/// Flags of `gait policy simulate`.
#[derive(Debug, Args)]
pub struct PolicySimulate {
    /// The policy that might come: a file, or the name of a shipped one.
    #[arg(long, value_name = "POLICY")]
    pub policy: String,
    /// The policy as it is.
    #[arg(long, value_name = "POLICY")]
    pub baseline: String,
    /// Files of intents, and directories of such files (*.json).
    #[arg(long, value_name = "PATH,…", value_delimiter = ',', required = true)]
    pub fixtures: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    baseline_policy_digest: String,
    candidate_policy_digest: String,
    fixtures_total: usize,
    changed_fixtures: usize,
    baseline_verdicts: Vec<VerdictCount>,
    candidate_verdicts: Vec<VerdictCount>,
    recommendation: &'static str,
    summary: String,
    changed: Vec<Change>,
}

#[derive(Serialize)]
struct VerdictCount {
    verdict: &'static str,
    count: usize,
}

/// A fixture of which the two policies say different things.
#[derive(Serialize)]
struct Change {
    fixture_path: String,
    intent_digest: String,
    baseline_verdict: Verdict,
    candidate_verdict: Verdict,
    baseline_reason_codes: Vec<String>,
    candidate_reason_codes: Vec<String>,
    baseline_violations: Vec<String>,
    candidate_violations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_matched_rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_matched_rule: Option<String>,
    changed: bool,
}

/// Judges every fixture by both policies.
///
/// # Errors
///
/// A bad policy, a fixture that is no intent, no fixtures at all.
pub(super) fn simulate(args: &PolicySimulate) -> Result<Answer, CliError> {
    let paths = fixtures(&args.fixtures)?;
    let (candidate, baseline) = (load_policy(&args.policy)?, load_policy(&args.baseline)?);
    let mut verdicts = [BTreeMap::new(), BTreeMap::new()];
    let mut changed = Vec::new();
    for path in &paths {
        let intent = read_intent(path)?;
        let outcomes = [evaluate(&baseline, &intent), evaluate(&candidate, &intent)];
        for (counts, outcome) in verdicts.iter_mut().zip(&outcomes) {
            *counts.entry(outcome.verdict.as_str()).or_insert(0) += 1;
        }
        changed.extend(change(path, intent.intent_digest().to_string(), outcomes));
    }
    let recommendation = recommendation(&changed);
    let summary = format!(
        "policy simulate fixtures={} changed={} recommendation={recommendation}",
        paths.len(),
        changed.len()
    );
    let counted = |counts: &BTreeMap<&'static str, usize>| {
        counts.iter().map(|(&verdict, &count)| VerdictCount { verdict, count }).collect()
    };
    let report = Report {
        baseline_policy_digest: baseline.digest().to_string(),
        candidate_policy_digest: candidate.digest().to_string(),
        fixtures_total: paths.len(),
        changed_fixtures: changed.len(),
        baseline_verdicts: counted(&verdicts[0]),
        candidate_verdicts: counted(&verdicts[1]),
        recommendation,
        summary,
        changed,
    };
    Answer::ok(&report, text(&report))
}

fn change(path: &Path, intent_digest: String, [baseline, candidate]: [GateOutcome; 2]) -> Option<Change> {
    let said = |outcome: &GateOutcome| {
        let GateOutcome { verdict, matched_rule, reason_codes, violations, .. } = outcome;
        (*verdict, matched_rule.clone(), reason_codes.clone(), violations.clone())
    };
    (said(&baseline) != said(&candidate)).then(|| Change {
        fixture_path: path.display().to_string(),
        intent_digest,
        baseline_verdict: baseline.verdict,
        candidate_verdict: candidate.verdict,
        baseline_reason_codes: baseline.reason_codes,
        candidate_reason_codes: candidate.reason_codes,
        baseline_violations: baseline.violations,
        candidate_violations: candidate.violations,
        baseline_matched_rule: baseline.matched_rule,
        candidate_matched_rule: candidate.matched_rule,
        changed: true,
    })
}

/// How to roll the candidate out: what becomes allowed is to be observed first, what becomes blocked to be asked about.
fn recommendation(changed: &[Change]) -> &'static str {
    let becomes = |verdict: Verdict| {
        let fits = |one: &Change| one.baseline_verdict != verdict && one.candidate_verdict == verdict;
        changed.iter().any(fits)
    };
    if becomes(Verdict::Allow) {
        "observe"
    } else if becomes(Verdict::Block) {
        "require_approval"
    } else {
        "enforce"
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![report.summary.clone()];
    let rule = |rule: &Option<String>| {
        rule.as_deref().map_or_else(|| "no rule".to_owned(), |it| one_line(it).into_owned())
    };
    for one in report.changed.iter().take(SHOWN_CHANGES) {
        lines.push(format!(
            "changed: {} {} ({}) -> {} ({})",
            one_line(&one.fixture_path),
            one.baseline_verdict,
            rule(&one.baseline_matched_rule),
            one.candidate_verdict,
            rule(&one.candidate_matched_rule),
        ));
    }
    if report.changed.len() > SHOWN_CHANGES {
        lines.push(format!("and {} more", report.changed.len() - SHOWN_CHANGES));
    }
    lines.join("\n")
}

/// Finds the fixtures, each once, sorted.
fn fixtures(named: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut found = BTreeSet::new();
    for path in named.iter().filter(|path| !path.as_os_str().is_empty()) {
        let failed = |error| CliError::input(format!("read fixtures {}", path.display())).because(error);
        if path.metadata().map_err(failed)?.is_dir() {
            walk(path, MAX_DEPTH, &mut found).map_err(failed)?;
        } else {
            found.insert(path.components().filter(|one| *one != Component::CurDir).collect());
        }
    }
    if found.is_empty() {
        return Err(CliError::input("no intents among the fixtures")
            .hint("name *.json files, or directories of them"));
    }
    Ok(found.into_iter().collect())
}

fn walk(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        // Links are not followed: they could lead round in circles.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let deeper = depth
                .checked_sub(1)
                .ok_or_else(|| std::io::Error::other("too many directories in each other"))?;
            walk(&path, deeper, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json")) {
            found.insert(path.components().filter(|one| *one != Component::CurDir).collect());
        }
    }
    Ok(())
}
