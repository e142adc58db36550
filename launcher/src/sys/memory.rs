//! Reading the memory of a held task, once, into memory of our own.

use super::{Errno, check_size};

/// Size of the pieces in which unknown lengths are read: a page, so that no piece can straddle an unmapped one.
const PAGE: u64 = 4096;

fn read_into(tid: u32, address: u64, out: *mut u8, len: usize) -> Result<usize, Errno> {
    let tid = i32::try_from(tid).map_err(|_error| Errno(libc::ESRCH))?;
    let local = libc::iovec { iov_base: out.cast(), iov_len: len };
    let remote = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(
            usize::try_from(address).map_err(|_error| Errno(libc::EFAULT))?,
        ),
        iov_len: len,
    };
    // SAFETY: `local` describes `len` writable bytes of ours (the two callers below pass a live buffer of that length);
    // `remote` is only interpreted in the other process, where the kernel validates it.
    check_size(unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) })
}

/// Reads exactly `out.len()` bytes.
///
/// # Errors
/// `EFAULT` where a part is not mapped, `ESRCH` where the task is gone, `EPERM` where it may not be read.
pub(crate) fn read(tid: u32, address: u64, out: &mut [u8]) -> Result<(), Errno> {
    if out.is_empty() {
        return Ok(());
    }
    let n = read_into(tid, address, out.as_mut_ptr(), out.len())?;
    if n == out.len() { Ok(()) } else { Err(Errno(libc::EFAULT)) }
}

/// Reads a NUL-terminated text of at most `limit` bytes (the NUL included) and leaves it in `out` **with** its NUL.
///
/// # Errors
/// `EFAULT`, `ESRCH` or `EPERM` as above; `ENAMETOOLONG` where no NUL comes within the limit.
pub(crate) fn read_c_str(tid: u32, address: u64, limit: usize, out: &mut Vec<u8>) -> Result<(), Errno> {
    out.clear();
    let mut at = address;
    while out.len() < limit {
        let to_page_end = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
        // The first piece is short: most paths are, and what is copied is paid for.
        let piece = if out.is_empty() { to_page_end.min(256) } else { to_page_end }.min(limit - out.len());
        let old = out.len();
        out.resize(old + piece, 0);
        let n = read_into(tid, at, out[old..].as_mut_ptr(), piece)?;
        if n == 0 {
            return Err(Errno(libc::EFAULT));
        }
        out.truncate(old + n);
        if let Some(end) = out[old..].iter().position(|&byte| byte == 0) {
            out.truncate(old + end + 1);
            return Ok(());
        }
        at += n as u64;
    }
    Err(Errno(libc::ENAMETOOLONG))
}

/// Writes bytes into a held task's memory, where the call itself would have.
///
/// # Errors
/// As [`read`].
pub(crate) fn write(tid: u32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let tid = i32::try_from(tid).map_err(|_error| Errno(libc::ESRCH))?;
    let base = usize::try_from(address).map_err(|_error| Errno(libc::EFAULT))?;
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(base), iov_len: bytes.len() };
    // SAFETY: `local` describes live bytes of ours that are only read; `remote` is only interpreted in the other process.
    let n =
        check_size(unsafe { libc::process_vm_writev(tid, &raw const local, 1, &raw const remote, 1, 0) })?;
    if n == bytes.len() { Ok(()) } else { Err(Errno(libc::EFAULT)) }
}
