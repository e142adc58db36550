//! What keeps the programs attached after this process: names on a BPF file system.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use gait_ebpf::layout::PIN_ROOT;

use super::error::LoadError;
use crate::sys::{fs as sysfs, process};

/// `BPF_FS_MAGIC`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Makes the directory for one set of pins: empty, and nobody else's.
pub(super) fn prepare(name: &str) -> Result<PathBuf, LoadError> {
    let root = Path::new(PIN_ROOT);
    on_bpffs(root.parent().unwrap_or(root))?;
    match make(root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(|source| LoadError::Pin { path: root.to_owned(), source })?,
    }
    own(root)?;
    let directory = root.join(name);
    match make(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            own(&directory)?;
            Err(LoadError::PinsExist { path: directory })
        }
        other => other
            .map_err(|source| LoadError::Pin { path: directory.clone(), source })
            .and_then(|()| own(&directory))
            .map(|()| directory),
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn on_bpffs(path: &Path) -> Result<(), LoadError> {
    let magic = fs::File::open(path)
        .map_err(|source| LoadError::Pin { path: path.to_owned(), source })
        .map(|directory| sysfs::file_system_type(directory.as_fd()));
    // A magic number has 32 bits; the field that it comes in has a sign.
    match magic? {
        Ok(magic) if magic & 0xffff_ffff == BPF_FS_MAGIC => Ok(()),
        _ => Err(LoadError::NoBpfFs { path: path.to_owned() }),
    }
}

/// A directory that another user made could hold that user's maps.
fn own(path: &Path) -> Result<(), LoadError> {
    let found =
        fs::symlink_metadata(path).map_err(|source| LoadError::Pin { path: path.to_owned(), source })?;
    let ours = found.is_dir() && found.uid() == process::real_uid() && found.mode() & 0o077 == 0;
    if ours { Ok(()) } else { Err(LoadError::ForeignPins { path: path.to_owned() }) }
}

/// Removes a set of pins. What they kept ends with the last process that has it open.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}

/// Removes what a session or a daemon left pinned under this name.
///
/// # Errors
/// Where the directory is another user's, or cannot be removed.
pub fn remove_pins(name: &str) -> Result<(), LoadError> {
    let directory = Path::new(PIN_ROOT).join(name);
    own(&directory)?;
    remove(&directory).map_err(|source| LoadError::Pin { path: directory, source })
}
