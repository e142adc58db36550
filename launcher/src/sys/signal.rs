//! Signals and the terminal.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, check};

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct Set(libc::sigset_t);

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Set")
    }
}

impl Set {
    /// Every signal that can be blocked.
    pub(crate) fn all() -> Self {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: writable memory of the size of a `sigset_t`; the call cannot fail.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: sigfillset initialises the set.
        Self(unsafe { set.assume_init() })
    }
}

/// Sets the calling thread's mask and returns the old one.
pub(crate) fn set_mask(set: &Set) -> Result<Set, Errno> {
    let mut old = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is initialised, `old` is writable.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set.0, old.as_mut_ptr()) };
    if error != 0 {
        return Err(Errno(error));
    }
    // SAFETY: filled by the successful call.
    Ok(Set(unsafe { old.assume_init() }))
}

/// Returns the calling thread's mask.
pub(crate) fn current_mask() -> Result<Set, Errno> {
    let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a null new set only asks; `mask` is writable.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr()) };
    if error != 0 {
        return Err(Errno(error));
    }
    // SAFETY: filled by the successful call.
    Ok(Set(unsafe { mask.assume_init() }))
}

/// signalfd(2), non-blocking and close-on-exec.
pub(crate) fn signalfd(set: &Set) -> Result<OwnedFd, Errno> {
    // SAFETY: `set` is initialised.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One signal read from a signalfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: i32,
    /// Whether a process sent it; a terminal's signals come from the kernel.
    pub(crate) from_process: bool,
}

/// Reads the next signal, if one is there.
pub(crate) fn next(fd: BorrowedFd<'_>) -> Option<Received> {
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: writable memory of the size passed.
    let n = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if n.unsigned_abs() != size || n < 0 {
        return None;
    }
    // SAFETY: the kernel filled the whole structure.
    let info = unsafe { info.assume_init() };
    // SI_KERNEL is 0x80; everything that a process sends has a code of zero or below.
    Some(Received { signal: i32::try_from(info.ssi_signo).ok()?, from_process: info.ssi_code <= 0 })
}

/// Sets a signal back to its default action.
pub(crate) fn set_default(signal: i32) {
    // SAFETY: `SIG_DFL` runs no code of ours; SIGKILL and SIGSTOP are refused, which is as it should be.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

extern "C" fn nothing(_signal: i32) {}

/// Installs a handler that does nothing, without `SA_RESTART`, so that the signal interrupts blocking calls.
pub(crate) fn interrupt_only(signal: i32) -> Result<(), Errno> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(i32) = nothing;
    // SAFETY: zeroed memory is a valid `sigaction` with an empty mask and no flags.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // SAFETY: the handler touches nothing, so it is async-signal-safe; `action` is live.
    check(unsafe { libc::sigaction(signal, &raw const *action, std::ptr::null_mut()) }).map(drop)
}

/// Stops the calling process, as a terminal's Ctrl-Z would.
pub(crate) fn stop_self() {
    // SAFETY: plain integer.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// tcgetpgrp(3).
pub(crate) fn foreground_group(tty: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: plain integer.
    check(unsafe { libc::tcgetpgrp(tty.as_raw_fd()) })
}

/// tcsetpgrp(3).
pub(crate) fn set_foreground_group(tty: BorrowedFd<'_>, group: i32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::tcsetpgrp(tty.as_raw_fd(), group) }).map(drop)
}

/// getpgrp(2).
pub(crate) fn own_group() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::getpgrp() }
}
