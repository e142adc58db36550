//! Checking trace records, one at a time.
//!
//! [`verify_trace`] takes a record in any form that a producer may write; the lines of a runpack are held to the one
//! form that gait writes, which is also faster.

use super::record::{TraceId, TraceRecord};
use crate::schema;
use crate::sign::{
    CanonError, Digest, Limits, ParseError, Signature, SignatureError, VerifyKey, digest_of, parse_strict,
};

/// A trace record does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Not JSON that means one thing.
    #[error("trace record is not strict JSON")]
    Parse(#[from] ParseError),
    /// JSON of another shape.
    #[error("not a trace record")]
    Shape(#[source] serde_json::Error),
    /// Another document, or one of another generation.
    #[error("unsupported schema {id} {version}")]
    Schema {
        /// Its `schema_id`.
        id: String,
        /// Its `schema_version`.
        version: String,
    },
    /// Not written in canonical form.
    #[error("trace record is not in canonical form")]
    Form,
    /// No canonical form.
    #[error("trace record cannot be digested")]
    Canon(#[from] CanonError),
    /// The name does not belong to policy, intent and verdict.
    #[error("trace_id {found} should be {expected}")]
    TraceId {
        /// The name it has.
        found: TraceId,
        /// The name it should have.
        expected: TraceId,
    },
    /// Unsigned.
    #[error("trace record has no signature")]
    Unsigned,
    /// The signature does not hold.
    #[error("trace signature does not hold")]
    Signature(#[from] SignatureError),
}

impl TraceError {
    /// Returns the stable code of what is wrong.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Parse(error) => error.code(),
            Self::Shape(_) => "wrong_shape",
            Self::Schema { .. } => "wrong_generation",
            Self::Form => "not_canonical",
            Self::Canon(_) => "not_json",
            Self::TraceId { .. } => "id_mismatch",
            Self::Unsigned => "signature_missing",
            Self::Signature(_) => "signature_invalid",
        }
    }
}

fn check_names(record: &TraceRecord) -> Result<(), TraceError> {
    if record.schema_id != schema::TRACE || record.schema_version != schema::VERSION {
        let (id, version) = (record.schema_id.clone(), record.schema_version.clone());
        return Err(TraceError::Schema { id, version });
    }
    let expected = TraceId::new(&record.policy_digest, &record.intent_digest, record.verdict);
    if record.trace_id != expected {
        return Err(TraceError::TraceId { found: record.trace_id, expected });
    }
    Ok(())
}

/// Reads a trace file without checking its signature.
///
/// # Errors
///
/// Fails if it is not a trace record of this generation, or named wrongly. Returns the digest that a signature must cover.
pub fn read_trace(bytes: &[u8]) -> Result<(TraceRecord, Digest), TraceError> {
    let mut value = parse_strict(bytes, Limits::DOCUMENT)?;
    let Some(object) = value.as_object_mut() else {
        return Err(TraceError::Shape(serde::de::Error::custom("not an object")));
    };
    let record: TraceRecord = serde_json::from_value(object.clone().into()).map_err(TraceError::Shape)?;
    check_names(&record)?;
    object.remove("signature");
    Ok((record, digest_of(&value)?))
}

/// Verifies a trace file.
///
/// # Errors
///
/// Says what does not hold.
pub fn verify_trace(bytes: &[u8], key: &VerifyKey) -> Result<TraceRecord, TraceError> {
    let (record, digest) = read_trace(bytes)?;
    let signature = record.signature.as_ref().ok_or(TraceError::Unsigned)?;
    key.verify_digest(&digest, signature)?;
    Ok(record)
}

/// Reads a line of `traces.jsonl`, without its newline, and checks everything but its signature. Returns the digest that
/// the signature must cover; a record without a signature is refused.
pub(crate) fn read_line(bytes: &[u8]) -> Result<(TraceRecord, Signature, Digest), TraceError> {
    let mut record: TraceRecord = serde_json::from_slice(bytes).map_err(TraceError::Shape)?;
    let unsigned = record.unsigned()?;
    let Some(signature) = record.signature.take() else {
        check_names(&record)?;
        return Err(TraceError::Unsigned);
    };
    if unsigned.with(&signature) != bytes {
        return Err(TraceError::Form);
    }
    check_names(&record)?;
    Ok((record, signature, unsigned.digest()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::gate::Verdict;
    use crate::intent::IntentRequest;
    use crate::sign::SigningKey;

    fn signed() -> (TraceRecord, VerifyKey) {
        let text = include_str!("../../tests/vectors/inputs/i04_order.json");
        let intent = IntentRequest::from_json(text.as_bytes()).unwrap().normalise().unwrap();
        let mut record = TraceRecord::new(Digest::sha256(b"p"), &intent, Verdict::Block);
        let key = SigningKey::from_seed([3; 32]);
        record.latency_ms = Some(0.5);
        record.sign(&key).unwrap();
        (record, key.verify_key())
    }

    #[test]
    fn a_signed_record_holds_in_both_forms() {
        let (record, key) = signed();
        assert_eq!(verify_trace(record.to_file_text().unwrap().as_bytes(), &key).unwrap(), record);
        let (read, signature, digest) = read_line(&record.canonical().unwrap()).unwrap();
        key.verify_digest(&digest, &signature).unwrap();
        assert_eq!(TraceRecord { signature: Some(signature), ..read }, record);
        assert!(matches!(read_line(record.to_file_text().unwrap().as_bytes()), Err(TraceError::Form)));
    }

    #[test]
    fn any_changed_field_breaks_it() {
        let (record, key) = signed();
        let value = serde_json::to_value(&record).unwrap();
        let mut checked = 0;
        for field in value.as_object().unwrap().keys() {
            let mut changed = value.clone();
            changed.as_object_mut().unwrap().remove(field);
            let bytes = serde_json::to_vec(&changed).unwrap();
            assert!(verify_trace(&bytes, &key).is_err(), "without {field}");
            checked += 1;
        }
        assert!(checked > 12);
        let mut changed = value.clone();
        changed["verdict"] = Value::from("allow");
        let error = verify_trace(&serde_json::to_vec(&changed).unwrap(), &key).unwrap_err();
        assert!(matches!(error, TraceError::TraceId { .. }));
        let mut changed = value;
        changed["tool_name"] = Value::from("other");
        let error = verify_trace(&serde_json::to_vec(&changed).unwrap(), &key).unwrap_err();
        assert!(matches!(error, TraceError::Signature(SignatureError::Digest)));
    }

    /// Other generations add fields: their files verify, but no line of ours may have one.
    #[test]
    fn unknown_fields_are_covered_by_the_signature() {
        let (record, key) = signed();
        let signer = SigningKey::from_seed([3; 32]);
        let mut value = serde_json::to_value(&record).unwrap();
        value.as_object_mut().unwrap().remove("signature");
        value["observed_at"] = Value::from("2026-01-02T03:04:05Z");
        value["signature"] = serde_json::to_value(signer.sign_digest(&digest_of(&value).unwrap())).unwrap();
        let bytes = crate::sign::canonical(&value).unwrap();
        assert_eq!(verify_trace(&bytes, &key).unwrap().trace_id, record.trace_id);
        assert!(matches!(read_line(&bytes), Err(TraceError::Form)));
        value["observed_at"] = Value::from("2026-01-02T03:04:06Z");
        assert!(verify_trace(&serde_json::to_vec(&value).unwrap(), &key).is_err());
    }

    #[test]
    fn another_key_and_a_second_key_are_refused() {
        let (record, key) = signed();
        let text = record.to_file_text().unwrap();
        let other = SigningKey::from_seed([4; 32]).verify_key();
        let error = verify_trace(text.as_bytes(), &other).unwrap_err();
        assert!(matches!(error, TraceError::Signature(SignatureError::Key { .. })));
        let twice = text.replacen('{', "{\"verdict\":\"allow\",", 1);
        assert!(matches!(verify_trace(twice.as_bytes(), &key), Err(TraceError::Parse(_))));
    }
}
