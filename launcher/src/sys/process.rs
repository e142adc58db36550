//! Processes: fork, pidfds, prctl, waiting, tracing.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, check, check_long, check_size};

/// Which side of a fork one is on.
#[derive(Debug)]
pub(crate) enum Fork {
    Child,
    Parent(u32),
}

/// fork(2). Only for a process with a single thread, so that the child may do anything.
///
/// # Errors
/// `EAGAIN` or `ENOMEM`; `EBUSY` where the process has more threads.
pub(crate) fn fork() -> Result<Fork, Errno> {
    if thread_count() != 1 {
        return Err(Errno(libc::EBUSY));
    }
    // SAFETY: the process has one thread (checked above), so no lock can be held by a thread that the child lacks.
    let pid = check(unsafe { libc::fork() })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid.unsigned_abs()) })
}

/// A child that opens one file when it is told to, and ends.
#[derive(Debug)]
pub(crate) struct Opener {
    pid: u32,
    start: OwnedFd,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    Yes,
    No(Errno),
}

/// Makes an [`Opener`]. The calling process may have threads.
///
/// # Errors
/// Where a process or a pipe cannot be had.
pub(crate) fn fork_opener(path: &'static CStr) -> Result<Opener, Errno> {
    let (wait, start) = pipe()?;
    let (waiting, starting) = (wait.as_raw_fd(), start.as_raw_fd());
    // SAFETY: the child makes system calls only, on memory that it has, and takes no lock before it ends.
    let pid = check(unsafe { libc::fork() })?;
    if pid != 0 {
        return Ok(Opener { pid: pid.unsigned_abs(), start });
    }
    let mut byte = 0u8;
    // SAFETY: a descriptor of this process, which is closed so that the parent's end is the last.
    unsafe { libc::close(starting) };
    // SAFETY: one byte of this frame.
    while unsafe { libc::read(waiting, (&raw mut byte).cast(), 1) } < 0 {}
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    exit_now(if fd < 0 { Errno::last().0 } else { 0 })
}

impl Opener {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it open the file, and waits for its end.
    ///
    /// # Errors
    /// `EINTR` where it was killed.
    pub(crate) fn go(self) -> Result<Opened, Errno> {
        drop(self.start);
        let mut status = 0;
        let pid = self.pid.cast_signed();
        // SAFETY: `status` outlives the call; the child is ours and was not waited for.
        check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
        if !libc::WIFEXITED(status) {
            return Err(Errno(libc::EINTR));
        }
        Ok(match libc::WEXITSTATUS(status) {
            0 => Opened::Yes,
            errno => Opened::No(Errno(errno)),
        })
    }
}

/// Counts this process's threads, or answers 0 where that cannot be told.
pub(crate) fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(0)
}

/// Waits until this process has no more threads than `most`, a second at the longest.
pub(crate) fn wait_for_threads(most: usize) {
    for _ in 0..1000 {
        if thread_count() <= most {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// _exit(2): ends the process without running anything of ours.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing after it can observe anything.
    unsafe { libc::_exit(status) }
}

/// getpid(2).
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// gettid(2).
pub(crate) fn tid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// getuid(2).
pub(crate) fn real_uid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::getuid() }
}

fn prctl(option: i32, argument: libc::c_ulong) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used below take integers only.
    check(unsafe { libc::prctl(option, argument, zero, zero, zero) }).map(drop)
}

/// `PR_SET_NO_NEW_PRIVS`.
pub(crate) fn set_no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// `PR_SET_DUMPABLE`.
pub(crate) fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable))
}

/// `PR_SET_CHILD_SUBREAPER`.
pub(crate) fn set_subreaper() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Names the process as it shows in ps(1).
pub(crate) fn set_name(name: &CStr) {
    let zero: libc::c_ulong = 0;
    // SAFETY: `name` is NUL-terminated; the kernel copies at most 16 bytes. The name is a courtesy, failure harms nothing.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), zero, zero, zero) };
}

/// Gives the calling thread a working directory and umask of its own.
pub(crate) fn unshare_fs() -> Result<(), Errno> {
    // SAFETY: plain flag; affects the calling thread only.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

fn own(fd: i64) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(fd).map_err(|_error| Errno(libc::EBADF))?;
    // SAFETY: a non-negative result of a call that makes a descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_open(2) on a thread: `PIDFD_THREAD` (Linux 6.9) where known, else on the thread group leader.
pub(crate) fn pidfd_open_thread(tid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain integers; `PIDFD_THREAD` is `O_EXCL`.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, libc::O_EXCL) };
    match check_long(fd).and_then(own) {
        Err(Errno(libc::EINVAL)) => pidfd_open(tid),
        other => other,
    }
}

/// pidfd_open(2) on a process.
pub(crate) fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain integers.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).and_then(own)
}

/// pidfd_getfd(2): a copy of a descriptor of another task. The number it has there may mean another file by now.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain integers, validated by the kernel.
    check_long(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) }).and_then(own)
}

/// kill(2).
pub(crate) fn kill(pid: u32, signal: i32) -> Result<(), Errno> {
    let pid = i32::try_from(pid).map_err(|_error| Errno(libc::ESRCH))?;
    // Never 0 or negative: those mean groups.
    if pid <= 0 {
        return Err(Errno(libc::ESRCH));
    }
    // SAFETY: plain integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// tgkill(2) on a thread of this process.
pub(crate) fn interrupt_thread(tid: u32, signal: i32) {
    // SAFETY: plain integers; a thread that is gone answers ESRCH, which is what the caller wants anyway.
    unsafe { libc::syscall(libc::SYS_tgkill, pid(), tid, signal) };
}

/// tgkill(2) on a thread of the workload; one that is gone needs no signal.
pub(crate) fn signal_thread(tgid: u32, tid: u32, signal: i32) {
    // SAFETY: plain integers, validated by the kernel.
    unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, signal) };
}

/// What waitid(2) tells of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Exited { pid: u32, status: i32 },
    Killed { pid: u32, signal: i32 },
    Stopped { pid: u32, signal: i32 },
    Continued { pid: u32 },
}

/// Waits for a change of any child; `None` where there is none to report now.
///
/// # Errors
/// `ECHILD` where there is no child.
pub(crate) fn wait_any(block: bool) -> Result<Option<Change>, Errno> {
    // __WNOTHREAD: the stops of other threads' tracees are theirs.
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED | libc::__WNOTHREAD;
    let flags = flags | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is writable memory of the size of a `siginfo_t`.
        match check(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) }) {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(_) => {
                // SAFETY: zeroed memory is a valid `siginfo_t`, filled or not.
                let info = unsafe { info.assume_init() };
                // SAFETY: after waitid the structure holds the SIGCHLD fields (all zero where nothing changed).
                let pid = unsafe { info.si_pid() }.unsigned_abs();
                // SAFETY: as above.
                let value = unsafe { info.si_status() };
                return Ok(match (pid, info.si_code) {
                    (0, _) => None,
                    (_, libc::CLD_EXITED) => Some(Change::Exited { pid, status: value }),
                    (_, libc::CLD_KILLED | libc::CLD_DUMPED) => Some(Change::Killed { pid, signal: value }),
                    (_, libc::CLD_CONTINUED) => Some(Change::Continued { pid }),
                    _ => Some(Change::Stopped { pid, signal: value }),
                });
            }
        }
    }
}

/// `PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL`.
const TRACE_OPTIONS: usize = 0x10 | 0x0010_0000;

/// What a traced thread did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// It runs a new image, and not one instruction of it has run.
    Exec { pid: u32 },
    /// It stopped for another reason: the exec failed.
    Stopped { pid: u32, signal: i32, event: i32 },
    /// It is gone.
    Gone,
}

fn ptrace(request: libc::c_uint, tid: u32, data: usize) -> Result<i64, Errno> {
    let tid = i32::try_from(tid).map_err(|_error| Errno(libc::ESRCH))?;
    // SAFETY: the requests used below take integers only: SEIZE, INTERRUPT, DETACH.
    check_long(unsafe { libc::ptrace(request, tid, 0usize, data) })
}

/// Attaches to a thread without stopping it; it dies with the calling thread.
pub(crate) fn seize(tid: u32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_SEIZE, tid, TRACE_OPTIONS)?;
    // The stop that this asks for comes when the held call is over without an exec.
    ptrace(libc::PTRACE_INTERRUPT, tid, 0).map(drop)
}

/// Lets a stopped tracee go, delivering `signal` unless 0.
pub(crate) fn detach(tid: u32, signal: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_DETACH, tid, usize::try_from(signal).unwrap_or(0)).map(drop)
}

/// Waits for the next event of a task that the calling thread traces.
///
/// # Errors
/// `ECHILD` where the calling thread traces nothing.
pub(crate) fn wait_traced() -> Result<Trace, Errno> {
    loop {
        let mut status = 0;
        // __WNOTHREAD: other threads' tracees are theirs.
        // SAFETY: `status` is a live int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        match check(pid) {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(pid) => {
                let pid = pid.unsigned_abs();
                if !libc::WIFSTOPPED(status) {
                    return Ok(Trace::Gone);
                }
                let event = status >> 16;
                return Ok(if event == libc::PTRACE_EVENT_EXEC {
                    Trace::Exec { pid }
                } else {
                    Trace::Stopped { pid, signal: libc::WSTOPSIG(status), event }
                });
            }
        }
    }
}

/// Raises the soft limit of `RLIMIT_NOFILE` so that this many can be open, as far as the hard limit admits.
pub(crate) fn allow_open_files(most: usize) -> Result<(), Errno> {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live `rlimit`.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.max(most).min(limit.rlim_max);
    // SAFETY: a live `rlimit`.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Lowers `RLIMIT_NOFILE`, the soft and the hard limit; never raises them.
pub(crate) fn limit_open_files(most: u64) -> Result<(), Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live `rlimit`.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.min(most);
    limit.rlim_max = limit.rlim_max.min(most);
    // SAFETY: a live `rlimit`.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// eventfd(2), close-on-exec and non-blocking.
pub(crate) fn eventfd() -> Result<OwnedFd, Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(i64::from).and_then(own)
}

/// Makes an eventfd readable.
pub(crate) fn ring_bell(fd: BorrowedFd<'_>) {
    let one = 1u64;
    // A full counter is readable already, so failure changes nothing.
    // SAFETY: eight live bytes.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Makes an eventfd unreadable.
pub(crate) fn clear_bell(fd: BorrowedFd<'_>) {
    let mut value = 0u64;
    // SAFETY: eight writable bytes.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut value).cast(), 8) };
}

/// pipe2(2) with `O_CLOEXEC`: reading end, writing end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut fds = [0; 2];
    // SAFETY: two writable ints.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((own(i64::from(fds[0]))?, own(i64::from(fds[1]))?))
}

/// socketpair(2) of sequenced packets, close-on-exec.
pub(crate) fn socketpair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: two writable ints.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((own(i64::from(fds[0]))?, own(i64::from(fds[1]))?))
}

/// read(2), repeated on `EINTR`.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        // SAFETY: `buffer` is writable for the length passed.
        match check_size(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }) {
            Err(Errno(libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// write(2), repeated on `EINTR`; not on short writes.
pub(crate) fn write(fd: BorrowedFd<'_>, buffer: &[u8]) -> Result<usize, Errno> {
    loop {
        // SAFETY: `buffer` is live for the length passed.
        match check_size(unsafe { libc::write(fd.as_raw_fd(), buffer.as_ptr().cast(), buffer.len()) }) {
            Err(Errno(libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// poll(2) for reading on up to a few descriptors; returns which are ready (or hung up). `None`: no timeout.
pub(crate) fn poll(fds: &[BorrowedFd<'_>], timeout_ms: Option<i32>) -> Result<Vec<bool>, Errno> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let count = libc::nfds_t::try_from(polled.len()).map_err(|_error| Errno(libc::EINVAL))?;
    // SAFETY: `polled` is live and as long as said.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), count, timeout_ms.unwrap_or(-1)) }) {
        Err(Errno(libc::EINTR)) => Ok(vec![false; fds.len()]),
        Err(errno) => Err(errno),
        Ok(_) => Ok(polled.iter().map(|p| p.revents != 0).collect()),
    }
}

/// Returns whether the descriptor hung up: for a listener, that no task uses the filter any more.
pub(crate) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live `pollfd`.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents & libc::POLLHUP != 0
}

/// Returns whether the descriptor is readable now.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live `pollfd`.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents & libc::POLLIN != 0
}

/// Closes every descriptor from 3 on but those in `keep` (sorted).
pub(crate) fn close_all_but(keep: &[RawFd]) -> Result<(), Errno> {
    let mut from = 3u32;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= 3).chain([u32::MAX]) {
        if fd > from {
            // SAFETY: closes descriptors of the calling process only; its owners in this process never use them again,
            // because the caller execs or exits next.
            check_long(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Returns whether a descriptor of that number is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: plain integers; an unknown number is refused.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Clears close-on-exec.
pub(crate) fn keep_on_exec(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Makes `to` the same open file as `fd`.
pub(crate) fn replace_fd(fd: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    // SAFETY: plain integers; `to` is one of the standard descriptors, which no `OwnedFd` of ours owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), to) }).map(drop)
}

/// execve(2); returns only on failure. The pointer arrays end in null and point to live C strings.
pub(crate) fn execve(path: &CStr, argv: &CStringArray, envp: &CStringArray) -> Errno {
    // SAFETY: `path` is NUL-terminated; both arrays end in a null pointer and their strings live in the arrays.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Errno::last()
}

/// C strings with the null-terminated pointer array that execve(2) wants, made before the fork.
#[derive(Debug)]
pub(crate) struct CStringArray {
    /// Owns what `pointers` points to; never changed after construction.
    _strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// The wall clock in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
