//! What the supervisor knows of the tasks whose calls it holds.
//!
//! Entries are keyed by tid and carry an open `/proc/TID`. Once that task is gone, lookups through the descriptor fail
//! even where the number means another task by now, so a stale entry can cost a retry and never a wrong answer.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::sys::fs::{self, At};
use crate::sys::{Errno, process};

/// Entries kept per worker; a fork storm starts over.
const CAPACITY: usize = 4096;
/// Age at which an entry must prove that its task still lives. A pid number cannot come round again sooner: 32,768 forks
/// take longer, and a smaller `pid_max` makes every look-up prove itself.
const TRUST_NS: u64 = 200_000_000;
/// The smallest `pid_max` for which [`TRUST_NS`] holds.
const TRUSTED_PID_MAX: u64 = 32_768;

/// Credentials of a task, as far as file access goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) fsuid: u32,
    pub(super) fsgid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) effective: u64,
}

/// One task of the workload.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) tid: u32,
    /// `/proc/TID`, opened with `O_PATH`.
    pub(super) proc: OwnedFd,
    /// Resolved path of its image; empty where it cannot be read.
    pub(super) image: Rc<[u8]>,
    tgid: std::cell::Cell<u32>,
    pidfd: std::cell::OnceCell<OwnedFd>,
    checked_ns: std::cell::Cell<u64>,
}

impl Task {
    fn new(tid: u32, now_ns: u64) -> Result<Self, Errno> {
        let path = CString::new(format!("/proc/{tid}")).map_err(|_error| Errno(libc::EINVAL))?;
        let proc = fs::openat(At::Cwd, &path, libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)
            .map_err(|_error| Errno(libc::ESRCH))?;
        let mut image = Vec::new();
        if fs::readlinkat(At::Fd(proc.as_fd()), c"exe", &mut image).is_err() {
            image.clear();
        }
        Ok(Self {
            tid,
            proc,
            image: image.into(),
            tgid: 0.into(),
            pidfd: std::cell::OnceCell::new(),
            checked_ns: now_ns.into(),
        })
    }

    /// Returns whether the task behind the entry still runs.
    fn lives(&self) -> bool {
        fs::exists(At::Fd(self.proc.as_fd()), c"exe") || fs::exists(At::Fd(self.proc.as_fd()), c"stat")
    }

    /// Returns the thread group.
    pub(super) fn tgid(&self) -> Result<u32, Errno> {
        if self.tgid.get() == 0 {
            self.tgid.set(self.status()?.tgid);
        }
        Ok(self.tgid.get())
    }

    /// Returns a copy of one of the task's descriptors.
    pub(super) fn descriptor(&self, fd: i32) -> Result<OwnedFd, Errno> {
        if self.pidfd.get().is_none() {
            let fresh = process::pidfd_open_thread(self.tid)?;
            // The number was still this task's after the descriptor was made, so the descriptor is this task's.
            if !self.lives() {
                return Err(Errno(libc::ESRCH));
            }
            let _first = self.pidfd.set(fresh);
        }
        let pidfd = self.pidfd.get().ok_or(Errno(libc::ESRCH))?;
        process::pidfd_getfd(pidfd.as_fd(), fd)
    }

    /// Reads `/proc/TID/status`.
    pub(super) fn status(&self) -> Result<Status, Errno> {
        let file = fs::openat(At::Fd(self.proc.as_fd()), c"status", libc::O_RDONLY | libc::O_CLOEXEC, 0)
            .map_err(|_error| Errno(libc::ESRCH))?;
        let mut text = [0u8; 8192];
        let n = fs::pread(file.as_fd(), &mut text, 0).map_err(|_error| Errno(libc::ESRCH))?;
        Status::parse(&text[..n]).ok_or(Errno(libc::ESRCH))
    }
}

/// The lines of `/proc/TID/status` that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) umask: u32,
    pub(super) tgid: u32,
    pub(super) parent: u32,
    pub(super) credentials: Credentials,
}

impl Status {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let fourth = |name: &str| field(name)?.split_ascii_whitespace().nth(3)?.parse().ok();
        Some(Self {
            umask: u32::from_str_radix(field("Umask:")?, 8).ok()?,
            tgid: field("Tgid:")?.parse().ok()?,
            parent: field("PPid:")?.parse().ok()?,
            credentials: Credentials {
                fsuid: fourth("Uid:")?,
                fsgid: fourth("Gid:")?,
                groups: field("Groups:")?.split_ascii_whitespace().filter_map(|g| g.parse().ok()).collect(),
                effective: u64::from_str_radix(field("CapEff:")?, 16).ok()?,
            },
        })
    }
}

/// The tasks one worker has met.
#[derive(Debug)]
pub(super) struct Tasks {
    entries: FxHashMap<u32, Rc<Task>>,
    umasks: FxHashMap<u32, u32>,
    trust_ns: u64,
}

impl Tasks {
    pub(super) fn new() -> Self {
        let pid_max =
            std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse().ok());
        let trust_ns = if pid_max.is_some_and(|max: u64| max >= TRUSTED_PID_MAX) { TRUST_NS } else { 0 };
        Self { entries: FxHashMap::default(), umasks: FxHashMap::default(), trust_ns }
    }

    /// Returns the task behind a tid.
    ///
    /// # Errors
    /// `ESRCH` where it is gone.
    pub(super) fn get(&mut self, tid: u32, now_ns: u64) -> Result<Rc<Task>, Errno> {
        if let Some(task) = self.entries.get(&tid) {
            if now_ns.saturating_sub(task.checked_ns.get()) < self.trust_ns {
                return Ok(Rc::clone(task));
            }
            if task.lives() {
                task.checked_ns.set(now_ns);
                return Ok(Rc::clone(task));
            }
        }
        self.forget(tid);
        if self.entries.len() >= CAPACITY {
            self.entries.clear();
            self.umasks.clear();
        }
        let task = Rc::new(Task::new(tid, now_ns)?);
        self.entries.insert(tid, Rc::clone(&task));
        Ok(task)
    }

    /// Forgets a task: it has a new image, or is gone.
    pub(super) fn forget(&mut self, tid: u32) {
        self.entries.remove(&tid);
        self.umasks.remove(&tid);
    }

    /// Returns the task's umask.
    ///
    /// Kept per tid, because reading it costs 8 µs; every umask(2) of the workload starts the table over, since tasks
    /// that share their `fs_struct` change each other's.
    pub(super) fn umask(&mut self, task: &Task) -> Result<u32, Errno> {
        if let Some(&mask) = self.umasks.get(&task.tid)
            && task.lives()
        {
            return Ok(mask);
        }
        let mask = task.status()?.umask;
        self.umasks.insert(task.tid, mask);
        Ok(mask)
    }

    /// Forgets every umask.
    pub(super) fn forget_umasks(&mut self) {
        self.umasks.clear();
    }
}

/// Returns whether `pid` is a descendant of `ancestor`, which itself is none. Walks up `/proc`, so a racing exit answers
/// no.
pub(in crate::backend) fn descends_from(pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    // Deeper trees than this are not real.
    for _ in 0..4096 {
        let Some(parent) = parent_of(at) else { return false };
        if parent == ancestor {
            return true;
        }
        if parent <= 1 {
            return false;
        }
        at = parent;
    }
    false
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, closing parentheses too.
    let after = &stat[stat.iter().rposition(|&b| b == b')')? + 2..];
    std::str::from_utf8(after).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_status() {
        let mut tasks = Tasks::new();
        let task = tasks.get(process::pid(), 1).unwrap();
        let status = task.status().unwrap();
        assert_eq!(status.tgid, process::pid());
        assert_eq!(status.credentials.fsuid, nix::unistd::geteuid().as_raw());
        assert!(
            task.image.ends_with(std::env::current_exe().unwrap().file_name().unwrap().as_encoded_bytes())
        );
    }

    #[test]
    fn a_child_descends_and_init_does_not() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        assert!(descends_from(child.id(), process::pid()));
        assert!(!descends_from(1, child.id()));
        assert!(!descends_from(process::pid(), process::pid()), "nobody descends from itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_dead_task_is_noticed() {
        let mut tasks = Tasks::new();
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        let tid = child.id();
        tasks.get(tid, 1).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(tasks.get(tid, 1 + 2 * TRUST_NS).unwrap_err(), Errno(libc::ESRCH));
    }
}
