//! The manifest of an evidence pack.

use serde::{Deserialize, Serialize};

use crate::sign::{CanonError, Digest, Signature, digest_of};
use crate::timestamp::Timestamp;

pub(super) const MANIFEST: &str = "pack_manifest.json";
pub(super) const CONTROL_INDEX: &str = "control_index.json";
pub(super) const POINTERS: &str = "evidence_pointers.json";
pub(super) const SCHEMA: &str = "gait.guard.pack_manifest";

/// A file of the pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub path: String,
    /// The digest of its contents.
    pub sha256: Digest,
    /// `report`, `evidence`, `runpack` or `trace`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A control and what answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Its id in the catalogue it comes from.
    pub control_id: String,
    /// What it is about.
    pub title: String,
    /// The files, sorted.
    pub evidence_paths: Vec<String>,
}

/// A numbered piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// `ev_001` and on.
    pub pointer_id: String,
    /// The file.
    pub path: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its digest.
    pub sha256: Digest,
}

/// The time that an incident was looked for in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// Seconds on either side of the run.
    pub window_seconds: u64,
    /// The run.
    pub selection_anchor: String,
}

/// The manifest. Fields of other producers are ignored when read; signatures cover them nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `gait.guard.pack_manifest`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// When the run began.
    pub created_at: Timestamp,
    /// The version of the producer.
    pub producer_version: String,
    /// `pack_` and the beginning of the digest of run and contents.
    pub pack_id: String,
    /// The run.
    pub run_id: String,
    /// The case, as somebody else numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_id: Option<String>,
    /// The template of the index.
    pub template_id: String,
    /// When the run began, too: the same evidence gives the same pack.
    pub generated_at: Timestamp,
    /// What answers which control.
    #[serde(default)]
    pub control_index: Vec<Control>,
    /// Every piece of evidence.
    #[serde(default)]
    pub evidence_pointers: Vec<Pointer>,
    /// The time of an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_window: Option<Window>,
    /// Every other entry, sorted.
    pub contents: Vec<Entry>,
    /// The key that the signatures can be checked with, if no other is trusted; additive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Signatures over this document without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// Returns the id of a pack.
pub(super) fn pack_id(run_id: &str, contents: &[Entry]) -> Result<String, CanonError> {
    #[derive(Serialize)]
    struct Identity<'a> {
        run_id: &'a str,
        contents: &'a [Entry],
    }
    let digest = digest_of(&Identity { run_id, contents })?.to_string();
    Ok(format!("pack_{}", &digest[..16]))
}
