//! A workload's own time, taken from inside of the session: without the start of the session before it and the sealing
//! after it.
//!
//! The processor time is that of the workload's processes alone, which wait while gait judges. Under a clock that counts
//! instructions (`ebpf/vmtest/run --icount`) it is what the kernel's programs and the way into them add.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::args::InsideArgs;
use crate::error::BenchError;

/// What is printed on the last line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Inside {
    pub(crate) wall_ms: f64,
    /// User and system time of the command and of everything it waited for.
    pub(crate) cpu_ms: f64,
}

/// Runs the command and returns the line to print.
pub(crate) fn run(args: &InsideArgs) -> Result<String, BenchError> {
    let shown = args.command.join(" ");
    let (program, rest) =
        args.command.split_first().ok_or_else(|| BenchError::Missing("a command".to_owned()))?;
    let start = Instant::now();
    let status = Command::new(program)
        .args(rest)
        .stdout(Stdio::null())
        .status()
        .map_err(|e| BenchError::io(shown.clone(), e))?;
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    if !status.success() {
        return Err(BenchError::Program { command: shown, detail: status.to_string() });
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| BenchError::io("getrusage", e.into()))?;
    let cpu = usage.user_time() + usage.system_time();
    let cpu_ms = cpu.num_microseconds() as f64 / 1e3;
    serde_json::to_string(&Inside { wall_ms, cpu_ms }).map_err(|e| BenchError::json("times", e))
}
