//! Verdicts of the contract (`reference_contract.md` section 5.1).

use std::fmt;
use std::str::FromStr;

/// What the policy says about an intent. Ordered by restrictiveness: the strictest of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The action is performed.
    Allow,
    /// The action is judged and recorded, and not performed.
    DryRun,
    /// The action waits for somebody's consent.
    RequireApproval,
    /// The action does not happen.
    Block,
}

impl Verdict {
    /// Every verdict, from the loosest to the strictest.
    pub const ALL: [Self; 4] = [Self::Allow, Self::DryRun, Self::RequireApproval, Self::Block];

    /// Returns the contract's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::DryRun => "dry_run",
            Self::RequireApproval => "require_approval",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown verdict {0:?}, expected one of allow, block, dry_run, require_approval")]
pub struct UnknownVerdict(pub String);

impl FromStr for Verdict {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| UnknownVerdict(text.to_owned()))
    }
}
