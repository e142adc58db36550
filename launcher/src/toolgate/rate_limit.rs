//! Rate limits: how often a tool, an identity or both may act per minute or hour, across processes.
//!
//! The counters live in one file. Its lock is advisory (`flock`) on a file beside it, so a process that dies holding it
//! lets go of it; the lock file stays.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gait_agent::schema;
use gait_agent::sign::{Limits, ParseError, parse_strict};
use gait_agent::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::input::{self, InputError};

const STATE_SCHEMA: &str = "gait.gate.rate_limit_state";
const STATE_BYTES: u64 = 8 << 20;
const DIRECTORY_MODE: u32 = 0o750;
/// How long another process may hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(15);

/// A rate limit cannot be counted, so the intent cannot be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitError {
    /// The lock cannot be made.
    #[error("lock rate limit state {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has held the lock for too long.
    #[error("rate limit state {} is held by another process", .0.display())]
    Contended(PathBuf),
    /// The state cannot be read.
    #[error(transparent)]
    Read(#[from] InputError),
    /// The state is not JSON that means one thing.
    #[error("rate limit state {} is not strict JSON", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// The state is something else.
    #[error("{} is not a rate limit state", .0.display())]
    Shape(PathBuf),
    /// The state cannot be written.
    #[error("write rate limit state {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A limit, and whom it counts for.
#[derive(Debug, Clone, Copy)]
pub struct Limited<'a> {
    /// How many requests a window allows.
    pub requests: u64,
    /// `minute` or `hour`.
    pub window: &'a str,
    /// `tool`, `identity` or `tool_identity`.
    pub scope: &'a str,
    /// The tool of the intent.
    pub tool: &'a str,
    /// Its identity.
    pub identity: &'a str,
}

/// What counting came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Whether the limit still allows the request, which is then counted.
    pub within: bool,
    /// Whom it counts for.
    pub key: String,
    /// How many requests of the window are used up.
    pub used: u64,
    /// How many are left.
    pub remaining: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schema_id: String,
    schema_version: String,
    created_at: Option<Timestamp>,
    #[serde(default)]
    producer_version: String,
    counters: Vec<Counter>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counter {
    key: String,
    count: u64,
}

/// Counts one request, if the limit allows it.
///
/// # Errors
///
/// Fails if the state cannot be locked, read or written; nothing is counted then.
pub fn count(state_path: &Path, limited: &Limited<'_>, now: Timestamp) -> Result<Counted, RateLimitError> {
    let _lock = lock(state_path)?;
    let mut state = load(state_path, now)?;
    let window = format!("{}|", limited.window);
    let bucket = bucket(limited.window, now);
    // The contract forgets past buckets of the same window; later ones are a clock that was set back.
    state.counters.retain(|counter| {
        counter.key.strip_prefix(&window).is_none_or(|rest| rest.split('|').nth(1) >= Some(bucket.as_str()))
    });
    let subject = match limited.scope {
        "tool" => limited.tool.to_owned(),
        "identity" => limited.identity.to_owned(),
        _ => format!("{}|{}", limited.tool, limited.identity),
    };
    let key = format!("{window}{}|{bucket}|{subject}", limited.scope);
    let known = state.counters.iter_mut().find(|counter| counter.key == key);
    let before = known.as_ref().map_or(0, |counter| counter.count);
    let within = before < limited.requests;
    let used = before + u64::from(within);
    match known {
        Some(counter) => counter.count = used,
        None => state.counters.push(Counter { key: key.clone(), count: used }),
    }
    state.counters.sort_by(|a, b| a.key.cmp(&b.key));
    store(state_path, &state)?;
    Ok(Counted { within, key, used, remaining: limited.requests.saturating_sub(used) })
}

/// The start of the window that `now` lies in.
fn bucket(window: &str, now: Timestamp) -> String {
    let length: i128 = if window == "hour" { 3600 } else { 60 } * 1_000_000_000;
    let start = now.unix_nanos().div_euclid(length) * length;
    Timestamp::from_unix_nanos(u64::try_from(start).unwrap_or_default()).to_string()
}

fn lock(state_path: &Path) -> Result<File, RateLimitError> {
    let mut name = OsString::from(state_path);
    name.push(".lock");
    let path = PathBuf::from(name);
    let failed = |source| RateLimitError::Lock { path: path.clone(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        atomic_file::make_directories(directory, DIRECTORY_MODE).map_err(failed)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return Err(RateLimitError::Contended(state_path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

fn load(path: &Path, now: Timestamp) -> Result<State, RateLimitError> {
    let bytes = match input::read("rate limit state", path, STATE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            return Ok(State {
                schema_id: STATE_SCHEMA.to_owned(),
                schema_version: schema::VERSION.to_owned(),
                created_at: Some(now),
                producer_version: schema::PRODUCER_VERSION.to_owned(),
                counters: Vec::new(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let value = parse_strict(&bytes, Limits::DOCUMENT)
        .map_err(|source| RateLimitError::Parse { path: path.to_owned(), source })?;
    serde_json::from_value::<State>(value)
        .ok()
        .filter(|state| state.schema_id == STATE_SCHEMA && state.schema_version == schema::VERSION)
        .ok_or_else(|| RateLimitError::Shape(path.to_owned()))
}

fn store(path: &Path, state: &State) -> Result<(), RateLimitError> {
    let failed = |source| RateLimitError::Write { path: path.to_owned(), source };
    let mut text = serde_json::to_string_pretty(state).map_err(|error| failed(error.into()))?;
    text.push('\n');
    atomic_file::write(path, text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_nanos(NOW + seconds * 1_000_000_000)
    }

    fn limited<'a>(scope: &'a str, tool: &'a str) -> Limited<'a> {
        Limited { requests: 2, window: "minute", scope, tool, identity: "ann" }
    }

    #[test]
    fn requests_are_counted_per_window_and_subject() {
        let dir = tempfile::tempdir().unwrap();
        // The directory is not there: the reference fails on that.
        let state = dir.path().join("new/state.json");
        let within = |scope: &str, tool: &str, now| count(&state, &limited(scope, tool), now).unwrap().within;
        assert!(within("tool", "a", at(0)));
        assert!(within("tool", "a", at(1)));
        assert!(!within("tool", "a", at(2)));
        assert!(within("tool", "b", at(2)));
        assert!(within("identity", "a", at(2)));
        assert!(within("tool", "a", at(60)), "a new minute");
        let text = std::fs::read_to_string(&state).unwrap();
        assert!(!text.contains("22:13:00Z") && text.contains("minute|tool|2023-11-14T22:14:00Z|a"), "{text}");
    }

    #[test]
    fn used_and_remaining_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.json");
        let numbers = |_| {
            let counted = count(&state, &limited("tool_identity", "a"), at(0)).unwrap();
            assert_eq!(counted.key, "minute|tool_identity|2023-11-14T22:13:00Z|a|ann");
            (counted.used, counted.remaining)
        };
        assert_eq!([0, 1, 2].map(numbers), [(1, 1), (2, 0), (2, 0)]);
    }

    #[test]
    fn processes_do_not_lose_counts() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.json");
        let many = Limited { requests: 1000, ..limited("tool", "a") };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| drop(count(&state, &many, at(0)).unwrap())));
            }
        });
        assert_eq!(count(&state, &many, at(0)).unwrap().used, 41);
    }

    #[test]
    fn a_state_that_cannot_be_trusted_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.json");
        for text in ["", "{}", "[]", r#"{"counters":[],"counters":[]}"#] {
            std::fs::write(&state, text).unwrap();
            assert!(count(&state, &limited("tool", "a"), at(0)).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&state).unwrap(), text);
        }
    }
}
