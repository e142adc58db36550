//! Why a family is there, and what to do about it: rules over reason codes, nothing else.

use std::collections::BTreeSet;

use serde::Serialize;

use super::contract::contains_any;
use crate::gate::Verdict;
use crate::intent::{ContextRequest, IntentRequest, ProvenanceRequest, TargetRequest};
use crate::schema;
use crate::sign::Digest;
use crate::trace::TraceTarget;

/// The contract's categories, with the words that tell a reason belongs to one; the first match counts.
const DRIVERS: [(&str, &[&str]); 4] = [
    ("policy_change", &["policy", "approval", "blocked", "credential", "violation"]),
    ("tool_result_shape_change", &["diff", "schema", "result_status", "grader", "unexpected_exit_code"]),
    ("reference_set_change", &["ref", "receipt", "retrieval", "source"]),
    ("configuration_change", &["config", "nondeterministic", "runtime", "timeout"]),
];
/// What is left when no reason tells.
const UNKNOWN_DRIVER: &str = "configuration_change";
/// What stopped something in a session: a policy, whatever its reasons are called.
const STOPPED_DRIVER: &str = "policy_change";

/// Names what is behind the reasons, sorted.
pub(super) fn drivers(reasons: &BTreeSet<String>, stopped: bool) -> Vec<&'static str> {
    let of_reason = |reason: &String| {
        let lower = reason.to_lowercase();
        DRIVERS.into_iter().find(|(_, words)| contains_any(&lower, words)).map(|(driver, _)| driver)
    };
    let mut drivers: BTreeSet<&str> = if stopped {
        // The names of rules are the policy's own and tell no cause: `no-config-writes` is no change of configuration.
        let others = reasons.iter().filter(|reason| !of_policy(reason));
        others.filter_map(of_reason).chain([STOPPED_DRIVER]).collect()
    } else {
        reasons.iter().filter_map(of_reason).collect()
    };
    if drivers.is_empty() {
        drivers.insert(UNKNOWN_DRIVER);
    }
    drivers.into_iter().collect()
}

/// Whether a session's policy gave the reason.
fn of_policy(reason: &str) -> bool {
    !["result_status_", "unexpected_", "regress_"].iter().any(|prefix| reason.starts_with(prefix))
}

/// A stopped action as a policy fixture: an intent to judge, and the words for a rule's examples. Values are those of
/// the evidence, in fields of their own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fixture {
    /// What the policy said.
    pub verdict: Verdict,
    /// The rule that said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_rule: Option<String>,
    /// The action in the words of a rule's `examples` and of `gait why`.
    pub example: String,
    /// The digest of the recorded intent.
    pub recorded_intent_digest: Digest,
    /// The action as an intent for `gait policy test`.
    pub intent: IntentRequest,
}

impl Fixture {
    /// Makes the fixture of a stopped action.
    pub(super) fn new(
        target: &TraceTarget,
        verdict: Verdict,
        matched_rule: Option<String>,
        recorded_intent_digest: Digest,
    ) -> Self {
        let class = target.endpoint_class;
        let intent = IntentRequest {
            schema_id: schema::INTENT_REQUEST.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at: crate::timestamp::Timestamp::UNSET.to_string(),
            producer_version: schema::PRODUCER_VERSION.to_owned(),
            tool_name: format!("os.{class}"),
            targets: vec![TargetRequest {
                kind: target.kind.clone(),
                value: target.value.clone(),
                operation: target.operation.clone(),
                endpoint_class: class.to_string(),
                ..TargetRequest::default()
            }],
            arg_provenance: vec![ProvenanceRequest {
                arg_path: "$".to_owned(),
                source: "system".to_owned(),
                ..ProvenanceRequest::default()
            }],
            context: ContextRequest {
                // Whoever it was: a fixture is about the action.
                identity: "fixture".to_owned(),
                workspace: "/workspace".to_owned(),
                risk_class: class.risk_class().to_owned(),
                ..ContextRequest::default()
            },
            ..IntentRequest::default()
        };
        let example = format!("{class}:{} {}", target.operation, target.value);
        Self { verdict, matched_rule, example, recorded_intent_digest, intent }
    }
}

/// A next step. The texts are fixed; what comes from data is in `fixtures`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suggestion {
    /// `policy_fixture`, `regress_fixture` or `configuration`.
    pub kind: &'static str,
    /// What to do.
    pub summary: &'static str,
    /// Where.
    pub likely_scope: &'static str,
    /// Stopped actions of the canonical run, at most three. Additive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixtures: Vec<Fixture>,
}

/// Suggests one step per driver; the fixtures go with the policy.
pub(super) fn suggestions(drivers: &[&str], fixtures: &[Fixture]) -> Vec<Suggestion> {
    let one = |driver: &&str| {
        let (kind, summary, likely_scope) = match *driver {
            "policy_change" => (
                "policy_fixture",
                "Pin what the policy says of the action with a fixture: save the intent and check it with `gait policy test POLICY INTENT`.",
                "policy file + intent fixtures",
            ),
            "tool_result_shape_change" => (
                "regress_fixture",
                "Make the canonical run a regression fixture with `gait regress bootstrap --from RUN_ID`, then keep `gait regress run` green.",
                "fixtures/* + gait.yaml",
            ),
            "reference_set_change" => (
                "regress_fixture",
                "Fix which sources the run draws on, record it again, and compare the two with `gait run diff`.",
                "receipts of the run",
            ),
            _ => (
                "configuration",
                "Fix versions and settings of the tools and the runtime, then record the run again.",
                "runtime and CI configuration",
            ),
        };
        let fixtures = if kind == "policy_fixture" { fixtures.to_vec() } else { Vec::new() };
        Suggestion { kind, summary, likely_scope, fixtures }
    };
    drivers.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(reasons: &[&str]) -> BTreeSet<String> {
        reasons.iter().map(|&reason| reason.to_owned()).collect()
    }

    #[test]
    fn the_first_row_that_matches_a_reason_counts() {
        assert_eq!(drivers(&set(&["result_status_error"]), false), ["tool_result_shape_change"]);
        assert_eq!(drivers(&set(&["schema_violation"]), false), ["policy_change"]);
        assert_eq!(
            drivers(&set(&["missing_ref", "timeout", "approval_required"]), false),
            ["configuration_change", "policy_change", "reference_set_change"]
        );
        assert_eq!(drivers(&set(&[]), false), ["configuration_change"]);
        assert_eq!(drivers(&set(&["default_block"]), false), ["configuration_change"]);
    }

    #[test]
    fn the_name_of_a_rule_is_no_cause() {
        assert_eq!(drivers(&set(&["matched_rule_no_config_diff"]), true), ["policy_change"]);
        let with_regress = set(&["matched_rule_x", "unexpected_diff"]);
        assert_eq!(drivers(&with_regress, true), ["policy_change", "tool_result_shape_change"]);
    }

    #[test]
    fn every_driver_has_one_step_of_the_contracts_kinds() {
        let all: Vec<_> = DRIVERS.iter().map(|(driver, _)| *driver).collect();
        let kinds: Vec<_> = suggestions(&all, &[]).iter().map(|one| one.kind).collect();
        assert_eq!(kinds, ["policy_fixture", "regress_fixture", "regress_fixture", "configuration"]);
    }
}
