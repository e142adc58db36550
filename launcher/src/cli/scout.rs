//! `gait scout signal`: what many runs have in common, ranked.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use clap::{Args, Subcommand};
use gait_agent::scout::{ObserveError, SideEvidence, SignalReport, observe_all};
use serde::Serialize;

use super::output::one_line;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::input;
use crate::run_id::find_runpack;

/// A trace or a regression result is a document that a tool hands in.
pub(super) const EVIDENCE_BYTES: u64 = 8 << 20;
/// How many of the inputs that cannot be used are named.
const NAMED_FAILURES: usize = 5;

/// `gait scout …`.
#[derive(Debug, Subcommand)]
pub enum ScoutCommand {
    /// Says how two inventories differ; exit 2 if they do.
    Diff(super::inventory::ScoutDiff),
    /// Groups runs into families of one cause, ranks them, and says what to do next.
    Signal(ScoutSignal),
    /// Takes an inventory of the tools that sources define and of the tool servers that configurations name.
    Snapshot(super::inventory::ScoutSnapshot),
}

/// Arguments of `gait scout signal`.
#[derive(Debug, Args)]
pub struct ScoutSignal {
    /// Runs, paths of runpacks, and directories of runpacks.
    #[arg(value_name = "RUN_ID|PATH", required_unless_present = "runs")]
    pub named: Vec<String>,
    /// The same, as a flag.
    #[arg(long, value_name = "RUN_ID|PATH,…", value_delimiter = ',')]
    pub runs: Vec<String>,
    /// Trace files; each counts for the run that it names.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub traces: Vec<PathBuf>,
    /// Regression results; failing graders count for their run.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub regress: Vec<PathBuf>,
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = "./gait-out/scout_signal_report.json")]
    pub out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    output_path: String,
    run_count: usize,
    family_count: usize,
    top_issues: usize,
    report: SignalReport,
}

/// Reads the runs and writes the report.
///
/// # Errors
///
/// Inputs that are not there, are something else or do not hold; a report that cannot be written.
pub(super) fn signal(args: &ScoutSignal) -> Result<Answer, CliError> {
    let paths = runpacks(args.named.iter().chain(&args.runs))?;
    let side = side_evidence(&args.traces, &args.regress)?;
    let runs = all_or_none(&paths, observe_all(&paths, &side))?;
    let report = SignalReport::build(runs);
    let text = report
        .to_file_text()
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "write the report").because(error))?;
    let output_path = args.out.display().to_string();
    Staged::write(&args.out, text.as_bytes())
        .and_then(|staged| staged.commit(Existing::Replace))
        .map_err(|error| CliError::io(format!("write {output_path}")).because(error))?;
    let text = summary(&report, &output_path);
    let report = Report {
        output_path,
        run_count: report.run_count,
        family_count: report.family_count,
        top_issues: report.top_issues.len(),
        report,
    };
    Answer::ok(&report, text)
}

fn summary(report: &SignalReport, output_path: &str) -> String {
    let top = report.top_issues.len();
    let mut lines = vec![
        format!(
            "scout signal ok: runs={} families={} top_issues={top}",
            report.run_count, report.family_count
        ),
        format!("output: {}", one_line(output_path)),
    ];
    for issue in &report.top_issues {
        let (_, severity) = issue.ranked_by();
        let (score, reason) = (issue.ranked_by().0, issue.top_failure_reason.as_deref().unwrap_or("none"));
        lines.push(format!(
            "top_issue: family={} severity={severity} score={score} reason={} count={} run={}",
            issue.family_id,
            one_line(reason),
            issue.count,
            one_line(&issue.canonical_run_id),
        ));
    }
    lines.join("\n")
}

/// Finds the named runpacks, each once; a directory stands for the runpacks in it.
pub(super) fn runpacks<'a>(names: impl Iterator<Item = &'a String>) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = BTreeSet::new();
    for name in names.map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let directory = Path::new(name);
        if directory.is_dir() {
            let found = runpacks_in(directory)
                .map_err(|error| CliError::input(format!("read directory {name}")).because(error))?;
            if found.is_empty() {
                return Err(CliError::input(format!("no runpack_*.zip in {name}")));
            }
            paths.extend(found);
        } else {
            paths.insert(find_runpack(name)?);
        }
    }
    // `./a.zip` and `a.zip` are one file, and one spelling of it goes into the report.
    let plain = |path: &PathBuf| path.components().filter(|one| *one != Component::CurDir).collect();
    let paths: BTreeSet<PathBuf> = paths.iter().map(plain).collect();
    if paths.is_empty() {
        return Err(CliError::input("no run is named").hint("give --runs with run ids or paths"));
    }
    Ok(paths.into_iter().collect())
}

fn runpacks_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("runpack_") && name.ends_with(".zip") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Reads traces and regression results.
fn side_evidence(traces: &[PathBuf], regress: &[PathBuf]) -> Result<SideEvidence, CliError> {
    let mut side = SideEvidence::default();
    // Each file once, as each runpack.
    for path in traces.iter().collect::<BTreeSet<_>>() {
        let bytes = input::read("trace", path, EVIDENCE_BYTES)?;
        side.add_trace(&bytes)
            .map_err(|error| CliError::input(format!("trace {}", path.display())).because(error))?;
    }
    for path in regress.iter().collect::<BTreeSet<_>>() {
        let bytes = input::read("regress result", path, EVIDENCE_BYTES)?;
        side.add_regress(&bytes)
            .map_err(|error| CliError::input(format!("regress result {}", path.display())).because(error))?;
    }
    Ok(side)
}

/// A report over some of the runs would be taken for one over all, so one bad input fails it; all are named.
pub(super) fn all_or_none<T>(
    paths: &[PathBuf],
    results: Vec<Result<T, ObserveError>>,
) -> Result<Vec<T>, CliError> {
    let total = results.len();
    let mut runs = Vec::with_capacity(total);
    let mut failures = Vec::new();
    for (path, result) in paths.iter().zip(results) {
        match result {
            Ok(run) => runs.push(run),
            Err(error) => failures.push((path, error)),
        }
    }
    if failures.is_empty() {
        return Ok(runs);
    }
    let broken = failures.iter().any(|(_, error)| matches!(error, ObserveError::Broken(_)));
    let code = if broken { ErrorCode::VerificationFailed } else { ErrorCode::InvalidInput };
    let count = failures.len();
    let mut named: Vec<_> = failures
        .into_iter()
        .take(NAMED_FAILURES)
        .map(|(path, error)| {
            let text = CliError::new(code, one_line(&path.display().to_string())).because(error).text();
            one_line(&text).into_owned()
        })
        .collect();
    if count > NAMED_FAILURES {
        named.push(format!("and {} more", count - NAMED_FAILURES));
    }
    let message = format!("{count} of {total} runpacks cannot be used: {}", named.join("; "));
    Err(CliError::new(code, message).hint("look at each with `gait verify`, or leave it out"))
}
