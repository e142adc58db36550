//! Ways of seeing and stopping what a process tree does.
//!
//! A session knows its backend by the trait [`Backend`] alone. What stands behind it differs: with seccomp a call is held
//! until the gate of this process tree has answered; a kernel that was given the policy beforehand decides by itself and
//! tells afterwards. [`Next`] says which of the two an action went through.

pub(crate) mod choice;
#[cfg_attr(
    not(feature = "fake"),
    expect(
        unreachable_pub,
        dead_code,
        unused_imports,
        reason = "the loader's tests, which have a kernel to themselves, reach it from outside"
    )
)]
pub(crate) mod ebpf;
#[cfg(any(test, feature = "fake"))]
pub(crate) mod fake;
pub(crate) mod feed;
pub(crate) mod floor;
pub(crate) mod rate;
pub(crate) mod seccomp;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use gait_agent::policy::BackendChoice;

use crate::exec::coverage::Coverage;
use crate::exec::event::Event;
use crate::exec::status::{Status, Step};
use crate::sys::{Errno, SyscallError};

/// The backends by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendKind {
    /// Programs of the kernel's own, at its security hooks.
    Ebpf,
    /// Held system calls, unprivileged.
    Seccomp,
    /// Traced system calls.
    Ptrace,
    /// A script that plays the kernel.
    #[cfg(any(test, feature = "fake"))]
    Fake,
}

impl BackendKind {
    /// Returns what a policy asks for; `None` where it leaves the choice to gait.
    pub(crate) const fn asked(choice: BackendChoice) -> Option<Self> {
        match choice {
            BackendChoice::Auto => None,
            BackendChoice::Ebpf => Some(Self::Ebpf),
            BackendChoice::Seccomp => Some(Self::Seccomp),
            BackendChoice::Ptrace => Some(Self::Ptrace),
        }
    }

    /// Returns whether this version of gait has the backend.
    pub(crate) const fn is_built(self) -> bool {
        !matches!(self, Self::Ptrace)
    }

    /// Returns the spelling in documents and on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Seccomp => "seccomp",
            Self::Ptrace => "ptrace",
            #[cfg(any(test, feature = "fake"))]
            Self::Fake => "fake",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A backend could not be set up; nothing of the workload has run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A call of the guard.
    #[error(transparent)]
    Call(#[from] SyscallError),
    /// The kernel did not take the rules.
    #[error(transparent)]
    Kernel(#[from] ebpf::Refused),
    /// A step in one of the other processes.
    #[error("{} failed: {errno}", step.as_str())]
    Step {
        /// What was being done.
        step: Step,
        /// What the kernel answered.
        errno: Errno,
    },
}

/// What a backend tells next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// An action whose call was held: the gate judged it, and this event was accepted before the call was answered.
    Held(Event<'a>),
    /// An action that the kernel decided by rules that were loaded beforehand. The gate judges it again.
    Decided(Event<'a>),
    /// Actions that nobody can tell of any more.
    Lost {
        /// How many.
        count: u64,
        /// Why.
        reason: String,
    },
    /// News of the workload's tree.
    Tree(Status),
    /// The backend has ended and has told everything. Not clean: it was killed, or gave up.
    Ended {
        /// Whether it ended because the tree did.
        clean: bool,
    },
}

/// How the guard waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Events are coming: let some gather rather than look at each.
    Gather,
    /// For the next event, at most so long.
    Until(Duration),
    /// For the next event.
    Idle,
}

/// One way of seeing and stopping what a process tree does, as the guard uses it.
///
/// The order is `install`, `coverage`, `release`, then `next_event` and `wait` in turn until [`Next::Ended`]. `end` may
/// come at any time and more than once.
pub(crate) trait Backend: fmt::Debug {
    /// Returns which backend it is.
    fn kind(&self) -> BackendKind;

    /// Sets up the judging side. Nothing of the workload exists yet, and nothing that it makes holds the signing key.
    ///
    /// # Errors
    /// Where this host does not let it; what was set up so far is gone.
    fn install(&mut self) -> Result<(), StartError>;

    /// Makes the workload's first process, which waits before its first instruction, and says what this host enforces of
    /// it: measured now, not assumed.
    ///
    /// # Errors
    /// Where a part of it failed.
    fn coverage(&mut self) -> Result<Coverage, StartError>;

    /// Lets the workload go.
    ///
    /// # Errors
    /// Where nobody is left to be let go.
    fn release(&mut self) -> Result<(), SyscallError>;

    /// Returns what came next, `None` where nothing has come.
    fn next_event(&mut self) -> Option<Next<'_>>;

    /// Waits until there may be something next or `also` is readable; returns whether `also` is.
    fn wait(&mut self, also: BorrowedFd<'_>, pause: Pause) -> bool;

    /// Ends the workload, every process of it, and lets no further action through.
    fn end(&mut self);
}
