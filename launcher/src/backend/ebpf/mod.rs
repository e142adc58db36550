//! The interface between a session and whoever owns the kernel programs.

use std::os::fd::OwnedFd;

use gait_ebpf::layout::{Counters, Grant, Session};

use crate::sys::Errno;

/// Why the kernel side cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Refused {
    /// What is missing or refused, and by whom.
    pub(crate) what: String,
    /// What would help.
    pub(crate) remedy: String,
}

/// One session in the kernel.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its ring of events.
    pub(crate) ring: OwnedFd,
    /// How many bytes it has room for.
    pub(crate) ring_bytes: u32,
}

/// The loaded programs, as one session uses them: owned by this process, or by the daemon.
pub(crate) trait Kernel: std::fmt::Debug + Send + Sync {
    /// Fills the tables of the session and makes its ring.
    ///
    /// # Errors
    /// Where the kernel refuses, or a map is full; nothing of the session is left then.
    fn open(&self, tables: &Tables<'_>) -> Result<Opened, Refused>;

    /// Puts a stopped process of one thread under the session's control.
    ///
    /// # Errors
    /// Where that is not so.
    fn seed(&self, pid: u32) -> Result<(), Refused>;

    /// Answers a held action.
    ///
    /// # Errors
    /// What the kernel says.
    fn grant(&self, tid: u32, grant: &Grant) -> Result<(), Errno>;

    /// Returns what no event tells.
    ///
    /// # Errors
    /// What the kernel says.
    fn counters(&self) -> Result<Counters, Errno>;

    /// Ends the session: its tables go, and what still lives of its tree is blocked.
    fn close(&self);
}

/// What a session is in the kernel.
#[derive(Debug)]
pub(crate) struct Tables<'a> {
    pub(crate) cells: &'a [u64],
    pub(crate) words: &'a [u64],
    /// Starts of the automata, classes of images and flags; the places in the arrays are not filled in yet.
    pub(crate) session: Session,
    pub(crate) names: &'a [Place],
}

/// A directory or file that a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) device: u32,
    pub(crate) inode: u64,
    /// Where its path ends in the path automaton.
    pub(crate) state: u32,
    /// Its number among the literals of the policy.
    pub(crate) name: u32,
}
