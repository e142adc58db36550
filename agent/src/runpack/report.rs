//! What verification found.

use super::reason::{Finding, Reason};
use crate::sign::Digest;
use crate::timestamp::Timestamp;
use crate::trace::Totals;

/// What the signature of the manifest is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignatureStatus {
    /// There is none.
    #[default]
    Missing,
    /// There is one, and no key to check it with.
    Skipped,
    /// Valid under the key that the runpack carries itself.
    SelfSigned,
    /// Valid under the trusted key.
    Verified,
    /// Not valid.
    Failed,
}

impl SignatureStatus {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Skipped => "skipped",
            Self::SelfSigned => "self_signed",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

/// A file whose contents are not those declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashMismatch {
    /// The file.
    pub path: String,
    /// The digest in the manifest.
    pub expected: Digest,
    /// The digest of the contents; `None` if they cannot be unpacked.
    pub actual: Option<Digest>,
}

/// What the runpack of a session proves, provided that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecEvidence {
    /// The policy.
    pub policy_digest: Option<Digest>,
    /// The backend.
    pub backend: Option<String>,
    /// The program.
    pub program: Option<String>,
    /// When the session began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How the workload ended, such as `exited:0`.
    pub ending: Option<String>,
    /// When it was sealed, where not by the session itself: whether the journal's end is missing cannot be told then.
    pub sealed_later: Option<Timestamp>,
    /// Distinct decisions.
    pub traces: u64,
    /// Lines of the journal.
    pub lines: u64,
    /// Events per class and verdict.
    pub totals: Totals,
    /// Events that were lost, as the session itself counted them.
    pub losses: u64,
    /// Questions that were answered.
    pub approvals: u64,
}

/// What verification found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// The run; empty if there is no manifest.
    pub run_id: String,
    /// The digest of the manifest, computed.
    pub manifest_digest: Option<Digest>,
    /// Declared files that were read.
    pub files_checked: usize,
    /// Files that are not there, sorted.
    pub missing_files: Vec<String>,
    /// Files that differ, sorted.
    pub hash_mismatches: Vec<HashMismatch>,
    /// What the signature is worth.
    pub signature_status: SignatureStatus,
    /// The key that the runpack says it is signed with.
    pub key_id: Option<Digest>,
    /// What is wrong with signatures.
    pub signature_errors: Vec<String>,
    /// Signatures.
    pub signatures_total: usize,
    /// Those that are valid.
    pub signatures_valid: usize,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// What the session did, if it is the runpack of one.
    pub exec: Option<ExecEvidence>,
}

impl VerifyReport {
    /// Returns whether the runpack holds.
    #[must_use]
    pub const fn ok(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns whether a reason is among the findings.
    #[must_use]
    pub fn has(&self, reason: Reason) -> bool {
        self.findings.iter().any(|finding| finding.reason == reason)
    }
}
