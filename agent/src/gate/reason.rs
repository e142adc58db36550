//! Reason codes and violations that the gate itself raises.

use crate::gate::{Limit, Verdict};

/// The workload tried to change what the policy protects.
pub const PROTECTED_PATH: &str = "protected_path";
/// The backend never lets this happen, whatever the policy says.
pub const NEVER_ALLOWED: &str = "never_allowed";
/// More actions than `exec.limits.actions_per_second` grants.
pub const LIMIT_ACTIONS_PER_SECOND: &str = "limit_actions_per_second";
/// Nothing in the policy speaks of this action of class `other`.
pub const DEFAULT_BLOCK_OTHER: &str = "default_block_other";
/// No rule names the private address.
pub const DEFAULT_BLOCK_PRIVATE: &str = "default_block_private_address";
/// The class of a target is unknown, and the policy fails closed.
pub const CLASS_UNKNOWN: &str = "fail_closed_endpoint_class_unknown";
/// The violation that goes with [`CLASS_UNKNOWN`].
pub const VIOLATION_CLASS_UNKNOWN: &str = "endpoint_class_unknown";
/// The policy's patterns do not fit the intent's workspace.
pub const POLICY_UNBOUND: &str = "fail_closed_policy_unbound";

/// Returns the reason code of what would go beyond a limit.
#[must_use]
pub const fn of_limit(limit: Limit) -> &'static str {
    match limit {
        Limit::ActionsPerSecond => LIMIT_ACTIONS_PER_SECOND,
    }
}

/// Returns the reason code where no rule matches.
#[must_use]
pub const fn of_default(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "default_allow",
        Verdict::DryRun => "default_dry_run",
        Verdict::RequireApproval => "default_require_approval",
        Verdict::Block => "default_block",
    }
}

/// Which constraints of a rule were violated: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hits(pub(crate) u8);

impl Hits {
    pub(crate) const PATH_DENIED: Self = Self(1);
    pub(crate) const PATH_NOT_ALLOWLISTED: Self = Self(1 << 1);
    pub(crate) const DOMAIN_DENIED: Self = Self(1 << 2);
    pub(crate) const DOMAIN_NOT_ALLOWLISTED: Self = Self(1 << 3);
    pub(crate) const EGRESS: Self = Self(1 << 4);
    pub(crate) const DESTRUCTIVE: Self = Self(1 << 5);
    pub(crate) const DATAFLOW: Self = Self(1 << 6);

    /// The violations of endpoint constraints: set member, reason code, violation.
    pub(crate) const ENDPOINT: [(Self, &'static str, &'static str); 6] = [
        (Self::PATH_DENIED, "endpoint_path_denied", "endpoint_path_denied"),
        (Self::PATH_NOT_ALLOWLISTED, "endpoint_path_not_allowlisted", "endpoint_path_not_allowlisted"),
        (Self::DOMAIN_DENIED, "endpoint_domain_denied", "endpoint_domain_denied"),
        (Self::DOMAIN_NOT_ALLOWLISTED, "endpoint_domain_not_allowlisted", "endpoint_domain_not_allowlisted"),
        (Self::EGRESS, "endpoint_egress_class_not_allowed", "endpoint_egress_class_not_allowed"),
        (Self::DESTRUCTIVE, "endpoint_destructive_operation", "destructive_operation"),
    ];

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns whether an endpoint constraint was violated.
    pub(crate) const fn endpoint(self) -> bool {
        self.0 & !Self::DATAFLOW.0 != 0
    }
}
