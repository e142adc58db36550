//! `gait run receipt`: the line for a ticket, from the runpack alone.

use gait_agent::runpack::Sealed;
use serde::Serialize;

use super::super::args::RunFrom;
use super::super::{Answer, CliError, ErrorCode};
use super::holding;

#[derive(Serialize)]
struct Receipt {
    run_id: String,
    path: String,
    manifest_digest: String,
    ticket_footer: String,
}

/// Prints the line that a ticket needs.
///
/// # Errors
///
/// A runpack that is not there, is something else, or does not hold.
pub(in super::super) fn receipt(args: &RunFrom) -> Result<Answer, CliError> {
    let verified = holding(args)?;
    let Some(manifest_digest) = verified.report.manifest_digest else {
        return Err(CliError::new(ErrorCode::VerificationFailed, "the runpack has no manifest digest"));
    };
    let run_id = verified.report.run_id.clone();
    let footer = Sealed { run_id: run_id.clone(), manifest_digest, key_id: None }.ticket_footer();
    let report = Receipt {
        run_id,
        path: verified.path.display().to_string(),
        manifest_digest: manifest_digest.to_string(),
        ticket_footer: footer.clone(),
    };
    Answer::ok(&report, footer)
}
