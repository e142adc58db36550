//! The seccomp filter: a pure function from the catalogue and the policy's needs to BPF instructions.
//!
//! Order of a run: architecture, x32, then the call's number. Scalars that settle the matter (flags, families) are looked
//! at here; whatever carries a pointer is held. Calls that no row names are allowed, which the kernel answers from a
//! bitmap without running the filter.

use gait_agent::endpoint::CATALOG;

use crate::sys::fs::F_SETOWN_EX;

use super::numbers::{self, AUDIT_ARCH, NEWEST, X32_BIT, names};

const LD_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const HOLD: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x0005_0000;

/// Offsets into `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}
const fn high(argument: u32) -> u32 {
    low(argument) + 4
}

/// `CLONE_NEW*` of clone(2) and unshare(2): cgroup, uts, ipc, user, pid, net, mount, time.
const NEW_NAMESPACES: u32 = 0x7e02_0080;
/// `AT_EMPTY_PATH`-free open flags that make an open more than a read.
const WRITING: u32 =
    (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | libc::O_TMPFILE)
        .cast_unsigned();
/// `FALLOC_FL_PUNCH_HOLE`, `COLLAPSE_RANGE`, `ZERO_RANGE`, `INSERT_RANGE`.
const DESTROYING: u32 = 0x02 | 0x08 | 0x10 | 0x20;
/// `ioctl` requests that never pass: terminal injection, line disciplines, and what changes files or whole file systems
/// through a descriptor that only reads.
pub(super) const REFUSED_IOCTLS: &[(u32, &str)] = &[
    (0x5412, "ioctl:TIOCSTI"),
    (0x541c, "ioctl:TIOCLINUX"),
    (0x5423, "ioctl:TIOCSETD"),
    (0x4080_6685, "ioctl:FS_IOC_ENABLE_VERITY"),
    (0x4008_7602, "ioctl:FS_IOC_SETVERSION"),
    (0x800c_6613, "ioctl:FS_IOC_SET_ENCRYPTION_POLICY"),
    (0xc004_5877, "ioctl:FIFREEZE"),
    (0xc004_5878, "ioctl:FITHAW"),
    (0x8004_587d, "ioctl:EXT4_IOC_SHUTDOWN"),
];
/// `ioctl` requests that set inode flags: judged as a change of metadata.
pub(super) const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
pub(super) const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `ioctl` requests that say whom the kernel signals for a socket, as `F_SETOWN` does: `FIOSETOWN` and `SIOCSPGRP`.
pub(super) const SET_OWNER: [u32; 2] = [0x8901, 0x8902];
/// `ADDR_NO_RANDOMIZE`, the one personality flag that tools really use, and the value that only asks.
const HARMLESS_PERSONALITIES: [u32; 3] = [0, 0x0004_0000, u32::MAX];

/// `IOPRIO_WHO_PROCESS` of ioprio_set(2).
const IOPRIO_WHO_PROCESS: u32 = 1;

/// What a session needs of the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// Hold executable mappings of files: the policy can block some.
    pub(super) mmap_exec: bool,
    /// Hold changes of credentials: gait runs with rights that the workload could give up.
    pub(super) credentials: bool,
    /// Hold opens that only read.
    pub(super) reads: bool,
    /// Hold the calls that act on files by name; not so where the kernel judges them by rules of its own.
    pub(super) files: bool,
}

/// Calls that a kernel with the rules judges by itself. Not among them: truncate(2) and its kin (their hooks see no size),
/// time stamps and extended attributes (their hooks see no mount, so no path).
const JUDGED_BY_THE_KERNEL: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "creat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
];

/// A run of conditions that ends in returns; appended after the test of the call's number.
#[derive(Debug, Default)]
struct Block(Vec<libc::sock_filter>);

impl Block {
    fn statement(mut self, code: u16, k: u32) -> Self {
        self.0.push(libc::sock_filter { code, jt: 0, jf: 0, k });
        self
    }

    fn jump(mut self, code: u16, k: u32, jt: u8, jf: u8) -> Self {
        self.0.push(libc::sock_filter { code, jt, jf, k });
        self
    }

    fn ret(self, value: u32) -> Self {
        self.statement(RET, value)
    }

    fn load(self, offset: u32) -> Self {
        self.statement(LD_ABS, offset)
    }

    /// Returns `value` if the loaded word has any of the bits.
    fn if_any(self, bits: u32, value: u32) -> Self {
        self.jump(JSET, bits, 0, 1).ret(value)
    }

    /// Returns `value` if the loaded word equals `k`.
    fn if_equal(self, k: u32, value: u32) -> Self {
        self.jump(JEQ, k, 0, 1).ret(value)
    }

    /// Returns `value` unless the loaded word equals `k`.
    fn unless_equal(self, k: u32, value: u32) -> Self {
        self.jump(JEQ, k, 1, 0).ret(value)
    }
}

fn open_block(flags: u32, needs: Needs) -> Block {
    let block = Block::default().load(low(flags)).if_any(libc::O_PATH.cast_unsigned(), ALLOW);
    if needs.reads { block.ret(HOLD) } else { block.if_any(WRITING, HOLD).ret(ALLOW) }
}

/// `socket(family, type, protocol)`: the few plain kinds pass, everything else is held (and blocked or recorded).
fn socket_block() -> Block {
    let inet = |block: Block, family: i32| {
        // Another family skips to behind the last return.
        block
            .load(low(0))
            .jump(JEQ, family.cast_unsigned(), 0, 13)
            .load(low(1))
            .statement(AND, 0xf)
            .jump(JEQ, libc::SOCK_STREAM.cast_unsigned(), 0, 4)
            .load(low(2))
            .if_equal(0, ALLOW)
            .jump(JEQ, libc::IPPROTO_TCP.cast_unsigned(), 4, 5)
            .jump(JEQ, libc::SOCK_DGRAM.cast_unsigned(), 0, 4)
            .load(low(2))
            .jump(JEQ, 0, 1, 0)
            .jump(JEQ, libc::IPPROTO_UDP.cast_unsigned(), 0, 1)
            .ret(ALLOW)
            .ret(HOLD)
    };
    let block = Block::default().load(low(0)).if_equal(libc::AF_UNIX.cast_unsigned(), ALLOW);
    let block = inet(inet(block, libc::AF_INET), libc::AF_INET6);
    block
        .load(low(0))
        .unless_equal(libc::AF_NETLINK.cast_unsigned(), HOLD)
        .load(low(2))
        .if_equal(libc::NETLINK_ROUTE.cast_unsigned(), ALLOW)
        .ret(HOLD)
}

/// Holds a call unless one word of its arguments equals `k`.
fn held_unless(argument: u32, k: u32) -> Block {
    Block::default().load(low(argument)).unless_equal(k, HOLD).ret(ALLOW)
}

/// Holds `call(which, who)` unless it means the calling process.
fn own_process(which: u32) -> Block {
    Block::default().load(low(1)).unless_equal(0, HOLD).load(low(0)).unless_equal(which, HOLD).ret(ALLOW)
}

/// Returns what the filter does with a call of the catalogue, by name.
fn block_of(name: &str, needs: Needs) -> Option<Block> {
    let hold = || Block::default().ret(HOLD);
    if !needs.files && JUDGED_BY_THE_KERNEL.contains(&name) {
        return None;
    }
    Some(match name {
        "open" => open_block(1, needs),
        "openat" => open_block(2, needs),
        // Programs fall back to the older calls, whose flags are scalars.
        "setxattrat" | "removexattrat" | "file_setattr" => {
            Block::default().ret(ERRNO | libc::ENOSYS.cast_unsigned())
        }
        "fallocate" => Block::default().load(low(1)).if_any(DESTROYING, HOLD).ret(ALLOW),
        "mmap" if needs.mmap_exec => Block::default()
            .load(low(3))
            .if_any(libc::MAP_ANONYMOUS.cast_unsigned(), ALLOW)
            .load(low(2))
            .if_any(libc::PROT_EXEC.cast_unsigned(), HOLD)
            .ret(ALLOW),
        "mprotect" | "pkey_mprotect" if needs.mmap_exec => {
            Block::default().load(low(2)).if_any(libc::PROT_EXEC.cast_unsigned(), HOLD).ret(ALLOW)
        }
        "mmap" | "mprotect" | "pkey_mprotect" => return None,
        "socket" => socket_block(),
        "socketpair" => held_unless(0, libc::AF_UNIX.cast_unsigned()),
        // Without an address the destination is that of the connected socket, which was judged.
        "sendto" => {
            Block::default().load(low(4)).unless_equal(0, HOLD).load(high(4)).unless_equal(0, HOLD).ret(ALLOW)
        }
        "prlimit64" | "sched_setaffinity" | "sched_setscheduler" | "sched_setparam" | "sched_setattr"
        | "migrate_pages" | "move_pages" => held_unless(0, 0),
        // The first argument says what kind of thing the second names; only "this process" passes.
        "setpriority" => own_process(libc::PRIO_PROCESS),
        "ioprio_set" => own_process(IOPRIO_WHO_PROCESS),
        "unshare" | "clone" => Block::default().load(low(0)).if_any(NEW_NAMESPACES, HOLD).ret(ALLOW),
        "personality" => HARMLESS_PERSONALITIES
            .iter()
            .fold(Block::default().load(low(0)), |block, &value| block.if_equal(value, ALLOW))
            .ret(HOLD),
        "ioctl" => REFUSED_IOCTLS
            .iter()
            .map(|(request, _)| *request)
            .chain([FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR])
            .chain(SET_OWNER)
            .fold(Block::default().load(low(1)), |block, request| block.if_equal(request, HOLD))
            .ret(ALLOW),
        // Whom the kernel signals for a descriptor; nobody, where the number is 0.
        "fcntl" => Block::default()
            .load(low(1))
            .if_equal(F_SETOWN_EX.cast_unsigned(), HOLD)
            .unless_equal(libc::F_SETOWN.cast_unsigned(), ALLOW)
            .load(low(2))
            .if_equal(0, ALLOW)
            .ret(HOLD),
        _ => hold(),
    })
}

/// Calls that no row names, but that the supervisor must see or refuse to do its work.
fn housekeeping(needs: Needs) -> Vec<(i64, Block)> {
    let hold = || Block::default().ret(HOLD);
    let mut calls = vec![
        (names::umask, hold()),
        // Flags of clone3 are behind a pointer; libcs fall back to clone.
        (names::clone3, Block::default().ret(ERRNO | libc::ENOSYS.cast_unsigned())),
        // A task that is not dumpable cannot be read by an unprivileged supervisor.
        (
            names::prctl,
            Block::default()
                .load(low(0))
                .unless_equal(libc::PR_SET_DUMPABLE.cast_unsigned(), ALLOW)
                .load(low(1))
                .if_equal(0, HOLD)
                .ret(ALLOW),
        ),
    ];
    if needs.credentials {
        calls.extend(
            [
                names::setuid,
                names::setgid,
                names::setreuid,
                names::setregid,
                names::setresuid,
                names::setresgid,
                names::setfsuid,
                names::setfsgid,
                names::setgroups,
                names::capset,
            ]
            .map(|number| (number, hold())),
        );
    }
    calls
}

/// The shortest filter.
pub(super) fn allow_all() -> Vec<libc::sock_filter> {
    Block::default().ret(ALLOW).0
}

/// Builds the filter.
pub(super) fn build(needs: Needs) -> Vec<libc::sock_filter> {
    // A foreign architecture is held, so that the attempt is recorded before the task is killed.
    let mut program = Block::default()
        .load(ARCH)
        .jump(JEQ, AUDIT_ARCH, 1, 0)
        .ret(HOLD)
        .load(NR)
        .jump(JGE, X32_BIT, 0, 1)
        .ret(HOLD);
    let rows = CATALOG
        .iter()
        .flat_map(|row| row.syscalls)
        .filter_map(|name| Some((numbers::of(name)?, block_of(name, needs)?)));
    for (number, block) in rows.chain(housekeeping(needs)) {
        let length = u8::try_from(block.0.len()).unwrap_or(u8::MAX);
        program = program.jump(JEQ, u32::try_from(number).unwrap_or(u32::MAX), 0, length);
        program.0.extend(block.0);
    }
    program.jump(JGE, NEWEST + 1, 0, 1).ret(ERRNO | libc::ENOSYS.cast_unsigned()).ret(ALLOW).0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Needs = Needs { mmap_exec: true, credentials: true, reads: true, files: true };

    /// Runs the filter as the kernel would.
    fn run(program: &[libc::sock_filter], nr: u32, arch: u32, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&nr.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let f = program[pc];
            pc += 1;
            let mut branch = |taken: bool| pc += usize::from(if taken { f.jt } else { f.jf });
            match f.code {
                LD_ABS => acc = u32::from_ne_bytes(data[f.k as usize..f.k as usize + 4].try_into().unwrap()),
                AND => acc &= f.k,
                JEQ => branch(acc == f.k),
                JGE => branch(acc >= f.k),
                JSET => branch(acc & f.k != 0),
                RET => return f.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn call(needs: Needs, nr: i64, args: [u64; 6]) -> u32 {
        run(&build(needs), u32::try_from(nr).unwrap(), AUDIT_ARCH, args)
    }

    #[test]
    fn every_call_of_the_catalogue_has_a_number() {
        for name in CATALOG.iter().flat_map(|row| row.syscalls) {
            assert!(numbers::of(name).is_some(), "{name} has no number");
        }
    }

    #[test]
    fn every_call_of_the_catalogue_is_held_or_refused_for_some_arguments() {
        let program = build(ALL);
        let tries = [
            [0; 6],
            [u64::MAX; 6],
            [0, 4, 4, 2, 0, 0],
            [3, 0x5412, 0, 0, 0, 0],
            [16, 3, 5, 0, 0, 0],
            [0, 15, 0, 0, 0, 0],
        ];
        for name in CATALOG.iter().flat_map(|row| row.syscalls) {
            let nr = u32::try_from(numbers::of(name).unwrap()).unwrap();
            assert!(
                tries.iter().any(|args| run(&program, nr, AUDIT_ARCH, *args) != ALLOW),
                "{name} always passes"
            );
        }
    }

    #[test]
    fn foreign_architectures_and_x32_are_held() {
        let program = build(ALL);
        assert_eq!(run(&program, 5, 0x4000_0003, [0; 6]), HOLD);
        assert_eq!(run(&program, X32_BIT | 257, AUDIT_ARCH, [0; 6]), HOLD);
        assert_eq!(run(&program, NEWEST + 1, AUDIT_ARCH, [0; 6]), ERRNO | libc::ENOSYS.cast_unsigned());
        assert_eq!(run(&program, 0, AUDIT_ARCH, [0; 6]), ALLOW);
    }

    #[test]
    fn only_path_opens_pass_when_reads_are_held() {
        let flags = |f: i32| [0, 0, u64::from(f.cast_unsigned()), 0, 0, 0];
        assert_eq!(call(ALL, libc::SYS_openat, flags(libc::O_RDONLY)), HOLD);
        assert_eq!(call(ALL, libc::SYS_openat, flags(libc::O_PATH)), ALLOW);
        let no_reads = Needs { reads: false, ..ALL };
        assert_eq!(call(no_reads, libc::SYS_openat, flags(libc::O_RDONLY | libc::O_CLOEXEC)), ALLOW);
        for f in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC, libc::O_APPEND, libc::O_TMPFILE]
        {
            assert_eq!(call(no_reads, libc::SYS_openat, flags(f)), HOLD, "{f:#o}");
        }
        // The kernel looks at the low word only; so does the filter.
        let dirty = [0, 0, u64::from(libc::O_WRONLY.cast_unsigned()) | 0xdead_0000_0000_0000, 0, 0, 0];
        assert_eq!(call(no_reads, libc::SYS_openat, dirty), HOLD);
    }

    #[test]
    fn what_the_kernel_judges_is_not_held() {
        let kernel = Needs { files: false, ..ALL };
        let args = [0, 0, u64::from((libc::O_RDWR | libc::O_CREAT).cast_unsigned()), 0, 0, 0];
        for name in JUDGED_BY_THE_KERNEL {
            let number = numbers::of(name).unwrap();
            assert_eq!(call(kernel, number, args), ALLOW, "{name}");
            assert_ne!(call(ALL, number, args), ALLOW, "{name}");
        }
        for held in
            [libc::SYS_execve, libc::SYS_truncate, libc::SYS_utimensat, libc::SYS_setxattr, libc::SYS_connect]
        {
            assert_eq!(call(kernel, held, args), HOLD, "{held}");
        }
    }

    #[test]
    fn only_plain_sockets_pass() {
        let socket = |family: i32, kind: i32, protocol: i32| {
            call(
                ALL,
                libc::SYS_socket,
                [family, kind, protocol, 0, 0, 0].map(|v| u64::from(v.cast_unsigned())),
            )
        };
        for family in [libc::AF_INET, libc::AF_INET6] {
            for (kind, protocol) in
                [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)]
            {
                assert_eq!(socket(family, kind, 0), ALLOW);
                assert_eq!(socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol), ALLOW);
            }
            assert_eq!(socket(family, libc::SOCK_STREAM, libc::IPPROTO_UDP), HOLD);
            assert_eq!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_TCP), HOLD);
            assert_eq!(socket(family, libc::SOCK_STREAM, 262), HOLD, "MPTCP");
            assert_eq!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_ICMP), HOLD);
            assert_eq!(socket(family, libc::SOCK_RAW, 0), HOLD);
        }
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), ALLOW);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE), ALLOW);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER), HOLD);
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG] {
            assert_eq!(socket(family, libc::SOCK_STREAM, 0), HOLD);
        }
    }

    #[test]
    fn requests_that_reach_past_their_descriptor_are_held() {
        for request in REFUSED_IOCTLS
            .iter()
            .map(|(request, _)| *request)
            .chain([FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR])
            .chain(SET_OWNER)
        {
            // The kernel takes the request for 32 bits, whatever stands above them.
            for dirt in [0, 1 << 40] {
                let args = [3, u64::from(request) | dirt, 0, 0, 0, 0];
                assert_eq!(call(ALL, libc::SYS_ioctl, args), HOLD, "{request:#x}");
            }
        }
        assert_eq!(call(ALL, libc::SYS_ioctl, [0, libc::TCGETS, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn owners_of_descriptors_are_held() {
        let fcntl = |command: i32, owner: i32| {
            let args = [3, command, owner].map(|v| u64::from(v.cast_unsigned()));
            // The kernel takes the command for 32 bits, and the owner of F_SETOWN too.
            [0, 1 << 40].map(|dirt| call(ALL, libc::SYS_fcntl, [3, args[1] | dirt, args[2] | dirt, 0, 0, 0]))
        };
        for owner in [1, -1, i32::MIN] {
            assert_eq!(fcntl(libc::F_SETOWN, owner), [HOLD; 2], "{owner}");
        }
        for owner in [0, 1] {
            assert_eq!(fcntl(F_SETOWN_EX, owner), [HOLD; 2], "a pointer");
        }
        assert_eq!(fcntl(libc::F_SETOWN, 0), [ALLOW; 2]);
        for command in [libc::F_GETFL, libc::F_SETFL, libc::F_GETOWN, libc::F_DUPFD_CLOEXEC, libc::F_SETLK] {
            assert_eq!(fcntl(command, 7), [ALLOW; 2], "{command}");
        }
    }

    #[test]
    fn sends_without_an_address_pass() {
        assert_eq!(call(ALL, libc::SYS_sendto, [3, 1, 1, 0, 0, 0]), ALLOW);
        assert_eq!(call(ALL, libc::SYS_sendto, [3, 1, 1, 0, 1, 16]), HOLD);
        assert_eq!(call(ALL, libc::SYS_sendto, [3, 1, 1, 0, 1 << 40, 16]), HOLD);
    }

    #[test]
    fn new_namespaces_are_held_and_threads_are_not() {
        let flags = [
            u64::from((libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_FS).cast_unsigned()),
            0,
            0,
            0,
            0,
            0,
        ];
        assert_eq!(call(ALL, libc::SYS_clone, flags), ALLOW);
        for flag in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWCGROUP,
        ] {
            assert_eq!(call(ALL, libc::SYS_clone, [u64::from(flag.cast_unsigned()), 0, 0, 0, 0, 0]), HOLD);
            assert_eq!(call(ALL, libc::SYS_unshare, [u64::from(flag.cast_unsigned()), 0, 0, 0, 0, 0]), HOLD);
        }
        // CLONE_NEWTIME shares its bit with the exit signal of clone(2), which takes the low byte.
        assert_eq!(call(ALL, libc::SYS_clone, [17, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(ALL, libc::SYS_clone3, [0; 6]), ERRNO | libc::ENOSYS.cast_unsigned());
    }
}
