//! What evidence costs: the time to seal, the size of the runpack, the memory of gait's own processes.
//!
//! The workload is the hardest for the journal: every action is a first occurrence.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::args::{ExecArgs, ProbeKind};
use crate::error::BenchError;
use crate::report::{Report, number};

use super::runner::{Runner, Side, WorkDir, finish};
use super::{add_table, head};

const SEAL: &str = "evidence.seal_ms";
const RUNPACK: &str = "evidence.runpack_mib";
const MEMORY: &str = "evidence.peak_rss_mib";

/// The names of the numbers reported here.
#[cfg(test)]
pub(crate) const NUMBERS: [&str; 3] = [SEAL, RUNPACK, MEMORY];

const ACTIONS: usize = 100_000;
const MIB: f64 = 1024.0 * 1024.0;
/// Between two looks at the processes. The kernel keeps the peak, so this only has to see each process once late.
const SAMPLING: Duration = Duration::from_millis(5);

pub(crate) fn measure(
    args: &ExecArgs,
    runner: &Runner,
    work: &WorkDir,
    report: &mut Report,
) -> Result<(), BenchError> {
    if !args.rows.wants("evidence") {
        return Ok(());
    }
    let n = args.scaled(ACTIONS);
    match session(runner, &work.make("evidence")?, n) {
        Ok(found) => {
            let mut rows = head(&["number", "measured"]);
            rows.push(vec!["actions".to_owned(), n.to_string()]);
            for (id, value) in found {
                rows.push(vec![id.to_owned(), number(value)]);
                report.numbers.insert(id.to_owned(), value);
            }
            add_table(report, "evidence of one session, all actions distinct", rows);
        }
        Err(error) => report.failures.push(format!("evidence: {error}")),
    }
    Ok(())
}

fn session(runner: &Runner, dir: &Path, n: usize) -> Result<[(&'static str, f64); 3], BenchError> {
    let argv = runner.probe(ProbeKind::Actions, n);
    let start = Instant::now();
    let child = runner.spawn(Side::Gait, dir, &argv)?;
    let root = child.id();
    let (sender, done) = std::sync::mpsc::channel::<()>();
    let sampler = thread::spawn(move || {
        let mut peak = 0;
        while done.recv_timeout(SAMPLING) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            peak = peak.max(peak_of_own(root));
        }
        peak
    });
    let output = child.wait_with_output().map_err(|e| BenchError::io("gait exec", e))?;
    let ended_at = SystemTime::now();
    // Dropping the sender ends the sampling.
    drop(sender);
    let peak_kib =
        sampler.join().map_err(|_panic| BenchError::Missing("the sampling thread died".to_owned()))?;
    let run = finish(&argv, output, start.elapsed(), Duration::ZERO, ended_at)?;
    let ended_ns = run.ended_at.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_nanos() as f64);
    let seal_ms = (ended_ns - run.outcome()?.ended_at_ns as f64) / 1e6;
    if peak_kib == 0 {
        return Err(BenchError::Missing("no process of gait was seen while it ran".to_owned()));
    }
    Ok([(SEAL, seal_ms), (RUNPACK, runpack_size(dir)? / MIB), (MEMORY, peak_kib as f64 / 1024.0)])
}

fn runpack_size(dir: &Path) -> Result<f64, BenchError> {
    let out = dir.join("gait-out");
    let entries = fs::read_dir(&out).map_err(|e| BenchError::io(out.display().to_string(), e))?;
    let pack = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "zip"))
        .ok_or_else(|| BenchError::Missing(format!("no runpack in {}", out.display())))?;
    let meta = fs::metadata(&pack).map_err(|e| BenchError::io(pack.display().to_string(), e))?;
    Ok(meta.len() as f64)
}

/// Returns the largest `VmHWM` in KiB among the processes of gait itself: `root` and those descendants that run the
/// same program. `/proc/PID/exe` of the supervisor is not readable, so the program is told by its name.
fn peak_of_own(root: u32) -> u64 {
    let mut peak = 0;
    let mut left = vec![root];
    while let Some(pid) = left.pop() {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let own =
            field("Name:").is_some_and(|name| name.starts_with("gait") && !name.starts_with("gait-bench"));
        if own {
            let kib = field("VmHWM:").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
            peak = peak.max(kib);
            left.extend(children(pid));
        }
    }
    peak
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| task.path().join("children")).filter_map(read);
    lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

fn read(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok()
}
