//! `gait run …`: one file per verb, and what they share.

use std::path::Path;

use gait_agent::runpack::{ReadError, Runpack};

use super::args::RunFrom;
use super::verify::{Verified, check};
use super::{CliError, ErrorCode};
use crate::described_run::WriteRunError;

mod diff;
mod inspect;
mod receipt;
mod record;
mod reduce;
mod rejudge;
mod replay;

pub(super) use diff::{RunDiff, diff};
pub(super) use inspect::inspect;
pub(super) use receipt::receipt;
pub(super) use record::{RunRecordArgs, record};
pub(super) use reduce::{RunReduce, reduce};
pub(super) use replay::{RunReplay, replay};

/// Returns the runpack that is named, provided that it holds.
fn holding(args: &RunFrom) -> Result<Verified, CliError> {
    held(args.name())
}

/// As [`holding`], of a name.
pub(super) fn held(name: &str) -> Result<Verified, CliError> {
    let verified = check(name, None, false)?;
    verified.failure().map_or(Ok(verified), Err)
}

/// Opens a runpack that was verified.
pub(super) fn open(path: &Path) -> Result<Runpack, CliError> {
    Runpack::open(path).map_err(|error| unreadable(path, error))
}

/// Makes the error of a runpack that cannot be read although it holds.
pub(super) fn unreadable(path: &Path, error: ReadError) -> CliError {
    CliError::new(ErrorCode::InvalidInput, format!("read runpack {}", path.display())).because(error)
}

/// Makes the error of a runpack that cannot be written.
pub(super) fn write_failed(place: &Path, error: WriteRunError) -> CliError {
    let code = match &error {
        WriteRunError::Pack(_) => ErrorCode::InvalidInput,
        WriteRunError::Write(_) => ErrorCode::IoFailure,
        WriteRunError::Verify(_) | WriteRunError::DoesNotHold(_) => ErrorCode::InternalFailure,
    };
    CliError::new(code, format!("write {}", place.display())).because(error)
}
