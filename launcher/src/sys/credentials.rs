//! Credentials of the calling thread: what a root supervisor takes on while it acts for a caller with fewer rights.
//!
//! The raw calls change one thread only; glibc's wrappers would change all of them.

use super::{Errno, check_long};

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the thread's supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: `groups` is live for the length passed and only read.
    check_long(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets the thread's file system user and group; the kernel drops the file capabilities with a non-zero user.
pub(crate) fn set_fs_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
    // SAFETY: plain integers.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
    // setfsuid(2) reports no errors; asking with an invalid id returns the value in force.
    // SAFETY: plain integers.
    let uid_now = unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) };
    // SAFETY: plain integers.
    let gid_now = unsafe { libc::syscall(libc::SYS_setfsgid, u32::MAX) };
    if uid_now == i64::from(uid) && gid_now == i64::from(gid) { Ok(()) } else { Err(Errno(libc::EPERM)) }
}

/// Returns the thread's effective and permitted capabilities.
pub(crate) fn capabilities() -> Result<(u64, u64), Errno> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads the header and writes two `CapData`.
    check_long(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((join(data[0].effective, data[1].effective), join(data[0].permitted, data[1].permitted)))
}

/// Sets the thread's effective capabilities, keeping the permitted ones.
pub(crate) fn set_effective(effective: u64, permitted: u64) -> Result<(), Errno> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |set: u64, shift: u32| u32::try_from(set >> shift & 0xffff_ffff).unwrap_or(0);
    let data = [0, 32].map(|shift| CapData {
        effective: half(effective, shift),
        permitted: half(permitted, shift),
        inheritable: 0,
    });
    // SAFETY: version 3 reads the header and two `CapData`.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}
