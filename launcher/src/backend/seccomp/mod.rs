//! The seccomp backend: held system calls, unprivileged.
//!
//! Three processes stand around the workload. The *guard* (the `gait` process itself) owns the terminal, the signing key
//! and the evidence. The *supervisor* ([`supervise`]) holds the listener of the filter, decides, and makes calls on the
//! workload's behalf, under the policy's Landlock floor. The *reaper* is the parent of the tree and its end.
//!
//! Limits: x86_64; one listener fits a task tree, so a session cannot run inside another; the rows' notes in the
//! catalogue say what else is not covered.

mod calls;
mod filter;
pub(in crate::backend) mod judge;
mod link;
mod numbers;
mod resolve;
pub(in crate::backend) mod supervisor;
mod task;

#[cfg(any(test, fuzzing))]
pub(crate) use calls::shebang;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use gait_agent::endpoint::Operation;
use gait_agent::policy::{CompiledPolicy, ReadEvidence};

use crate::approval::Desk;
use crate::backend::floor;
use crate::backend::rate::Rate;
use crate::exec::event::Approval;
use crate::exec::reaper;
use crate::exec::status::{Status, Step};
use crate::sys::notify::{self, Listener};
use crate::sys::process::{self, CStringArray, Fork};
use crate::sys::ring::Producer;
use crate::sys::{Errno, credentials, signal};
use judge::Judge;
pub(crate) use link::Seccomp;
pub(in crate::backend) use resolve::recorded_process;
use supervisor::Shared;
pub(in crate::backend) use task::descends_from;

/// Names the name servers, resolv.conf(5). Without it they are on this host, as for glibc.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Capabilities that only serve to change the ground the workload stands on: devices, modules, network set-up, time,
/// tracing of the system. Some of what they allow goes through calls that are not held, such as a write to a netlink
/// socket. Numbers as in `linux/capability.h`: `DAC_READ_SEARCH`, `LINUX_IMMUTABLE`, `NET_ADMIN`, `NET_RAW`, `SYS_MODULE`,
/// `SYS_RAWIO`, `SYS_PACCT`, `SYS_ADMIN`, `SYS_BOOT`, `SYS_TIME`, `SYS_TTY_CONFIG`, `MKNOD`, `AUDIT_WRITE`,
/// `AUDIT_CONTROL`, `MAC_OVERRIDE`, `MAC_ADMIN`, `SYSLOG`, `WAKE_ALARM`, `BLOCK_SUSPEND`, `AUDIT_READ`, `PERFMON`, `BPF`,
/// `CHECKPOINT_RESTORE`.
const GROUND_CAPABILITIES: u64 = {
    let numbers = [2, 9, 12, 13, 16, 17, 20, 21, 22, 25, 26, 27, 29, 30, 32, 33, 34, 35, 36, 37, 38, 39, 40];
    let (mut set, mut i) = (0u64, 0);
    while i < numbers.len() {
        set |= 1 << numbers[i];
        i += 1;
    }
    set
};

/// What the workload is started with.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) program: std::ffi::CString,
    pub(crate) argv: CStringArray,
    pub(crate) envp: CStringArray,
    /// Descriptors besides 0, 1 and 2 that it inherits.
    pub(crate) keep: Vec<RawFd>,
    /// `exec.limits.open_files` of the policy.
    pub(crate) open_files: Option<u64>,
    /// The signal mask that gait was started with.
    pub(crate) mask: signal::Set,
}

/// Who judges the calls that act on files by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// The supervisor: each is held.
    Held,
    /// The kernel, by rules that were loaded beforehand.
    Kernel,
}

/// What the supervisor is started with; all of it made by the guard before the fork.
#[derive(Debug)]
pub(crate) struct Supervision {
    pub(crate) policy: Arc<CompiledPolicy>,
    /// Paths that the workload may not even read.
    pub(crate) hidden: Vec<Vec<u8>>,
    pub(crate) simulate: bool,
    pub(crate) files: Files,
    pub(crate) events: Producer,
    pub(crate) status: OwnedFd,
    /// A first byte comes here when the guard has its key, a second one when it can take events; the end of the pipe means
    /// that the guard is gone.
    pub(crate) start: OwnedFd,
    /// The line for approval questions, where there is a terminal.
    pub(crate) approvals: Option<OwnedFd>,
}

/// Runs the supervisor in a process of its own. Never returns.
pub(crate) fn supervise(supervision: Supervision, workload: &Workload) -> ! {
    process::set_name(c"gait-supervisor");
    let Ok(news) = supervision.status.try_clone() else { process::exit_now(1) };
    let code = match supervise_or_fail(supervision, workload, &news) {
        Ok(()) => 0,
        Err((step, errno)) => {
            Status::Failed { step, errno }.send(news.as_fd());
            1
        }
    };
    process::exit_now(code)
}

/// The filter that allows everything; for probing whether one can be installed at all.
pub(crate) fn allow_all() -> Vec<libc::sock_filter> {
    filter::allow_all()
}

type Failure = (Step, Errno);

/// Names the step at which something failed.
trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|errno| (step, errno))
    }
}

fn supervise_or_fail(supervision: Supervision, workload: &Workload, news: &OwnedFd) -> Result<(), Failure> {
    let Supervision { policy, hidden, simulate, files, events, status, start, approvals } = supervision;
    let mut keep: Vec<RawFd> = workload.keep.clone();
    keep.extend([status.as_raw_fd(), news.as_raw_fd(), start.as_raw_fd(), events.bell().as_raw_fd()]);
    keep.extend(approvals.as_ref().map(AsRawFd::as_raw_fd));
    keep.sort_unstable();
    process::close_all_but(&keep).at(Step::Descriptors)?;
    process::set_subreaper().at(Step::Process)?;
    process::set_no_new_privs().at(Step::Process)?;
    if !simulate {
        credentials::drop_for_good(GROUND_CAPABILITIES).at(Step::Process)?;
    }
    let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let held = files == Files::Held;
    // A kernel that has the rules needs no floor below them, which every open would pay for. Nor can the supervisor have one
    // alone: Landlock lets nobody look into a process that is not under the same floor.
    let floored = !simulate && held && floor::is_available();
    let floored =
        floored && floor::restrict(policy.floor()).map_err(|_error| (Step::Landlock, Errno(libc::EPERM)))?;
    // The hooks keep signals and abstract sockets inside the session; and under a scope, as under any ruleset, nothing could
    // be moved or linked from one directory to another (landlock(7), LANDLOCK_ACCESS_FS_REFER).
    let scoped = !simulate && held && floor::can_scope();

    let needs = filter::Needs {
        mmap_exec: held && policy.can_block(Operation::MmapExec),
        credentials: own_credentials().is_some(),
        reads: policy.exec().reads != ReadEvidence::Off,
        files: held,
    };
    // Where reads are not performed on the caller's behalf, the floor must hold them to the policy.
    if held && policy.exec().reads != ReadEvidence::Exact && !floored && !simulate {
        return Err((Step::Landlock, Errno(libc::EOPNOTSUPP)));
    }
    let program = filter::build(needs);
    let (leash, leash_end) = process::pipe().at(Step::Process)?;
    let (hello, hello_end) = process::pipe().at(Step::Process)?;
    let (go, go_end) = process::pipe().at(Step::Process)?;
    // The guard takes its signing key before anything of the workload exists.
    let mut byte = [0];
    if process::read(start.as_fd(), &mut byte) != Ok(1) {
        return Ok(());
    }
    let tree = match process::fork().at(Step::Process)? {
        Fork::Child => {
            // Only the supervisor may hold the leash.
            drop((leash_end, hello, go_end, start, events, approvals));
            reaper::run(&leash, &status, || {
                let failed = start_workload(workload, &program, scoped, &hello_end, &go, &status);
                failed.send(status.as_fd());
            })
        }
        Fork::Parent(pid) => pid,
    };
    drop((leash, hello_end, go, status));
    reaper::release_standard_files();
    // From here on nobody without privileges may look into this process.
    process::set_dumpable(false).at(Step::Process)?;
    let _leash = leash_end;

    let Some((listener, killable)) = take_listener(&hello).at(Step::Listener)? else { return Ok(()) };
    let sync = listener.set_sync_wake_up().is_ok();
    let desk = Desk::new(approvals);
    let rate = policy.exec().limits.actions_per_second.map(Rate::new);
    let judge = Judge { policy, hidden, simulate, events: Mutex::new(events), desk, rate };
    let shared = Shared::new(listener, judge, tree, own_credentials(), scoped, resolv_conf);
    supervisor::start(&shared).at(Step::Process)?;
    Status::Ready { floor: floored, scope: scoped, killable, sync }.send(news.as_fd());
    // The guard may find this host too weak for the policy.
    if process::read(start.as_fd(), &mut byte) != Ok(1) {
        return Ok(());
    }
    process::write(go_end.as_fd(), b"g").at(Step::Process)?;
    drop(go_end);
    attend(&shared, &start).at(Step::Process)?;
    end_orphans(tree).at(Step::Process)
}

/// Returns our credentials where the workload could come to have others: only a process with rights can change them.
fn own_credentials() -> Option<task::Credentials> {
    let mut tasks = task::Tasks::new();
    let own = tasks.get(process::tid(), 0).ok()?.status().ok()?.credentials;
    (own.effective != 0).then_some(own)
}

/// Waits for the end of the tree; delivers answers to approval questions meanwhile.
fn attend(shared: &Arc<Shared>, start: &OwnedFd) -> Result<(), Errno> {
    // A pidfd, not SIGCHLD: every traced exec raises that signal too.
    let reaper = process::pidfd_open(shared.tree)?;
    let mut message = [0u8; 16];
    loop {
        let line = shared.judge.desk.line();
        let mut fds = vec![start.as_fd(), reaper.as_fd()];
        fds.extend(line.map(AsFd::as_fd));
        let ready = process::poll(&fds, None)?;
        // Without its guard or its reaper the session is over; letting go of the leash ends the tree.
        if ready[0] || ready[1] {
            return Ok(());
        }
        let Some(line) = line.filter(|_| ready.get(2) == Some(&true)) else { continue };
        if process::read(line.as_fd(), &mut message)? != 9 {
            return Ok(());
        }
        let number = message[..8].try_into().map_or(0, u64::from_ne_bytes);
        shared.judge.desk.deliver(number, Approval::from_byte(message[8]));
    }
}

/// Where the reaper was killed, what it watched over is ours to end.
fn end_orphans(tree: u32) -> Result<(), Errno> {
    match process::wait_any(false) {
        Ok(Some(process::Change::Exited { pid, status: 0 })) if pid == tree => Ok(()),
        Ok(Some(_)) | Err(Errno(libc::ECHILD)) => {
            reaper::kill_descendants()?;
            Err(Errno(libc::ECHILD))
        }
        // Still there: the guard is gone, and the reaper ends the tree once the leash is let go.
        Ok(None) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Takes the listener out of the workload's first process.
fn take_listener(hello: &OwnedFd) -> Result<Option<(Listener, bool)>, Errno> {
    let mut message = [0u8; 12];
    if process::read(hello.as_fd(), &mut message)? != message.len() {
        // The workload has said why on the status pipe.
        return Ok(None);
    }
    let word = |i: usize| message[4 * i..4 * i + 4].try_into().map_or(0, u32::from_ne_bytes);
    let pidfd = process::pidfd_open(word(0))?;
    let listener = process::pidfd_getfd(pidfd.as_fd(), word(1).cast_signed())?;
    Ok(Some((Listener(listener), word(2) != 0)))
}

/// The first process of the tree, up to its execve(2). Returns what failed.
fn start_workload(
    workload: &Workload,
    program: &[libc::sock_filter],
    scoped: bool,
    hello: &OwnedFd,
    go: &OwnedFd,
    status: &OwnedFd,
) -> Status {
    match prepare_workload(workload, program, scoped, hello, go, status) {
        Ok(()) => {
            Status::ExecFailed { errno: process::execve(&workload.program, &workload.argv, &workload.envp) }
        }
        Err((step, errno)) => Status::Failed { step, errno },
    }
}

fn prepare_workload(
    workload: &Workload,
    program: &[libc::sock_filter],
    scoped: bool,
    hello: &OwnedFd,
    go: &OwnedFd,
    status: &OwnedFd,
) -> Result<(), Failure> {
    process::set_dumpable(true).at(Step::Process)?;
    // The runtime of this program ignores SIGPIPE; the workload starts as any program does.
    signal::set_default(libc::SIGPIPE);
    let mut keep = workload.keep.clone();
    keep.extend([hello.as_raw_fd(), go.as_raw_fd(), status.as_raw_fd()]);
    keep.sort_unstable();
    process::close_all_but(&keep).at(Step::Descriptors)?;
    for &fd in &workload.keep {
        process::keep_on_exec(fd).at(Step::Descriptors)?;
    }
    if let Some(most) = workload.open_files {
        process::limit_open_files(most).at(Step::Descriptors)?;
    }
    if scoped && !floor::scope().map_err(|_error| (Step::Landlock, Errno(libc::EPERM)))? {
        return Err((Step::Landlock, Errno(libc::EOPNOTSUPP)));
    }
    let (listener, killable) = match notify::install(program, notify::WAIT_KILLABLE) {
        Err(Errno(libc::EINVAL)) => (notify::install(program, 0).at(Step::Filter)?, false),
        other => (other.at(Step::Filter)?, true),
    };
    let mut message = [0u8; 12];
    let words = [process::pid(), listener.as_raw_fd().cast_unsigned(), u32::from(killable)];
    for (chunk, word) in message.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    process::write(hello.as_fd(), &message).at(Step::Listener)?;
    let mut byte = [0];
    if process::read(go.as_fd(), &mut byte) != Ok(1) {
        return Err((Step::Listener, Errno(libc::EPIPE)));
    }
    drop(listener);
    signal::set_mask(&workload.mask).at(Step::Process)?;
    Ok(())
}
