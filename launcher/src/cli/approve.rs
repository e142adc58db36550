//! `gait approve`: makes an approval token.

use std::path::PathBuf;

use gait_agent::timestamp::Timestamp;
use serde::Serialize;

use super::args::Approve;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file;
use crate::keyring::{DevKey, signing_key};
use crate::run_id::now;
use crate::toolgate::approval_token::{ApprovalToken, Consent};

#[derive(Serialize)]
struct Report {
    token_id: String,
    token_path: String,
    expires_at: Timestamp,
    reason_code: String,
    scope: Vec<String>,
    key_id: String,
}

/// Makes a token and writes it.
///
/// # Errors
///
/// Blank names, a key that cannot be had, a file that cannot be written.
pub(super) fn approve(args: Approve) -> Result<Answer, CliError> {
    let (approver, reason_code) = (args.approver.trim().to_owned(), args.reason_code.trim().to_owned());
    for (flag, value) in [("--approver", &approver), ("--reason-code", &reason_code)] {
        if value.is_empty() {
            return Err(CliError::input(format!("{flag} is blank")));
        }
    }
    let (mode, source) = args.key.source();
    let (key, warning) = signing_key(mode, &source, DevKey::Ephemeral)?;
    let now = now();
    let expires_ns =
        now.unix_nanos().saturating_add(i128::try_from(args.ttl.as_nanos()).unwrap_or(i128::MAX));
    let expires_at = u64::try_from(expires_ns)
        .map(Timestamp::from_unix_nanos)
        .map_err(|error| CliError::input("--ttl reaches beyond what a time can hold").because(error))?;
    let consent = Consent {
        approver,
        reason_code,
        intent_digest: args.intent_digest,
        policy_digest: args.policy_digest,
        scope: args.scope,
        expires_at,
    };
    let mut token = ApprovalToken::new(consent, now);
    if token.scope.is_empty() {
        return Err(CliError::input("--scope is blank").hint("name tool:NAME, or * for all"));
    }
    let failed = |error| CliError::new(ErrorCode::InternalFailure, "sign the approval token").because(error);
    token.sign(&key).map_err(failed)?;
    let path = args.out.unwrap_or_else(|| PathBuf::from(format!("approval_{}.json", token.token_id)));
    let mut text = serde_json::to_string_pretty(&token).map_err(|error| {
        CliError::new(ErrorCode::InternalFailure, "write the approval token").because(error)
    })?;
    text.push('\n');
    atomic_file::write(&path, text.as_bytes())
        .map_err(|error| CliError::io(format!("write {}", path.display())).because(error))?;
    let report = Report {
        token_id: token.token_id,
        token_path: path.display().to_string(),
        expires_at,
        reason_code: token.reason_code,
        scope: token.scope,
        key_id: key.key_id().to_string(),
    };
    let text = format!("approval token created: {}", report.token_path);
    Ok(Answer::ok(&report, text)?.warn(warning.map(str::to_owned)))
}
