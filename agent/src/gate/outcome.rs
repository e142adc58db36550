//! What the gate says about an intent, in full.

use crate::gate::Verdict;
use crate::policy::{Approval, Broker, Origin, RateLimit};

/// The gate's answer to one intent, with everything that a result or a record needs.
///
/// `verdict` is that of the policy alone. Rate limits, approvals and credentials need state that the gate does not
/// have; whoever has it applies them and can only make the verdict stricter, or lift `require_approval` by an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateOutcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule that decided, if one did.
    pub matched_rule: Option<String>,
    /// Where that rule stands.
    pub origin: Option<Origin>,
    /// Sorted and unique.
    pub reason_codes: Vec<String>,
    /// Sorted and unique.
    pub violations: Vec<String>,
    /// How many approvals are needed; 0 unless the verdict is `require_approval`.
    pub min_approvals: u32,
    /// Whether they must come from different people.
    pub require_distinct_approvers: bool,
    /// The credential the rule asks for.
    pub broker: Option<Broker>,
    /// The rate limit the rule sets.
    pub rate_limit: Option<RateLimit>,
    /// How approvals of held calls work.
    pub approval: Option<Approval>,
    /// What is said to whom the rule stops.
    pub justification: Option<String>,
}
