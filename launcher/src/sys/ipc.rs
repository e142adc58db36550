//! System V IPC: making and finding objects, sysvipc(7).

use super::{Errno, check};

/// The three kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Memory,
    Semaphores,
    Queue,
}

/// shmget(2), semget(2), msgget(2). `size` is the bytes of a segment or the number of semaphores.
///
/// # Errors
/// As those calls.
pub(crate) fn get(kind: Kind, key: i32, size: u64, flags: i32) -> Result<i32, Errno> {
    let bytes = usize::try_from(size).map_err(|_error| Errno(libc::EINVAL))?;
    check(match kind {
        // SAFETY: plain integers.
        Kind::Memory => unsafe { libc::shmget(key, bytes, flags) },
        // SAFETY: plain integers. The kernel takes the low word of the number, as it does from anybody.
        Kind::Semaphores => unsafe { libc::semget(key, (size & 0xffff_ffff) as u32 as i32, flags) },
        // SAFETY: plain integers.
        Kind::Queue => unsafe { libc::msgget(key, flags) },
    })
}
