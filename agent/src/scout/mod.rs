//! The signal engine: runs become fingerprints, fingerprints families, and families a ranking with causes and next
//! steps.
//!
//! Runs that a caller describes are fingerprinted by the contract's formula (contract §20.1). Sessions of `gait exec`
//! are fingerprinted on what stays the same when an incident happens again: see [`session`](self) below and
//! `docs/signal.md`. Everything here is a function of the files alone: no clock, no network, no order of arguments.

mod contract;
mod driver;
mod evidence;
mod family;
mod fingerprint;
mod inventory;
mod observe;
mod sensitivity;
mod session;
mod top;

pub use driver::{Fixture, Suggestion};
pub use evidence::{EvidenceError, SideEvidence};
pub use family::{Family, Issue, Risk, SignalReport};
pub use fingerprint::{Facts, Kind, RunFingerprint};
pub use inventory::{Changed, Coverage, Inventory, Item, Snapshot, SnapshotDiff, SnapshotError};
pub use observe::{ObserveError, RunObservation, observe, observe_all};
pub use top::{MAX_TOP, TopAction, TopActions, TopReport};
