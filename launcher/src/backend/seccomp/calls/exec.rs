//! execve(2): judged before on the open file, verified afterwards on the image that the kernel really mapped.
//!
//! The path is behind a pointer, so the call itself may run another file than the one that was judged. That image is never
//! reached: the caller is traced for the time of the exec, stops before the first instruction of the new image, and is
//! killed there unless device and inode are the judged ones and the arguments are allowed.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Limit;

use super::super::numbers::names as nr;
use super::super::resolve::{Found, Last, Resolver};
use super::super::supervisor::{Answer, Stop, Worker};
use super::super::task::Task;
use super::Call;
use crate::sys::fs::{self, At};
use crate::sys::notify::Notification;
use crate::sys::process::{self, Trace};
use crate::sys::{Errno, memory};

/// `BINPRM_BUF_SIZE`: how much of a file the kernel looks at for `#!`.
const HEAD: usize = 256;
/// How many interpreters the kernel follows.
const INTERPRETERS: usize = 5;
/// The most arguments and bytes of them that are read before an exec; the kernel's own limit is a quarter of the stack.
const ARGUMENTS: usize = 32_768;
const ARGUMENT_BYTES: usize = 6 << 20;

/// What an exec must turn out to be.
#[derive(Debug)]
pub(in super::super) struct ExecPlan {
    /// The files that take part: the script if it is one, its interpreters, last the image.
    files: Vec<File>,
    /// The image of the caller before the exec.
    caller: Vec<u8>,
    /// Recorded already, because somebody was asked.
    recorded: Option<Vec<u8>>,
}

#[derive(Debug)]
struct File {
    path: Vec<u8>,
    /// The name by which the kernel looks it up; the new image's arguments show it for every file but the image itself.
    name: Vec<u8>,
    identity: (u64, u64),
    /// Arguments that the kernel puts before this file's own: the interpreters further down the chain with theirs.
    before: usize,
}

pub(super) fn exec(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let at = i64::from(call.notification.nr) == nr::execveat;
    let (dirfd, index, flags) = if at { (call.int(0), 1, call.int(4)) } else { (libc::AT_FDCWD, 0, 0) };
    let mut path = Vec::new();
    call.path(index, &mut path)?;
    let found = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        by_descriptor(worker, call, dirfd)?
    } else {
        let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Last::Keep } else { Last::Follow };
        match call.resolver(worker).object(dirfd, &path, last) {
            Ok(found) => found,
            Err(Stop::Errno(errno)) => return Err(missing(worker, call, dirfd, &path, errno)),
            Err(stop) => return Err(stop),
        }
    };
    // What the kernel calls the file, and hands to an interpreter (fs/exec.c, `alloc_bprm`).
    let name = match dirfd {
        _ if path.first() == Some(&b'/') || dirfd == libc::AT_FDCWD => path,
        fd if path.is_empty() => format!("/dev/fd/{fd}").into_bytes(),
        fd => [format!("/dev/fd/{fd}/").as_bytes(), &path].concat(),
    };
    let plan = plan(worker, call, found, name)?;
    let argv_index = if at { 2 } else { 1 };
    Ok(Answer::Exec(Box::new(precheck(worker, call, plan, argv_index)?)))
}

/// A file that is not there: judged where the policy would not allow it, else the kernel's answer.
fn missing(worker: &mut Worker, call: Call<'_>, dirfd: i32, path: &[u8], errno: Errno) -> Stop {
    let lexical = call.resolver(worker).lexical(dirfd, path);
    match worker.judge_absent(call.task, Operation::Exec, &lexical) {
        Ok(()) => errno.into(),
        Err(stop) => stop,
    }
}

fn by_descriptor(worker: &Worker, call: Call<'_>, fd: i32) -> Result<Found, Stop> {
    let fd = call.task.descriptor(fd)?;
    let mut name = Vec::new();
    fs::path_of(fd.as_fd(), &mut name)?;
    call.resolver(worker).found(fd, name, true)
}

/// Follows `#!` lines as the kernel will.
fn plan(worker: &Worker, call: Call<'_>, first: Found, first_name: Vec<u8>) -> Result<ExecPlan, Stop> {
    let mut files: Vec<File> = Vec::new();
    let (mut found, mut name) = (first, first_name);
    loop {
        if found.stat.kind() != libc::S_IFREG {
            return Err(Errno(libc::EACCES).into());
        }
        let head = head(&found.fd)?;
        let identity = (found.stat.dev, found.stat.ino);
        let interpreter = shebang(&head);
        let before = interpreter.map_or(0, |(_, argument)| 1 + usize::from(argument));
        files.push(File { path: found.path, name, identity, before });
        let Some((interpreter, _)) = interpreter else { break };
        if files.len() > INTERPRETERS {
            return Err(Errno(libc::ELOOP).into());
        }
        found = call.resolver(worker).object(libc::AT_FDCWD, interpreter, Last::Follow)?;
        name = interpreter.to_vec();
    }
    // Each file's arguments begin where those of everything after it end.
    let mut before = 0;
    for file in files.iter_mut().rev() {
        before += file.before;
        file.before = before;
    }
    Ok(ExecPlan { files, caller: call.task.image.to_vec(), recorded: None })
}

/// Reads what the kernel will look at. A file that may be run and not read would leave its process unreadable for us.
fn head(fd: &OwnedFd) -> Result<Vec<u8>, Stop> {
    let file = fs::reopen(fd.as_fd(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    let mut bytes = vec![0; HEAD];
    let n = fs::pread(file.as_fd(), &mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Returns the interpreter of a script and whether it has an argument, by the rules of `fs/binfmt_script.c`.
pub(crate) fn shebang(head: &[u8]) -> Option<(&[u8], bool)> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|&b| b == b'\n').next().unwrap_or(line);
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = line.iter().position(|b| !blank(b))?;
    let line = &line[start..];
    let end = line.iter().position(|b| blank(b) || *b == 0).unwrap_or(line.len());
    let argument = line[end..].iter().take_while(|b| **b != 0).any(|b| !blank(b));
    (end > 0).then_some((&line[..end], argument))
}

/// Judges the exec with what is known before it.
fn precheck(
    worker: &mut Worker,
    call: Call<'_>,
    mut plan: ExecPlan,
    argv_index: usize,
) -> Result<ExecPlan, Stop> {
    // Arguments in the caller's memory can still change; they are read only where a rule or a question needs them.
    let needs_argv = worker.shared.judge.policy.has_argv_rules();
    let argv = if needs_argv { Some(arguments(call, argv_index)?) } else { None };
    let actions = plan.actions(argv.as_deref(), true);
    let full = worker.shared.judge.rate.as_ref().is_some_and(|rate| !rate.has_room());
    if worker.would_allow_all(&actions) && !full {
        return Ok(plan);
    }
    let argv = match argv {
        Some(argv) => argv,
        None => arguments(call, argv_index)?,
    };
    if full {
        // Later would be too late: the image would have to be killed.
        worker.exceed(call.task.tid, &plan.actions(Some(&argv), true), Limit::ActionsPerSecond)?;
        plan.recorded = Some(argv);
        return Ok(plan);
    }
    worker.judge_actions(call.task.tid, &plan.actions(Some(&argv), true))?;
    // Somebody agreed to exactly these arguments (or this is a simulation).
    plan.recorded = Some(argv);
    Ok(plan)
}

/// Reads the arguments of an exec from the caller's memory, each ended by NUL.
fn arguments(call: Call<'_>, index: usize) -> Result<Vec<u8>, Stop> {
    let (tid, array) = (call.task.tid, call.long(index));
    let mut out = Vec::new();
    if array == 0 {
        return Ok(out);
    }
    let mut text = Vec::new();
    for i in 0..ARGUMENTS as u64 {
        let mut pointer = [0u8; 8];
        memory::read(tid, array.wrapping_add(8 * i), &mut pointer)?;
        let pointer = u64::from_ne_bytes(pointer);
        if pointer == 0 {
            return Ok(out);
        }
        memory::read_c_str(tid, pointer, ARGUMENT_BYTES, &mut text)?;
        out.extend_from_slice(&text);
        if out.len() > ARGUMENT_BYTES {
            break;
        }
    }
    Err(Errno(libc::E2BIG).into())
}

/// Leaves out the first `count` arguments.
fn skip(argv: &[u8], count: usize) -> &[u8] {
    let mut rest = argv;
    for _ in 0..count {
        let Some(end) = rest.iter().position(|&b| b == 0) else { return b"" };
        rest = &rest[end + 1..];
    }
    rest
}

impl ExecPlan {
    /// Returns whether the task's image is the planned one.
    fn is_image_of(&self, task: &Task) -> bool {
        let image = fs::fstatat(At::Fd(task.proc.as_fd()), c"exe", 0).map(|stat| (stat.dev, stat.ino));
        self.files.last().is_some_and(|file| image == Ok(file.identity))
    }

    /// Returns whether the scripts that the kernel went through are the planned ones: by the names that it used, which
    /// stand in the new image's arguments, and by what those names lead to now. The interpreter opens the script once
    /// more by that name, and that open is judged by itself.
    fn ran_these(&self, worker: &Worker, task: &Task, argv: &[u8]) -> bool {
        let Some((_, scripts)) = self.files.split_last() else { return false };
        let resolver = Resolver { task, tree: worker.shared.tree };
        scripts.iter().all(|script| {
            let named = skip(argv, script.before).split(|&b| b == 0).next() == Some(&script.name[..]);
            // A name through a descriptor table led to an open file, and that table is the caller's own.
            let through_table = script.name.starts_with(b"/dev/fd/");
            let same = |found: Found| (found.stat.dev, found.stat.ino) == script.identity;
            named
                && (through_table
                    || resolver.object(libc::AT_FDCWD, &script.name, Last::Follow).is_ok_and(same))
        })
    }

    /// The actions of the exec: one per file that takes part. `own` arguments are those the caller passed; otherwise they
    /// are those of the new image, in which the kernel has put the interpreters in front.
    fn actions<'b>(&'b self, argv: Option<&'b [u8]>, own: bool) -> Vec<Action<'b>> {
        let action = |file: &'b File| Action {
            operation: Operation::Exec,
            object: Object::Path(&file.path),
            image: &self.caller,
            argv: argv.map(|argv| if own { argv } else { skip(argv, file.before) }),
        };
        self.files.iter().map(action).collect()
    }
}

/// Lets the exec happen under trace; returns the process to release once everybody knows of its new image.
pub(in super::super) fn finish(
    worker: &mut Worker,
    notification: &Notification,
    plan: &ExecPlan,
) -> Option<u32> {
    let id = notification.id;
    if let Err(errno) = process::seize(notification.tid) {
        // Somebody else traces the caller, or it is gone: an image that cannot be verified does not run.
        worker.shared.refuse(id, if errno == Errno(libc::ESRCH) { errno } else { Errno(libc::EPERM) });
        return None;
    }
    let gone = worker.shared.listener.answer_continue(id).is_err();
    loop {
        match process::wait_traced() {
            Ok(Trace::Exec { pid }) if !gone && verified(worker, pid, plan) => return Some(pid),
            Ok(Trace::Exec { pid }) => {
                // Not one instruction of this image runs. The loop goes on until the death is seen.
                if process::kill(pid, libc::SIGKILL).is_err() {
                    return None;
                }
            }
            Ok(Trace::Stopped { pid, signal, event }) => {
                // The exec failed and the caller goes on; a signal that came meanwhile is delivered.
                let deliver = if event == 0 { signal } else { 0 };
                let _gone = process::detach(pid, deliver).is_err();
                return None;
            }
            Ok(Trace::Gone) | Err(_) => return None,
        }
    }
}

/// Lets a verified image run.
pub(in super::super) fn release(pid: u32) {
    let _gone = process::detach(pid, 0).is_err();
}

/// Checks the image that is mapped and its arguments, and records the exec.
fn verified(worker: &mut Worker, pid: u32, plan: &ExecPlan) -> bool {
    // This thread serves no calls, so nobody else sets its clock; the event would be one of 1970.
    worker.now_ns = process::now_ns();
    worker.tasks.forget(pid);
    let Ok(task) = worker.tasks.get(pid, worker.now_ns) else { return false };
    let Ok(argv) = command_line(&task) else { return false };
    if !plan.is_image_of(&task) || !plan.ran_these(worker, &task, &argv) {
        let object = Object::Path(&task.image);
        let swapped = Action { operation: Operation::Exec, object, image: &plan.caller, argv: Some(&argv) };
        return worker.refuse(pid, &swapped).is_ok();
    }
    match &plan.recorded {
        // The answer was to these arguments and no others.
        Some(asked) => plan
            .files
            .first()
            .is_some_and(|file| same_arguments(asked, skip(&argv, file.before), file.before)),
        None => worker.judge_actions(pid, &plan.actions(Some(&argv), false)).is_ok(),
    }
}

/// Compares arguments; for a script the kernel has replaced the first one by the script's path.
fn same_arguments(asked: &[u8], real: &[u8], replaced: usize) -> bool {
    if replaced == 0 { asked == real } else { skip(asked, 1) == skip(real, 1) }
}

/// Reads `/proc/PID/cmdline` whole.
fn command_line(task: &Rc<Task>) -> Result<Vec<u8>, Errno> {
    let file = fs::openat(At::Fd(task.proc.as_fd()), c"cmdline", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    let mut out = vec![0; 4096];
    let mut length = 0;
    loop {
        let n = fs::pread(file.as_fd(), &mut out[length..], i64::try_from(length).unwrap_or(i64::MAX))?;
        length += n;
        if n == 0 {
            out.truncate(length);
            return Ok(out);
        }
        if length == out.len() {
            if length > ARGUMENT_BYTES {
                return Err(Errno(libc::E2BIG));
            }
            out.resize(length * 2, 0);
        }
    }
}

/// mmap(2) of a file, or mprotect(2) of a mapping of one, with `PROT_EXEC`. The arguments are scalars.
pub(super) fn map_executable(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    if i64::from(call.notification.nr) == nr::mmap {
        let fd = call.task.descriptor(call.int(4))?;
        let mut name = Vec::new();
        fs::path_of(fd.as_fd(), &mut name)?;
        let path = call.resolver(worker).recorded(&name)?;
        worker.judge_path(call.task, Operation::MmapExec, &path)?;
        return Ok(Answer::Continue);
    }
    let start = call.long(0);
    let end = start.saturating_add(call.long(1));
    for path in mapped_files(call.task, start, end)? {
        let path = call.resolver(worker).recorded(&path)?;
        worker.judge_path(call.task, Operation::MmapExec, &path)?;
    }
    Ok(Answer::Continue)
}

/// Returns the files mapped in an address range.
fn mapped_files(task: &Task, start: u64, end: u64) -> Result<Vec<Vec<u8>>, Errno> {
    let name = CString::new(format!("/proc/{}/maps", task.tid)).map_err(|_error| Errno(libc::EINVAL))?;
    let file = std::fs::File::from(fs::openat(At::Cwd, &name, libc::O_RDONLY | libc::O_CLOEXEC, 0)?);
    let text = std::io::read_to_string(file).map_err(|_error| Errno(libc::EACCES))?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let within = |line: &str| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let path = line.find('/').map(|i| line.as_bytes()[i..].to_vec())?;
        (hex(from)? < end && hex(to)? > start).then_some(path)
    };
    Ok(text.lines().filter_map(within).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shebang_lines_are_read_as_the_kernel_does() {
        assert_eq!(shebang(b"#!/bin/sh\necho"), Some((&b"/bin/sh"[..], false)));
        assert_eq!(shebang(b"#! \t/usr/bin/env  python3 -x\n"), Some((&b"/usr/bin/env"[..], true)));
        assert_eq!(shebang(b"#!/bin/sh   \n"), Some((&b"/bin/sh"[..], false)));
        assert_eq!(shebang(b"#!\n"), None);
        assert_eq!(shebang(b"\x7fELF"), None);
        assert_eq!(shebang(b"#!/no/newline"), Some((&b"/no/newline"[..], false)));
    }

    #[test]
    fn arguments_are_skipped_whole() {
        assert_eq!(skip(b"a\0bb\0\0c\0", 0), b"a\0bb\0\0c\0");
        assert_eq!(skip(b"a\0bb\0\0c\0", 2), b"\0c\0");
        assert_eq!(skip(b"a\0", 5), b"");
    }
}
