//! Operations: what an action does to its object. The class follows from the operation alone.

use super::EndpointClass;

/// What kind of target an operation has (`reference_contract.md` section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// A resolved absolute path.
    Path,
    /// `name-or-address:port`.
    Host,
    /// Free text, such as `unix:@name` or the name of a call.
    Other,
}

impl TargetKind {
    /// Returns the contract's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Host => "host",
            Self::Other => "other",
        }
    }
}

macro_rules! operations {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, $class:ident, $kind:ident, $destructive:literal; )*) => {
        /// One operation of the mapping table.
        ///
        /// A call that touches two objects makes two actions, one operation each; `LinkOld` and `LinkNew` are spelt
        /// `link` in the contract, the three of a rename `rename`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Operation { $( $(#[$doc])* $name, )* }

        impl Operation {
            /// Every operation, in the order of the table.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Returns the contract's spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }

            /// Returns the endpoint class.
            #[must_use]
            pub const fn class(self) -> EndpointClass {
                match self { $( Self::$name => EndpointClass::$class, )* }
            }

            /// Returns the kind of target.
            #[must_use]
            pub const fn target_kind(self) -> TargetKind {
                match self { $( Self::$name => TargetKind::$kind, )* }
            }

            /// Returns whether the mapping table calls the operation destructive.
            ///
            /// The contract's normalisation marks every `fs.delete` and `proc.exec` target destructive besides.
            #[must_use]
            pub const fn is_destructive(self) -> bool {
                match self { $( Self::$name => $destructive, )* }
            }
        }
    };
}

operations! {
    /// Opening a file for reading.
    Read = "read", FsRead, Path, false;
    /// Opening a directory.
    List = "list", FsRead, Path, false;
    /// Opening an existing file for writing.
    Write = "write", FsWrite, Path, false;
    /// Creating a file.
    Create = "create", FsWrite, Path, false;
    /// Emptying or shortening a file, punching a hole in it.
    Truncate = "truncate", FsDelete, Path, true;
    /// Making a directory.
    Mkdir = "mkdir", FsWrite, Path, false;
    /// Making a FIFO, a socket node or a device node.
    Mknod = "mknod", FsWrite, Path, false;
    /// Making a symbolic link; the target is its own path, not what it points to.
    Symlink = "symlink", FsWrite, Path, false;
    /// The existing file of a hard link.
    LinkOld = "link", FsRead, Path, false;
    /// The new name of a hard link.
    LinkNew = "link", FsWrite, Path, false;
    /// The old name of a rename.
    RenameOld = "rename", FsDelete, Path, false;
    /// The new name of a rename.
    RenameNew = "rename", FsWrite, Path, false;
    /// What a rename replaces at the new name.
    RenameOver = "rename", FsDelete, Path, true;
    /// Removing a file.
    Unlink = "unlink", FsDelete, Path, true;
    /// Removing a directory.
    Rmdir = "rmdir", FsDelete, Path, true;
    /// Changing mode bits or inode flags.
    Chmod = "chmod", FsWrite, Path, false;
    /// Changing ownership.
    Chown = "chown", FsWrite, Path, false;
    /// Changing time stamps.
    Utime = "utime", FsWrite, Path, false;
    /// Setting or removing an extended attribute.
    Setxattr = "setxattr", FsWrite, Path, false;
    /// Running a program.
    Exec = "exec", ProcExec, Path, false;
    /// Mapping a file executable.
    MmapExec = "mmap_exec", ProcExec, Path, false;
    /// Connecting to an internet address.
    Connect = "connect", NetHttp, Host, false;
    /// Sending a datagram to an internet address.
    Send = "send", NetHttp, Host, false;
    /// Reaching a name server, or one query that the resolver sees.
    Resolve = "resolve", NetDns, Host, false;
    /// Binding or listening on an internet address.
    Listen = "listen", NetHttp, Host, false;
    /// Reaching a unix socket by its path.
    UnixConnect = "connect", FsWrite, Path, false;
    /// Reaching an abstract unix socket.
    AbstractConnect = "connect", Other, Other, false;
    /// Making a socket of another family.
    Socket = "socket", Other, Other, false;
    /// Tracing, reading or writing another process.
    Ptrace = "ptrace", Other, Other, true;
    /// Signalling a process outside the tree.
    Signal = "signal", Other, Other, true;
    /// A call that changes the ground the workload stands on; the target value is the call's name.
    Ground = "ground", Other, Other, true;
}
