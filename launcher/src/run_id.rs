//! Run ids, and the runpacks they stand for.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gait_agent::timestamp::Timestamp;

/// Where runs and runpacks go, unless somebody says otherwise.
pub const OUTPUT_DIRECTORY: &str = "gait-out";
/// A run id becomes part of file names.
const MAX_LENGTH: usize = 128;

/// The text is not a run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a run id")]
pub struct InvalidRunId(pub String);

/// Checks a run id that a person chose: `run_`, then letters, digits, `_` and `-`.
///
/// # Errors
///
/// Fails if it is another text.
pub fn check(text: &str) -> Result<&str, InvalidRunId> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match text.strip_prefix("run_") {
        Some(rest) if !rest.is_empty() && text.len() <= MAX_LENGTH && rest.bytes().all(plain) => Ok(text),
        _ => Err(InvalidRunId(text.to_owned())),
    }
}

/// Makes a run id of the time and random bits: unique, and sorted by time in a listing.
///
/// # Errors
///
/// Fails if the kernel gives no random numbers.
pub fn generate() -> io::Result<String> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!("run_{}_{:08x}", compact_now(), u32::from_be_bytes(random)))
}

/// Returns the time of the wall clock for names: `YYYYMMDDTHHMMSSZ`.
#[must_use]
pub fn compact_now() -> String {
    let seconds = now().unix_nanos() / 1_000_000_000;
    let whole = Timestamp::from_unix_nanos(u64::try_from(seconds).unwrap_or_default() * 1_000_000_000);
    whole.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// Returns the time of the wall clock.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns where the runpack of a run goes.
#[must_use]
pub fn runpack_path(directory: &Path, run_id: &str) -> PathBuf {
    directory.join(format!("runpack_{run_id}.zip"))
}

/// There is no runpack of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("runpack not found for run_id: {0}")]
pub struct RunpackNotFound(pub String);

/// Finds the runpack that a person names, by path or by run id.
///
/// # Errors
///
/// Fails if it is a run id and there is no such runpack; a path is returned as it is.
pub fn find_runpack(name: &str) -> Result<PathBuf, RunpackNotFound> {
    let is_zip = Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    if name.contains(['/', '\\']) || is_zip {
        return Ok(PathBuf::from(name));
    }
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".gait/runpacks"));
    [Some(PathBuf::from(OUTPUT_DIRECTORY)), home]
        .into_iter()
        .flatten()
        .map(|directory| runpack_path(&directory, name))
        .find(|path| path.exists())
        .ok_or_else(|| RunpackNotFound(name.to_owned()))
}

/// Finds the directory of a run that was not sealed, by path or by run id.
#[must_use]
pub fn find_unsealed(name: &str) -> Option<PathBuf> {
    let path =
        if name.contains(['/', '\\']) { PathBuf::from(name) } else { Path::new(OUTPUT_DIRECTORY).join(name) };
    path.join("journal.jsonl").is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_valid_and_differ() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(check(&one).unwrap(), one);
        assert_eq!(one.len(), "run_20260101T000000Z_00000000".len(), "{one}");
    }

    #[test]
    fn ids_that_could_leave_a_directory_are_refused() {
        for text in
            ["", "run_", "x", "run_a/b", "run_..", "run_a b", "run_ä", &format!("run_{}", "a".repeat(130))]
        {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check("run_A-1_b").is_ok());
    }
}
