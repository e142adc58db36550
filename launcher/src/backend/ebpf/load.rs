//! Loading the kernel programs: all of them, or none.

use std::fmt::Write as _;
use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::maps::Map;
use aya::programs::links::FdLink;
use aya::programs::{Lsm, Program, ProgramError};
use aya::{Btf, BtfError, Ebpf, EbpfError, EbpfLoader};
use gait_ebpf::layout;

use super::error::LoadError;
use super::{host, pins, selftest};
use crate::sys::{Errno, process};

/// How many of the verifier's last lines an error keeps.
const LAST_LINES: usize = 12;
/// CPUs that load programs at the same time: beyond this the largest program is what takes longest.
const MAX_LOADERS: usize = 8;
/// The hook that Linux 6.1 does not have: there `path_truncate` stands for it.
const ONLY_NEWER: &str = "file_truncate";

/// How much room the maps get.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Cells of the automata of all sessions.
    pub cells: u32,
    /// Words of all sessions.
    pub words: u32,
    /// Identities of all sessions.
    pub identities: u32,
    /// Tasks under control, of all sessions.
    pub members: u32,
    /// Bytes of each session's ring: a power of two.
    pub ring_bytes: u32,
    /// Name of a directory below [`layout::PIN_ROOT`], so that enforcement outlives this process.
    pub pin: Option<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            cells: 1 << 20,
            words: 1 << 16,
            identities: 1 << 16,
            members: layout::MAX_MEMBERS,
            ring_bytes: layout::RING_BYTES,
            pin: None,
        }
    }
}

/// The programs, attached. Dropping this detaches them, unless they are pinned.
#[derive(Debug)]
pub struct Programs {
    pub(super) ebpf: Ebpf,
    pub(super) options: LoadOptions,
    pub(super) rooms: super::session::Rooms,
    links: Vec<FdLink>,
    pins: Option<PathBuf>,
}

impl Programs {
    /// Looks at the kernel, loads every program, attaches all of them, and proves that a blocked open fails.
    ///
    /// # Errors
    /// Nothing is attached then.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        host::check()?;
        let directory = options.pin.as_deref().map(pins::prepare).transpose()?;
        let result =
            Self::load_and_attach(options).and_then(|programs| programs.pinned(directory.as_deref()));
        if let (Err(_), Some(directory)) = (&result, &directory) {
            // Half of the pins would be worse than none; the error is the one to be told.
            pins::remove(directory).unwrap_or_default();
        }
        let mut programs = result?;
        selftest::run(&mut programs)?;
        Ok(programs)
    }

    fn load_and_attach(options: &LoadOptions) -> Result<Self, LoadError> {
        let btf = Btf::from_sys_fs().map_err(|error| LoadError::NoBtf { reason: chain(&error) })?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .map_max_entries(layout::CELLS, options.cells)
            .map_max_entries(layout::WORDS, options.words)
            .map_max_entries(layout::IDENTITIES, options.identities)
            .map_max_entries(layout::MEMBERS, options.members)
            .load(gait_ebpf::OBJECT)
            .map_err(|error| object(&error))?;
        let ready = prepare_all(&mut ebpf, &btf)?;
        // Only now that the kernel has taken every one of them.
        let mut links = Vec::new();
        for name in ready {
            let Some(program) = ebpf.program_mut(&name) else { continue };
            if let Program::Lsm(hook) = program {
                let link = hook
                    .attach()
                    .and_then(|id| hook.take_link(id))
                    .map_err(|error| refused(&name, &error))?;
                links.push(FdLink::from(link));
            }
        }
        Ok(Self {
            ebpf,
            options: options.clone(),
            rooms: super::session::Rooms::default(),
            links,
            pins: None,
        })
    }

    fn pinned(mut self, directory: Option<&Path>) -> Result<Self, LoadError> {
        let Some(directory) = directory else { return Ok(self) };
        let failed = |path: PathBuf, error: &dyn std::error::Error| LoadError::Pin {
            path,
            source: io::Error::other(chain(error)),
        };
        for (name, map) in self.ebpf.maps() {
            // The compiler's own data sections have names with dots.
            if !name.starts_with('.') {
                let path = directory.join(format!("map_{name}"));
                map.pin(&path).map_err(|error| failed(path, &error))?;
            }
        }
        let mut kept = Vec::new();
        for (number, link) in self.links.drain(..).enumerate() {
            let path = directory.join(format!("link_{number}"));
            let pinned = link.pin(&path).map_err(|error| failed(path, &error))?;
            kept.push(FdLink::from(pinned));
        }
        self.links = kept;
        self.pins = Some(directory.to_owned());
        Ok(self)
    }

    /// Returns how many hooks are attached.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.links.len()
    }

    /// Detaches all hooks by removing their pins, and does not wait for it.
    ///
    /// Whoever closes the last descriptor of an attached program waits until no CPU can be in it, one program after the
    /// other: seconds for all of them. So the descriptors go while the pins are there; what the pins were the last to
    /// hold is taken out by a worker of the kernel (`bpf_link_put_deferred`).
    ///
    /// # Errors
    /// Where one of them cannot be removed.
    pub fn unpin(&mut self) -> Result<(), LoadError> {
        match self.pins.take() {
            Some(directory) => {
                self.links.clear();
                pins::remove(&directory).map_err(|source| LoadError::Pin { path: directory, source })
            }
            None => Ok(()),
        }
    }

    pub(super) fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        let data = match self.ebpf.map(name) {
            Some(Map::Array(data) | Map::HashMap(data) | Map::ArrayOfMaps(data)) => data,
            _ => return Err(LoadError::Object { reason: format!("it has no map {name}") }),
        };
        Ok(data.fd().as_fd())
    }

    /// Returns a program that user space runs by reading.
    pub(super) fn iterator(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        let none = || LoadError::Object { reason: format!("it has no program {name}") };
        match self.ebpf.program(name) {
            Some(Program::Iter(iter)) => iter.fd().map(AsFd::as_fd).map_err(|_not_loaded| none()),
            _ => Err(none()),
        }
    }
}

impl Drop for Programs {
    /// Detaches all hooks at the same time: each waits until no CPU can be in its program any more, and they can wait
    /// together.
    fn drop(&mut self) {
        let links = std::mem::take(&mut self.links);
        std::thread::scope(|scope| {
            for link in links {
                let name = std::thread::Builder::new().name("gait-detach".to_owned());
                // Where no thread can be had the link goes here and now, with the closure.
                let _started = name.spawn_scoped(scope, move || drop(link)).is_ok();
            }
        });
    }
}

/// Hands every program to the kernel, on several CPUs: the verifier's work is most of a start. Returns the names of those
/// that are to be attached.
fn prepare_all(ebpf: &mut Ebpf, btf: &Btf) -> Result<Vec<String>, LoadError> {
    let threads = process::thread_count();
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_LOADERS);
    let queue = Mutex::new(ebpf.programs_mut());
    let work = || {
        let mut ready = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((name, program)) = next else { return Ok(ready) };
            if prepare(name, program, btf)? {
                ready.push(name.to_owned());
            }
        }
    };
    let mut ready = std::thread::scope(|scope| {
        let thread = |_| std::thread::Builder::new().name("gait-load".to_owned()).spawn_scoped(scope, work);
        // Where no thread can be had this one does it all.
        let others: Vec<_> = (1..workers).filter_map(|number| thread(number).ok()).collect();
        let mut ready = work();
        for other in others {
            let died = || LoadError::Object { reason: "a thread that loads programs died".to_owned() };
            let more = other.join().unwrap_or_else(|_panic| Err(died()));
            ready = ready.and_then(|mut ready| more.map(|more| ready.extend(more)).map(|()| ready));
        }
        ready
    })?;
    ready.sort_unstable();
    // A thread that was joined is still counted for a moment, and this process is about to fork.
    process::wait_for_threads(threads);
    Ok(ready)
}

/// Hands a program to the kernel. Returns whether it is to be attached.
fn prepare(name: &str, program: &mut Program, btf: &Btf) -> Result<bool, LoadError> {
    match program {
        Program::Lsm(hook) => match Lsm::load(hook, name, btf) {
            Ok(()) => Ok(true),
            Err(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })) if name == ONLY_NEWER => Ok(false),
            Err(error) => Err(refused(name, &error)),
        },
        Program::Iter(iter) => {
            let visits = if name == layout::IDENTIFY_PROGRAM { "task_file" } else { "task" };
            iter.load(visits, btf).map(|()| false).map_err(|error| refused(name, &error))
        }
        _ => Err(LoadError::Object { reason: format!("{name} is of a kind that is not known") }),
    }
}

fn refused(hook: &str, error: &ProgramError) -> LoadError {
    if let Some(shortage) = shortage(error) {
        return shortage;
    }
    let (reason, denied) = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let mut text = io_error.to_string();
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                write!(text, "\n  {line}").unwrap_or_default();
            }
            (text, io_error.kind() == io::ErrorKind::PermissionDenied && log.is_empty())
        }
        other => (chain(other), false),
    };
    if denied { LoadError::NoPrivilege } else { LoadError::Refused { hook: hook.to_owned(), reason } }
}

fn object(error: &EbpfError) -> LoadError {
    if let Some(shortage) = shortage(error) {
        return shortage;
    }
    match errno_of(error) {
        Some(Errno(libc::EPERM)) => LoadError::NoPrivilege,
        _ => LoadError::Object { reason: chain(error) },
    }
}

/// What the kernel answered in the end.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(errno) = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(Errno(errno));
        }
        source = cause.source();
    }
    None
}

/// What has nothing to do with the programs: there is no room for them now.
fn shortage(error: &(dyn std::error::Error + 'static)) -> Option<LoadError> {
    match errno_of(error)? {
        Errno(libc::EMFILE | libc::ENFILE) => Some(LoadError::Descriptors),
        Errno(libc::ENOMEM) => Some(LoadError::Memory),
        _ => None,
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").unwrap_or_default();
        source = cause.source();
    }
    text
}
