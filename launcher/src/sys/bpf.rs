//! bpf(2) on maps: what is shared with the kernel programs, as bytes.
//!
//! Loading programs is aya's; maps are read and written here, since their values are the structs of `gait_ebpf::layout`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use gait_ebpf::layout::{Counters, Grant, GrantKey, Identity, IdentityKey, Naming, Seed, Session};

use super::{Errno, check_long};

/// Commands of bpf(2).
const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const MAP_UPDATE_BATCH: i32 = 26;
const LINK_CREATE: i32 = 28;
const ITER_CREATE: i32 = 33;
/// `BPF_TRACE_ITER`.
const TRACE_ITER: u32 = 28;
/// `BPF_MAP_TYPE_RINGBUF`.
const RINGBUF: u32 = 27;

/// Keys that are looked at at most.
const KEYS_MAX: usize = 1 << 20;

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
// SAFETY: integers without padding (u32 × 4).
unsafe impl Shared for Naming {}

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

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Link {
    program: u32,
    target: u32,
    kind: u32,
    flags: u32,
    info: u64,
    info_bytes: u32,
    pad: u32,
}

/// `union bpf_iter_link_info`, its member `task`: which tasks an iterator visits. As long as the union was in Linux 6.1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Visited {
    thread: u32,
    process: u32,
    pidfd: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iteration {
    link: u32,
    flags: u32,
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
    owned(unsafe { bpf(MAP_CREATE, &mut attribute) }?)
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

/// Reads one value as bytes; `value` is as long as the map's values are.
///
/// # Errors
/// `ENOENT` where there is none.
pub(crate) fn look_up_bytes(map: BorrowedFd<'_>, key: &u64, value: &mut [u8]) -> Result<(), Errno> {
    let mut attribute = Element {
        map: raw(map),
        key: address(key),
        value: address(value.as_mut_ptr()),
        ..Element::default()
    };
    // SAFETY: the key is the map's, and the caller gives as many bytes as its values have, which the kernel writes.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attribute) }.map(drop)
}

/// Runs an iterator's program once for everything that one process has of what the iterator visits.
///
/// `bpf_iter(7)` is not written yet; Documentation/bpf/bpf_iterators.rst of the kernel is. The choice of a process is there
/// since Linux 6.1 (commit f0d74c4da1f0).
///
/// # Errors
/// `ESRCH` where there is no such process; what the kernel says of the program.
pub(crate) fn visit(program: BorrowedFd<'_>, process: u32) -> Result<(), Errno> {
    let info = Visited { process, ..Visited::default() };
    let mut link = Link {
        program: raw(program),
        kind: TRACE_ITER,
        info: address(&raw const info),
        info_bytes: u32::try_from(size_of::<Visited>()).unwrap_or(0),
        ..Link::default()
    };
    // SAFETY: `info` is as long as said and outlives the call.
    let link = owned(unsafe { bpf(LINK_CREATE, &mut link) }?)?;
    let mut iteration = Iteration { link: link.as_raw_fd().unsigned_abs(), flags: 0 };
    // SAFETY: no addresses.
    let iterator = owned(unsafe { bpf(ITER_CREATE, &mut iteration) }?)?;
    let mut iterator = File::from(iterator);
    let mut nothing = [0; 64];
    // The programs write nothing; reading is what runs them.
    loop {
        match iterator.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(Errno(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}

fn owned(fd: i64) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(fd).map_err(|_error| Errno(libc::EBADF))?;
    // SAFETY: a descriptor that the caller's call just made; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the keys of a hash. What comes and goes meanwhile may be among them or not.
///
/// # Errors
/// What the kernel says.
pub(crate) fn keys<K: Shared + Default>(map: BorrowedFd<'_>) -> Result<Vec<K>, Errno> {
    let mut keys: Vec<K> = Vec::new();
    // A hash whose keys go while it is walked begins anew; it has no more than this.
    while keys.len() < KEYS_MAX {
        let mut next = K::default();
        let pointer: *mut K = &raw mut next;
        let before = keys.last().map_or(0, |last| address::<K>(last));
        let mut attribute =
            Element { map: raw(map), key: before, value: address(pointer), ..Element::default() };
        // SAFETY: both have the size of the map's keys, which is what `gait_ebpf::layout` is for; no key asks for the first.
        match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attribute) } {
            Ok(_) => keys.push(next),
            Err(Errno(libc::ENOENT)) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(keys)
}

/// Writes one value.
///
/// # Errors
/// `E2BIG` where the map is full.
pub(crate) fn update<K: Shared, V: Shared>(map: BorrowedFd<'_>, key: &K, value: &V) -> Result<(), Errno> {
    let mut attribute =
        Element { map: raw(map), key: address(key), value: address(value), ..Element::default() };
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
