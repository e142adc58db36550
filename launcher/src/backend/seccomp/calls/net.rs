//! Sockets: every call that names a peer is made by the supervisor on a duplicate of the caller's socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;

use super::super::resolve::Last;
use super::super::supervisor::{Answer, Stop, Worker};
use super::Call;
use crate::backend::floor;
use crate::sys::fs::{self, FdPath};
use crate::sys::socket::{self, ADDRESS_MAX, Address};
use crate::sys::{Errno, memory, process};

/// The port of DNS, over UDP and TCP.
const DNS: u16 = 53;
/// The most that one call sends on the caller's behalf; a stream's caller sees a short write.
const DATA_MAX: usize = 1 << 20;
/// `UIO_MAXIOV`.
const PARTS_MAX: usize = 1024;
/// `SCM_MAX_FD` descriptors and some credentials fit.
const CONTROL_MAX: usize = 4096;

/// A peer as the policy sees it.
enum Peer {
    Internet(Operation, IpAddr, u16),
    /// The path of the socket, open.
    Path(OwnedFd, Vec<u8>),
    Abstract(String),
    /// Nothing is reached: unnamed, unspecified, or route netlink.
    Nothing,
    Foreign(i32),
}

fn read_address(call: Call<'_>, pointer: u64, length: u64) -> Result<Address, Stop> {
    let length = usize::try_from(length & 0xffff_ffff).unwrap_or(usize::MAX);
    if length > ADDRESS_MAX {
        return Err(Errno(libc::EINVAL).into());
    }
    let mut bytes = [0u8; ADDRESS_MAX];
    memory::read(call.task.tid, pointer, &mut bytes[..length])?;
    Ok(Address::new(&bytes[..length])?)
}

/// Reads an internet address; `None` where it is not one.
fn internet(address: &Address) -> Option<(IpAddr, u16)> {
    let bytes = address.bytes();
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match address.family() {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?)),
        libc::AF_INET6 => {
            let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => return None,
    };
    Some((ip, port))
}

/// The unspecified address reaches this host.
fn reached(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

fn peer(worker: &Worker, call: Call<'_>, address: &Address, operation: Operation) -> Result<Peer, Stop> {
    match address.family() {
        libc::AF_UNSPEC => Ok(Peer::Nothing),
        libc::AF_NETLINK => Ok(Peer::Nothing),
        libc::AF_INET | libc::AF_INET6 => {
            let (ip, port) = internet(address).ok_or(Errno(libc::EINVAL))?;
            let operation = if port == DNS { Operation::Resolve } else { operation };
            Ok(Peer::Internet(operation, reached(ip), port))
        }
        libc::AF_UNIX => match &address.bytes()[2..] {
            [] => Ok(Peer::Nothing),
            [0, name @ ..] => Ok(Peer::Abstract(format!("unix:@{}", gait_agent::intent::path_text(name)))),
            path => {
                let path = path.split(|&b| b == 0).next().unwrap_or(path);
                let found = call.resolver(worker).object(libc::AT_FDCWD, path, Last::Follow)?;
                Ok(Peer::Path(found.fd, found.path))
            }
        },
        family => Ok(Peer::Foreign(family)),
    }
}

/// Judges a peer and returns the address to use: for a socket in the file system, that of the open node.
fn judge_peer(worker: &mut Worker, call: Call<'_>, peer: &Peer, address: Address) -> Result<Address, Stop> {
    match peer {
        Peer::Nothing => {}
        Peer::Internet(operation, ip, port) => {
            let port = if worker.shared.is_picked(*port) && ip.is_loopback() { 0 } else { *port };
            let name = name_of(worker, call, *operation, *ip, port);
            let host = Host { name: name.as_deref(), address: Some(*ip), port };
            worker.judge(call.task, &[(*operation, Object::Host(host))])?;
        }
        Peer::Path(fd, path) => {
            worker.judge_path(call.task, Operation::UnixConnect, path)?;
            return Ok(Address::unix(FdPath::new(fd.as_fd()).as_c_str())?);
        }
        Peer::Abstract(name) => {
            worker.judge(call.task, &[(Operation::AbstractConnect, Object::Other(name))])?
        }
        Peer::Foreign(family) => {
            let name = family_name(*family);
            worker.judge(call.task, &[(Operation::Socket, Object::Other(&name))])?;
        }
    }
    Ok(address)
}

/// Returns the name under which the tree asked for an address: one with which the policy lets it through, if there is one,
/// else the latest.
fn name_of(
    worker: &Worker,
    call: Call<'_>,
    operation: Operation,
    ip: IpAddr,
    port: u16,
) -> Option<std::sync::Arc<str>> {
    let resolver = worker.shared.resolver()?;
    let mut allowed = |name: &str| {
        let host = Host { name: Some(name), address: Some(ip), port };
        worker.would_allow(call.task, operation, Object::Host(host))
    };
    resolver.any_name(ip, &mut allowed).or_else(|| resolver.name_of(ip))
}

/// Returns where a connection to a name server goes: to the built-in resolver, which judges every query by itself.
fn redirected(worker: &Worker, fd: &OwnedFd, peer: &Peer) -> Result<Option<Address>, Stop> {
    let Peer::Internet(Operation::Resolve, ..) = peer else { return Ok(None) };
    // A policy without any name to allow blocks the connection itself.
    if !worker.shared.judge.policy.can_allow(Operation::Resolve) {
        return Ok(None);
    }
    let v6 = socket::option(fd.as_fd(), libc::SO_DOMAIN)? == libc::AF_INET6;
    let Some(address) = worker.shared.start_resolver().and_then(|resolver| resolver.address(v6)) else {
        return Ok(None);
    };
    Ok(Some(Address::internet(address)?))
}

fn is_blocking(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok(fs::status_flags(fd.as_fd())? & libc::O_NONBLOCK == 0)
}

pub(super) fn connect(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let address = read_address(call, call.long(1), call.long(2))?;
    let fd = call.task.descriptor(call.int(0))?;
    let peer = match peer(worker, call, &address, Operation::Connect) {
        Err(Stop::Errno(errno)) if address.family() == libc::AF_UNIX => {
            return Err(missing_socket(worker, call, &address, errno));
        }
        other => other?,
    };
    let address = match redirected(worker, &fd, &peer)? {
        // Nothing leaves the machine by this; what is asked does, and is judged then.
        Some(resolver) => resolver,
        None => judge_peer(worker, call, &peer, address)?,
    };
    let stream = socket::option(fd.as_fd(), libc::SO_TYPE)? != libc::SOCK_DGRAM;
    if stream && !worker.may_block && !matches!(peer, Peer::Nothing) && is_blocking(&fd)? {
        return Err(Stop::Slow);
    }
    worker.still_held(call.notification)?;
    socket::connect(fd.as_fd(), &address)?;
    Ok(Answer::Value(0))
}

/// A socket path that does not exist, judged like any other name that is not there.
fn missing_socket(worker: &mut Worker, call: Call<'_>, address: &Address, errno: Errno) -> Stop {
    let path = address.bytes()[2..].split(|&b| b == 0).next().unwrap_or(b"");
    let lexical = call.resolver(worker).lexical(libc::AT_FDCWD, path);
    match worker.judge_absent(call.task, Operation::UnixConnect, &lexical) {
        Ok(()) => errno.into(),
        Err(stop) => stop,
    }
}

/// One message to send.
struct Message {
    data: Vec<u8>,
    address: Option<Address>,
    /// Control messages with our descriptors in place of the caller's; `u64` for the alignment of `cmsghdr`.
    control: Vec<u64>,
    control_len: usize,
    /// Keeps the descriptors in `control` open until they are sent.
    _rights: Vec<OwnedFd>,
}

pub(super) fn sendto(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let length = usize::try_from(call.long(2)).unwrap_or(usize::MAX).min(DATA_MAX);
    let mut data = vec![0; length];
    memory::read(call.task.tid, call.long(1), &mut data)?;
    let address = read_address(call, call.long(4), call.long(5))?;
    let message =
        Message { data, address: Some(address), control: Vec::new(), control_len: 0, _rights: Vec::new() };
    let fd = call.task.descriptor(call.int(0))?;
    send(worker, call, &fd, message, call.int(3)).map(Answer::Value)
}

pub(super) fn sendmsg(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let fd = call.task.descriptor(call.int(0))?;
    let message = read_message(call, call.long(1))?;
    send(worker, call, &fd, message, call.int(2)).map(Answer::Value)
}

pub(super) fn sendmmsg(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    /// `sizeof(struct mmsghdr)` and the offset of `msg_len` in it.
    const STRIDE: u64 = 64;
    const LENGTH_AT: u64 = 56;
    let fd = call.task.descriptor(call.int(0))?;
    let count = u64::from(call.uint(2)).min(PARTS_MAX as u64);
    let mut sent = 0;
    for i in 0..count {
        let at = call.long(1).wrapping_add(i * STRIDE);
        let result = read_message(call, at).and_then(|message| send(worker, call, &fd, message, call.int(3)));
        match result {
            Ok(n) => {
                let n = u32::try_from(n).unwrap_or(u32::MAX);
                memory::write(call.task.tid, at.wrapping_add(LENGTH_AT), &n.to_ne_bytes())?;
                sent += 1;
            }
            Err(stop) if sent == 0 => return Err(stop),
            // What was sent is told; the caller meets the failure when it tries the rest again.
            Err(_) => break,
        }
    }
    Ok(Answer::Value(sent))
}

/// Reads a `struct msghdr` with everything it points to, once.
fn read_message(call: Call<'_>, at: u64) -> Result<Message, Stop> {
    let tid = call.task.tid;
    let mut header = [0u8; 56];
    memory::read(tid, at, &mut header)?;
    let word = |i: usize| header[i * 8..i * 8 + 8].try_into().map_or(0, u64::from_ne_bytes);
    let (name, name_len, parts, part_count, control, control_len) =
        (word(0), word(1) & 0xffff_ffff, word(2), word(3), word(4), word(5));
    let address = if name == 0 || name_len == 0 { None } else { Some(read_address(call, name, name_len)?) };
    let part_count = usize::try_from(part_count).unwrap_or(usize::MAX);
    if part_count > PARTS_MAX {
        return Err(Errno(libc::EMSGSIZE).into());
    }
    let mut vectors = vec![0u8; part_count * 16];
    memory::read(tid, parts, &mut vectors)?;
    let mut data = Vec::new();
    for vector in vectors.chunks_exact(16) {
        let half = |i: usize| vector[i..i + 8].try_into().map_or(0, u64::from_ne_bytes);
        let old = data.len();
        let length = usize::try_from(half(8)).unwrap_or(usize::MAX).min(DATA_MAX - old);
        data.resize(old + length, 0);
        memory::read(tid, half(0), &mut data[old..])?;
    }
    let mut message = Message { data, address, control: Vec::new(), control_len: 0, _rights: Vec::new() };
    if control != 0 && control_len != 0 {
        read_control(call, control, control_len, &mut message)?;
    }
    Ok(message)
}

/// Copies control messages, with duplicates of the descriptors that the caller passes on.
fn read_control(call: Call<'_>, at: u64, length: u64, message: &mut Message) -> Result<(), Stop> {
    /// `sizeof(struct cmsghdr)`.
    const HEADER: usize = 16;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > CONTROL_MAX {
        return Err(Errno(libc::ENOBUFS).into());
    }
    let mut theirs = vec![0u8; length];
    memory::read(call.task.tid, at, &mut theirs)?;
    let mut ours: Vec<u8> = Vec::with_capacity(length);
    let mut rest = &theirs[..];
    while rest.len() >= HEADER {
        let size = rest[..8].try_into().map_or(0, u64::from_ne_bytes);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size < HEADER || size > rest.len() {
            return Err(Errno(libc::EINVAL).into());
        }
        let word = |i: usize| rest[i..i + 4].try_into().map_or(0, i32::from_ne_bytes);
        let (level, kind) = (word(8), word(12));
        let body = &rest[HEADER..size];
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                ours.extend_from_slice(&rest[..HEADER]);
                for number in body.chunks_exact(4) {
                    let number = number.try_into().map_or(-1, i32::from_ne_bytes);
                    let fd = call.task.descriptor(number)?;
                    ours.extend_from_slice(&fd.as_raw_fd().to_ne_bytes());
                    message._rights.push(fd);
                }
            }
            // The kernel lets a process vouch for itself only; the receiver sees the supervisor, as with SO_PEERCRED.
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {}
            _ => ours.extend_from_slice(&rest[..size]),
        }
        ours.resize(ours.len().next_multiple_of(8), 0);
        rest = &rest[size.next_multiple_of(8).min(rest.len())..];
    }
    message.control_len = ours.len();
    message.control = ours.chunks_exact(8).map(|c| c.try_into().map_or(0, u64::from_ne_bytes)).collect();
    Ok(())
}

/// Judges the destination of a message and sends it.
fn send(
    worker: &mut Worker,
    call: Call<'_>,
    fd: &OwnedFd,
    message: Message,
    flags: i32,
) -> Result<i64, Stop> {
    if flags & libc::MSG_FASTOPEN != 0 {
        // A connect in disguise; programs fall back to a plain one.
        return Err(Errno(libc::EOPNOTSUPP).into());
    }
    let kind = socket::option(fd.as_fd(), libc::SO_TYPE)?;
    let domain = socket::option(fd.as_fd(), libc::SO_DOMAIN)?;
    let inet_stream = kind == libc::SOCK_STREAM && domain != libc::AF_UNIX;
    let address = match message.address {
        // TCP ignores it.
        Some(_) if inet_stream => None,
        // For IPv4 an unspecified family means IPv4.
        Some(address) if address.family() == libc::AF_UNSPEC && domain == libc::AF_INET => {
            let mut bytes = address.bytes().to_vec();
            bytes[..2]
                .copy_from_slice(&libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2).to_ne_bytes());
            Some(Address::new(&bytes)?)
        }
        other => other,
    };
    let mut held = None;
    let address = match address {
        None => None,
        Some(address) => {
            let peer = peer(worker, call, &address, Operation::Send)?;
            let address = judge_peer(worker, call, &peer, address)?;
            held = Some(peer);
            Some(address)
        }
    };
    worker.still_held(call.notification)?;
    let attempt = |flags: i32| {
        let (control, length) = (&message.control, message.control_len);
        socket::send(fd.as_fd(), &message.data, address.as_ref(), control, length, flags)
    };
    let may_wait = flags & libc::MSG_DONTWAIT == 0 && is_blocking(fd)?;
    let result = match attempt(flags | libc::MSG_DONTWAIT) {
        Err(Errno(libc::EAGAIN)) if may_wait && !worker.may_block => return Err(Stop::Slow),
        Err(Errno(libc::EAGAIN)) if may_wait => attempt(flags),
        other => other,
    };
    drop(held);
    if result == Err(Errno(libc::EPIPE)) && flags & libc::MSG_NOSIGNAL == 0 && kind == libc::SOCK_STREAM {
        // The signal that the kernel would have sent with the errno.
        process::signal_thread(call.task.tgid()?, call.task.tid, libc::SIGPIPE);
    }
    Ok(i64::try_from(result?).unwrap_or(i64::MAX))
}

pub(super) fn bind(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let address = read_address(call, call.long(1), call.long(2))?;
    let fd = call.task.descriptor(call.int(0))?;
    match address.family() {
        libc::AF_UNIX if address.bytes().get(2).is_some_and(|&b| b != 0) => {
            return bind_path(worker, call, &fd, address);
        }
        libc::AF_INET | libc::AF_INET6 => {
            let (ip, port) = internet(&address).ok_or(Errno(libc::EINVAL))?;
            let host = Host { name: None, address: Some(ip), port };
            worker.judge(call.task, &[(Operation::Listen, Object::Host(host))])?;
        }
        // Unnamed and abstract names are reachable inside the tree only; route netlink asks the kernel.
        libc::AF_UNIX | libc::AF_NETLINK | libc::AF_UNSPEC => {}
        family => {
            let name = family_name(family);
            worker.judge(call.task, &[(Operation::Socket, Object::Other(&name))])?;
        }
    }
    worker.still_held(call.notification)?;
    socket::bind(fd.as_fd(), &address)?;
    note_picked(worker, &fd, internet(&address).map_or(1, |(_, port)| port));
    Ok(Answer::Value(0))
}

/// Remembers a port that the kernel has picked: it must not stand in a record.
fn note_picked(worker: &Worker, fd: &OwnedFd, asked: u16) {
    if asked == 0
        && let Some((_, port)) = socket::local_address(fd.as_fd()).ok().as_ref().and_then(internet)
    {
        worker.shared.add_picked(port);
    }
}

/// Makes a socket node. The kernel resolves the name once more, inside a Landlock domain that lets it make the node only
/// below the directory that was judged.
fn bind_path(worker: &mut Worker, call: Call<'_>, fd: &OwnedFd, address: Address) -> Result<Answer, Stop> {
    let path = address.bytes()[2..].split(|&b| b == 0).next().unwrap_or(b"").to_vec();
    let place = call.resolver(worker).place(libc::AT_FDCWD, &path, &mut Vec::new())?;
    worker.judge_path(call.task, Operation::Mknod, &place.path)?;
    worker.take_umask(call.task)?;
    let umask = worker.tasks.umask(call.task)?;
    let cwd = call.resolver(worker).base(libc::AT_FDCWD)?;
    worker.still_held(call.notification)?;
    let within = place.parent.as_fd();
    let result = std::thread::scope(|scope| {
        let bound = scope.spawn(|| {
            process::unshare_fs()?;
            fs::set_umask(umask);
            fs::fchdir(
                fs::reopen(cwd.as_fd(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)?.as_fd(),
            )?;
            floor::only_sockets_below(within)?;
            socket::bind(fd.as_fd(), &address)
        });
        bound.join().unwrap_or(Err(Errno(libc::EIO)))
    });
    result?;
    let made = fs::fstatat(place.at(), &place.name, libc::AT_SYMLINK_NOFOLLOW);
    if made.is_ok_and(|stat| stat.kind() == libc::S_IFSOCK) {
        Ok(Answer::Value(0))
    } else {
        Err(Errno(libc::EACCES).into())
    }
}

pub(super) fn listen(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let fd = call.task.descriptor(call.int(0))?;
    let local = socket::local_address(fd.as_fd())?;
    // A bound socket was judged when it was bound; an unbound one is bound by this call, to every address.
    if let Some((ip, 0)) = internet(&local) {
        let host = Host { name: None, address: Some(ip), port: 0 };
        worker.judge(call.task, &[(Operation::Listen, Object::Host(host))])?;
    }
    worker.still_held(call.notification)?;
    socket::listen(fd.as_fd(), call.int(1))?;
    note_picked(worker, &fd, internet(&local).map_or(1, |(_, port)| port));
    Ok(Answer::Value(0))
}

/// A kind of socket that the filter does not let through by itself.
pub(super) fn socket(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (family, kind, protocol) = (call.int(0), call.int(1) & 0xf, call.int(2));
    let mut name = family_name(family);
    if matches!(family, libc::AF_INET | libc::AF_INET6) {
        name = format!(
            "{name}:{}",
            match (kind, protocol) {
                (libc::SOCK_RAW, _) => "raw".to_owned(),
                (_, 262) => "mptcp".to_owned(),
                (_, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) => "icmp".to_owned(),
                (_, libc::IPPROTO_SCTP) => "sctp".to_owned(),
                (_, protocol) => format!("protocol-{protocol}"),
            }
        );
    }
    let action = Action {
        operation: Operation::Socket,
        object: Object::Other(&name),
        image: &call.task.image,
        argv: None,
    };
    worker.judge_actions(call.task.tid, &[action])?;
    Ok(Answer::Continue)
}

fn family_name(family: i32) -> String {
    let name = match family {
        libc::AF_UNIX => "AF_UNIX",
        libc::AF_INET => "AF_INET",
        libc::AF_INET6 => "AF_INET6",
        libc::AF_NETLINK => "AF_NETLINK",
        libc::AF_PACKET => "AF_PACKET",
        libc::AF_VSOCK => "AF_VSOCK",
        libc::AF_ALG => "AF_ALG",
        libc::AF_XDP => "AF_XDP",
        libc::AF_BLUETOOTH => "AF_BLUETOOTH",
        libc::AF_RXRPC => "AF_RXRPC",
        libc::AF_TIPC => "AF_TIPC",
        libc::AF_CAN => "AF_CAN",
        libc::AF_KEY => "AF_KEY",
        _ => return format!("family-{family}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(ip: [u8; 4], port: u16) -> Address {
        let mut bytes = vec![2, 0];
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&ip);
        bytes.extend_from_slice(&[0; 8]);
        Address::new(&bytes).unwrap()
    }

    #[test]
    fn mapped_and_unspecified_addresses_are_what_they_reach() {
        assert_eq!(internet(&inet([10, 0, 0, 1], 80)), Some(("10.0.0.1".parse().unwrap(), 80)));
        let mut bytes = vec![10, 0, 0, 80, 0, 0, 0, 0];
        bytes.extend_from_slice(&"::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend_from_slice(&[0; 4]);
        assert_eq!(internet(&Address::new(&bytes).unwrap()), Some(("10.0.0.1".parse().unwrap(), 80)));
        assert_eq!(reached("0.0.0.0".parse().unwrap()), "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(reached("::".parse().unwrap()), "::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn cut_addresses_are_no_addresses() {
        assert_eq!(internet(&Address::new(&[2, 0, 0]).unwrap()), None);
        assert_eq!(internet(&Address::new(&[10, 0, 0, 80, 0, 0]).unwrap()), None);
        assert_eq!(Address::new(&[2]).unwrap().family(), libc::AF_UNSPEC);
    }
}
