//! `gait agent run`: one process of root's that owns the kernel programs, so that users need no privilege to run under them.
//!
//! ## What it gives away
//!
//! Nothing. A security module can only refuse what the kernel would otherwise allow, so a session gives its members no
//! right that they had not before, whatever tables its guard sends and whatever it answers to held actions. There is one
//! way in which less can be more: a privileged program that is refused something it counts on can be led astray. Therefore
//! the process that a user registers must have `no_new_privs` (as for seccomp(2) and landlock(7)), must be the user's own in
//! every user id, must descend from the process that asks, and must not be in a session already.
//!
//! A session belongs to the connection that made it; no message names one. Its ring goes to that connection alone.
//!
//! ## When somebody dies
//!
//! - The guard: its connection closes, and the session is *blocked*: what still lives of its tree may do nothing that is
//!   judged. When the last of it is gone, the tables are given back.
//! - The daemon: programs, tables and their attachment are pinned and stay. What is decided in the kernel goes on being
//!   decided; what is held stays held. Guards see the connection close and end their sessions. The next daemon adopts the pins,
//!   and blocks every session that it finds, since no guard has it any more.
//!
//! `gait doctor --cleanup` removes what neither has an owner nor a process.
//!
//! Who calls: `cli::agent` runs it; [`client::Remote`] is the other end, in the guard of `gait exec`.

pub(crate) mod client;
pub(crate) mod notify;
pub(crate) mod peer;
pub(crate) mod protocol;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod tables;

#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gait_ebpf::layout::{Counters, Grant};

use crate::backend::ebpf::{self, Refused, Tables};
use crate::sys::process;

/// Where the daemon listens.
pub(crate) const SOCKET: &str = "/run/gait/agent.sock";

/// Who owns the kernel programs, for the daemon. Sessions go by their number in the kernel.
pub(crate) trait Owner: fmt::Debug + Send + Sync {
    /// Makes a session of these tables, and its ring. It is live, and has no member.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses; nothing of the session is left then.
    fn open(&self, tables: &Tables<'_>) -> Result<New, Refused>;

    /// Puts a process of one thread under the session's control.
    ///
    /// # Errors
    /// It is gone, has more threads, or is in a session already.
    fn seed(&self, session: u32, pid: u32) -> Result<(), Refused>;

    /// Takes every member out of the session, after a process was put there by mistake. Nothing of the session has run.
    fn forget(&self, session: u32);

    /// Answers a held action of a thread of the session.
    ///
    /// # Errors
    /// What the kernel says.
    fn grant(&self, session: u32, tid: u32, grant: &Grant) -> Result<(), Refused>;

    /// Returns what no event tells.
    ///
    /// # Errors
    /// What the kernel says.
    fn counters(&self, session: u32) -> Result<Counters, Refused>;

    /// Lets no member of the session do anything that is judged, from now on.
    ///
    /// # Errors
    /// What the kernel says; the session may then go on as it was.
    fn block(&self, session: u32) -> Result<(), Refused>;

    /// Gives the tables and the number of a session back that has no members.
    ///
    /// # Errors
    /// What the kernel says.
    fn free(&self, session: u32) -> Result<(), Refused>;

    /// Returns the sessions that an owner before this one has left.
    fn left(&self) -> Vec<u32>;

    /// Takes the programs out of the kernel. Only where no session is left.
    fn retire(&self);
}

/// A session that an owner has just made.
#[derive(Debug)]
pub(crate) struct New {
    /// Its number in the kernel.
    pub(crate) session: u32,
    /// Its ring of events.
    pub(crate) ring: OwnedFd,
    /// How many bytes the ring has room for.
    pub(crate) ring_bytes: u32,
}

/// Says whether this process may own the programs.
///
/// # Errors
/// It is not root's.
pub(crate) fn allowed() -> Result<(), Refused> {
    if process::real_uid() == peer::ROOT {
        return Ok(());
    }
    let remedy = "run it as root, or install the package, whose service does";
    Err(refused("the agent loads programs into the kernel, which needs root", remedy))
}

/// Loads the programs, or takes over those that a daemon before has left.
///
/// # Errors
/// The host does not let it.
pub(crate) fn load() -> Result<Arc<dyn Owner>, Refused> {
    Ok(Arc::new(ebpf::Shared::load()?))
}

/// What was refused, and what would help.
pub(crate) fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Refused {
    Refused { what: what.into(), remedy: remedy.into() }
}
