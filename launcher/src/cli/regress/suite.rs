//! The files of a regression suite: `gait.yaml` and `fixtures/<name>/`, read within their limits and within their
//! directory, written whole or not at all.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gait_agent::regress::{Config, ConfigEntry, Fixture, FixtureError, check_relative};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Serialize;

use crate::atomic_file;
use crate::cli::{CliError, ErrorCode};
use crate::input;

/// The default name of the file that names the fixtures.
pub(super) const CONFIG: &str = "gait.yaml";
/// Where fixtures lie, beside it.
const FIXTURES: &str = "fixtures";
/// The runpack of a fixture.
pub(super) const RUNPACK: &str = "runpack.zip";
const FIXTURE: &str = "fixture.json";
/// Documents beyond this are not of this kind.
const DOCUMENT_BYTES: u64 = 16 << 20;

/// A suite: where it lies and what it names.
#[derive(Debug)]
pub(super) struct Suite {
    /// `gait.yaml`.
    pub(super) path: PathBuf,
    /// The directory that it lies in.
    pub(super) root: PathBuf,
    pub(super) config: Config,
}

impl Suite {
    /// Opens a suite that is there.
    ///
    /// # Errors
    ///
    /// It is not there, or not a suite.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        let bytes = input::read("configuration", path, DOCUMENT_BYTES).map_err(|error| {
            CliError::from(error).hint("`gait regress bootstrap --from RUN` makes the first fixture")
        })?;
        let config = Config::from_json(&bytes).map_err(|error| unusable(path, error))?;
        Ok(Self { path: path.to_owned(), root: directory(path), config })
    }

    /// Opens a suite, or begins one.
    ///
    /// # Errors
    ///
    /// What is there is not a suite.
    pub(super) fn open_or_begin(path: &Path) -> Result<Self, CliError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path: path.to_owned(), root: directory(path), config: Config::default() })
            }
            _ => Self::open(path),
        }
    }

    /// Returns the directory of a fixture; its name was checked.
    pub(super) fn fixture_directory(&self, name: &str) -> PathBuf {
        // Without the `./` that nobody would write.
        let root = if self.root == Path::new(".") { Path::new("") } else { &self.root };
        root.join(FIXTURES).join(name)
    }

    /// Reads a fixture.
    ///
    /// # Errors
    ///
    /// It is not there, not a fixture, or says that it is another.
    pub(super) fn fixture(&self, entry: &ConfigEntry) -> Result<Fixture, CliError> {
        let shown = self.fixture_directory(&entry.name).join(FIXTURE);
        let path = confined(&self.root, &format!("{FIXTURES}/{}", entry.name))
            .and_then(|directory| confined(&directory, FIXTURE))
            .map_err(|error| CliError::input(format!("read fixture {}", shown.display())).because(error))?;
        let bytes = input::read("fixture", &path, DOCUMENT_BYTES)?;
        let fixture = Fixture::from_json(&bytes).map_err(|error| unusable(&shown, error))?;
        if fixture.name != entry.name {
            return Err(CliError::input(format!("{} is of fixture {:?}", shown.display(), fixture.name))
                .hint("make it again with `gait regress init`"));
        }
        Ok(fixture)
    }

    /// Begins a fixture beside its place.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, or is a symbolic link that would lead the fixture elsewhere.
    pub(super) fn stage(&self, name: &str) -> Result<StagedFixture, CliError> {
        let fixtures = self.root.join(FIXTURES);
        let place = fixtures.join(name);
        for directory in [&fixtures, &place] {
            let found = fs::symlink_metadata(directory);
            if found.is_ok_and(|metadata| !metadata.is_dir()) {
                return Err(CliError::input(format!("{} is not a directory", directory.display()))
                    .hint("fixtures are written into directories of their own only; remove it or choose another --name"));
            }
        }
        let failed = |error: io::Error| CliError::io(format!("make {}", fixtures.display())).because(error);
        atomic_file::make_directories(&fixtures, 0o750).map_err(failed)?;
        let mut nonce = [0_u8; 8];
        getrandom::fill(&mut nonce)
            .map_err(|error| CliError::io("make a name").because(io::Error::other(error)))?;
        let staging = fixtures.join(format!(".{name}.{:016x}.tmp", u64::from_ne_bytes(nonce)));
        DirBuilder::new().mode(0o750).create(&staging).map_err(failed)?;
        Ok(StagedFixture { staging, place })
    }

    /// Writes `gait.yaml`.
    fn write(&self) -> Result<(), CliError> {
        atomic_file::write(&self.path, pretty(&self.config)?.as_bytes())
            .map_err(|error| CliError::io(format!("write {}", self.path.display())).because(error))
    }
}

/// A fixture that is being made; dropped, it vanishes.
#[derive(Debug)]
pub(super) struct StagedFixture {
    staging: PathBuf,
    place: PathBuf,
}

impl StagedFixture {
    /// Copies a runpack into the fixture and returns where it lies.
    ///
    /// # Errors
    ///
    /// It cannot be read or written.
    pub(super) fn copy_runpack(&self, from: &Path) -> Result<PathBuf, CliError> {
        let place = self.staging.join(RUNPACK);
        let copy = || {
            let mut source = fs::File::open(from)?;
            if !source.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&place)?;
            io::copy(&mut source, &mut file)?;
            file.sync_all()
        };
        copy().map_err(|error| CliError::input(format!("copy runpack {}", from.display())).because(error))?;
        Ok(place)
    }

    /// Puts the fixture into its place, in one step and instead of one that was there, and names it in the suite. If
    /// that fails, everything is as it was.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub(super) fn commit(self, fixture: &Fixture, suite: &mut Suite) -> Result<(), CliError> {
        let document = self.staging.join(FIXTURE);
        atomic_file::write(&document, pretty(fixture)?.as_bytes())
            .map_err(|error| CliError::io(format!("write {}", document.display())).because(error))?;
        let failed = |error: io::Error| {
            CliError::io(format!("put {} into its place", self.place.display())).because(error)
        };
        let replaces = self.place.exists();
        self.swap(replaces).map_err(failed)?;
        let before = suite.config.clone();
        suite.config.put(ConfigEntry {
            name: fixture.name.clone(),
            run_id: fixture.run_id.clone(),
            runpack: format!("{FIXTURES}/{}/{RUNPACK}", fixture.name),
        });
        suite.write().inspect_err(|_unwritten| {
            suite.config = before;
            // Back to where it was; Drop removes what is staged then.
            let _best_effort =
                if replaces { self.swap(true) } else { fs::rename(&self.place, &self.staging) }.is_err();
        })
    }

    fn swap(&self, replaces: bool) -> io::Result<()> {
        let flags = if replaces { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
        match renameat2(AT_FDCWD, &self.staging, AT_FDCWD, &self.place, flags) {
            // A file system that cannot (NFS, many FUSE ones); nobody else writes into the suite meanwhile.
            Err(Errno::EINVAL) if !replaces => fs::rename(&self.staging, &self.place),
            Err(Errno::EINVAL) => {
                let aside = self.staging.with_extension("old");
                fs::rename(&self.place, &aside)?;
                fs::rename(&self.staging, &self.place)?;
                fs::rename(&aside, &self.staging)
            }
            done => done.map_err(io::Error::from),
        }
    }
}

impl Drop for StagedFixture {
    fn drop(&mut self) {
        // After a commit it is what was replaced, or nothing; an error here leaves a hidden directory.
        if fs::remove_dir_all(&self.staging).is_err() {}
    }
}

/// Returns the file that a path of a suite means, if it does not lead out of the directory, by links either.
///
/// # Errors
///
/// It is not there, or elsewhere.
pub(super) fn confined(root: &Path, relative: &str) -> io::Result<PathBuf> {
    check_relative(relative).map_err(io::Error::other)?;
    let path = root.join(relative).canonicalize()?;
    if path.starts_with(root.canonicalize()?) {
        Ok(path)
    } else {
        Err(io::Error::other(format!("{relative} leads out of {} through a symbolic link", root.display())))
    }
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn unusable(path: &Path, error: FixtureError) -> CliError {
    CliError::input(format!("{} cannot be used", path.display()))
        .because(error)
        .hint("make it again with `gait regress init`")
}

/// Renders a document for files: indented, in the order of its fields.
///
/// # Errors
///
/// It does not serialise, which is a bug.
pub(super) fn pretty(document: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(document)
        .map(|text| text + "\n")
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "serialise a document").because(error))
}
