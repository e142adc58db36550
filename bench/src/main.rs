//! Benchmarks of gait.
//!
//! `gait-bench exec` runs programs natively and under `gait exec`, interleaved, and reports medians and spread;
//! `gait-bench gate` times the compiled policy alone, `gait-bench policy` what policies of several sizes take to get
//! ready, `gait-bench evidence` what is done with evidence afterwards,
//! `gait-bench regress` the judging of recorded sessions, and `gait-bench signal` the report over a thousand runs.
//! `gait-bench probe` and `gait-bench inside` are the small programs that `exec` measures system calls and workloads with;
//! they are the same binary so that nothing else needs to be built.
//!
//! Timings depend on the host and on what else it does: a missed budget is printed, and fails the run only with
//! `--check`.

#![forbid(unsafe_code)]

mod args;
mod budget;
mod error;
mod evidence;
mod exec;
mod gate;
mod inside;
mod policy;
mod probe;
mod regress;
mod report;
mod signal;
mod stats;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Bench, ReportOptions};
use crate::error::BenchError;
use crate::report::Report;

fn main() -> ExitCode {
    match run(Args::parse().bench) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to tell where stderr is gone.
            drop(writeln!(std::io::stderr(), "gait-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<ExitCode, BenchError> {
    match bench {
        Bench::Evidence(args) => deliver(&evidence::measure(&args)?, &args.report),
        Bench::Exec(args) => deliver(&exec::measure(&args)?, &args.report),
        Bench::Gate(args) => deliver(&gate::measure(&args)?, &args.report),
        Bench::Policy(args) => deliver(&policy::measure(&args)?, &args.report),
        Bench::Signal(args) => deliver(&signal::measure(&args)?, &args.report),
        Bench::Regress(args) => deliver(&regress::measure(&args)?, &args.report),
        Bench::Inside(args) => say(&inside::run(&args)?),
        Bench::Probe(args) => say(&probe::run(&args)?),
    }
}

/// Prints the line of a program that is measured.
fn say(line: &str) -> Result<ExitCode, BenchError> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| BenchError::io("stdout", e))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the report; the exit code says whether a run failed, and with `--check` whether a budget was missed.
fn deliver(report: &Report, options: &ReportOptions) -> Result<ExitCode, BenchError> {
    let text = if options.json { report.to_json()? } else { report.to_text() };
    writeln!(std::io::stdout(), "{text}").map_err(|e| BenchError::io("stdout", e))?;
    let failed = !report.failures.is_empty() || (options.check && report.misses() > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
