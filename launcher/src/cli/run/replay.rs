//! `gait run replay`: goes through a run again without doing anything.
//!
//! Described runs are answered with what was recorded and stand-ins; sessions can be judged anew ([`super::rejudge`]).

use std::env;

use clap::Args;
use gait_agent::runpack::{ReplayStep, replay as replay_stubs};
use serde::Serialize;

use super::super::args::RunFrom;
use super::super::output::one_line;
use super::super::{Answer, CliError, ErrorCode};
use super::rejudge::rejudge;
use super::{holding, open, unreadable};

/// How many steps the text shows; JSON has them all.
const SHOWN_STEPS: usize = 100;

/// Arguments of `gait run replay`.
#[derive(Debug, Args)]
pub struct RunReplay {
    #[command(flatten)]
    pub run: RunFrom,
    /// Judge the recorded actions of a session again by this policy: a file, or the name of a shipped one.
    #[arg(long, value_name = "POLICY", conflicts_with = "real_tools")]
    pub policy: Option<String>,
    /// Ask for the tools themselves instead of stand-ins; needs the three interlocks below.
    #[arg(long)]
    pub real_tools: bool,
    /// Say that this is meant.
    #[arg(long)]
    pub unsafe_real_tools: bool,
    /// Which tools.
    #[arg(long, value_name = "TOOL,…", value_delimiter = ',')]
    pub allow_tools: Vec<String>,
    /// The environment variable that has to be 1.
    #[arg(long, value_name = "NAME", default_value = "GAIT_ALLOW_REAL_REPLAY")]
    pub unsafe_real_tools_env: String,
}

#[derive(Serialize)]
struct Report {
    run_id: String,
    mode: &'static str,
    steps: Vec<ReplayStep>,
    missing_results: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    requested_unsafe: bool,
}

/// Replays a run.
///
/// # Errors
///
/// Real tools without their interlocks; a bad policy; a runpack that is not there, is something else, or does not hold.
pub(in super::super) fn replay(args: &RunReplay) -> Result<Answer, CliError> {
    if let Some(policy) = &args.policy {
        return rejudge(&args.run, policy);
    }
    interlocks(args)?;
    let verified = holding(&args.run)?;
    let mut runpack = open(&verified.path)?;
    let read = |error| unreadable(&verified.path, error);
    let (intents, results) = (runpack.intents().map_err(read)?, runpack.results().map_err(read)?);
    let run_id = verified.report.run_id;
    let replayed = replay_stubs(&run_id, &intents, &results);
    let report = Report {
        run_id,
        mode: "stub",
        steps: replayed.steps,
        missing_results: replayed.missing_results,
        requested_unsafe: args.real_tools,
    };
    let text = text(&report);
    let mut answer = Answer::ok(&report, text)?;
    if args.real_tools {
        let warning = "real tools are not run: gait replays with recorded results and stand-ins; \
                       `gait exec` runs a command again under the policy";
        answer = answer.warn([warning.to_owned()]);
    }
    if report.missing_results.is_empty() {
        return Ok(answer);
    }
    let message = format!("results are missing: {}", report.missing_results.join(", "));
    let failure = CliError::new(ErrorCode::VerificationFailed, message)
        .hint("record the results, or reduce the run with `gait run reduce`");
    Ok(answer.failed(failure))
}

/// Real tools need all three: a second flag, a list, and a variable.
fn interlocks(args: &RunReplay) -> Result<(), CliError> {
    if !args.real_tools {
        return Ok(());
    }
    let unsafe_operation = |message: String| Err(CliError::new(ErrorCode::UnsafeOperation, message));
    if !args.unsafe_real_tools {
        return unsafe_operation("--real-tools needs --unsafe-real-tools".to_owned());
    }
    if args.allow_tools.iter().all(|tool| tool.trim().is_empty()) {
        return unsafe_operation("--real-tools needs --allow-tools with at least one tool".to_owned());
    }
    let name = &args.unsafe_real_tools_env;
    if name.is_empty() || name.contains(['=', '\0']) || env::var_os(name).is_none_or(|value| value != "1") {
        return unsafe_operation(format!("--real-tools needs {name}=1 in the environment"));
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let outcome = if report.missing_results.is_empty() { "ok" } else { "failed" };
    let mut lines = vec![format!(
        "run replay {outcome}: run_id={} mode={} steps={} missing_results={}",
        report.run_id,
        report.mode,
        report.steps.len(),
        report.missing_results.len()
    )];
    for step in report.steps.iter().take(SHOWN_STEPS) {
        let stub = step.stub_type.map(|stub| format!(" ({})", stub.as_str())).unwrap_or_default();
        lines.push(format!("  {:<10} {}{stub}", one_line(&step.status), one_line(&step.tool_name)));
    }
    if report.steps.len() > SHOWN_STEPS {
        lines.push(format!("  and {} more", report.steps.len() - SHOWN_STEPS));
    }
    lines.join("\n")
}
