//! Where keys come from: files, environment variables, the per-user key, or thin air.
//!
//! Signing keys are for traces, approvals and runpacks; verify keys for everything that is checked.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gait_agent::sign::{KeyError, SigningKey, VerifyKey};

use crate::atomic_file::{Existing, Staged, make_directories};
use crate::input::{self, InputError};

/// A key file is 44 or 88 characters; more is something else.
const KEY_FILE_BYTES: u64 = 4096;
/// Only the owner may look into the directory of keys.
const KEY_DIR_MODE: u32 = 0o700;

const PRIVATE_NAME: &str = "gait_private.key";
const PUBLIC_NAME: &str = "gait_public.key";

/// What the warning of a key for one process says.
pub const EPHEMERAL_WARNING: &str =
    "dev mode: ephemeral keypair generated; signatures will not verify across machines";

/// A key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] InputError),
    /// The variable is not set, empty, or not text.
    #[error("environment variable {0} holds no key")]
    Variable(String),
    /// The contents are not a key.
    #[error("{place} is not {kind}")]
    Invalid {
        /// File or variable.
        place: String,
        /// What it should be.
        kind: &'static str,
        /// Why it is not.
        #[source]
        source: KeyError,
    },
    /// Two sources where one is allowed.
    #[error("{0} and {1} are both given")]
    Ambiguous(&'static str, &'static str),
    /// Production signing needs a key.
    #[error("key mode prod needs a private key")]
    NoProdKey,
    /// Development signing takes no key.
    #[error("key mode dev takes no private key")]
    DevWithKey,
    /// Others can read the private key.
    #[error("private key {} can be read by others (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// Neither `XDG_DATA_HOME` nor a home directory is known.
    #[error("no home directory to keep the per-user key in")]
    NoHome,
    /// The per-user key cannot be made.
    #[error("make the per-user key {}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How evidence is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum KeyMode {
    /// With a key that needs no care.
    #[default]
    Dev,
    /// With the key that is named.
    Prod,
}

/// Which key signs in dev mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevKey {
    /// A new one, forgotten at the end of the process; the contract's `gate eval`.
    Ephemeral,
    /// The per-user key, made at first use; sessions.
    PerUser,
}

/// A private key file, or a variable that holds one.
#[derive(Debug, Clone, Default)]
pub struct PrivateSource {
    /// The file.
    pub path: Option<PathBuf>,
    /// The variable's name.
    pub env: Option<String>,
}

/// Where a verify key comes from: a public key, or a private one whose public half is taken.
#[derive(Debug, Clone, Default)]
pub struct VerifySource {
    /// The public key's file.
    pub public_path: Option<PathBuf>,
    /// The variable that holds a public key.
    pub public_env: Option<String>,
    /// The private key.
    pub private: PrivateSource,
}

impl PrivateSource {
    const fn is_given(&self) -> bool {
        self.path.is_some() || self.env.is_some()
    }

    fn load(&self) -> Result<Option<SigningKey>, KeyringError> {
        let (text, place) = match (&self.path, &self.env) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(KeyringError::Ambiguous("--private-key", "--private-key-env"));
            }
            (Some(path), None) => (read_key(path)?, path.display().to_string()),
            (None, Some(name)) => (variable(name)?, format!("environment variable {name}")),
        };
        parse_private(&text, place).map(Some)
    }
}

impl VerifySource {
    /// Loads the key; `None` if no source is given.
    ///
    /// # Errors
    ///
    /// Fails if several sources are given, or the one holds no key.
    pub fn load(&self) -> Result<Option<VerifyKey>, KeyringError> {
        let public = self.public_path.is_some() || self.public_env.is_some();
        if public && self.private.is_given() {
            return Err(KeyringError::Ambiguous("a public key", "a private key"));
        }
        let (text, place) = match (&self.public_path, &self.public_env) {
            (None, None) => return Ok(self.private.load()?.map(|key| key.verify_key())),
            (Some(_), Some(_)) => {
                return Err(KeyringError::Ambiguous("--public-key", "--public-key-env"));
            }
            (Some(path), None) => (read_key(path)?, path.display().to_string()),
            (None, Some(name)) => (variable(name)?, format!("environment variable {name}")),
        };
        parse_public(&text, place).map(Some)
    }
}

/// Loads the key that evidence is signed with, and a warning for the person if there is one.
///
/// # Errors
///
/// Fails if mode and source do not fit, or the source holds no key.
pub fn signing_key(
    mode: KeyMode,
    source: &PrivateSource,
    dev: DevKey,
) -> Result<(SigningKey, Option<&'static str>), KeyringError> {
    match (mode, dev) {
        (KeyMode::Prod, _) => Ok((source.load()?.ok_or(KeyringError::NoProdKey)?, None)),
        (KeyMode::Dev, _) if source.is_given() => Err(KeyringError::DevWithKey),
        (KeyMode::Dev, DevKey::PerUser) => Ok((user_key()?, None)),
        (KeyMode::Dev, DevKey::Ephemeral) => {
            let key = new_key().map_err(|source| KeyringError::Make { path: PathBuf::new(), source })?;
            Ok((key, Some(EPHEMERAL_WARNING)))
        }
    }
}

/// Makes a key from the kernel's random numbers.
///
/// # Errors
///
/// Fails if there are none.
pub fn new_key() -> io::Result<SigningKey> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(SigningKey::from_seed(seed))
}

/// Returns the per-user key, making it at first use.
///
/// # Errors
///
/// Fails if there is no home directory, the key cannot be made, is not a key, or can be read by others.
pub fn user_key() -> Result<SigningKey, KeyringError> {
    key_in(&user_key_directory()?)
}

fn key_in(directory: &Path) -> Result<SigningKey, KeyringError> {
    let path = directory.join(PRIVATE_NAME);
    let failed = |source| KeyringError::Make { path: path.clone(), source };
    let metadata = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match make_user_key(directory) {
                // Another process was first: its key is the one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => done.map_err(failed)?,
            }
            path.metadata().map_err(failed)?
        }
        found => found.map_err(failed)?,
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyringError::Exposed { path, mode });
    }
    parse_private(&read_key(&path)?, path.display().to_string())
}

/// Returns the public half of the per-user key, if there is one already.
#[must_use]
pub fn user_verify_key() -> Option<VerifyKey> {
    let text = read_key(&user_key_directory().ok()?.join(PUBLIC_NAME)).ok()?;
    VerifyKey::from_file_text(&text).ok()
}

/// Returns where the per-user key lives.
///
/// # Errors
///
/// Fails if there is no home directory.
pub fn user_key_directory() -> Result<PathBuf, KeyringError> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = match absolute("XDG_DATA_HOME") {
        Some(data) => data,
        None => absolute("HOME").or_else(home_of_user).ok_or(KeyringError::NoHome)?.join(".local/share"),
    };
    Ok(data.join("gait/keys"))
}

fn home_of_user() -> Option<PathBuf> {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.dir)
}

fn make_user_key(directory: &Path) -> io::Result<()> {
    make_directories(directory, KEY_DIR_MODE)?;
    let key = new_key()?;
    let private = Staged::write(&directory.join(PRIVATE_NAME), key.to_file_text().as_bytes())?;
    let public = Staged::write(&directory.join(PUBLIC_NAME), key.verify_key().to_file_text().as_bytes())?;
    // Whoever places the private key also places the public one, so the two always belong together.
    private.commit(Existing::Keep)?;
    public.commit(Existing::Replace)
}

fn read_key(path: &Path) -> Result<String, InputError> {
    input::read_text("key", path, KEY_FILE_BYTES)
}

fn variable(name: &str) -> Result<String, KeyringError> {
    env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
        .ok_or_else(|| KeyringError::Variable(name.to_owned()))
}

fn parse_private(text: &str, place: String) -> Result<SigningKey, KeyringError> {
    let kind = "a private key";
    SigningKey::from_file_text(text).map_err(|source| KeyringError::Invalid { place, kind, source })
}

fn parse_public(text: &str, place: String) -> Result<VerifyKey, KeyringError> {
    let kind = "a public key";
    VerifyKey::from_file_text(text).map_err(|source| KeyringError::Invalid { place, kind, source })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn the_per_user_key_is_made_once_and_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("gait/keys");
        let made: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| key_in(&keys).unwrap().key_id())).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(made.iter().all(|id| *id == made[0]), "{made:?}");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        assert_eq!(mode(&keys.join(PRIVATE_NAME)), 0o600);
        let public = fs::read_to_string(keys.join(PUBLIC_NAME)).unwrap();
        assert_eq!(VerifyKey::from_file_text(&public).unwrap().key_id(), made[0]);
    }

    #[test]
    fn a_per_user_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        key_in(dir.path()).unwrap();
        fs::set_permissions(dir.path().join(PRIVATE_NAME), Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(key_in(dir.path()), Err(KeyringError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_per_user_key_that_is_none_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PRIVATE_NAME);
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(key_in(dir.path()), Err(KeyringError::Invalid { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    }

    #[test]
    fn modes_and_sources_must_fit() {
        let given = PrivateSource { path: Some("k".into()), env: None };
        let load = |mode, source: &PrivateSource| signing_key(mode, source, DevKey::Ephemeral).unwrap_err();
        assert!(matches!(load(KeyMode::Dev, &given), KeyringError::DevWithKey));
        assert!(matches!(load(KeyMode::Prod, &PrivateSource::default()), KeyringError::NoProdKey));
        let both = PrivateSource { env: Some("K".into()), ..given };
        assert!(matches!(load(KeyMode::Prod, &both), KeyringError::Ambiguous(..)));
        let fresh = || signing_key(KeyMode::Dev, &PrivateSource::default(), DevKey::Ephemeral).unwrap();
        assert_ne!(fresh().0.key_id(), fresh().0.key_id());
        assert_eq!(fresh().1, Some(EPHEMERAL_WARNING));
    }
}
