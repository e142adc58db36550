//! A byte ring in memory shared between the supervisor (writes) and the guard (reads).
//!
//! One producer process, one consumer process. It is made before the fork, holds whole messages only, and survives the
//! death of either side, so that the guard still reads what a killed supervisor had accepted. The producer blocks while
//! the ring is full: nothing is ever dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Errno, SyscallError};

/// Bytes of the ring. A power of two, so that positions wrap by masking. About 25,000 events.
const CAPACITY: usize = 4 << 20;
/// How long a producer sleeps before it looks again at a full ring.
const FULL_WAIT: Duration = Duration::from_micros(100);

#[repr(C, align(64))]
struct Header {
    /// Bytes written since the start.
    head: AtomicU64,
    pad: [u64; 7],
    /// Bytes read since the start.
    tail: AtomicU64,
    /// 1 while the reader sleeps in poll(2) and wants the bell rung.
    reader_waits: AtomicU32,
    /// 1 once the reader will read no more.
    closed: AtomicU32,
}

/// The mapping, shared by both ends through fork(2).
#[derive(Debug)]
struct Shared {
    header: NonNull<Header>,
    data: NonNull<u8>,
    bell: OwnedFd,
}

// SAFETY: the header is only touched through atomics, the data only between positions that the protocol gives to one side.
unsafe impl Send for Shared {}
// SAFETY: as above; the producer side is wrapped in a mutex by its owner.
unsafe impl Sync for Shared {}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Producer(Shared);

/// The reading end.
#[derive(Debug)]
pub(crate) struct Consumer(Shared);

/// The reader is gone; nothing can be recorded any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

fn map() -> Result<(NonNull<Header>, NonNull<u8>), Errno> {
    let len = size_of::<Header>() + CAPACITY;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing of ours.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let base = NonNull::new(base.cast::<u8>()).ok_or(Errno(libc::ENOMEM))?;
    // SAFETY: the mapping is `size_of::<Header>() + CAPACITY` bytes long.
    let data = unsafe { base.add(size_of::<Header>()) };
    Ok((base.cast(), data))
}

/// Makes a ring. Call it before the fork; afterwards each side keeps one end and drops the other.
pub(crate) fn pair() -> Result<(Producer, Consumer), SyscallError> {
    use super::Named;
    // The pages are zero: positions 0, nobody waits, open. The mapping lives until both processes end.
    let (header, data) = map().call("mmap")?;
    let bell = super::process::eventfd().call("eventfd")?;
    let other = bell.try_clone().map_err(|_error| Errno::last()).call("dup")?;
    Ok((Producer(Shared { header, data, bell }), Consumer(Shared { header, data, bell: other })))
}

impl Shared {
    fn header(&self) -> &Header {
        // SAFETY: the mapping is never unmapped, is aligned to a page, and its zero pages are a valid `Header`.
        unsafe { self.header.as_ref() }
    }

    fn copy_in(&self, position: u64, bytes: &[u8]) {
        let at = usize::try_from(position).unwrap_or(0) & (CAPACITY - 1);
        let first = bytes.len().min(CAPACITY - at);
        // SAFETY: `at < CAPACITY`.
        let target = unsafe { self.data.add(at) };
        // SAFETY: `at + first <= CAPACITY`; the protocol gives these bytes to the producer until `head` moves.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(bytes).cast(), first) };
        let rest = &bytes[first..];
        // SAFETY: `rest` is shorter than the capacity; the protocol gives the start of the ring to the producer too.
        unsafe { self.data.copy_from_nonoverlapping(NonNull::from(rest).cast(), rest.len()) };
    }

    fn copy_out(&self, position: u64, out: &mut [u8]) {
        let at = usize::try_from(position).unwrap_or(0) & (CAPACITY - 1);
        let first = out.len().min(CAPACITY - at);
        let (head, rest) = out.split_at_mut(first);
        // SAFETY: `at < CAPACITY`.
        let source = unsafe { self.data.add(at) };
        // SAFETY: `at + first <= CAPACITY`; bytes below `head` belong to the consumer until `tail` moves.
        unsafe { source.copy_to_nonoverlapping(NonNull::from(head).cast(), first) };
        let len = rest.len();
        // SAFETY: as above, for the part that wrapped.
        unsafe { self.data.copy_to_nonoverlapping(NonNull::from(rest).cast(), len) };
    }
}

impl Producer {
    /// Returns the bell, which must stay open in the producing process.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }

    /// Appends one message; waits while the ring is full.
    ///
    /// # Errors
    /// [`Closed`] where the reader is gone: the caller must block the action.
    pub(crate) fn push(&mut self, message: &[u8]) -> Result<(), Closed> {
        let header = self.0.header();
        let length = u32::try_from(message.len()).map_err(|_error| Closed)?;
        let need = 4 + message.len() as u64;
        let head = header.head.load(Ordering::Relaxed);
        while head + need - header.tail.load(Ordering::Acquire) > CAPACITY as u64 {
            if header.closed.load(Ordering::Acquire) != 0 || need > CAPACITY as u64 {
                return Err(Closed);
            }
            std::thread::sleep(FULL_WAIT);
        }
        if header.closed.load(Ordering::Acquire) != 0 {
            return Err(Closed);
        }
        self.0.copy_in(head, &length.to_ne_bytes());
        self.0.copy_in(head + 4, message);
        // SeqCst orders this store before the look at `reader_waits`, as the reader does the other way round.
        header.head.store(head + need, Ordering::SeqCst);
        if header.reader_waits.load(Ordering::SeqCst) != 0
            && header.reader_waits.swap(0, Ordering::SeqCst) != 0
        {
            super::process::ring_bell(self.0.bell.as_fd());
        }
        Ok(())
    }
}

impl Consumer {
    /// Takes the next message into `out`; returns whether there was one.
    pub(crate) fn pop(&mut self, out: &mut Vec<u8>) -> bool {
        let header = self.0.header();
        let tail = header.tail.load(Ordering::Relaxed);
        if header.head.load(Ordering::Acquire) == tail {
            return false;
        }
        let mut length = [0; 4];
        self.0.copy_out(tail, &mut length);
        // A length beyond the ring can only come from a producer that lost its mind; the rest is unreadable then.
        let length = (u32::from_ne_bytes(length) as usize).min(CAPACITY);
        out.resize(length, 0);
        self.0.copy_out(tail + 4, out);
        header.tail.store(tail + 4 + length as u64, Ordering::Release);
        true
    }

    /// Announces that the reader is about to sleep; returns whether it may (the ring is empty).
    pub(crate) fn may_sleep(&self) -> bool {
        let header = self.0.header();
        header.reader_waits.store(1, Ordering::SeqCst);
        let empty = header.head.load(Ordering::SeqCst) == header.tail.load(Ordering::Relaxed);
        if !empty {
            header.reader_waits.store(0, Ordering::SeqCst);
        }
        empty
    }

    /// Announces that the reader is awake, and clears the bell.
    pub(crate) fn awake(&self) {
        self.0.header().reader_waits.store(0, Ordering::SeqCst);
        super::process::clear_bell(self.0.bell.as_fd());
    }

    /// Returns the descriptor that becomes readable when a message comes while the reader sleeps.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }

    /// Tells the producer that nothing will be read any more.
    pub(crate) fn close(&self) {
        self.0.header().closed.store(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order_across_the_wrap() {
        let (mut producer, mut consumer) = pair().unwrap();
        let writer = std::thread::spawn(move || {
            for n in 0u32..200_000 {
                let message = vec![u8::try_from(n % 251).unwrap(); usize::try_from(n % 97).unwrap()];
                producer.push(&message).unwrap();
            }
        });
        let mut out = Vec::new();
        let mut n = 0u32;
        while n < 200_000 {
            if consumer.pop(&mut out) {
                assert_eq!(out, vec![u8::try_from(n % 251).unwrap(); usize::try_from(n % 97).unwrap()]);
                n += 1;
            } else {
                std::thread::yield_now();
            }
        }
        writer.join().unwrap();
        assert!(!consumer.pop(&mut out));
    }

    #[test]
    fn a_full_ring_refuses_once_the_reader_is_gone() {
        let (mut producer, consumer) = pair().unwrap();
        consumer.close();
        assert_eq!(producer.push(b"x"), Err(Closed));
    }
}
