//! Calls about processes whose arguments are all scalars.

use std::sync::atomic::Ordering;

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::Operation;

use super::super::numbers::names as nr;
use super::super::supervisor::{Answer, Stop, Worker};
use super::super::task;
use super::Call;
use crate::sys::fs::{self, At};
use crate::sys::{Errno, memory, process};
use std::os::fd::AsFd;

/// umask(2) goes on by itself; what the workers remember of umasks is void.
pub(super) fn umask(worker: &mut Worker) -> Result<Answer, Stop> {
    worker.tasks.forget_umasks();
    worker.shared.announce_umask();
    Ok(Answer::Continue)
}

/// setuid(2) and its kin go on by themselves; from now on the supervisor looks at each caller's credentials.
pub(super) fn change_credentials(worker: &mut Worker) -> Result<Answer, Stop> {
    worker.shared.credentials_changed.store(true, Ordering::Release);
    Ok(Answer::Continue)
}

/// Whom a call means.
enum Target {
    /// The caller itself or its own group: the kernel's scope keeps that inside. As an owner: nobody.
    Own,
    Process(u32),
    /// A process group, by the pid of its leader, which may be gone.
    Group(u32),
    /// Everybody, or all processes of a user.
    All,
}

/// Signals and tuning: free inside the tree, judged outside of it.
pub(super) fn scalar(worker: &mut Worker, call: Call<'_>, operation: Operation) -> Result<Answer, Stop> {
    let target = target(call)?;
    reach(worker, call, operation, target)
}

/// `F_SETOWN` and `F_SETOWN_EX` of fcntl(2): from then on the kernel itself sends signals, and nobody is asked. It keeps the
/// process, not its number.
pub(super) fn set_owner(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    if call.int(1) != fs::F_SETOWN_EX {
        // A scalar: the call goes on by itself.
        let target = owner(call.int(2))?;
        return reach(worker, call, Operation::Signal, target);
    }
    let [kind, pid] = read_ints(call)?;
    let whom = match (kind, pid) {
        (F_OWNER_TID | F_OWNER_PID | F_OWNER_PGRP, i32::MIN..0) => return Err(Errno(libc::ESRCH).into()),
        (F_OWNER_TID | F_OWNER_PID | F_OWNER_PGRP, 0) => Target::Own,
        (F_OWNER_TID | F_OWNER_PID, pid) => Target::Process(pid.unsigned_abs()),
        (F_OWNER_PGRP, group) => Target::Group(group.unsigned_abs()),
        _ => return Err(Errno(libc::EINVAL).into()),
    };
    make_owner(worker, call, whom, [kind, pid])
}

/// `FIOSETOWN` and `SIOCSPGRP` of ioctl(2), the same for sockets.
pub(super) fn set_owner_of_socket(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let subject = call.task.descriptor(call.int(0))?;
    // Anything else answers as it would: the numbers are those of sockets.
    if fs::fstat(subject.as_fd())?.mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(Errno(libc::ENOTTY).into());
    }
    let [pid] = read_ints(call)?;
    let whom = owner(pid)?;
    let kind = if pid < 0 { F_OWNER_PGRP } else { F_OWNER_PID };
    make_owner(worker, call, whom, [kind, pid.wrapping_abs()])
}

/// `F_OWNER_*` of `asm-generic/fcntl.h`.
const F_OWNER_TID: i32 = 0;
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;

/// Whom a number of `F_SETOWN` means: nobody, a process, or a group.
fn owner(number: i32) -> Result<Target, Stop> {
    Ok(match number {
        0 => Target::Own,
        i32::MIN => return Err(Errno(libc::EINVAL).into()),
        pid @ 1.. => Target::Process(pid.unsigned_abs()),
        group => Target::Group(group.unsigned_abs()),
    })
}

/// What stands behind a pointer is read once; so the call is made here, on the caller's description.
fn make_owner(worker: &mut Worker, call: Call<'_>, whom: Target, words: [i32; 2]) -> Result<Answer, Stop> {
    let subject = call.task.descriptor(call.int(0))?;
    reach(worker, call, Operation::Signal, whom)?;
    fs::set_owner(subject.as_fd(), words)?;
    Ok(Answer::Value(0))
}

fn read_ints<const N: usize>(call: Call<'_>) -> Result<[i32; N], Stop> {
    let mut bytes = [[0u8; 4]; N];
    memory::read(call.task.tid, call.long(2), bytes.as_flattened_mut())?;
    Ok(bytes.map(i32::from_ne_bytes))
}

fn reach(worker: &mut Worker, call: Call<'_>, operation: Operation, target: Target) -> Result<Answer, Stop> {
    let tree = worker.shared.tree;
    let outsider = match target {
        Target::Own => return Ok(Answer::Continue),
        // A group without its leader: nobody can tell whose it is but the kernel, which keeps signals in the tree.
        Target::Group(leader) if !exists(leader) && worker.shared.signals_scoped => {
            return Ok(Answer::Continue);
        }
        Target::Process(pid) | Target::Group(pid) if task::descends_from(pid, tree) => {
            if i64::from(call.notification.nr) == nr::sched_setaffinity && pid != call.task.tid {
                worker.shared.stop_steering();
            }
            return Ok(Answer::Continue);
        }
        Target::Process(pid) | Target::Group(pid) => Some(pid),
        Target::All => None,
    };
    // What a number means can change only to another task, and the kernel's own scope (Landlock) keeps signals inside the
    // tree, whoever the number means by then.
    outside(worker, call, operation, outsider)
}

fn target(call: Call<'_>) -> Result<Target, Stop> {
    let number = i64::from(call.notification.nr);
    let pid = match number {
        nr::pidfd_send_signal => return pidfd_target(call).map(Target::Process),
        // Groups and users are whole sets of processes.
        nr::setpriority if call.int(0) != 0 => return Ok(Target::All),
        nr::ioprio_set if call.int(0) != 1 => return Ok(Target::All),
        nr::setpriority | nr::ioprio_set => call.int(1),
        _ => call.int(0),
    };
    let group_call = number == nr::kill;
    Ok(match pid {
        0 => Target::Own,
        pid if pid > 0 => Target::Process(pid.unsigned_abs()),
        -1 => Target::All,
        group if group_call => Target::Group(group.unsigned_abs()),
        _ => return Err(Errno(libc::EINVAL).into()),
    })
}

/// Reads the pid behind a pidfd of the caller.
fn pidfd_target(call: Call<'_>) -> Result<u32, Stop> {
    let fd = call.task.descriptor(call.int(0))?;
    let name = std::ffi::CString::new(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)))
        .map_err(|_error| Errno(libc::EBADF))?;
    let info = fs::openat(At::Cwd, &name, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    let mut text = [0u8; 512];
    let n = fs::pread(info.as_fd(), &mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..n]);
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse::<i64>().ok());
    match pid {
        Some(pid) if pid > 0 => Ok(u32::try_from(pid).unwrap_or(0)),
        Some(_) => Err(Errno(libc::ESRCH).into()),
        None => Err(Errno(libc::EBADF).into()),
    }
}

/// A process outside the tree, or a set that is not wholly inside.
fn outside(
    worker: &mut Worker,
    call: Call<'_>,
    operation: Operation,
    pid: Option<u32>,
) -> Result<Answer, Stop> {
    // Whether it exists is the kernel's business and no action: kill(pid, 0) of a dead process answers ESRCH.
    if let Some(pid) = pid
        && !exists(pid)
    {
        return Err(Errno(libc::ESRCH).into());
    }
    // Which program it is can be seen without a Landlock floor only, and equal actions are equal on every host.
    let text = match pid {
        None => "pid:all",
        Some(pid) if pid == process::pid() || pid == worker.shared.tree => "pid:supervisor",
        Some(_) => "pid:unknown",
    };
    let action = Action { operation, object: Object::Other(text), image: &call.task.image, argv: None };
    worker.judge_actions(call.task.tid, &[action])?;
    Ok(Answer::Continue)
}

fn exists(pid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}
