//! System V IPC. Keys and ids are names that the whole host shares, so the tree may use what it made itself, and nothing
//! else. Objects are made on the caller's behalf, because only whoever makes one learns that it is new.

use std::sync::{Mutex, PoisonError};

use gait_agent::endpoint::Operation;
use rustc_hash::FxHashSet;

use super::super::numbers::{self, names as nr};
use super::super::supervisor::{Answer, Stop, Worker};
use super::{Call, refuse};
use crate::sys::Errno;
use crate::sys::ipc::{self, Kind};

/// The objects that the tree made.
#[derive(Debug, Default)]
pub(in super::super) struct Made(Mutex<FxHashSet<(Kind, i32)>>);

impl Made {
    fn add(&self, kind: Kind, id: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, id));
    }

    fn has(&self, kind: Kind, id: i32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(kind, id))
    }

    /// An id may come to mean another object once its own is gone.
    fn forget(&self, kind: Kind, id: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, id));
    }
}

/// shmget(2) and its kin.
pub(super) fn get(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let number = i64::from(call.notification.nr);
    let key = call.int(0);
    let (kind, size, flags) = match number {
        nr::shmget => (Kind::Memory, call.long(1), call.int(2)),
        nr::semget => (Kind::Semaphores, call.long(1), call.int(2)),
        _ => (Kind::Queue, 0, call.int(1)),
    };
    worker.still_held(call.notification)?;
    if key == libc::IPC_PRIVATE || flags & libc::IPC_CREAT != 0 {
        match ipc::get(kind, key, size, flags | libc::IPC_CREAT | libc::IPC_EXCL) {
            Ok(id) => {
                worker.shared.made.add(kind, id);
                return Ok(Answer::Value(i64::from(id)));
            }
            Err(Errno(libc::EEXIST)) if flags & libc::IPC_EXCL == 0 => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let id = ipc::get(kind, key, size, flags & !libc::IPC_CREAT)?;
    if worker.shared.made.has(kind, id) {
        return Ok(Answer::Value(i64::from(id)));
    }
    match refuse(worker, call, Operation::Ground, numbers::name(number))? {
        // In a simulation it is not stopped; the answer is known already.
        Answer::Continue => Ok(Answer::Value(i64::from(id))),
        other => Ok(other),
    }
}

/// Calls that name an object by its id.
pub(super) fn by_id(worker: &mut Worker, call: Call<'_>) -> Result<Answer, Stop> {
    let number = i64::from(call.notification.nr);
    let kind = match number {
        nr::shmat | nr::shmctl => Kind::Memory,
        nr::semop | nr::semtimedop | nr::semctl => Kind::Semaphores,
        _ => Kind::Queue,
    };
    let command = match number {
        nr::shmctl | nr::msgctl => Some(call.int(1)),
        nr::semctl => Some(call.int(2)),
        _ => None,
    };
    // `*_STAT`, `*_INFO` and `*_STAT_ANY` take an index into the host's table for the id.
    let by_index = command.is_some_and(|command| match kind {
        Kind::Memory => (13..=15).contains(&command),
        Kind::Semaphores => (18..=20).contains(&command),
        Kind::Queue => (11..=13).contains(&command),
    });
    if by_index || !worker.shared.made.has(kind, call.int(0)) {
        return refuse(worker, call, Operation::Ground, numbers::name(number));
    }
    if command == Some(libc::IPC_RMID) {
        worker.shared.made.forget(kind, call.int(0));
    }
    Ok(Answer::Continue)
}
