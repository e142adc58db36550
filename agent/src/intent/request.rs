//! The intent request as it comes in, before anything is checked.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::IntentError;
use crate::sign::{Limits, parse_strict};

/// A request to judge one action. Unknown fields are ignored, as the contract has it; given digests are recomputed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntentRequest {
    /// `gait.gate.intent_request`.
    #[serde(deserialize_with = "null_is_default")]
    pub schema_id: String,
    /// `1.0.0`.
    #[serde(deserialize_with = "null_is_default")]
    pub schema_version: String,
    /// When the intent arose, RFC 3339; not part of the digest.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    /// Who made the request; not part of the digest.
    #[serde(deserialize_with = "null_is_default")]
    pub producer_version: String,
    /// The tool.
    #[serde(deserialize_with = "null_is_default")]
    pub tool_name: String,
    /// Its arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub args: Map<String, Value>,
    /// What the call reaches.
    #[serde(deserialize_with = "null_is_default")]
    pub targets: Vec<TargetRequest>,
    /// Where the arguments come from.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub arg_provenance: Vec<ProvenanceRequest>,
    /// The skill on whose behalf the call is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skill_provenance: Option<SkillRequest>,
    /// Who calls, and where.
    #[serde(deserialize_with = "null_is_default")]
    pub context: ContextRequest,
}

impl IntentRequest {
    /// Parses a request, refusing duplicate keys and unreasonable sizes.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not one JSON document of this shape.
    pub fn from_json(bytes: &[u8]) -> Result<Self, IntentError> {
        let value = parse_strict(bytes, Limits::DOCUMENT)?;
        if !value.is_object() {
            // serde would read an array as the fields in order.
            return Err(IntentError::Shape(serde::de::Error::custom("not an object")));
        }
        serde_json::from_value(value).map_err(IntentError::Shape)
    }
}

/// One thing that a call reaches, as requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRequest {
    /// path, url, host, repo, bucket, table, queue, topic or other.
    #[serde(deserialize_with = "null_is_default")]
    pub kind: String,
    /// The thing.
    #[serde(deserialize_with = "null_is_default")]
    pub value: String,
    /// What is done to it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// How sensitive it is.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub sensitivity: String,
    /// The endpoint class; inferred if empty.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub endpoint_class: String,
    /// The domain; inferred if empty.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub endpoint_domain: String,
    /// Whether something is destroyed; inferred besides.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub destructive: bool,
}

/// Where an argument comes from, as requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvenanceRequest {
    /// Which argument.
    #[serde(deserialize_with = "null_is_default")]
    pub arg_path: String,
    /// user, `tool_output`, external or system.
    #[serde(deserialize_with = "null_is_default")]
    pub source: String,
    /// Which one of that source.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub source_ref: String,
    /// The digest of the argument at its source.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub integrity_digest: String,
}

/// The skill on whose behalf a call is made, as claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SkillRequest {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub skill_name: String,
    /// Its version.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub skill_version: String,
    /// Where it came from.
    #[serde(deserialize_with = "null_is_default")]
    pub source: String,
    /// Who published it.
    #[serde(deserialize_with = "null_is_default")]
    pub publisher: String,
    /// The digest of its package.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// The key that signed it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub signature_key_id: String,
}

/// Who calls, and where, as requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContextRequest {
    /// Who.
    #[serde(deserialize_with = "null_is_default")]
    pub identity: String,
    /// The root of the work.
    #[serde(deserialize_with = "null_is_default")]
    pub workspace: String,
    /// How risky the caller says it is.
    #[serde(deserialize_with = "null_is_default")]
    pub risk_class: String,
    /// The caller's session.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    /// The caller's request.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// Reads `null` as the empty value: producers write it for lists without elements.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
