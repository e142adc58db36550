//! `gait trace verify`: is a trace file what it was when it was signed?

use gait_agent::trace::{TraceError, read_trace};
use serde::Serialize;

use super::args::TraceVerify;
use super::{Answer, CliError, ErrorCode};
use crate::input;
use crate::keyring::VerifySource;

/// A trace is a few KiB; raw capture adds at most the arguments.
pub(super) const TRACE_BYTES: u64 = 8 << 20;

#[derive(Serialize)]
struct Report {
    path: String,
    trace_id: String,
    verdict: &'static str,
    signature_status: &'static str,
    key_id: String,
}

/// Verifies a trace file.
///
/// # Errors
///
/// No key, a file that cannot be read or is no trace record.
pub(super) fn verify(args: TraceVerify) -> Result<Answer, CliError> {
    let path = args.path.or(args.path_flag).unwrap_or_default();
    let Some(key) = VerifySource::from(args.key).load()? else {
        return Err(
            CliError::input("public key not configured").hint("give --public-key or --public-key-env")
        );
    };
    let bytes = input::read("trace", &path, TRACE_BYTES)?;
    let shown = path.display();
    let (record, digest) = read_trace(&bytes).map_err(|error| {
        // A record that is one but does not agree with itself was tampered with; anything else is not a record.
        let code = match error {
            TraceError::TraceId { .. } => ErrorCode::VerificationFailed,
            _ => ErrorCode::InvalidInput,
        };
        CliError::new(code, format!("trace {shown}")).because(error)
    })?;
    let checked = match &record.signature {
        None => Err(TraceError::Unsigned),
        Some(signature) => key.verify_digest(&digest, signature).map_err(TraceError::Signature),
    };
    let report = Report {
        path: shown.to_string(),
        trace_id: record.trace_id.to_string(),
        verdict: record.verdict.as_str(),
        signature_status: if checked.is_ok() { "verified" } else { "failed" },
        key_id: key.key_id().to_string(),
    };
    match checked {
        Ok(()) => Answer::ok(&report, format!("trace verify ok: {shown}")),
        Err(error) => {
            let failure =
                CliError::new(ErrorCode::VerificationFailed, format!("trace {shown}")).because(error);
            Ok(Answer::ok(&report, format!("trace verify failed: {shown}"))?.failed(failure))
        }
    }
}
