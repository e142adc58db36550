//! `gait migrate`: brings an artefact into the form of this generation.
//!
//! Every runpack that the contract knows is of generation v1. One thing changed within it: earlier producers kept raw
//! arguments and results in reference captures, where only their digests belong. Those are packed anew without them;
//! everything else stays as it is. A runpack that does not hold is not migrated, and a session never changes.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gait_agent::runpack::{Payloads, RunRecord, SignatureStatus};
use serde::Serialize;

use super::run::{held, open, unreadable, write_failed};
use super::{Answer, CliError};
use crate::atomic_file;
use crate::described_run;
use crate::input;
use crate::run_id::{now, runpack_path};

/// A runpack that is only copied.
const COPIED_BYTES: u64 = 3 << 30;

/// Arguments of `gait migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The run, or the runpack's path.
    #[arg(value_name = "RUN_ID|PATH", required_unless_present = "input_flag", conflicts_with = "input_flag")]
    pub input: Option<String>,
    /// The same, as a flag.
    #[arg(long = "input", id = "input_flag", value_name = "RUN_ID|PATH")]
    pub input_flag: Option<String>,
    /// Where the migrated runpack goes [default: `runpack_RUN_ID_migrated.zip` beside the input].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The generation.
    #[arg(long, value_enum, default_value_t)]
    pub target: Target,
}

/// A generation of artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Target {
    /// Schema version 1.
    #[default]
    V1,
}

#[derive(Serialize)]
struct Report {
    input: String,
    output: String,
    artifact: &'static str,
    status: &'static str,
    run_id: String,
}

/// Migrates a runpack.
///
/// # Errors
///
/// A runpack that is not there, is something else, or does not hold; a place that cannot be written.
pub(super) fn migrate(args: &Migrate) -> Result<Answer, CliError> {
    let Target::V1 = args.target;
    let name = args.input.as_deref().or(args.input_flag.as_deref()).unwrap_or_default();
    let verified = held(name)?;
    let (path, run_id) = (&verified.path, &verified.report.run_id);
    let record = match verified.report.exec {
        Some(_) => None,
        None => Some(open(path)?.record().map_err(|error| unreadable(path, error))?).filter(keeps_raw_data),
    };
    let mut warnings = Vec::new();
    let (output, status) = match record {
        None => (unchanged(path, args.out.as_deref())?, "no_change"),
        Some(record) => {
            let place = args.out.clone().unwrap_or_else(|| {
                let directory = path.parent().unwrap_or(Path::new(""));
                runpack_path(directory, &format!("{run_id}_migrated"))
            });
            let wrong = |error| CliError::input(format!("migrate {}", path.display())).because(error);
            let record = record.complete(now(), Payloads::Strip).map_err(wrong)?;
            described_run::write(&record, None, &place).map_err(|error| write_failed(&place, error))?;
            if verified.report.signature_status != SignatureStatus::Missing {
                warnings
                    .push("the signature does not cover the migrated runpack and was left out".to_owned());
            }
            (place, "migrated")
        }
    };
    let report = Report {
        input: path.display().to_string(),
        output: output.display().to_string(),
        artifact: "runpack",
        status,
        run_id: run_id.clone(),
    };
    let text = format!("migrate ok: artifact=runpack status={status} output={}", report.output);
    Ok(Answer::ok(&report, text)?.warn(warnings))
}

/// Whether a reference capture has more than digests.
fn keeps_raw_data(record: &RunRecord) -> bool {
    record.capture_mode == "reference"
        && (record.intents.iter().any(|intent| intent.args.is_some())
            || record.results.iter().any(|result| result.result.is_some()))
}

/// Leaves the runpack where it is, or copies it where it is wanted.
fn unchanged(path: &Path, out: Option<&Path>) -> Result<PathBuf, CliError> {
    let Some(out) = out else { return Ok(path.to_owned()) };
    let bytes = input::read("runpack", path, COPIED_BYTES)?;
    atomic_file::write(out, &bytes)
        .map_err(|error| CliError::io(format!("write {}", out.display())).because(error))?;
    Ok(out.to_owned())
}
