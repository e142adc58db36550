//! bpf(2) on maps: what is shared with the kernel programs, as bytes.
//!
//! Loading programs is aya's; maps are read and written here, since their values are the structs of `gait_ebpf::layout`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use gait_ebpf::layout::{Counters, Grant, GrantKey, Identity, IdentityKey, Seed, Session};

use super::{Errno, check_long};

/// Commands of bpf(2).
const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_UPDATE_BATCH: i32 = 26;
/// `BPF_MAP_TYPE_RINGBUF`.
const RINGBUF: u32 = 27;
/// `BPF_NOEXIST`: only what is not there yet.
pub(crate) const NEW: u64 = 1;

/// A value that lies in a map.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding.
pub(crate) unsafe trait Shared: Copy {}

// SAFETY: an integer.
unsafe impl Shared for u32 {}
// SAFETY: an integer.
unsafe impl Shared for u64 {}
// SAFETY: integers without padding (u32 × 9).
unsafe impl Shared for Session {}
// SAFETY: integers without padding (u32, u32, u64).
unsafe impl Shared for IdentityKey {}
// SAFETY: integers without padding (u32 × 2).
unsafe impl Shared for Identity {}
// SAFETY: integers without padding (u32 × 2).
unsafe impl Shared for GrantKey {}
// SAFETY: integers without padding (u64 × 3, u32 × 2).
unsafe impl Shared for Grant {}
// SAFETY: integers without padding (u64 × 4).
unsafe impl Shared for Counters {}
// SAFETY: integers without padding (u32 × 4).
unsafe impl Shared for Seed {}

/// `union bpf_attr`, as far as these commands use it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

/// # Safety
/// The addresses in `attribute` are what the command wants, and stay so for the call.
unsafe fn bpf<T>(command: i32, attribute: &mut T) -> Result<i64, Errno> {
    let pointer: *mut T = attribute;
    // SAFETY: the attribute is as long as said; the rest is the caller's promise.
    check_long(unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) })
}

fn raw(map: BorrowedFd<'_>) -> u32 {
    map.as_raw_fd().unsigned_abs()
}

fn address<T>(of: *const T) -> u64 {
    of.addr() as u64
}

/// Makes a ring of so many bytes: a power of two, and whole pages.
///
/// # Errors
/// `EINVAL` for another size, `ENOMEM`, `EPERM`.
pub(crate) fn create_ring(bytes: u32) -> Result<OwnedFd, Errno> {
    let mut name = [0; 16];
    name[..9].copy_from_slice(b"gait_ring");
    let mut attribute = Create { kind: RINGBUF, max_entries: bytes, name, ..Create::default() };
    // SAFETY: no addresses.
    let fd = unsafe { bpf(MAP_CREATE, &mut attribute) }?;
    let fd = RawFd::try_from(fd).map_err(|_error| Errno(libc::EBADF))?;
    // SAFETY: a descriptor that the call just made; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads one value.
///
/// # Errors
/// `ENOENT` where there is none.
pub(crate) fn look_up<K: Shared, V: Shared + Default>(map: BorrowedFd<'_>, key: &K) -> Result<V, Errno> {
    let mut value = V::default();
    let pointer: *mut V = &raw mut value;
    let mut attribute =
        Element { map: raw(map), key: address(key), value: address(pointer), ..Element::default() };
    // SAFETY: key and value have the map's sizes, which is what `gait_ebpf::layout` is for.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attribute) }?;
    Ok(value)
}

/// Writes one value.
///
/// # Errors
/// `E2BIG` where the map is full; `EEXIST` with [`NEW`].
pub(crate) fn update<K: Shared, V: Shared>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
    flags: u64,
) -> Result<(), Errno> {
    let mut attribute = Element { map: raw(map), key: address(key), value: address(value), flags, pad: 0 };
    // SAFETY: as in `look_up`.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attribute) }.map(drop)
}

/// Removes one value.
///
/// # Errors
/// `ENOENT` where there is none.
pub(crate) fn delete<K: Shared>(map: BorrowedFd<'_>, key: &K) -> Result<(), Errno> {
    let mut attribute = Element { map: raw(map), key: address(key), ..Element::default() };
    // SAFETY: as in `look_up`.
    unsafe { bpf(MAP_DELETE_ELEM, &mut attribute) }.map(drop)
}

/// Writes a run of values into an array.
///
/// # Errors
/// `E2BIG` where it does not fit.
pub(crate) fn update_run(map: BorrowedFd<'_>, first: u32, values: &[u64]) -> Result<(), Errno> {
    const CHUNK: usize = 65_536;
    let mut at = first;
    for chunk in values.chunks(CHUNK) {
        let count = u32::try_from(chunk.len()).map_err(|_error| Errno(libc::E2BIG))?;
        let end = at.checked_add(count).ok_or(Errno(libc::E2BIG))?;
        let keys: Vec<u32> = (at..end).collect();
        let mut attribute = Batch {
            keys: address(keys.as_ptr()),
            values: address(chunk.as_ptr()),
            count,
            map: raw(map),
            ..Batch::default()
        };
        // SAFETY: as many keys and values as said, of the array's sizes.
        unsafe { bpf(MAP_UPDATE_BATCH, &mut attribute) }?;
        at = end;
    }
    Ok(())
}

/// `CLOCK_BOOTTIME`, in nanoseconds: the clock of events and grants.
pub(crate) fn boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
