//! Held actions of the kernel path: the thread is stopped, the gate answers, the call is made again.
//!
//! A hook that finds no verdict in its tables tells of the action, stops the thread's process with SIGSTOP and has the call
//! restarted (`-ERESTARTNOINTR`). Here the action is judged and recorded as any held call is; the answer goes into the
//! kernel as a grant for that thread, that object and those operations, and SIGCONT lets the process try again. The hook then
//! decides on whatever object it meets, so an answer for one object is never used for another.
//!
//! A process is continued only when all of its held threads have their answers: a stop is one of the whole process. Where
//! somebody else continues it, its threads ask again. Such a question is neither judged nor recorded twice: it was asked before
//! its answer was there, which the times tell.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gait_agent::action::{Action, Object as Target};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_ebpf::layout::{Grant, verdict};
use rustc_hash::FxHashMap;

use super::Kernel;
use super::objects::Object;
use super::resume::{Resumer, Stop as Stopped, Stopping};
use crate::approval::prompt;
use crate::backend::seccomp::judge::{Caller, Judge};
use crate::backend::seccomp::supervisor::Stop;
use crate::exec::event::Approval;
use crate::sys::{Errno, bpf::boot_ns, process};

/// Answers that are remembered before those too old to matter are forgotten.
const REMEMBERED: usize = 1024;

/// One held action.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) tid: u32,
    pub(super) tgid: u32,
    pub(super) at_ns: u64,
    /// When the kernel told of it, by `CLOCK_BOOTTIME`.
    pub(super) asked: u64,
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

/// What to do about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    New,
    /// It will be answered.
    Known,
    /// It was asked before its answer was there: the thread only has to try again.
    Answered,
}

/// Who waits.
#[derive(Debug)]
struct Table {
    /// The workload's first process.
    root: u32,
    waiting: Mutex<Processes>,
    /// The last answer of each thread, and when it was in the kernel.
    given: Mutex<FxHashMap<u32, (Question, u64)>>,
}

/// Processes with held threads.
#[derive(Debug, Default)]
struct Processes {
    waiting: FxHashMap<u32, Waiting>,
    /// How often the first process was continued.
    continued: u64,
}

impl Table {
    fn new(root: u32) -> Self {
        Self { root, waiting: Mutex::default(), given: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> MutexGuard<'_, FxHashMap<u32, (Question, u64)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question that was asked at this moment.
    fn ask(&self, tgid: u32, tid: u32, question: Question, asked: u64) -> Asked {
        let mut table = self.lock();
        let waiting = table.waiting.entry(tgid).or_default();
        let answered = |(by, what, _): &(u32, Question, u8)| (*by, *what) == (tid, question);
        if waiting.open.contains(&(tid, question)) || waiting.answered.iter().any(answered) {
            return Asked::Known;
        }
        // Entered in any case: a process that was told to stop is one of ours until it is continued.
        if self.given().get(&tid).is_some_and(|(what, at)| *what == question && asked <= *at) {
            return Asked::Answered;
        }
        waiting.open.push((tid, question));
        Asked::New
    }

    /// Notes an answer; returns all answers of the process once none of its questions is open. It goes on when they are in
    /// the kernel.
    fn answer(&self, tgid: u32, tid: u32, question: Question, answer: u8) -> Vec<(u32, Question, u8)> {
        let mut table = self.lock();
        let Some(waiting) = table.waiting.get_mut(&tgid) else { return Vec::new() };
        waiting.open.retain(|open| *open != (tid, question));
        waiting.answered.push((tid, question, answer));
        if waiting.open.is_empty() { waiting.answered.clone() } else { Vec::new() }
    }

    /// Notes that answers are in the kernel.
    fn gave(&self, tgid: u32, answers: &[(u32, Question, u8)], now: u64, valid: u64) {
        let mut given = self.given();
        if given.len() >= REMEMBERED {
            given.retain(|_, (_, at)| now.saturating_sub(*at) < valid);
        }
        given.extend(answers.iter().map(|(tid, question, _)| (*tid, (*question, now))));
        drop(given);
        if let Some(waiting) = self.lock().waiting.get_mut(&tgid) {
            waiting.answered.retain(|answer| !answers.contains(answer));
        }
    }

    /// The wait for a process's stop is over: continues it, unless one of its threads has no answer yet. All under the lock, so that
    /// whoever finds a process not waiting finds it continued too.
    fn end(&self, tgid: u32, stop: Stopped) {
        let mut table = self.lock();
        let idle = |waiting: &Waiting| waiting.open.is_empty() && waiting.answered.is_empty();
        if !table.waiting.get(&tgid).is_none_or(idle) {
            return;
        }
        if stop == Stopped::There {
            table.continued += u64::from(tgid == self.root);
            let _gone = process::kill(tgid, libc::SIGCONT).is_err();
        }
        table.waiting.remove(&tgid);
    }
}

/// The answering side; shared by the threads that answer.
#[derive(Debug)]
struct Desk {
    judge: Judge,
    kernel: Arc<dyn Kernel>,
    table: Arc<Table>,
    resumer: Resumer,
}

/// The guard's handle.
#[derive(Debug)]
pub(super) struct Holder {
    desk: Arc<Desk>,
    questions: Sender<Held>,
}

impl Holder {
    /// Starts the answering thread. `root` is the workload's first process.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(super) fn start(judge: Judge, kernel: Arc<dyn Kernel>, root: u32) -> Result<Self, Errno> {
        let table = Arc::new(Table::new(root));
        let waiting = Arc::clone(&table);
        let resumer = Resumer::start(Arc::new(move |tgid, stop| waiting.end(tgid, stop)))?;
        let desk = Arc::new(Desk { judge, kernel, table, resumer });
        let (questions, asked) = mpsc::channel();
        let answering = Arc::clone(&desk);
        spawn(move || answer_all(&answering, &asked))?;
        Ok(Self { desk, questions })
    }

    /// Has a held action judged and answered.
    pub(super) fn ask(&self, held: Held) {
        match self.desk.table.ask(held.tgid, held.tid, held.question, held.asked) {
            Asked::New => {
                let _ended = self.questions.send(held).is_err();
            }
            Asked::Known => {}
            Asked::Answered => self.resume(held.tgid, held.tid),
        }
    }

    /// Continues the process of a thread that was told to stop, unless one of its threads waits for an answer.
    pub(super) fn resume(&self, tgid: u32, tid: u32) {
        self.desk.resumer.resume(Stopping { tgid, tids: vec![tid] });
    }

    /// Returns how often the workload's first process was continued.
    pub(super) fn continued(&self) -> u64 {
        self.desk.table.lock().continued
    }

    /// Returns whether a process waits for an answer.
    pub(super) fn is_waiting(&self, tgid: u32) -> bool {
        self.desk.table.lock().waiting.contains_key(&tgid)
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

pub(super) fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), Errno> {
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
        let valid = u64::try_from(super::ANSWER.as_nanos()).unwrap_or(u64::MAX);
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
        self.table.gave(held.tgid, &answers, boot_ns(), valid);
        let tids = answers.iter().map(|(tid, ..)| *tid).collect();
        self.resumer.resume(Stopping { tgid: held.tgid, tids });
    }
}

fn is_rename(operation: Operation) -> bool {
    matches!(operation, Operation::RenameOld | Operation::RenameOver | Operation::RenameNew)
}

fn action<'a>(operation: Operation, path: &'a [u8], image: &'a [u8]) -> Action<'a> {
    Action { operation, object: Target::Path(path), image, argv: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Question = Question { object: 1, second: 0, operations: 1 };
    const OTHER: Question = Question { object: 2, second: 0, operations: 1 };
    const VALID: u64 = 1_000_000;

    /// A process of no importance, with the table's number.
    fn stopped() -> (std::process::Child, u32) {
        let child = std::process::Command::new("sleep").arg("0.2").spawn().unwrap();
        let pid = child.id();
        process::kill(pid, libc::SIGSTOP).unwrap();
        (child, pid)
    }

    #[test]
    fn a_process_goes_on_when_its_last_thread_has_an_answer() {
        let (mut child, pid) = stopped();
        let table = Table::new(pid);
        let still = |table: &Table| {
            table.end(pid, Stopped::There);
            let table = table.lock();
            table.continued == 0 && table.waiting.contains_key(&pid)
        };
        assert_eq!(table.ask(pid, 7, FIRST, 10), Asked::New);
        assert_eq!(table.ask(pid, 8, OTHER, 11), Asked::New);
        assert_eq!(table.ask(pid, 8, OTHER, 12), Asked::Known, "as after a SIGCONT of somebody else");
        assert!(table.answer(pid, 7, FIRST, verdict::ALLOW).is_empty());
        assert_eq!(table.ask(pid, 7, FIRST, 13), Asked::Known);
        assert!(still(&table));
        let answers = table.answer(pid, 8, OTHER, verdict::BLOCK);
        assert_eq!(answers, [(7, FIRST, verdict::ALLOW), (8, OTHER, verdict::BLOCK)]);
        assert!(still(&table), "the answers are not in the kernel");
        table.gave(pid, &answers, 20, VALID);
        assert!(table.lock().waiting.contains_key(&pid), "it is one of ours until it is continued");
        table.end(pid, Stopped::There);
        assert!(child.wait().unwrap().success());
        assert!(table.lock().waiting.is_empty());
        assert_eq!(table.lock().continued, 1);
    }

    #[test]
    fn a_question_is_answered_once_for_each_time_it_is_asked() {
        let table = Table::new(1);
        assert_eq!(table.ask(7, 7, FIRST, 10), Asked::New);
        let answers = table.answer(7, 7, FIRST, verdict::ALLOW);
        table.gave(7, &answers, 20, VALID);
        assert_eq!(table.ask(7, 7, FIRST, 15), Asked::Answered, "read late, asked before the answer");
        assert_eq!(table.ask(7, 7, OTHER, 16), Asked::New, "another question");
        assert_eq!(table.ask(7, 7, FIRST, 21), Asked::New, "the answer was used");
    }

    #[test]
    fn answers_are_not_remembered_for_ever() {
        let table = Table::new(1);
        for tid in 0..5000 {
            table.gave(tid, &[(tid, FIRST, verdict::ALLOW)], u64::from(tid) * 2000, VALID);
        }
        assert!(table.given().len() <= REMEMBERED + 1, "{}", table.given().len());
    }
}
