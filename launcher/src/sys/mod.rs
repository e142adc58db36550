//! The kernel boundary: every unsafe block of the launcher is in this directory.
//!
//! One function is one system call with typed arguments. Failures carry the raw errno ([`Errno`]), because most of these
//! calls are made on the workload's behalf and their errno is the workload's answer.

#![expect(unsafe_code, reason = "kernel boundary; every block argues its own safety")]

pub(crate) mod affinity;
pub(crate) mod bpf;
#[cfg_attr(
    not(feature = "fake"),
    expect(
        unreachable_pub,
        dead_code,
        reason = "the tests of the kernel programs, which have a kernel to themselves, reach it from outside"
    )
)]
pub(crate) mod bpf_ring;
pub(crate) mod credentials;
pub(crate) mod fs;
pub(crate) mod ipc;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod packets;
pub(crate) mod process;
pub(crate) mod ring;
pub(crate) mod signal;
pub(crate) mod socket;

use std::fmt;
use std::io;

/// An error number of the kernel, as in errno(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// Returns the calling thread's errno.
    pub(crate) fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// A failed set-up call, by name.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub(crate) struct SyscallError {
    /// Name of the call, as in its man page.
    pub(crate) call: &'static str,
    /// What the kernel answered.
    #[source]
    pub(crate) source: Errno,
}

/// Adds the name of the call to an errno.
pub(crate) trait Named<T> {
    /// Names the call that failed.
    ///
    /// # Errors
    /// The errno, with the name.
    fn call(self, call: &'static str) -> Result<T, SyscallError>;
}

impl<T> Named<T> for Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T, SyscallError> {
        self.map_err(|source| SyscallError { call, source })
    }
}

/// Turns the C convention (-1 and errno) into a result.
fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// As [`check`], for calls that return a length or a `long`.
fn check_long(result: libc::c_long) -> Result<i64, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// As [`check`], for calls that return `ssize_t`.
fn check_size(result: isize) -> Result<usize, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result.unsigned_abs()) }
}
