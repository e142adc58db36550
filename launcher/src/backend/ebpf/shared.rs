//! The programs in the daemon: sessions of many users at once.
//!
//! A daemon does not use what one before it has loaded: it loads a set of its own, in a directory of pins of its own, and
//! keeps the older sets attached, blocked as a whole, until the last process under them is gone. So it need not know
//! how they were laid out, and may be of another version.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::MapData;
use gait_ebpf::layout::{self, Counters, Grant, MAX_SESSIONS, PIN_ROOT, Session, session_flags};
use rustc_hash::FxHashMap;

use super::{
    ANSWER, LoadError, LoadOptions, Programs, Refused, SessionHandle, Tables, clean_up, leftovers, load, pins,
};
use crate::daemon::{New, Owner};
use crate::sys::{Errno, bpf};

/// How the names of the daemon's directories begin.
const PREFIX: &str = "agent-";
/// Cells of all sessions: 32 MiB.
const CELLS: u32 = 1 << 22;
/// Words of all sessions: 8 MiB.
const WORDS: u32 = 1 << 20;
/// Identities of all sessions.
const IDENTITIES: u32 = 1 << 17;
/// Numbers from here on are sets of programs of earlier daemons.
const FIRST_OLD: u32 = 1 << 16;

/// Loaded programs with any number of sessions.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    old: Vec<Old>,
    /// Says that the pins are in use.
    _lock: File,
}

#[derive(Debug)]
struct State {
    programs: Programs,
    sessions: FxHashMap<u32, SessionHandle>,
}

/// A set of programs that a daemon before this one has left attached.
#[derive(Debug)]
struct Old {
    name: String,
    _lock: File,
}

impl Shared {
    /// Loads the programs, and takes charge of those that daemons before have left.
    ///
    /// # Errors
    /// The host does not let it; nothing is attached then.
    pub(crate) fn load() -> Result<Self, Refused> {
        super::look_around()?;
        // Sets without processes, the daemon's and others'.
        let _kept = clean_up()?;
        let _away = leftovers::keep_away()?;
        let mut names: Vec<String> = directories()?;
        names.sort_by_key(|name| number_of(name));
        let next = names.last().and_then(|name| number_of(name)).map_or(1, |last| last + 1);
        let mine = format!("{PREFIX}{next}");
        let options = LoadOptions {
            cells: CELLS,
            words: WORDS,
            identities: IDENTITIES,
            pin: Some(mine.clone()),
            ..LoadOptions::default()
        };
        let programs = Programs::load(&options)?;
        let hold = |name: &str| {
            leftovers::hold(name)
                .map_err(|source| LoadError::Pin { path: Path::new(PIN_ROOT).join(name), source })
        };
        let lock = hold(&mine)?;
        let old = names.into_iter().map(|name| hold(&name).map(|lock| Old { name, _lock: lock }));
        let old = old.collect::<Result<_, _>>()?;
        Ok(Self { state: Mutex::new(State { programs, sessions: FxHashMap::default() }), old, _lock: lock })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The older set that a number stands for.
    fn old(&self, session: u32) -> Option<&Old> {
        session.checked_sub(FIRST_OLD).and_then(|at| self.old.get(usize::try_from(at).ok()?))
    }

    fn with<T>(
        &self,
        session: u32,
        act: impl FnOnce(&mut Programs, &SessionHandle) -> Result<T, LoadError>,
    ) -> Result<T, Refused> {
        let mut state = self.state();
        let State { programs, sessions } = &mut *state;
        let handle = sessions.get(&session).ok_or_else(|| Refused {
            what: format!("there is no session {session}"),
            remedy: "start another one".to_owned(),
        })?;
        act(programs, handle).map_err(Refused::from)
    }
}

/// The directories of daemons before this one.
fn directories() -> Result<Vec<String>, LoadError> {
    let failed = |source| LoadError::Pin { path: PIN_ROOT.into(), source };
    let entries = fs::read_dir(PIN_ROOT).map_err(failed)?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if number_of(&name).is_some() {
            names.push(name);
        }
    }
    Ok(names)
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

impl Old {
    /// Lets no process under these programs do anything that is judged.
    fn block(&self) -> Result<(), LoadError> {
        let path = Path::new(PIN_ROOT).join(&self.name).join(format!("map_{}", layout::SESSIONS));
        let map =
            MapData::from_pin(&path).map_err(|error| LoadError::Object { reason: load::chain(&error) })?;
        // A session that does not exist is one that does not live.
        for session in 0..MAX_SESSIONS {
            match bpf::update(map.fd().as_fd(), &session, &Session::default()) {
                Ok(()) => {}
                Err(errno) => return Err(LoadError::Map { map: layout::SESSIONS, source: errno.into() }),
            }
        }
        Ok(())
    }

    fn members(&self) -> u64 {
        leftovers::members_of(&Path::new(PIN_ROOT).join(&self.name))
    }
}

impl Owner for Shared {
    fn open(&self, tables: &Tables<'_>) -> Result<New, Refused> {
        let mut state = self.state();
        let handle = state.programs.open_session(tables)?;
        let session = handle.number();
        let shared = handle.share();
        state.sessions.insert(session, handle);
        let (ring, ring_bytes) = shared?;
        Ok(New { session, ring, ring_bytes })
    }

    fn seed(&self, session: u32, pid: u32) -> Result<(), Refused> {
        self.with(session, |programs, handle| programs.seed(handle, pid, gait_ebpf::layout::UNKNOWN_IMAGE))
    }

    fn forget(&self, session: u32) {
        let forgotten = self.with(session, |programs, handle| programs.forget_members(handle));
        if let Err(why) = forgotten {
            crate::daemon::notify::say(&format!(
                "a process of session {session} stays under its control: {why}"
            ));
        }
    }

    fn grant(&self, session: u32, tid: u32, grant: &Grant) -> Result<(), Refused> {
        self.with(session, |programs, handle| programs.grant(handle, tid, *grant, ANSWER))
    }

    fn counters(&self, session: u32) -> Result<Counters, Refused> {
        match self.old(session) {
            Some(old) => Ok(Counters { members: old.members(), ..Counters::default() }),
            None => self.with(session, |programs, handle| programs.counters(handle)),
        }
    }

    fn block(&self, session: u32) -> Result<(), Refused> {
        match self.old(session) {
            Some(old) => old.block().map_err(Refused::from),
            None => self.with(session, |programs, handle| programs.block_session(handle)),
        }
    }

    fn free(&self, session: u32) -> Result<(), Refused> {
        if let Some(old) = self.old(session) {
            return pins::remove_pins(&old.name).map_err(Refused::from);
        }
        let mut state = self.state();
        let Some(handle) = state.sessions.remove(&session) else { return Ok(()) };
        Ok(state.programs.close_session(handle)?)
    }

    fn left(&self) -> Vec<u32> {
        (FIRST_OLD..).zip(&self.old).map(|(number, _)| number).collect()
    }

    fn retire(&self) {
        if let Err(error) = self.state().programs.unpin() {
            crate::daemon::notify::say(&format!("the programs stay in the kernel: {}", load::chain(&error)));
        }
    }
}

impl Programs {
    /// Lets no member of a session do anything that is judged. Its tables stay, since members may be reading them.
    fn block_session(&self, session: &SessionHandle) -> Result<(), LoadError> {
        let map = self.map(layout::SESSIONS)?;
        let failed = |errno: Errno| LoadError::Map { map: layout::SESSIONS, source: errno.into() };
        let number = session.number();
        let mut value: Session = bpf::look_up(map, &number).map_err(failed)?;
        value.flags &= !session_flags::LIVE;
        bpf::update(map, &number, &value).map_err(failed)
    }

    /// Takes every member out of a session.
    fn forget_members(&self, session: &SessionHandle) -> Result<(), LoadError> {
        let failed = |map| move |errno: Errno| LoadError::Map { map, source: errno.into() };
        let (members, counters) = (self.map(layout::MEMBERS)?, self.map(layout::COUNTERS)?);
        let number = session.number();
        let mut forgotten = 0;
        for key in bpf::keys(members).map_err(failed(layout::MEMBERS))? {
            // A task that ends takes its entry with it.
            let mut value = vec![0; size_of::<layout::Member>()];
            let found = bpf::look_up_bytes(members, &key, &mut value).is_ok();
            if found && value.starts_with(&number.to_ne_bytes()) && bpf::delete(members, &key).is_ok() {
                forgotten += 1;
            }
        }
        let mut value: Counters = bpf::look_up(counters, &number).map_err(failed(layout::COUNTERS))?;
        value.members = value.members.saturating_sub(forgotten);
        bpf::update(counters, &number, &value).map_err(failed(layout::COUNTERS))
    }
}
