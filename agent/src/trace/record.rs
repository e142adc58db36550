//! The trace record: one decision, signed.
//!
//! The fields of the contract come first and in its order; what follows `skill_provenance` is additive and absent
//! when unset. Records of `gait exec` carry no latency, which would make equal decisions differ.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::intent::{Intent, Skill};
use crate::schema;
use crate::sign::{CanonError, Digest, Field, ObjectWriter, Signature, SigningKey, write_hex};
use crate::timestamp::Timestamp;

/// The deterministic name of a decision: policy, intent and verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 12]);

impl TraceId {
    /// Returns the id of a decision.
    #[must_use]
    pub fn new(policy: &Digest, intent: &Digest, verdict: Verdict) -> Self {
        let mut text = Vec::with_capacity(160);
        policy.write_hex(&mut text);
        text.push(b':');
        intent.write_hex(&mut text);
        text.push(b':');
        text.extend_from_slice(verdict.as_str().as_bytes());
        Self::truncate(&text)
    }

    /// Returns the id of one event of this decision.
    #[must_use]
    pub fn event(&self, at: Timestamp) -> Self {
        let mut text = Vec::with_capacity(64);
        write_hex(&self.0, &mut text);
        text.push(b':');
        at.write(&mut text);
        Self::truncate(&text)
    }

    fn truncate(text: &[u8]) -> Self {
        let digest = Digest::sha256(text);
        let mut id = [0; 12];
        id.copy_from_slice(&digest.as_bytes()[..12]);
        Self(id)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 24 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a trace id of 24 lower-case hex digits")]
pub struct InvalidTraceId;

impl FromStr for TraceId {
    type Err = InvalidTraceId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 24 {
            return Err(InvalidTraceId);
        }
        let padded: Digest = format!("{text:0<64}").parse().or(Err(InvalidTraceId))?;
        let mut id = [0; 12];
        id.copy_from_slice(&padded.as_bytes()[..12]);
        Ok(Self(id))
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What somebody said when a policy asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Go ahead.
    Allow,
    /// Do not.
    Block,
    /// There was nobody to ask.
    Unavailable,
    /// Nobody answered in time.
    TimedOut,
}

impl Answer {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
        }
    }
}

/// How far an answer reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This action only.
    Once,
    /// Every equal action of the session.
    Session,
}

impl Scope {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
        }
    }
}

/// An approval as the session knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// The answer.
    pub answer: Answer,
    /// Its reach.
    pub scope: Scope,
    /// Whether the question was put for this very action; each such answer becomes a line of the journal.
    pub asked: bool,
}

/// An approval as a record carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRecord {
    /// The answer.
    pub answer: Answer,
    /// Its reach.
    pub scope: Scope,
}

impl ApprovalRecord {
    fn write_fields(&self, object: &mut ObjectWriter<'_>) {
        object.text("answer", self.answer.as_str());
        object.text("scope", self.scope.as_str());
    }
}

/// The target of a recorded decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceTarget {
    /// What it is, in the contract's spelling.
    pub kind: String,
    /// The thing itself.
    pub value: String,
    /// What was done to it.
    pub operation: String,
    /// Its class.
    #[serde(with = "spelt")]
    pub endpoint_class: EndpointClass,
}

/// One decision. Fields of other generations are ignored when read; a signature covers them nevertheless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// `gait.gate.trace`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// When the intent arose; for `gait exec`, when the decision was first seen.
    pub created_at: Timestamp,
    /// The version of the producer.
    pub producer_version: String,
    /// The name of the decision.
    pub trace_id: TraceId,
    /// The command that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The tool.
    pub tool_name: String,
    /// The digest of its arguments.
    pub args_digest: Digest,
    /// The digest of the intent.
    pub intent_digest: Digest,
    /// The digest of the policy.
    pub policy_digest: Digest,
    /// The final verdict.
    #[serde(with = "spelt")]
    pub verdict: Verdict,
    /// What the intent violates, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// How long the evaluation took; never for `gait exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// The approval tokens that counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_token_ref: Option<String>,
    /// The skill of the intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill_provenance: Option<Skill>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Why, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reason_codes: Vec<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_rule: Option<String>,
    /// Whether the verdict was carried out; `false` marks simulation and observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced: Option<bool>,
    /// What the verdict would have been, where it was not enforced.
    #[serde(default, with = "spelt_option", skip_serializing_if = "Option::is_none")]
    pub simulated_verdict: Option<Verdict>,
    /// What was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TraceTarget>,
    /// What was answered when the policy asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRecord>,
    /// The arguments; in raw capture only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Map<String, Value>>,
    /// The signature over all other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl TraceRecord {
    /// Makes the unsigned record of a decision; the optional fields are unset.
    #[must_use]
    pub fn new(policy_digest: Digest, intent: &Intent, verdict: Verdict) -> Self {
        Self {
            schema_id: schema::TRACE.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at: intent.created_at(),
            producer_version: schema::PRODUCER_VERSION.to_owned(),
            trace_id: TraceId::new(&policy_digest, &intent.intent_digest(), verdict),
            correlation_id: None,
            tool_name: intent.tool_name().to_owned(),
            args_digest: intent.args_digest(),
            intent_digest: intent.intent_digest(),
            policy_digest,
            verdict,
            violations: Vec::new(),
            latency_ms: None,
            approval_token_ref: None,
            skill_provenance: intent.skill_provenance().cloned(),
            run_id: None,
            reason_codes: Vec::new(),
            matched_rule: None,
            enforced: None,
            simulated_verdict: None,
            target: None,
            approval: None,
            args: None,
            signature: None,
        }
    }

    /// Signs the record, replacing a signature that it has, and returns the canonical bytes.
    ///
    /// # Errors
    ///
    /// Fails if the record has no canonical form (a latency that is not finite).
    pub fn sign(&mut self, key: &SigningKey) -> Result<Vec<u8>, CanonError> {
        let unsigned = self.unsigned()?;
        let signature = key.sign_digest(&unsigned.digest());
        let bytes = unsigned.with(&signature);
        self.signature = Some(signature);
        Ok(bytes)
    }

    /// Returns the digest that the signature covers: all fields but the signature.
    ///
    /// # Errors
    ///
    /// As [`Self::sign`].
    pub fn signed_digest(&self) -> Result<Digest, CanonError> {
        Ok(self.unsigned()?.digest())
    }

    /// Returns the canonical bytes, signature included.
    ///
    /// # Errors
    ///
    /// As [`Self::sign`].
    pub fn canonical(&self) -> Result<Vec<u8>, CanonError> {
        let unsigned = self.unsigned()?;
        Ok(match &self.signature {
            Some(signature) => unsigned.with(signature),
            None => unsigned.bytes,
        })
    }

    /// Returns the text of a trace file: indented, in the contract's order.
    ///
    /// # Errors
    ///
    /// Fails if the record is not JSON.
    pub fn to_file_text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Returns the digest of the outcome, which the runpack's result carries.
    pub(crate) fn result_digest(&self) -> Digest {
        let mut out = Vec::with_capacity(256);
        let mut object = ObjectWriter::new(&mut out);
        if let Some(approval) = &self.approval {
            object.object("approval", |object| approval.write_fields(object));
        }
        if let Some(enforced) = self.enforced {
            object.field("enforced", Field::Flag(enforced));
        }
        optional(&mut object, "matched_rule", self.matched_rule.as_deref());
        texts(&mut object, "reason_codes", &self.reason_codes);
        optional(&mut object, "simulated_verdict", self.simulated_verdict.map(Verdict::as_str));
        object.text("verdict", self.verdict.as_str());
        texts(&mut object, "violations", &self.violations);
        object.finish();
        Digest::sha256(&out)
    }

    /// Writes the canonical form without the signature.
    pub(super) fn unsigned(&self) -> Result<Unsigned, CanonError> {
        let mut out = Vec::with_capacity(1280);
        let mut object = ObjectWriter::new(&mut out);
        if let Some(approval) = &self.approval {
            object.object("approval", |object| approval.write_fields(object));
        }
        optional(&mut object, "approval_token_ref", self.approval_token_ref.as_deref());
        if let Some(args) = &self.args {
            object.value("args", args)?;
        }
        object.digest("args_digest", &self.args_digest);
        optional(&mut object, "correlation_id", self.correlation_id.as_deref());
        time(&mut object, "created_at", self.created_at);
        if let Some(enforced) = self.enforced {
            object.field("enforced", Field::Flag(enforced));
        }
        object.digest("intent_digest", &self.intent_digest);
        if let Some(latency) = &self.latency_ms {
            object.value("latency_ms", latency)?;
        }
        optional(&mut object, "matched_rule", self.matched_rule.as_deref());
        object.digest("policy_digest", &self.policy_digest);
        object.text("producer_version", &self.producer_version);
        texts(&mut object, "reason_codes", &self.reason_codes);
        optional(&mut object, "run_id", self.run_id.as_deref());
        object.text("schema_id", &self.schema_id);
        object.text("schema_version", &self.schema_version);
        let signature_at = object.written();
        optional(&mut object, "simulated_verdict", self.simulated_verdict.map(Verdict::as_str));
        if let Some(skill) = &self.skill_provenance {
            object.value("skill_provenance", skill)?;
        }
        if let Some(target) = &self.target {
            object.object("target", |object| {
                object.text("endpoint_class", target.endpoint_class.as_str());
                object.text("kind", &target.kind);
                object.text("operation", &target.operation);
                object.text("value", &target.value);
            });
        }
        object.text("tool_name", &self.tool_name);
        object.text("trace_id", &self.trace_id.to_string());
        object.text("verdict", self.verdict.as_str());
        texts(&mut object, "violations", &self.violations);
        object.finish();
        Ok(Unsigned { bytes: out, signature_at })
    }
}

/// The canonical form of a record without its signature, which goes between two fields.
pub(super) struct Unsigned {
    bytes: Vec<u8>,
    signature_at: usize,
}

impl Unsigned {
    /// Returns the digest that is signed.
    pub(super) fn digest(&self) -> Digest {
        Digest::sha256(&self.bytes)
    }

    /// Returns the canonical form with a signature.
    pub(super) fn with(&self, signature: &Signature) -> Vec<u8> {
        let (before, after) = self.bytes.split_at(self.signature_at);
        let mut out = Vec::with_capacity(self.bytes.len() + 384);
        out.extend_from_slice(before);
        out.extend_from_slice(b",\"signature\":");
        let mut object = ObjectWriter::new(&mut out);
        signature.write_fields(&mut object);
        object.finish();
        out.extend_from_slice(after);
        out
    }
}

fn optional(object: &mut ObjectWriter<'_>, key: &'static str, text: Option<&str>) {
    if let Some(text) = text {
        object.text(key, text);
    }
}

fn texts(object: &mut ObjectWriter<'_>, key: &'static str, texts: &[String]) {
    if !texts.is_empty() {
        object.field(key, Field::Texts(texts));
    }
}

fn time(object: &mut ObjectWriter<'_>, key: &'static str, time: Timestamp) {
    let mut text = Vec::with_capacity(32);
    text.push(b'"');
    time.write(&mut text);
    text.push(b'"');
    object.field(key, Field::Canonical(&text));
}

/// Words of the contract as strings.
pub(super) mod spelt {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<T: Display, S: Serializer>(word: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(word)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Optional words of the contract as strings.
mod spelt_option {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(crate) fn serialize<T: Display, S: Serializer>(
        word: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match word {
            Some(word) => serializer.collect_str(word),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse()).transpose().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::IntentRequest;
    use crate::sign::{canonical, digest_of};

    fn intent() -> Intent {
        let text = include_str!("../../tests/vectors/inputs/i04_order.json");
        IntentRequest::from_json(text.as_bytes()).unwrap().normalise().unwrap()
    }

    fn full() -> TraceRecord {
        let mut record = TraceRecord::new(Digest::sha256(b"policy"), &intent(), Verdict::Block);
        record.correlation_id = Some("c\n".into());
        record.violations = vec!["a".into(), "\"b\"".into()];
        record.latency_ms = Some(0.25);
        record.approval_token_ref = Some("t".into());
        record.run_id = Some("run_x".into());
        record.reason_codes = vec!["r".into()];
        record.matched_rule = Some("rule".into());
        record.enforced = Some(false);
        record.simulated_verdict = Some(Verdict::RequireApproval);
        record.target = Some(TraceTarget {
            kind: "path".into(),
            value: "/é".into(),
            operation: "unlink".into(),
            endpoint_class: EndpointClass::FsDelete,
        });
        record.approval = Some(ApprovalRecord { answer: Answer::TimedOut, scope: Scope::Once });
        record.args = serde_json::from_str(r#"{"b":[1,null],"a":"x"}"#).unwrap();
        record
    }

    #[test]
    fn the_hand_written_form_is_the_canonical_one() {
        let key = SigningKey::from_seed([1; 32]);
        for mut record in [full(), TraceRecord::new(Digest::ZERO, &intent(), Verdict::Allow)] {
            assert_eq!(record.signed_digest().unwrap(), digest_of(&record).unwrap());
            record.sign(&key).unwrap();
            assert_eq!(record.canonical().unwrap(), canonical(&record).unwrap());
            let read: TraceRecord = serde_json::from_slice(&record.canonical().unwrap()).unwrap();
            assert_eq!(read, record);
        }
    }

    /// The reference wrote these trace ids for the default-block policy.
    #[test]
    fn trace_ids_equal_the_vectors() {
        let expected: Value =
            serde_json::from_str(include_str!("../../tests/vectors/expected_v17.json")).unwrap();
        let mut seen = 0;
        for row in expected["policy_test"].as_array().unwrap() {
            let (policy, intent) = (row["policy"].as_str().unwrap(), row["intent"].as_str().unwrap());
            let Some(want) = expected["trace_id"][intent].get(policy) else { continue };
            let digest = |key: &str| row[key].as_str().unwrap().parse::<Digest>().unwrap();
            let verdict = row["verdict"].as_str().unwrap().parse().unwrap();
            let id = TraceId::new(&digest("policy_digest"), &digest("intent_digest"), verdict);
            assert_eq!(id.to_string(), want.as_str().unwrap());
            assert_eq!(id.to_string().parse(), Ok(id));
            seen += 1;
        }
        assert_eq!(seen, 9);
    }

    #[test]
    fn files_are_indented_in_the_contracts_order() {
        let text = full().to_file_text().unwrap();
        assert!(text.starts_with("{\n  \"schema_id\": \"gait.gate.trace\",\n  \"schema_version\""));
        assert!(text.ends_with("}\n"));
        let order = ["created_at", "trace_id", "tool_name", "verdict", "skill_provenance", "run_id"];
        let places: Vec<_> = order.iter().map(|key| text.find(&format!("\"{key}\"")).unwrap()).collect();
        assert!(places.is_sorted());
    }
}
