//! The reaper: parent of the workload's tree, and its end.
//!
//! A small process of one thread between the supervisor and the workload. It is the subreaper, so whatever the workload
//! leaves behind becomes its child; and it holds the reading end of a leash whose writing end only the supervisor holds.
//! When the workload's first process ends, or the leash is let go (the supervisor died), it kills everything and goes.
//! It is separate from the supervisor because a tracer that is also the natural parent steals its own ptrace stops.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::status::{Status, Step};
use crate::sys::process::{self, Change, Fork};
use crate::sys::{Errno, signal};

/// Pause between two rounds of killing, while processes die.
const ROUND: Duration = Duration::from_millis(2);

/// Runs the reaper; `workload` is run in the first process of the tree. Never returns.
pub(crate) fn run(leash: &OwnedFd, status: &OwnedFd, workload: impl FnOnce()) -> ! {
    process::set_name(c"gait-reaper");
    let fail = |step, errno| -> ! {
        Status::Failed { step, errno }.send(status.as_fd());
        process::exit_now(1)
    };
    if let Err(errno) = process::set_subreaper() {
        fail(Step::Process, errno);
    }
    let children = match signal::signalfd(&signal::Set::all()) {
        Ok(fd) => fd,
        Err(errno) => fail(Step::Process, errno),
    };
    let root = match process::fork() {
        Ok(Fork::Child) => {
            workload();
            process::exit_now(126)
        }
        Ok(Fork::Parent(pid)) => pid,
        Err(errno) => fail(Step::Process, errno),
    };
    drop(workload);
    release_standard_files();
    Status::Started { pid: root }.send(status.as_fd());
    watch(root, leash, status, &children);
    let _unlikely = kill_descendants().is_err();
    Status::TreeEnded.send(status.as_fd());
    process::exit_now(0)
}

/// Lets go of the workload's files, so that a pipe ends when the workload lets go of it.
pub(crate) fn release_standard_files() {
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        for fd in 0..=2 {
            let _unlikely = process::replace_fd(null.as_fd(), fd).is_err();
        }
    }
}

/// Reaps until the first process has ended or the leash is let go.
fn watch(root: u32, leash: &OwnedFd, status: &OwnedFd, children: &OwnedFd) {
    loop {
        if reap(root, status) {
            return;
        }
        match process::poll(&[leash.as_fd(), children.as_fd()], None) {
            Ok(ready) if ready[0] => return,
            Ok(_) => while signal::next(children.as_fd()).is_some() {},
            Err(_) => return,
        }
    }
}

/// Takes all news of children; returns whether the first process has ended.
fn reap(root: u32, status: &OwnedFd) -> bool {
    let mut ended = false;
    while let Ok(Some(change)) = process::wait_any(false) {
        match change {
            Change::Exited { pid, status: code } if pid == root => {
                Status::Exited { status: code }.send(status.as_fd());
                ended = true;
            }
            Change::Killed { pid, signal } if pid == root => {
                Status::Killed { signal }.send(status.as_fd());
                ended = true;
            }
            Change::Stopped { pid, signal } if pid == root => Status::Stopped { signal }.send(status.as_fd()),
            _ => {}
        }
    }
    ended
}

/// Returns every descendant of a process, by one look at `/proc`.
pub(crate) fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
            let after = stat.get(stat.iter().rposition(|&b| b == b')')? + 2..)?;
            let parent = std::str::from_utf8(after).ok()?.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == at).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// Kills everything below the calling process until nothing is left. Processes that fork meanwhile are caught in the next
/// round: their children become children of the subreaper.
///
/// # Errors
/// Where waiting for children fails for another reason than that there are none.
pub(crate) fn kill_descendants() -> Result<(), Errno> {
    loop {
        loop {
            match process::wait_any(false) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Errno(libc::ECHILD)) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        for pid in descendants(process::pid()) {
            let _gone = process::kill(pid, libc::SIGKILL).is_err();
        }
        std::thread::sleep(ROUND);
    }
}
