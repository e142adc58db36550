//! The eBPF backend: the policy's rules in the kernel, at its security hooks.
//!
//! What the hooks see whole (opens, names made, moved and removed, modes and owners) is decided in the kernel by tables made
//! from the policy, and told through a ring; the guard judges each of these events again. What they do not see whole stays with the
//! seccomp backend, which holds it as it always does: arguments of programs, names of hosts, sizes, time stamps, and
//! whatever is refused. For those the programs are a second line: they let no member of the tree do directly what only the
//! supervisor does for it.
//!
//! Limits: needs root or a running `gait agent`; Linux 6.1 or newer with BTF and `bpf` among the active security modules.

mod error;
mod hold;
mod host;
mod leftovers;
mod load;
mod local;
mod named;
mod news;
mod objects;
mod pins;
mod record;
mod resume;
mod selftest;
mod session;
mod shared;

pub use error::LoadError;
pub(crate) use leftovers::{Leftover, clean_up};
pub use load::{LoadOptions, Programs};
pub use pins::remove_pins;
pub use session::{NamedPath, SessionHandle, Tables};
pub(crate) use shared::Shared;

pub use crate::sys::bpf_ring::BpfRing;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gait_agent::endpoint::Operation;
use gait_agent::policy::{CompiledPolicy, Lowered};
use gait_ebpf::layout::{Counters, Grant, session_flags};

use crate::approval::{Desk, prompt};
use crate::backend::seccomp::Seccomp;
use crate::backend::seccomp::judge::Judge;
use crate::backend::{Backend, BackendKind, Next, Pause, StartError};
use crate::daemon::SOCKET;
use crate::daemon::client::Remote;
use crate::exec::coverage::Coverage;
use crate::exec::event::{Approval, Event};
use crate::exec::status::Status;
use crate::sys::ring::Consumer;
use crate::sys::{Errno, Named, SyscallError, process, ring};
use hold::Holder;
pub(crate) use named::{NAMED_MAX, look_up_names};
use news::{Gate, Images, News, Pending};
use record::Record;

/// How long an answer to a held action can be used. The thread runs at once when its process is continued.
const ANSWER: Duration = Duration::from_secs(10);
/// Descriptors that a session needs besides.
const OTHER_DESCRIPTORS: usize = 1024;

/// Why the kernel side cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Refused {
    /// What is missing or refused, and by whom.
    pub(crate) what: String,
    /// What would help.
    pub(crate) remedy: String,
}

/// The loaded programs, as one session uses them: owned by this process, or by the daemon.
pub(crate) trait Kernel: std::fmt::Debug + Send + Sync {
    /// Fills the tables of the session and makes its ring.
    ///
    /// # Errors
    /// Where the kernel refuses, or a map is full; nothing of the session is left then.
    fn open(&self, tables: &Tables<'_>) -> Result<BpfRing, Refused>;

    /// Puts a stopped process of one thread under the session's control.
    ///
    /// # Errors
    /// Where that is not so.
    fn seed(&self, pid: u32) -> Result<(), Refused>;

    /// Answers a held action of a thread.
    ///
    /// # Errors
    /// What the kernel, or whoever owns the programs, says.
    fn grant(&self, tid: u32, grant: &Grant) -> Result<(), Refused>;

    /// Returns what no event tells.
    ///
    /// # Errors
    /// As [`Self::grant`].
    fn counters(&self) -> Result<Counters, Refused>;

    /// Ends the session: its tables go, and what still lives of its tree is blocked.
    fn close(&self);

    /// What hangs up when whoever owns the programs is gone, where that is another process. Held actions are not answered
    /// any more then, and the session ends.
    fn line(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Says what of this host stands against the backend, as far as that can be seen without trying.
///
/// # Errors
/// The first thing that does.
pub(crate) fn look_around() -> Result<(), Refused> {
    Ok(host::check()?)
}

/// Whether a session would ask the daemon: who may load programs does it alone.
pub(crate) fn by_daemon() -> bool {
    process::real_uid() != 0 && Path::new(SOCKET).exists()
}

/// Loads the programs for one session with these rules, or asks the daemon, which has them loaded.
///
/// # Errors
/// Whatever the kernel refuses; nothing is attached then.
pub(crate) fn connect(rules: &Lowered, pin: &str) -> Result<Arc<dyn Kernel>, Refused> {
    if by_daemon() {
        return Ok(Arc::new(Remote::connect(Path::new(SOCKET))?));
    }
    // Root can do without, but the daemon has everything loaded already.
    if Path::new(SOCKET).exists()
        && let Ok(remote) = Remote::connect(Path::new(SOCKET))
    {
        return Ok(Arc::new(remote));
    }
    let room = |entries: usize| u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
    let options = LoadOptions {
        cells: room(rules.cells.len()).max(SELF_TEST_ROOM),
        words: room(rules.words.len()).max(SELF_TEST_ROOM),
        identities: room(rules.literals.len().min(NAMED_MAX)),
        pin: Some(pin.to_owned()),
        ..LoadOptions::default()
    };
    // What killed sessions left behind would stay attached for ever. What still has processes stays.
    let _kept = clean_up()?;
    let _away = leftovers::keep_away()?;
    let programs = Programs::load(&options)?;
    let lock = leftovers::hold(pin).map_err(|source| LoadError::Pin {
        path: Path::new(gait_ebpf::layout::PIN_ROOT).join(pin),
        source,
    })?;
    Ok(Arc::new(local::Local::new(programs, lock)))
}

/// Does everything that a session does to get the programs to work, and undoes it.
///
/// # Errors
/// As [`connect`].
pub(crate) fn try_out() -> Result<(), Refused> {
    look_around()?;
    let _away = leftovers::keep_away()?;
    // Pinned, so that they can be taken out without waiting for it.
    let pin = format!("doctor-{}", process::pid());
    let options = LoadOptions {
        cells: SELF_TEST_ROOM,
        words: SELF_TEST_ROOM,
        pin: Some(pin.clone()),
        ..LoadOptions::default()
    };
    let mut programs = Programs::load(&options)?;
    let _lock = leftovers::hold(&pin).ok();
    Ok(programs.unpin()?)
}

/// Events between two looks at whether the programs still have an owner.
const LOOK_EVERY: u32 = 256;
/// Entries that the probe after loading needs.
const SELF_TEST_ROOM: u32 = 16;

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Self {
        Self { what: load::chain(&error), remedy: error.remedy().to_owned() }
    }
}

/// The eBPF backend of one session.
#[derive(Debug)]
pub(crate) struct Ebpf {
    inner: Seccomp,
    kernel: Arc<dyn Kernel>,
    policy: Arc<CompiledPolicy>,
    hidden: Vec<Vec<u8>>,
    simulate: bool,
    rules: Lowered,
    live: Option<Live>,
    /// How the other side ended, until that is told.
    ended: Option<bool>,
    /// How often was asked what comes next.
    told: u32,
}

/// What exists once the session runs.
#[derive(Debug)]
struct Live {
    ring: BpfRing,
    news: News,
    /// Held actions, judged and recorded by the holder.
    held: Consumer,
    message: Vec<u8>,
    current: Option<Pending>,
    /// The workload's first process.
    root: u32,
    /// Losses that were told.
    lost: u64,
    /// A stop of the first process of which nobody knows yet whose it is: how often it had been continued before.
    stopped: Option<u64>,
    /// Keeps the inodes of the named places in memory.
    _places: Vec<OwnedFd>,
}

/// Where the next thing to tell comes from.
enum Source {
    Stopped,
    Decided,
    Held,
    Lost(u64),
    Inner,
    Ended(bool),
}

impl Ebpf {
    pub(crate) fn new(
        inner: Seccomp,
        kernel: Arc<dyn Kernel>,
        policy: Arc<CompiledPolicy>,
        hidden: Vec<Vec<u8>>,
        simulate: bool,
        rules: Lowered,
    ) -> Self {
        Self { inner, kernel, policy, hidden, simulate, rules, live: None, ended: None, told: 0 }
    }

    fn flags(&self) -> u32 {
        let flag = |on: bool, bit| if on { bit } else { 0 };
        flag(self.simulate, session_flags::SIMULATE)
            | flag(self.policy.can_block(Operation::MmapExec), session_flags::MMAP_EXEC)
    }

    fn go_live(&self, root: u32) -> Result<Live, StartError> {
        // The workload has its own limit already.
        process::allow_open_files(NAMED_MAX + OTHER_DESCRIPTORS).call("prlimit")?;
        let (places, kept) = named::places(&self.rules, NAMED_MAX)?;
        let tables = Tables {
            cells: &self.rules.cells,
            words: &self.rules.words,
            names: self.rules.names,
            paths: self.rules.paths,
            images: self.rules.images,
            image_classes: self.rules.image_classes,
            flags: self.flags(),
            identities: &places,
            holder: process::pid(),
        };
        let ring = self.kernel.open(&tables)?;
        self.kernel.seed(root)?;
        let (producer, held) = ring::pair()?;
        let (line, line_end) = match prompt::terminal() {
            Some(_) => process::socketpair().map(|(a, b)| (Some(a), Some(b))).call("socketpair")?,
            None => (None, None),
        };
        let judge = Judge {
            policy: Arc::clone(&self.policy),
            hidden: self.hidden.clone(),
            simulate: self.simulate,
            events: Mutex::new(producer),
            desk: Desk::new(line_end),
            rate: None,
        };
        let holder = Holder::start(judge, Arc::clone(&self.kernel), root).call("clone")?;
        if let Some(line) = line {
            holder.listen_to(line).call("clone")?;
        }
        let tree = parent_of(root).unwrap_or(root);
        let news = News {
            holder,
            images: Images::new(),
            pending: VecDeque::new(),
            paused: Vec::new(),
            tree,
            garbled: 0,
        };
        Ok(Live {
            ring,
            news,
            held,
            message: Vec::new(),
            current: None,
            root,
            lost: 0,
            stopped: None,
            _places: kept,
        })
    }

    /// Ends the session where whoever owns the programs is gone.
    fn look_at_owner(&mut self) {
        if self.ended.is_none() && self.kernel.line().is_some_and(process::hung_up) {
            self.inner.end();
            self.ended = Some(false);
        }
    }

    /// Reads the ring until there is something to tell.
    fn source(&mut self) -> Source {
        // A workload that is never idle must not keep the guard from seeing it.
        self.told = self.told.wrapping_add(1);
        if self.told.is_multiple_of(LOOK_EVERY) {
            self.look_at_owner();
        }
        let Some(live) = &mut self.live else { return Source::Inner };
        let gate = Gate { policy: &self.policy, hidden: &self.hidden, rules: &self.rules };
        loop {
            if let Some(next) = live.news.pending.pop_front() {
                live.current = Some(next);
                return Source::Decided;
            }
            let Some(bytes) = live.ring.next() else { break };
            match Record::read(bytes) {
                Some(record) => live.news.take(&record, gate),
                None => live.news.garbled += 1,
            }
        }
        live.news.resume_paused();
        if live.was_stopped() {
            return Source::Stopped;
        }
        let garbled = std::mem::take(&mut live.news.garbled);
        if garbled > 0 {
            return Source::Lost(garbled);
        }
        if live.held.pop(&mut live.message) {
            return Source::Held;
        }
        let Some(clean) = self.ended.take() else { return Source::Inner };
        let lost = self.kernel.counters().map_or(0, |counters| counters.lost).saturating_sub(live.lost);
        if lost > 0 {
            live.lost += lost;
            self.ended = Some(clean);
            return Source::Lost(lost);
        }
        Source::Ended(clean)
    }
}

impl Live {
    /// The workload's first process was told to have stopped.
    fn note_stop(&mut self) {
        let continued = self.news.holder.continued();
        // Where it goes on already, the stop was ours, or whoever stopped it has continued it.
        self.stopped = (resume::state(self.root, self.root) == Some(b'T')).then_some(continued);
    }

    /// Whether somebody else has stopped the workload's first process; called when the ring is read out. A hook writes its event before it
    /// stops a process, so a stop of ours is one that the ring has told of, or that is over.
    fn was_stopped(&mut self) -> bool {
        let Some(before) = self.stopped.take() else { return false };
        if self.news.holder.is_waiting(self.root) {
            return false;
        }
        if self.news.holder.continued() == before {
            return true;
        }
        // Continued since, and perhaps stopped again by an event that is not read yet.
        self.note_stop();
        false
    }
}

impl Backend for Ebpf {
    fn kind(&self) -> BackendKind {
        BackendKind::Ebpf
    }

    fn install(&mut self) -> Result<(), StartError> {
        self.inner.install()
    }

    fn coverage(&mut self) -> Result<Coverage, StartError> {
        let coverage = self.inner.coverage()?;
        let first = self.inner.first().ok_or(Errno(libc::ESRCH)).call("fork")?;
        self.live = Some(self.go_live(first)?);
        Ok(coverage.with_rules_in_the_kernel())
    }

    fn release(&mut self) -> Result<(), SyscallError> {
        self.inner.release()
    }

    fn next_event(&mut self) -> Option<Next<'_>> {
        match self.source() {
            Source::Decided => {
                let pending = self.live.as_ref()?.current.as_ref()?;
                let action = pending.action();
                Some(Next::Decided(Event {
                    at_ns: pending.at_ns,
                    tid: pending.tid,
                    decision: pending.decision.to_u64(),
                    enforced: !self.simulate,
                    absent: false,
                    approval: Approval::None,
                    action,
                }))
            }
            Source::Held => {
                let lost = || Next::Lost { count: 1, reason: "a held event could not be read".to_owned() };
                Some(Event::decode(&self.live.as_ref()?.message).map_or_else(lost, Next::Held))
            }
            Source::Lost(count) => {
                Some(Next::Lost { count, reason: "the ring of events had no room".to_owned() })
            }
            Source::Stopped => Some(Next::Tree(Status::Stopped { signal: libc::SIGSTOP })),
            Source::Ended(clean) => Some(Next::Ended { clean }),
            Source::Inner => match self.inner.next_event() {
                Some(Next::Ended { clean }) => {
                    // What the kernel told before the end is still in the ring.
                    self.ended = Some(clean);
                    None
                }
                Some(Next::Tree(Status::Stopped { signal: libc::SIGSTOP })) if self.live.is_some() => {
                    if let Some(live) = &mut self.live {
                        live.note_stop();
                    }
                    // Told in `source`, if it is worth telling.
                    None
                }
                other => other,
            },
        }
    }

    fn wait(&mut self, also: BorrowedFd<'_>, pause: Pause) -> bool {
        self.look_at_owner();
        let Some(live) = &self.live else { return self.inner.wait(also, pause) };
        if pause != Pause::Gather
            && (self.ended.is_some() || live.stopped.is_some() || !live.held.may_sleep())
        {
            return false;
        }
        let (ring, held) = (live.ring.as_fd(), live.held.bell());
        let ready = match self.kernel.line() {
            Some(line) => self.inner.wait_with(also, &[ring, held, line], pause),
            None => self.inner.wait_with(also, &[ring, held], pause),
        };
        if pause != Pause::Gather {
            live.held.awake();
        }
        ready
    }

    fn end(&mut self) {
        self.inner.end();
        if self.live.take().is_some() {
            self.kernel.close();
        }
    }
}

impl Drop for Ebpf {
    fn drop(&mut self) {
        if self.live.is_some() {
            self.kernel.close();
        }
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.get(stat.iter().rposition(|&byte| byte == b')')? + 2..)?;
    std::str::from_utf8(after).ok()?.split(' ').nth(1)?.parse().ok()
}
