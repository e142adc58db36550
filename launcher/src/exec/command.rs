//! Finding the program, as execvp(3) would, before anything is started.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directories that are searched where `PATH` is not set, as in glibc.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The program cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// Exit code 127.
    #[error("command not found: {}", .0.display())]
    NotFound(OsString),
    /// Exit code 126.
    #[error("not executable: {}", .0.display())]
    NotExecutable(PathBuf),
    /// An argument or variable holds a NUL byte.
    #[error("an argument holds a NUL byte")]
    Nul,
}

/// Returns the path of the program.
///
/// # Errors
/// Where there is none, or only such as cannot be executed.
pub(crate) fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, CommandError> {
    if name.as_bytes().contains(&b'/') {
        return check(Path::new(name)).unwrap_or_else(|| Err(CommandError::NotFound(name.to_owned())));
    }
    if name.is_empty() {
        return Err(CommandError::NotFound(name.to_owned()));
    }
    let mut refused = None;
    for directory in std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH))) {
        // An empty entry means the working directory.
        let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
        match check(&directory.join(name)) {
            Some(Ok(found)) => return Ok(found),
            Some(Err(error)) => refused = refused.or(Some(error)),
            None => {}
        }
    }
    Err(refused.unwrap_or_else(|| CommandError::NotFound(name.to_owned())))
}

/// Looks at one candidate; `None` where nothing is there.
fn check(path: &Path) -> Option<Result<PathBuf, CommandError>> {
    let metadata = std::fs::metadata(path).ok()?;
    let executable = metadata.is_file()
        && metadata.permissions().mode() & 0o111 != 0
        && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    Some(if executable { Ok(path.to_owned()) } else { Err(CommandError::NotExecutable(path.to_owned())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        let path = std::env::join_paths([dir.path(), Path::new("/bin")]).unwrap();
        assert_eq!(find(OsStr::new("sh"), Some(&path)), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(
            find(OsStr::new("plain"), Some(&path)),
            Err(CommandError::NotExecutable(dir.path().join("plain")))
        );
        assert_eq!(find(OsStr::new("no-such"), Some(&path)), Err(CommandError::NotFound("no-such".into())));
        assert_eq!(find(OsStr::new("/no/such"), None), Err(CommandError::NotFound("/no/such".into())));
        assert_eq!(
            find(dir.path().as_os_str(), None),
            Err(CommandError::NotExecutable(dir.path().to_owned()))
        );
    }
}
