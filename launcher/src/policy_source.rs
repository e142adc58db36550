//! Where a policy comes from: a shipped name or a file.
//!
//! Called by every verb that takes a policy.

use gait_agent::policy::{Policy, PolicyErrors, SHIPPED};

/// A policy has mistakes; all of them.
#[derive(Debug, thiserror::Error)]
#[error("policy {name} is not valid")]
pub struct InvalidPolicy {
    /// The policy.
    pub name: String,
    /// Its mistakes.
    #[source]
    pub errors: PolicyErrors,
}

/// Loads a policy: a shipped one by its name, else a file.
///
/// # Errors
///
/// Fails with every mistake of the policy and of those it extends.
pub fn load_policy(name: &str) -> Result<Policy, InvalidPolicy> {
    Policy::load(name).map_err(|errors| InvalidPolicy { name: name.to_owned(), errors })
}

/// Returns the shipped policies, each with its text.
#[must_use]
pub const fn shipped_policies() -> &'static [(&'static str, &'static str)] {
    &SHIPPED
}
