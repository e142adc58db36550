//! Intents: actions and tool calls in the contract's form, normalised and digested.
//!
//! There are two ways in and one form out: [`IntentRequest::normalise`] for requests that a caller hands in, and
//! [`Intent::from_action`] for what the kernel saw. Both give the same digests for the same facts.

mod from_action;
mod infer;
mod normalise;
mod request;

pub use from_action::{Capture, RAW_ARGV_BYTES, SessionFacts, path_text};
pub use normalise::{Context, Intent, IntentError, Kind, Provenance, Skill, Source, Target};
pub use request::{ContextRequest, IntentRequest, ProvenanceRequest, SkillRequest, TargetRequest};
