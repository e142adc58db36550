//! Which sessions exist, whose they are, and how much each user may have.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gait_ebpf::layout;
use rustc_hash::FxHashMap;

use super::peer::ROOT;
use super::{Owner, notify, refused};
use crate::backend::ebpf::Refused;

/// Connections that one user may have.
pub(crate) const CONNECTIONS: usize = 16;
/// Connections of all users. Each has a thread.
pub(crate) const ALL_CONNECTIONS: usize = 256;
/// Sessions that one user may have; those that are blocked count until the last of their processes is gone.
pub(crate) const SESSIONS: usize = 8;
/// Sessions that all users together may have; the rest is root's.
pub(crate) const ALL_SESSIONS: usize = layout::MAX_SESSIONS as usize - 1 - SESSIONS;
/// Bytes of tables that one user may have.
pub(crate) const TABLE_BYTES: usize = 64 << 20;
/// How often is looked whether the last process of a blocked session is gone.
const LOOK: Duration = Duration::from_millis(200);

/// What one user has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Use {
    connections: usize,
    sessions: usize,
    bytes: usize,
}

/// A session that waits for its last process to go.
#[derive(Debug)]
struct Blocked {
    session: u32,
    /// Whether the kernel has taken the block.
    done: bool,
    /// Whose it was; nobody's that is known, where a daemon before this one had it.
    share: Option<Share>,
}

#[derive(Debug, Default)]
struct State {
    users: FxHashMap<u32, Use>,
    blocked: Vec<Blocked>,
    /// The daemon ends: nothing new.
    closed: bool,
}

/// The book of sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    owner: Arc<dyn Owner>,
    state: Mutex<State>,
    news: Condvar,
}

/// The right to one connection.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    uid: u32,
}

/// The right to one session.
#[derive(Debug)]
pub(crate) struct Share {
    registry: Arc<Registry>,
    uid: u32,
    bytes: usize,
}

impl Registry {
    /// Opens the book, and blocks what an owner before has left.
    pub(crate) fn new(owner: Arc<dyn Owner>) -> Arc<Self> {
        let registry = Arc::new(Self { owner, state: Mutex::default(), news: Condvar::new() });
        for session in registry.owner.left() {
            notify::say(&format!(
                "session {session} of a daemon before this one is blocked until it is empty"
            ));
            registry.block(session, None);
        }
        registry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters are changed in single steps, so a thread that panicked has left them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection.
    ///
    /// # Errors
    /// The user, or all together, have too many.
    pub(crate) fn seat(self: &Arc<Self>, uid: u32) -> Result<Seat, Refused> {
        let mut state = self.state();
        let all: usize = state.users.values().map(|user| user.connections).sum();
        let user = state.users.entry(uid).or_default();
        if uid != ROOT && user.connections >= CONNECTIONS {
            return Err(too_many(&format!("user {uid} has {CONNECTIONS} connections")));
        }
        if all >= ALL_CONNECTIONS {
            return Err(too_many(&format!("there are {ALL_CONNECTIONS} connections")));
        }
        user.connections += 1;
        Ok(Seat { registry: Arc::clone(self), uid })
    }

    /// Takes in a session with so many bytes of tables.
    ///
    /// # Errors
    /// The user, or all together, have too much.
    pub(crate) fn share(self: &Arc<Self>, uid: u32, bytes: usize) -> Result<Share, Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(refused("the daemon is stopping", "start the session again in a moment"));
        }
        let users = state.users.iter().filter(|(uid, _)| **uid != ROOT);
        let all: usize = users.map(|(_, user)| user.sessions).sum();
        let user = state.users.entry(uid).or_default();
        if uid != ROOT {
            if user.sessions >= SESSIONS {
                return Err(too_many(&format!("user {uid} has {SESSIONS} sessions")));
            }
            if user.bytes + bytes > TABLE_BYTES {
                let most = TABLE_BYTES >> 20;
                return Err(too_many(&format!("the tables of user {uid} would take more than {most} MiB")));
            }
            if all >= ALL_SESSIONS {
                return Err(too_many(&format!("there are {ALL_SESSIONS} sessions")));
            }
        }
        user.sessions += 1;
        user.bytes += bytes;
        Ok(Share { registry: Arc::clone(self), uid, bytes })
    }

    /// Blocks a session, and gives it back once it is empty.
    pub(crate) fn block(&self, session: u32, share: Option<Share>) {
        let done = self.owner.block(session).is_ok();
        self.state().blocked.push(Blocked { session, done, share });
        self.news.notify_one();
    }

    /// Gives back, for ever, each blocked session that has become empty.
    pub(crate) fn sweep_for_ever(&self) {
        loop {
            let mut state = self.state();
            while state.blocked.is_empty() {
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            self.sweep();
            std::thread::sleep(LOOK);
        }
    }

    /// Looks at every blocked session once.
    pub(crate) fn sweep(&self) {
        // A share that ends takes the lock too.
        let blocked = std::mem::take(&mut self.state().blocked);
        let rest: Vec<_> = blocked.into_iter().filter_map(|blocked| self.try_free(blocked)).collect();
        self.state().blocked.extend(rest);
    }

    /// Returns the session if it has to stay.
    fn try_free(&self, mut blocked: Blocked) -> Option<Blocked> {
        blocked.done = blocked.done || self.owner.block(blocked.session).is_ok();
        let empty = self.owner.counters(blocked.session).is_ok_and(|counters| counters.members == 0);
        let freed = blocked.done && empty && self.owner.free(blocked.session).is_ok();
        (!freed).then_some(blocked)
    }

    /// Takes in no more sessions, and returns how many there are, live and blocked.
    pub(crate) fn close(&self) -> (usize, usize) {
        self.state().closed = true;
        self.sweep();
        self.sessions()
    }

    /// Returns how many sessions there are, live and blocked.
    pub(crate) fn sessions(&self) -> (usize, usize) {
        let state = self.state();
        let all: usize = state.users.values().map(|user| user.sessions).sum();
        let owned = state.blocked.iter().filter(|blocked| blocked.share.is_some()).count();
        (all - owned, state.blocked.len())
    }
}

fn too_many(what: &str) -> Refused {
    refused(format!("{what}, and no more are possible"), "end one, or use --backend seccomp")
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        let user = state.users.entry(self.uid).or_default();
        user.connections -= 1;
        if *user == Use::default() {
            state.users.remove(&self.uid);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        let user = state.users.entry(self.uid).or_default();
        user.sessions -= 1;
        user.bytes -= self.bytes;
        if *user == Use::default() {
            state.users.remove(&self.uid);
        }
    }
}
