//! The normalised intent, the steps that lead to it, and its digests.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::infer::{self, lower};
use super::{ContextRequest, IntentRequest, ProvenanceRequest, SkillRequest, TargetRequest};
use crate::endpoint::EndpointClass;
use crate::schema;
use crate::sign::{CanonError, Digest, ParseError, digest_of};
use crate::timestamp::{InvalidTimestamp, Timestamp};

/// A request cannot be made into an intent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntentError {
    /// Not JSON that means one thing.
    #[error("intent is not strict JSON")]
    Parse(#[from] ParseError),
    /// JSON of another shape.
    #[error("not an intent request")]
    Shape(#[source] serde_json::Error),
    /// Another document, or one of another generation.
    #[error("unsupported schema {id} {version}, expected gait.gate.intent_request 1.0.0")]
    Schema {
        /// Its `schema_id`.
        id: String,
        /// Its `schema_version`.
        version: String,
    },
    /// A field that must have a value has none.
    #[error("{0} is required")]
    Missing(&'static str),
    /// A value is not one of those allowed.
    #[error("unsupported {field} {value:?}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A digest is not 64 hex digits.
    #[error("{0} is not a sha256 digest in hex")]
    Digest(&'static str),
    /// An argument's name is blank.
    #[error("an argument has a blank name")]
    BlankArgument,
    /// Two argument names are the same but for surrounding white space.
    #[error("the argument {0:?} is given twice")]
    DuplicateArgument(String),
    /// `created_at` is not a time.
    #[error("created_at is invalid")]
    CreatedAt(#[from] InvalidTimestamp),
    /// The intent cannot be digested.
    #[error("intent cannot be digested")]
    Canon(#[from] CanonError),
}

impl IntentError {
    /// Returns the stable code of the mistake.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Parse(error) => error.code(),
            Self::Shape(_) => "wrong_shape",
            Self::Schema { .. } => "wrong_generation",
            Self::Missing(_) => "missing_field",
            Self::Unsupported { .. } => "unknown_word",
            Self::Digest(_) | Self::BlankArgument | Self::CreatedAt(_) => "malformed_value",
            Self::DuplicateArgument(_) => "duplicate_key",
            Self::Canon(_) => "not_json",
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $field:literal; $( $(#[$vdoc:meta])* $variant:ident = $text:literal, )*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$vdoc])* $variant, )* }

        impl $name {
            /// Every word, in the order of the spelling.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// Returns the contract's spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            fn parse(text: &str) -> Result<Self, IntentError> {
                match text {
                    $( $text => Ok(Self::$variant), )*
                    _ => Err(IntentError::Unsupported { field: $field, value: text.to_owned() }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// The kind of a target. In the order of the spelling, which is the order of targets in a digest.
    Kind, "target kind";
    /// A storage bucket.
    Bucket = "bucket",
    /// A network peer.
    Host = "host",
    /// Anything else.
    Other = "other",
    /// A file system path.
    Path = "path",
    /// A queue.
    Queue = "queue",
    /// A source repository.
    Repo = "repo",
    /// A database table.
    Table = "table",
    /// A topic.
    Topic = "topic",
    /// A URL.
    Url = "url",
}

words! {
    /// Where an argument comes from.
    Source, "arg_provenance source";
    /// From outside.
    External = "external",
    /// From the system, such as the kernel.
    System = "system",
    /// From another tool's output.
    ToolOutput = "tool_output",
    /// From a person.
    User = "user",
}

/// One thing that an intent reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// The thing itself; its case is kept.
    pub value: String,
    /// What is done to it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// How sensitive it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sensitivity: String,
    /// Its class, declared or inferred.
    #[serde(serialize_with = "class_text")]
    pub endpoint_class: EndpointClass,
    /// Its domain, for hosts and URLs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_domain: String,
    /// Whether something is destroyed, declared or inferred.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub destructive: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn class_text<S: serde::Serializer>(class: &EndpointClass, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.as_str())
}

impl Target {
    fn sort_key(&self) -> (Kind, &str, &str, &str, &str, &str, bool) {
        (
            self.kind,
            &self.value,
            &self.operation,
            &self.sensitivity,
            self.endpoint_class.as_str(),
            &self.endpoint_domain,
            self.destructive,
        )
    }
}

/// Where an argument comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Provenance {
    /// Which argument.
    pub arg_path: String,
    /// Its source.
    pub source: Source,
    /// Which one of that source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_ref: String,
    /// The digest of the argument at its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integrity_digest: Option<Digest>,
}

/// The skill on whose behalf an intent is made. A claim: nothing ties it to an installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skill {
    /// Its name.
    pub skill_name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skill_version: String,
    /// Where it came from, lower-case.
    pub source: String,
    /// Who published it; case is kept.
    pub publisher: String,
    /// The digest of its package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The key that signed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature_key_id: String,
}

/// Who calls, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Context {
    /// Who.
    pub identity: String,
    /// The root of the work, with forward slashes.
    pub workspace: String,
    /// low, medium, high or another word of the caller, lower-case.
    pub risk_class: String,
    /// The caller's session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    /// The caller's request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// An action in the contract's form. Its digests never change: the fields can be read, not written.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub(super) created_at: Timestamp,
    pub(super) tool_name: String,
    pub(super) args: Map<String, Value>,
    pub(super) targets: Vec<Target>,
    pub(super) arg_provenance: Vec<Provenance>,
    pub(super) skill_provenance: Option<Skill>,
    pub(super) context: Context,
    pub(super) args_digest: Digest,
    pub(super) intent_digest: Digest,
}

impl Intent {
    /// Returns when the intent arose; 1980 if the request did not say.
    #[must_use]
    pub const fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Returns the tool's name, lower-case.
    #[must_use]
    pub fn tool_name(&self) -> &str {
        &self.tool_name
    }

    /// Returns the arguments.
    #[must_use]
    pub const fn args(&self) -> &Map<String, Value> {
        &self.args
    }

    /// Returns the targets, sorted, without duplicates.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Returns where the arguments come from, sorted, without duplicates.
    #[must_use]
    pub fn arg_provenance(&self) -> &[Provenance] {
        &self.arg_provenance
    }

    /// Returns the skill, if one is claimed.
    #[must_use]
    pub const fn skill_provenance(&self) -> Option<&Skill> {
        self.skill_provenance.as_ref()
    }

    /// Returns who calls, and where.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the digest of the arguments.
    #[must_use]
    pub const fn args_digest(&self) -> Digest {
        self.args_digest
    }

    /// Returns the digest of the intent: tool, arguments, targets, provenance and context, not its time.
    #[must_use]
    pub const fn intent_digest(&self) -> Digest {
        self.intent_digest
    }
}

/// What the intent digest covers.
#[derive(Serialize)]
struct Digested<'a> {
    tool_name: &'a str,
    args: &'a Map<String, Value>,
    targets: &'a [Target],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    arg_provenance: &'a [Provenance],
    #[serde(skip_serializing_if = "Option::is_none")]
    skill_provenance: Option<&'a Skill>,
    context: &'a Context,
}

impl IntentRequest {
    /// Normalises the request and computes its digests.
    ///
    /// # Errors
    ///
    /// Fails if a required value is missing, a word is not one of the contract's, or a digest or time is malformed.
    pub fn normalise(self) -> Result<Intent, IntentError> {
        // Absent ones are those of this generation, as the contract has it; fields of another may mean other things.
        let ours = |text: &str, own: &str| text.is_empty() || text == own;
        if !ours(&self.schema_id, schema::INTENT_REQUEST) || !ours(&self.schema_version, schema::VERSION) {
            return Err(IntentError::Schema { id: self.schema_id, version: self.schema_version });
        }
        let tool_name = required("tool_name", lower(self.tool_name.trim()))?;
        let args = trim_object(self.args)?;
        let targets = targets(self.targets, &tool_name)?;
        let provenance: Result<BTreeSet<_>, _> = self.arg_provenance.into_iter().map(provenance).collect();
        let arg_provenance: Vec<_> = provenance?.into_iter().collect();
        let skill_provenance = self.skill_provenance.map(skill).transpose()?;
        let context = context(self.context)?;
        let created_at = match self.created_at.trim() {
            "" => Timestamp::UNSET,
            text => text.parse()?,
        };
        let args_digest = digest_of(&args)?;
        let intent_digest = digest_of(&Digested {
            tool_name: &tool_name,
            args: &args,
            targets: &targets,
            arg_provenance: &arg_provenance,
            skill_provenance: skill_provenance.as_ref(),
            context: &context,
        })?;
        Ok(Intent {
            created_at,
            tool_name,
            args,
            targets,
            arg_provenance,
            skill_provenance,
            context,
            args_digest,
            intent_digest,
        })
    }
}

fn required(field: &'static str, value: String) -> Result<String, IntentError> {
    if value.is_empty() { Err(IntentError::Missing(field)) } else { Ok(value) }
}

fn trim(text: String) -> String {
    let trimmed = text.trim();
    if trimmed.len() == text.len() { text } else { trimmed.to_owned() }
}

fn trim_object(object: Map<String, Value>) -> Result<Map<String, Value>, IntentError> {
    let mut out = Map::new();
    for (key, value) in object {
        let key = trim(key);
        if key.is_empty() {
            return Err(IntentError::BlankArgument);
        }
        let value = trim_value(value)?;
        // Which of the two would win is chance in the reference; a digest must not depend on chance.
        if out.contains_key(&key) {
            return Err(IntentError::DuplicateArgument(key));
        }
        out.insert(key, value);
    }
    Ok(out)
}

fn trim_value(value: Value) -> Result<Value, IntentError> {
    Ok(match value {
        Value::String(text) => Value::String(trim(text)),
        Value::Array(items) => Value::Array(items.into_iter().map(trim_value).collect::<Result<_, _>>()?),
        Value::Object(object) => Value::Object(trim_object(object)?),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_)) => scalar,
    })
}

fn targets(requests: Vec<TargetRequest>, tool_name: &str) -> Result<Vec<Target>, IntentError> {
    let mut targets: Vec<_> =
        requests.into_iter().map(|request| target(request, tool_name)).collect::<Result<_, _>>()?;
    targets.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
    targets.dedup();
    Ok(targets)
}

fn target(request: TargetRequest, tool_name: &str) -> Result<Target, IntentError> {
    let kind = Kind::parse(&lower(request.kind.trim()))?;
    let value = required("target value", trim(request.value))?;
    let operation = lower(request.operation.trim());
    let declared = lower(request.endpoint_class.trim());
    let endpoint_class = if declared.is_empty() {
        infer::class(kind, &operation, tool_name)
    } else {
        let unsupported = |_| IntentError::Unsupported { field: "endpoint_class", value: declared.clone() };
        declared.parse().map_err(unsupported)?
    };
    let mut endpoint_domain = lower(request.endpoint_domain.trim());
    if endpoint_domain.is_empty() {
        endpoint_domain = infer::domain(kind, &value);
    }
    let destructive = request.destructive || infer::destructive(endpoint_class, &operation);
    let sensitivity = lower(request.sensitivity.trim());
    Ok(Target { kind, value, operation, sensitivity, endpoint_class, endpoint_domain, destructive })
}

fn optional_digest(field: &'static str, text: &str) -> Result<Option<Digest>, IntentError> {
    match text.trim() {
        "" => Ok(None),
        text => text.to_ascii_lowercase().parse().map(Some).or(Err(IntentError::Digest(field))),
    }
}

fn provenance(request: ProvenanceRequest) -> Result<Provenance, IntentError> {
    Ok(Provenance {
        arg_path: required("arg_provenance arg_path", trim(request.arg_path))?,
        source: Source::parse(&lower(request.source.trim()))?,
        source_ref: trim(request.source_ref),
        integrity_digest: optional_digest("arg_provenance integrity_digest", &request.integrity_digest)?,
    })
}

fn skill(request: SkillRequest) -> Result<Skill, IntentError> {
    Ok(Skill {
        skill_name: required("skill_provenance skill_name", trim(request.skill_name))?,
        skill_version: trim(request.skill_version),
        source: required("skill_provenance source", lower(request.source.trim()))?,
        publisher: required("skill_provenance publisher", trim(request.publisher))?,
        digest: optional_digest("skill_provenance digest", &request.digest)?,
        signature_key_id: trim(request.signature_key_id),
    })
}

fn context(request: ContextRequest) -> Result<Context, IntentError> {
    Ok(Context {
        identity: required("context identity", trim(request.identity))?,
        workspace: required("context workspace", request.workspace.trim().replace('\\', "/"))?,
        risk_class: required("context risk_class", lower(request.risk_class.trim()))?,
        session_id: trim(request.session_id),
        request_id: trim(request.request_id),
    })
}
