//! Approval tokens: signed consent of a named person to one intent under one policy, for a time.

use std::collections::BTreeSet;
use std::path::Path;

use gait_agent::intent::Intent;
use gait_agent::schema;
use gait_agent::sign::{
    CanonError, Digest, Limits, ParseError, Signature, SigningKey, VerifyKey, digest_of, parse_strict,
};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::TraceId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::input::{self, InputError};

const TOKEN_SCHEMA: &str = "gait.gate.approval_token";
const AUDIT_SCHEMA: &str = "gait.gate.approval_audit_record";
const TOKEN_BYTES: u64 = 64 << 10;
/// The scope that satisfies every other.
const ANY_SCOPE: &str = "*";

/// A token cannot be read at all. One that can and does not count is an entry of the audit record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] InputError),
    /// Not JSON that means one thing.
    #[error("approval token {path} is not strict JSON")]
    Parse {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// JSON of another shape, or with restrictions that this version does not know and so cannot honour.
    #[error("{path} is not an approval token")]
    Shape {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The token cannot be digested.
    #[error("approval token cannot be digested")]
    Canon(#[from] CanonError),
}

/// The consent of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalToken {
    /// `gait.gate.approval_token`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// When it was given.
    pub created_at: Timestamp,
    /// The version of the producer.
    pub producer_version: String,
    /// Its name.
    pub token_id: String,
    /// Who gave it.
    pub approver_identity: String,
    /// Why.
    pub reason_code: String,
    /// The intent.
    pub intent_digest: String,
    /// The policy that asked.
    pub policy_digest: String,
    /// What it covers, such as `tool:<name>` or `*`.
    pub scope: Vec<String>,
    /// Until when it holds.
    pub expires_at: Timestamp,
    /// The signature over all other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// What somebody consents to.
#[derive(Debug, Clone)]
pub struct Consent {
    /// Who.
    pub approver: String,
    /// Why.
    pub reason_code: String,
    /// To which intent.
    pub intent_digest: Digest,
    /// Under which policy.
    pub policy_digest: Digest,
    /// For what; sorted and made lower-case.
    pub scope: Vec<String>,
    /// Until when.
    pub expires_at: Timestamp,
}

impl ApprovalToken {
    /// Makes the unsigned token of a consent.
    #[must_use]
    pub fn new(consent: Consent, now: Timestamp) -> Self {
        let scope: BTreeSet<_> = consent.scope.iter().map(|scope| scope.trim().to_lowercase()).collect();
        let scope: Vec<_> = scope.into_iter().filter(|scope| !scope.is_empty()).collect();
        let Consent { approver, reason_code, intent_digest, policy_digest, expires_at, .. } = consent;
        let joined = scope.join(",");
        let named = format!("{intent_digest}:{policy_digest}:{approver}:{reason_code}:{joined}:{expires_at}");
        let mut token_id = Digest::sha256(named.as_bytes()).to_string();
        token_id.truncate(24);
        Self {
            schema_id: TOKEN_SCHEMA.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at: now,
            producer_version: schema::PRODUCER_VERSION.to_owned(),
            token_id,
            approver_identity: approver,
            reason_code,
            intent_digest: intent_digest.to_string(),
            policy_digest: policy_digest.to_string(),
            scope,
            expires_at,
            signature: None,
        }
    }

    /// Signs the token.
    ///
    /// # Errors
    ///
    /// Fails if the token has no canonical form.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), CanonError> {
        self.signature = None;
        self.signature = Some(key.sign_digest(&digest_of(&*self)?));
        Ok(())
    }
}

/// A token as read, with the digest that its signature must cover.
#[derive(Debug, Clone)]
pub struct PresentedToken {
    token: ApprovalToken,
    digest: Digest,
}

/// Reads a token file.
///
/// # Errors
///
/// Fails if it cannot be read or is no token.
pub fn read(path: &Path) -> Result<PresentedToken, TokenError> {
    parse(&input::read("approval token", path, TOKEN_BYTES)?, path)
}

/// Reads a token; `path` is where it came from.
///
/// # Errors
///
/// Fails if it is no token.
pub fn parse(bytes: &[u8], path: &Path) -> Result<PresentedToken, TokenError> {
    let shown = || path.display().to_string();
    let mut value = parse_strict(bytes, Limits::DOCUMENT)
        .map_err(|source| TokenError::Parse { path: shown(), source })?;
    let token = serde_json::from_value(value.clone())
        .map_err(|source| TokenError::Shape { path: shown(), source })?;
    if let Value::Object(object) = &mut value {
        object.remove("signature");
    }
    Ok(PresentedToken { token, digest: digest_of(&value)? })
}

/// What must be approved, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Required<'a> {
    /// The intent.
    pub intent: &'a Intent,
    /// The digest of the policy.
    pub policy_digest: Digest,
    /// How many valid tokens it takes, at least 1.
    pub approvals: usize,
    /// Whether the people must differ even if one approval suffices twice over.
    pub distinct: bool,
    /// The time of the check.
    pub now: Timestamp,
    /// The key that tokens must be signed with.
    pub key: &'a VerifyKey,
}

/// What the presented tokens amount to.
#[derive(Debug, Clone)]
pub struct Approvals {
    /// Whether they suffice.
    pub granted: bool,
    /// Reason codes that the decision gains.
    pub reason_codes: Vec<String>,
    /// How many tokens count.
    pub valid: usize,
    /// The ids of those that count, sorted.
    pub token_ids: Vec<String>,
    entries: Vec<AuditEntry>,
}

/// Judges the presented tokens.
#[must_use]
pub fn judge(tokens: &[PresentedToken], required: &Required<'_>) -> Approvals {
    let mut reasons = BTreeSet::new();
    let mut counted = BTreeSet::new();
    let mut token_ids = BTreeSet::new();
    let mut approvers = BTreeSet::new();
    let mut entries = Vec::new();
    for presented in tokens {
        let error = check(presented, required).err();
        if let Some(code) = error {
            reasons.insert(code);
        } else if counted.insert(presented.digest) {
            // The same token twice is one approval.
            token_ids.insert(presented.token.token_id.clone());
            approvers.insert(presented.token.approver_identity.trim().to_owned());
        }
        entries.push(AuditEntry::new(&presented.token, error));
    }
    let (valid, needed) = (counted.len(), required.approvals.max(1));
    let distinct = required.distinct || needed > 1;
    let enough = valid >= needed;
    let granted = enough && (!distinct || approvers.len() >= needed);
    if granted {
        // Tokens that do not count stay in the audit record; the decision does not rest on them.
        reasons = BTreeSet::from(["approval_granted"]);
    } else if tokens.is_empty() {
        reasons.insert("approval_token_missing");
    } else if enough {
        reasons.insert("approval_distinct_approvers_required");
    } else {
        reasons.insert("approval_chain_insufficient");
    }
    Approvals {
        granted,
        reason_codes: reasons.into_iter().map(str::to_owned).collect(),
        valid,
        token_ids: token_ids.into_iter().collect(),
        entries,
    }
}

/// Checks one token, in the contract's order.
fn check(presented: &PresentedToken, required: &Required<'_>) -> Result<(), &'static str> {
    let PresentedToken { token, digest } = presented;
    let complete = [&token.token_id, &token.approver_identity, &token.reason_code]
        .iter()
        .all(|field| !field.trim().is_empty());
    if token.schema_id != TOKEN_SCHEMA || token.schema_version != schema::VERSION || !complete {
        return Err("approval_token_invalid");
    }
    let Some(signature) = &token.signature else { return Err("approval_token_signature_missing") };
    if required.key.verify_digest(digest, signature).is_err() {
        return Err("approval_token_signature_invalid");
    }
    if token.intent_digest != required.intent.intent_digest().to_string() {
        return Err("approval_token_intent_mismatch");
    }
    if token.policy_digest != required.policy_digest.to_string() {
        return Err("approval_token_policy_mismatch");
    }
    if token.expires_at <= required.now {
        return Err("approval_token_expired");
    }
    let tool = format!("tool:{}", required.intent.tool_name());
    if !token.scope.iter().any(|scope| scope == ANY_SCOPE || *scope == tool) {
        return Err("approval_token_scope_mismatch");
    }
    Ok(())
}

/// One presented token in the audit record.
#[derive(Debug, Clone, Serialize)]
struct AuditEntry {
    token_id: String,
    approver_identity: String,
    reason_code: String,
    scope: Vec<String>,
    expires_at: Timestamp,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
}

impl AuditEntry {
    fn new(token: &ApprovalToken, error_code: Option<&'static str>) -> Self {
        Self {
            token_id: token.token_id.clone(),
            approver_identity: token.approver_identity.clone(),
            reason_code: token.reason_code.clone(),
            scope: token.scope.clone(),
            expires_at: token.expires_at,
            valid: error_code.is_none(),
            error_code,
        }
    }
}

/// The record of who approved what; written whenever approvals were required.
#[derive(Debug, Serialize)]
pub struct AuditRecord<'a> {
    schema_id: &'static str,
    schema_version: &'static str,
    created_at: Timestamp,
    producer_version: &'static str,
    trace_id: TraceId,
    tool_name: &'a str,
    intent_digest: Digest,
    policy_digest: Digest,
    required_approvals: usize,
    valid_approvals: usize,
    approved: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approvers: Vec<&'a str>,
    entries: &'a [AuditEntry],
}

impl<'a> AuditRecord<'a> {
    /// Makes the record of a judged set of tokens.
    #[must_use]
    pub fn new(trace_id: TraceId, required: &Required<'a>, approvals: &'a Approvals) -> Self {
        let approvers: BTreeSet<_> = approvals
            .entries
            .iter()
            .filter(|entry| entry.valid)
            .map(|entry| entry.approver_identity.as_str())
            .collect();
        Self {
            schema_id: AUDIT_SCHEMA,
            schema_version: schema::VERSION,
            created_at: required.intent.created_at(),
            producer_version: schema::PRODUCER_VERSION,
            trace_id,
            tool_name: required.intent.tool_name(),
            intent_digest: required.intent.intent_digest(),
            policy_digest: required.policy_digest,
            required_approvals: required.approvals.max(1),
            valid_approvals: approvals.valid,
            approved: approvals.granted,
            approvers: approvers.into_iter().collect(),
            entries: &approvals.entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use gait_agent::intent::IntentRequest;

    use super::*;

    fn intent() -> Intent {
        let request = r#"{"schema_id": "gait.gate.intent_request", "schema_version": "1.0.0", "tool_name": "tool.pay",
            "targets": [{"kind": "url", "value": "https://a.example"}],
            "context": {"identity": "a", "workspace": "/w", "risk_class": "high"}}"#;
        IntentRequest::from_json(request.as_bytes()).unwrap().normalise().unwrap()
    }

    fn key() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn token(approver: &str, change: impl FnOnce(&mut ApprovalToken)) -> PresentedToken {
        let mut token = ApprovalToken {
            schema_id: TOKEN_SCHEMA.into(),
            schema_version: "1.0.0".into(),
            created_at: Timestamp::UNSET,
            producer_version: "x".into(),
            token_id: format!("token_{approver}"),
            approver_identity: approver.into(),
            reason_code: "ticket".into(),
            intent_digest: intent().intent_digest().to_string(),
            policy_digest: Digest::ZERO.to_string(),
            scope: vec!["tool:tool.pay".into()],
            expires_at: Timestamp::from_unix_nanos(2_000_000_000_000_000_000),
            signature: None,
        };
        change(&mut token);
        let digest = digest_of(&ApprovalToken { signature: None, ..token.clone() }).unwrap();
        if token.signature.is_none() {
            token.sign(&key()).unwrap();
        }
        PresentedToken { token, digest }
    }

    fn judged(tokens: &[PresentedToken], approvals: usize) -> Approvals {
        let (intent, key) = (intent(), key().verify_key());
        let now = Timestamp::from_unix_nanos(1_900_000_000_000_000_000);
        let policy_digest = Digest::ZERO;
        judge(
            tokens,
            &Required { intent: &intent, policy_digest, approvals, distinct: false, now, key: &key },
        )
    }

    #[test]
    fn each_defect_has_its_code() {
        type Change = fn(&mut ApprovalToken);
        let cases: [(&str, Change); 7] = [
            ("approval_token_invalid", |token| token.schema_id = "other".into()),
            ("approval_token_invalid", |token| token.approver_identity = " ".into()),
            ("approval_token_intent_mismatch", |token| token.intent_digest = Digest::ZERO.to_string()),
            ("approval_token_policy_mismatch", |token| token.policy_digest = "0".into()),
            ("approval_token_expired", |token| token.expires_at = Timestamp::UNSET),
            ("approval_token_scope_mismatch", |token| token.scope = vec!["tool:other".into()]),
            ("approval_token_signature_invalid", |token| {
                token.sign(&SigningKey::from_seed([2; 32])).unwrap();
            }),
        ];
        for (code, change) in cases {
            let approvals = judged(&[token("ann", change)], 1);
            assert!(!approvals.granted, "{code}");
            assert_eq!(approvals.reason_codes, ["approval_chain_insufficient", code], "{code}");
        }
        let mut unsigned = token("ann", |_| {});
        unsigned.token.signature = None;
        assert_eq!(judged(&[unsigned], 1).entries[0].error_code, Some("approval_token_signature_missing"));
        assert_eq!(judged(&[], 1).reason_codes, ["approval_token_missing"]);
    }

    #[test]
    fn two_approvals_take_two_people_and_two_tokens() {
        let ann = token("ann", |_| {});
        assert!(judged(std::slice::from_ref(&ann), 1).granted);
        assert_eq!(judged(&[ann.clone(), ann.clone()], 2).valid, 1);
        let again = token("ann", |token| token.token_id = "other".into());
        let same_person = judged(&[ann.clone(), again], 2);
        assert_eq!(same_person.reason_codes, ["approval_distinct_approvers_required"]);
        let both = judged(&[ann, token("bob", |token| token.scope = vec!["*".into()])], 2);
        assert!(both.granted);
        assert_eq!(both.token_ids, ["token_ann", "token_bob"]);
        assert_eq!(both.reason_codes, ["approval_granted"]);
    }

    #[test]
    fn a_token_with_unknown_restrictions_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.json");
        let text = serde_json::to_string(&token("ann", |_| {}).token).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert!(judged(&[read(&path).unwrap()], 1).granted);
        std::fs::write(&path, text.replacen('{', "{\"max_targets\":1,", 1)).unwrap();
        assert!(matches!(read(&path), Err(TokenError::Shape { .. })));
    }

    #[test]
    fn an_audit_without_tokens_has_an_empty_list() {
        let (intent, key) = (intent(), key().verify_key());
        let required = Required {
            intent: &intent,
            policy_digest: Digest::ZERO,
            approvals: 0,
            distinct: false,
            now: Timestamp::UNSET,
            key: &key,
        };
        let approvals = judge(&[], &required);
        let trace_id = "0".repeat(24).parse().unwrap();
        let value = serde_json::to_value(AuditRecord::new(trace_id, &required, &approvals)).unwrap();
        assert_eq!(value["entries"], serde_json::json!([]));
        assert_eq!(value["required_approvals"], 1);
    }
}
