//! The command line: arguments in, one answer and an exit code out.
//!
//! Every verb is a function from its arguments to [`Answer`] or [`CliError`]; this module alone writes them.

pub mod args;
mod bad_input;
pub mod error;
pub mod output;

mod approve;
mod dispatch;
mod doctor;
mod exec;
mod gate;
mod keys;
mod policy;
mod run;
mod trace;
mod verify;
mod version;
mod why;

pub use dispatch::{answer, main};
pub use error::{CliError, ErrorCode};
pub use output::{Answer, Output};
