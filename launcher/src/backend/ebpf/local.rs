//! The programs in this process: root's own session.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gait_ebpf::layout::{Counters, Grant};

use super::{ANSWER, BpfRing, Kernel, LoadError, Programs, Refused, SessionHandle, Tables};

/// Loaded programs with at most one session.
#[derive(Debug)]
pub(super) struct Local(Mutex<State>);

#[derive(Debug)]
struct State {
    programs: Programs,
    session: Option<SessionHandle>,
    /// Says that the pins are in use.
    _lock: File,
}

impl Local {
    pub(super) fn new(programs: Programs, lock: File) -> Self {
        Self(Mutex::new(State { programs, session: None, _lock: lock }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the session, which must exist.
    fn with<T>(
        &self,
        act: impl FnOnce(&mut Programs, &SessionHandle) -> Result<T, LoadError>,
    ) -> Result<T, Refused> {
        let mut state = self.state();
        let State { programs, session, .. } = &mut *state;
        let session = session.as_ref().ok_or_else(|| Refused {
            what: "the session has ended".to_owned(),
            remedy: "start another one".to_owned(),
        })?;
        act(programs, session).map_err(Refused::from)
    }
}

impl Kernel for Local {
    fn open(&self, tables: &Tables<'_>) -> Result<BpfRing, Refused> {
        let mut state = self.state();
        let session = state.programs.open_session(tables)?;
        let ring = session.reader();
        state.session = Some(session);
        Ok(ring?)
    }

    fn seed(&self, pid: u32) -> Result<(), Refused> {
        self.with(|programs, session| programs.seed(session, pid, gait_ebpf::layout::UNKNOWN_IMAGE))
    }

    fn grant(&self, tid: u32, grant: &Grant) -> Result<(), Refused> {
        self.with(|programs, session| programs.grant(session, tid, *grant, ANSWER))
    }

    fn counters(&self) -> Result<Counters, Refused> {
        self.with(|programs, session| programs.counters(session))
    }

    fn close(&self) {
        let mut state = self.state();
        let Some(session) = state.session.take() else { return };
        let left = state.programs.counters(&session).map_or(1, |counters| counters.members);
        let closed = state.programs.close_session(session).is_ok();
        // Whoever is left stays blocked for as long as the programs are attached: then the pins must stay.
        if closed && left == 0 {
            let _left_behind = state.programs.unpin().is_err();
        }
    }
}
