//! Local sockets that keep messages apart (`SOCK_SEQPACKET`), with descriptors as luggage, and sealed memory to send.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Errno, check_size};

/// `sizeof(struct cmsghdr)`.
const CONTROL_HEAD: usize = 16;
/// Room for all descriptors that one message can bring (`SCM_MAX_FD`, 253). All are taken in, so that none stays behind
/// unowned.
const CONTROL_WORDS: usize = (CONTROL_HEAD + 253 * 4).div_ceil(8);
/// What nobody can change any more.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(errno as i32)
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Packet {
    /// How many bytes of the buffer it filled; 0 where the other side is gone.
    pub(crate) bytes: usize,
    /// Whether it was longer than the buffer, or brought more than could be taken in.
    pub(crate) cut: bool,
    pub(crate) luggage: Vec<OwnedFd>,
}

fn new() -> Result<OwnedFd, Errno> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Makes a listening socket at a path, which must be free.
///
/// # Errors
/// What the kernel says.
pub(crate) fn listen_at(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = new()?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd)
}

/// Connects to the socket at a path.
///
/// # Errors
/// `ENOENT` or `ECONNREFUSED` where nobody listens.
pub(crate) fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = new()?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

/// Takes the next connection.
///
/// # Errors
/// What the kernel says.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    Ok(accept4(listener, SockFlag::SOCK_CLOEXEC)?)
}

/// Takes over a descriptor that the service manager has opened for this process, if it is a listening socket of this kind.
///
/// # Errors
/// `EINVAL` where it is something else; `EBADF` where it is not open.
pub(crate) fn inherited_listener(number: RawFd) -> Result<OwnedFd, Errno> {
    if number <= libc::STDERR_FILENO || !super::process::is_open(number) {
        return Err(Errno(libc::EBADF));
    }
    // SAFETY: the descriptor is open (checked above), is none of the standard ones, and came with this process: the service
    // manager hands it over, and the caller asks once, before anything else was opened.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let fits =
        getsockopt(&fd, sockopt::SockType)? == SockType::SeqPacket && getsockopt(&fd, sockopt::AcceptConn)?;
    if fits { Ok(fd) } else { Err(Errno(libc::EINVAL)) }
}

/// `SO_PEERCRED`: who connected, as of then; on the connecting side, who listens.
///
/// # Errors
/// What the kernel says.
pub(crate) fn peer(fd: BorrowedFd<'_>) -> Result<Credentials, Errno> {
    let credentials = getsockopt(&fd, sockopt::PeerCredentials)?;
    let pid = u32::try_from(credentials.pid()).map_err(|_negative| Errno(libc::ESRCH))?;
    Ok(Credentials { pid, uid: credentials.uid() })
}

/// Lets no receive or send on the socket take longer.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_patience(fd: BorrowedFd<'_>, seconds: i64) -> Result<(), Errno> {
    let time = TimeVal::new(seconds, 0);
    setsockopt(&fd, sockopt::ReceiveTimeout, &time)?;
    Ok(setsockopt(&fd, sockopt::SendTimeout, &time)?)
}

/// Sends one message, with at most one descriptor.
///
/// # Errors
/// `EPIPE` where the other side is gone.
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8], luggage: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let numbers = luggage.map(|fd| [fd.as_raw_fd()]);
    let control = numbers.as_ref().map(|numbers| ControlMessage::ScmRights(numbers));
    let slices = [IoSlice::new(message)];
    let control = control.as_slice();
    loop {
        match sendmsg::<()>(fd.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            // A packet is sent whole or not at all.
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message with all that it brings.
///
/// # Errors
/// `EAGAIN` where nothing came in time; `ECONNRESET` where the other side is gone.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Packet, Errno> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = std::mem::MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: zeroed memory is a valid `msghdr`.
    let message = unsafe { message.assume_init_mut() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let bytes = loop {
        // SAFETY: every pointer in `message` is null or points to writable memory of ours that lives for the call.
        let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut *message, libc::MSG_CMSG_CLOEXEC) };
        match check_size(n) {
            Err(Errno(libc::EINTR)) => {}
            other => break other?,
        }
    };
    let used = message.msg_controllen.div_ceil(size_of::<u64>()).min(CONTROL_WORDS);
    // SAFETY: the kernel has just made these descriptors for us and told their numbers once.
    let own = |number| unsafe { OwnedFd::from_raw_fd(number) };
    let luggage = descriptors(&control[..used]).into_iter().map(own).collect();
    Ok(Packet { bytes, cut: message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0, luggage })
}

/// Reads the numbers of received descriptors from the control messages of cmsg(3): length, level and type, numbers.
fn descriptors(mut control: &[u64]) -> Vec<RawFd> {
    let mut numbers = Vec::new();
    while let [length, kind, rest @ ..] = control {
        let length = usize::try_from(*length).unwrap_or(0).saturating_sub(CONTROL_HEAD);
        let data = rest.get(..length.div_ceil(size_of::<u64>())).unwrap_or(rest);
        if *kind == two(libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let halves = data.iter().flat_map(|word| {
                let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
                [RawFd::from_ne_bytes([a, b, c, d]), RawFd::from_ne_bytes([e, f, g, h])]
            });
            numbers.extend(halves.take(length / size_of::<RawFd>()));
        }
        control = &rest[data.len()..];
    }
    numbers
}

/// Two `int`s as they lie in memory.
fn two(first: i32, second: i32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// Makes a file in memory that nobody can change any more.
///
/// # Errors
/// What the kernel says.
pub(crate) fn sealed(name: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file.into())
}

/// Returns whether the descriptor is a file in memory that nobody can change any more. Only such a file has seals, so that
/// reading it never waits for somebody.
pub(crate) fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SEALS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn messages_stay_apart_and_every_descriptor_is_owned() {
        let (one, other) = super::super::process::socketpair().unwrap();
        let (_, gift) = super::super::process::pipe().unwrap();
        send(one.as_fd(), b"first", Some(gift.as_fd())).unwrap();
        send(one.as_fd(), b"second, and longer", None).unwrap();
        let mut buffer = [0; 8];
        let packet = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((packet.bytes, packet.cut, packet.luggage.len()), (5, false, 1));
        assert_eq!(&buffer[..5], b"first");
        let packet = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((packet.bytes, packet.cut, packet.luggage.len()), (8, true, 0));
        drop(one);
        assert_eq!(receive(other.as_fd(), &mut buffer).unwrap().bytes, 0);
    }

    /// As many descriptors as a message can bring, in two sizes: an odd and an even number.
    #[test]
    fn as_many_descriptors_as_the_kernel_lets_through() {
        let (one, other) = super::super::process::socketpair().unwrap();
        let (reading, _writing) = super::super::process::pipe().unwrap();
        for count in [1, 2, 3, 252, 253] {
            let numbers = vec![reading.as_raw_fd(); count];
            let control = [ControlMessage::ScmRights(&numbers)];
            sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::empty(), None).unwrap();
            let packet = receive(other.as_fd(), &mut [0; 8]).unwrap();
            let inode = |fd: BorrowedFd<'_>| super::super::fs::fstat(fd).unwrap().ino;
            assert_eq!((packet.cut, packet.luggage.len()), (false, count));
            assert!(packet.luggage.iter().all(|fd| inode(fd.as_fd()) == inode(reading.as_fd())));
        }
    }

    #[test]
    fn only_sealed_memory_is_sealed() {
        let good = sealed("test", b"text").unwrap();
        assert!(is_sealed(good.as_fd()));
        assert!(File::from(good.try_clone().unwrap()).write_all(b"more").is_err());
        let open = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let plain = memfd_create("test", MFdFlags::empty()).unwrap();
        let (pipe, _end) = super::super::process::pipe().unwrap();
        let file = File::open("/proc/self/stat").unwrap();
        for other in [open.as_fd(), plain.as_fd(), pipe.as_fd(), file.as_fd()] {
            assert!(!is_sealed(other));
        }
        fcntl(&open, FcntlArg::F_ADD_SEALS(SEALS.difference(SealFlag::F_SEAL_WRITE))).unwrap();
        assert!(!is_sealed(open.as_fd()), "it can still be written");
    }

    #[test]
    fn a_listener_is_taken_over_only_if_it_is_one() {
        let (pipe, _end) = super::super::process::pipe().unwrap();
        let before = open_files();
        assert_eq!(inherited_listener(2).err(), Some(Errno(libc::EBADF)));
        assert_eq!(inherited_listener(1 << 20).err(), Some(Errno(libc::EBADF)));
        let number = std::os::fd::IntoRawFd::into_raw_fd(pipe);
        assert!(inherited_listener(number).is_err(), "a pipe");
        assert!(open_files() <= before);
    }
}
