//! Calls that make, remove and move names: each acts on a name in a directory that is already open.

use std::ffi::CString;
use std::os::fd::AsFd;

use gait_agent::action::Object;
use gait_agent::endpoint::Operation;

use super::super::numbers::names as nr;
use super::super::resolve::{Last, PATH_MAX, Place};
use super::super::supervisor::{Answer, Stop, Worker};
use super::Call;
use crate::sys::fs::{self, At, FdPath};
use crate::sys::{Errno, memory};

/// `RENAME_NOREPLACE`, `RENAME_EXCHANGE`, `RENAME_WHITEOUT` of renameat2(2).
const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;
const WHITEOUT: u32 = 4;
/// Rounds in which the target of a rename may change under it before it fails.
const ROUNDS: u32 = 16;

fn place(worker: &mut Worker, call: Call<'_>, dirfd: i32, index: usize) -> Result<Place, Stop> {
    let mut path = std::mem::take(&mut worker.path);
    let mut joined = std::mem::take(&mut worker.joined);
    let result =
        call.path(index, &mut path).and_then(|()| call.resolver(worker).place(dirfd, &path, &mut joined));
    worker.path = path;
    worker.joined = joined;
    result
}

pub(super) fn remove(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (dirfd, index, flags) = match i64::from(call.notification.nr) {
        nr::unlinkat => (call.int(0), 1, call.int(2)),
        nr::rmdir => (libc::AT_FDCWD, 0, libc::AT_REMOVEDIR),
        _ => (libc::AT_FDCWD, 0, 0),
    };
    if flags & !libc::AT_REMOVEDIR != 0 {
        return Err(Errno(libc::EINVAL).into());
    }
    let place = place(worker, call, dirfd, index)?;
    let operation = if flags == 0 { Operation::Unlink } else { Operation::Rmdir };
    judge_existing(worker, call, operation, &place)?;
    worker.still_held(call.notification)?;
    fs::unlinkat(place.at(), &place.name, flags)?;
    Ok(Answer::Value(0))
}

/// Judges an action on a name; where nothing is there and the policy would allow it, the kernel's errno is the answer and
/// there is nothing to record.
fn judge_existing(
    worker: &mut Worker,
    call: Call<'_>,
    operation: Operation,
    place: &Place,
) -> Result<(), Stop> {
    match fs::fstatat(place.at(), &place.name, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => worker.judge_path(call.task, operation, &place.path),
        Err(errno) => {
            worker.judge_absent(call.task, operation, &place.path)?;
            Err(errno.into())
        }
    }
}

/// Judges the making of a name; where something is there already and the policy would allow it, that is the answer.
fn judge_absent(
    worker: &mut Worker,
    call: Call<'_>,
    operation: Operation,
    place: &Place,
) -> Result<(), Stop> {
    if fs::fstatat(place.at(), &place.name, libc::AT_SYMLINK_NOFOLLOW).is_ok()
        && worker.would_allow(call.task, operation, Object::Path(&place.path))
    {
        return Err(Errno(libc::EEXIST).into());
    }
    worker.judge_path(call.task, operation, &place.path)
}

pub(super) fn mkdir(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (dirfd, index) =
        if i64::from(call.notification.nr) == nr::mkdir { (libc::AT_FDCWD, 0) } else { (call.int(0), 1) };
    let place = place(worker, call, dirfd, index)?;
    judge_absent(worker, call, Operation::Mkdir, &place)?;
    worker.take_umask(call.task)?;
    worker.still_held(call.notification)?;
    fs::mkdirat(place.at(), &place.name, call.uint(index + 1))?;
    Ok(Answer::Value(0))
}

pub(super) fn mknod(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (dirfd, index) =
        if i64::from(call.notification.nr) == nr::mknod { (libc::AT_FDCWD, 0) } else { (call.int(0), 1) };
    let mode = call.uint(index + 1);
    let place = place(worker, call, dirfd, index)?;
    let device = matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
    if device {
        // A device node is a door around every path: never, whatever the policy says.
        worker.refuse_path(call.task, Operation::Mknod, &place.path)?;
    }
    let operation =
        if matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) { Operation::Create } else { Operation::Mknod };
    if !device {
        judge_absent(worker, call, operation, &place)?;
    }
    worker.take_umask(call.task)?;
    worker.still_held(call.notification)?;
    fs::mknodat(place.at(), &place.name, mode, call.long(index + 2))?;
    Ok(Answer::Value(0))
}

pub(super) fn symlink(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (dirfd, index) =
        if i64::from(call.notification.nr) == nr::symlink { (libc::AT_FDCWD, 1) } else { (call.int(1), 2) };
    let mut text = Vec::new();
    memory::read_c_str(call.task.tid, call.long(0), PATH_MAX, &mut text)?;
    let text = CString::from_vec_with_nul(text).map_err(|_error| Errno(libc::EINVAL))?;
    let place = place(worker, call, dirfd, index)?;
    judge_absent(worker, call, Operation::Symlink, &place)?;
    worker.still_held(call.notification)?;
    fs::symlinkat(&text, place.at(), &place.name)?;
    Ok(Answer::Value(0))
}

pub(super) fn link(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let at = i64::from(call.notification.nr) == nr::linkat;
    let (old_dir, old_index, new_dir, new_index, flags) = if at {
        (call.int(0), 1, call.int(2), 3, call.int(4))
    } else {
        (libc::AT_FDCWD, 0, libc::AT_FDCWD, 1, 0)
    };
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_FOLLOW) != 0 {
        return Err(Errno(libc::EINVAL).into());
    }
    let mut path = Vec::new();
    call.path(old_index, &mut path)?;
    let last = if flags & libc::AT_SYMLINK_FOLLOW != 0 { Last::Follow } else { Last::Keep };
    let new = place(worker, call, new_dir, new_index)?;
    let resolver = call.resolver(worker);
    let (old, old_path) = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        let fd = call.task.descriptor(old_dir)?;
        let mut name = Vec::new();
        fs::path_of(fd.as_fd(), &mut name)?;
        let unnamed = fs::fstat(fd.as_fd())?.nlink == 0;
        // A file made by O_TMPFILE has no old name to read: only the new one is judged.
        (fd, if unnamed { None } else { Some(resolver.recorded(&name)?) })
    } else {
        let found = resolver.object(old_dir, &path, last)?;
        let unnamed = found.anonymous && found.stat.nlink == 0;
        (found.fd, (!unnamed).then_some(found.path))
    };
    let new_object = (Operation::LinkNew, Object::Path(&new.path));
    match &old_path {
        // The new name will lead to the old file's bytes, and writing through it is writing the old file.
        Some(old) => worker.judge(
            call.task,
            &[(Operation::LinkOld, Object::Path(old)), (Operation::LinkNew, Object::Path(old)), new_object],
        )?,
        None => worker.judge(call.task, &[new_object])?,
    }
    worker.still_held(call.notification)?;
    fs::linkat(At::Cwd, FdPath::new(old.as_fd()).as_c_str(), new.at(), &new.name, libc::AT_SYMLINK_FOLLOW)?;
    Ok(Answer::Value(0))
}

pub(super) fn rename(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let (old_dir, old_index, new_dir, new_index, flags) = match i64::from(call.notification.nr) {
        nr::rename => (libc::AT_FDCWD, 0, libc::AT_FDCWD, 1, 0),
        nr::renameat => (call.int(0), 1, call.int(2), 3, 0),
        _ => (call.int(0), 1, call.int(2), 3, call.uint(4)),
    };
    if flags & WHITEOUT != 0 {
        // A whiteout is a device node.
        return Err(Errno(libc::EPERM).into());
    }
    let old = place(worker, call, old_dir, old_index)?;
    let new = place(worker, call, new_dir, new_index)?;
    for _ in 0..ROUNDS {
        let replaces = fs::fstatat(new.at(), &new.name, libc::AT_SYMLINK_NOFOLLOW).is_ok();
        judge_rename(worker, call, &old, &new, flags, replaces)?;
        worker.still_held(call.notification)?;
        // Where nothing was in the way when it was judged, nothing may be replaced.
        let exact = if replaces || flags != 0 { flags } else { NOREPLACE };
        match fs::renameat2(old.at(), &old.name, new.at(), &new.name, exact) {
            Ok(()) => return Ok(Answer::Value(0)),
            Err(Errno(libc::EEXIST)) if exact != flags => {}
            Err(Errno(libc::EINVAL)) if exact != flags => {
                // A file system without RENAME_NOREPLACE.
                fs::renameat2(old.at(), &old.name, new.at(), &new.name, flags)?;
                return Ok(Answer::Value(0));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno(libc::EBUSY).into())
}

/// A new name must not make readable what may not be read under the old one.
fn keep_readability(worker: &mut Worker, call: Call<'_>, kind: u32, path: &[u8]) -> Result<(), Stop> {
    let operation = if kind == libc::S_IFDIR { Operation::List } else { Operation::Read };
    if kind == libc::S_IFLNK || worker.would_allow(call.task, operation, Object::Path(path)) {
        return Ok(());
    }
    worker.judge_path(call.task, operation, path)
}

fn judge_rename(
    worker: &mut Worker,
    call: Call<'_>,
    old: &Place,
    new: &Place,
    flags: u32,
    replaces: bool,
) -> Result<(), Stop> {
    let (old_path, new_path) = (Object::Path(&old.path), Object::Path(&new.path));
    let stat = match fs::fstatat(old.at(), &old.name, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(errno) => {
            worker.judge_absent(call.task, Operation::RenameOld, &old.path)?;
            return Err(errno.into());
        }
    };
    keep_readability(worker, call, stat.kind(), &old.path)?;
    if flags & EXCHANGE != 0 {
        let other = fs::fstatat(new.at(), &new.name, libc::AT_SYMLINK_NOFOLLOW)?;
        keep_readability(worker, call, other.kind(), &new.path)?;
    }
    if flags & EXCHANGE != 0 {
        return worker.judge(
            call.task,
            &[
                (Operation::RenameOver, old_path),
                (Operation::RenameNew, old_path),
                (Operation::RenameOver, new_path),
                (Operation::RenameNew, new_path),
            ],
        );
    }
    let actions = [
        (Operation::RenameOld, old_path),
        (Operation::RenameNew, new_path),
        (Operation::RenameOver, new_path),
    ];
    worker.judge(call.task, if replaces { &actions } else { &actions[..2] })
}
