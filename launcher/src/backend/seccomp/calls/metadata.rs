//! Calls that change what is known of a file, or empty it: by path or by a descriptor, which may be read-only.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use gait_agent::endpoint::Operation;

use super::super::filter::{FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS, REFUSED_IOCTLS, SET_OWNER};
use super::super::numbers::names as nr;
use super::super::resolve::Last;
use super::super::supervisor::{Answer, Stop, Worker};
use super::Call;
use crate::sys::fs::{self, FdPath};
use crate::sys::{Errno, memory};

/// `XATTR_SIZE_MAX` and `XATTR_NAME_MAX`.
const VALUE_MAX: u64 = 65_536;
const NAME_MAX: usize = 256;

/// An object whose metadata a call changes.
struct Subject {
    fd: OwnedFd,
    /// `None` for what has no path: pipes, sockets, removed files. Those are the tree's own.
    path: Option<Vec<u8>>,
    is_symlink: bool,
}

impl Subject {
    fn judge(&self, worker: &mut Worker, call: Call<'_>, operation: Operation) -> Result<(), Stop> {
        if let Some(path) = &self.path {
            worker.judge_path(call.task, operation, path)?;
        }
        worker.still_held(call.notification)
    }

    fn proc_path(&self) -> FdPath {
        FdPath::new(self.fd.as_fd())
    }
}

fn by_path(
    worker: &mut Worker,
    call: Call<'_>,
    dirfd: i32,
    index: usize,
    last: Last,
) -> Result<Subject, Stop> {
    let mut path = std::mem::take(&mut worker.path);
    let result = call.path(index, &mut path).and_then(|()| call.resolver(worker).object(dirfd, &path, last));
    worker.path = path;
    let found = result?;
    let is_symlink = found.stat.kind() == libc::S_IFLNK;
    let pathless = found.anonymous && (found.stat.nlink == 0 || !found.path.starts_with(b"/"));
    Ok(Subject { fd: found.fd, path: (!pathless).then_some(found.path), is_symlink })
}

fn by_descriptor(worker: &Worker, call: Call<'_>, fd: i32) -> Result<Subject, Stop> {
    let fd = call.task.descriptor(fd)?;
    let stat = fs::fstat(fd.as_fd())?;
    let mut name = Vec::new();
    fs::path_of(fd.as_fd(), &mut name)?;
    let has_path = name.starts_with(b"/") && !name.starts_with(b"/memfd:") && stat.nlink > 0;
    let path = if has_path { Some(call.resolver(worker).recorded(&name)?) } else { None };
    Ok(Subject { fd, path, is_symlink: stat.kind() == libc::S_IFLNK })
}

/// The `…at` form: a path, or an empty one with `AT_EMPTY_PATH` for the descriptor itself.
fn by_path_at(worker: &mut Worker, call: Call<'_>, flags: i32) -> Result<Subject, Stop> {
    if flags & libc::AT_EMPTY_PATH != 0 && call.int(0) != libc::AT_FDCWD {
        let mut path = Vec::new();
        if call.long(1) == 0 || call.path(1, &mut path).map(|()| path.is_empty())? {
            return by_descriptor(worker, call, call.int(0));
        }
    }
    let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Last::Keep } else { Last::Follow };
    by_path(worker, call, call.int(0), 1, last)
}

const CWD: i32 = libc::AT_FDCWD;

pub(super) fn chmod(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (subject, mode) = match i64::from(call.notification.nr) {
        nr::chmod => (by_path(worker, call, CWD, 0, Last::Follow)?, call.uint(1)),
        nr::fchmod => (by_descriptor(worker, call, call.int(0))?, call.uint(1)),
        nr::fchmodat => (by_path_at(worker, call, 0)?, call.uint(2)),
        _ => (by_path_at(worker, call, call.int(3))?, call.uint(2)),
    };
    subject.judge(worker, call, Operation::Chmod)?;
    if subject.is_symlink {
        fs::chmod_link(subject.fd.as_fd(), mode)?;
    } else {
        fs::chmod(subject.proc_path().as_c_str(), mode)?;
    }
    Ok(Answer::Value(0))
}

pub(super) fn chown(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (subject, uid, gid) = match i64::from(call.notification.nr) {
        nr::chown => (by_path(worker, call, CWD, 0, Last::Follow)?, call.uint(1), call.uint(2)),
        nr::lchown => (by_path(worker, call, CWD, 0, Last::Keep)?, call.uint(1), call.uint(2)),
        nr::fchown => (by_descriptor(worker, call, call.int(0))?, call.uint(1), call.uint(2)),
        _ => (by_path_at(worker, call, call.int(4))?, call.uint(2), call.uint(3)),
    };
    subject.judge(worker, call, Operation::Chown)?;
    fs::chown(subject.fd.as_fd(), uid, gid)?;
    Ok(Answer::Value(0))
}

/// Reads two 64-bit words per time; `scale` turns the second one into nanoseconds.
fn times(call: Call<'_>, index: usize, scale: i64) -> Result<Option<[libc::timespec; 2]>, Stop> {
    if call.long(index) == 0 {
        return Ok(None);
    }
    let mut bytes = [0u8; 32];
    memory::read(call.task.tid, call.long(index), &mut bytes)?;
    let word = |i: usize| bytes[i * 8..i * 8 + 8].try_into().map_or(0, i64::from_ne_bytes);
    let time = |i: usize| {
        let part = word(2 * i + 1);
        let valid = scale == 1 || (0..1_000_000).contains(&part);
        valid
            .then(|| libc::timespec { tv_sec: word(2 * i), tv_nsec: part * scale })
            .ok_or(Errno(libc::EINVAL))
    };
    Ok(Some([time(0)?, time(1)?]))
}

pub(super) fn utime(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (subject, times) = match i64::from(call.notification.nr) {
        nr::utime => {
            // `struct utimbuf`: two seconds.
            let mut bytes = [0u8; 16];
            let times = if call.long(1) == 0 {
                None
            } else {
                memory::read(call.task.tid, call.long(1), &mut bytes)?;
                let word = |i: usize| bytes[i * 8..i * 8 + 8].try_into().map_or(0, i64::from_ne_bytes);
                Some([0, 1].map(|i| libc::timespec { tv_sec: word(i), tv_nsec: 0 }))
            };
            (by_path(worker, call, CWD, 0, Last::Follow)?, times)
        }
        nr::utimes => (by_path(worker, call, CWD, 0, Last::Follow)?, times(call, 1, 1000)?),
        nr::futimesat if call.long(1) == 0 => {
            (by_descriptor(worker, call, call.int(0))?, times(call, 2, 1000)?)
        }
        nr::futimesat => (by_path(worker, call, call.int(0), 1, Last::Follow)?, times(call, 2, 1000)?),
        // futimens(3) passes no path at all.
        _ if call.long(1) == 0 => (by_descriptor(worker, call, call.int(0))?, times(call, 2, 1)?),
        _ => (by_path_at(worker, call, call.int(3))?, times(call, 2, 1)?),
    };
    subject.judge(worker, call, Operation::Utime)?;
    fs::utimens(subject.fd.as_fd(), times.as_ref())?;
    Ok(Answer::Value(0))
}

pub(super) fn xattr(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let number = i64::from(call.notification.nr);
    let subject = match number {
        nr::setxattr | nr::removexattr => by_path(worker, call, CWD, 0, Last::Follow)?,
        nr::lsetxattr | nr::lremovexattr => by_path(worker, call, CWD, 0, Last::Keep)?,
        _ => by_descriptor(worker, call, call.int(0))?,
    };
    let mut name = Vec::new();
    match memory::read_c_str(call.task.tid, call.long(1), NAME_MAX, &mut name) {
        Err(Errno(libc::ENAMETOOLONG)) => return Err(Errno(libc::ERANGE).into()),
        other => other?,
    }
    let name = CString::from_vec_with_nul(name).map_err(|_error| Errno(libc::ERANGE))?;
    let removes = matches!(number, nr::removexattr | nr::lremovexattr | nr::fremovexattr);
    let mut value = Vec::new();
    if !removes {
        if call.long(3) > VALUE_MAX {
            return Err(Errno(libc::E2BIG).into());
        }
        value.resize(usize::try_from(call.long(3)).unwrap_or(0), 0);
        memory::read(call.task.tid, call.long(2), &mut value)?;
    }
    subject.judge(worker, call, Operation::Setxattr)?;
    if subject.is_symlink {
        // User attributes cannot stand on a symlink, and the others are for privileged tools.
        return Err(Errno(libc::EPERM).into());
    }
    let path = subject.proc_path();
    if removes {
        fs::removexattr(path.as_c_str(), &name)?;
    } else {
        fs::setxattr(path.as_c_str(), &name, &value, call.int(4))?;
    }
    Ok(Answer::Value(0))
}

pub(super) fn truncate(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    if call.long(1).cast_signed() < 0 {
        return Err(Errno(libc::EINVAL).into());
    }
    let subject = by_path(worker, call, CWD, 0, Last::Follow)?;
    subject.judge(worker, call, Operation::Truncate)?;
    fs::truncate(subject.proc_path().as_c_str(), call.long(1).cast_signed())?;
    Ok(Answer::Value(0))
}

/// ftruncate(2) and fallocate(2): only what takes bytes away is an action of its own.
pub(super) fn truncate_open(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let subject = by_descriptor(worker, call, call.int(0))?;
    if i64::from(call.notification.nr) == nr::ftruncate {
        let length = call.long(1).cast_signed();
        if length < fs::fstat(subject.fd.as_fd())?.size {
            subject.judge(worker, call, Operation::Truncate)?;
        }
        fs::ftruncate(subject.fd.as_fd(), length)?;
    } else {
        subject.judge(worker, call, Operation::Truncate)?;
        let (offset, length) = (call.long(2).cast_signed(), call.long(3).cast_signed());
        fs::fallocate(subject.fd.as_fd(), call.int(1), offset, length)?;
    }
    Ok(Answer::Value(0))
}

/// The `ioctl` requests that the filter holds.
pub(super) fn ioctl(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let request = call.uint(1);
    let size = match request {
        // `FS_IOC_SETFLAGS` says long and means int.
        FS_IOC_SETFLAGS => 4,
        FS_IOC_FSSETXATTR => 28,
        _ if SET_OWNER.contains(&request) => return super::process::set_owner_of_socket(worker, call),
        _ => {
            let name =
                REFUSED_IOCTLS.iter().find(|(known, _)| *known == request).map_or("ioctl", |(_, name)| *name);
            return super::refuse(worker, call, Operation::Ground, name);
        }
    };
    let mut bytes = [0u8; 32];
    memory::read(call.task.tid, call.long(2), &mut bytes[..size])?;
    let subject = by_descriptor(worker, call, call.int(0))?;
    subject.judge(worker, call, Operation::Chmod)?;
    fs::ioctl_bytes(subject.fd.as_fd(), u64::from(request), &mut bytes)?;
    Ok(Answer::Value(0))
}
