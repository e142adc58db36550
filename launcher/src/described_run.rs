//! Writing the runpack of a run that somebody describes: whole, verified before it appears, or not at all.
//!
//! Called by `demo`, `run record`, `run reduce` and `migrate`.

use std::io::{self, Cursor};
use std::path::Path;

use gait_agent::runpack::{
    ArchiveLimits, RunRecord, SealError, Sealed, SignatureStatus, VerifyError, VerifyOptions, pack, verify,
};
use gait_agent::sign::SigningKey;

use crate::atomic_file::{Existing, Staged};

/// A runpack could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteRunError {
    /// The run cannot be packed.
    #[error("the run cannot be packed")]
    Pack(#[from] SealError),
    /// The file cannot be written.
    #[error("the file cannot be written")]
    Write(#[from] io::Error),
    /// What was written cannot be verified.
    #[error("what was written cannot be verified")]
    Verify(#[from] VerifyError),
    /// What was written does not hold; nothing was left.
    #[error("what was written does not hold ({0}), so it was removed")]
    DoesNotHold(String),
}

/// Packs a completed run into a file, and replaces what is there.
///
/// # Errors
///
/// Fails if it cannot be packed or written, or what was written does not hold; the place is then as before.
pub(crate) fn write(
    record: &RunRecord,
    key: Option<&SigningKey>,
    place: &Path,
) -> Result<(Sealed, SignatureStatus), WriteRunError> {
    let mut bytes = Cursor::new(Vec::new());
    let sealed = pack(record, key, &mut bytes)?;
    let staged = Staged::write(place, &bytes.into_inner())?;
    let options = VerifyOptions {
        key: key.map(SigningKey::verify_key),
        require_signature: key.is_some(),
        limits: ArchiveLimits::default(),
    };
    let report = verify(staged.path(), &options)?;
    if let Some(finding) = report.findings.first() {
        return Err(WriteRunError::DoesNotHold(finding.to_string()));
    }
    staged.commit(Existing::Replace)?;
    Ok((sealed, report.signature_status))
}
