//! `gait doctor`: what this host can enforce, measured.
//!
//! Every answer comes from trying the thing in a child process, never from a version number. `cli::doctor` prints it.

pub(crate) mod probe;
pub(crate) mod report;
