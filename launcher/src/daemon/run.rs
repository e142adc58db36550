//! One run of the daemon: lock, programs, socket, sessions, end.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::registry::Registry;
use super::{Owner, notify, server};
use crate::backend::ebpf::Refused;
use crate::sys::{Errno, packets, signal};

/// Name of the lock beside the socket of the default place.
pub(crate) const LOCK: &str = "/run/gait/agent.lock";
/// Everybody may ask.
const SOCKET_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o755;
/// Bytes of the sweeper's stack.
const STACK: usize = 256 << 10;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The host does not let it.
    #[error(transparent)]
    Host(#[from] Refused),
    /// Another one runs.
    #[error("another gait agent runs (it holds {})", .0.display())]
    Taken(PathBuf),
    /// A file or socket of its own.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket of the service manager.
    #[error("take the socket of the service manager, one of the kind SOCK_SEQPACKET")]
    Inherited(#[source] Errno),
    /// A call.
    #[error("{0}")]
    Call(&'static str, #[source] Errno),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Sessions that lost their daemon: what the kernel decides goes on, and their guards end them.
    pub(crate) live: usize,
    /// Sessions that stay blocked.
    pub(crate) blocked: usize,
}

/// Where the daemon has its files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The socket, if the service manager brings none.
    pub(crate) socket: PathBuf,
    /// The lock.
    pub(crate) lock: PathBuf,
}

/// Runs the daemon until SIGTERM or SIGINT. Nothing is made before `allowed` has said yes.
///
/// # Errors
/// It could not begin, or its socket went away.
pub(crate) fn run(
    files: &Files,
    allowed: impl FnOnce() -> Result<(), Refused>,
    load: impl FnOnce() -> Result<Arc<dyn Owner>, Refused>,
) -> Result<Ended, RunError> {
    // Before the first thread, so that all have it.
    let signals = signal::set_mask(&signal::Set::all())
        .and_then(|_old| signal::signalfd(&signal::Set::all()))
        .map_err(|errno| RunError::Call("signalfd", errno))?;
    allowed()?;
    let _lock = lock(&files.lock)?;
    // The numbers of inherited descriptors are told by the environment: they are taken before anything else is opened.
    let inherited = notify::socket().map_err(RunError::Inherited)?;
    let owner = load().inspect_err(|refused| {
        // Whoever made the service manager start this waits at the socket, and would make it start again.
        if let Some(listener) = &inherited {
            server::refuse_waiting(listener.as_fd(), refused);
        }
    })?;
    let listener = match inherited {
        Some(fd) => Listener { fd, path: None },
        None => Listener::at(&files.socket)?,
    };
    let registry = Registry::new(Arc::clone(&owner));
    let sweeper = Arc::clone(&registry);
    std::thread::Builder::new()
        .name("sweeper".to_owned())
        .stack_size(STACK)
        .spawn(move || sweeper.sweep_for_ever())
        .map_err(|error| RunError::Call("clone", Errno(error.raw_os_error().unwrap_or(libc::EAGAIN))))?;
    notify::ready("takes sessions");
    while server::serve(listener.fd.as_fd(), signals.as_fd(), &owner, &registry)
        .map_err(|errno| RunError::Call("poll", errno))
        .map(|()| !asked_to_end(signals.as_fd()))?
    {}
    let (live, blocked) = registry.close();
    notify::stopping(&format!("{live} sessions live, {blocked} are blocked"));
    if live + blocked == 0 {
        owner.retire();
    }
    Ok(Ended { live, blocked })
}

/// Whether one of the signals that came means the end.
fn asked_to_end(signals: BorrowedFd<'_>) -> bool {
    std::iter::from_fn(|| signal::next(signals))
        .any(|received| matches!(received.signal, libc::SIGTERM | libc::SIGINT))
}

/// Takes the lock of the daemon; there is one on a machine, since the programs are the machine's.
///
/// # Errors
/// Another one has it, or it cannot be made.
pub(crate) fn lock(path: &Path) -> Result<File, RunError> {
    make_directory_of(path)?;
    let failed = |source| RunError::File { what: "lock", path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::Taken(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn make_directory_of(path: &Path) -> Result<(), RunError> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    match DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => Ok(()),
        Err(source) => Err(RunError::File { what: "make the directory", path: directory.to_owned(), source }),
    }
}

/// A listening socket, whose file goes with it.
#[derive(Debug)]
struct Listener {
    fd: OwnedFd,
    path: Option<PathBuf>,
}

impl Listener {
    /// Listens at a path. The lock is held, so a socket that is there is a dead daemon's.
    fn at(path: &Path) -> Result<Self, RunError> {
        make_directory_of(path)?;
        let failed = |what: &'static str| {
            move |source: io::Error| RunError::File { what, path: path.to_owned(), source }
        };
        if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
            std::fs::remove_file(path).map_err(failed("remove the old socket"))?;
        }
        let fd = packets::listen_at(path).map_err(|errno| failed("listen at")(errno.into()))?;
        let listener = Self { fd, path: Some(path.to_owned()) };
        std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("open to everybody"))?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            _ = std::fs::remove_file(path);
        }
    }
}
