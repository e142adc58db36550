//! `gait run reduce`: the smallest run that still fails.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gait_agent::runpack::{Payloads, Predicate, ReduceReport, reduce as reduced};
use serde::Serialize;

use super::super::args::RunFrom;
use super::super::{Answer, CliError, ErrorCode};
use super::{holding, open, unreadable, write_failed};
use crate::atomic_file::{Existing, Staged};
use crate::described_run;
use crate::run_id::{OUTPUT_DIRECTORY, now};

/// Arguments of `gait run reduce`.
#[derive(Debug, Args)]
pub struct RunReduce {
    #[command(flatten)]
    pub run: RunFrom,
    /// What makes an intent worth keeping.
    #[arg(long, value_enum, default_value_t)]
    pub predicate: PredicateArg,
    /// Where the reduced runpack goes [default: `gait-out/runpack_RUN_ID_reduced_PREDICATE.zip`].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the report goes [default: `OUT.reduce_report.json`].
    #[arg(long, value_name = "FILE")]
    pub report_out: Option<PathBuf>,
}

/// What makes an intent worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum PredicateArg {
    /// It has no result.
    #[default]
    MissingResult,
    /// Its result is something else than ok.
    NonOkStatus,
}

#[derive(Serialize)]
struct Report<'a> {
    run_id: &'a str,
    reduced_run_id: &'a str,
    output: String,
    report: &'a ReduceReport,
    report_path: String,
    predicate: &'static str,
    selected_intent_id: &'a str,
    still_failing: bool,
    manifest_digest: String,
}

/// Reduces a run.
///
/// # Errors
///
/// A runpack that does not hold, a predicate that holds of no intent, places that cannot be written.
pub(in super::super) fn reduce(args: &RunReduce) -> Result<Answer, CliError> {
    let predicate = match args.predicate {
        PredicateArg::MissingResult => Predicate::MissingResult,
        PredicateArg::NonOkStatus => Predicate::NonOkStatus,
    };
    let verified = holding(&args.run)?;
    let record = open(&verified.path)?.record().map_err(|error| unreadable(&verified.path, error))?;
    let Some(reduction) = reduced(&record, predicate) else {
        let message = format!("no intent of {} has {}", verified.report.run_id, predicate.as_str());
        return Err(CliError::input(message).hint("try another --predicate, or `gait run inspect`"));
    };
    let wrong = |error| CliError::input(format!("reduce {}", verified.path.display())).because(error);
    let complete = reduction.record.complete(now(), Payloads::Strip).map_err(wrong)?;
    // What is written is what has to fail still.
    if !reduction.report.still_failing || predicate.first(&complete).is_none() {
        return Err(CliError::new(ErrorCode::InternalFailure, "the reduced run does not fail any more"));
    }
    let place = args.out.clone().unwrap_or_else(|| default_place(&verified.report.run_id, predicate));
    let report_place = args.report_out.clone().unwrap_or_else(|| beside(&place));
    if place == report_place {
        return Err(CliError::input(format!("--out and --report-out are both {}", place.display())));
    }
    let staged = stage_report(&report_place, &reduction.report)?;
    let (sealed, _) =
        described_run::write(&complete, None, &place).map_err(|error| write_failed(&place, error))?;
    staged
        .commit(Existing::Replace)
        .map_err(|error| CliError::io(format!("write {}", report_place.display())).because(error))?;
    let report = &reduction.report;
    let answer = Report {
        run_id: &report.run_id,
        reduced_run_id: &report.reduced_run_id,
        output: place.display().to_string(),
        report_path: report_place.display().to_string(),
        predicate: report.predicate,
        selected_intent_id: &report.selected_intent_id,
        still_failing: report.still_failing,
        manifest_digest: sealed.manifest_digest.to_string(),
        report,
    };
    let text = format!(
        "run reduce ok: run_id={} reduced_run_id={} predicate={} intent={}\noutput: {}\nreport: {}",
        answer.run_id,
        answer.reduced_run_id,
        answer.predicate,
        answer.selected_intent_id,
        answer.output,
        answer.report_path
    );
    Answer::ok(&answer, text)
}

fn default_place(run_id: &str, predicate: Predicate) -> PathBuf {
    Path::new(OUTPUT_DIRECTORY).join(format!("runpack_{run_id}_reduced_{}.zip", predicate.as_str()))
}

fn beside(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".reduce_report.json");
    name.into()
}

fn stage_report(place: &Path, report: &ReduceReport) -> Result<Staged, CliError> {
    let failed = || CliError::io(format!("write {}", place.display()));
    let mut text = serde_json::to_vec_pretty(report).map_err(|error| failed().because(error))?;
    text.push(b'\n');
    Staged::write(place, &text).map_err(|error| failed().because(error))
}
