//! Files that appear whole or not at all: written beside their place, synced, then renamed.
//!
//! For keys, traces, audits and other artefacts of the command line. The journal is not written this way: it must
//! survive a crash half-way.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Mode of every file: owner only.
const FILE_MODE: u32 = 0o600;
/// Mode of directories that hold artefacts.
const DIR_MODE: u32 = 0o750;

/// What happens to a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It stays and the commit fails with `AlreadyExists`.
    Keep,
}

/// A file that is written and not yet in its place; dropped, it vanishes.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    place: PathBuf,
}

impl Staged {
    /// Writes `bytes` beside `place`, making missing directories.
    ///
    /// # Errors
    ///
    /// Returns the error of the directory or the file; nothing is left behind.
    pub fn write(place: &Path, bytes: &[u8]) -> io::Result<Self> {
        let Some(name) = place.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file"));
        };
        let directory = parent(place);
        make_directories(directory, DIR_MODE)?;
        let mut nonce = [0_u8; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{:016x}.tmp", u64::from_ne_bytes(nonce)));
        let staged = Self { temporary: directory.join(temporary), place: place.to_owned() };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&staged.temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Returns where the file is meanwhile.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Moves the file to its place.
    ///
    /// # Errors
    ///
    /// Returns the rename's error; `AlreadyExists` where the place is taken and has to be kept.
    pub fn commit(self, existing: Existing) -> io::Result<()> {
        match existing {
            Existing::Replace => fs::rename(&self.temporary, &self.place),
            Existing::Keep => self.place_if_free(),
        }
    }

    fn place_if_free(&self) -> io::Result<()> {
        match renameat2(AT_FDCWD, &self.temporary, AT_FDCWD, &self.place, RenameFlags::RENAME_NOREPLACE) {
            // A file system that cannot (NFS, many FUSE ones): a link refuses a taken name as well.
            Err(Errno::EINVAL) => fs::hard_link(&self.temporary, &self.place),
            done => done.map_err(io::Error::from),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit it is gone; otherwise an error here has nobody to go to and leaves a hidden file.
        if fs::remove_file(&self.temporary).is_err() {}
    }
}

/// Writes a file whole, replacing what is there.
///
/// # Errors
///
/// As [`Staged::write`] and [`Staged::commit`].
pub fn write(place: &Path, bytes: &[u8]) -> io::Result<()> {
    Staged::write(place, bytes)?.commit(Existing::Replace)
}

/// Makes a directory and its parents; those that exist keep their modes.
///
/// # Errors
///
/// Returns the error of the first directory that cannot be made.
pub fn make_directories(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(|error| match error.kind() {
        // A file stands in the way: "file exists" would be taken for the file that is to be written.
        io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
        _ => error,
    })
}

fn parent(place: &Path) -> &Path {
    match place.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Staged::write(&dir.path().join("a"), b"x").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_not_a_taken_name() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("file"), b"x").unwrap();
        for place in ["file/a", "file/deep/a"] {
            let error = Staged::write(&dir.path().join(place), b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{place}");
        }
    }

    #[test]
    fn an_existing_file_is_kept_or_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sub/a");
        write(&place, b"one").unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Staged::write(&place, b"two").unwrap().commit(Existing::Keep).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).unwrap(), b"one");
        write(&place, b"two").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
    }
}
