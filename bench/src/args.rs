//! The command line of the benchmarks.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Benchmarks of gait.
#[derive(Debug, Parser)]
#[command(name = "gait-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) bench: Bench,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Measure `gait verify`, `gait run diff` and `gait gate eval` as processes
    Evidence(EvidenceArgs),
    /// Measure programs under `gait exec` against native
    Exec(ExecArgs),
    /// Measure decisions of the compiled policy
    Gate(GateArgs),
    /// Measure what policies of several sizes cost before and in a session
    Policy(PolicyArgs),
    /// Measure the signal report over many runpacks
    Signal(SignalArgs),
    /// Measure how fast recorded intents are judged again
    Regress(RegressArgs),
    /// Be the measured program (used by `exec`)
    Probe(ProbeArgs),
    /// Run a command and print its own times (used by `exec`)
    Inside(InsideArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReportOptions {
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit 1 where a budget is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Do a twentieth of the work in one round: a smoke test, no measurement
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RowOptions {
    /// Measure only rows whose name contains TEXT (may be given several times)
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

impl RowOptions {
    /// Returns whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| row.contains(text.as_str()))
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExecArgs {
    /// The gait binary [default: `gait` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) gait: Option<PathBuf>,
    /// The policy that is enforced
    #[arg(long, value_name = "FILE", default_value = "coding-agent")]
    pub(crate) policy: String,
    /// The backend, as `gait exec --backend` takes it
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: String,
    /// Rounds per measurement
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) rows: RowOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

impl ExecArgs {
    /// Returns the number of rounds.
    pub(crate) fn rounds(&self) -> usize {
        if self.report.quick { 1 } else { self.rounds.max(1) }
    }

    /// Returns how much of `full` units of work is to be done.
    pub(crate) fn scaled(&self, full: usize) -> usize {
        if self.report.quick { (full / 20).max(1) } else { full }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EvidenceArgs {
    /// The gait binary [default: `gait` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) gait: Option<PathBuf>,
    /// Actions per runpack
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) actions: usize,
    /// Runs of `verify` and `run diff`
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Runs of `gate eval`
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) evaluations: usize,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GateArgs {
    /// Timed decisions per class
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) decisions: u64,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PolicyArgs {
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) rows: RowOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignalArgs {
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RegressArgs {
    /// Recorded intents
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) intents: usize,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProbeArgs {
    /// What to do
    pub(crate) what: ProbeKind,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) n: usize,
    /// Where
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InsideArgs {
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// The measured calls, and two whole workloads made of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeKind {
    /// Open an existing file for reading and close it
    Open,
    /// Look at a file's metadata
    Stat,
    /// Create a file and close it
    Create,
    /// Remove a file
    Unlink,
    /// Start /bin/true and wait for it
    Exec,
    /// Connect to a listener on loopback
    Connect,
    /// Create, rename and remove N files
    Churn,
    /// Create, read, chmod and remove N/4 files of different names: N actions, all distinct
    Actions,
}

impl ProbeKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Stat => "stat",
            Self::Create => "create",
            Self::Unlink => "unlink",
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Churn => "churn",
            Self::Actions => "actions",
        }
    }
}
