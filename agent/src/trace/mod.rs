//! Trace records and the journal: the evidence of a session while it runs.
//!
//! The session owns one [`Recorder`]; `gait gate eval` makes single [`TraceRecord`]s; [`crate::runpack`] seals and
//! verifies both. Nothing here reads a clock: the caller says when an event was seen.

mod circumstances;
mod journal;
mod record;
mod recorder;
mod verify;

pub use circumstances::Circumstances;
pub(crate) use journal::intent_id;
pub use journal::{Counted, Ending, Journal, Line, LineKind, Totals, cut_torn_line};
pub use record::{Answer, Approval, ApprovalRecord, Scope, TraceId, TraceRecord, TraceTarget};
pub use recorder::{
    JournalSummary, Observation, Observed, Reasons, RecordError, Recorder, RecorderOptions, Repeats,
    SessionStart,
};
pub(crate) use verify::read_line;
pub use verify::{TraceError, read_trace, verify_trace};
