//! Ways of seeing and stopping what a process tree does.

pub(crate) mod floor;
pub(crate) mod seccomp;
