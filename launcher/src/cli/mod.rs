//! The command line: arguments in, one answer and an exit code out.
//!
//! Every verb is a function from its arguments to [`Answer`] or [`CliError`]; this module alone writes them.

pub mod args;
mod bad_input;
pub mod error;
pub mod output;

mod agent;
mod approve;
mod demo;
mod dispatch;
mod doctor;
mod exec;
mod gate;
mod guard;
mod inventory;
mod keys;
mod migrate;
mod policy;
mod policy_fmt;
mod policy_simulate;
mod regress;
mod report;
mod run;
mod run_seal;
mod scout;
mod trace;
mod verify;
mod verify_chain;
mod version;
mod why;

pub use dispatch::{answer, main};
pub use error::{CliError, ErrorCode};
#[cfg(any(test, feature = "fake"))]
pub(crate) use exec::session_error;
pub use output::{Answer, Output};
