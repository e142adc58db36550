//! The probes: each tries one thing that a session needs, in a process of its own.

use std::os::fd::AsFd;
use std::path::Path;

use crate::backend::ebpf::{self, Refused};
use crate::backend::floor;
use crate::backend::seccomp::allow_all;
use crate::sys::notify::{self, Listener};
use crate::sys::process::{self, Change, Fork};
use crate::sys::{Errno, memory};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It works.
    Yes,
    /// It does not; why, in words.
    No(String),
}

impl Found {
    fn of(result: Result<(), Errno>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(errno) => Self::No(errno.to_string()),
        }
    }
}

/// One probe: what is tried, what for, and what to do where it fails.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    /// Whether the seccomp backend cannot work without it.
    pub(crate) essential: bool,
    pub(crate) purpose: &'static str,
    pub(crate) remedy: &'static str,
    pub(crate) run: fn() -> Found,
}

const YAMA: &str =
    "set kernel.yama.ptrace_scope to 0 or 1; in a container, allow ptrace, process_vm_readv and pidfd_getfd";

/// Every probe of the seccomp backend.
pub(crate) const PROBES: &[Probe] = &[
    Probe {
        name: "seccomp_listener",
        essential: true,
        purpose: "hold system calls of an unprivileged program",
        remedy: "run gait outside of the sandbox that has a seccomp listener already (EBUSY), on Linux 5.9 or newer",
        run: seccomp_listener,
    },
    Probe {
        name: "wait_killable",
        essential: false,
        purpose: "keep signals from repeating a call that was made already",
        remedy: "use Linux 5.19 or newer",
        run: wait_killable,
    },
    Probe {
        name: "sync_wake_up",
        essential: false,
        purpose: "answer held calls without a trip to another CPU",
        remedy: "use Linux 6.6 or newer; without it gait is slower, not weaker",
        run: sync_wake_up,
    },
    Probe {
        name: "read_memory",
        essential: true,
        purpose: "read the arguments of held calls",
        remedy: YAMA,
        run: read_memory,
    },
    Probe {
        name: "copy_descriptors",
        essential: true,
        purpose: "connect and send on the caller's behalf",
        remedy: YAMA,
        run: copy_descriptors,
    },
    Probe {
        name: "trace_exec",
        essential: true,
        purpose: "verify the image of every exec before its first instruction",
        remedy: YAMA,
        run: || Found::of(on_child(process::seize)),
    },
    Probe {
        name: "landlock_floor",
        essential: false,
        purpose: "bound what a mistake of the supervisor could do",
        remedy: "use Linux 6.2 or newer with landlock in lsm=; or accept it with --allow-degraded",
        run: || present(floor::is_available()),
    },
    Probe {
        name: "landlock_scope",
        essential: false,
        purpose: "keep signals and abstract sockets inside the session by the kernel itself",
        remedy: "use Linux 6.12 or newer with landlock in lsm=; or accept it with --allow-degraded",
        run: || present(floor::can_scope()),
    },
];

fn present(available: bool) -> Found {
    if available { Found::Yes } else { Found::No("the kernel does not offer it".to_owned()) }
}

/// Whether the eBPF backend works here: everything a session does is tried, up to an open that must fail.
pub(crate) fn ebpf() -> Result<(), Refused> {
    ebpf::try_out()
}

/// Runs `attempt` in a child and returns its errno.
fn in_child(attempt: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    match process::fork()? {
        Fork::Child => process::exit_now(attempt().err().map_or(0, |errno| errno.0.clamp(1, 255))),
        Fork::Parent(child) => loop {
            match process::wait_any(true)? {
                Some(Change::Exited { pid, status }) if pid == child => {
                    return if status == 0 { Ok(()) } else { Err(Errno(status)) };
                }
                Some(Change::Killed { pid, .. }) if pid == child => return Err(Errno(libc::ECHILD)),
                _ => {}
            }
        },
    }
}

/// Runs `attempt` on a child that waits, and ends the child.
fn on_child(attempt: impl FnOnce(u32) -> Result<(), Errno>) -> Result<(), Errno> {
    let (wait, end) = process::pipe()?;
    match process::fork()? {
        Fork::Child => {
            drop(end);
            let mut byte = [0];
            let _end = process::read(wait.as_fd(), &mut byte).is_err();
            process::exit_now(0)
        }
        Fork::Parent(child) => {
            drop(wait);
            let result = attempt(child);
            drop(end);
            let _gone = process::kill(child, libc::SIGKILL).is_err();
            while process::wait_any(true).is_ok() {}
            result
        }
    }
}

fn install(flags: libc::c_ulong) -> Result<Listener, Errno> {
    process::set_no_new_privs()?;
    notify::install(&allow_all(), flags).map(Listener)
}

fn seccomp_listener() -> Found {
    Found::of(in_child(|| install(0).map(drop)))
}

fn wait_killable() -> Found {
    Found::of(in_child(|| install(notify::WAIT_KILLABLE).map(drop)))
}

fn sync_wake_up() -> Found {
    Found::of(in_child(|| install(0)?.set_sync_wake_up()))
}

fn read_memory() -> Found {
    let here = [42u8; 8];
    Found::of(on_child(|child| {
        // The child is a copy of this process, so the address means the same bytes there.
        let mut there = [0u8; 8];
        memory::read(child, here.as_ptr().expose_provenance() as u64, &mut there)?;
        if there == here { Ok(()) } else { Err(Errno(libc::EFAULT)) }
    }))
}

fn copy_descriptors() -> Found {
    Found::of(on_child(|child| {
        let pidfd = process::pidfd_open(child)?;
        process::pidfd_getfd(pidfd.as_fd(), 2).map(drop)
    }))
}

/// Returns whether evidence can be written to a directory, by writing a file there.
pub(crate) fn writable(directory: &Path) -> Found {
    // A directory that does not exist yet is made by the first session; what is there of its path decides.
    let place = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let name = place.join(format!(".gait-doctor-{}", process::pid()));
    match std::fs::File::create_new(&name) {
        Ok(_) => {
            let _left_behind = std::fs::remove_file(&name).is_err();
            Found::Yes
        }
        Err(error) => Found::No(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(&dir.path().join("not/yet")), Found::Yes);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_ne!(writable(Path::new("/proc")), Found::Yes);
    }
}
