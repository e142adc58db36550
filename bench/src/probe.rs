//! The measured program: small loops of one call each, timed from inside.
//!
//! A loop is cut into chunks and the median chunk is reported, so that one preempted chunk does not count.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::args::{ProbeArgs, ProbeKind};
use crate::error::BenchError;
use crate::stats::Spread;

/// Calls per timed chunk; a process start is long enough to be its own chunk.
const CHUNK: usize = 50;

/// What a probe prints on its last line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Nanoseconds per call, the median chunk.
    pub(crate) ns_per_call: f64,
    /// When the work was done, in nanoseconds of the wall clock.
    pub(crate) ended_at_ns: u64,
}

/// Does the work and returns the line to print.
pub(crate) fn run(args: &ProbeArgs) -> Result<String, BenchError> {
    let ns_per_call = measure(args)?;
    let since_epoch =
        SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| BenchError::Missing(e.to_string()))?;
    let ended_at_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    serde_json::to_string(&Outcome { ns_per_call, ended_at_ns }).map_err(|e| BenchError::json("outcome", e))
}

fn measure(args: &ProbeArgs) -> Result<f64, BenchError> {
    let (n, dir) = (args.n.max(1), args.dir.as_path());
    match args.what {
        ProbeKind::Open => {
            let path = existing(dir, "probe-open")?;
            timed(n, CHUNK, |_| File::open(&path).map(drop)).map_err(at(&path))
        }
        ProbeKind::Stat => {
            let path = existing(dir, "probe-stat")?;
            timed(n, CHUNK, |_| fs::metadata(&path).map(drop)).map_err(at(&path))
        }
        ProbeKind::Create => {
            let paths = names(dir, "probe-create", n);
            timed_over(&paths, create)
        }
        ProbeKind::Unlink => {
            let paths = names(dir, "probe-unlink", n);
            paths.iter().try_for_each(|path| create(path).map_err(at(path)))?;
            timed_over(&paths, |path| fs::remove_file(path))
        }
        ProbeKind::Exec => timed(n, 1, |_| Command::new("/bin/true").stdin(Stdio::null()).status().map(drop))
            .map_err(at(Path::new("/bin/true"))),
        ProbeKind::Connect => connect(n).map_err(at(Path::new("loopback"))),
        ProbeKind::Churn => churn(dir, n),
        ProbeKind::Actions => actions(dir, n / 4),
    }
}

/// Times `call` in chunks and returns nanoseconds per call.
fn timed(n: usize, chunk: usize, mut call: impl FnMut(usize) -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut chunks = Vec::with_capacity(n / chunk + 1);
    let mut done = 0;
    while done < n {
        let end = (done + chunk).min(n);
        let start = Instant::now();
        for i in done..end {
            call(i)?;
        }
        chunks.push(start.elapsed().as_nanos() as f64 / (end - done) as f64);
        done = end;
    }
    Ok(Spread::of(&chunks).map_or(0.0, |spread| spread.median))
}

fn timed_over(paths: &[PathBuf], call: impl Fn(&Path) -> std::io::Result<()>) -> Result<f64, BenchError> {
    let where_ = paths.first().map_or(Path::new("."), PathBuf::as_path);
    timed(paths.len(), CHUNK, |i| paths.get(i).map_or(Ok(()), |path| call(path))).map_err(at(where_))
}

fn connect(n: usize) -> std::io::Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let peer = listener.local_addr()?;
    timed(n, CHUNK, |_| {
        let client = TcpStream::connect(peer)?;
        let (server, _) = listener.accept()?;
        // The client closes first, so that the port in TIME_WAIT is the client's.
        drop(client);
        drop(server);
        Ok(())
    })
}

fn churn(dir: &Path, n: usize) -> Result<f64, BenchError> {
    let (old, new) = (names(dir, "churn-a", n), names(dir, "churn-b", n));
    let start = Instant::now();
    old.iter().try_for_each(|path| create(path).map_err(at(path)))?;
    old.iter().zip(&new).try_for_each(|(old, new)| fs::rename(old, new).map_err(at(old)))?;
    new.iter().try_for_each(|path| fs::remove_file(path).map_err(at(path)))?;
    Ok(start.elapsed().as_nanos() as f64 / (3 * n) as f64)
}

fn actions(dir: &Path, files: usize) -> Result<f64, BenchError> {
    let start = Instant::now();
    for path in &names(dir, "action", files) {
        four_actions(path).map_err(at(path))?;
    }
    Ok(start.elapsed().as_nanos() as f64 / (4 * files.max(1)) as f64)
}

fn four_actions(path: &Path) -> std::io::Result<()> {
    create(path)?;
    let mut content = Vec::new();
    File::open(path)?.read_to_end(&mut content)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    fs::remove_file(path)
}

fn create(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path).map(drop)
}

fn existing(dir: &Path, name: &str) -> Result<PathBuf, BenchError> {
    let path = dir.join(name);
    fs::write(&path, b"x").map_err(at(&path))?;
    Ok(path)
}

fn names(dir: &Path, stem: &str, n: usize) -> Vec<PathBuf> {
    (0..n).map(|i| dir.join(format!("{stem}-{i}"))).collect()
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BenchError + use<> {
    let what = path.display().to_string();
    move |source| BenchError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(what: ProbeKind, n: usize, dir: &Path) -> Outcome {
        let line = run(&ProbeArgs { what, n, dir: dir.to_owned() }).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn every_probe_does_its_work_and_reports_a_time() {
        for what in [
            ProbeKind::Open,
            ProbeKind::Stat,
            ProbeKind::Create,
            ProbeKind::Unlink,
            ProbeKind::Exec,
            ProbeKind::Connect,
            ProbeKind::Churn,
            ProbeKind::Actions,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let outcome = probe(what, 8, dir.path());
            assert!(outcome.ns_per_call > 0.0, "{what:?}");
            let left = fs::read_dir(dir.path()).unwrap().count();
            let expected = match what {
                ProbeKind::Open | ProbeKind::Stat => 1,
                ProbeKind::Create => 8,
                _ => 0,
            };
            assert_eq!(left, expected, "{what:?} left files");
        }
    }

    #[test]
    fn a_call_that_fails_fails_the_probe() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        assert!(run(&ProbeArgs { what: ProbeKind::Create, n: 1, dir: gone }).is_err());
    }
}
