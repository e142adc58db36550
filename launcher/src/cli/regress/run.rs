//! `gait regress run` and `bootstrap`: every grader of every fixture, in one result.

use std::path::Path;
use std::time::Duration;

use gait_agent::regress::{RegressResult, Status, junit};
use gait_agent::timestamp::Timestamp;
use serde::Serialize;

use super::grade::{Graded, grade};
use super::init::{Made, make};
use super::live::LiveOptions;
use super::suite::{CONFIG, Suite, pretty};
use super::{GradingArgs, RegressBootstrap};
use crate::atomic_file;
use crate::cli::{Answer, CliError, ErrorCode};

/// Where the result goes by default.
const OUTPUT: &str = "regress_result.json";

/// The answer; keys of the contract.
#[derive(Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixture_set: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graders: Option<usize>,
    failed: usize,
    top_failure_reason: Option<String>,
    next_command: Option<String>,
    artifact_paths: Vec<String>,
    output: String,
    junit: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
    #[serde(flatten)]
    made: Option<Made>,
}

/// Grades all fixtures.
///
/// # Errors
///
/// A suite or policy that cannot be used, files that cannot be written. A failed grader is an answer.
pub(super) fn run(args: &GradingArgs) -> Result<Answer, CliError> {
    finish(args, None, "regress run")
}

/// Makes a fixture, then grades all.
///
/// # Errors
///
/// As [`make`] and [`run`].
pub(super) fn bootstrap(args: &RegressBootstrap) -> Result<Answer, CliError> {
    let made = make(&args.fixture, &args.grading.config)?;
    finish(&args.grading, Some(made), "regress bootstrap")
}

fn finish(args: &GradingArgs, mut made: Option<Made>, verb: &str) -> Result<Answer, CliError> {
    let suite = Suite::open(&args.config)?;
    let (result, all) = graded(args, &suite)?;
    let output = args.output.clone().unwrap_or_else(|| OUTPUT.into());
    write(&output, &pretty(&result)?)?;
    let mut artifacts = vec![output.display().to_string()];
    if let Some(path) = &args.junit {
        write(path, &junit(&result.suite()))?;
        artifacts.push(path.display().to_string());
    }
    let failed = result.failed();
    let fails = result.status == Status::Fail;
    let mut warnings = all.warnings;
    if let Some(made) = &mut made {
        warnings.splice(0..0, std::mem::take(&mut made.warnings));
    }
    let bootstrapped = made.is_some();
    let report = Report {
        status: result.status.as_str(),
        fixture_set: (!bootstrapped).then(|| result.fixture_set.clone()),
        graders: (!bootstrapped).then_some(result.graders.len()),
        failed,
        top_failure_reason: result.top_failure_reason().map(str::to_owned),
        next_command: fails.then(|| next_command(args)),
        output: artifacts[0].clone(),
        junit: artifacts.get(1).cloned(),
        artifact_paths: artifacts,
        failures: all.lines,
        made,
    };
    let answer = Answer::ok(&report, text(verb, &report, &result))?.warn(warnings);
    Ok(if fails {
        let message = format!("{failed} of {} graders failed", result.graders.len());
        answer.failed(CliError::new(ErrorCode::RegressFailed, message).hint(next_command(args)))
    } else {
        answer
    })
}

fn graded(args: &GradingArgs, suite: &Suite) -> Result<(RegressResult, Graded), CliError> {
    if suite.config.fixtures.is_empty() {
        return Err(CliError::input(format!("{} names no fixture", suite.path.display()))
            .hint("`gait regress init --from RUN` adds one"));
    }
    let live = args.live.then(|| LiveOptions {
        workspace: args.workspace.as_deref(),
        out_dir: &args.out_dir,
        timeout: Duration::from_secs(args.timeout),
    });
    let mut all = Graded::default();
    for entry in &suite.config.fixtures {
        let one = grade(suite, entry, live.as_ref())?;
        all.created_at = all.created_at.or(one.created_at);
        all.graders.extend(one.graders);
        all.lines.extend(one.lines);
        all.warnings.extend(one.warnings);
    }
    let created_at = all.created_at.unwrap_or(Timestamp::UNSET);
    let graders = std::mem::take(&mut all.graders);
    Ok((RegressResult::new(created_at, &suite.config.fixture_set, graders), all))
}

fn next_command(args: &GradingArgs) -> String {
    let config = args.config.display().to_string();
    if config == CONFIG {
        "gait regress run --json".to_owned()
    } else {
        format!("gait regress run --config {config} --json")
    }
}

fn text(verb: &str, report: &Report, result: &RegressResult) -> String {
    let (set, graders) = (&result.fixture_set, result.graders.len());
    let made =
        report.made.as_ref().map_or_else(String::new, |made| format!(" fixture={}", made.fixture_name));
    let Some(reason) = &report.top_failure_reason else {
        return format!("{verb} ok:{made} fixture_set={set} graders={graders}\noutput: {}", report.output);
    };
    let mut lines = vec![
        format!("{verb} failed:{made} fixture_set={set} failed={}", report.failed),
        format!("top_failure_reason: {reason}"),
        format!("next: {}", report.next_command.as_deref().unwrap_or_default()),
        format!("artifacts: {}", report.artifact_paths.join(", ")),
        format!("output: {}", report.output),
    ];
    lines.extend(report.failures.iter().cloned());
    lines.join("\n")
}

/// Writes an artefact whole.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    atomic_file::write(path, text.as_bytes())
        .map_err(|error| CliError::io(format!("write {}", path.display())).because(error))
}
