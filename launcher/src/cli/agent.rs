//! `gait agent run`: owns the kernel programs, for users who may not load any.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Answer, CliError, ErrorCode};
use crate::daemon::run::{self, Files, LOCK, RunError};
use crate::daemon::{self, SOCKET};

/// `gait agent …`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Loads the kernel programs, and lets users run sessions under them without privileges; needs root.
    Run(AgentRun),
}

/// Flags of `gait agent run`.
#[derive(Debug, Args)]
pub struct AgentRun {
    /// Where to listen, unless the service manager brings the socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// The host cannot do it (exit 7), another one runs, or its socket cannot be had.
pub(super) fn run(args: &AgentRun) -> Result<Answer, CliError> {
    let files = Files { socket: args.socket.clone(), lock: PathBuf::from(LOCK) };
    let ended = run::run(&files, daemon::allowed, daemon::load).map_err(run_error)?;
    let text = match (ended.live, ended.blocked) {
        (0, 0) => "agent: ended; nothing is left in the kernel".to_owned(),
        (live, blocked) => format!(
            "agent: ended; the rules of {live} live and {blocked} blocked sessions stay in the kernel until the next start"
        ),
    };
    Answer::ok(&json!({ "live": ended.live, "blocked": ended.blocked }), text)
}

fn run_error(error: RunError) -> CliError {
    match error {
        RunError::Host(refused) => {
            CliError::new(ErrorCode::DependencyMissing, refused.what).hint(refused.remedy)
        }
        RunError::Taken(_) => CliError::new(ErrorCode::StateContention, error.to_string())
            .hint("stop it first (`systemctl stop gait-agent.socket gait-agent.service`)"),
        RunError::File { .. } => CliError::io("").because(error),
        RunError::Inherited(_) => {
            CliError::input("").because(error).hint("the socket unit needs one line ListenSequentialPacket=")
        }
        RunError::Call(..) => CliError::new(ErrorCode::InternalFailure, "").because(error),
    }
}
