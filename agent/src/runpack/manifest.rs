//! The manifest: what a runpack holds, digested and signed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;
use crate::sign::{CanonError, Digest, Signature, SigningKey, canonical, digest_of};
use crate::timestamp::Timestamp;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const RUN: &str = "run.json";
pub(super) const INTENTS: &str = "intents.jsonl";
pub(super) const RESULTS: &str = "results.jsonl";
pub(super) const REFS: &str = "refs.json";
pub(super) const TRACES: &str = "traces.jsonl";
pub(super) const JOURNAL: &str = "journal.jsonl";
pub(super) const JOURNAL_DIGEST: &str = "journal.digest";
pub(super) const COVERAGE: &str = "coverage.json";

/// What every runpack holds besides its manifest.
pub(super) const REFERENCE_FILES: [&str; 4] = [INTENTS, REFS, RESULTS, RUN];
/// What the runpack of a session holds besides.
pub(super) const SESSION_FILES: [&str; 4] = [COVERAGE, JOURNAL_DIGEST, JOURNAL, TRACES];

/// A declared file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// The name of the entry.
    pub path: String,
    /// The digest of its contents.
    pub sha256: Digest,
}

/// The manifest of a runpack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `gait.runpack.manifest`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// When the run began.
    pub created_at: Timestamp,
    /// The version of the producer.
    pub producer_version: String,
    /// The run.
    pub run_id: String,
    /// `reference` or `raw`.
    pub capture_mode: String,
    /// Every other entry, sorted by name.
    pub files: Vec<FileDigest>,
    /// The digest of this document with this field empty and without signatures.
    pub manifest_digest: String,
    /// The key that the signatures can be checked with, if no other is trusted; additive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Signatures over this document without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// A runpack that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The run.
    pub run_id: String,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// The key that signed it.
    pub key_id: Option<Digest>,
}

impl Sealed {
    /// Returns the one line that a ticket needs to name the evidence.
    #[must_use]
    pub fn ticket_footer(&self) -> String {
        let Self { run_id, manifest_digest, .. } = self;
        format!("GAIT run_id={run_id} manifest=sha256:{manifest_digest} verify=\"gait verify {run_id}\"")
    }
}

impl Manifest {
    /// Makes the manifest, with its digest and, given a key, its signature.
    pub(super) fn seal(
        run: (&str, Timestamp, &str),
        capture_mode: &str,
        files: Vec<FileDigest>,
        key: Option<&SigningKey>,
    ) -> Result<(Vec<u8>, Sealed), CanonError> {
        let (run_id, created_at, producer_version) = run;
        let mut manifest = Self {
            schema_id: schema::RUNPACK_MANIFEST.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at,
            producer_version: producer_version.to_owned(),
            run_id: run_id.to_owned(),
            capture_mode: capture_mode.to_owned(),
            files,
            manifest_digest: String::new(),
            public_key: key.map(|key| key.verify_key().to_base64()),
            signatures: Vec::new(),
        };
        let manifest_digest = digest_of(&manifest)?;
        manifest.manifest_digest = manifest_digest.to_string();
        if let Some(key) = key {
            manifest.signatures = vec![key.sign_digest(&digest_of(&manifest)?)];
        }
        let sealed =
            Sealed { run_id: run_id.to_owned(), manifest_digest, key_id: key.map(SigningKey::key_id) };
        Ok((canonical(&manifest)?, sealed))
    }
}

/// The two digests of a manifest as read: of itself, and the one that signatures cover.
pub(super) fn digests(manifest: &Value) -> Result<(Digest, Digest), CanonError> {
    let mut value = manifest.clone();
    if let Some(object) = value.as_object_mut() {
        object.remove("signatures");
    }
    let signed = digest_of(&value)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("manifest_digest".to_owned(), Value::String(String::new()));
    }
    Ok((digest_of(&value)?, signed))
}
