//! Continues processes that a hook has told to stop.
//!
//! A hook first writes its event and then sends SIGSTOP, so what is known here may be about to stop only. SIGCONT before it has would
//! be for nothing, and the process would stop for good: the stop is waited for.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::sys::Errno;

/// How long a told stop may take to happen.
const STOPPING: Duration = Duration::from_secs(10);
/// How long whoever continues a process looks for the stop by himself: nearly always it is there.
const AT_ONCE: Duration = Duration::from_micros(500);
/// How often is looked then, and how often later.
const LOOK: Duration = Duration::from_micros(20);
const LOOK_LATER: Duration = Duration::from_millis(1);

/// Threads of a process that were told to stop. Each of their stops is one of the process, and the last may come late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) tgid: u32,
    pub(super) tids: Vec<u32>,
}

/// What is done when the wait for a process's stop is over.
pub(super) type End = Arc<dyn Fn(u32, Stop) + Send + Sync>;

/// How such a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not at all. After a long time: somebody else has continued the process, and its threads have asked again.
    NotYet,
    There,
    /// There is no such process any more.
    Gone,
}

/// Waits for stops. Whoever asks does not wait for slow ones: a thread does.
pub(super) struct Resumer {
    end: End,
    slow: Sender<Stopping>,
}

impl std::fmt::Debug for Resumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resumer").finish_non_exhaustive()
    }
}

impl Resumer {
    /// Starts it.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub(super) fn start(end: End) -> Result<Self, Errno> {
        let (slow, waiting) = mpsc::channel();
        let later = Arc::clone(&end);
        super::hold::spawn(move || wait_for_all(&waiting, &later))?;
        Ok(Self { end, slow })
    }

    /// Continues a process as soon as these threads have stopped.
    pub(super) fn resume(&self, stopping: Stopping) {
        let until = Instant::now() + AT_ONCE;
        loop {
            match look(&stopping) {
                Stop::NotYet if Instant::now() < until => std::thread::sleep(LOOK),
                Stop::NotYet => break,
                stop => return (self.end)(stopping.tgid, stop),
            }
        }
        let _ended = self.slow.send(stopping).is_err();
    }
}

fn wait_for_all(waiting: &Receiver<Stopping>, end: &End) {
    let mut all: Vec<(Stopping, Instant)> = Vec::new();
    loop {
        let next = if all.is_empty() {
            waiting.recv().map_err(|_error| RecvTimeoutError::Disconnected)
        } else {
            waiting.recv_timeout(LOOK_LATER)
        };
        match next {
            Ok(stopping) => all.push((stopping, Instant::now() + STOPPING)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if all.is_empty() => return,
            // Nobody asks any more; what was asked is still done.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_LATER),
        }
        all.retain(|(stopping, until)| {
            let stop = look(stopping);
            let wait = stop == Stop::NotYet && Instant::now() < *until;
            if !wait {
                end(stopping.tgid, stop);
            }
            wait
        });
    }
}

/// A thread that has ended stops nobody any more.
fn look(stopping: &Stopping) -> Stop {
    let ended = |state: Option<u8>| matches!(state, None | Some(b'Z' | b'X'));
    let stopped = |tid: &u32| {
        let state = state(stopping.tgid, *tid);
        ended(state) || matches!(state, Some(b'T' | b't'))
    };
    if !stopping.tids.iter().all(stopped) {
        return Stop::NotYet;
    }
    // The first thread may have ended while others go on; then the process is there all the same.
    let gone = state(stopping.tgid, stopping.tgid).is_none();
    if gone { Stop::Gone } else { Stop::There }
}

/// Returns the state letter of `/proc/PID/task/TID/stat`.
pub(super) fn state(tgid: u32, tid: u32) -> Option<u8> {
    let stat = std::fs::read(format!("/proc/{tgid}/task/{tid}/stat")).ok()?;
    stat.get(stat.iter().rposition(|&byte| byte == b')')? + 2).copied()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::sys::process;

    fn sleeper(seconds: &str) -> (Child, Stopping) {
        let child = Command::new("sleep").arg(seconds).spawn().unwrap();
        let pid = child.id();
        (child, Stopping { tgid: pid, tids: vec![pid] })
    }

    fn continuing() -> Resumer {
        Resumer::start(Arc::new(|tgid, stop| {
            if stop == Stop::There {
                process::kill(tgid, libc::SIGCONT).unwrap();
            }
        }))
        .unwrap()
    }

    #[test]
    fn a_stopped_child_is_continued() {
        let (mut child, stopping) = sleeper("0.3");
        process::kill(stopping.tgid, libc::SIGSTOP).unwrap();
        continuing().resume(stopping.clone());
        assert!(child.wait().unwrap().success());
        assert_eq!(state(stopping.tgid, stopping.tgid), None);
    }

    #[test]
    fn a_child_that_stops_late_is_continued_and_nobody_waits_for_it() {
        let (mut child, stopping) = sleeper("0.3");
        let resumer = continuing();
        let started = Instant::now();
        resumer.resume(stopping.clone());
        assert!(started.elapsed() < Duration::from_millis(200));
        process::kill(stopping.tgid, libc::SIGSTOP).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn what_was_asked_is_done_when_nobody_asks_any_more() {
        let (mut child, stopping) = sleeper("3");
        continuing().resume(stopping.clone());
        std::thread::sleep(Duration::from_millis(50));
        process::kill(stopping.tgid, libc::SIGSTOP).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status.success(),
                None if Instant::now() > until => break false,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        child.kill().unwrap_or_default();
        assert!(ended, "it stopped for good");
    }

    #[test]
    fn all_threads_have_to_stop_and_those_that_ended_do_not_count() {
        let (mut child, stopping) = sleeper("60");
        process::kill(stopping.tgid, libc::SIGSTOP).unwrap();
        while state(stopping.tgid, stopping.tgid) != Some(b'T') {}
        let with = |tid| look(&Stopping { tgid: stopping.tgid, tids: vec![stopping.tgid, tid] });
        assert_eq!(with(u32::MAX), Stop::There);
        let mut other = Command::new("sleep").arg("10").spawn().unwrap();
        assert_eq!(look(&Stopping { tgid: other.id(), tids: vec![other.id()] }), Stop::NotYet);
        for child in [&mut child, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(with(u32::MAX), Stop::Gone);
    }
}
