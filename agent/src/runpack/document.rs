//! The documents inside a runpack, read as strictly as their schemas have it (contract §16.3).
//!
//! What a caller hands in to be packed may leave fields out; what stands in a runpack may not.

use serde_json::Value;

use super::manifest::{MANIFEST, Manifest, digests};
use super::reason::Reason;
use super::record::{IntentEntry, Refs, ResultEntry, Run, check_run_id};
use crate::document::{Document, DocumentError, nonempty, require};
use crate::schema;
use crate::sign::{Digest, Limits, canonical, digest_of, parse_strict};

const RECEIPT_FIELDS: [&str; 7] = [
    "ref_id",
    "source_type",
    "source_locator",
    "query_digest",
    "content_digest",
    "retrieved_at",
    "redaction_mode",
];

/// Other producers do not hold to the schema's `run_`; what could lead elsewhere in a path is refused.
fn run_id(text: &str) -> Result<(), DocumentError> {
    check_run_id(text).or(Err(DocumentError::Malformed("/run_id".to_owned())))
}

fn digest(text: &str, place: &str) -> Result<(), DocumentError> {
    text.parse::<Digest>().map(drop).or(Err(DocumentError::Malformed(place.to_owned())))
}

/// A digest that must be well formed and, where there is a payload, that of the payload.
fn payload(text: &str, payload: Option<&Value>, place: &str) -> Result<(), DocumentError> {
    digest(text, place)?;
    match payload {
        Some(payload) if digest_of(payload)?.to_string() != text => {
            Err(DocumentError::Digest(place.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A time that is there although its type allows none.
fn time<T>(time: Option<T>, place: &str) -> Result<(), DocumentError> {
    time.map(drop).ok_or_else(|| DocumentError::Malformed(place.to_owned()))
}

/// Why a document of a runpack cannot be believed to be what it stands for: its generation, or its run.
///
/// Less than [`Document::from_json`] demands: other producers leave fields out that nobody needs to verify.
pub(super) fn generation_reason<D: Document>(bytes: &[u8], run_id: &str) -> Option<Reason> {
    let Ok(value) = parse_strict(bytes, Limits { bytes: bytes.len(), ..Limits::DOCUMENT }) else {
        return Some(Reason::DocumentInvalid);
    };
    let names = (&value["schema_id"], &value["schema_version"]);
    if names != (&D::SCHEMA_ID.into(), &schema::VERSION.into()) || D::deserialize(&value).is_err() {
        return Some(Reason::DocumentInvalid);
    }
    (value["run_id"] != run_id).then_some(Reason::RunMismatch)
}

impl Document for Manifest {
    const SCHEMA_ID: &'static str = schema::RUNPACK_MANIFEST;

    fn check(&self, object: &Value) -> Result<(), DocumentError> {
        run_id(&self.run_id)?;
        if !matches!(self.capture_mode.as_str(), "reference" | "raw") {
            return Err(DocumentError::Malformed("/capture_mode".to_owned()));
        }
        let names = self.files.iter().map(|file| file.path.as_str());
        if !names.clone().is_sorted_by(|a, b| a < b) || names.clone().any(|name| name == MANIFEST) {
            return Err(DocumentError::Order("/files".to_owned()));
        }
        digest(&self.manifest_digest, "/manifest_digest")?;
        // Of the object: the digest covers fields that this version does not know.
        let (own, _) = digests(object)?;
        if own.to_string() == self.manifest_digest {
            Ok(())
        } else {
            Err(DocumentError::Digest("/manifest_digest".to_owned()))
        }
    }

    fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        let value = parse_strict(bytes, Limits::DOCUMENT)?;
        let form = canonical(&value)?;
        let manifest = Self::from_value(value)?;
        if form == bytes { Ok(manifest) } else { Err(DocumentError::Form) }
    }
}

impl Document for Run {
    const SCHEMA_ID: &'static str = schema::RUNPACK_RUN;
    const REQUIRED: &'static [&'static str] = &["run_id", "env", "timeline"];

    fn check(&self, _object: &Value) -> Result<(), DocumentError> {
        time(self.created_at, "/created_at")?;
        run_id(&self.run_id)
    }

    fn check_presence(object: &Value) -> Result<(), DocumentError> {
        require(&object["env"], "/env", &["os", "arch", "runtime"])
    }
}

impl Document for IntentEntry {
    const SCHEMA_ID: &'static str = schema::RUNPACK_INTENT;
    const REQUIRED: &'static [&'static str] = &["run_id", "intent_id", "tool_name", "args_digest"];

    fn check(&self, _object: &Value) -> Result<(), DocumentError> {
        time(self.created_at, "/created_at")?;
        run_id(&self.run_id)?;
        nonempty(&self.intent_id, "/intent_id")?;
        nonempty(&self.tool_name, "/tool_name")?;
        if self.args.as_ref().is_some_and(|args| !args.is_object()) {
            return Err(DocumentError::Malformed("/args".to_owned()));
        }
        payload(&self.args_digest, self.args.as_ref(), "/args_digest")
    }
}

impl Document for ResultEntry {
    const SCHEMA_ID: &'static str = schema::RUNPACK_RESULT;
    const REQUIRED: &'static [&'static str] = &["run_id", "intent_id", "status", "result_digest"];

    fn check(&self, _object: &Value) -> Result<(), DocumentError> {
        time(self.created_at, "/created_at")?;
        run_id(&self.run_id)?;
        nonempty(&self.intent_id, "/intent_id")?;
        // Other words than `ok` and `error` are those of other producers, and kept.
        nonempty(&self.status, "/status")?;
        payload(&self.result_digest, self.result.as_ref(), "/result_digest")
    }
}

impl Document for Refs {
    const SCHEMA_ID: &'static str = schema::RUNPACK_REFS;
    const REQUIRED: &'static [&'static str] = &["run_id", "receipts"];

    fn check(&self, _object: &Value) -> Result<(), DocumentError> {
        time(self.created_at, "/created_at")?;
        run_id(&self.run_id)?;
        for (at, receipt) in self.receipts.iter().enumerate() {
            time(receipt.retrieved_at, &format!("/receipts/{at}/retrieved_at"))?;
            digest(&receipt.query_digest, &format!("/receipts/{at}/query_digest"))?;
            digest(&receipt.content_digest, &format!("/receipts/{at}/content_digest"))?;
        }
        Ok(())
    }

    fn check_presence(object: &Value) -> Result<(), DocumentError> {
        for (at, receipt) in object["receipts"].as_array().into_iter().flatten().enumerate() {
            require(receipt, &format!("/receipts/{at}"), &RECEIPT_FIELDS)?;
        }
        Ok(())
    }
}
