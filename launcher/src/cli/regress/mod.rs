//! `gait regress …`: a run becomes a fixture, fixtures are graded, a change of policy is held against recorded runs.
//!
//! The command line of the verbs; `init` makes fixtures, `run` grades them through `grade` and `live`, `review` answers
//! `--policy`, and `suite` is the one way to the files of a suite.

mod grade;
mod init;
mod live;
pub(super) mod replay;
mod review;
mod run;
mod suite;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Answer, CliError};
use crate::run_id::OUTPUT_DIRECTORY;

/// `gait regress …`.
#[derive(Debug, Subcommand)]
pub enum RegressCommand {
    /// Makes a fixture of a run.
    Init(RegressInit),
    /// Makes a fixture of a run; the newer name of init.
    Add(RegressInit),
    /// Grades the fixtures; with --policy, says what a policy would have done to recorded runs.
    Run(Box<RegressRun>),
    /// Makes a fixture of a run and grades all fixtures.
    Bootstrap(Box<RegressBootstrap>),
}

/// Flags of `gait regress init`.
#[derive(Debug, Args)]
pub struct RegressInit {
    #[command(flatten)]
    pub fixture: FixtureArgs,
    /// The file that names the fixtures; they lie beside it in fixtures/.
    #[arg(long, value_name = "FILE", default_value = suite::CONFIG)]
    pub config: PathBuf,
}

/// Which run becomes which fixture.
#[derive(Debug, Args)]
pub struct FixtureArgs {
    /// The run, or the runpack's path.
    #[arg(long, value_name = "RUN_ID|PATH")]
    pub from: String,
    /// The fixture's name; the run id by default.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The policy whose verdicts are expected, instead of the recorded ones: the one that mends the incident.
    #[arg(long, value_name = "POLICY")]
    pub expect_policy: Option<String>,
    /// The command of the run, for `regress run --live`; not needed if it was recorded with --capture raw.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Flags of `gait regress run`.
#[derive(Debug, Args)]
pub struct RegressRun {
    #[command(flatten)]
    pub grading: GradingArgs,
    /// Say what this policy would have done to the recorded runs instead of grading fixtures.
    #[arg(long, value_name = "POLICY", conflicts_with = "live")]
    pub policy: Option<String>,
    /// The policy that the runs were recorded under, if its file has changed since.
    #[arg(long, value_name = "POLICY", requires = "policy")]
    pub base_policy: Option<String>,
    /// How the review is written; JSON by --json.
    #[arg(long, value_enum, default_value_t, requires = "policy")]
    pub format: ReviewFormat,
    /// What of the review is a failure (exit 5).
    #[arg(long, value_enum, default_value_t, value_name = "WHAT", requires = "policy")]
    pub fail_on: FailOn,
    /// Runpacks, or folders of runpacks; the fixtures by default.
    #[arg(value_name = "PATH", requires = "policy")]
    pub paths: Vec<PathBuf>,
}

/// How fixtures are graded.
#[derive(Debug, Args)]
pub struct GradingArgs {
    /// The file that names the fixtures.
    #[arg(long, value_name = "FILE", default_value = suite::CONFIG)]
    pub config: PathBuf,
    /// Where the result goes [default: `regress_result.json`; with --policy: nowhere].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the JUnit report goes.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Accepted for older callers: the graders are deterministic, but for --live, which says so by itself.
    #[arg(long)]
    pub allow_nondeterministic: bool,
    /// Run the recorded commands again under `gait exec` and compare what they do.
    #[arg(long)]
    pub live: bool,
    /// The workspace of the live runs, where it is not the recorded one.
    #[arg(long, value_name = "DIR", requires = "live")]
    pub workspace: Option<PathBuf>,
    /// Where the evidence of live runs goes.
    #[arg(long, value_name = "DIR", default_value = OUTPUT_DIRECTORY, requires = "live")]
    pub out_dir: PathBuf,
    /// How many seconds a live run may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "live")]
    pub timeout: u64,
}

/// Flags of `gait regress bootstrap`.
#[derive(Debug, Args)]
pub struct RegressBootstrap {
    #[command(flatten)]
    pub fixture: FixtureArgs,
    #[command(flatten)]
    pub grading: GradingArgs,
}

/// How a review is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReviewFormat {
    /// For a terminal.
    #[default]
    Text,
    /// For a comment on a change.
    Markdown,
}

/// What of a review is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum FailOn {
    /// Something that was allowed would be stopped.
    #[default]
    Stopped,
    /// Something would be judged less strictly.
    Loosened,
    /// Any decision would be another.
    Changed,
    /// Nothing; the review is for reading.
    Never,
}

/// Calls the verb.
///
/// # Errors
///
/// Bad input, a policy that cannot be used, files that cannot be written.
pub(super) fn regress(command: &RegressCommand) -> Result<Answer, CliError> {
    match command {
        RegressCommand::Init(args) => init::init(args, init::Verb::Init),
        RegressCommand::Add(args) => init::init(args, init::Verb::Add),
        RegressCommand::Run(args) => match &args.policy {
            None => run::run(&args.grading),
            Some(policy) => review::review(args, policy),
        },
        RegressCommand::Bootstrap(args) => run::bootstrap(args),
    }
}
