//! THE table: from kernel calls to operations.
//!
//! The seccomp filter's list, the dispatch of held calls, the coverage report, `docs/coverage.md` and `gait doctor` are
//! made from it, and a test demands a conformance scenario for every row. Later backends (`lsm`) read it too.

use super::Operation::{self, *};

/// How the seccomp backend answers the calls of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Performed by gait on the caller's behalf, on descriptors that were judged.
    OnBehalf,
    /// Judged, continued, and verified before the first instruction of the new image.
    Verified,
    /// Only scalars decide, so the call may continue after the verdict.
    Scalar,
    /// Never let through while the policy is enforced, whatever it says.
    Refused,
}

/// What a kernel that was given the rules beforehand does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    /// It decides.
    Decided,
    /// It decides some calls of the row; the others are held, and why.
    Partly(&'static str),
    /// All calls of the row are held as without it, and why.
    Held(&'static str),
}

/// One row of the mapping table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Stable name of the row, used by scenarios and the coverage report.
    pub id: &'static str,
    /// The operations that the calls of the row become.
    pub operations: &'static [Operation],
    /// Names of the system calls, as in the kernel's tables.
    pub syscalls: &'static [&'static str],
    /// Names of the LSM hooks that see the same action.
    pub lsm: &'static [&'static str],
    /// How the seccomp backend treats them.
    pub treatment: Treatment,
    /// How the eBPF backend treats them.
    pub preload: Preload,
    /// What a reader must know about the row's limits on the seccomp backend; empty where there is nothing.
    pub note: &'static str,
}

/// Every row of the mapping table.
pub const CATALOG: &[Row] = &[
    Row {
        id: "open",
        operations: &[Read, List, Write, Create, Truncate],
        syscalls: &["open", "openat", "openat2", "creat"],
        lsm: &["file_open", "path_mknod", "path_truncate"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "O_PATH gives no data and is not judged; metadata (stat, access, readlink) is not covered",
    },
    Row {
        id: "open_by_handle",
        operations: &[Ground],
        syscalls: &["open_by_handle_at"],
        lsm: &["file_open"],
        treatment: Treatment::Refused,
        preload: Preload::Held("refused before any hook"),
        note: "",
    },
    Row {
        id: "truncate",
        operations: &[Truncate],
        syscalls: &["truncate", "ftruncate", "fallocate"],
        lsm: &["path_truncate", "file_truncate"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Held("the hooks do not see the size; emptying by O_TRUNC is decided with the open"),
        note: "growing a file is not an action of its own: the descriptor was judged when it was opened",
    },
    Row {
        id: "mkdir",
        operations: &[Mkdir],
        syscalls: &["mkdir", "mkdirat"],
        lsm: &["path_mkdir"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "",
    },
    Row {
        id: "mknod",
        operations: &[Mknod, Create],
        syscalls: &["mknod", "mknodat"],
        lsm: &["path_mknod"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "device nodes are always blocked",
    },
    Row {
        id: "symlink",
        operations: &[Symlink],
        syscalls: &["symlink", "symlinkat"],
        lsm: &["path_symlink"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "",
    },
    Row {
        id: "link",
        operations: &[LinkOld, LinkNew],
        syscalls: &["link", "linkat"],
        lsm: &["path_link"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "hard links that existed before the session are other names of the same file",
    },
    Row {
        id: "rename",
        operations: &[RenameOld, RenameNew, RenameOver],
        syscalls: &["rename", "renameat", "renameat2"],
        lsm: &["path_rename"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "",
    },
    Row {
        id: "remove",
        operations: &[Unlink, Rmdir],
        syscalls: &["unlink", "unlinkat", "rmdir"],
        lsm: &["path_unlink", "path_rmdir"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Decided,
        note: "",
    },
    Row {
        id: "metadata",
        operations: &[Chmod, Chown, Utime, Setxattr],
        syscalls: &[
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "chown",
            "lchown",
            "fchown",
            "fchownat",
            "utime",
            "utimes",
            "futimesat",
            "utimensat",
            "setxattr",
            "lsetxattr",
            "fsetxattr",
            "setxattrat",
            "removexattr",
            "lremovexattr",
            "fremovexattr",
            "removexattrat",
            "file_setattr",
        ],
        lsm: &["path_chmod", "path_chown", "inode_setattr", "inode_setxattr", "inode_removexattr"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Partly(
            "modes and owners are decided; the hooks of time stamps and attributes see no mount, so no path",
        ),
        note: "setxattrat, removexattrat and file_setattr answer ENOSYS, so that programs use the older calls",
    },
    Row {
        id: "exec",
        operations: &[Exec],
        syscalls: &["execve", "execveat"],
        lsm: &["bprm_creds_for_exec", "bprm_check_security"],
        treatment: Treatment::Verified,
        preload: Preload::Held(
            "arguments are judged and recorded, and no hook sees them before the program runs; an image that is blocked is blocked by the hook too",
        ),
        note: "what an interpreter is told to run (sh -c, python -c) is data to the kernel",
    },
    Row {
        id: "mmap_exec",
        operations: &[MmapExec],
        syscalls: &["mmap", "mprotect", "pkey_mprotect"],
        lsm: &["mmap_file", "file_mprotect"],
        treatment: Treatment::Scalar,
        preload: Preload::Decided,
        note: "held only where the policy can block it; a thread that swaps the descriptor between check and call is not seen",
    },
    Row {
        id: "connect",
        operations: &[Connect, Send, Resolve, UnixConnect, AbstractConnect],
        syscalls: &["connect", "sendto", "sendmsg", "sendmmsg"],
        lsm: &["socket_connect", "socket_sendmsg", "unix_stream_connect", "unix_may_send"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Held(
            "rules speak of names, which the resolver knows; the hooks let no process of the tree connect by itself",
        ),
        note: "SO_PEERCRED on the other side shows the supervisor's pid",
    },
    Row {
        id: "listen",
        operations: &[Listen, Mknod],
        syscalls: &["bind", "listen"],
        lsm: &["socket_bind", "socket_listen"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Held("as connect"),
        note: "",
    },
    Row {
        id: "socket",
        operations: &[Socket],
        syscalls: &["socket", "socketpair"],
        lsm: &["socket_create"],
        treatment: Treatment::Scalar,
        preload: Preload::Held("decided in the filter"),
        note: "AF_UNIX, TCP and UDP over IPv4 and IPv6, and route netlink are decided in the filter and not recorded",
    },
    Row {
        id: "ptrace",
        operations: &[Ptrace],
        syscalls: &[
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "process_madvise",
        ],
        lsm: &["ptrace_access_check"],
        treatment: Treatment::Refused,
        preload: Preload::Held("refused before the hook, which blocks it too"),
        note: "debuggers do not run inside a session",
    },
    Row {
        id: "signal",
        operations: &[Signal],
        syscalls: &[
            "kill",
            "tkill",
            "tgkill",
            "rt_sigqueueinfo",
            "rt_tgsigqueueinfo",
            "pidfd_send_signal",
            "fcntl",
        ],
        lsm: &["task_kill"],
        treatment: Treatment::Scalar,
        preload: Preload::Held("the hook blocks signals to processes outside too"),
        note: "inside the tree signals are free and not recorded; fcntl only F_SETOWN and F_SETOWN_EX, and ioctl FIOSETOWN and SIOCSPGRP are judged as they are: whom the kernel signals for a descriptor",
    },
    Row {
        id: "tune_other",
        operations: &[Ptrace],
        syscalls: &[
            "prlimit64",
            "setpriority",
            "sched_setaffinity",
            "sched_setscheduler",
            "sched_setparam",
            "sched_setattr",
            "ioprio_set",
            "migrate_pages",
            "move_pages",
        ],
        lsm: &["task_prlimit", "task_setnice", "task_setscheduler"],
        treatment: Treatment::Scalar,
        preload: Preload::Held("no table is needed"),
        note: "on processes of the tree these are free and not recorded",
    },
    Row {
        id: "ground",
        operations: &[Ground],
        syscalls: &[
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "setns",
            "unshare",
            "clone",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "open_tree",
            "open_tree_attr",
            "move_mount",
            "mount_setattr",
            "bpf",
            "perf_event_open",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "swapon",
            "swapoff",
            "reboot",
            "quotactl",
            "quotactl_fd",
            "acct",
            "iopl",
            "ioperm",
            "fanotify_init",
            "sethostname",
            "setdomainname",
            "settimeofday",
            "clock_settime",
            "clock_adjtime",
            "adjtimex",
            "syslog",
            "vhangup",
            "modify_ldt",
            "personality",
            "ioctl",
            "nfsservctl",
            "lookup_dcookie",
            "memfd_secret",
        ],
        lsm: &["sb_mount", "move_mount", "bpf", "kernel_module_request", "locked_down", "userns_create"],
        treatment: Treatment::Refused,
        preload: Preload::Held(
            "refused before the hooks, which block mounts, namespaces, bpf and modules too",
        ),
        note: "clone3 answers ENOSYS so that flags stay scalar; ioctl only those that inject input or change file systems, clone and unshare only new namespaces",
    },
    Row {
        id: "ipc",
        operations: &[Ground],
        syscalls: &["mq_open", "mq_unlink"],
        lsm: &["ipc_permission"],
        treatment: Treatment::Refused,
        preload: Preload::Held("refused before the hook"),
        note: "POSIX queues reach outside the tree by name",
    },
    Row {
        id: "sysv_ipc",
        operations: &[Ground],
        syscalls: &[
            "shmget",
            "shmat",
            "shmctl",
            "semget",
            "semop",
            "semtimedop",
            "semctl",
            "msgget",
            "msgsnd",
            "msgrcv",
            "msgctl",
        ],
        lsm: &["ipc_permission", "shm_associate", "sem_associate", "msg_queue_associate"],
        treatment: Treatment::OnBehalf,
        preload: Preload::Held("whose object it is stands in no table"),
        note: "free and not recorded on objects that the tree made; those of others are refused. Objects belong to the user that gait runs as, and outlive the session as they always do",
    },
];

impl Row {
    /// Returns the row that holds the named system call.
    #[must_use]
    pub fn of_syscall(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|row| row.syscalls.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_row() {
        for &operation in Operation::ALL {
            assert!(
                CATALOG.iter().any(|row| row.operations.contains(&operation)),
                "{operation:?} has no row"
            );
        }
    }

    #[test]
    fn no_call_stands_in_two_rows() {
        let mut seen = std::collections::BTreeSet::new();
        for name in CATALOG.iter().flat_map(|row| row.syscalls) {
            assert!(seen.insert(name), "{name} stands in two rows");
        }
    }
}
