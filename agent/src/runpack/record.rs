//! Runs that a caller describes: the documents of the contract's five files.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;
use crate::sign::{CanonError, Digest, Limits, ParseError, digest_of, parse_strict};
use crate::timestamp::Timestamp;

/// A description of a run cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordInputError {
    /// Not JSON that means one thing.
    #[error("run record is not strict JSON")]
    Parse(#[from] ParseError),
    /// JSON of another shape.
    #[error("not a run record")]
    Shape(#[source] serde_json::Error),
    /// A name that is needed is empty.
    #[error("{0} is required")]
    Missing(&'static str),
    /// Another document, or one of another generation.
    #[error("unsupported schema {id} {version}, expected {expected} 1.0.0")]
    Schema {
        /// Its `schema_id`.
        id: String,
        /// Its `schema_version`.
        version: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The run id could not stand in a file name or a ticket.
    #[error("run id {0:?} has characters other than letters, digits, '_' and '-'")]
    RunId(String),
    /// A given digest is not that of the given payload.
    #[error("{field} of {intent_id} is not the digest of its payload")]
    Digest {
        /// The field.
        field: &'static str,
        /// The intent.
        intent_id: String,
    },
    /// Neither a digest nor a payload was given.
    #[error("{intent_id} has neither {field} nor a payload")]
    NoDigest {
        /// The field.
        field: &'static str,
        /// The intent.
        intent_id: String,
    },
    /// A capture mode that does not exist.
    #[error("unknown capture mode {0:?}, expected reference or raw")]
    CaptureMode(String),
    /// A payload has no canonical form.
    #[error("run record cannot be digested")]
    Canon(#[from] CanonError),
}

/// What the timeline says of an end that the session itself did not write.
pub(super) const UNFINISHED: &str = "unfinished";

/// What becomes of raw arguments and results in reference capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Payloads {
    /// They are digested and left out.
    #[default]
    Strip,
    /// They are kept, as generation 7 of the reference does.
    Keep,
}

/// Where a run took place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Env {
    /// The operating system.
    pub os: String,
    /// The processor architecture.
    pub arch: String,
    /// The runtime.
    pub runtime: String,
}

/// A point of a run's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// What happened.
    pub event: String,
    /// When.
    pub ts: Timestamp,
    /// What it refers to.
    #[serde(default, rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
}

/// `run.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields common to all documents")]
pub struct Run {
    pub schema_id: String,
    pub schema_version: String,
    pub created_at: Option<Timestamp>,
    pub producer_version: String,
    pub run_id: String,
    /// Where it took place.
    pub env: Env,
    /// What happened; `null` if never set.
    pub timeline: Option<Vec<TimelineEvent>>,
}

/// A line of `intents.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields common to all documents")]
pub struct IntentEntry {
    pub schema_id: String,
    pub schema_version: String,
    pub created_at: Option<Timestamp>,
    pub producer_version: String,
    pub run_id: String,
    pub intent_id: String,
    pub tool_name: String,
    pub args_digest: String,
    /// The arguments, where they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
}

/// A line of `results.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields common to all documents")]
pub struct ResultEntry {
    pub schema_id: String,
    pub schema_version: String,
    pub created_at: Option<Timestamp>,
    pub producer_version: String,
    pub run_id: String,
    pub intent_id: String,
    /// `ok` or `error`; other words of other producers are kept.
    pub status: String,
    pub result_digest: String,
    /// The result, where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// A source that a run drew on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the contract")]
pub struct Receipt {
    pub ref_id: String,
    pub source_type: String,
    pub source_locator: String,
    pub query_digest: String,
    pub content_digest: String,
    pub retrieved_at: Option<Timestamp>,
    pub redaction_mode: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sensitivity_label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieval_params: Option<Value>,
}

/// `refs.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields common to all documents")]
pub struct Refs {
    pub schema_id: String,
    pub schema_version: String,
    pub created_at: Option<Timestamp>,
    pub producer_version: String,
    pub run_id: String,
    /// The sources.
    #[serde(deserialize_with = "null_is_empty")]
    pub receipts: Vec<Receipt>,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// A run as a caller describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The run.
    pub run: Run,
    /// What was asked for, in order.
    #[serde(deserialize_with = "null_is_empty")]
    pub intents: Vec<IntentEntry>,
    /// What came of it, in order.
    #[serde(deserialize_with = "null_is_empty")]
    pub results: Vec<ResultEntry>,
    /// The sources.
    pub refs: Refs,
    /// `reference` (also if empty) or `raw`.
    pub capture_mode: String,
}

/// Fills what is common to all documents of a run.
macro_rules! fill {
    ($document:expr, $schema:expr, $run:expr) => {{
        let document = $document;
        of_schema(&mut document.schema_id, &mut document.schema_version, $schema)?;
        default_text(&mut document.producer_version, &$run.producer_version);
        document.run_id.clone_from(&$run.run_id);
        document.created_at = document.created_at.or($run.created_at);
    }};
}

impl RunRecord {
    /// Parses a description, refusing duplicate keys and unreasonable sizes.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not one JSON document of this shape.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecordInputError> {
        let value = parse_strict(bytes, Limits { bytes: 100 << 20, ..Limits::DOCUMENT })?;
        if !value.is_object() {
            return Err(RecordInputError::Shape(serde::de::Error::custom("not an object")));
        }
        serde_json::from_value(value).map_err(RecordInputError::Shape)
    }

    /// Fills the defaults, checks and computes digests, and strips payloads from a reference capture.
    ///
    /// `now` stands in where the run has no time.
    ///
    /// # Errors
    ///
    /// Fails if a name is missing or a digest does not belong to its payload.
    pub fn complete(mut self, now: Timestamp, payloads: Payloads) -> Result<Self, RecordInputError> {
        default_text(&mut self.capture_mode, "reference");
        let strip = match self.capture_mode.as_str() {
            "reference" => payloads == Payloads::Strip,
            "raw" => false,
            _ => return Err(RecordInputError::CaptureMode(self.capture_mode)),
        };
        let run = &mut self.run;
        check_run_id(&run.run_id)?;
        of_schema(&mut run.schema_id, &mut run.schema_version, schema::RUNPACK_RUN)?;
        default_text(&mut run.producer_version, schema::PRODUCER_VERSION);
        run.created_at.get_or_insert(now);
        for intent in &mut self.intents {
            fill!(&mut *intent, schema::RUNPACK_INTENT, run);
            payload("args_digest", &intent.intent_id, &mut intent.args_digest, intent.args.as_ref())?;
            if strip {
                intent.args = None;
            }
        }
        for result in &mut self.results {
            fill!(&mut *result, schema::RUNPACK_RESULT, run);
            payload("result_digest", &result.intent_id, &mut result.result_digest, result.result.as_ref())?;
            if strip {
                result.result = None;
            }
        }
        fill!(&mut self.refs, schema::RUNPACK_REFS, run);
        for receipt in &mut self.refs.receipts {
            receipt.retrieved_at = receipt.retrieved_at.or(run.created_at);
        }
        Ok(self)
    }
}

/// Checks that a run id may stand in a file name and in a ticket.
pub(super) fn check_run_id(run_id: &str) -> Result<(), RecordInputError> {
    if run_id.is_empty() {
        return Err(RecordInputError::Missing("run_id"));
    }
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if run_id.bytes().all(safe) { Ok(()) } else { Err(RecordInputError::RunId(run_id.to_owned())) }
}

/// Fills in what a document is. One of another kind or generation is refused: packed, it would not verify.
fn of_schema(id: &mut String, version: &mut String, own: &'static str) -> Result<(), RecordInputError> {
    default_text(id, own);
    default_text(version, schema::VERSION);
    if id != own || version != schema::VERSION {
        return Err(RecordInputError::Schema { id: id.clone(), version: version.clone(), expected: own });
    }
    Ok(())
}

fn default_text(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}

fn payload(
    field: &'static str,
    intent_id: &str,
    digest: &mut String,
    payload: Option<&Value>,
) -> Result<(), RecordInputError> {
    if intent_id.is_empty() {
        return Err(RecordInputError::Missing("intent_id"));
    }
    let wrong = || RecordInputError::Digest { field, intent_id: intent_id.to_owned() };
    match payload {
        Some(payload) => {
            let computed = digest_of(payload)?.to_string();
            if !digest.is_empty() && *digest != computed {
                return Err(wrong());
            }
            *digest = computed;
        }
        None if digest.is_empty() => {
            return Err(RecordInputError::NoDigest { field, intent_id: intent_id.to_owned() });
        }
        None => {
            digest.parse::<Digest>().or(Err(wrong()))?;
        }
    }
    Ok(())
}
