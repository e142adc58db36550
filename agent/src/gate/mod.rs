//! The gate: verdicts, reasons, and the one evaluation that everything calls.

mod decision;
mod evaluate;
mod outcome;
pub mod reason;
mod result;
mod verdict;

pub(crate) use evaluate::{base_may_match, outcome, rule_matches};

pub use decision::{Decision, Ground, InvalidDecision, Limit};
pub use evaluate::{Facts, evaluate, evaluate_bound};
pub use outcome::GateOutcome;
pub use result::GateResult;
pub use verdict::{UnknownVerdict, Verdict};

pub use crate::policy::CompiledPolicy;
