//! Fingerprints: five lists of facts and their digest.

use serde::Serialize;

use crate::schema;
use crate::sign::{CanonError, Digest, digest_of};
use crate::timestamp::Timestamp;

/// What a fingerprint is made of; the canonical digest of exactly these five is the fingerprint (contract §20.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// What was done.
    pub action_sequence: Vec<String>,
    /// Of which kinds, sorted.
    pub tool_classes: Vec<String>,
    /// To what, sorted.
    pub target_systems: Vec<String>,
    /// What was said about it, sorted.
    pub reason_code_vector: Vec<String>,
    /// What it drew on, sorted.
    pub ref_receipt_digests: Vec<String>,
}

impl Facts {
    /// Returns the fingerprint.
    ///
    /// # Errors
    ///
    /// Never for text, which is all there is.
    pub fn fingerprint(&self) -> Result<Digest, CanonError> {
        digest_of(self)
    }
}

/// How a run was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A caller described it.
    Described,
    /// `gait exec` saw it.
    Session,
}

impl Kind {
    /// Returns whether a caller described it: the contract's reports have no such field.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands out references")]
    pub(super) const fn is_described(&self) -> bool {
        matches!(self, Self::Described)
    }
}

/// A fingerprint as the report has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunFingerprint {
    /// `gait.scout.run_fingerprint`.
    pub schema_id: &'static str,
    /// `1.0.0`.
    pub schema_version: &'static str,
    /// 1980: the same files give the same bytes.
    pub created_at: Timestamp,
    /// The version of gait.
    pub producer_version: &'static str,
    /// The run.
    pub run_id: String,
    /// The digest of the five lists.
    pub fingerprint: Digest,
    /// The five lists.
    #[serde(flatten)]
    pub facts: Facts,
    /// The runpack.
    pub source_runpack: String,
    /// Trace files that belong to the run.
    #[serde(skip_serializing_if = "is_zero")]
    pub trace_count: u64,
    /// Whether a regression result speaks of the run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub regress_evidence_seen: bool,
    /// How the run was recorded; left out where the contract's report has no such word. Additive.
    #[serde(skip_serializing_if = "Kind::is_described")]
    pub kind: Kind,
    /// What the contract's formula makes of a session's intents and results. Additive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract_fingerprint: Option<Digest>,
}

impl RunFingerprint {
    /// Makes the entry of a run.
    pub(super) fn new(run_id: String, fingerprint: Digest, facts: Facts, source_runpack: String) -> Self {
        Self {
            schema_id: schema::RUN_FINGERPRINT,
            schema_version: schema::VERSION,
            created_at: Timestamp::UNSET,
            producer_version: schema::PRODUCER_VERSION,
            run_id,
            fingerprint,
            facts,
            source_runpack,
            trace_count: 0,
            regress_evidence_seen: false,
            kind: Kind::Described,
            contract_fingerprint: None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands out references")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
