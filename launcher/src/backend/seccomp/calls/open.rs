//! open(2) and its kin: the file is opened by the supervisor and put into the caller's table.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use gait_agent::action::Object;
use gait_agent::endpoint::Operation;
use gait_agent::policy::ReadEvidence;

use super::super::numbers::names as nr;
use super::super::resolve::{Found, Last, Place};
use super::super::supervisor::{Answer, Stop, Worker};
use super::super::task::Task;
use super::Call;
use crate::sys::fs::{self, At, NO_SYMLINKS, OpenHow};
use crate::sys::{Errno, memory};

/// Flags that make an open a write.
const WRITING: i32 = libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC | libc::O_APPEND;
/// `O_TMPFILE` without the `O_DIRECTORY` that its value includes.
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
/// Rounds in which a name may change under an open with `O_CREAT` before it fails.
const ROUNDS: u32 = 16;

/// The arguments of one open, by value.
#[derive(Debug, Clone, Copy)]
struct Open {
    dirfd: i32,
    flags: i32,
    mode: u32,
    resolve: u64,
}

impl Open {
    fn cloexec(self) -> bool {
        self.flags & libc::O_CLOEXEC != 0
    }

    fn writes(self) -> bool {
        self.flags & WRITING != 0
    }

    /// The flags for opening on the caller's behalf: never blocking, never taking a terminal, closed on our exec.
    fn ours(self) -> i32 {
        self.flags | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY
    }

    fn last(self) -> Last {
        if self.flags & libc::O_NOFOLLOW != 0 { Last::Keep } else { Last::Follow }
    }
}

pub(super) fn open(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let number = i64::from(call.notification.nr);
    let (path_index, open) = match number {
        nr::open => (0, Open { dirfd: libc::AT_FDCWD, flags: call.int(1), mode: call.uint(2), resolve: 0 }),
        nr::creat => {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            (0, Open { dirfd: libc::AT_FDCWD, flags, mode: call.uint(1), resolve: 0 })
        }
        nr::openat2 => (1, openat2_arguments(call)?),
        _ => (1, Open { dirfd: call.int(0), flags: call.int(2), mode: call.uint(3), resolve: 0 }),
    };
    let mut path = std::mem::take(&mut worker.path);
    let result = call.path(path_index, &mut path).and_then(|()| open_path(worker, call, open, &path));
    worker.path = path;
    result
}

/// Reads `struct open_how` once.
fn openat2_arguments(call: Call<'_>) -> Result<Open, Stop> {
    let size = call.long(3);
    if !(24..=4096).contains(&size) {
        return Err(Errno(if size < 24 { libc::EINVAL } else { libc::E2BIG }).into());
    }
    let mut bytes = vec![0u8; usize::try_from(size).unwrap_or(24)];
    memory::read(call.task.tid, call.long(2), &mut bytes)?;
    if bytes[24..].iter().any(|&b| b != 0) {
        return Err(Errno(libc::E2BIG).into());
    }
    let word = |i: usize| bytes[i..i + 8].try_into().map_or(0, u64::from_ne_bytes);
    let (flags, mode, resolve) = (word(0), word(8), word(16));
    let flags = i32::try_from(flags).map_err(|_error| Errno(libc::EINVAL))?;
    // An `O_PATH` descriptor cannot be injected, and the flags are behind a pointer: the caller falls back to openat.
    if flags & libc::O_PATH != 0 {
        return Err(Errno(libc::ENOSYS).into());
    }
    Ok(Open {
        dirfd: call.int(0),
        flags,
        mode: u32::try_from(mode).map_err(|_error| Errno(libc::EINVAL))?,
        resolve,
    })
}

fn open_path(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Answer, Stop> {
    if path.is_empty() {
        return Err(Errno(libc::ENOENT).into());
    }
    if open.flags & TMPFILE != 0 {
        return open_temporary(worker, call, open, path);
    }
    if open.resolve != 0 {
        return open_restricted(worker, call, open, path);
    }
    if open.flags & libc::O_CREAT != 0 {
        return open_or_create(worker, call, open, path);
    }
    if !open.writes() {
        if worker.shared.judge.policy.exec().reads == ReadEvidence::Named {
            return read_by_name(worker, call, open, path);
        }
        if let Some(answer) = open_fast(worker, call, open, path)? {
            return Ok(answer);
        }
    }
    match call.resolver(worker).object(open.dirfd, path, open.last()) {
        Ok(found) => open_found(worker, call, open, found),
        Err(Stop::Errno(errno)) => Err(missing(worker, call, open, path, errno)),
        Err(stop) => Err(stop),
    }
}

/// Judges an attempt on something that is not there: the caller learns no more than the policy lets it.
fn missing(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8], errno: Errno) -> Stop {
    let lexical = call.resolver(worker).lexical(open.dirfd, path);
    let operation = if open.writes() { Operation::Write } else { Operation::Read };
    match worker.judge_absent(call.task, operation, &lexical) {
        Ok(()) => errno.into(),
        Err(stop) => stop,
    }
}

/// `evidence.reads: named`: judged by what the name leads to now, and continued. The access itself is held to the policy by
/// the floor, which can express all of it at this level; the recorded name could be another one by then.
fn read_by_name(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Answer, Stop> {
    match call.resolver(worker).object(open.dirfd, path, open.last()) {
        Ok(found) if found.stat.kind() == libc::S_IFLNK => Err(Errno(libc::ELOOP).into()),
        Ok(found) => judge_open(worker, call.task, open, &found).map(|()| Answer::Continue),
        Err(Stop::Errno(errno)) => Err(missing(worker, call, open, path, errno)),
        Err(stop) => Err(stop),
    }
}

/// The common case: a clean path without symlinks to a regular file or a directory, for reading.
fn open_fast(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Option<Answer>, Stop> {
    let mut joined = std::mem::take(&mut worker.joined);
    let result = open_fast_joined(worker, call, open, path, &mut joined);
    worker.joined = joined;
    result
}

fn open_fast_joined(
    worker: &mut Worker,
    call: Call<'_>,
    open: Open,
    path: &[u8],
    joined: &mut Vec<u8>,
) -> Result<Option<Answer>, Stop> {
    if !call.resolver(worker).absolute(open.dirfd, path, joined) {
        return Ok(None);
    }
    joined.push(0);
    let Ok(name) = CStr::from_bytes_with_nul(joined) else { return Ok(None) };
    // Looks before it opens, so that no device and no FIFO feels an open that may yet be blocked.
    match fs::fstatat(At::Cwd, name, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if matches!(stat.kind(), libc::S_IFREG | libc::S_IFDIR) => {}
        _ => return Ok(None),
    }
    let how = OpenHow { flags: u64::from(open.ours().cast_unsigned()), mode: 0, resolve: NO_SYMLINKS };
    let Ok(fd) = fs::openat2(At::Cwd, name, &how) else { return Ok(None) };
    let operation = match fs::fstat(fd.as_fd())?.kind() {
        libc::S_IFREG => Operation::Read,
        libc::S_IFDIR => Operation::List,
        _ => return Ok(None),
    };
    joined.pop();
    // No symlink was on the way, so this is the kernel's own name of what is open.
    worker.judge_path(call.task, operation, joined)?;
    finish(open, fd).map(Some)
}

/// Opens an object that was found with `O_PATH`.
fn open_found(worker: &mut Worker, call: Call<'_>, open: Open, found: Found) -> Result<Answer, Stop> {
    let kind = found.stat.kind();
    if kind == libc::S_IFLNK {
        return Err(Errno(libc::ELOOP).into());
    }
    if open.flags & libc::O_DIRECTORY != 0 && kind != libc::S_IFDIR {
        return Err(Errno(libc::ENOTDIR).into());
    }
    judge_open(worker, call.task, open, &found)?;
    match kind {
        libc::S_IFSOCK => Err(Errno(libc::ENXIO).into()),
        libc::S_IFIFO => open_fifo(worker, call, open, &found),
        libc::S_IFCHR if found.path == b"/dev/tty" => open_terminal(call, open),
        _ => {
            worker.still_held(call.notification)?;
            let flags = open.ours() & !(libc::O_NOFOLLOW | libc::O_CREAT | libc::O_EXCL);
            let fd = fs::reopen(found.fd.as_fd(), flags)?;
            if kind == libc::S_IFCHR && found.path.ends_with(b"/ptmx") {
                // The other side of this terminal is the tree's.
                worker.shared.add_terminal(fs::terminal_number(fd.as_fd())?);
            }
            finish(open, fd)
        }
    }
}

/// An object without a path of its own: a pipe, a socket, a memfd, a removed file. The tree has it open already.
fn is_pathless(found: &Found) -> bool {
    found.anonymous
        && (!found.path.starts_with(b"/") || found.path.starts_with(b"/memfd:") || found.stat.nlink == 0)
}

/// What is refused whatever the policy says: writing to what belongs to other processes, and other people's terminals.
fn refuse_foreign(worker: &mut Worker, task: &Task, operation: Operation, found: &Found) -> Result<(), Stop> {
    let writes_to_others = operation == Operation::Write && found.path.starts_with(b"/proc/[pid]/");
    let number = terminal_number(found.stat.rdev);
    let foreign = |number| !worker.shared.is_own_terminal(number) && !is_terminal_of(task, found.stat.rdev);
    let foreign_terminal = found.path == b"/dev/pts/[n]" && number.is_some_and(foreign);
    if writes_to_others || foreign_terminal {
        worker.refuse_path(task, operation, &found.path)?;
    }
    Ok(())
}

/// Returns the number of a Unix98 terminal; their majors are 136 to 143.
fn terminal_number(device: u64) -> Option<u32> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    (136..=143).contains(&major).then(|| (major - 136) * 256 + minor)
}

/// Returns whether the device is the task's own terminal, or that of the session.
fn is_terminal_of(task: &Task, device: u64) -> bool {
    let number = |device: u32| (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    let same = |tty: Result<u32, Errno>| {
        tty.is_ok_and(|tty| number(tty) == (libc::major(device), libc::minor(device)))
    };
    same(terminal_of(&task.proc))
        || super::super::resolve::own_proc().is_ok_and(|own| same(terminal_of(&own)))
}

fn judge_open(worker: &mut Worker, task: &Task, open: Open, found: &Found) -> Result<(), Stop> {
    if is_pathless(found) {
        return Ok(());
    }
    let object = Object::Path(&found.path);
    let reads = open.flags & libc::O_ACCMODE != libc::O_WRONLY;
    let operation = match found.stat.kind() {
        _ if open.flags & libc::O_ACCMODE != libc::O_RDONLY => Operation::Write,
        libc::S_IFDIR => Operation::List,
        _ => Operation::Read,
    };
    refuse_foreign(worker, task, operation, found)?;
    let truncates = open.flags & libc::O_TRUNC != 0 && found.stat.kind() == libc::S_IFREG;
    // Opening for both is both: what may not be read may not be read through a writable descriptor.
    let both = reads && operation == Operation::Write;
    let all = [(operation, object), (Operation::Read, object), (Operation::Truncate, object)];
    match (both, truncates) {
        (false, false) => worker.judge(task, &all[..1]),
        (true, false) => worker.judge(task, &all[..2]),
        (false, true) => worker.judge(task, &[all[0], all[2]]),
        (true, true) => worker.judge(task, &all),
    }
}

/// Gives the descriptor to the caller, with the flags that the caller asked for.
fn finish(open: Open, fd: OwnedFd) -> Result<Answer, Stop> {
    if open.flags & libc::O_NONBLOCK == 0 {
        // Of these flags the kernel takes those that can be set, which are the ones that the caller passed.
        fs::set_status_flags(fd.as_fd(), open.flags)?;
    }
    Ok(Answer::Fd { fd, cloexec: open.cloexec() })
}

/// A FIFO opens when its other side does; that wait happens on a thread that may.
fn open_fifo(worker: &mut Worker, call: Call<'_>, open: Open, found: &Found) -> Result<Answer, Stop> {
    let flags =
        (open.flags | libc::O_CLOEXEC | libc::O_NOCTTY) & !(libc::O_NOFOLLOW | libc::O_CREAT | libc::O_EXCL);
    worker.still_held(call.notification)?;
    let blocks = open.flags & libc::O_NONBLOCK == 0 && open.flags & libc::O_ACCMODE != libc::O_RDWR;
    if blocks && !worker.may_block {
        return Err(Stop::Slow);
    }
    let fd = fs::reopen(found.fd.as_fd(), flags)?;
    Ok(Answer::Fd { fd, cloexec: open.cloexec() })
}

/// `/dev/tty` is the caller's terminal, not ours.
fn open_terminal(call: Call<'_>, open: Open) -> Result<Answer, Stop> {
    let device = terminal_of(&call.task.proc)?;
    let number = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    let path = match number {
        (0, 0) => return Err(Errno(libc::ENXIO).into()),
        // Unix98 terminals have the majors 136 to 143.
        (major @ 136..=143, minor) => format!("/dev/pts/{}", (major - 136) * 256 + minor),
        (4, minor @ 0..=63) => format!("/dev/tty{minor}"),
        (4, minor) => format!("/dev/ttyS{}", minor - 64),
        _ => return Err(Errno(libc::ENXIO).into()),
    };
    let path = CString::new(path).map_err(|_error| Errno(libc::ENXIO))?;
    let flags = open.ours() & !(libc::O_NOFOLLOW | libc::O_CREAT | libc::O_EXCL);
    finish(open, fs::openat(At::Cwd, &path, flags, 0)?)
}

/// Field `tty_nr` of `/proc/TID/stat`.
fn terminal_of(proc: &OwnedFd) -> Result<u32, Errno> {
    let file = fs::openat(At::Fd(proc.as_fd()), c"stat", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    let mut text = [0u8; 1024];
    let n = fs::pread(file.as_fd(), &mut text, 0)?;
    let text = &text[..n];
    let after = text.iter().rposition(|&b| b == b')').and_then(|i| text.get(i + 2..)).unwrap_or(b"");
    let field =
        std::str::from_utf8(after).ok().and_then(|t| t.split(' ').nth(4)).and_then(|t| t.parse::<i32>().ok());
    field.map(i32::cast_unsigned).ok_or(Errno(libc::ENXIO))
}

/// `O_TMPFILE`: a file without a name in a judged directory; giving it a name is judged as a link.
fn open_temporary(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Answer, Stop> {
    let found = call.resolver(worker).object(open.dirfd, path, Last::Follow)?;
    if found.stat.kind() != libc::S_IFDIR {
        return Err(Errno(libc::ENOTDIR).into());
    }
    worker.judge_path(call.task, Operation::Create, &found.path)?;
    worker.take_umask(call.task)?;
    worker.still_held(call.notification)?;
    let fd = fs::openat(At::Fd(found.fd.as_fd()), c".", open.flags | libc::O_CLOEXEC, open.mode)?;
    Ok(Answer::Fd { fd, cloexec: open.cloexec() })
}

/// `O_CREAT`: either what is there is opened, or exactly one new file is made.
fn open_or_create(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Answer, Stop> {
    let mut joined = std::mem::take(&mut worker.joined);
    let place = call.resolver(worker).place(open.dirfd, path, &mut joined);
    worker.joined = joined;
    if path.ends_with(b"/") {
        // Nothing is made by such a name; the kernel knows which error it is.
        let place = place?;
        let refused = fs::openat(place.at(), &place.name, open.ours() | libc::O_CREAT, 0).err();
        return Err(refused.unwrap_or(Errno(libc::EISDIR)).into());
    }
    let place = match place {
        Ok(place) => place,
        Err(Stop::Errno(errno)) => return Err(missing(worker, call, open, path, errno)),
        Err(stop) => return Err(stop),
    };
    if matches!(place.name.as_bytes(), b"." | b".." | b"/") {
        return Err(Errno(libc::EISDIR).into());
    }
    for _ in 0..ROUNDS {
        match existing(&place)? {
            None => match create(worker, call, open, &place) {
                // Somebody was faster: look again at what is there now.
                Err(Stop::Errno(Errno(libc::EEXIST))) if open.flags & libc::O_EXCL == 0 => {}
                other => return other,
            },
            Some(_) if open.flags & libc::O_EXCL != 0 => return exists_already(worker, call, &place),
            Some(fd) => {
                let stat = fs::fstat(fd.as_fd())?;
                if stat.kind() == libc::S_IFLNK && open.flags & libc::O_NOFOLLOW == 0 {
                    return through_link(worker, call, open, path);
                }
                if stat.kind() == libc::S_IFDIR {
                    return Err(Errno(libc::EISDIR).into());
                }
                let found = Found { fd, stat, path: place.path, anonymous: false };
                return open_found(worker, call, open, found);
            }
        }
    }
    Err(Errno(libc::EAGAIN).into())
}

/// Opens what stands at a place, if anything does.
fn existing(place: &Place) -> Result<Option<OwnedFd>, Stop> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    match fs::openat(place.at(), &place.name, flags, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn exists_already(worker: &mut Worker, call: Call<'_>, place: &Place) -> Result<Answer, Stop> {
    worker.judge_absent(call.task, Operation::Create, &place.path)?;
    Err(Errno(libc::EEXIST).into())
}

fn create(worker: &mut Worker, call: Call<'_>, open: Open, place: &Place) -> Result<Answer, Stop> {
    worker.judge_path(call.task, Operation::Create, &place.path)?;
    worker.take_umask(call.task)?;
    worker.still_held(call.notification)?;
    // O_EXCL: a link that appears now is not followed, a file that appears now is not opened unjudged.
    let flags = open.flags | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let fd = fs::openat(place.at(), &place.name, flags, open.mode)?;
    Ok(Answer::Fd { fd, cloexec: open.cloexec() })
}

/// The last component is a symlink: what it leads to is opened, or made where it dangles.
fn through_link(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Answer, Stop> {
    match call.resolver(worker).object(open.dirfd, path, Last::Follow) {
        Ok(found) if found.stat.kind() == libc::S_IFDIR => return Err(Errno(libc::EISDIR).into()),
        Ok(found) => return open_found(worker, call, open, found),
        Err(Stop::Errno(Errno(libc::ENOENT))) => {}
        Err(stop) => return Err(stop),
    }
    // Dangling: follow one link at a time, each to a place of its own.
    let mut joined = Vec::new();
    let mut path = path.to_vec();
    let mut dirfd = open.dirfd;
    let mut held: Option<OwnedFd> = None;
    for _ in 0..40 {
        let place = match &held {
            None => call.resolver(worker).place(dirfd, &path, &mut joined)?,
            Some(directory) => place_below(worker, call, directory, &path)?,
        };
        match existing(&place)? {
            None => return create(worker, call, open, &place),
            Some(fd) if fs::fstat(fd.as_fd())?.kind() == libc::S_IFLNK => {
                let mut text = Vec::new();
                fs::readlinkat(At::Fd(fd.as_fd()), c"", &mut text)?;
                path = text;
                dirfd = libc::AT_FDCWD;
                held = if path.first() == Some(&b'/') { None } else { Some(place.parent) };
            }
            Some(fd) => {
                let stat = fs::fstat(fd.as_fd())?;
                return open_found(
                    worker,
                    call,
                    open,
                    Found { fd, stat, path: place.path, anonymous: false },
                );
            }
        }
    }
    Err(Errno(libc::ELOOP).into())
}

/// As `place`, relative to a directory of ours (that of a symlink).
fn place_below(worker: &Worker, call: Call<'_>, directory: &OwnedFd, path: &[u8]) -> Result<Place, Stop> {
    let mut full = Vec::new();
    fs::path_of(directory.as_fd(), &mut full)?;
    full.push(b'/');
    full.extend_from_slice(path);
    call.resolver(worker).place(libc::AT_FDCWD, &full, &mut Vec::new())
}

/// openat2(2) with `RESOLVE_*`: the kernel applies the caller's restrictions from the caller's own starting point.
fn open_restricted(worker: &mut Worker, call: Call<'_>, open: Open, path: &[u8]) -> Result<Answer, Stop> {
    let resolver = call.resolver(worker);
    let base = if path.first() == Some(&b'/') && open.resolve & 0x10 == 0 {
        None
    } else {
        Some(resolver.base(open.dirfd)?)
    };
    let at = base.as_ref().map_or(At::Cwd, |fd| At::Fd(fd.as_fd()));
    let name = CString::new(path).map_err(|_error| Errno(libc::EINVAL))?;
    let keep = open.flags & libc::O_NOFOLLOW;
    let how = OpenHow {
        flags: u64::from((libc::O_PATH | libc::O_CLOEXEC | keep).cast_unsigned()),
        mode: 0,
        resolve: open.resolve | fs::NO_MAGICLINKS,
    };
    let found = fs::openat2(at, &name, &how);
    match found {
        Ok(fd) => {
            let mut text = Vec::new();
            fs::path_of(fd.as_fd(), &mut text)?;
            if resolver.is_own_proc(&text) {
                // The kernel took `/proc/self` for us.
                let found = resolver.object(open.dirfd, path, open.last())?;
                return open_found(worker, call, open, found);
            }
            let path = resolver.recorded(&text)?;
            let stat = fs::fstat(fd.as_fd())?;
            if open.flags & libc::O_EXCL != 0 && open.flags & libc::O_CREAT != 0 {
                return Err(Errno(libc::EEXIST).into());
            }
            open_found(worker, call, open, Found { fd, stat, path, anonymous: false })
        }
        Err(Errno(libc::ENOENT)) if open.flags & libc::O_CREAT != 0 => {
            create_restricted(worker, call, open, path, at)
        }
        Err(errno) => Err(missing(worker, call, open, path, errno)),
    }
}

fn create_restricted(
    worker: &mut Worker,
    call: Call<'_>,
    open: Open,
    path: &[u8],
    at: At<'_>,
) -> Result<Answer, Stop> {
    let (directory, name) = match path.iter().rposition(|&b| b == b'/') {
        Some(i) => (&path[..=i], &path[i + 1..]),
        None => (&b"."[..], path),
    };
    let directory = CString::new(directory).map_err(|_error| Errno(libc::EINVAL))?;
    let flags = u64::from((libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC).cast_unsigned());
    let how = OpenHow { flags, mode: 0, resolve: open.resolve | fs::NO_MAGICLINKS };
    let parent = fs::openat2(at, &directory, &how)?;
    let mut full = Vec::new();
    fs::path_of(parent.as_fd(), &mut full)?;
    full.push(b'/');
    full.extend_from_slice(name);
    let path = call.resolver(worker).recorded(&full)?;
    let name = CString::new(name).map_err(|_error| Errno(libc::EINVAL))?;
    create(worker, call, open, &Place { parent, name, path })
}
