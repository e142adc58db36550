//! From a path that a held task passed to descriptors and the path that the kernel gives them.
//!
//! A decision is only ever taken on something already open, never on a name that is resolved a second time. Three ways,
//! from fast to exact:
//!
//! 1. A clean absolute path that openat2(2) resolves with `RESOLVE_NO_SYMLINKS` *is* the kernel's name of what was opened.
//! 2. Ordinary symlinks: the kernel resolves them (`RESOLVE_NO_MAGICLINKS`) and names the descriptor afterwards.
//! 3. `/proc/self` and magic links mean the *caller's* process, so the kernel must not resolve them for us: a walk of our
//!    own substitutes the caller and follows magic links only into the workload's own tree.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::supervisor::Stop;
use super::task::{self, Task};
use crate::sys::fs::{self, At, NO_MAGICLINKS, NO_SYMLINKS, OpenHow, Stat};
use crate::sys::{Errno, process};

/// `MAXSYMLINKS` of the kernel.
const MAX_LINKS: u32 = 40;
/// `PROC_SUPER_MAGIC`.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// `PATH_MAX`, the NUL included.
pub(super) const PATH_MAX: usize = 4096;
/// Entries of `/proc/PID` that any process may read of any other; the rest is for the tree itself.
const PUBLIC_PROC: &[&[u8]] = &[
    b"stat",
    b"status",
    b"statm",
    b"cmdline",
    b"comm",
    b"cgroup",
    b"loginuid",
    b"sessionid",
    b"task",
    b"limits",
    b"sched",
    b"schedstat",
    b"oom_score",
    b"oom_score_adj",
    b"wchan",
];

/// An object that is open with `O_PATH`.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    /// The path that is judged and recorded.
    pub(super) path: Vec<u8>,
    /// Reached through a descriptor of the tree (`/proc/self/fd/N`), possibly something without a path.
    pub(super) anonymous: bool,
}

/// A name in an open directory; the name need not exist.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    /// With its trailing slash, if the caller passed one.
    pub(super) name: CString,
    /// The path that is judged and recorded, without a trailing slash.
    pub(super) path: Vec<u8>,
}

impl Place {
    pub(super) fn at(&self) -> At<'_> {
        At::Fd(self.parent.as_fd())
    }
}

/// Whether the last component may be a symlink that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// Resolves the paths of one caller.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    pub(super) task: &'a Task,
    /// The root of the workload's tree in terms of pids.
    pub(super) tree: u32,
}

fn cstring(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_error| Errno(libc::EINVAL))
}

/// Returns whether no component of an absolute path is empty, `.` or `..`.
fn is_clean(path: &[u8]) -> bool {
    path.len() > 1
        && path[0] == b'/'
        && !path[1..].split(|&b| b == b'/').any(|part| matches!(part, b"" | b"." | b".."))
}

/// Takes `./` off the front, and trailing slashes off the end.
fn trim(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
        while let Some(rest) = path.strip_prefix(b"/") {
            path = rest;
        }
    }
    path
}

fn without_trailing_slashes(mut path: &[u8]) -> &[u8] {
    while path.len() > 1 && path.ends_with(b"/") {
        path = &path[..path.len() - 1];
    }
    path
}

/// Returns whether the kernel's name of a directory can stand in a longer path.
fn is_usable(directory: &[u8]) -> bool {
    directory.starts_with(b"/") && !directory.ends_with(b" (deleted)") && !directory.starts_with(b"/proc/")
}

impl Resolver<'_> {
    fn base_name(dirfd: i32) -> Result<CString, Errno> {
        if dirfd == libc::AT_FDCWD {
            Ok(c"cwd".to_owned())
        } else if dirfd < 0 {
            Err(Errno(libc::EBADF))
        } else {
            cstring(format!("fd/{dirfd}").as_bytes())
        }
    }

    /// Opens the directory that a relative path starts from.
    pub(super) fn base(&self, dirfd: i32) -> Result<OwnedFd, Errno> {
        let name = Self::base_name(dirfd)?;
        match fs::openat(At::Fd(self.task.proc.as_fd()), &name, libc::O_PATH | libc::O_CLOEXEC, 0) {
            Err(Errno(libc::ENOENT)) if dirfd != libc::AT_FDCWD => Err(Errno(libc::EBADF)),
            other => other,
        }
    }

    /// Writes the clean absolute form of a path, if there is one without asking the kernel about symlinks.
    pub(super) fn absolute(&self, dirfd: i32, path: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        if path.first() == Some(&b'/') {
            out.extend_from_slice(path);
        } else {
            let Ok(name) = Self::base_name(dirfd) else { return false };
            if fs::readlinkat(At::Fd(self.task.proc.as_fd()), &name, out).is_err() || !is_usable(out) {
                return false;
            }
            if out.len() > 1 {
                out.push(b'/');
            }
            out.extend_from_slice(trim(path));
        }
        is_clean(out) && out.len() < PATH_MAX && !out.starts_with(b"/proc/")
    }

    /// The lexical form of a path that could not be resolved, for judging the attempt.
    pub(super) fn lexical(&self, dirfd: i32, path: &[u8]) -> Vec<u8> {
        let mut base = Vec::new();
        if path.first() != Some(&b'/') {
            let known = Self::base_name(dirfd)
                .and_then(|name| fs::readlinkat(At::Fd(self.task.proc.as_fd()), &name, &mut base));
            if known.is_err() {
                base.clear();
            }
            base.push(b'/');
        }
        base.extend_from_slice(path);
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in base.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        let mut out = Vec::with_capacity(base.len());
        for part in parts {
            out.push(b'/');
            out.extend_from_slice(part);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        self.recorded(&out).unwrap_or(out)
    }

    fn start(&self, dirfd: i32, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        if path.first() == Some(&b'/') { Ok(None) } else { self.base(dirfd).map(Some) }
    }

    /// Resolves an existing object.
    pub(super) fn object(&self, dirfd: i32, path: &[u8], last: Last) -> Result<Found, Stop> {
        if path.is_empty() {
            return Err(Errno(libc::ENOENT).into());
        }
        let base = self.start(dirfd, path)?;
        let at = base.as_ref().map_or(At::Cwd, |fd| At::Fd(fd.as_fd()));
        let nofollow = if last == Last::Keep { libc::O_NOFOLLOW } else { 0 };
        let flags = u64::from((libc::O_PATH | libc::O_CLOEXEC | nofollow).cast_unsigned());
        let how = OpenHow { flags, mode: 0, resolve: NO_MAGICLINKS };
        match fs::openat2(at, cstring(path)?.as_c_str(), &how) {
            Ok(fd) => {
                let mut name = Vec::new();
                fs::path_of(fd.as_fd(), &mut name)?;
                if self.is_own_proc(&name) {
                    self.walk(dirfd, path, last)
                } else {
                    self.found(fd, name, false)
                }
            }
            // A magic link, or `/proc/self` behind one; or really too many links, which the walk finds out too.
            Err(Errno(libc::ELOOP)) => self.walk(dirfd, path, last),
            // `/dev/fd/N` and the like lead through `/proc/self`, where the kernel looked into our process.
            Err(Errno(libc::ENOENT)) if self.may_mean_caller(at, path) => self.walk(dirfd, path, last),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns whether what does not exist for us may exist for the caller: below `/proc` and `/dev`, or behind a symlink.
    fn may_mean_caller(&self, at: At<'_>, path: &[u8]) -> bool {
        if path.starts_with(b"/dev/") || path.starts_with(b"/proc/") {
            return true;
        }
        let Ok(name) = cstring(path) else { return false };
        fs::fstatat(at, &name, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.kind() == libc::S_IFLNK)
    }

    /// Describes what is open under the kernel's name for it.
    pub(super) fn found(&self, fd: OwnedFd, name: Vec<u8>, anonymous: bool) -> Result<Found, Stop> {
        let stat = fs::fstat(fd.as_fd())?;
        let path = self.recorded(without_deleted_mark(&name, &stat))?;
        Ok(Found { fd, stat, path, anonymous })
    }

    /// Returns whether the kernel took `/proc/self` for us.
    pub(super) fn is_own_proc(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(b"/proc/") else { return false };
        let pid = rest.split(|&b| b == b'/').next().unwrap_or(b"");
        pid == process::pid().to_string().as_bytes()
    }

    /// Resolves a name that need not exist: its directory is opened, the last component is not followed.
    pub(super) fn place(&self, dirfd: i32, path: &[u8], scratch: &mut Vec<u8>) -> Result<Place, Stop> {
        if path.is_empty() {
            return Err(Errno(libc::ENOENT).into());
        }
        let bare = without_trailing_slashes(path);
        let slash = bare.len() != path.len();
        let (directory, name) = match bare.iter().rposition(|&b| b == b'/') {
            Some(0) => (&b"/"[..], &bare[1..]),
            Some(i) => (&bare[..i], &bare[i + 1..]),
            None => (&b"."[..], bare),
        };
        // The kernel refuses these names for every call that takes a place, each with an errno of its own.
        let odd = matches!(name, b"" | b"." | b"..");
        let mut text = if name.is_empty() { b"/".to_vec() } else { name.to_vec() };
        if slash && !odd {
            text.push(b'/');
        }
        let name_c = cstring(&text)?;
        let directory_flags = u64::from((libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC).cast_unsigned());
        if !odd && self.absolute(dirfd, bare, scratch) {
            let end = scratch.iter().rposition(|&b| b == b'/').unwrap_or(0).max(1);
            let how = OpenHow { flags: directory_flags, mode: 0, resolve: NO_SYMLINKS };
            if let Ok(parent) = fs::openat2(At::Cwd, cstring(&scratch[..end])?.as_c_str(), &how) {
                return Ok(Place { parent, name: name_c, path: self.recorded(scratch)? });
            }
        }
        let parent = self.directory(dirfd, directory, directory_flags)?;
        let mut full = Vec::new();
        fs::path_of(parent.as_fd(), &mut full)?;
        if full.len() > 1 {
            full.push(b'/');
        }
        full.extend_from_slice(name);
        Ok(Place { parent, name: name_c, path: self.recorded(&full)? })
    }

    fn directory(&self, dirfd: i32, path: &[u8], flags: u64) -> Result<OwnedFd, Stop> {
        let base = self.start(dirfd, path)?;
        let at = base.as_ref().map_or(At::Cwd, |fd| At::Fd(fd.as_fd()));
        let how = OpenHow { flags, mode: 0, resolve: NO_MAGICLINKS };
        match fs::openat2(at, cstring(path)?.as_c_str(), &how) {
            Ok(fd) => {
                let mut name = Vec::new();
                fs::path_of(fd.as_fd(), &mut name)?;
                if !self.is_own_proc(&name) {
                    return Ok(fd);
                }
            }
            Err(Errno(libc::ELOOP)) => {}
            Err(Errno(libc::ENOENT)) if self.may_mean_caller(at, path) => {}
            Err(errno) => return Err(errno.into()),
        }
        let found = self.walk(dirfd, path, Last::Follow)?;
        if found.stat.kind() == libc::S_IFDIR { Ok(found.fd) } else { Err(Errno(libc::ENOTDIR).into()) }
    }

    /// Walks component by component, standing in for the caller where `/proc` asks who is looking.
    fn walk(&self, dirfd: i32, path: &[u8], last: Last) -> Result<Found, Stop> {
        let mut at = match self.start(dirfd, path)? {
            Some(base) => base,
            None => root()?,
        };
        let must_be_directory = path.ends_with(b"/");
        let mut rest: Vec<Vec<u8>> = components(path);
        let (mut links, mut anonymous) = (0, false);
        while let Some(part) = rest.pop() {
            let is_last = rest.is_empty();
            let part = self.substituted(at.as_fd(), part, &mut rest)?;
            if part == b".." {
                at = open_path(at.as_fd(), c"..")?;
                anonymous = false;
                continue;
            }
            let name = cstring(&part)?;
            let next = open_path(at.as_fd(), &name)?;
            let stat = fs::fstat(next.as_fd())?;
            let follow = !is_last || last == Last::Follow || must_be_directory;
            if stat.kind() != libc::S_IFLNK || !follow {
                if !is_last && stat.kind() != libc::S_IFDIR {
                    return Err(Errno(libc::ENOTDIR).into());
                }
                at = next;
                anonymous = false;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno(libc::ELOOP).into());
            }
            if fs::file_system_type(at.as_fd())? == PROC_SUPER_MAGIC && self.is_magic(at.as_fd(), &part)? {
                let held = holds_open(at.as_fd(), &part)?;
                at = fs::openat(At::Fd(at.as_fd()), &name, libc::O_PATH | libc::O_CLOEXEC, 0)?;
                anonymous = held;
                continue;
            }
            let mut text = Vec::new();
            fs::readlinkat(At::Fd(next.as_fd()), c"", &mut text)?;
            if text.first() == Some(&b'/') {
                at = root()?;
            }
            rest.extend(components(&text));
        }
        let mut name = Vec::new();
        fs::path_of(at.as_fd(), &mut name)?;
        let found = self.found(at, name, anonymous)?;
        if must_be_directory && found.stat.kind() != libc::S_IFDIR {
            return Err(Errno(libc::ENOTDIR).into());
        }
        Ok(found)
    }

    /// Replaces `self` and `thread-self` at the root of `/proc` by the caller.
    fn substituted(
        &self,
        at: BorrowedFd<'_>,
        part: Vec<u8>,
        rest: &mut Vec<Vec<u8>>,
    ) -> Result<Vec<u8>, Errno> {
        if !matches!(part.as_slice(), b"self" | b"thread-self")
            || fs::file_system_type(at)? != PROC_SUPER_MAGIC
        {
            return Ok(part);
        }
        let mut here = Vec::new();
        fs::path_of(at, &mut here)?;
        if here != b"/proc" {
            return Ok(part);
        }
        if part == b"thread-self" {
            rest.push(self.task.tid.to_string().into_bytes());
            rest.push(b"task".to_vec());
        }
        Ok(self.task.tgid()?.to_string().into_bytes())
    }

    /// Returns whether a symlink in `/proc` is a magic one, and refuses those that lead out of the tree.
    fn is_magic(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
        let mut here = Vec::new();
        fs::path_of(at, &mut here)?;
        let mut parts = here.split(|&b| b == b'/').skip(2);
        let Some(pid) = parts.next().and_then(parse_pid) else { return Ok(false) };
        let inner = here.rsplit(|&b| b == b'/').next().unwrap_or(b"");
        let magic =
            matches!(name, b"cwd" | b"root" | b"exe") || matches!(inner, b"fd" | b"map_files" | b"ns");
        if magic && !task::descends_from(pid, self.tree) {
            return Err(Errno(libc::EACCES));
        }
        Ok(magic)
    }

    /// Turns the kernel's path into the one that is judged and recorded: nothing in it varies between equal runs.
    ///
    /// # Errors
    /// `EACCES` for what the tree may not see of processes outside it, whatever the policy says.
    pub(super) fn recorded(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        if let Some(rest) = path.strip_prefix(b"/proc/") {
            let mut parts = rest.splitn(2, |&b| b == b'/');
            if let Some(pid) = parts.next().and_then(parse_pid) {
                return self.recorded_proc(pid, parts.next().unwrap_or(b""));
            }
        }
        if let Some(rest) = path.strip_prefix(b"/dev/pts/")
            && !rest.is_empty()
            && rest.iter().all(u8::is_ascii_digit)
        {
            return Ok(b"/dev/pts/[n]".to_vec());
        }
        Ok(path.to_vec())
    }

    fn recorded_proc(&self, pid: u32, rest: &[u8]) -> Result<Vec<u8>, Errno> {
        let caller = (self.task.tid, self.task.tgid().unwrap_or(self.task.tid));
        recorded_process(pid, rest, caller, self.tree).ok_or(Errno(libc::EACCES))
    }
}

/// Returns the path under which an entry of `/proc/PID` is judged and recorded; `None` for what a tree may not see of a
/// process outside it, whatever the policy says. `caller` is a thread and its process.
pub(in crate::backend) fn recorded_process(
    pid: u32,
    rest: &[u8],
    caller: (u32, u32),
    tree: u32,
) -> Option<Vec<u8>> {
    let own = pid == caller.0 || pid == caller.1;
    let entry = match rest.strip_prefix(b"task/") {
        Some(inner) => inner.splitn(2, |&b| b == b'/').nth(1).unwrap_or(b"task"),
        None => rest,
    };
    let entry = entry.split(|&b| b == b'/').next().unwrap_or(b"");
    if !own {
        let public = entry.is_empty() || PUBLIC_PROC.contains(&entry);
        let inside = public || task::descends_from(pid, tree);
        if !inside || entry == b"mem" {
            return None;
        }
    }
    let mut out = if own { b"/proc/self".to_vec() } else { b"/proc/[pid]".to_vec() };
    for (i, part) in rest.split(|&b| b == b'/').filter(|part| !part.is_empty()).enumerate() {
        out.push(b'/');
        let is_tid = i == 1 && rest.starts_with(b"task/");
        out.extend_from_slice(if is_tid { b"[tid]" } else { part });
    }
    Some(out)
}

/// Returns whether a magic link in `/proc/PID/fd` stands for a descriptor that gives data; an `O_PATH` one was never
/// judged.
fn holds_open(at: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    let mut here = Vec::new();
    fs::path_of(at, &mut here)?;
    let Some(process) = here.strip_suffix(b"/fd") else { return Ok(false) };
    let info = cstring(&[process, b"/fdinfo/", name].concat())?;
    let file = fs::openat(At::Cwd, &info, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    let mut text = [0u8; 512];
    let n = fs::pread(file.as_fd(), &mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..n]);
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags =
        flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).ok_or(Errno(libc::EACCES))?;
    Ok(flags & libc::O_PATH == 0)
}

/// Takes the kernel's mark off the name of a removed file: rules know it by the name it had.
fn without_deleted_mark<'p>(name: &'p [u8], stat: &Stat) -> &'p [u8] {
    match name.strip_suffix(b" (deleted)") {
        Some(had) if stat.nlink == 0 => had,
        _ => name,
    }
}

/// Opens the supervisor's own `/proc/PID`.
pub(super) fn own_proc() -> Result<OwnedFd, Errno> {
    fs::openat(At::Cwd, c"/proc/self", libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)
}

fn parse_pid(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn root() -> Result<OwnedFd, Errno> {
    fs::openat(At::Cwd, c"/", libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)
}

fn open_path(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    fs::openat(At::Fd(at), name, libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC, 0)
}

/// Splits a path into components, last one first, without empty and `.` ones.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).rev().collect()
}

#[cfg(test)]
mod tests {
    use super::super::task::Tasks;
    use super::*;

    fn with_resolver<T>(check: impl FnOnce(&Resolver<'_>) -> T) -> T {
        let mut tasks = Tasks::new();
        let task = tasks.get(process::tid(), 0).unwrap();
        check(&Resolver { task: &task, tree: std::os::unix::process::parent_id() })
    }

    #[test]
    fn clean_paths_are_told_from_others() {
        for path in [&b"/a"[..], b"/a/b", b"/.a/..b"] {
            assert!(is_clean(path), "{path:?}");
        }
        for path in [&b"/"[..], b"a", b"/a/", b"/a//b", b"/a/./b", b"/a/..", b"/.."] {
            assert!(!is_clean(path), "{path:?}");
        }
    }

    #[test]
    fn symlinks_are_named_by_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::write(dir.join("real"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        let link = dir.join("link").into_os_string().into_encoded_bytes();
        with_resolver(|r| {
            let found = r.object(libc::AT_FDCWD, &link, Last::Follow).unwrap();
            assert_eq!(found.path, dir.join("real").into_os_string().into_encoded_bytes());
            let kept = r.object(libc::AT_FDCWD, &link, Last::Keep).unwrap();
            assert_eq!(kept.path, link);
        });
    }

    #[test]
    fn proc_self_is_the_caller_and_has_no_number() {
        with_resolver(|r| {
            assert_eq!(
                r.object(libc::AT_FDCWD, b"/proc/self/status", Last::Follow).unwrap().path,
                b"/proc/self/status"
            );
            let own = r.object(libc::AT_FDCWD, b"/proc/self/exe", Last::Follow).unwrap();
            assert_eq!(own.path, std::env::current_exe().unwrap().into_os_string().into_encoded_bytes());
        });
    }

    #[test]
    fn memory_and_environment_of_strangers_are_refused() {
        with_resolver(|r| {
            for path in [&b"/proc/1/environ"[..], b"/proc/1/mem", b"/proc/1/root/etc", b"/proc/1/fd/0"] {
                assert!(r.object(libc::AT_FDCWD, path, Last::Follow).is_err(), "{path:?}");
            }
            assert_eq!(
                r.object(libc::AT_FDCWD, b"/proc/1/stat", Last::Follow).unwrap().path,
                b"/proc/[pid]/stat"
            );
        });
    }

    #[test]
    fn a_place_keeps_its_trailing_slash_for_the_kernel_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap().into_os_string().into_encoded_bytes();
        let mut path = dir.clone();
        path.extend_from_slice(b"/new/");
        with_resolver(|r| {
            let place = r.place(libc::AT_FDCWD, &path, &mut Vec::new()).unwrap();
            assert_eq!(place.name.as_bytes(), b"new/");
            assert_eq!(place.path, [&dir[..], b"/new"].concat());
        });
    }
}
