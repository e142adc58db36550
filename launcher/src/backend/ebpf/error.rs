//! Why the programs cannot be loaded, and what would make it so.

use std::io;
use std::path::PathBuf;

/// The kernel programs could not be loaded or set up. Nothing is attached, nothing is pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The kernel does not start its BPF security module.
    #[error("bpf is not among the active security modules ({lsm})")]
    NoBpfLsm {
        /// What it does start, as in `/sys/kernel/security/lsm`.
        lsm: String,
    },
    /// `/sys/kernel/security/lsm` is not there.
    #[error("cannot read /sys/kernel/security/lsm")]
    NoSecurityFs {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel does not describe its own types.
    #[error("the kernel has no BTF (/sys/kernel/btf/vmlinux): {reason}")]
    NoBtf {
        /// Why not.
        reason: String,
    },
    /// Older than what the programs are made for.
    #[error("Linux {release} is too old")]
    TooOld {
        /// The kernel's own name of its version.
        release: String,
    },
    /// Programs may not read the kernel's memory.
    #[error("the kernel is locked down (confidentiality)")]
    Lockdown,
    /// Not root, or root without its capabilities.
    #[error("loading programs into the kernel is not permitted to this process")]
    NoPrivilege,
    /// This process or the system has no room for more open files, of which every program and map is one.
    #[error("too many open files to load the programs")]
    Descriptors,
    /// The kernel has no memory for the programs or their maps.
    #[error("the kernel has no memory for the programs and their maps")]
    Memory,
    /// The kernel does not take a program.
    #[error("the kernel refused the program for the hook {hook}: {reason}")]
    Refused {
        /// The hook.
        hook: String,
        /// The error, and the last lines of the verifier.
        reason: String,
    },
    /// The object could not be put into the kernel at all.
    #[error("the kernel programs cannot be prepared: {reason}")]
    Object {
        /// Why not.
        reason: String,
    },
    /// The directory of pins is somebody else's.
    #[error("{} is not a directory of this user that only this user may enter", path.display())]
    ForeignPins {
        /// Which one.
        path: PathBuf,
    },
    /// The place for pins is not on bpffs.
    #[error("{} is not on a BPF file system", path.display())]
    NoBpfFs {
        /// Which one.
        path: PathBuf,
    },
    /// Pins of that name are there already.
    #[error("{} exists already: another gait holds it, or left it behind", path.display())]
    PinsExist {
        /// Which one.
        path: PathBuf,
    },
    /// A directory or a pin could not be made.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no room for a session's tables.
    #[error("the map {map} has no room for {wanted} more entries")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// How many were to be added.
        wanted: u64,
    },
    /// A map could not be read or written.
    #[error("the map {map} cannot be used")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A task did not become a member.
    #[error(
        "process {pid} was not put under control: it is gone, has more than one thread, or is under control already"
    )]
    NotPlaced {
        /// Which one.
        pid: u32,
    },
    /// What rules name could not be made known by its identity.
    #[error(
        "of {wanted} files and directories that rules name {found} were found in the process that has them open"
    )]
    NotNamed {
        /// How many are known.
        found: u32,
        /// How many were to be.
        wanted: u32,
    },
    /// Everything is attached, and yet an action went through that had to be blocked.
    #[error("the attached programs do not enforce: {reason}")]
    SelfTest {
        /// What happened.
        reason: String,
    },
}

impl LoadError {
    /// What makes it go, in one line.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoBpfLsm { .. } => "add bpf to the kernel's command line: lsm=<what it has now>,bpf",
            Self::NoSecurityFs { .. } => "mount securityfs on /sys/kernel/security",
            Self::NoBtf { .. } => {
                "use a kernel built with CONFIG_DEBUG_INFO_BTF (every distribution's since 2021)"
            }
            Self::TooOld { .. } => "use Linux 6.1 or newer",
            Self::Lockdown => "start the kernel with lockdown=integrity or without lockdown",
            Self::NoPrivilege => {
                "run as root with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, or through the gait agent service"
            }
            Self::Descriptors => "raise the limit of open files (ulimit -n, LimitNOFILE=) to 256 or more",
            Self::Memory | Self::Map { .. } => "raise the memory limit of this service or container",
            Self::Refused { .. } | Self::Object { .. } => {
                "use another kernel, or --backend seccomp; please report the kernel's version and these lines"
            }
            Self::ForeignPins { .. } => "remove that directory, after finding out who made it",
            Self::NoBpfFs { .. } => "mount -t bpf bpf /sys/fs/bpf",
            Self::PinsExist { .. } => "end that session, or remove what it left: gait doctor --cleanup",
            Self::Pin { .. } => "make sure that /sys/fs/bpf is writable for root",
            Self::Full { .. } => "end other sessions, or use a smaller policy",
            Self::NotPlaced { .. } | Self::NotNamed { .. } => "start the workload again",
            Self::SelfTest { .. } => "use --backend seccomp; please report the kernel's version",
        }
    }
}
