//! The gate's answer as a document: the contract's `GateResult` (contract §7.1).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GateOutcome, Verdict};
use crate::document::{Document, DocumentError};
use crate::intent::Intent;
use crate::schema;
use crate::timestamp::Timestamp;

/// What the gate said about one intent. `gait gate eval --json` carries the same words in its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateResult {
    /// `gait.gate.result`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// When the intent arose.
    pub created_at: Timestamp,
    /// The version of the producer.
    pub producer_version: String,
    /// The final verdict. Only `allow` lets the caller act.
    pub verdict: Verdict,
    /// Why, sorted and unique.
    pub reason_codes: Vec<String>,
    /// What the intent violates, sorted and unique.
    pub violations: Vec<String>,
}

impl GateResult {
    /// Makes the document of an outcome.
    #[must_use]
    pub fn new(intent: &Intent, outcome: &GateOutcome) -> Self {
        Self {
            schema_id: schema::GATE_RESULT.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at: intent.created_at(),
            producer_version: schema::PRODUCER_VERSION.to_owned(),
            verdict: outcome.verdict,
            reason_codes: outcome.reason_codes.clone(),
            violations: outcome.violations.clone(),
        }
    }
}

impl Document for GateResult {
    const SCHEMA_ID: &'static str = schema::GATE_RESULT;

    fn check(&self, _object: &Value) -> Result<(), DocumentError> {
        for (at, list) in [("/reason_codes", &self.reason_codes), ("/violations", &self.violations)] {
            if !list.is_sorted_by(|a, b| a < b) {
                return Err(DocumentError::Order(at.to_owned()));
            }
        }
        Ok(())
    }
}
