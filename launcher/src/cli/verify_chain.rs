//! `gait verify chain`: several artefacts at once, and whether they belong together.

use std::path::PathBuf;

use clap::Args;
use gait_agent::trace::TraceRecord;
use serde::Serialize;
use serde_json::Value;

use super::args::{TraceVerify, VerifyKeyArgs, VerifyProfile};
use super::output::is_empty;
use super::run::{open, unreadable};
use super::verify::{self, Verified};
use super::{Answer, CliError, ErrorCode, trace};
use crate::input;

/// Arguments of `gait verify chain`.
#[derive(Debug, Args)]
pub struct VerifyChain {
    /// The run, or the runpack's path.
    #[arg(long, value_name = "RUN_ID|PATH")]
    pub run: String,
    /// A trace file; needs a key.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// strict demands a signature by a key that is named.
    #[arg(long, value_enum, default_value_t)]
    pub profile: VerifyProfile,
    /// Fail unless the runpack is signed by a trusted key.
    #[arg(long)]
    pub require_signature: bool,
    #[command(flatten)]
    pub key: VerifyKeyArgs,
}

#[derive(Serialize)]
struct Report {
    run: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Value>,
    chain_errors: Vec<String>,
}

/// Verifies a runpack and what comes with it.
///
/// # Errors
///
/// As `gait verify` and `gait trace verify`.
pub(super) fn chain(args: &VerifyChain) -> Result<Answer, CliError> {
    let required = (args.profile == VerifyProfile::Strict, args.require_signature);
    let (verified, run) = verify::single(&args.run, required, args.key.clone())?;
    let trace = match &args.trace {
        None => None,
        Some(path) => {
            let answer = trace::verify(TraceVerify {
                path: Some(path.clone()),
                path_flag: None,
                key: args.key.clone(),
            })?;
            Some((answer, path))
        }
    };
    let mut chain_errors = Vec::new();
    if let Some((answer, path)) = &trace
        && answer.failure.is_none()
        && run.failure.is_none()
    {
        chain_errors.extend(not_of_this_run(&verified, path)?);
    }
    let mut broken: Vec<&str> = Vec::new();
    broken.extend(run.failure.is_some().then_some("run"));
    broken.extend(trace.as_ref().is_some_and(|(answer, _)| answer.failure.is_some()).then_some("trace"));
    broken.extend((!chain_errors.is_empty()).then_some("chain"));
    let mut text = vec![run.text.trim_end().to_owned()];
    text.extend(trace.as_ref().map(|(answer, _)| answer.text.clone()));
    text.extend(chain_errors.iter().map(|error| format!("chain: {error}")));
    text.push(format!("verify chain {}", if broken.is_empty() { "ok" } else { "failed" }));
    let message = format!("the chain does not hold: {}", broken.join(", "));
    let report = Report { run: part(run), trace: trace.map(|(answer, _)| part(answer)), chain_errors };
    let answer = Answer::ok(&report, text.join("\n"))?;
    Ok(match broken.is_empty() {
        true => answer,
        false => answer.failed(CliError::new(ErrorCode::VerificationFailed, message)),
    })
}

/// The answer of the single command, as it would stand in its own JSON.
fn part(answer: Answer) -> Value {
    let Answer { mut fields, failure, .. } = answer;
    fields.retain(|_, value| !is_empty(value));
    fields.insert("ok".to_owned(), failure.is_none().into());
    if let Some(error) = failure {
        fields.insert("error".to_owned(), error.text().into());
    }
    Value::Object(fields)
}

/// Says why a trace is none of the run's, if it says of which run it is; traces of `gait gate eval` do not.
fn not_of_this_run(verified: &Verified, path: &std::path::Path) -> Result<Option<String>, CliError> {
    let bytes = input::read("trace", path, trace::TRACE_BYTES)?;
    let trace: TraceRecord = serde_json::from_slice(&bytes)
        .map_err(|error| CliError::input(format!("trace {}", path.display())).because(error))?;
    let run_id = &verified.report.run_id;
    match &trace.run_id {
        None => return Ok(None),
        Some(named) if named != run_id => {
            return Ok(Some(format!(
                "run_mismatch: the trace is of run {named}, the runpack of run {run_id}"
            )));
        }
        Some(_) => {}
    }
    let mut runpack = open(&verified.path)?;
    let mut found = false;
    if runpack.is_session() {
        let same = |record: TraceRecord| found |= record == trace;
        runpack.traces(same).map_err(|error| unreadable(&verified.path, error))?;
    }
    Ok((!found).then(|| format!("trace_unknown: run {run_id} has no trace {}", trace.trace_id)))
}
