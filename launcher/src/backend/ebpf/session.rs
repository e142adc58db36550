//! Sessions of the loaded programs: their tables, their ring, their members.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use gait_ebpf::layout::{
    self, Counters, Grant, GrantKey, Identity, IdentityKey, MAX_SESSIONS, Naming, Seed, Session, filter_bit,
    session_flags,
};

use super::error::LoadError;
use super::load::Programs;
use crate::sys::Errno;
use crate::sys::bpf;
use crate::sys::bpf_ring::BpfRing;

/// A directory or file that rules name, and that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPath {
    /// A descriptor of it, in [`Tables::holder`].
    pub descriptor: u32,
    /// State of the path automaton after its path.
    pub state: u32,
    /// Its number, for events.
    pub name: u32,
}

/// A policy as tables, as [`layout`] describes them.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// The automata.
    pub cells: &'a [u64],
    /// The verdicts.
    pub words: &'a [u64],
    /// Start of the name automaton.
    pub names: u32,
    /// Start of the path automaton, for objects.
    pub paths: u32,
    /// Start of the path automaton, for images.
    pub images: u32,
    /// Classes of images.
    pub image_classes: u32,
    /// [`session_flags`], without `LIVE`.
    pub flags: u32,
    /// What rules name.
    pub identities: &'a [NamedPath],
    /// The process in which that is open, and stays open as long as the session lives.
    pub holder: u32,
}

/// A session that exists in the kernel.
#[derive(Debug)]
pub struct SessionHandle {
    number: u32,
    ring: OwnedFd,
    ring_bytes: u32,
}

impl SessionHandle {
    /// Its number, 1 or more.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Maps its ring for reading. One reader at a time.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn reader(&self) -> Result<BpfRing, LoadError> {
        let fd = self.ring.try_clone().map_err(|source| LoadError::Map { map: layout::RINGS, source })?;
        BpfRing::new(fd, self.ring_bytes).map_err(used(layout::RINGS))
    }
}

impl SessionHandle {
    /// Returns its ring for another process, and how many bytes it has room for.
    pub(super) fn share(&self) -> Result<(OwnedFd, u32), LoadError> {
        let fd = self.ring.try_clone().map_err(|source| LoadError::Map { map: layout::RINGS, source })?;
        Ok((fd, self.ring_bytes))
    }
}

/// Which parts of the shared arrays are taken, and by whom.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    cells: BTreeMap<u32, (u32, u32)>,
    words: BTreeMap<u32, (u32, u32)>,
    sessions: BTreeSet<u32>,
}

/// Finds room for `length` entries between those that are taken: (first, length) by session.
fn room(taken: &BTreeMap<u32, (u32, u32)>, length: u32, capacity: u32) -> Option<u32> {
    let mut ranges: Vec<(u32, u32)> = taken.values().copied().collect();
    ranges.sort_unstable();
    let mut at = 0u32;
    for (first, taken) in ranges {
        if first - at >= length {
            return Some(at);
        }
        at = first + taken;
    }
    (capacity.checked_sub(at)? >= length).then_some(at)
}

fn used(map: &'static str) -> impl Fn(Errno) -> LoadError {
    move |errno| match errno {
        Errno(libc::E2BIG) => LoadError::Full { map, wanted: 1 },
        errno => LoadError::Map { map, source: errno.into() },
    }
}

fn length(map: &'static str, entries: usize) -> Result<u32, LoadError> {
    u32::try_from(entries).map_err(|_error| LoadError::Full { map, wanted: entries as u64 })
}

impl Programs {
    /// Makes a session of a policy's tables. It has no members yet.
    ///
    /// # Errors
    /// [`LoadError::Full`] where the tables do not fit; nothing is left of the session then.
    pub fn open_session(&mut self, tables: &Tables<'_>) -> Result<SessionHandle, LoadError> {
        let number = (1..MAX_SESSIONS)
            .find(|number| !self.rooms.sessions.contains(number))
            .ok_or(LoadError::Full { map: layout::SESSIONS, wanted: 1 })?;
        let result = self.fill(number, tables);
        if result.is_err() {
            // Whatever is left has no session that points to it.
            self.clear(number).unwrap_or_default();
        }
        result
    }

    fn fill(&mut self, number: u32, tables: &Tables<'_>) -> Result<SessionHandle, LoadError> {
        let cell_count = length(layout::CELLS, tables.cells.len())?;
        let word_count = length(layout::WORDS, tables.words.len())?;
        let full = |map, wanted: u32| LoadError::Full { map, wanted: u64::from(wanted) };
        let cells = room(&self.rooms.cells, cell_count, self.options.cells)
            .ok_or_else(|| full(layout::CELLS, cell_count))?;
        let words = room(&self.rooms.words, word_count, self.options.words)
            .ok_or_else(|| full(layout::WORDS, word_count))?;
        self.rooms.sessions.insert(number);
        self.rooms.cells.insert(number, (cells, cell_count));
        self.rooms.words.insert(number, (words, word_count));
        bpf::update_run(self.map(layout::CELLS)?, cells, tables.cells).map_err(used(layout::CELLS))?;
        bpf::update_run(self.map(layout::WORDS)?, words, tables.words).map_err(used(layout::WORDS))?;
        self.identify(number, tables)?;
        bpf::update(self.map(layout::COUNTERS)?, &number, &Counters::default())
            .map_err(used(layout::COUNTERS))?;
        let ring = bpf::create_ring(self.options.ring_bytes).map_err(used(layout::RINGS))?;
        let descriptor = ring.as_raw_fd().unsigned_abs();
        bpf::update(self.map(layout::RINGS)?, &number, &descriptor).map_err(used(layout::RINGS))?;
        let session = Session {
            cells,
            cell_count,
            names: tables.names,
            paths: tables.paths,
            images: tables.images,
            words,
            word_count,
            image_classes: tables.image_classes,
            flags: tables.flags | session_flags::LIVE,
        };
        // Last: with this the session exists.
        bpf::update(self.map(layout::SESSIONS)?, &number, &session).map_err(used(layout::SESSIONS))?;
        Ok(SessionHandle { number, ring, ring_bytes: self.options.ring_bytes })
    }

    /// Makes what the holder has open for the session known by its inodes.
    fn identify(&mut self, number: u32, tables: &Tables<'_>) -> Result<(), LoadError> {
        let wanted = length(layout::NAMED, tables.identities.len())?;
        if wanted == 0 {
            return Ok(());
        }
        let visited = self.visit_named(number, tables);
        // However that went: the next session's descriptors have the same numbers.
        for place in tables.identities {
            bpf::delete(self.map(layout::NAMED)?, &place.descriptor).unwrap_or_default();
        }
        visited?;
        let done: Naming = bpf::look_up(self.map(layout::NAMING)?, &0u32).map_err(used(layout::NAMING))?;
        match done {
            Naming { refused: 0, found, .. } if found == wanted => Ok(()),
            Naming { refused: 0, found, .. } => Err(LoadError::NotNamed { found, wanted }),
            Naming { refused, .. } => {
                Err(LoadError::Full { map: layout::IDENTITIES, wanted: u64::from(refused) })
            }
        }
    }

    /// Names the holder's descriptors, and has the program look at each.
    fn visit_named(&self, number: u32, tables: &Tables<'_>) -> Result<(), LoadError> {
        for place in tables.identities {
            let named = Identity { state: place.state, name: place.name };
            bpf::update(self.map(layout::NAMED)?, &place.descriptor, &named).map_err(used(layout::NAMED))?;
        }
        let naming = Naming { process: tables.holder, session: number, found: 0, refused: 0 };
        bpf::update(self.map(layout::NAMING)?, &0u32, &naming).map_err(used(layout::NAMING))?;
        bpf::visit(self.iterator(layout::IDENTIFY_PROGRAM)?, tables.holder).map_err(used(layout::NAMING))
    }

    /// Ends a session. Members that are left may do nothing any more that is judged.
    ///
    /// # Errors
    /// Where a map cannot be written.
    pub fn close_session(&mut self, session: SessionHandle) -> Result<(), LoadError> {
        self.clear(session.number)
    }

    fn clear(&mut self, number: u32) -> Result<(), LoadError> {
        bpf::update(self.map(layout::SESSIONS)?, &number, &Session::default())
            .map_err(used(layout::SESSIONS))?;
        match bpf::delete(self.map(layout::RINGS)?, &number) {
            Ok(()) | Err(Errno(libc::ENOENT)) => {}
            Err(errno) => return Err(used(layout::RINGS)(errno)),
        }
        self.forget_identities(number)?;
        self.rooms.cells.remove(&number);
        self.rooms.words.remove(&number);
        // A member that is left would become one of the next session of this number: then the number stays taken.
        if self.members(number)? == 0 {
            self.rooms.sessions.remove(&number);
        }
        Ok(())
    }

    /// Removes the session's identities, and clears the bits that stand for nothing any more. Every write leaves the bits of
    /// what is there.
    fn forget_identities(&self, number: u32) -> Result<(), LoadError> {
        let map = self.map(layout::IDENTITIES)?;
        let mut wanted = vec![0u64; usize::try_from(layout::FILTER_BITS / 64).unwrap_or(0)];
        let mut gone = false;
        for key in bpf::keys::<IdentityKey>(map).map_err(used(layout::IDENTITIES))? {
            if key.session == number {
                gone = true;
                match bpf::delete(map, &key) {
                    Ok(()) | Err(Errno(libc::ENOENT)) => {}
                    Err(errno) => return Err(used(layout::IDENTITIES)(errno)),
                }
                continue;
            }
            let bit = filter_bit(key.inode);
            if let Some(word) = usize::try_from(bit / 64).ok().and_then(|at| wanted.get_mut(at)) {
                *word |= 1 << (bit % 64);
            }
        }
        if !gone {
            return Ok(());
        }
        bpf::update_run(self.map(layout::FILTER)?, 0, &wanted).map_err(used(layout::FILTER))
    }

    /// Puts a process under control: one that is stopped, or waits for us, and has a single thread.
    ///
    /// Until its first exec its image is of this class; [`layout::UNKNOWN_IMAGE`] where that cannot be told.
    ///
    /// # Errors
    /// [`LoadError::NotPlaced`] where exactly that process did not become a member.
    pub fn seed(&mut self, session: &SessionHandle, pid: u32, image_class: u32) -> Result<(), LoadError> {
        let wanted = Seed { pid, session: session.number, placed: 0, image_class };
        bpf::update(self.map(layout::SEED)?, &0u32, &wanted).map_err(used(layout::SEED))?;
        bpf::visit(self.iterator(layout::SEED_PROGRAM)?, pid).map_err(|errno| match errno {
            Errno(libc::ESRCH) => LoadError::NotPlaced { pid },
            errno => used(layout::SEED)(errno),
        })?;
        let done: Seed = bpf::look_up(self.map(layout::SEED)?, &0u32).map_err(used(layout::SEED))?;
        if done.placed == 1 { Ok(()) } else { Err(LoadError::NotPlaced { pid }) }
    }

    /// Answers a held action; see [`Grant`], whose `until` is set here. The thread is continued afterwards by the caller.
    ///
    /// # Errors
    /// [`LoadError::Full`] where too many answers wait to be used.
    pub fn grant(
        &self,
        session: &SessionHandle,
        tid: u32,
        grant: Grant,
        valid: Duration,
    ) -> Result<(), LoadError> {
        let key = GrantKey { session: session.number, tid };
        let valid = u64::try_from(valid.as_nanos()).unwrap_or(u64::MAX);
        let grant = Grant { until: bpf::boot_ns().saturating_add(valid), ..grant };
        bpf::update(self.map(layout::GRANTS)?, &key, &grant).map_err(used(layout::GRANTS))
    }

    /// Reads a session's counters.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn counters(&self, session: &SessionHandle) -> Result<Counters, LoadError> {
        bpf::look_up(self.map(layout::COUNTERS)?, &session.number).map_err(used(layout::COUNTERS))
    }

    fn members(&self, number: u32) -> Result<u64, LoadError> {
        let counters: Counters =
            bpf::look_up(self.map(layout::COUNTERS)?, &number).map_err(used(layout::COUNTERS))?;
        Ok(counters.members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_found_between_what_is_taken() {
        let taken = BTreeMap::from([(1, (0, 10)), (2, (30, 10))]);
        assert_eq!(room(&taken, 20, 40), Some(10));
        assert_eq!(room(&taken, 21, 61), Some(40));
        assert_eq!(room(&taken, 21, 60), None);
        assert_eq!(room(&BTreeMap::new(), 5, 5), Some(0));
        assert_eq!(room(&BTreeMap::new(), 6, 5), None);
    }

    #[test]
    fn operations_have_the_numbers_of_the_contract() {
        use gait_agent::endpoint::Operation;
        use gait_ebpf::layout::operation as number;
        for (operation, number) in [
            (Operation::Read, number::READ),
            (Operation::List, number::LIST),
            (Operation::Write, number::WRITE),
            (Operation::Create, number::CREATE),
            (Operation::Truncate, number::TRUNCATE),
            (Operation::Mkdir, number::MKDIR),
            (Operation::Mknod, number::MKNOD),
            (Operation::Symlink, number::SYMLINK),
            (Operation::LinkOld, number::LINK_OLD),
            (Operation::LinkNew, number::LINK_NEW),
            (Operation::RenameOld, number::RENAME_OLD),
            (Operation::RenameNew, number::RENAME_NEW),
            (Operation::RenameOver, number::RENAME_OVER),
            (Operation::Unlink, number::UNLINK),
            (Operation::Rmdir, number::RMDIR),
            (Operation::Chmod, number::CHMOD),
            (Operation::Chown, number::CHOWN),
            (Operation::Exec, number::EXEC),
            (Operation::MmapExec, number::MMAP_EXEC),
            (Operation::Connect, number::CONNECT),
            (Operation::Send, number::SEND),
            (Operation::Listen, number::LISTEN),
            (Operation::UnixConnect, number::UNIX_CONNECT),
            (Operation::Ptrace, number::PTRACE),
            (Operation::Signal, number::SIGNAL),
            (Operation::Ground, number::GROUND),
        ] {
            let place = Operation::ALL.iter().position(|known| *known == operation);
            assert_eq!(place.and_then(|place| u32::try_from(place).ok()), Some(number), "{operation:?}");
        }
        assert_eq!(Operation::ALL.len(), 31);
    }
}
