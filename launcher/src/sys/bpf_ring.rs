//! The reading end of a ring of the kernel programs (`BPF_MAP_TYPE_RINGBUF`), mapped.
//!
//! aya reads the rings of an object's own maps; a session's ring is made when the session is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Errno;

/// Flags in a record's length (`BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT`).
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Bytes before a record's own (`BPF_RINGBUF_HDR_SZ`).
const HEADER: u64 = 8;

/// A page that the kernel maps.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, length: usize, protection: i32, offset: usize) -> Result<Self, Errno> {
        let offset = libc::off_t::try_from(offset).map_err(|_error| Errno(libc::EINVAL))?;
        // SAFETY: a mapping at an address of the kernel's choice overlaps nothing of ours.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset)
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self { base, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; no reference into it outlives the owner.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// The reader of a ring. There is one reader of a ring at a time.
#[derive(Debug)]
pub struct BpfRing {
    fd: OwnedFd,
    /// The position up to which was read; a page that is ours to write.
    consumer: Mapping,
    /// The position up to which was written, then the data, twice.
    producer: Mapping,
    page: usize,
    size: u64,
    /// Bytes of the record that [`BpfRing::next`] gave out, which are given back at the next call.
    held: u64,
}

// SAFETY: the mappings belong to this value alone, and the kernel's side of them is reached by atomics.
unsafe impl Send for BpfRing {}

impl BpfRing {
    /// Maps a ring of `size` bytes.
    pub(crate) fn new(fd: OwnedFd, size: u32) -> Result<Self, Errno> {
        // SAFETY: no pointers.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let consumer = Mapping::new(fd.as_fd(), page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let length = page + 2 * usize::try_from(size).map_err(|_error| Errno(libc::EINVAL))?;
        let producer = Mapping::new(fd.as_fd(), length, libc::PROT_READ, page)?;
        Ok(Self { fd, consumer, producer, page, size: u64::from(size), held: 0 })
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of a page that lives as long as `self`, and is only reached as an atomic.
        unsafe { self.consumer.base.cast::<AtomicU64>().as_ref() }
    }

    fn produced(&self) -> u64 {
        // SAFETY: the first word of the producer's page, which the kernel only writes as a whole.
        unsafe { self.producer.base.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    fn data(&self, position: u64) -> NonNull<u8> {
        let at = self.page + usize::try_from(position & (self.size - 1)).unwrap_or(0);
        // SAFETY: `at` is within the page and the first copy of the data; a record's end is within the second.
        unsafe { self.producer.base.add(at) }
    }

    /// Returns the next record, or `None` where there is none yet.
    #[expect(clippy::should_implement_trait, reason = "the record is only there until the next call")]
    pub fn next(&mut self) -> Option<&[u8]> {
        let mut position = self.consumed().load(Ordering::Relaxed);
        if self.held > 0 {
            position += self.held;
            self.held = 0;
            self.consumed().store(position, Ordering::Release);
        }
        loop {
            if position >= self.produced() {
                return None;
            }
            let header = self.data(position).cast::<AtomicU32>();
            // SAFETY: records are aligned to eight bytes; the length is written by the kernel as an atomic.
            let length = unsafe { header.as_ref() }.load(Ordering::Acquire);
            if length & BUSY != 0 {
                return None;
            }
            let bytes = length & !DISCARDED;
            let whole = (u64::from(bytes) + HEADER).next_multiple_of(8);
            if length & DISCARDED != 0 {
                position += whole;
                self.consumed().store(position, Ordering::Release);
                continue;
            }
            self.held = whole;
            let start = self.data(position + HEADER);
            let length = usize::try_from(bytes).unwrap_or(0);
            // SAFETY: the record lies within the two copies of the data, and the kernel does not write it again before it is
            // given back, for which this borrow must have ended.
            return Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) });
        }
    }

    /// Returns the part of the ring that is used, in bytes.
    pub fn backlog(&self) -> u64 {
        self.produced().saturating_sub(self.consumed().load(Ordering::Relaxed))
    }
}

impl AsFd for BpfRing {
    /// Becomes readable when there is a record.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
