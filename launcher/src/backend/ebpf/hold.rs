//! Held actions of the kernel path: the thread is stopped, the gate answers, the call is made again.
//!
//! A hook that finds no verdict in its tables tells of the action, stops the thread's process with SIGSTOP and has the call
//! restarted (`-ERESTARTNOINTR`). Here the action is judged and recorded as any held call is; the answer goes into the
//! kernel as a grant for that thread, that object and those operations, and SIGCONT lets the process try again. The hook then
//! decides on whatever object it meets, so an answer for one object is never used for another.
//!
//! A process is continued only when all of its held threads have their answers: a stop is one of the whole process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gait_agent::action::{Action, Object as Target};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_ebpf::layout::{Grant, verdict};
use rustc_hash::FxHashMap;

use super::Kernel;
use super::objects::Object;
use crate::approval::prompt;
use crate::backend::seccomp::judge::{Caller, Judge};
use crate::backend::seccomp::supervisor::Stop;
use crate::exec::event::Approval;
use crate::sys::{Errno, process};

/// How long a told stop may take to happen.
const STOPPING: Duration = Duration::from_secs(2);
/// How often it is looked for.
const LOOK: Duration = Duration::from_micros(20);

/// One held action.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) tid: u32,
    pub(super) tgid: u32,
    pub(super) at_ns: u64,
    pub(super) image: Arc<[u8]>,
    /// What it does to what, in the order of judging.
    pub(super) deeds: Vec<(Operation, Object)>,
    pub(super) question: Question,
}

/// What the answer must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) object: u64,
    pub(super) second: u64,
    pub(super) operations: u32,
}

/// Held threads of one process.
#[derive(Debug, Default)]
struct Waiting {
    open: Vec<(u32, Question)>,
    answered: Vec<(u32, Question, u8)>,
}

/// Who waits.
#[derive(Debug, Default)]
struct Table(Mutex<FxHashMap<u32, Waiting>>);

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<u32, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question; returns whether it is new.
    fn ask(&self, tgid: u32, tid: u32, question: Question) -> bool {
        let mut table = self.lock();
        let waiting = table.entry(tgid).or_default();
        let known = waiting.open.contains(&(tid, question));
        if !known {
            waiting.open.push((tid, question));
        }
        !known
    }

    /// Notes an answer; returns all answers of the process once none of its questions is open.
    fn answer(&self, tgid: u32, tid: u32, question: Question, answer: u8) -> Vec<(u32, Question, u8)> {
        let mut table = self.lock();
        let Some(waiting) = table.get_mut(&tgid) else { return Vec::new() };
        waiting.open.retain(|open| *open != (tid, question));
        waiting.answered.push((tid, question, answer));
        if !waiting.open.is_empty() {
            return Vec::new();
        }
        table.remove(&tgid).map(|waiting| waiting.answered).unwrap_or_default()
    }
}

/// The answering side; shared by the threads that answer.
#[derive(Debug)]
struct Desk {
    judge: Judge,
    kernel: Arc<dyn Kernel>,
    table: Table,
}

/// The guard's handle.
#[derive(Debug)]
pub(super) struct Holder {
    desk: Arc<Desk>,
    questions: Sender<Held>,
}

impl Holder {
    /// Starts the answering thread.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(super) fn start(judge: Judge, kernel: Arc<dyn Kernel>) -> Result<Self, Errno> {
        let desk = Arc::new(Desk { judge, kernel, table: Table::default() });
        let (questions, asked) = mpsc::channel();
        let answering = Arc::clone(&desk);
        spawn(move || answer_all(&answering, &asked))?;
        Ok(Self { desk, questions })
    }

    /// Has a held action judged and answered.
    pub(super) fn ask(&self, held: Held) {
        if self.desk.table.ask(held.tgid, held.tid, held.question) {
            let _ended = self.questions.send(held).is_err();
        }
    }

    /// Returns whether a process waits for an answer.
    pub(super) fn is_waiting(&self, tgid: u32) -> bool {
        self.desk.table.lock().contains_key(&tgid)
    }

    /// Asks at the terminal of this process: `line` is the other end of the desk's line.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub(super) fn listen_to(&self, line: OwnedFd) -> Result<(), Errno> {
        let desk = Arc::clone(&self.desk);
        spawn(move || prompt::answer_all(&line))?;
        spawn(move || {
            let Some(line) = desk.judge.desk.line() else { return };
            let mut message = [0u8; 16];
            while process::read(line.as_fd(), &mut message) == Ok(9) {
                let number = message[..8].try_into().map_or(0, u64::from_ne_bytes);
                desk.judge.desk.deliver(number, Approval::from_byte(message[8]));
            }
        })
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), Errno> {
    let thread = std::thread::Builder::new().name("gait-hold".to_owned()).spawn(run);
    thread.map(drop).map_err(|_error| Errno(libc::EAGAIN))
}

fn answer_all(desk: &Arc<Desk>, asked: &Receiver<Held>) {
    while let Ok(held) = asked.recv() {
        match desk.judge(&held, false) {
            Err(Stop::Slow) => {
                let (desk, held) = (Arc::clone(desk), Arc::new(held));
                let (slow, refused) = (Arc::clone(&desk), Arc::clone(&held));
                let started = spawn(move || {
                    let answer = slow.judge(&held, true);
                    slow.answer(&held, answer.is_ok());
                });
                if started.is_err() {
                    desk.answer(&refused, false);
                }
            }
            answer => desk.answer(&held, answer.is_ok()),
        }
    }
}

impl Desk {
    /// Judges and records all actions of a held call, in the order in which a held system call would be.
    fn judge(&self, held: &Held, may_block: bool) -> Result<(), Stop> {
        let caller = Caller { tid: held.tid, at_ns: held.at_ns, may_block, absent: false };
        let mut message = Vec::new();
        let mut judged = Vec::with_capacity(held.deeds.len());
        for (operation, object) in &held.deeds {
            let path = match object {
                Object::Hidden => return Err(Errno(libc::EACCES).into()),
                Object::Foreign(path) => {
                    let action = action(*operation, path, &held.image);
                    return self.judge.refuse(caller, &action, &mut message);
                }
                Object::Judged(path) => path,
            };
            judged.push(action(*operation, path, &held.image));
        }
        // A rename must not make readable what may not be read under the old name; where it may, there is nothing to record.
        let renames = judged.iter().any(|action| is_rename(action.operation));
        let (reads, rest): (Vec<_>, Vec<_>) = judged
            .into_iter()
            .partition(|action| renames && matches!(action.operation, Operation::Read | Operation::List));
        for read in reads {
            if self.judge.decide(&read).verdict() != Verdict::Allow {
                self.judge.judge(caller, &[read], &mut message)?;
            }
        }
        if rest.is_empty() { Ok(()) } else { self.judge.judge(caller, &rest, &mut message) }
    }

    /// Puts the answer into the kernel, and continues the process where it was the last one.
    fn answer(&self, held: &Held, allowed: bool) {
        let answer = if allowed { verdict::ALLOW } else { verdict::BLOCK };
        let answers = self.table.answer(held.tgid, held.tid, held.question, answer);
        if answers.is_empty() {
            return;
        }
        for (tid, question, answer) in &answers {
            let grant = Grant {
                object: question.object,
                second: question.second,
                until: 0,
                operations: question.operations,
                verdict: u32::from(*answer),
            };
            // Without a grant the thread asks once more, which is the safe way to fail.
            let _again = self.kernel.grant(*tid, &grant).is_err();
        }
        resume(held.tgid, held.tid);
    }
}

fn is_rename(operation: Operation) -> bool {
    matches!(operation, Operation::RenameOld | Operation::RenameOver | Operation::RenameNew)
}

fn action<'a>(operation: Operation, path: &'a [u8], image: &'a [u8]) -> Action<'a> {
    Action { operation, object: Target::Path(path), image, argv: None }
}

/// Continues a process whose thread was told to stop. The stop is waited for: SIGCONT before it would be for nothing.
pub(super) fn resume(tgid: u32, tid: u32) {
    let until = Instant::now() + STOPPING;
    while Instant::now() < until {
        match state(tgid, tid) {
            Some(b'T' | b't') => break,
            None | Some(b'Z' | b'X') => return,
            Some(_) => std::thread::sleep(LOOK),
        }
    }
    let _gone = process::kill(tgid, libc::SIGCONT).is_err();
}

/// Returns the state letter of `/proc/PID/task/TID/stat`.
pub(super) fn state(tgid: u32, tid: u32) -> Option<u8> {
    let stat = std::fs::read(format!("/proc/{tgid}/task/{tid}/stat")).ok()?;
    stat.get(stat.iter().rposition(|&byte| byte == b')')? + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Question = Question { object: 1, second: 0, operations: 1 };
    const OTHER: Question = Question { object: 2, second: 0, operations: 1 };

    #[test]
    fn a_process_goes_on_when_its_last_thread_has_an_answer() {
        let table = Table::default();
        assert!(table.ask(7, 7, FIRST));
        assert!(table.ask(7, 8, OTHER));
        assert!(!table.ask(7, 8, OTHER), "the thread asks again, as after a SIGCONT of somebody else");
        assert!(table.answer(7, 7, FIRST, verdict::ALLOW).is_empty());
        let answers = table.answer(7, 8, OTHER, verdict::BLOCK);
        assert_eq!(answers, [(7, FIRST, verdict::ALLOW), (8, OTHER, verdict::BLOCK)]);
        assert!(table.lock().is_empty());
    }

    #[test]
    fn a_stopped_child_is_continued() {
        let mut child = std::process::Command::new("sleep").arg("0.3").spawn().unwrap();
        let pid = child.id();
        process::kill(pid, libc::SIGSTOP).unwrap();
        resume(pid, pid);
        assert!(child.wait().unwrap().success());
        assert_eq!(state(pid, pid), None);
    }
}
