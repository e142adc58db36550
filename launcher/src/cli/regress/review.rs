//! `gait regress run --policy`: what a policy would have done to recorded runs.

use std::fs;
use std::path::{Path, PathBuf};

use gait_agent::policy::Policy;
use gait_agent::regress::{ExecFixture, Group, Review, RunReview, junit};
use gait_agent::schema;
use serde::Serialize;

use super::replay;
use super::run::write;
use super::suite::{Suite, confined, pretty};
use super::{FailOn, RegressRun, ReviewFormat};
use crate::cli::{Answer, CliError, ErrorCode};
use crate::policy_source::load_policy;

/// How many groups stand on a terminal, in a comment, in JSON.
const SHOWN: usize = 40;
const COMMENTED: usize = 50;
const LISTED: usize = 1000;
/// How many bad runpacks are told at once.
const BAD: usize = 5;

#[derive(Serialize)]
struct Report {
    schema_id: &'static str,
    schema_version: &'static str,
    policy: String,
    policy_digest: String,
    decisions: u64,
    stopped: u64,
    loosened: u64,
    tightened: u64,
    open: u64,
    runs: Vec<RunReview>,
    groups: Vec<Group>,
    groups_left_out: usize,
    artifact_paths: Vec<String>,
}

/// A runpack to be judged again.
struct Subject {
    path: PathBuf,
    exec: Option<ExecFixture>,
}

/// Reviews a policy.
///
/// # Errors
///
/// A bad policy; a runpack that cannot be read, does not hold or has nothing that a policy could judge.
pub(super) fn review(args: &RegressRun, name: &str) -> Result<Answer, CliError> {
    let policy = load_policy(name)?;
    let subjects =
        if args.paths.is_empty() { fixtures(&args.grading.config)? } else { runpacks(&args.paths)? };
    let mut review = Review::default();
    let mut bad: Vec<CliError> = Vec::new();
    for subject in &subjects {
        if let Err(error) = add(&mut review, &policy, subject, args.base_policy.as_deref()) {
            bad.push(error);
        }
    }
    if let Some(error) = all_bad(bad) {
        return Err(error);
    }
    answer(args, name, &policy, &review)
}

/// Returns the fixtures' runpacks.
fn fixtures(config: &Path) -> Result<Vec<Subject>, CliError> {
    let suite = Suite::open(config)?;
    let mut subjects = Vec::new();
    for entry in &suite.config.fixtures {
        let fixture = suite.fixture(entry)?;
        let directory = suite.fixture_directory(&entry.name);
        let shown = directory.join(&fixture.runpack);
        confined(&directory, &fixture.runpack)
            .map_err(|error| CliError::input(format!("read runpack {}", shown.display())).because(error))?;
        subjects.push(Subject { path: shown, exec: fixture.exec });
    }
    Ok(subjects)
}

/// Returns the runpacks that are named, and those in the folders that are, by name.
fn runpacks(paths: &[PathBuf]) -> Result<Vec<Subject>, CliError> {
    let mut subjects = Vec::new();
    for path in paths {
        let failed = |error| CliError::input(format!("read {}", path.display())).because(error);
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            subjects.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip")) {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(CliError::input(format!("{} holds no runpack", path.display()))
                .hint("name runpacks, or folders with runpack_<run_id>.zip in them"));
        }
        found.sort();
        subjects.append(&mut found);
    }
    subjects.sort();
    subjects.dedup();
    Ok(subjects.into_iter().map(|path| Subject { path, exec: None }).collect())
}

fn add(review: &mut Review, policy: &Policy, subject: &Subject, base: Option<&str>) -> Result<(), CliError> {
    replay::holding(&subject.path)?;
    let (session, mut runpack) = replay::session(&subject.path)?;
    let was = replay::was(&session, base)?;
    let judge = replay::judge(policy, was.as_ref(), &session, subject.exec.as_ref())?;
    review.begin(&session, &subject.path.display().to_string());
    judge
        .replay(&session, &mut runpack, |recorded, judgement| {
            review.add(&session, &judge, recorded, judgement)
        })
        .map_err(|error| replay::unreplayable(&subject.path, error))
}

/// Tells of all bad runpacks in one error; its code is that of the first.
fn all_bad(bad: Vec<CliError>) -> Option<CliError> {
    let count = bad.len();
    let told: Vec<String> = bad.iter().take(BAD).map(CliError::text).collect();
    let first = bad.into_iter().next()?;
    if count == 1 {
        return Some(first);
    }
    let more = if count > BAD { format!("; and {} more", count - BAD) } else { String::new() };
    let mut error = CliError::new(first.code, format!("{count} runpacks: {}{more}", told.join("; ")));
    error.hints = first.hints;
    Some(error)
}

fn answer(args: &RegressRun, name: &str, policy: &Policy, review: &Review) -> Result<Answer, CliError> {
    let total = review.total();
    let fails = |run: &RunReview| match args.fail_on {
        FailOn::Stopped => run.stopped > 0,
        FailOn::Loosened => run.loosened > 0,
        FailOn::Changed => run.stopped + run.loosened + run.tightened > 0,
        FailOn::Never => false,
    };
    let mut groups = review.groups();
    let left_out = groups.len().saturating_sub(LISTED);
    groups.truncate(LISTED);
    let mut report = Report {
        schema_id: schema::REGRESS_REVIEW,
        schema_version: schema::VERSION,
        policy: name.to_owned(),
        policy_digest: policy.digest().to_string(),
        decisions: total.decisions,
        stopped: total.stopped,
        loosened: total.loosened,
        tightened: total.tightened,
        open: total.open,
        runs: review.runs(),
        groups,
        groups_left_out: left_out,
        artifact_paths: Vec::new(),
    };
    if let Some(path) = &args.grading.output {
        write(path, &pretty(&report)?)?;
        report.artifact_paths.push(path.display().to_string());
    }
    if let Some(path) = &args.grading.junit {
        write(path, &junit(&review.suite(fails)))?;
        report.artifact_paths.push(path.display().to_string());
    }
    let failed = fails(&total);
    let text = match args.format {
        ReviewFormat::Markdown => review.markdown(name, COMMENTED),
        ReviewFormat::Text => head(&report, failed) + &review.text(SHOWN),
    };
    let answer = Answer::ok(&report, text)?;
    if !failed {
        return Ok(answer);
    }
    let counts =
        format!("stopped={} loosened={} tightened={}", total.stopped, total.loosened, total.tightened);
    let what = if args.fail_on == FailOn::Stopped { "stop what was allowed" } else { "decide otherwise" };
    Ok(answer.failed(
        CliError::new(ErrorCode::RegressFailed, format!("{name} would {what}: {counts}"))
            .hint("`gait why --policy POLICY CLASS OBJECT` names the rule and its place"),
    ))
}

fn head(report: &Report, failed: bool) -> String {
    let word = if failed { "failed" } else { "ok" };
    let Report { policy, decisions, stopped, loosened, tightened, open, .. } = report;
    let mut text = format!(
        "regress review {word}: policy={policy} runs={} decisions={decisions} stopped={stopped} loosened={loosened} tightened={tightened} open={open}\n",
        report.runs.len()
    );
    if !report.artifact_paths.is_empty() {
        text.push_str(&format!("artifacts: {}\n", report.artifact_paths.join(", ")));
    }
    text
}
