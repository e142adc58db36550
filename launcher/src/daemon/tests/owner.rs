//! A kernel that is a directory: `session.N` says `live` or `blocked`, `member.PID` says `N`, `grant.N.TID` what was
//! answered. It outlives the daemon, as pins do.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gait_ebpf::layout::{Counters, Grant, MAX_SESSIONS, session_flags};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::backend::ebpf::{Refused, Tables};
use crate::daemon::{New, Owner, refused};

/// What a session's ring is said to have room for.
pub(super) const RING_BYTES: u32 = 4096;
const PAGE: usize = 4096;
/// While this file is there, a process dies while it is put into a session.
pub(super) const KILLS: &str = "kills";
/// While this file is there, no session can be blocked.
pub(super) const STUBBORN: &str = "stubborn";

/// A directory that plays the kernel.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    left: Vec<u32>,
}

/// What lies there, as `name content`, sorted.
pub(super) fn listing(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut lines: Vec<String> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let content = fs::read_to_string(entry.path()).unwrap_or_default();
            format!("{} {content}", entry.file_name().to_string_lossy())
        })
        .collect();
    lines.sort();
    lines
}

impl Pins {
    pub(super) fn load(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("programs"), "attached").unwrap();
        let left = listing(directory)
            .iter()
            .filter_map(|line| line.strip_prefix("session.")?.split(' ').next()?.parse().ok())
            .collect();
        Self { directory: directory.to_owned(), left }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn members(&self, session: u32) -> Vec<PathBuf> {
        let mine = format!(" {session}");
        listing(&self.directory)
            .iter()
            .filter(|line| line.starts_with("member.") && line.ends_with(&mine))
            .map(|line| self.file(line.split(' ').next().unwrap()))
            .collect()
    }
}

/// A ring with one record, `ring N`: a page of the reader's, a page of the writer's, then the data, twice.
fn ring(number: u32) -> OwnedFd {
    let record = format!("ring {number}");
    let mut bytes = vec![0; 2 * PAGE + 2 * RING_BYTES as usize];
    bytes[PAGE..PAGE + 8].copy_from_slice(&16u64.to_ne_bytes());
    bytes[2 * PAGE..2 * PAGE + 4].copy_from_slice(&(record.len() as u32).to_ne_bytes());
    bytes[2 * PAGE + 8..2 * PAGE + 8 + record.len()].copy_from_slice(record.as_bytes());
    let mut file = fs::File::from(memfd_create("ring", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(&bytes).unwrap();
    file.into()
}

/// Whether a process runs; one that has ended and is not waited for does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Owner for Pins {
    fn open(&self, tables: &Tables<'_>) -> Result<New, Refused> {
        assert!(tables.flags & session_flags::LIVE == 0, "that is not the client's to say");
        let free = (1..MAX_SESSIONS).find(|number| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).open(self.file(&format!("session.{number}"))).is_ok()
        });
        let number = free.ok_or_else(|| refused("every session of the kernel is taken", "end one"))?;
        fs::write(self.file(&format!("session.{number}")), "live").unwrap();
        Ok(New { session: number, ring: ring(number), ring_bytes: RING_BYTES })
    }

    fn seed(&self, session: u32, pid: u32) -> Result<(), Refused> {
        let mut options = fs::OpenOptions::new();
        let path = self.file(&format!("member.{pid}"));
        if options.write(true).create_new(true).open(&path).is_err() {
            return Err(refused(format!("process {pid} is in a session already"), ""));
        }
        fs::write(path, session.to_string()).unwrap();
        if self.file(KILLS).exists() {
            crate::sys::process::kill(pid, libc::SIGKILL).unwrap();
            super::soon("it is dead", || !runs(&pid.to_string()));
        }
        Ok(())
    }

    fn forget(&self, session: u32) {
        self.members(session).iter().for_each(|path| fs::remove_file(path).unwrap());
        fs::write(self.file(&format!("forgot.{session}")), "").unwrap();
    }

    fn grant(&self, session: u32, tid: u32, grant: &Grant) -> Result<(), Refused> {
        if grant.object == 0 {
            return Err(refused("no answer has room", "wait"));
        }
        fs::write(self.file(&format!("grant.{session}.{tid}")), grant.verdict.to_string()).unwrap();
        Ok(())
    }

    fn counters(&self, session: u32) -> Result<Counters, Refused> {
        for path in self.members(session) {
            let name = path.extension().unwrap().to_str().unwrap().to_owned();
            if !runs(&name) {
                fs::remove_file(path).unwrap();
            }
        }
        Ok(Counters { lost: 5, members: self.members(session).len() as u64, ..Counters::default() })
    }

    fn block(&self, session: u32) -> Result<(), Refused> {
        if self.file(STUBBORN).exists() {
            return Err(refused("the kernel has no memory", "wait"));
        }
        fs::write(self.file(&format!("session.{session}")), "blocked").unwrap();
        Ok(())
    }

    fn free(&self, session: u32) -> Result<(), Refused> {
        assert!(self.members(session).is_empty());
        fs::remove_file(self.file(&format!("session.{session}"))).unwrap();
        Ok(())
    }

    fn left(&self) -> Vec<u32> {
        self.left.clone()
    }

    fn retire(&self) {
        fs::remove_file(self.file("programs")).unwrap();
    }
}
