//! Runs a command on one side or the other and takes its time.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::de::DeserializeOwned;

use crate::args::{ExecArgs, ProbeKind};
use crate::error::BenchError;
use crate::inside::Inside;
use crate::probe::Outcome;
use crate::report::number;
use crate::stats::Spread;

/// With or without gait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Native,
    Gait,
}

/// One finished run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) wall: Duration,
    /// User and system time of the program and all its waited-for descendants, gait's own included.
    pub(crate) cpu: Duration,
    pub(crate) stdout: Vec<u8>,
    pub(crate) ended_at: SystemTime,
}

impl Run {
    /// Reads the last line of a probe.
    pub(crate) fn outcome(&self) -> Result<Outcome, BenchError> {
        self.last_line()
    }

    /// Reads the last line of a workload that was run by [`Runner::inside`].
    pub(crate) fn inside(&self) -> Result<Inside, BenchError> {
        self.last_line()
    }

    fn last_line<T: DeserializeOwned>(&self) -> Result<T, BenchError> {
        let text = String::from_utf8_lossy(&self.stdout);
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .map_err(|e| BenchError::json(format!("the measured program said {line:?}"), e))
    }
}

/// Starts commands.
#[derive(Debug)]
pub(crate) struct Runner {
    gait: PathBuf,
    /// This program, for the probes.
    own: PathBuf,
    policy: String,
    backend: String,
    /// Where gait makes its signing key, so that a benchmark leaves nothing in the home directory.
    data: tempfile::TempDir,
}

impl Runner {
    /// Finds gait: the one given, or the one beside this program.
    pub(crate) fn new(args: &ExecArgs) -> Result<Self, BenchError> {
        let own = std::env::current_exe().map_err(|e| BenchError::io("own path", e))?;
        let gait = args.gait.clone().unwrap_or_else(|| own.with_file_name("gait"));
        let gait = fs::canonicalize(&gait).map_err(|e| {
            BenchError::io(
                format!("{} (build it with `cargo build --release`, or give --gait)", gait.display()),
                e,
            )
        })?;
        let data = tempfile::tempdir().map_err(|e| BenchError::io("temporary directory", e))?;
        Ok(Self { gait, own, policy: args.policy.clone(), backend: args.backend.clone(), data })
    }

    /// Returns the command of a probe.
    pub(crate) fn probe(&self, kind: ProbeKind, n: usize) -> Vec<OsString> {
        let n = n.to_string();
        let tail = ["probe", kind.name(), "--n", &n].map(OsString::from);
        std::iter::once(self.own.clone().into_os_string()).chain(tail).collect()
    }

    /// Returns the command that runs a workload and takes its own times.
    pub(crate) fn inside(&self, argv: &[OsString]) -> Vec<OsString> {
        let head = [self.own.clone().into_os_string(), "inside".into(), "--".into()];
        head.into_iter().chain(argv.iter().cloned()).collect()
    }

    /// Runs a command in `dir` to its end; a failing one is an error with what it said.
    pub(crate) fn run(&self, side: Side, dir: &Path, argv: &[OsString]) -> Result<Run, BenchError> {
        let cpu = children_cpu()?;
        let start = Instant::now();
        let child = self.spawn(side, dir, argv)?;
        let output = child.wait_with_output().map_err(|e| BenchError::io(shown(argv), e))?;
        let (wall, ended_at) = (start.elapsed(), SystemTime::now());
        let run = finish(argv, output, wall, children_cpu()?.saturating_sub(cpu), ended_at)?;
        if side == Side::Gait {
            discard_evidence(dir)?;
        }
        Ok(run)
    }

    /// Starts a command in `dir`, which is the workspace of the session.
    pub(crate) fn spawn(&self, side: Side, dir: &Path, argv: &[OsString]) -> Result<Child, BenchError> {
        let Some((program, rest)) = argv.split_first() else {
            return Err(BenchError::Missing("an empty command".to_owned()));
        };
        let mut command = match side {
            Side::Native => Command::new(program),
            Side::Gait => {
                let mut gait = Command::new(&self.gait);
                gait.args(["exec", "--policy", &self.policy, "--backend", &self.backend, "--"]).arg(program);
                gait.env("XDG_DATA_HOME", self.data.path());
                gait
            }
        };
        command
            .args(rest)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().map_err(|e| BenchError::io(shown(argv), e))
    }
}

/// Checks the exit status of a finished command.
pub(crate) fn finish(
    argv: &[OsString],
    output: Output,
    wall: Duration,
    cpu: Duration,
    ended_at: SystemTime,
) -> Result<Run, BenchError> {
    if output.status.success() {
        return Ok(Run { wall, cpu, stdout: output.stdout, ended_at });
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = said.lines().rev().take(6).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(BenchError::Program {
        command: shown(argv),
        detail: format!("{}: {}", output.status, tail.join(" | ")),
    })
}

/// Removes what a session left in its working directory.
fn discard_evidence(dir: &Path) -> Result<(), BenchError> {
    let out = dir.join("gait-out");
    match fs::remove_dir_all(&out) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(BenchError::io(out.display().to_string(), e))
        }
        _ => Ok(()),
    }
}

fn shown(argv: &[OsString]) -> String {
    argv.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn children_cpu() -> Result<Duration, BenchError> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| BenchError::io("getrusage", e.into()))?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

/// Returns the order of runs: both sides once per round, taking turns in who is first.
pub(crate) fn turns(rounds: usize) -> impl Iterator<Item = Side> {
    (0..rounds).flat_map(|round| match round % 2 {
        0 => [Side::Native, Side::Gait],
        _ => [Side::Gait, Side::Native],
    })
}

/// The samples of one row, a pair per round.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    native: Vec<f64>,
    gait: Vec<f64>,
}

impl Pairs {
    pub(crate) fn push(&mut self, side: Side, value: f64) {
        match side {
            Side::Native => self.native.push(value),
            Side::Gait => self.gait.push(value),
        }
    }

    pub(crate) fn native(&self) -> Option<Spread> {
        Spread::of(&self.native)
    }

    pub(crate) fn gait(&self) -> Option<Spread> {
        Spread::of(&self.gait)
    }

    /// Returns the median of what gait added in each round.
    pub(crate) fn added(&self) -> f64 {
        self.median_of(|native, gait| gait - native)
    }

    /// Returns the median of the rounds' ratios.
    pub(crate) fn ratio(&self) -> f64 {
        self.median_of(|native, gait| gait / native)
    }

    fn median_of(&self, of: impl Fn(f64, f64) -> f64) -> f64 {
        let each: Vec<f64> = self.native.iter().zip(&self.gait).map(|(n, g)| of(*n, *g)).collect();
        Spread::of(&each).map_or(f64::NAN, |spread| spread.median)
    }
}

/// Returns a spread as `median [p25 to p75]`.
pub(crate) fn spread_cell(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |s| {
        format!("{} [{} to {}]", number(s.median), number(s.p25), number(s.p75))
    })
}

/// The directory that everything is measured in, in memory where possible, removed when dropped.
#[derive(Debug)]
pub(crate) struct WorkDir(tempfile::TempDir);

impl WorkDir {
    pub(crate) fn new() -> Result<Self, BenchError> {
        // In memory, so that the disk does not hide the cost.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new()
            .prefix("gait-bench-")
            .tempdir_in(&base)
            .map_err(|e| BenchError::io(base.display().to_string(), e))?;
        Ok(Self(dir))
    }

    /// Makes a directory for one row.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf, BenchError> {
        let dir = self.0.path().join(name);
        fs::create_dir(&dir).map_err(|e| BenchError::io(dir.display().to_string(), e))?;
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_take_turns() {
        let order: Vec<Side> = turns(2).collect();
        assert_eq!(order, [Side::Native, Side::Gait, Side::Gait, Side::Native]);
    }

    #[test]
    fn differences_and_ratios_are_medians_of_the_rounds() {
        let mut pairs = Pairs::default();
        for (native, gait) in [(1.0, 3.0), (2.0, 3.0), (4.0, 5.0)] {
            pairs.push(Side::Native, native);
            pairs.push(Side::Gait, gait);
        }
        assert_eq!((pairs.added(), pairs.ratio()), (1.0, 1.5));
    }
}
