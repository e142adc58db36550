//! The policy language: text → tree (`syntax`) → checked document (`decode`) → merged [`Policy`] (`load`) →
//! bound to a session ([`BoundPolicy`]) → compiled for the hot path ([`CompiledPolicy`]).
//!
//! Called by the gate and by every verb that takes `--policy`. Limits: no rule sees more than one action at a time,
//! so nothing can be said about sequences; what `argv` shows is what the caller claims.

mod bound;
mod compile;
mod decode;
mod decode_exec;
mod decode_rule;
mod digest;
mod example;
mod fields;
mod floor;
mod format;
mod glob;
mod load;
mod lower;
mod matcher;
mod model;
mod pattern;
#[cfg(test)]
mod schema_test;
mod shipped;
mod source;
mod syntax;

pub(crate) use bound::{BoundRule, clean_path, plain_name};
pub(crate) use syntax::yaml_to_json;

pub use bound::{BindError, BoundPolicy, is_private};
pub use compile::{CompileError, CompiledPolicy, Explanation, Knowledge, Unknown};
pub use example::{Example, ExampleAction, ExampleError};
pub use floor::Floor;
pub use format::{FormatError, Formatted, format};
pub use glob::{Glob, GlobError, Separator};
pub use load::{MAX_POLICY_BYTES, MAX_RULES, ReadFile, is_shipped};
pub use lower::{Held, Literal, LowerError, LowerOptions, Lowered, MAX_DEPTH, Why, verdict};
pub use model::{
    Approval, ApprovalScope, BackendChoice, BaseMatch, Broker, Dataflow, EndpointRule, EnvKeeper,
    EnvSettings, Examples, ExecLimits, ExecSettings, FactMatch, FailClosed, Policy, RateLimit, ReadEvidence,
    RepeatEvidence, Requirement, Rule,
};
pub use pattern::{BUILT_IN, PatternError, Vars};
pub use shipped::{DEFAULT, SHIPPED, shipped};
pub use source::{Origin, PolicyError, PolicyErrors};
