//! The gate: verdicts, reasons, and the one evaluation that everything calls.

mod verdict;

pub use verdict::Verdict;
