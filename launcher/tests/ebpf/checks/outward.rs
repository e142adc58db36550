//! What leads out of a session: the ground that it stands on, other processes, sockets, descriptors that are handed over.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{event_flags, event_kind, ground as what, verdict};

use super::super::tree::{Told, c, open, result, run, start};
use super::{Check, EACCES, EPERM, secret};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("the_ground", ground),
    ("no_process_outside_is_signalled", signals),
    ("no_process_outside_is_traced", tracing),
    ("no_address_is_reached_or_bound", sockets),
    ("no_unix_socket_is_reached", unix_sockets),
    ("received_descriptors_are_judged", received),
];

fn ground(programs: &mut Programs) {
    let own = std::process::id().cast_signed();
    let (results, _) = run(programs, &secret(), move || {
        // SAFETY (all below): plain integers and NUL-terminated paths.
        vec![
            result(unsafe { libc::kill(own, 0) }),
            result(unsafe { libc::unshare(libc::CLONE_NEWUSER) }),
            result(
                i32::try_from(unsafe { libc::syscall(libc::SYS_bpf, 0, [0u64; 16].as_ptr(), 128) }).unwrap(),
            ),
            result(unsafe { libc::umount(c("/proc").as_ptr()) }),
            result(unsafe { libc::chroot(c("/tmp").as_ptr()) }),
            fchroot(),
            open("/proc/sys/kernel/core_pattern", libc::O_WRONLY),
            open("/sys/fs/cgroup/cgroup.procs", libc::O_WRONLY),
            open("/proc/self/comm", libc::O_WRONLY),
        ]
    });
    let seventh = if fchroot() == -libc::ENOSYS { -libc::ENOSYS } else { EPERM };
    assert_eq!(results, [EPERM, EPERM, EPERM, EPERM, EPERM, seventh, EACCES, EACCES, 0]);
}

/// fchroot(2) of Linux 7, to where the process is.
fn fchroot() -> i32 {
    let root = fs::File::open("/").unwrap();
    result(i32::try_from(unsafe { libc::syscall(472, root.as_raw_fd(), 0) }).unwrap())
}

/// What was blocked, as numbers of the ground.
fn blocked(told: &[Told]) -> Vec<u64> {
    told.iter()
        .filter(|told| told.event.kind == event_kind::ACTION && told.event.verdict == verdict::BLOCK)
        .inspect(|told| assert_eq!(told.event.flags, event_flags::NEVER))
        .map(|told| told.event.object)
        .collect()
}

/// A process that only waits.
fn bystander() -> i32 {
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        loop {
            unsafe { libc::pause() };
        }
    }
    pid
}

fn end_bystander(pid: i32) {
    // Nothing has happened to it meanwhile.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) }, 0);
    unsafe { libc::kill(pid, libc::SIGKILL) };
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
}

fn call(number: libc::c_long, arguments: [libc::c_long; 4]) -> i32 {
    let [a, b, c, d] = arguments;
    let value = unsafe { libc::syscall(number, a, b, c, d) };
    if value < 0 { result(-1) } else { 0 }
}

fn signals(programs: &mut Programs) {
    let outside = bystander();
    let target = libc::c_long::from(outside);
    let (results, told) = run(programs, &secret(), move || {
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, target, 0) };
        let [probe, end] = [0, libc::c_long::from(libc::SIGUSR1)];
        let inside = bystander();
        let mut results = vec![
            call(libc::SYS_kill, [target, probe, 0, 0]),
            call(libc::SYS_kill, [target, end, 0, 0]),
            call(libc::SYS_tgkill, [target, target, end, 0]),
            call(libc::SYS_tkill, [target, end, 0, 0]),
            call(libc::SYS_pidfd_send_signal, [pidfd, end, 0, 0]),
        ];
        // Its own children are its own.
        results.push(call(
            libc::SYS_kill,
            [libc::c_long::from(inside), libc::c_long::from(libc::SIGKILL), 0, 0],
        ));
        results
    });
    end_bystander(outside);
    assert_eq!(results, [EPERM, EPERM, EPERM, EPERM, EPERM, 0]);
    assert_eq!(blocked(&told), [what::SIGNAL; 5]);
}

fn tracing(programs: &mut Programs) {
    let outside = bystander();
    let target = libc::c_long::from(outside);
    let (results, told) = run(programs, &secret(), move || {
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, target, 0) };
        let inside = bystander();
        let (mut word, mut other) = (0u64, 0u64);
        let mine = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
        let theirs = libc::iovec { iov_base: (&raw mut other).cast(), iov_len: 8 };
        let read = |pid: i32| {
            result(
                i32::try_from(unsafe {
                    libc::process_vm_readv(pid, &raw const mine, 1, &raw const theirs, 1, 0)
                })
                .unwrap(),
            )
        };
        let results = vec![
            call(libc::SYS_ptrace, [libc::c_long::from(libc::PTRACE_ATTACH), target, 0, 0]),
            call(libc::SYS_ptrace, [libc::c_long::from(libc::PTRACE_SEIZE), target, 0, 0]),
            read(outside),
            call(libc::SYS_pidfd_getfd, [pidfd, 0, 0, 0]),
            read(inside),
        ];
        unsafe { libc::kill(inside, libc::SIGKILL) };
        results
    });
    end_bystander(outside);
    assert_eq!(results, [EPERM, EPERM, EPERM, EPERM, 0]);
    assert_eq!(blocked(&told), [what::PTRACE; 4]);
}

fn errno(result: std::io::Result<impl Sized>) -> i32 {
    result.map_or_else(|error| -error.raw_os_error().unwrap_or(0), |_value| 0)
}

fn sockets(programs: &mut Programs) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    // Made by somebody else, as the supervisor makes them: what is connected or bound can be used.
    let prepared = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (results, told) = run(programs, &secret(), move || {
        let closed: &[std::net::SocketAddr] = &["[::1]:9".parse().unwrap()];
        let mut results = vec![
            errno(std::net::TcpStream::connect(tcp_at)),
            errno(std::net::TcpStream::connect(closed)),
            errno(TcpListener::bind("127.0.0.1:0")),
            errno(TcpListener::bind("[::1]:0")),
            errno(UdpSocket::bind("127.0.0.1:0")),
            errno(prepared.connect(udp_at)),
            errno(prepared.send_to(b"x", udp_at)),
        ];
        // Without a family it takes a connection back.
        let nowhere = [0u8; 16];
        results.push(result(unsafe { libc::connect(prepared.as_raw_fd(), nowhere.as_ptr().cast(), 16) }));
        results
    });
    assert_eq!(results, [EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, 0]);
    let (connect, listen) = (what::CONNECT, what::LISTEN);
    assert_eq!(blocked(&told), [connect, connect, listen, listen, listen, connect, connect]);
    assert!(udp.recv(&mut [0; 8]).is_err(), "something arrived");
}

fn unix_sockets(programs: &mut Programs) {
    let (path, name) = ("/tmp/t/pub/socket", "gait-check");
    let policy = secret();
    for path in [path, "/tmp/t/pub/datagrams"] {
        fs::remove_file(path).unwrap_or_default();
    }
    let _listener = UnixListener::bind(path).unwrap();
    let abstract_name = SocketAddr::from_abstract_name(name).unwrap();
    let _other = UnixListener::bind_addr(&abstract_name).unwrap();
    let datagrams = UnixDatagram::bind("/tmp/t/pub/datagrams").unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let (results, told) = run(programs, &policy, move || {
        let socket = UnixDatagram::unbound().unwrap();
        let (mine, yours) = UnixDatagram::pair().unwrap();
        vec![
            errno(UnixStream::connect(path)),
            errno(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap())),
            errno(socket.connect("/tmp/t/pub/datagrams")),
            errno(socket.send_to(b"x", "/tmp/t/pub/datagrams")),
            // A pair needs no address.
            errno(mine.send(b"x")) + errno(yours.recv(&mut [0; 8])),
        ]
    });
    assert_eq!(results, [EPERM, EPERM, EPERM, EPERM, 0]);
    assert_eq!(blocked(&told), [what::UNIX; 4]);
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "something arrived");
}

/// Sends descriptors.
fn hand_over(socket: &UnixStream, files: &[RawFd]) {
    let mut control = [0u64; 16];
    let bytes = u32::try_from(size_of_val(files)).unwrap();
    let mut byte = *b"x";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        ((*header).cmsg_level, (*header).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (*header).cmsg_len = libc::CMSG_LEN(bytes) as usize;
        std::ptr::copy_nonoverlapping(files.as_ptr(), libc::CMSG_DATA(header).cast(), files.len());
        assert_eq!(libc::sendmsg(socket.as_raw_fd(), &raw const message, 0), 1);
    }
}

/// Receives one message. Returns how many descriptors came with it.
fn take_over(socket: &UnixStream) -> i32 {
    let mut control = [0u64; 16];
    let mut byte = [0u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) != 1 {
            return result(-1);
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return 0;
        }
        i32::try_from(((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>()).unwrap()
    }
}

/// A descriptor of somebody else is as good as an open.
fn received(programs: &mut Programs) {
    let policy = secret();
    let readable = fs::File::open("/tmp/t/pub/f").unwrap();
    let hidden = fs::File::open("/tmp/t/secret/f").unwrap();
    let read_only = fs::File::open("/tmp/t/ro/f").unwrap();
    let writable = fs::OpenOptions::new().write(true).open("/tmp/t/ro/f").unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    let all = [&readable, &hidden, &read_only, &writable].map(fs::File::as_raw_fd);
    let tree = start(programs, &policy, || (0..5).map(|_| take_over(&there)).collect());
    for file in all {
        hand_over(&here, &[file]);
    }
    // What comes before a blocked one comes through.
    hand_over(&here, &[all[0], all[1], all[2]]);
    tree.go();
    let (results, told) = tree.end(programs);
    assert_eq!(results, [1, 0, 1, 0, 1]);
    let blocked: Vec<_> = told
        .iter()
        .filter(|told| told.event.kind == event_kind::ACTION && told.event.verdict == verdict::BLOCK)
        .map(|told| told.first.as_str())
        .collect();
    assert_eq!(blocked, ["/tmp/t/secret/f", "/tmp/t/ro/f", "/tmp/t/secret/f"]);
}
