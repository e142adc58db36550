//! `gait report top`: the actions that can do most harm, over many runs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use gait_agent::scout::{TopActions, TopReport};
use serde::Serialize;

use super::output::one_line;
use super::scout::{EVIDENCE_BYTES, all_or_none, runpacks};
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::input;

/// `gait report …`.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Ranks the actions of runs and traces by what they can do harm.
    Top(ReportTop),
}

/// Arguments of `gait report top`.
#[derive(Debug, Args)]
pub struct ReportTop {
    /// Runs, paths of runpacks, and directories of runpacks.
    #[arg(value_name = "RUN_ID|PATH")]
    pub named: Vec<String>,
    /// The same, as a flag.
    #[arg(long, value_name = "RUN_ID|PATH,…", value_delimiter = ',')]
    pub runs: Vec<String>,
    /// Trace files.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub traces: Vec<PathBuf>,
    /// How many; at most 20.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub limit: usize,
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = "./gait-out/report_top_actions.json")]
    pub out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    output_path: String,
    run_count: usize,
    trace_count: usize,
    action_count: usize,
    report: TopReport,
}

/// Reads runs and traces and writes the report.
///
/// # Errors
///
/// Inputs that are not there, are something else, do not hold or have no actions; a report that cannot be written.
pub(super) fn top(args: &ReportTop) -> Result<Answer, CliError> {
    let named: Vec<_> = args.named.iter().chain(&args.runs).filter(|name| !name.trim().is_empty()).collect();
    if named.is_empty() && args.traces.is_empty() {
        return Err(CliError::input("no run and no trace is named").hint("give --runs or --traces"));
    }
    let paths = if named.is_empty() { Vec::new() } else { runpacks(named.into_iter())? };
    let mut top = TopActions::new(args.limit);
    let added = paths.iter().map(|path| top.add_runpack(path)).collect();
    all_or_none(&paths, added)?;
    for path in args.traces.iter().collect::<BTreeSet<_>>() {
        let bytes = input::read("trace", path, EVIDENCE_BYTES)?;
        top.add_trace(&bytes, path)
            .map_err(|error| CliError::input(format!("trace {}", path.display())).because(error))?;
    }
    let Some(report) = top.finish() else {
        return Err(CliError::input("there is no action in what is named"));
    };
    let text = report
        .to_file_text()
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "write the report").because(error))?;
    let output_path = args.out.display().to_string();
    Staged::write(&args.out, text.as_bytes())
        .and_then(|staged| staged.commit(Existing::Replace))
        .map_err(|error| CliError::io(format!("write {output_path}")).because(error))?;
    let text = summary(&report, &output_path);
    let TopReport { run_count, trace_count, action_count, .. } = report;
    Answer::ok(&Report { output_path, run_count, trace_count, action_count, report }, text)
}

fn summary(report: &TopReport, output_path: &str) -> String {
    let TopReport { run_count, trace_count, action_count, .. } = report;
    let mut lines = vec![
        format!("report top ok: runs={run_count} traces={trace_count} actions={action_count}"),
        format!("output: {}", one_line(output_path)),
    ];
    for action in &report.top_actions {
        let place = [&action.intent_id, &action.trace_id].into_iter().find(|id| !id.is_empty());
        lines.push(format!(
            "top_action: rank={} score={} class={} tool={} verdict={} run={} {}{}",
            action.rank,
            action.score,
            action.tool_class,
            one_line(&action.tool_name),
            if action.verdict.is_empty() { "-" } else { &action.verdict },
            one_line(&action.run_id),
            one_line(place.map_or("-", String::as_str)),
            action.target.as_deref().map(|it| format!(" target={}", one_line(it))).unwrap_or_default(),
        ));
    }
    lines.join("\n")
}
