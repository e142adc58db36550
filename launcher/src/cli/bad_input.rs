//! Why an input is bad, for machines: one stable code, found in the chain of causes.
//!
//! The exit code says that an input is bad; the text says how, to people. `reason_code` in the `--json` envelope tells the
//! kinds apart for everybody else. Evidence has reason codes of its own (docs/contracts/evidence.md).

use std::error::Error;
use std::fmt::Write as _;
use std::io::ErrorKind;

use gait_agent::document::DocumentError;
use gait_agent::intent::IntentError;
use gait_agent::runpack::VerifyError;
use gait_agent::sign::{KeyError, ParseError};
use gait_agent::trace::TraceError;

use crate::input::InputError;
use crate::keyring::KeyringError;
use crate::policy_source::InvalidPolicy;
use crate::run_id::RunpackNotFound;
use crate::toolgate::approval_token::TokenError;
use crate::toolgate::rate_limit::RateLimitError;

/// Every code, and what it means.
pub(super) const CODES: &[(&str, &str)] = &[
    ("missing_file", "The file, or the run, is not there."),
    ("unreadable_file", "The file cannot be read; a directory, for one."),
    ("too_large", "Larger than an input of its kind may be."),
    ("not_utf8", "Text that is not UTF-8."),
    ("not_json", "Not one JSON document: empty, cut off, NaN, something after it."),
    ("too_deep", "JSON that is nested too deeply."),
    ("duplicate_key", "JSON with a key twice in one object."),
    ("wrong_shape", "A value of another type, or a field that must not be there."),
    ("wrong_generation", "Another schema_id or schema_version."),
    ("missing_field", "A required field is not there, or empty."),
    ("unknown_word", "Not one of a closed list of words."),
    ("malformed_value", "A time, digest, id or name that is not in its form."),
    ("order", "A list that must be sorted is not."),
    ("not_canonical", "Not in canonical form where that is demanded."),
    ("digest_mismatch", "A digest is not that of what it covers."),
    ("id_mismatch", "An id does not belong to what it names."),
    ("signature_missing", "There is no signature."),
    ("signature_invalid", "The signature does not hold."),
    ("not_a_runpack", "A file that does not begin like a zip archive."),
    ("not_a_key", "Not the text of a key."),
    ("invalid_policy", "The policy has mistakes; the message has all of them, with line and column."),
];

/// Returns the code of a chain of errors; `None` if what failed was no input.
pub(super) fn reason(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(code) = one(error) {
            return Some(code);
        }
        at = error.source();
    }
    None
}

fn one(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let codes = [
        error.downcast_ref::<ParseError>().map(ParseError::code),
        error.downcast_ref::<IntentError>().map(IntentError::code),
        error.downcast_ref::<TraceError>().map(TraceError::code),
        error.downcast_ref::<DocumentError>().map(DocumentError::code),
        error.downcast_ref::<KeyError>().map(|_| "not_a_key"),
        error.downcast_ref::<InvalidPolicy>().map(|_| "invalid_policy"),
        error.downcast_ref::<RunpackNotFound>().map(|_| "missing_file"),
        error.downcast_ref::<InputError>().and_then(|error| of_read(error.source.kind())),
        // These speak for the error of reading that they hold, and so hide it from the chain.
        match error.downcast_ref::<TokenError>() {
            Some(TokenError::Read(error)) => of_read(error.source.kind()),
            _ => None,
        },
        match error.downcast_ref::<RateLimitError>() {
            Some(RateLimitError::Read(error)) => of_read(error.source.kind()),
            _ => None,
        },
        match error.downcast_ref::<KeyringError>() {
            Some(KeyringError::Read(error)) => of_read(error.source.kind()),
            _ => None,
        },
        error.downcast_ref::<std::io::Error>().and_then(|error| of_read(error.kind())),
        error.downcast_ref::<VerifyError>().and_then(|error| match error {
            VerifyError::Read(error) => of_read(error.kind()),
            _ => Some("not_a_runpack"),
        }),
        // What a type of this program has as its only word for "not that document".
        error.downcast_ref::<serde_json::Error>().map(|_| "wrong_shape"),
    ];
    codes.into_iter().flatten().next()
}

const fn of_read(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Some("missing_file"),
        ErrorKind::IsADirectory | ErrorKind::PermissionDenied => Some("unreadable_file"),
        ErrorKind::FileTooLarge => Some("too_large"),
        ErrorKind::InvalidData => Some("not_utf8"),
        _ => None,
    }
}

/// The section of `docs/exit-codes.md`.
pub(super) fn section() -> String {
    let mut text = String::from(
        "\n## Bad input\n\nWhere an input is to blame, the envelope has its `reason_code`. Evidence that does not verify has \
         `reason_codes`\n([contracts/evidence.md](contracts/evidence.md)).\n\n| reason_code | meaning |\n|---|---|\n",
    );
    for (code, meaning) in CODES {
        // Writing to a String cannot fail.
        _ = writeln!(text, "| `{code}` | {meaning} |");
    }
    text
}
