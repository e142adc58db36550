//! Runpacks: the sealed evidence of a run, a deterministic zip with a signed manifest.
//!
//! [`seal`] packs a session's run directory, [`pack`] a run that a caller describes; [`verify()`] checks either offline
//! and [`Runpack`] reads them. Everything streams: memory does not grow with the length of a session, but for some
//! bytes per distinct decision.

pub(crate) mod archive;
mod check;
mod derive;
mod diff;
mod document;
mod lines;
mod manifest;
mod read;
mod reason;
mod record;
mod reduce;
mod replay;
mod report;
mod unfinished;
mod verify;
pub(crate) mod write;

pub use archive::ArchiveLimits;
pub use diff::{ChangedDecision, DecisionDiff, DecisionKey, Diff, Outcome, Privacy, compared_entries, diff};
pub use manifest::{FileDigest, Manifest, Sealed};
pub use read::{Decision, ReadError, Runpack};
pub use reason::{Finding, Reason};
pub use record::{
    Env, IntentEntry, Payloads, Receipt, RecordInputError, Refs, ResultEntry, Run, RunRecord, TimelineEvent,
};
pub use reduce::{Predicate, ReduceReport, Reduced, UnknownPredicate, reduce};
pub use replay::{Replay, ReplayStep, StubType, replay};
pub use report::{ExecEvidence, HashMismatch, SignatureStatus, VerifyReport};
pub use unfinished::{Unfinished, UnfinishedError, examine};
pub use verify::{VerifyError, VerifyOptions, verify, verify_seal, verify_seal_of};
pub use write::{SealError, SessionFiles, SessionRun, pack, seal};
