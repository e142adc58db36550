//! `gait run diff`: what differs between two runs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gait_agent::runpack::{ChangedDecision, DecisionDiff, Diff, Outcome, Privacy, diff as compare};
use serde::Serialize;

use super::super::output::one_line;
use super::super::verify::check_seals;
use super::super::{Answer, CliError, ErrorCode};
use super::{open, unreadable};
use crate::atomic_file;

/// How many decisions of a kind the text shows; JSON has them all.
const SHOWN_DECISIONS: usize = 20;

/// Arguments of `gait run diff`.
#[derive(Debug, Args)]
pub struct RunDiff {
    /// The run, or the runpack's path.
    #[arg(value_name = "LEFT")]
    pub left: String,
    /// The other one.
    #[arg(value_name = "RIGHT")]
    pub right: String,
    /// metadata looks at no arguments, results and receipts, and names no targets.
    #[arg(long, value_enum, default_value_t)]
    pub privacy: PrivacyArg,
    /// A file for the whole difference, as JSON.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How much a difference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PrivacyArg {
    /// Everything.
    #[default]
    Full,
    /// Names and numbers of records only.
    Metadata,
}

#[derive(Serialize)]
struct Report<'a> {
    privacy: &'static str,
    summary: &'a Diff,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

/// Compares two runs.
///
/// # Errors
///
/// A runpack that is not there, is something else, or was changed since it was sealed; an output that cannot be written.
pub(in super::super) fn diff(args: &RunDiff) -> Result<Answer, CliError> {
    let privacy = match args.privacy {
        PrivacyArg::Full => Privacy::Full,
        PrivacyArg::Metadata => Privacy::Metadata,
    };
    let (left_path, right_path) = check_seals(&args.left, &args.right)?;
    let (mut left, mut right) = (open(&left_path)?, open(&right_path)?);
    let found = compare(&mut left, &mut right, privacy).map_err(|error| {
        // Both were unpacked before, so which one it is hardly matters; the error names the entry.
        unreadable(&left_path, error)
    })?;
    if let Some(path) = &args.output {
        write(path, privacy, &found)?;
    }
    let output = args.output.as_ref().map(|path| path.display().to_string());
    let report = Report { privacy: privacy.as_str(), summary: &found, output };
    let answer = Answer::ok(&report, text(&found, report.output.as_deref()))?;
    if !found.changed() {
        return Ok(answer);
    }
    let message = format!("the runs differ in {}", parts(&found).join(", "));
    let hint = "look at summary; `gait run inspect` shows one run";
    Ok(answer.failed(CliError::new(ErrorCode::VerificationFailed, message).hint(hint)))
}

fn write(path: &std::path::Path, privacy: Privacy, found: &Diff) -> Result<(), CliError> {
    let failed = || CliError::io(format!("write {}", path.display()));
    let report = Report { privacy: privacy.as_str(), summary: found, output: None };
    let mut value = serde_json::to_value(&report).map_err(|error| failed().because(error))?;
    value["ok"] = (!found.changed()).into();
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(|error| failed().because(error))?;
    bytes.push(b'\n');
    atomic_file::write(path, &bytes).map_err(|error| failed().because(error))
}

/// The parts that differ.
fn parts(found: &Diff) -> Vec<&'static str> {
    let all = [
        ("manifest", found.manifest_changed),
        ("files", !found.files_changed.is_empty()),
        ("run", found.run_changed),
        ("intents", found.intents_changed),
        ("results", found.results_changed),
        ("refs", found.refs_changed),
    ];
    all.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

fn text(found: &Diff, output: Option<&str>) -> String {
    let outcome = if found.changed() { "changed" } else { "ok" };
    let mut lines =
        vec![format!("run diff {outcome}: left={} right={}", found.run_id_left, found.run_id_right)];
    if found.changed() {
        lines.push(format!("changed: {}", parts(found).join(", ")));
    }
    match &found.decisions {
        Some(decisions) => decided(decisions, &mut lines),
        None => {
            for (name, ids) in [
                ("left only intents", &found.left_only_intents),
                ("right only intents", &found.right_only_intents),
                ("left only results", &found.left_only_results),
                ("right only results", &found.right_only_results),
            ] {
                if !ids.is_empty() {
                    lines.push(format!("{name}: {}", one_line(&ids.join(", "))));
                }
            }
        }
    }
    if !found.files_changed.is_empty() {
        lines.push(format!("files: {}", one_line(&found.files_changed.join(", "))));
    }
    lines.extend(output.map(|path| format!("output: {}", one_line(path))));
    lines.join("\n")
}

fn decided(decisions: &DecisionDiff, lines: &mut Vec<String>) {
    lines.push(format!(
        "decisions: {} new, {} vanished, {} changed, {} unchanged",
        decisions.new_count, decisions.vanished_count, decisions.changed_count, decisions.unchanged_count
    ));
    if decisions.policy_digest_left != decisions.policy_digest_right {
        lines.push("policy: another one".to_owned());
    }
    for (mark, list) in [("+", &decisions.new), ("-", &decisions.vanished), ("~", &decisions.changed)] {
        lines.extend(list.iter().take(SHOWN_DECISIONS).map(|one| row(mark, one)));
        if list.len() > SHOWN_DECISIONS {
            lines.push(format!("{mark} and {} more", list.len() - SHOWN_DECISIONS));
        }
    }
}

fn row(mark: &str, one: &ChangedDecision) -> String {
    let words = |outcomes: &[Outcome]| -> String {
        outcomes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let verdicts = match (one.left.is_empty(), one.right.is_empty()) {
        (false, false) => format!("{} -> {}", words(&one.left), words(&one.right)),
        (true, _) => words(&one.right),
        (_, true) => words(&one.left),
    };
    let key = &one.key;
    format!(
        "{mark} {:<9} {:<8} {}  {verdicts}",
        key.endpoint_class.as_str(),
        one_line(&key.operation),
        one_line(&key.target)
    )
}
