//! Socket calls on duplicates of the workload's sockets.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, check, check_size};

/// `sizeof(struct sockaddr_storage)`: the longest address the kernel takes.
pub(crate) const ADDRESS_MAX: usize = 128;

/// A socket address as bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    bytes: [u8; ADDRESS_MAX],
    len: usize,
}

impl Address {
    /// Takes the bytes of an address.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, Errno> {
        let mut address = Self { bytes: [0; ADDRESS_MAX], len: bytes.len() };
        address.bytes.get_mut(..bytes.len()).ok_or(Errno(libc::EINVAL))?.copy_from_slice(bytes);
        Ok(address)
    }

    /// Makes an `AF_UNIX` path address.
    pub(crate) fn unix(path: &CStr) -> Result<Self, Errno> {
        let path = path.to_bytes_with_nul();
        if path.len() > 108 {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        let mut bytes = [0; 110];
        bytes[..2].copy_from_slice(&libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1).to_ne_bytes());
        bytes[2..2 + path.len()].copy_from_slice(path);
        Self::new(&bytes[..2 + path.len()])
    }

    /// Makes an `AF_INET` or `AF_INET6` address.
    pub(crate) fn internet(address: std::net::SocketAddr) -> Result<Self, Errno> {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut bytes = libc::sa_family_t::try_from(family).unwrap_or(0).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&address.port().to_be_bytes());
        match address {
            std::net::SocketAddr::V4(v4) => {
                bytes.extend_from_slice(&v4.ip().octets());
                bytes.extend_from_slice(&[0; 8]);
            }
            std::net::SocketAddr::V6(v6) => {
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&v6.ip().octets());
                bytes.extend_from_slice(&v6.scope_id().to_ne_bytes());
            }
        }
        Self::new(&bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Returns the family, or `AF_UNSPEC` for an address too short to have one.
    pub(crate) fn family(&self) -> i32 {
        if self.len < 2 {
            libc::AF_UNSPEC
        } else {
            i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]))
        }
    }

    fn length(&self) -> libc::socklen_t {
        libc::socklen_t::try_from(self.len).unwrap_or(0)
    }
}

/// connect(2).
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &Address) -> Result<(), Errno> {
    // SAFETY: the address is live for its length and only read.
    check(unsafe { libc::connect(fd.as_raw_fd(), address.bytes.as_ptr().cast(), address.length()) }).map(drop)
}

/// bind(2).
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &Address) -> Result<(), Errno> {
    // SAFETY: the address is live for its length and only read.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.bytes.as_ptr().cast(), address.length()) }).map(drop)
}

/// listen(2).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// getsockopt(2) of an `int` at `SOL_SOCKET`.
pub(crate) fn option(fd: BorrowedFd<'_>, name: i32) -> Result<i32, Errno> {
    let mut value = 0i32;
    let mut length: libc::socklen_t = 4;
    // SAFETY: four writable bytes and their length.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length)
    })?;
    Ok(value)
}

/// getsockname(2).
pub(crate) fn local_address(fd: BorrowedFd<'_>) -> Result<Address, Errno> {
    let mut address = Address { bytes: [0; ADDRESS_MAX], len: 0 };
    let mut length: libc::socklen_t = 128;
    // SAFETY: 128 writable bytes and their length.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), address.bytes.as_mut_ptr().cast(), &raw mut length) })?;
    address.len = ADDRESS_MAX.min(length as usize);
    Ok(address)
}

/// sendmsg(2) of one buffer, with an address and control bytes that are ours.
///
/// `control` is a sequence of `cmsghdr` as the kernel wants it, aligned to eight bytes; it may be empty.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    data: &[u8],
    address: Option<&Address>,
    control: &[u64],
    control_len: usize,
    flags: i32,
) -> Result<usize, Errno> {
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut message = std::mem::MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: zeroed memory is a valid `msghdr`.
    let message = unsafe { message.assume_init_mut() };
    if let Some(address) = address {
        message.msg_name = address.bytes.as_ptr().cast_mut().cast();
        message.msg_namelen = address.length();
    }
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if control_len > 0 {
        message.msg_control = control.as_ptr().cast_mut().cast();
        message.msg_controllen = control_len.min(size_of_val(control));
    }
    // SAFETY: every pointer in `message` is null or points to memory of ours that lives for the call and is only read.
    check_size(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const *message, flags | libc::MSG_NOSIGNAL) })
}
