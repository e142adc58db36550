//! What the tables do not decide, and why: for people who wonder what a policy costs.

use std::fmt;

use super::super::model::Policy;
use super::super::source::Origin;
use super::nfa::Map;
use crate::endpoint::Operation;

/// Why an action is held and left to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Somebody must agree.
    Approval,
    /// The action is judged and not performed.
    DryRun,
    /// It hangs on the arguments of the new program.
    Arguments,
    /// It hangs on the program that acts, which is not known.
    Image,
    /// It hangs on the rule's `endpoint` or `dataflow`, whose lists the tables do not hold.
    Constraint,
    /// No path was found to ask the gate about.
    NoWitness,
    /// The gate was asked about a path and said something else. A mistake of this module, and no danger.
    Doubt,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Approval => "somebody must agree",
            Self::DryRun => "it is judged and not performed",
            Self::Arguments => "it hangs on the arguments of the program",
            Self::Image => "it hangs on the acting program, which is not known",
            Self::Constraint => "the lists of `endpoint` and `dataflow` are not in the tables",
            Self::NoWitness => "no path is known that could be asked about",
            Self::Doubt => "the gate says otherwise about a path that was tried",
        })
    }
}

/// A rule that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name and where it stands; none for the default verdict.
    pub rule: Option<(String, Origin)>,
    /// For which operations, in the order of the table.
    pub operations: Vec<Operation>,
    /// Why.
    pub why: Why,
}

/// Everything that is held, under construction.
#[derive(Debug, Default)]
pub(super) struct Notes(Map<(Option<usize>, Why), u64>);

impl Notes {
    pub(super) fn add(&mut self, rule: Option<usize>, why: Why, operation: Operation) {
        *self.0.entry((rule, why)).or_default() |= 1 << operation as u8;
    }

    /// In the order of the rules, the default last.
    pub(super) fn list(self, policy: &Policy) -> Vec<Held> {
        let mut notes: Vec<_> = self.0.into_iter().collect();
        notes.sort_unstable_by_key(|&((rule, why), _)| (rule.is_none(), rule, why));
        notes
            .into_iter()
            .map(|((rule, why), mask)| Held {
                rule: rule
                    .and_then(|rule| policy.rules().get(rule))
                    .map(|rule| (rule.name.clone(), rule.origin.clone())),
                operations: Operation::ALL
                    .iter()
                    .copied()
                    .filter(|&op| mask & (1 << op as u8) != 0)
                    .collect(),
                why,
            })
            .collect()
    }
}
