//! `gait policy fmt`: a policy file with its keys in order and clean line ends; every comment stays.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gait_agent::policy::{Formatted, MAX_POLICY_BYTES, format, shipped};
use serde::Serialize;

use super::output::one_line;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::input;
use crate::policy_source::load_policy;

/// Arguments of `gait policy fmt`.
#[derive(Debug, Args)]
pub struct PolicyFmt {
    /// The policy file.
    pub policy: String,
    /// Replace the file, if it changes.
    #[arg(long)]
    pub write: bool,
    /// Say by the exit code whether the file would change: 2 if it would.
    #[arg(long, conflicts_with = "write")]
    pub check: bool,
}

#[derive(Serialize)]
struct Report {
    path: String,
    written: bool,
    changed: bool,
    policy_digest: String,
    default_verdict: &'static str,
    rule_count: usize,
    formatted: String,
}

/// Lays a policy out.
///
/// # Errors
///
/// A policy that is not valid, a file that cannot be written; with `--check`, a file that would change.
pub(super) fn fmt(args: &PolicyFmt) -> Result<Answer, CliError> {
    // Only what is valid is touched: a mistake is easier to find where it was written.
    let policy = load_policy(&args.policy)?;
    let path = Path::new(&args.policy);
    let text = match shipped(&args.policy) {
        Some(_) if args.write => {
            return Err(CliError::input(format!("{} is shipped and has no file", args.policy))
                .hint("write it with `gait policy init` first"));
        }
        Some(text) => text.to_owned(),
        None => input::read_text("policy", path, MAX_POLICY_BYTES as u64)?,
    };
    let Formatted { text: formatted, left } =
        format(&text).map_err(|error| CliError::input(format!("policy {}", args.policy)).because(error))?;
    let changed = formatted != text;
    if changed && args.write {
        replace(path, &formatted)
            .map_err(|error| CliError::io(format!("write {}", args.policy)).because(error))?;
    }
    let report = Report {
        path: args.policy.clone(),
        written: changed && args.write,
        changed,
        policy_digest: policy.digest().to_string(),
        default_verdict: policy.default_verdict().as_str(),
        rule_count: policy.rules().len(),
        formatted,
    };
    let warnings = left
        .into_iter()
        .map(|what| format!("{what} left as they are: changed, the policy would mean something else"));
    let answer = Answer::ok(&report, shown(args, &report))?.warn(warnings);
    Ok(if changed && args.check {
        let message = format!("{} is not laid out as `gait policy fmt` does", args.policy);
        let hint = format!("run `gait policy fmt {} --write`", args.policy);
        answer.failed(CliError::new(ErrorCode::VerificationFailed, message).hint(hint))
    } else {
        answer
    })
}

/// Without `--write` and `--check` the policy itself is the answer.
fn shown(args: &PolicyFmt, report: &Report) -> String {
    if !args.write && !args.check {
        return report.formatted.clone();
    }
    if report.changed && args.check {
        return String::new();
    }
    let Report { path, changed, written, rule_count, .. } = report;
    format!("policy fmt ok: path={} changed={changed} written={written} rules={rule_count}", one_line(path))
}

/// Replaces a file that belongs to a person: links are followed, and the mode stays.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let place: PathBuf = fs::canonicalize(path)?;
    let permissions = place.metadata()?.permissions();
    Staged::write(&place, text.as_bytes())?.commit(Existing::Replace)?;
    fs::set_permissions(&place, permissions)
}
