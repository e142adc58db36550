//! The guard: starts the supervisor, keeps terminal and signals as the workload would have them without gait, writes the
//! evidence, and seals it.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gait_agent::gate::{Decision, Verdict};
use gait_agent::policy::CompiledPolicy;
use gait_agent::runpack::Sealed;
use gait_agent::sign::SigningKey;
use gait_agent::trace::{Ending, JournalSummary};

use super::coverage::{self, Installed};
use super::event::{Approval, Event};
use super::evidence::{self, Evidence, EvidenceError, Identity, RunDirectory};
use super::reaper;
use super::status::{Status, Step};
use crate::approval::prompt;
use crate::backend::seccomp::{self, Supervision, Workload};
use crate::sys::process::{self, Change, Fork};
use crate::sys::ring::{self, Consumer};
use crate::sys::{Errno, SyscallError, signal};

/// How long the guard lets events gather before it looks again, while they come.
const GATHER_MS: i32 = 4;
/// How often evidence is handed to the operating system while events come.
const FLUSH: Duration = Duration::from_millis(250);
/// Blocked actions that are told one by one; the rest is in the records.
const TOLD: u32 = 200;

/// Everything that a session is started with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) policy: CompiledPolicy,
    /// Paths that the workload may not even read.
    pub(crate) hidden: Vec<Vec<u8>>,
    pub(crate) identity: Identity,
    pub(crate) simulate: bool,
    /// Accept a host on which the backend is weaker than it could be.
    pub(crate) allow_degraded: bool,
    pub(crate) run: RunDirectory,
    /// Whether stdout is for the JSON answer besides the workload's output.
    pub(crate) keep_stdout: bool,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) summary: JournalSummary,
    pub(crate) sealed: Sealed,
    pub(crate) runpack: PathBuf,
    /// Distinct blocked actions.
    pub(crate) blocked: u64,
    /// The errno of the workload's execve(2), where it never ran.
    pub(crate) exec_failed: Option<Errno>,
}

/// A session failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// A call of the guard.
    #[error(transparent)]
    Call(#[from] SyscallError),
    /// The start failed in one of the other processes.
    #[error("{} failed: {errno}", step.as_str())]
    Start {
        /// What was being done.
        step: Step,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The host cannot enforce what the policy needs.
    #[error("this host is weaker than required: {0}")]
    Degraded(String),
    /// The signing key.
    #[error("the signing key cannot be used: {0}")]
    Key(String),
    /// Evidence could not be written; the workload was ended.
    #[error("evidence cannot be written, so the workload was ended")]
    Evidence(#[source] EvidenceError),
    /// The supervisor ended before the tree did; everything was killed.
    #[error("the supervisor died; the workload was killed{}", sealed_note(.0.as_deref()))]
    SupervisorDied(Option<PathBuf>),
}

fn sealed_note(path: Option<&std::path::Path>) -> String {
    path.map_or_else(String::new, |path| format!("; what was recorded is in {}", path.display()))
}

/// The guard's ends of everything, after the supervisor was started.
struct Guard {
    supervisor: u32,
    events: Consumer,
    status: OwnedFd,
    signals: OwnedFd,
    /// Kept open as long as the guard lives: its end tells the supervisor that the guard is gone.
    start: OwnedFd,
    policy: CompiledPolicy,
    root: Option<u32>,
    ending: Option<Ending>,
    exec_failed: Option<Errno>,
    supervisor_ended: Option<bool>,
    blocked: u64,
    told: u32,
    message: Vec<u8>,
    flushed: Instant,
}

/// Runs a session. `key` is called after the supervisor has been forked, so that it never holds the key.
///
/// # Errors
/// Where the session cannot start or be recorded; nothing of the workload is left then.
pub(crate) fn run(
    plan: Plan,
    key: impl FnOnce() -> Result<SigningKey, String>,
) -> Result<Outcome, SessionError> {
    let Plan { workload, policy, hidden, identity, simulate, allow_degraded, run, keep_stdout } = plan;
    match begin(&workload, policy, hidden, simulate, keep_stdout) {
        Err(error) => {
            run.discard();
            Err(error)
        }
        Ok(guard) => guarded(guard, run, identity, simulate, allow_degraded, key),
    }
}

fn guarded(
    mut guard: Guard,
    run: RunDirectory,
    identity: Identity,
    simulate: bool,
    allow_degraded: bool,
    key: impl FnOnce() -> Result<SigningKey, String>,
) -> Result<Outcome, SessionError> {
    let begun = key().map_err(SessionError::Key).and_then(|key| {
        let installed = guard.wait_ready()?;
        let missing = coverage::degraded(installed);
        if !missing.is_empty() && !simulate && !allow_degraded {
            return Err(SessionError::Degraded(missing.join("; ")));
        }
        Ok((key, coverage::seccomp(installed, simulate, guard.policy.exec().reads)))
    });
    let (key, coverage) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            run.discard();
            guard.end_everything();
            return Err(error);
        }
    };
    let mut evidence = match Evidence::begin(run, identity, &coverage, key) {
        Ok(evidence) => evidence,
        Err(error) => {
            guard.end_everything();
            return Err(SessionError::Evidence(error));
        }
    };
    let watched =
        guard.release_workload().map_err(EvidenceOr::Call).and_then(|()| guard.watch(&mut evidence));
    match watched {
        Ok(()) => guard.finish(evidence),
        Err(EvidenceOr::Evidence(error)) => {
            guard.end_everything();
            Err(SessionError::Evidence(error))
        }
        Err(EvidenceOr::Call(error)) => {
            guard.end_everything();
            Err(error.into())
        }
    }
}

enum EvidenceOr {
    Evidence(EvidenceError),
    Call(SyscallError),
}

impl From<EvidenceError> for EvidenceOr {
    fn from(error: EvidenceError) -> Self {
        Self::Evidence(error)
    }
}

/// Makes the channels and forks the supervisor.
fn begin(
    workload: &Workload,
    policy: CompiledPolicy,
    hidden: Vec<Vec<u8>>,
    simulate: bool,
    keep_stdout: bool,
) -> Result<Guard, SessionError> {
    use crate::sys::Named;
    let (producer, events) = ring::pair()?;
    let (status, status_end) = process::pipe().call("pipe2")?;
    let (start_end, start) = process::pipe().call("pipe2")?;
    let line =
        if prompt::terminal().is_some() { Some(process::socketpair().call("socketpair")?) } else { None };
    let (line, line_end) = line.unzip();
    // Orphans come here if both the supervisor and the reaper are killed.
    process::set_subreaper().call("prctl")?;
    let blocked = signal::Set::all();
    let _previous = signal::set_mask(&blocked).call("sigprocmask")?;
    let signals = signal::signalfd(&blocked).call("signalfd")?;
    let supervisor = match process::fork().call("fork")? {
        Fork::Child => {
            drop((events, status, start, line, signals));
            let supervision = Supervision {
                policy,
                hidden,
                simulate,
                events: producer,
                status: status_end,
                start: start_end,
                approvals: line_end,
            };
            seccomp::supervise(supervision, workload)
        }
        Fork::Parent(pid) => pid,
    };
    drop((producer, status_end, start_end, line_end));
    release_pipes(keep_stdout);
    if let Some(line) = line {
        let answering = std::thread::Builder::new().name("gait-approval".to_owned());
        let spawned = answering.spawn(move || prompt::answer_all(&line));
        drop(spawned.map_err(|_error| Errno(libc::EAGAIN)).call("clone")?);
    }
    Ok(Guard {
        supervisor,
        events,
        status,
        signals,
        start,
        policy,
        root: None,
        ending: None,
        exec_failed: None,
        supervisor_ended: None,
        blocked: 0,
        told: 0,
        message: Vec::with_capacity(8192),
        flushed: Instant::now(),
    })
}

/// Lets go of the workload's stdin and, unless the answer goes there, stdout, so that pipes end when the workload does.
fn release_pipes(keep_stdout: bool) {
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let last = if keep_stdout { 0 } else { 1 };
        for fd in 0..=last {
            let _unlikely = process::replace_fd(null.as_fd(), fd).is_err();
        }
    }
}

/// Writes a line to stderr; nobody reading it is no failure of the session.
fn tell(text: &str) {
    let _unread = std::io::stderr().write_all(text.as_bytes()).is_err();
}

impl Guard {
    /// Starts the others' set-up and waits until the workload is ready to be let go.
    fn wait_ready(&mut self) -> Result<Installed, SessionError> {
        use crate::sys::Named;
        process::write(self.start.as_fd(), b"s").call("write")?;
        loop {
            match Status::receive(&self.status) {
                Some(Status::Ready { floor, scope, killable, sync }) => {
                    return Ok(Installed { floor, scope, killable, sync });
                }
                Some(Status::Failed { step, errno }) => return Err(SessionError::Start { step, errno }),
                Some(Status::Started { pid }) => self.root = Some(pid),
                Some(_) => {}
                None => return Err(SessionError::Start { step: Step::Process, errno: Errno(libc::ECHILD) }),
            }
        }
    }

    /// Lets the workload's first process go on to its execve(2).
    fn release_workload(&self) -> Result<(), SyscallError> {
        use crate::sys::Named;
        process::write(self.start.as_fd(), b"g").call("write").map(drop)
    }

    /// Handles events, news and signals until the supervisor has ended and all is read.
    fn watch(&mut self, evidence: &mut Evidence) -> Result<(), EvidenceOr> {
        loop {
            let busy = self.drain(evidence)?;
            if self.supervisor_ended.is_some() {
                // What the supervisor accepted before it ended is in the ring.
                self.drain(evidence)?;
                self.news();
                return Ok(());
            }
            if busy && self.flushed.elapsed() > FLUSH {
                evidence.flush()?;
                self.flushed = Instant::now();
            }
            if !busy && !self.events.may_sleep() {
                continue;
            }
            let fds: [BorrowedFd<'_>; 3] = [self.signals.as_fd(), self.status.as_fd(), self.events.bell()];
            let timeout = if busy { Some(GATHER_MS) } else { None };
            // While events gather the bell is silent: the producer rings only for a sleeping reader.
            let ready = process::poll(if busy { &fds[..2] } else { &fds }, timeout).unwrap_or_default();
            if !busy {
                self.events.awake();
            }
            if ready.first() == Some(&true) {
                self.signals();
            }
            if ready.get(1) == Some(&true) {
                self.news();
            }
        }
    }

    /// Records what is in the ring; returns whether there was anything.
    fn drain(&mut self, evidence: &mut Evidence) -> Result<bool, EvidenceError> {
        let mut any = false;
        let mut message = std::mem::take(&mut self.message);
        let mut result = Ok(());
        while result.is_ok() && self.events.pop(&mut message) {
            any = true;
            result = match Event::decode(&message) {
                Some(event) => self.record(&event, evidence),
                None => evidence.note("an event of the supervisor could not be read"),
            };
        }
        self.message = message;
        result.map(|()| any)
    }

    fn record(&mut self, event: &Event<'_>, evidence: &mut Evidence) -> Result<(), EvidenceError> {
        let first = evidence.record(event, &self.policy)?;
        let decision = evidence::decision(event);
        if first && event.enforced && evidence::final_verdict(decision, event) != Verdict::Allow {
            self.blocked += 1;
            if event.absent {
                // Programs probe for files that may not be there; that is for the record, not for the terminal.
                return Ok(());
            }
            self.tell_blocked(event, decision);
        }
        Ok(())
    }

    /// One line per blocked action, and what to do about it.
    fn tell_blocked(&mut self, event: &Event<'_>, decision: Decision) {
        if self.told == TOLD {
            self.told += 1;
            tell("gait: more actions were blocked; see `gait run inspect`\n");
        }
        if self.told > TOLD {
            return;
        }
        self.told += 1;
        let why = self.policy.explain(decision);
        let by = match (&why.matched_rule, &why.origin) {
            (Some(rule), Some(origin)) => format!(" by rule {rule} ({origin})"),
            (Some(rule), None) => format!(" by rule {rule}"),
            (None, _) => format!(" ({})", why.reason_codes.join(", ")),
        };
        let answer = match event.approval {
            Approval::Unavailable => ": approval needed, nobody to ask",
            Approval::Refused => ": refused",
            Approval::TimedOut => ": nobody answered",
            Approval::None | Approval::Once | Approval::Session => "",
        };
        let mut text = format!("gait: blocked {}{by}{answer}\n", evidence::describe(&event.action));
        if let Some(hint) = &why.justification {
            text.push_str(&format!("hint: {hint}\n"));
        }
        let text: String =
            text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
        tell(&text);
    }

    /// Takes all news of the tree.
    fn news(&mut self) {
        while process::readable(self.status.as_fd()) {
            match Status::receive(&self.status) {
                Some(Status::Started { pid }) => self.root = Some(pid),
                Some(Status::ExecFailed { errno }) => self.exec_failed = Some(errno),
                Some(Status::Stopped { .. }) => self.stop(),
                Some(Status::Exited { status }) => self.ending = Some(Ending::Exited(status)),
                Some(Status::Killed { signal }) => self.ending = Some(Ending::Killed(signal)),
                Some(Status::Failed { step, errno }) => {
                    tell(&format!("gait: {} failed: {errno}\n", step.as_str()));
                }
                Some(Status::Ready { .. } | Status::TreeEnded) => {}
                None => return,
            }
        }
    }

    /// The workload stopped, so the job stops: the shell sees it, and `fg` or `bg` continues both.
    fn stop(&self) {
        signal::stop_self();
        if let Some(root) = self.root.filter(|_| self.ending.is_none()) {
            let _gone = process::kill(root, libc::SIGCONT).is_err();
        }
    }

    fn signals(&mut self) {
        while let Some(received) = signal::next(self.signals.as_fd()) {
            if received.signal == libc::SIGCHLD {
                self.children();
            } else if received.from_process {
                // A terminal signals the whole group by itself; what a process sent to gait is meant for the workload.
                if let Some(root) = self.root.filter(|_| self.ending.is_none()) {
                    let _gone = process::kill(root, received.signal).is_err();
                }
            }
        }
    }

    fn children(&mut self) {
        while let Ok(Some(change)) = process::wait_any(false) {
            match change {
                Change::Exited { pid, status } if pid == self.supervisor => {
                    self.supervisor_ended = Some(status == 0);
                }
                Change::Killed { pid, .. } if pid == self.supervisor => self.supervisor_ended = Some(false),
                _ => {}
            }
        }
    }

    /// Ends all processes of the session.
    fn end_everything(&mut self) {
        self.events.close();
        let _gone = process::kill(self.supervisor, libc::SIGKILL).is_err();
        let _unlikely = reaper::kill_descendants().is_err();
    }

    fn finish(mut self, mut evidence: Evidence) -> Result<Outcome, SessionError> {
        let died = self.supervisor_ended != Some(true) || self.ending.is_none();
        if died {
            self.end_everything();
            evidence.note("the supervisor died; the workload was killed").map_err(SessionError::Evidence)?;
        }
        let ending = if died { Ending::Aborted } else { self.ending.unwrap_or(Ending::Aborted) };
        let (summary, sealed, runpack) = evidence.seal(ending).map_err(SessionError::Evidence)?;
        if died {
            return Err(SessionError::SupervisorDied(Some(runpack)));
        }
        Ok(Outcome { ending, summary, sealed, runpack, blocked: self.blocked, exec_failed: self.exec_failed })
    }
}
