//! Who is at the other end, and whether it may register a process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::refused;
use crate::backend::ebpf::Refused;
use crate::sys::packets::{self, Credentials};
use crate::sys::{Errno, process};

/// Root's user id.
pub(crate) const ROOT: u32 = 0;
/// Ancestors that are looked at.
const GENERATIONS_MAX: usize = 4096;

/// The process that connected.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) credentials: Credentials,
    /// The process itself; a number can be somebody else's by now.
    process: OwnedFd,
}

impl Peer {
    /// Finds out who connected.
    ///
    /// # Errors
    /// It is gone already.
    pub(crate) fn of(connection: BorrowedFd<'_>) -> Result<Self, Errno> {
        let credentials = packets::peer(connection)?;
        Self::new(credentials)
    }

    pub(super) fn new(credentials: Credentials) -> Result<Self, Errno> {
        Ok(Self { credentials, process: process::pidfd_open(credentials.pid)? })
    }

    /// Checks that the process may be put into a session of this peer, and returns its number.
    ///
    /// # Errors
    /// Which condition it does not meet.
    pub(crate) fn admit(&self, pidfd: BorrowedFd<'_>) -> Result<u32, Refused> {
        let pid = pid_of(pidfd)?;
        let facts = Facts::of(pid).ok_or_else(gone)?;
        if self.credentials.uid != ROOT {
            self.admit_of_user(pid, &facts)?;
        }
        if facts.tgid != pid {
            return Err(refused(format!("{pid} is a thread, not a process"), MISTAKE));
        }
        if facts.threads != 1 {
            let count = facts.threads;
            return Err(refused(format!("process {pid} has {count} threads, and may have one"), MISTAKE));
        }
        // Everything above was read by number. If the process still lives, the number was its own all the time.
        if pid_of(pidfd)? == pid { Ok(pid) } else { Err(gone()) }
    }

    fn admit_of_user(&self, pid: u32, facts: &Facts) -> Result<(), Refused> {
        let Credentials { pid: own, uid } = self.credentials;
        if facts.uids.iter().any(|id| *id != uid) {
            return Err(refused(
                format!("process {pid} is not entirely user {uid}'s"),
                "a user can register its own processes only",
            ));
        }
        if !facts.no_new_privs {
            let what = format!("process {pid} could still gain privileges (it has not set no_new_privs)");
            return Err(refused(what, MISTAKE));
        }
        if process::readable(self.process.as_fd()) || !descends(pid, own) {
            return Err(refused(
                format!("process {pid} does not descend from process {own}, which asks for it"),
                "a guard can register what it has started only",
            ));
        }
        Ok(())
    }

    /// Checks, once the process is in its session, that it was this one, and that it has no thread outside.
    ///
    /// # Errors
    /// Another process may have been put there.
    pub(crate) fn confirm(&self, pidfd: BorrowedFd<'_>, pid: u32) -> Result<(), Refused> {
        let same = pid_of(pidfd)? == pid;
        let facts = Facts::of(pid).filter(|facts| same && facts.threads == 1);
        facts.map(drop).ok_or_else(gone)
    }
}

const MISTAKE: &str = "this is a mistake of the program that connected";

fn gone() -> Refused {
    refused("the process is gone", "start the session again")
}

/// The process that a pidfd stands for, as procfs tells of the descriptor (`Pid:`, proc_pid_fdinfo(5)).
fn pid_of(pidfd: BorrowedFd<'_>) -> Result<u32, Refused> {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap_or_default();
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let number = number.ok_or_else(|| refused("the descriptor is no pidfd", MISTAKE))?;
    // -1: it was waited for; 0: it is in a namespace that cannot be seen from here.
    let pid = number.trim().parse::<u32>().ok().filter(|pid| *pid != 0).ok_or_else(gone)?;
    // A process that has ended keeps its number until it is waited for.
    if process::readable(pidfd) { Err(gone()) } else { Ok(pid) }
}

/// Whether a process is a child, or child's child, of another.
fn descends(pid: u32, from: u32) -> bool {
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        match Facts::of(at) {
            Some(facts) if facts.parent == from => return true,
            Some(facts) if facts.parent > 1 => at = facts.parent,
            _ => return false,
        }
    }
    false
}

/// What procfs says of a process (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    tgid: u32,
    parent: u32,
    threads: u32,
    no_new_privs: bool,
    /// Real, effective, saved, and that of the file system.
    uids: [u32; 4],
}

impl Facts {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/status")).ok()?)
    }

    /// The name comes first and is the process's own choice, but a line feed in it is written as two characters.
    fn parse(status: &[u8]) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = status.split(|byte| *byte == b'\n');
            let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
            std::str::from_utf8(value).ok()
        };
        let number = |name| field(name)?.trim().parse::<u32>().ok();
        let mut uids = field("Uid")?.split_whitespace().map(|id| id.parse::<u32>().ok());
        let mut uid = || uids.next().flatten();
        Some(Self {
            tgid: number("Tgid")?,
            parent: number("PPid")?,
            threads: number("Threads")?,
            no_new_privs: number("NoNewPrivs")? == 1,
            uids: [uid()?, uid()?, uid()?, uid()?],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_whatever_the_process_calls_itself() {
        let status =
            b"Name:\tx\\nUid:\t0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t12\nNgid:\t0\nPid:\t12\n\
            PPid:\t7\nTracerPid:\t0\nUid:\t1000\t1001\t1002\t1003\nGid:\t1\t1\t1\t1\nThreads:\t3\n\
            NoNewPrivs:\t1\nSeccomp:\t0\n";
        let facts =
            Facts { tgid: 12, parent: 7, threads: 3, no_new_privs: true, uids: [1000, 1001, 1002, 1003] };
        assert_eq!(Facts::parse(status), Some(facts));
        for missing in ["Tgid", "PPid", "Threads", "NoNewPrivs", "Uid"] {
            let without: Vec<u8> = String::from_utf8_lossy(status)
                .lines()
                .filter(|line| !line.starts_with(missing))
                .flat_map(|line| format!("{line}\n").into_bytes())
                .collect();
            assert_eq!(Facts::parse(&without), None, "{missing}");
        }
    }

    #[test]
    fn descent_is_found_and_not_invented() {
        let own = std::process::id();
        assert!(!descends(own, own));
        assert!(descends(own, std::os::unix::process::parent_id()));
        assert!(!descends(1, own));
    }
}
