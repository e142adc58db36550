//! `gait run record`: packs a run that somebody describes.

use std::path::PathBuf;

use clap::Args;
use gait_agent::runpack::{Payloads, RunRecord};
use serde::Serialize;

use super::super::{Answer, CliError};
use super::write_failed;
use crate::described_run;
use crate::input;
use crate::keyring::{DevKey, KeyMode, PrivateSource, signing_key};
use crate::run_id::{now, runpack_path};

/// As much as one entry of a runpack may have.
const INPUT_BYTES: u64 = 100 << 20;

/// Arguments of `gait run record`.
#[derive(Debug, Args)]
pub struct RunRecordArgs {
    /// The description: a JSON file with run, intents, results and refs.
    #[arg(value_name = "FILE", required_unless_present = "input_flag", conflicts_with = "input_flag")]
    pub input: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(long = "input", id = "input_flag", value_name = "FILE")]
    pub input_flag: Option<PathBuf>,
    /// Where the runpack goes.
    #[arg(long, value_name = "DIR", default_value = "./gait-out")]
    pub out_dir: PathBuf,
    /// Another id than that of the description.
    #[arg(long, value_name = "RUN_ID")]
    pub run_id: Option<String>,
    /// reference keeps digests of arguments and results, raw keeps them themselves [default: the description's, else
    /// reference].
    #[arg(long, value_name = "MODE", value_parser = ["reference", "raw"])]
    pub capture_mode: Option<String>,
    /// Sign it: dev takes the per-user key, prod takes one that is named.
    #[arg(long, value_enum)]
    pub key_mode: Option<KeyMode>,
    /// The file of the private key.
    #[arg(long, value_name = "FILE", requires = "key_mode")]
    pub private_key: Option<PathBuf>,
    /// The environment variable that holds the private key.
    #[arg(long, value_name = "NAME", requires = "key_mode")]
    pub private_key_env: Option<String>,
}

#[derive(Serialize)]
struct Report {
    run_id: String,
    bundle: String,
    manifest_digest: String,
    ticket_footer: String,
    capture_mode: String,
    signature_status: &'static str,
    signature_key_id: Option<String>,
}

/// Packs a described run.
///
/// # Errors
///
/// A description that cannot be read or is wrong, a bad key, a place that cannot be written.
pub(in super::super) fn record(args: &RunRecordArgs) -> Result<Answer, CliError> {
    let input = args.input.as_ref().or(args.input_flag.as_ref()).cloned().unwrap_or_default();
    let bytes = input::read("run record", &input, INPUT_BYTES)?;
    let source = PrivateSource { path: args.private_key.clone(), env: args.private_key_env.clone() };
    let key = args.key_mode.map(|mode| signing_key(mode, &source, DevKey::PerUser)).transpose()?;
    let wrong = |error| {
        CliError::input(format!("run record {}", input.display()))
            .because(error)
            .hint("the description is {run, intents, results, refs, capture_mode?}")
    };
    let mut described = RunRecord::from_json(&bytes).map_err(wrong)?;
    if let Some(run_id) = &args.run_id {
        described.run.run_id.clone_from(run_id);
    }
    if let Some(mode) = &args.capture_mode {
        described.capture_mode.clone_from(mode);
    }
    let payloads = payloads(&described);
    let record = described.complete(now(), Payloads::Strip).map_err(wrong)?;
    let place = runpack_path(&args.out_dir, &record.run.run_id);
    let (sealed, status) = described_run::write(&record, key.as_ref().map(|(key, _)| key), &place)
        .map_err(|error| write_failed(&place, error))?;
    let mut warnings: Vec<String> =
        key.and_then(|(_, warning)| warning).map(str::to_owned).into_iter().collect();
    if payloads > 0 && record.capture_mode == "reference" {
        warnings.push(format!(
            "reference capture: {payloads} arguments and results were digested and left out; --capture-mode raw keeps them"
        ));
    }
    let report = Report {
        bundle: place.display().to_string(),
        manifest_digest: sealed.manifest_digest.to_string(),
        ticket_footer: sealed.ticket_footer(),
        capture_mode: record.capture_mode,
        signature_status: status.as_str(),
        signature_key_id: sealed.key_id.map(|id| id.to_string()),
        run_id: sealed.run_id,
    };
    let text = format!(
        "run_id={}\nbundle={}\nticket_footer={}\nsignature_status={}",
        report.run_id, report.bundle, report.ticket_footer, report.signature_status
    );
    Ok(Answer::ok(&report, text)?.warn(warnings))
}

/// How many arguments and results stand in the description themselves.
fn payloads(record: &RunRecord) -> usize {
    record.intents.iter().filter(|intent| intent.args.is_some()).count()
        + record.results.iter().filter(|result| result.result.is_some()).count()
}
