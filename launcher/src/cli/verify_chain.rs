//! `gait verify chain`: several artefacts at once, and whether they belong together.

use std::path::PathBuf;

use clap::Args;
use gait_agent::trace::TraceRecord;
use serde::Serialize;
use serde_json::Value;

use super::args::{TraceVerify, VerifyKeyArgs, VerifyProfile};
use super::guard::{self, GuardVerify};
use super::output::{is_empty, one_line};
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
    /// An evidence pack made by `gait guard pack` or `gait incident pack`.
    #[arg(long, value_name = "FILE")]
    pub pack: Option<PathBuf>,
    /// strict demands a signature by a key that is named.
    #[arg(long, value_enum, default_value_t)]
    pub profile: VerifyProfile,
    /// Fail unless runpack and pack are signed by a trusted key.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pack: Option<Value>,
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
    let pack = match &args.pack {
        None => None,
        Some(path) => Some(guard::verify(GuardVerify {
            path: Some(path.clone()),
            path_flag: None,
            profile: args.profile,
            require_signature: args.require_signature,
            key: args.key.clone(),
        })?),
    };
    let holds = |answer: &Answer| answer.failure.is_none();
    let mut chain_errors = Vec::new();
    if let Some((answer, path)) = &trace
        && holds(answer)
        && holds(&run)
    {
        chain_errors.extend(not_of_this_run(&verified, path)?);
    }
    if let Some(answer) = &pack
        && holds(answer)
        && holds(&run)
    {
        chain_errors.extend(pack_of_another_run(&verified, answer));
    }
    let trace = trace.map(|(answer, _)| answer);
    chained(run, trace, pack, chain_errors)
}

/// Makes one answer of those of the parts.
fn chained(
    run: Answer,
    trace: Option<Answer>,
    pack: Option<Answer>,
    chain_errors: Vec<String>,
) -> Result<Answer, CliError> {
    let parts = [("run", Some(&run)), ("trace", trace.as_ref()), ("pack", pack.as_ref())];
    let fails = |answer: &Answer| answer.failure.is_some();
    let mut broken: Vec<&str> =
        parts.iter().filter(|(_, part)| part.is_some_and(fails)).map(|(name, _)| *name).collect();
    broken.extend((!chain_errors.is_empty()).then_some("chain"));
    let mut text: Vec<String> =
        parts.iter().filter_map(|(_, part)| Some(part.as_ref()?.text.trim_end().to_owned())).collect();
    text.extend(chain_errors.iter().map(|error| format!("chain: {error}")));
    text.push(format!("verify chain {}", if broken.is_empty() { "ok" } else { "failed" }));
    let failure = (!broken.is_empty()).then(|| {
        let message = format!("the chain does not hold: {}", broken.join(", "));
        CliError::new(ErrorCode::VerificationFailed, message)
    });
    let report = Report { run: part(run), trace: trace.map(part), pack: pack.map(part), chain_errors };
    let answer = Answer::ok(&report, text.join("\n"))?;
    Ok(match failure {
        None => answer,
        Some(failure) => answer.failed(failure),
    })
}

/// Says that a pack is not about the run.
fn pack_of_another_run(verified: &Verified, pack: &Answer) -> Option<String> {
    let run_id = &verified.report.run_id;
    let named = pack.fields.get("run_id").and_then(Value::as_str).unwrap_or_default();
    (named != run_id)
        .then(|| format!("run_mismatch: the pack is of run {}, the runpack of run {run_id}", one_line(named)))
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
