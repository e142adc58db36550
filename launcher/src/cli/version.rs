//! `gait version`.

use serde::Serialize;

use super::{Answer, CliError};

#[derive(Serialize)]
struct Report {
    version: &'static str,
}

/// Answers with the version of the binary.
///
/// # Errors
///
/// None in practice; see [`Answer::ok`].
pub(super) fn version() -> Result<Answer, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    Answer::ok(&Report { version }, format!("gait {version}"))
}
