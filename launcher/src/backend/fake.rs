//! A scripted kernel, for tests of everything that is above a backend.
//!
//! A thread plays the judging side: it takes one step of the script after the other, has the same judge decide and record
//! that the seccomp supervisor uses, over the same kind of ring, and hands the answer back to the script. The guard, the
//! evidence and the runpack are the real ones. Nothing is performed: that is up to the script.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Decision;
use gait_agent::policy::CompiledPolicy;

use super::feed::Feed;
use super::rate::Rate;
use super::seccomp::judge::{Caller, Judge};
use super::seccomp::supervisor::Stop;
use super::{Backend, BackendKind, Next, Pause, StartError};
use crate::approval::Desk;
use crate::exec::coverage::Coverage;
use crate::exec::event::{Approval, Event};
use crate::exec::status::Status;
use crate::sys::process;
use crate::sys::ring::Producer;
use crate::sys::{Errno, Named, SyscallError, ring};

/// The thread id that stands in scripted events.
const TID: u32 = 1;

/// What an action is about; the owned form of [`Object`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// An absolute, resolved path.
    Path(Vec<u8>),
    /// An internet peer: the name it was asked for by, its address, its port.
    Host(Option<String>, Option<IpAddr>, u16),
    /// Free text.
    Other(String),
}

/// One action; the owned form of [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// What is done.
    pub operation: Operation,
    /// What it is done to.
    pub thing: Thing,
    /// Who does it.
    pub image: Vec<u8>,
    /// The arguments of a new program, each ended by NUL.
    pub argv: Option<Vec<u8>>,
}

impl Deed {
    fn action(&self) -> Action<'_> {
        let object = match &self.thing {
            Thing::Path(path) => Object::Path(path),
            Thing::Host(name, address, port) => {
                Object::Host(Host { name: name.as_deref(), address: *address, port: *port })
            }
            Thing::Other(text) => Object::Other(text),
        };
        Action { operation: self.operation, object, image: &self.image, argv: self.argv.as_deref() }
    }
}

/// One step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    /// One held call with all its actions.
    Held(Vec<Deed>),
    /// A held call that this backend never lets happen.
    Refused(Deed),
    /// The kernel let an action happen, or not, by rules it was given beforehand; told afterwards.
    Decided {
        /// The action.
        deed: Deed,
        /// What the kernel decided, as the gate decides about this other action.
        like: Deed,
    },
    /// As `Decided`, of something that the kernel never lets happen.
    NeverHappened(Deed),
    /// The kernel had no room for events.
    Lost(u64),
    /// A message that nobody can read: the other side died while it wrote, or lost its mind.
    Garbled,
    /// The first process of the workload ends.
    Exits(i32),
    /// The judging side is killed.
    Dies,
    /// Somebody tells of an action after the judging side has ended.
    Afterwards(Deed),
}

/// What the caller of a held call gets: nothing, or an errno.
pub type Answer = Result<(), i32>;

/// The script: called with the answer of the step before (none at first, and for steps that get none), returns the next
/// step; at its end the judging side ends as after the last process of the tree.
pub type Script = Box<dyn FnMut(Option<Answer>) -> Option<Step> + Send>;

/// What does not go through the judge, in order; an empty message in the ring stands for the next of these.
#[derive(Debug)]
enum Aside {
    Decided(Deed, Decision),
    Lost(u64),
}

type Asides = Arc<Mutex<VecDeque<Aside>>>;

/// The scripted backend.
pub(crate) struct Fake {
    script: Option<Script>,
    policy: Arc<CompiledPolicy>,
    hidden: Vec<Vec<u8>>,
    simulate: bool,
    player: Option<Player>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").field("player", &self.player).finish_non_exhaustive()
    }
}

/// The guard's ends of everything.
#[derive(Debug)]
struct Player {
    feed: Feed,
    asides: Asides,
    /// What the message that was taken last stands for, where it stands for something.
    aside: Option<Aside>,
    /// Hangs up when the thread ends.
    life: OwnedFd,
    go: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<Curtain>>,
    clean: Option<bool>,
    told_end: bool,
    afterwards: Option<Deed>,
}

/// How a script ended.
#[derive(Debug)]
struct Curtain {
    clean: bool,
    afterwards: Option<Deed>,
}

impl Fake {
    pub(crate) fn new(
        script: Script,
        policy: Arc<CompiledPolicy>,
        hidden: Vec<Vec<u8>>,
        simulate: bool,
    ) -> Self {
        Self { script: Some(script), policy, hidden, simulate, player: None }
    }
}

/// The thread's side.
struct Stage {
    judge: Judge,
    asides: Asides,
    status: OwnedFd,
    message: Vec<u8>,
}

impl Stage {
    fn play(mut self, mut script: Script) -> Curtain {
        let mut curtain = Curtain { clean: true, afterwards: None };
        let mut answer = None;
        while let Some(step) = script(answer.take()) {
            match step {
                Step::Held(deeds) => answer = Some(self.held(&deeds)),
                Step::Refused(deed) => {
                    let refused = self.judge.refuse(caller(), &deed.action(), &mut self.message);
                    answer = Some(answered(refused));
                }
                Step::Decided { deed, like } => {
                    let decision = self.judge.decide(&like.action());
                    self.aside(Aside::Decided(deed, decision));
                }
                Step::NeverHappened(deed) => self.aside(Aside::Decided(deed, Decision::NEVER)),
                Step::Lost(count) => self.aside(Aside::Lost(count)),
                Step::Garbled => drop(self.producer(|producer| producer.push(b"garbled"))),
                Step::Exits(status) => Status::Exited { status }.send(self.status.as_fd()),
                Step::Dies => return Curtain { clean: false, ..curtain },
                Step::Afterwards(deed) => curtain.afterwards = Some(deed),
            }
        }
        curtain
    }

    fn held(&mut self, deeds: &[Deed]) -> Answer {
        let actions: Vec<_> = deeds.iter().map(Deed::action).collect();
        answered(self.judge.judge(caller(), &actions, &mut self.message))
    }

    fn producer<R>(&self, with: impl FnOnce(&mut Producer) -> R) -> R {
        with(&mut self.judge.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn aside(&self, aside: Aside) {
        self.asides.lock().unwrap_or_else(PoisonError::into_inner).push_back(aside);
        let _closed = self.producer(|producer| producer.push(b"")).is_err();
    }
}

fn caller() -> Caller {
    Caller { tid: TID, at_ns: process::now_ns(), may_block: true, absent: false }
}

fn answered(result: Result<(), Stop>) -> Answer {
    result.map_err(|stop| match stop {
        Stop::Errno(errno) => errno.0,
        // The caller may block, so nothing is put off.
        Stop::Slow => libc::EPERM,
    })
}

fn scripted<'a>(deed: &'a Deed, decision: Decision, enforced: bool) -> Event<'a> {
    Event {
        at_ns: process::now_ns(),
        tid: TID,
        decision: decision.to_u64(),
        enforced,
        absent: false,
        approval: Approval::None,
        action: deed.action(),
    }
}

impl Backend for Fake {
    fn kind(&self) -> BackendKind {
        BackendKind::Fake
    }

    fn install(&mut self) -> Result<(), StartError> {
        let Some(script) = self.script.take() else { return Ok(()) };
        let (producer, events) = ring::pair()?;
        let (status, status_end) = process::pipe().call("pipe2")?;
        let (life, life_end) = process::pipe().call("pipe2")?;
        let (go, go_end) = process::pipe().call("pipe2")?;
        let asides = Asides::default();
        let stage = Stage {
            judge: Judge {
                policy: Arc::clone(&self.policy),
                hidden: self.hidden.clone(),
                simulate: self.simulate,
                events: Mutex::new(producer),
                desk: Desk::new(None),
                rate: self.policy.exec().limits.actions_per_second.map(Rate::new),
            },
            asides: Arc::clone(&asides),
            status: status_end,
            message: Vec::new(),
        };
        let playing = std::thread::Builder::new().name("gait-fake".to_owned());
        let spawned = playing.spawn(move || {
            let _life = life_end;
            match process::read(go.as_fd(), &mut [0]) {
                Ok(1) => stage.play(script),
                _ => Curtain { clean: false, afterwards: None },
            }
        });
        let thread = spawned.map_err(|_error| Errno(libc::EAGAIN)).call("clone")?;
        self.player = Some(Player {
            feed: Feed::new(events, status),
            asides,
            aside: None,
            life,
            go: Some(go_end),
            thread: Some(thread),
            clean: None,
            told_end: false,
            afterwards: None,
        });
        Ok(())
    }

    fn coverage(&mut self) -> Result<Coverage, StartError> {
        Ok(Coverage::fake(self.simulate, self.policy.exec().reads))
    }

    fn release(&mut self) -> Result<(), SyscallError> {
        let go = self.player.as_ref().and_then(|player| player.go.as_ref());
        go.map_or(Ok(()), |go| process::write(go.as_fd(), b"g").call("write").map(drop))
    }

    fn next_event(&mut self) -> Option<Next<'_>> {
        let enforced = !self.simulate;
        self.player.as_mut()?.next(enforced)
    }

    fn wait(&mut self, also: BorrowedFd<'_>, pause: Pause) -> bool {
        let Some(player) = &mut self.player else { return false };
        let ready = player.feed.wait(also, player.life.as_fd(), &[], pause);
        if ready.life {
            player.join();
        }
        ready.also
    }

    fn end(&mut self) {
        let Some(player) = &mut self.player else { return };
        // The thread goes on with its script, and every call of it is refused.
        player.feed.close();
        player.go = None;
        player.join();
    }
}

impl Player {
    fn next(&mut self, enforced: bool) -> Option<Next<'_>> {
        if self.feed.pop() {
            if self.feed.message().is_empty() {
                self.aside = self.asides.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                return match self.aside.as_ref()? {
                    Aside::Decided(deed, decision) => {
                        Some(Next::Decided(scripted(deed, *decision, enforced)))
                    }
                    Aside::Lost(count) => {
                        Some(Next::Lost { count: *count, reason: "the kernel had no room".to_owned() })
                    }
                };
            }
            return Some(match Event::decode(self.feed.message()) {
                Some(event) => Next::Held(event),
                None => {
                    Next::Lost { count: 1, reason: "an event of the script could not be read".to_owned() }
                }
            });
        }
        if let Some(status) = self.feed.news() {
            return Some(Next::Tree(status));
        }
        let clean = self.clean?;
        if !self.told_end {
            self.told_end = true;
            return Some(Next::Ended { clean });
        }
        let deed = self.afterwards.take()?;
        self.aside = Some(Aside::Decided(deed, Decision::NEVER));
        match self.aside.as_ref()? {
            Aside::Decided(deed, decision) => Some(Next::Held(scripted(deed, *decision, enforced))),
            Aside::Lost(_) => None,
        }
    }

    /// Takes over how the script ended; a panic in it goes on here.
    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let curtain = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (self.clean, self.afterwards) = (Some(curtain.clean), curtain.afterwards);
        self.feed.look_for_news();
    }
}
