//! File system calls relative to descriptors.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, check, check_long, check_size};

/// `RESOLVE_NO_MAGICLINKS` of openat2(2).
pub(crate) const NO_MAGICLINKS: u64 = 0x02;
/// `RESOLVE_NO_SYMLINKS` of openat2(2).
pub(crate) const NO_SYMLINKS: u64 = 0x04;
/// `struct open_how` of openat2(2), version 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OpenHow {
    pub(crate) flags: u64,
    pub(crate) mode: u64,
    pub(crate) resolve: u64,
}

/// Where a relative path starts: a descriptor, or this thread's working directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// The calling thread's working directory; for absolute paths.
    Cwd,
    /// An open directory.
    Fd(BorrowedFd<'a>),
}

impl At<'_> {
    fn raw(self) -> RawFd {
        match self {
            Self::Cwd => libc::AT_FDCWD,
            Self::Fd(fd) => fd.as_raw_fd(),
        }
    }
}

/// Takes a descriptor that the kernel has just made.
fn own(fd: i64) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(fd).map_err(|_error| Errno(libc::EBADF))?;
    // SAFETY: `fd` is a non-negative result of a call that makes a new descriptor; nothing else knows its number yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// openat2(2).
pub(crate) fn openat2(at: At<'_>, path: &CStr, how: &OpenHow) -> Result<OwnedFd, Errno> {
    // SAFETY: `path` is NUL-terminated and `how` is a live `open_how` of the size passed; the kernel only reads both.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            at.raw(),
            path.as_ptr(),
            std::ptr::from_ref(how),
            size_of::<OpenHow>(),
        )
    };
    check_long(fd).and_then(own)
}

/// openat(2), without any restriction on how the path is resolved.
pub(crate) fn openat(at: At<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: `path` is NUL-terminated and only read.
    let fd = unsafe { libc::openat(at.raw(), path.as_ptr(), flags, mode) };
    check(fd).map(i64::from).and_then(own)
}

/// The facts of a file that decisions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) mode: u32,
    pub(crate) nlink: u64,
    pub(crate) size: i64,
    pub(crate) rdev: u64,
}

impl Stat {
    /// Returns the type bits, `S_IFMT`.
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

impl From<libc::stat> for Stat {
    fn from(st: libc::stat) -> Self {
        Self {
            dev: st.st_dev,
            ino: st.st_ino,
            mode: st.st_mode,
            nlink: st.st_nlink,
            size: st.st_size,
            rdev: st.st_rdev,
        }
    }
}

/// fstat(2).
pub(crate) fn fstat(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `st` is writable memory of the size of a `stat`.
    check(unsafe { libc::fstat(fd.as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: a successful fstat fills the whole structure.
    Ok(unsafe { st.assume_init() }.into())
}

/// fstatat(2).
pub(crate) fn fstatat(at: At<'_>, path: &CStr, flags: i32) -> Result<Stat, Errno> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `path` is NUL-terminated; `st` is writable memory of the size of a `stat`.
    check(unsafe { libc::fstatat(at.raw(), path.as_ptr(), st.as_mut_ptr(), flags) })?;
    // SAFETY: a successful fstatat fills the whole structure.
    Ok(unsafe { st.assume_init() }.into())
}

/// fstatfs(2); returns `f_type`.
pub(crate) fn file_system_type(fd: BorrowedFd<'_>) -> Result<i64, Errno> {
    let mut st = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `st` is writable memory of the size of a `statfs`.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: a successful fstatfs fills the whole structure.
    Ok(unsafe { st.assume_init() }.f_type)
}

/// readlinkat(2); appends the text to `out`.
pub(crate) fn readlinkat(at: At<'_>, path: &CStr, out: &mut Vec<u8>) -> Result<(), Errno> {
    let old = out.len();
    out.reserve(4096);
    let room = out.spare_capacity_mut();
    // SAFETY: `room` is writable memory of the length passed; `path` is NUL-terminated.
    let n = unsafe { libc::readlinkat(at.raw(), path.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
    let n = check_size(n)?;
    // SAFETY: the kernel has written `n` bytes, at most the spare capacity, behind the old length.
    unsafe { out.set_len(old + n) };
    Ok(())
}

/// Writes `/proc/self/fd/N` for a descriptor of ours into a stack buffer.
pub(crate) struct FdPath([u8; 32]);

impl FdPath {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        use std::io::Write;
        let mut buffer = [0u8; 32];
        let mut rest = &mut buffer[..31];
        // A number of ten digits fits; a short write would only leave a path that does not exist.
        if write!(rest, "/proc/self/fd/{}", fd.as_raw_fd()).is_err() {
            buffer = [0; 32];
        }
        Self(buffer)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// Appends the kernel's name of an open descriptor to `out`.
pub(crate) fn path_of(fd: BorrowedFd<'_>, out: &mut Vec<u8>) -> Result<(), Errno> {
    readlinkat(At::Cwd, FdPath::new(fd).as_c_str(), out)
}

/// Opens the object behind a descriptor once more.
pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: i32) -> Result<OwnedFd, Errno> {
    openat(At::Cwd, FdPath::new(fd).as_c_str(), flags, 0)
}

/// unlinkat(2).
pub(crate) fn unlinkat(at: At<'_>, name: &CStr, flags: i32) -> Result<(), Errno> {
    // SAFETY: `name` is NUL-terminated and only read.
    check(unsafe { libc::unlinkat(at.raw(), name.as_ptr(), flags) }).map(drop)
}

/// mkdirat(2).
pub(crate) fn mkdirat(at: At<'_>, name: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `name` is NUL-terminated and only read.
    check(unsafe { libc::mkdirat(at.raw(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2).
pub(crate) fn mknodat(at: At<'_>, name: &CStr, mode: u32, dev: u64) -> Result<(), Errno> {
    // SAFETY: `name` is NUL-terminated and only read.
    check(unsafe { libc::mknodat(at.raw(), name.as_ptr(), mode, dev) }).map(drop)
}

/// symlinkat(2).
pub(crate) fn symlinkat(text: &CStr, at: At<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: both texts are NUL-terminated and only read.
    check(unsafe { libc::symlinkat(text.as_ptr(), at.raw(), name.as_ptr()) }).map(drop)
}

/// linkat(2).
pub(crate) fn linkat(
    old: At<'_>,
    old_name: &CStr,
    new: At<'_>,
    new_name: &CStr,
    flags: i32,
) -> Result<(), Errno> {
    // SAFETY: both names are NUL-terminated and only read.
    check(unsafe { libc::linkat(old.raw(), old_name.as_ptr(), new.raw(), new_name.as_ptr(), flags) })
        .map(drop)
}

/// renameat2(2).
pub(crate) fn renameat2(
    old: At<'_>,
    old_name: &CStr,
    new: At<'_>,
    new_name: &CStr,
    flags: u32,
) -> Result<(), Errno> {
    // SAFETY: both names are NUL-terminated and only read.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, old.raw(), old_name.as_ptr(), new.raw(), new_name.as_ptr(), flags)
    };
    check_long(result).map(drop)
}

/// chmod(2) on a path of ours (`/proc/self/fd/N`).
pub(crate) fn chmod(path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `path` is NUL-terminated and only read.
    check(unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
}

/// fchmodat2(2) with `AT_SYMLINK_NOFOLLOW` and an empty path, Linux 6.6.
pub(crate) fn chmod_link(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    /// `fchmodat2`, not in every libc release.
    const SYS_FCHMODAT2: libc::c_long = 452;
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the empty path is a static C string and only read.
    check_long(unsafe { libc::syscall(SYS_FCHMODAT2, fd.as_raw_fd(), c"".as_ptr(), mode, flags) }).map(drop)
}

/// fchownat(2) with `AT_EMPTY_PATH`.
pub(crate) fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: the empty path is a static C string and only read.
    check(unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }).map(drop)
}

/// utimensat(2) on the object behind a descriptor; `times` as the call takes them, `None` for now.
pub(crate) fn utimens(fd: BorrowedFd<'_>, times: Option<&[libc::timespec; 2]>) -> Result<(), Errno> {
    let times = times.map_or(std::ptr::null(), |t| t.as_ptr());
    // SAFETY: the empty path is a static C string; `times` is null or two live timespecs; both are only read.
    check(unsafe { libc::utimensat(fd.as_raw_fd(), c"".as_ptr(), times, libc::AT_EMPTY_PATH) }).map(drop)
}

/// setxattr(2) or lsetxattr(2) on a path of ours.
pub(crate) fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Result<(), Errno> {
    // SAFETY: both texts are NUL-terminated; `value` is live for the length passed; all are only read.
    let r =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    check(r).map(drop)
}

/// removexattr(2) on a path of ours.
pub(crate) fn removexattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    // SAFETY: both texts are NUL-terminated and only read.
    check(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// truncate(2) on a path of ours.
pub(crate) fn truncate(path: &CStr, length: i64) -> Result<(), Errno> {
    // SAFETY: `path` is NUL-terminated and only read.
    check(unsafe { libc::truncate(path.as_ptr(), length) }).map(drop)
}

/// ftruncate(2).
pub(crate) fn ftruncate(fd: BorrowedFd<'_>, length: i64) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), length) }).map(drop)
}

/// fallocate(2).
pub(crate) fn fallocate(fd: BorrowedFd<'_>, mode: i32, offset: i64, length: i64) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset, length) }).map(drop)
}

/// `ioctl` with a pointer to a copy of the caller's bytes; for the inode flag requests.
pub(crate) fn ioctl_bytes(fd: BorrowedFd<'_>, request: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the inode flag requests read at most `_IOC_SIZE(request)` bytes, and the caller passes a buffer of that size.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, bytes.as_mut_ptr()) }).map(drop)
}

/// `F_GETFL`.
pub(crate) fn status_flags(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
}

/// Of `asm-generic/fcntl.h`.
pub(crate) const F_SETOWN_EX: i32 = 15;

/// `F_SETOWN_EX`: whom the kernel signals for a descriptor. The words are those of a `struct f_owner_ex`: a kind and a pid.
pub(crate) fn set_owner(fd: BorrowedFd<'_>, owner: [i32; 2]) -> Result<(), Errno> {
    // SAFETY: the kernel reads two integers, which live as long as the call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) }).map(drop)
}

/// `F_SETFL`.
pub(crate) fn set_status_flags(fd: BorrowedFd<'_>, flags: i32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// pread(2).
pub(crate) fn pread(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: `buffer` is writable for the length passed.
    check_size(unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset) })
}

/// faccessat(2) with `F_OK`.
pub(crate) fn exists(at: At<'_>, path: &CStr) -> bool {
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { libc::faccessat(at.raw(), path.as_ptr(), libc::F_OK, 0) == 0 }
}

/// umask(2) of the calling thread (its `fs_struct` is its own after [`super::process::unshare_fs`]).
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: plain integer; the call cannot fail.
    unsafe { libc::umask(mask) };
}

/// fchdir(2) of the calling thread.
pub(crate) fn fchdir(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: plain integer.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }).map(drop)
}

/// Returns the number of the terminal whose master this is (`TIOCGPTN`).
pub(crate) fn terminal_number(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the request writes one unsigned int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok(number)
}
