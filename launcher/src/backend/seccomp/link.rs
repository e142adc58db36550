//! The seccomp backend as the guard sees it: a supervisor that it forked, and the channels to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gait_agent::policy::CompiledPolicy;

use super::{Files, Supervision, Workload};
use crate::approval::prompt;
use crate::backend::feed::Feed;
use crate::backend::{Backend, BackendKind, Next, Pause, StartError};
use crate::exec::coverage::{Coverage, Installed};
use crate::exec::event::Event;
use crate::exec::reaper;
use crate::exec::status::{Status, Step};
use crate::sys::process::{self, Change, Fork};
use crate::sys::{Errno, Named, SyscallError, ring};

/// The seccomp backend of one session.
#[derive(Debug)]
pub(crate) struct Seccomp {
    workload: Workload,
    policy: Arc<CompiledPolicy>,
    /// Paths that the workload may not even read.
    hidden: Vec<Vec<u8>>,
    simulate: bool,
    files: Files,
    /// Whether stdout is for somebody besides the workload.
    keep_stdout: bool,
    supervisor: Option<Supervisor>,
    /// The workload's first process, told before the guard asked for news.
    started: Option<u32>,
}

/// The supervisor's process and the guard's ends of everything.
#[derive(Debug)]
struct Supervisor {
    pid: u32,
    life: OwnedFd,
    feed: Feed,
    /// Kept open as long as the guard lives: its end tells the supervisor that the guard is gone.
    start: OwnedFd,
    /// How it ended: cleanly or not.
    ended: Option<bool>,
    told_end: bool,
}

impl Seccomp {
    pub(crate) fn new(
        workload: Workload,
        policy: Arc<CompiledPolicy>,
        hidden: Vec<Vec<u8>>,
        simulate: bool,
        files: Files,
        keep_stdout: bool,
    ) -> Self {
        Self { workload, policy, hidden, simulate, files, keep_stdout, supervisor: None, started: None }
    }

    /// As [`Backend::wait`], and ends as soon as one of `others` is readable too.
    pub(in crate::backend) fn wait_with(
        &mut self,
        also: BorrowedFd<'_>,
        others: &[BorrowedFd<'_>],
        pause: Pause,
    ) -> bool {
        let Some(supervisor) = &mut self.supervisor else { return false };
        let ready = supervisor.feed.wait(also, supervisor.life.as_fd(), others, pause);
        if ready.life && supervisor.ended.is_none() {
            supervisor.reap();
        }
        ready.also
    }

    /// Returns the workload's first process, once `coverage` has made it.
    pub(in crate::backend) const fn first(&self) -> Option<u32> {
        self.started
    }

    fn supervisor(&mut self) -> Result<&mut Supervisor, StartError> {
        self.supervisor.as_mut().ok_or(StartError::Step { step: Step::Process, errno: Errno(libc::ESRCH) })
    }
}

impl Backend for Seccomp {
    fn kind(&self) -> BackendKind {
        BackendKind::Seccomp
    }

    fn install(&mut self) -> Result<(), StartError> {
        let (producer, events) = ring::pair()?;
        let (status, status_end) = process::pipe().call("pipe2")?;
        let (start_end, start) = process::pipe().call("pipe2")?;
        let line =
            if prompt::terminal().is_some() { Some(process::socketpair().call("socketpair")?) } else { None };
        let (line, line_end) = line.unzip();
        // Orphans come here if both the supervisor and the reaper are killed.
        process::set_subreaper().call("prctl")?;
        let pid = match process::fork().call("fork")? {
            Fork::Child => {
                drop((events, status, start, line));
                let supervision = Supervision {
                    policy: Arc::clone(&self.policy),
                    hidden: std::mem::take(&mut self.hidden),
                    simulate: self.simulate,
                    files: self.files,
                    events: producer,
                    status: status_end,
                    start: start_end,
                    approvals: line_end,
                };
                super::supervise(supervision, &self.workload)
            }
            Fork::Parent(pid) => pid,
        };
        drop((producer, status_end, start_end, line_end));
        // The guard reaps it, so until then its pid means it.
        let life = process::pidfd_open(pid).call("pidfd_open")?;
        let feed = Feed::new(events, status);
        self.supervisor = Some(Supervisor { pid, life, feed, start, ended: None, told_end: false });
        release_pipes(self.keep_stdout);
        if let Some(line) = line {
            let answering = std::thread::Builder::new().name("gait-approval".to_owned());
            let spawned = answering.spawn(move || prompt::answer_all(&line));
            drop(spawned.map_err(|_error| Errno(libc::EAGAIN)).call("clone")?);
        }
        Ok(())
    }

    fn coverage(&mut self) -> Result<Coverage, StartError> {
        let (simulate, reads) = (self.simulate, self.policy.exec().reads);
        let supervisor = self.supervisor()?;
        process::write(supervisor.start.as_fd(), b"s").call("write")?;
        let (mut started, mut ready) = (None, None);
        let (pid, installed) = loop {
            if let (Some(pid), Some(installed)) = (started, ready) {
                break (pid, installed);
            }
            match supervisor.feed.await_news() {
                Some(Status::Ready { floor, scope, killable, sync }) => {
                    ready = Some(Installed { floor, scope, killable, sync });
                }
                Some(Status::Failed { step, errno }) => return Err(StartError::Step { step, errno }),
                Some(Status::Started { pid }) => started = Some(pid),
                Some(_) => {}
                None => return Err(StartError::Step { step: Step::Process, errno: Errno(libc::ECHILD) }),
            }
        };
        self.started = Some(pid);
        Ok(Coverage::seccomp(installed, simulate, reads))
    }

    fn release(&mut self) -> Result<(), SyscallError> {
        let Some(supervisor) = &self.supervisor else { return Ok(()) };
        process::write(supervisor.start.as_fd(), b"g").call("write").map(drop)
    }

    fn next_event(&mut self) -> Option<Next<'_>> {
        if let Some(pid) = self.started.take() {
            return Some(Next::Tree(Status::Started { pid }));
        }
        let supervisor = self.supervisor.as_mut()?;
        if supervisor.feed.pop() {
            return Some(match Event::decode(supervisor.feed.message()) {
                Some(event) => Next::Held(event),
                None => {
                    Next::Lost { count: 1, reason: "an event of the supervisor could not be read".to_owned() }
                }
            });
        }
        if let Some(status) = supervisor.feed.news() {
            return Some(Next::Tree(status));
        }
        // Its end was seen before the ring was found empty, so what it had accepted is all told.
        let clean = supervisor.ended.filter(|_| !supervisor.told_end)?;
        supervisor.told_end = true;
        Some(Next::Ended { clean })
    }

    fn wait(&mut self, also: BorrowedFd<'_>, pause: Pause) -> bool {
        self.wait_with(also, &[], pause)
    }

    fn end(&mut self) {
        let Some(supervisor) = &self.supervisor else { return };
        supervisor.feed.close();
        let _gone = supervisor.ended.is_none() && process::kill(supervisor.pid, libc::SIGKILL).is_err();
        let _unlikely = reaper::kill_descendants().is_err();
    }
}

impl Supervisor {
    /// Takes the ends of children; orphans of the tree may be among them.
    fn reap(&mut self) {
        while let Ok(Some(change)) = process::wait_any(false) {
            match change {
                Change::Exited { pid, status } if pid == self.pid => self.ended = Some(status == 0),
                Change::Killed { pid, .. } if pid == self.pid => self.ended = Some(false),
                _ => {}
            }
        }
        if self.ended.is_some() {
            self.feed.look_for_news();
        }
    }
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
