//! What killed sessions left pinned, and its end.
//!
//! A session holds a lock on its directory of pins for as long as its guard lives. A directory without a holder is left
//! over. It goes when no process of the session is left: until then the pinned programs are what keeps that process
//! from doing anything.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::MapData;
use gait_ebpf::layout::{self, Counters, MAX_SESSIONS, PIN_ROOT};

use super::{Refused, load, pins};
use crate::sys::bpf;

/// One directory of pins that nobody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// The run or daemon that it was made for.
    pub(crate) name: String,
    /// Processes that are still under its control; where there are none, it was removed.
    pub(crate) members: u64,
}

/// Keeps cleaners away while a set of pins is made that nobody holds yet. Wait for none: a cleaner is done in no time.
///
/// # Errors
/// The place for pins cannot be made or locked.
pub(super) fn keep_away() -> Result<File, Refused> {
    pins::root()?;
    let root = File::open(PIN_ROOT).map_err(|error| unreadable(PIN_ROOT, &error))?;
    root.lock_shared().map_err(|error| unreadable(PIN_ROOT, &error))?;
    Ok(root)
}

/// Takes the lock that says that a set of pins is in use.
///
/// # Errors
/// Somebody else holds it, or the directory cannot be opened.
pub(super) fn hold(name: &str) -> io::Result<File> {
    let directory = File::open(Path::new(PIN_ROOT).join(name))?;
    directory.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })?;
    Ok(directory)
}

/// Removes what is left over, and returns what was found.
///
/// # Errors
/// A directory belongs to somebody else, or cannot be read or removed.
pub(crate) fn clean_up() -> Result<Vec<Leftover>, Refused> {
    let root = match File::open(PIN_ROOT) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(PIN_ROOT, &error)),
    };
    // Somebody is about to take a directory that looks left over.
    root.lock().map_err(|error| unreadable(PIN_ROOT, &error))?;
    let entries = fs::read_dir(PIN_ROOT).map_err(|error| unreadable(PIN_ROOT, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(PIN_ROOT, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let lock = match hold(&name) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            other => other.map_err(|error| unreadable(&name, &error))?,
        };
        let members = members_of(&entry.path());
        if members == 0 {
            pins::remove_pins(&name)?;
        }
        drop(lock);
        found.push(Leftover { name, members });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Returns how many processes are under the control of pinned programs. Where that cannot be told, there may be some; a
/// directory without the map was never finished.
pub(super) fn members_of(directory: &Path) -> u64 {
    let path = directory.join(format!("map_{}", layout::COUNTERS));
    if !path.exists() {
        return 0;
    }
    let Ok(map) = MapData::from_pin(&path) else { return 1 };
    let of = |session: u32| bpf::look_up::<u32, Counters>(map.fd().as_fd(), &session);
    (0..MAX_SESSIONS).map(|session| of(session).map_or(1, |counters| counters.members)).sum()
}

fn unreadable(what: &str, error: &io::Error) -> Refused {
    Refused {
        what: format!("what is pinned in {what} cannot be looked at: {}", load::chain(error)),
        remedy: "run gait doctor --cleanup as root".to_owned(),
    }
}
