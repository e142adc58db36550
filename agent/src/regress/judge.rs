//! Recorded actions before a policy: the code that judges held calls, asked again.

use std::collections::BTreeMap;

use super::recorded::{Recorded, RecordedError, Session};
use crate::gate::{Decision, Verdict};
use crate::policy::{CompileError, CompiledPolicy, Knowledge, Policy};
use crate::runpack::Runpack;
use crate::sign::Digest;

/// What a policy says of a recorded action, beside what was said then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The same.
    Same,
    /// It depends on what was not recorded: one of these, from loose to strict, by these rules.
    Open(Vec<(Verdict, String)>),
    /// Something else.
    Changed {
        /// The verdict, the strictest if it is not certain.
        now: Verdict,
        /// The rule that says so, or the reason codes where no rule does.
        by: String,
    },
}

/// A policy for one recorded session, and the verdicts that are held against it.
#[derive(Debug)]
pub struct Judge {
    policy: CompiledPolicy,
    /// The policy of the session, which knows something of arguments that were not kept.
    was: Option<CompiledPolicy>,
    /// The policy is the very one that the verdicts come from.
    same_policy: bool,
    expected: BTreeMap<u64, Verdict>,
}

impl Judge {
    /// Binds a policy to a session as `gait exec` bound the one it had.
    ///
    /// `was` is the policy of the session, if it can still be had: what it decided says something of arguments that
    /// were not kept. Another than the recorded one is not used. `held_by` is the digest of the policy that the verdicts come from; `expected` has the verdicts of decisions, by
    /// number, that are to hold instead of the recorded ones.
    ///
    /// # Errors
    ///
    /// Fails if the policy does not fit a session.
    pub fn new(
        policy: &Policy,
        was: Option<&Policy>,
        session: &Session,
        held_by: Option<Digest>,
        expected: BTreeMap<u64, Verdict>,
    ) -> Result<Self, CompileError> {
        let (facts, vars) = session.bindings();
        let same_policy = held_by == Some(policy.digest());
        let compile = |policy| CompiledPolicy::compile(policy, &facts, &vars);
        let was = was.filter(|was| session.policy_digest == Some(was.digest())).map(compile).transpose()?;
        Ok(Self { policy: compile(policy)?, was, same_policy, expected })
    }

    /// Returns the verdict that is held against the policy.
    #[must_use]
    pub fn held(&self, recorded: &Recorded) -> Verdict {
        self.expected.get(&recorded.number).copied().unwrap_or(recorded.verdict)
    }

    /// Judges a recorded action.
    #[must_use]
    pub fn judge(&self, recorded: &Recorded) -> Judgement {
        if recorded.never {
            // No policy has a say in it.
            return Judgement::Same;
        }
        let held = self.held(recorded);
        let action = recorded.action();
        let known = match &self.was {
            Some(was) => was.learn(&action, recorded.unknown, &recorded.by),
            None => Knowledge::default(),
        };
        let possible = self.policy.possible(&action, recorded.unknown, &known);
        let says = |verdict| possible.iter().any(|decision| decision.verdict() == verdict);
        let certain = possible.windows(2).all(|pair| matches!(pair, [a, b] if a.verdict() == b.verdict()));
        if says(held) {
            // Under the same policy the same arguments give the same decision, whatever they were.
            return if certain || self.same_policy { Judgement::Same } else { self.open(&possible) };
        }
        if self.same_policy && recorded.perhaps_unasked && says(Verdict::RequireApproval) {
            return Judgement::Same;
        }
        let strictest = possible.iter().max_by_key(|decision| decision.verdict());
        strictest.map_or(Judgement::Same, |&decision| Judgement::Changed {
            now: decision.verdict(),
            by: self.by(decision),
        })
    }

    fn open(&self, possible: &[Decision]) -> Judgement {
        let mut all: Vec<_> =
            possible.iter().map(|&decision| (decision.verdict(), self.by(decision))).collect();
        all.sort();
        all.dedup();
        Judgement::Open(all)
    }

    fn by(&self, decision: Decision) -> String {
        let why = self.policy.explain(decision);
        why.matched_rule.unwrap_or_else(|| why.reason_codes.join(","))
    }

    /// Judges every decision of a session and hands each with its judgement to `each`.
    ///
    /// # Errors
    ///
    /// Fails if the runpack cannot be read.
    pub fn replay(
        &self,
        session: &Session,
        runpack: &mut Runpack,
        mut each: impl FnMut(&Recorded, Judgement),
    ) -> Result<(), RecordedError> {
        session.decisions(runpack, |recorded| {
            let judgement = self.judge(&recorded);
            each(&recorded, judgement);
        })
    }
}
