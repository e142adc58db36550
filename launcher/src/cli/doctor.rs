//! `gait doctor`: what this host can enforce, and the remedy for each "no".

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Answer, CliError, ErrorCode};
use crate::backend::ebpf::{self, Leftover};
use crate::doctor::report::{Outcome, Report};
use crate::run_id;

/// Flags of `gait doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Where sessions would write their evidence.
    #[arg(long, value_name = "DIR", default_value = run_id::OUTPUT_DIRECTORY)]
    pub output_dir: PathBuf,
    /// Remove what killed sessions left pinned in the kernel (root).
    #[arg(long)]
    pub cleanup: bool,
}

/// Probes the host.
///
/// # Errors
/// Where nothing can be enforced here (exit 7).
pub(super) fn doctor(args: &Doctor) -> Result<Answer, CliError> {
    if args.cleanup {
        return clean_up();
    }
    let report = Report::make(&args.output_dir);
    let status = report.status();
    let non_fixable = report.checks.iter().any(|check| check.non_fixable);
    let summary = match status {
        Outcome::Pass => "gait exec enforces every class on this host",
        Outcome::Warn => "gait exec works on this host, weaker or slower than it could be",
        Outcome::Fail => "gait exec does not work on this host as it is",
    };
    let fixes: Vec<&String> = report.checks.iter().filter_map(|check| check.fix_command.as_ref()).collect();
    let fields = json!({
        "schema_id": "gait.doctor.result",
        "schema_version": gait_agent::schema::VERSION,
        "created_at": run_id::now().to_string(),
        "producer_version": gait_agent::schema::PRODUCER_VERSION,
        "status": status,
        "non_fixable": non_fixable,
        "summary": summary,
        "fix_commands": fixes,
        "checks": report.checks,
        "backends": report.backends,
    });
    let answer = Answer::ok(&fields, text(&report, summary))?;
    if status == Outcome::Fail {
        let code = if non_fixable { ErrorCode::DependencyMissing } else { ErrorCode::InvalidInput };
        let error = CliError::new(code, summary);
        let hints = report.checks.iter().filter(|check| check.status == Outcome::Fail);
        return Ok(answer.failed(hints.fold(error, |error, check| error.hint(check.message.clone()))));
    }
    Ok(answer)
}

/// Removes leftovers. Those with living processes stay, since they are what holds these.
fn clean_up() -> Result<Answer, CliError> {
    let found = ebpf::clean_up()
        .map_err(|why| CliError::new(ErrorCode::DependencyMissing, why.what).hint(why.remedy))?;
    let (kept, removed): (Vec<&Leftover>, Vec<&Leftover>) = found.iter().partition(|left| left.members > 0);
    let names = |list: &[&Leftover]| list.iter().map(|left| left.name.clone()).collect::<Vec<_>>();
    let fields = json!({
        "schema_id": "gait.doctor.cleanup",
        "schema_version": gait_agent::schema::VERSION,
        "removed": names(&removed),
        "kept": names(&kept),
    });
    let mut text: String = removed.iter().map(|left| format!("removed {}\n", left.name)).collect();
    if found.is_empty() {
        text.push_str("nothing was left over\n");
    }
    let answer = Answer::ok(&fields, text)?;
    let Some(first) = kept.first() else { return Ok(answer) };
    let said = format!(
        "{} still has {} processes under control, which may do nothing any more; {} such directories stay",
        first.name,
        first.members,
        kept.len()
    );
    let error = CliError::new(ErrorCode::ExecFailed, said);
    Ok(answer.failed(error.hint("end these processes, then run gait doctor --cleanup again")))
}

fn text(report: &Report, summary: &str) -> String {
    let mut text = format!("doctor: {summary}\n");
    for check in &report.checks {
        let word = match check.status {
            Outcome::Pass => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        text.push_str(&format!("  {word:<5} {:<17} {}\n", check.name, check.message));
    }
    text.push_str("backends:\n");
    for (name, backend) in &report.backends {
        let levels: Vec<String> =
            backend.classes.iter().map(|(class, level)| format!("{class} {level}")).collect();
        let detail =
            if backend.reason.is_empty() { levels.join(", ") } else { format!("absent: {}", backend.reason) };
        text.push_str(&format!("  {name:<8} {detail}\n"));
    }
    text
}
