//! The guard: starts the backend, keeps terminal and signals as the workload would have them without gait, writes the
//! evidence, and seals it.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gait_agent::gate::{Decision, Verdict};
use gait_agent::policy::CompiledPolicy;
use gait_agent::runpack::Sealed;
use gait_agent::sign::SigningKey;
use gait_agent::trace::{Ending, JournalSummary};

use super::event::{Approval, Event};
use super::evidence::{self, Evidence, EvidenceError, Identity, RunDirectory};
use super::status::Status;
use crate::backend::{Backend, Next, Pause, StartError};
use crate::session_config::decide;
use crate::sys::{Errno, Named, SyscallError, process, signal};

/// How long what was recorded may wait before it is handed to the operating system: what is lost if the guard is killed.
const FLUSH: Duration = Duration::from_millis(250);
/// Blocked actions that are told one by one; the rest is in the records.
const TOLD: u32 = 200;

/// Everything that a session is started with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) policy: Arc<CompiledPolicy>,
    /// Paths that the workload may not even read.
    pub(crate) hidden: Vec<Vec<u8>>,
    pub(crate) identity: Identity,
    /// Accept a host on which the backend is weaker than it could be.
    pub(crate) allow_degraded: bool,
    pub(crate) run: RunDirectory,
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
    /// The backend could not be set up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The host cannot enforce what the policy needs.
    #[error("this host is weaker than required: {0}")]
    Degraded(String),
    /// The signing key.
    #[error("the signing key cannot be used: {0}")]
    Key(String),
    /// Evidence could not be written; the workload was ended.
    #[error("evidence cannot be written, so the workload was ended")]
    Evidence(#[source] EvidenceError),
    /// The judging side ended before the tree did; everything was killed.
    #[error("the supervisor died; the workload was killed{}", sealed_note(.0.as_deref()))]
    SupervisorDied(Option<PathBuf>),
    /// The kernel did something else than the policy says; everything was killed.
    #[error("kernel and policy disagree, so the workload was ended: {what}{}", sealed_note(Some(.runpack)))]
    Disagreement {
        /// On what, and who says what.
        what: String,
        /// What was recorded.
        runpack: PathBuf,
    },
}

fn sealed_note(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!("; what was recorded is in {}", path.display()))
}

/// What the guard knows of a running session.
struct Guard {
    signals: OwnedFd,
    policy: Arc<CompiledPolicy>,
    hidden: Vec<Vec<u8>>,
    root: Option<u32>,
    ending: Option<Ending>,
    exec_failed: Option<Errno>,
    blocked: u64,
    told: u32,
    flushed: Instant,
}

/// Why nothing more is to be watched.
#[derive(Debug)]
enum Close {
    /// The backend has ended, because the tree did or before it.
    Ended { clean: bool },
    /// The kernel decided otherwise than the gate.
    Disagreement(String),
}

/// Runs a session. `key` is called after the judging side exists, so that it never holds the key.
///
/// # Errors
/// Where the session cannot start or be recorded; nothing of the workload is left then.
pub(crate) fn run(
    plan: Plan,
    key: impl FnOnce() -> Result<SigningKey, String>,
) -> Result<Outcome, SessionError> {
    let Plan { mut backend, policy, hidden, identity, allow_degraded, run } = plan;
    let guard = Guard::new(policy, hidden)
        .map_err(SessionError::Call)
        .and_then(|guard| backend.install().map(|()| guard).map_err(SessionError::Start));
    match guard {
        Ok(guard) => guarded(guard, &mut *backend, run, identity, allow_degraded, key),
        Err(error) => {
            run.discard();
            backend.end();
            Err(error)
        }
    }
}

fn guarded(
    mut guard: Guard,
    backend: &mut dyn Backend,
    run: RunDirectory,
    identity: Identity,
    allow_degraded: bool,
    key: impl FnOnce() -> Result<SigningKey, String>,
) -> Result<Outcome, SessionError> {
    let begun = key().map_err(SessionError::Key).and_then(|key| {
        let coverage = backend.coverage()?;
        match coverage.weaknesses() {
            [] => Ok((key, coverage)),
            _ if allow_degraded => Ok((key, coverage)),
            weaknesses => Err(SessionError::Degraded(weaknesses.join("; "))),
        }
    });
    let (key, coverage) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            run.discard();
            backend.end();
            return Err(error);
        }
    };
    let recorded =
        Evidence::begin(run, identity, backend.kind(), &coverage, key).map_err(SessionError::Evidence);
    let watched = recorded.and_then(|mut evidence| {
        backend.release()?;
        let close = guard.watch(backend, &mut evidence).map_err(SessionError::Evidence)?;
        Ok((close, evidence))
    });
    match watched {
        Ok((close, evidence)) => guard.finish(backend, &close, evidence),
        Err(error) => {
            backend.end();
            Err(error)
        }
    }
}

/// Writes a line to stderr; nobody reading it is no failure of the session.
fn tell(text: &str) {
    let _unread = std::io::stderr().write_all(text.as_bytes()).is_err();
}

impl Guard {
    fn new(policy: Arc<CompiledPolicy>, hidden: Vec<Vec<u8>>) -> Result<Self, SyscallError> {
        let blocked = signal::Set::all();
        let _previous = signal::set_mask(&blocked).call("sigprocmask")?;
        Ok(Self {
            signals: signal::signalfd(&blocked).call("signalfd")?,
            policy,
            hidden,
            root: None,
            ending: None,
            exec_failed: None,
            blocked: 0,
            told: 0,
            flushed: Instant::now(),
        })
    }

    /// Handles events, news and signals until the backend has ended and all is read.
    fn watch(&mut self, backend: &mut dyn Backend, evidence: &mut Evidence) -> Result<Close, EvidenceError> {
        // Whether something was recorded since evidence was handed over last.
        let mut dirty = false;
        loop {
            let mut busy = false;
            while let Some(next) = backend.next_event() {
                match next {
                    Next::Held(event) => self.record(&event, evidence)?,
                    Next::Decided(event) => {
                        if let Some(what) = self.judge_again(&event, evidence)? {
                            return Ok(Close::Disagreement(what));
                        }
                    }
                    Next::Lost { count, reason } => lose(count, &reason, evidence)?,
                    Next::Tree(status) => {
                        self.news(status);
                        continue;
                    }
                    Next::Ended { clean } => {
                        return Ok(Close::Ended { clean: nothing_after(backend, evidence)? && clean });
                    }
                }
                busy = true;
            }
            dirty |= busy;
            if dirty && self.flushed.elapsed() >= FLUSH {
                evidence.flush()?;
                self.flushed = Instant::now();
                dirty = false;
            }
            let pause = match (busy, dirty) {
                (true, _) => Pause::Gather,
                (false, true) => Pause::Until(FLUSH.saturating_sub(self.flushed.elapsed())),
                (false, false) => Pause::Idle,
            };
            if backend.wait(self.signals.as_fd(), pause) {
                self.signals();
            }
        }
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

    /// Judges what the kernel decided; returns on what the two disagree.
    ///
    /// What a backend never lets happen stands above the policy, so there is nothing to compare. Otherwise the verdicts must
    /// be the same, and the gate's reasons are the recorded ones: the kernel knows a lowered form of the rules only.
    fn judge_again(
        &mut self,
        event: &Event<'_>,
        evidence: &mut Evidence,
    ) -> Result<Option<String>, EvidenceError> {
        let kernel = evidence::decision(event);
        if kernel == Decision::NEVER {
            return self.record(event, evidence).map(|()| None);
        }
        let gate = decide(&self.policy, &self.hidden, &event.action);
        if gate.verdict() == kernel.verdict() {
            let event = Event { decision: gate.to_u64(), ..*event };
            return self.record(&event, evidence).map(|()| None);
        }
        let what = format!(
            "{}: the kernel says {}, the policy {}{}",
            evidence::describe(&event.action),
            kernel.verdict(),
            gate.verdict(),
            self.because(gate)
        );
        evidence.disagree(event, kernel, &what)?;
        Ok(Some(what))
    }

    /// Says which rule decided and where it stands, or why no rule did.
    fn because(&self, decision: Decision) -> String {
        let why = self.policy.explain(decision);
        match (&why.matched_rule, &why.origin) {
            (Some(rule), Some(origin)) => format!(" by rule {rule} ({origin})"),
            (Some(rule), None) => format!(" by rule {rule}"),
            (None, _) => format!(" ({})", why.reason_codes.join(", ")),
        }
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
        let by = self.because(decision);
        let answer = match event.approval {
            Approval::Unavailable => ": approval needed, nobody to ask",
            Approval::Refused => ": refused",
            Approval::TimedOut => ": nobody answered",
            Approval::None | Approval::Once | Approval::Session => "",
        };
        let mut text = format!("gait: blocked {}{by}{answer}\n", evidence::describe(&event.action));
        if let Some(hint) = self.policy.explain(decision).justification {
            text.push_str(&format!("hint: {hint}\n"));
        }
        let text: String =
            text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
        tell(&text);
    }

    fn news(&mut self, status: Status) {
        match status {
            Status::Started { pid } => self.root = Some(pid),
            Status::ExecFailed { errno } => self.exec_failed = Some(errno),
            Status::Stopped { .. } => self.stop(),
            Status::Exited { status } => self.ending = Some(Ending::Exited(status)),
            Status::Killed { signal } => self.ending = Some(Ending::Killed(signal)),
            Status::Failed { step, errno } => tell(&format!("gait: {} failed: {errno}\n", step.as_str())),
            Status::Ready { .. } | Status::TreeEnded => {}
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
            // A terminal signals the whole group by itself; what a process sent to gait is meant for the workload. The
            // ends of children are the backend's business.
            if received.from_process
                && received.signal != libc::SIGCHLD
                && let Some(root) = self.root.filter(|_| self.ending.is_none())
            {
                let _gone = process::kill(root, received.signal).is_err();
            }
        }
    }

    fn finish(
        self,
        backend: &mut dyn Backend,
        close: &Close,
        mut evidence: Evidence,
    ) -> Result<Outcome, SessionError> {
        let whole = matches!(close, Close::Ended { clean: true }) && self.ending.is_some();
        if !whole {
            backend.end();
        }
        if !whole && matches!(close, Close::Ended { .. }) {
            let text = "the supervisor died; the workload was killed";
            evidence.note(text).map_err(SessionError::Evidence)?;
        }
        let ending = self.ending.filter(|_| whole).unwrap_or(Ending::Aborted);
        let (summary, sealed, runpack) = evidence.seal(ending).map_err(SessionError::Evidence)?;
        match close {
            Close::Disagreement(what) => Err(SessionError::Disagreement { what: what.clone(), runpack }),
            Close::Ended { .. } if !whole => Err(SessionError::SupervisorDied(Some(runpack))),
            Close::Ended { .. } => Ok(Outcome {
                ending,
                summary,
                sealed,
                runpack,
                blocked: self.blocked,
                exec_failed: self.exec_failed,
            }),
        }
    }
}

/// Records that actions were lost, and says so.
fn lose(count: u64, reason: &str, evidence: &mut Evidence) -> Result<(), EvidenceError> {
    evidence.lose(count, reason)?;
    tell(&format!("gait: {count} actions were lost: {reason}\n"));
    Ok(())
}

/// Whether a backend that says it has told everything really has. What comes nevertheless counts as lost: what it is worth
/// is unclear.
fn nothing_after(backend: &mut dyn Backend, evidence: &mut Evidence) -> Result<bool, EvidenceError> {
    let mut count = 0;
    while let Some(next) = backend.next_event() {
        count += match next {
            Next::Held(_) | Next::Decided(_) => 1,
            Next::Lost { count, .. } => count,
            Next::Tree(_) | Next::Ended { .. } => 0,
        };
    }
    if count > 0 {
        lose(count, "told after the end of the backend", evidence)?;
    }
    Ok(count == 0)
}

#[cfg(test)]
mod tests;
