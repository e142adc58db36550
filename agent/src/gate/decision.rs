//! Decisions: a verdict and where it comes from, small enough to cross a process boundary in one word.

use super::Verdict;
use super::reason::Hits;

/// A cap of `exec.limits` that the backend keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `actions_per_second`.
    ActionsPerSecond,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ground {
    /// The rule with this number, in the order of evaluation.
    Rule(u16),
    /// No rule matched.
    Default,
    /// No rule matched an action of class `other`.
    DefaultOther,
    /// No rule named a private address.
    DefaultPrivate,
    /// The protected pattern with this number.
    Protect(u16),
    /// The policy fails closed on what it does not know.
    FailClosed,
    /// The backend never lets this happen, whatever the policy says.
    Never,
    /// It would have gone beyond a limit.
    Limit(Limit),
}

/// What the gate says about one action.
///
/// [`super::CompiledPolicy::explain`] turns it into words; only the policy that made it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    pub(crate) verdict: Verdict,
    pub(crate) ground: Ground,
    pub(crate) hits: Hits,
}

/// The word is not one that [`Decision::to_u64`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a decision: {0:#x}")]
pub struct InvalidDecision(pub u64);

impl Decision {
    /// The decision on what a backend never lets happen, whatever the policy says.
    pub const NEVER: Self = Self { verdict: Verdict::Block, ground: Ground::Never, hits: Hits(0) };

    /// The decision on what would go beyond a limit.
    #[must_use]
    pub const fn beyond(limit: Limit) -> Self {
        Self { verdict: Verdict::Block, ground: Ground::Limit(limit), hits: Hits(0) }
    }

    /// What a kernel decided by rules that were loaded beforehand: it knows the verdict and no reason.
    #[must_use]
    pub const fn preloaded(allowed: bool) -> Self {
        let verdict = if allowed { Verdict::Allow } else { Verdict::Block };
        Self { verdict, ground: Ground::Default, hits: Hits(0) }
    }

    /// Returns the verdict.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        self.verdict
    }

    /// Returns what decided.
    #[must_use]
    pub const fn ground(self) -> Ground {
        self.ground
    }

    /// Packs the decision into one word, never 0.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        let (kind, index) = match self.ground {
            Ground::Rule(index) => (1_u64, index),
            Ground::Default => (2, 0),
            Ground::DefaultOther => (3, 0),
            Ground::DefaultPrivate => (4, 0),
            Ground::Protect(index) => (5, index),
            Ground::FailClosed => (6, 0),
            Ground::Never => (7, 0),
            Ground::Limit(Limit::ActionsPerSecond) => (8, 0),
        };
        kind << 40 | (self.verdict as u64) << 32 | (self.hits.0 as u64) << 16 | index as u64
    }

    /// Unpacks a decision.
    ///
    /// # Errors
    ///
    /// Fails if the word is not one that [`Self::to_u64`] makes.
    pub fn from_u64(word: u64) -> Result<Self, InvalidDecision> {
        let [_, _, kind, verdict, _, hits, high, low] = word.to_be_bytes();
        let index = u16::from_be_bytes([high, low]);
        let ground = match kind {
            1 => Ground::Rule(index),
            2 => Ground::Default,
            3 => Ground::DefaultOther,
            4 => Ground::DefaultPrivate,
            5 => Ground::Protect(index),
            6 => Ground::FailClosed,
            7 => Ground::Never,
            8 => Ground::Limit(Limit::ActionsPerSecond),
            _ => return Err(InvalidDecision(word)),
        };
        let found = Verdict::ALL.into_iter().find(|known| *known as u8 == verdict);
        let decision = Self { verdict: found.ok_or(InvalidDecision(word))?, ground, hits: Hits(hits) };
        // Bits that mean nothing must be 0, or two words would be one decision.
        if decision.to_u64() == word { Ok(decision) } else { Err(InvalidDecision(word)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_decision_comes_back(index: u16, hits in 0_u8..128, verdict in 0_usize..4, ground in 0_usize..8) {
            let ground = [
                Ground::Rule(index),
                Ground::Default,
                Ground::DefaultOther,
                Ground::DefaultPrivate,
                Ground::Protect(index),
                Ground::FailClosed,
                Ground::Never,
                Ground::Limit(Limit::ActionsPerSecond),
            ][ground];
            let decision = Decision { verdict: Verdict::ALL[verdict], ground, hits: Hits(hits) };
            prop_assert_ne!(decision.to_u64(), 0);
            prop_assert_eq!(Decision::from_u64(decision.to_u64()), Ok(decision));
        }

        #[test]
        fn any_word_is_one_decision_or_none(word: u64) {
            if let Ok(decision) = Decision::from_u64(word & 0xf07_ffff_ffff) {
                prop_assert_eq!(decision.to_u64(), word & 0xf07_ffff_ffff);
            }
            prop_assert_eq!(Decision::from_u64(0), Err(InvalidDecision(0)));
        }
    }
}
