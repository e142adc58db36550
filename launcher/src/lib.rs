//! The binary `gait`: the command line and everything that touches Linux.
//!
//! What is pure (contract documents, policy, gate, evidence) lives in `gait-agent`; this crate reads files and keys,
//! talks to the kernel and to the person, and turns errors into exit codes.

#![deny(unsafe_code)]

pub mod atomic_file;
pub mod cli;
pub mod input;
pub mod keyring;
pub mod policy_source;
#[cfg(feature = "fake")]
#[doc(hidden)]
pub mod rehearsal;
pub mod run_id;
pub mod session_config;
pub mod toolgate;

/// The loader of the kernel programs, for tests that have a kernel to themselves.
#[cfg(feature = "fake")]
#[doc(hidden)]
pub mod kernel_programs {
    pub use crate::backend::ebpf::*;
}

mod approval;
mod backend;
mod daemon;
mod described_run;
mod doctor;
mod exec;
mod net;
mod sys;
#[cfg(any(test, fuzzing))]
pub mod untrusted;
