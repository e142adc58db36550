//! A whole session on the scripted kernel, for tests: policy, gate, evidence and runpack are the real ones.
//!
//! Behind the feature `fake`, which nothing but this package's own tests asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gait_agent::intent::SessionFacts;
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::trace::{Circumstances, RecorderOptions};

use crate::backend::fake::Fake;
pub use crate::backend::fake::{Answer, Deed, Script, Step, Thing};
use crate::cli::{CliError, session_error};
use crate::exec::evidence::{Identity, RunDirectory};
use crate::exec::session::{self, Plan};
use crate::session_config::{self, PolicyChoice};

/// What a session is started with.
#[derive(Debug, Clone)]
pub struct Rehearsal<'a> {
    /// A policy file, or the name of a shipped policy.
    pub policy: &'a str,
    /// Whom the workload acts for.
    pub identity: String,
    /// The workspace, resolved.
    pub workspace: &'a Path,
    /// Where the evidence goes.
    pub out_dir: &'a Path,
    /// The run.
    pub run_id: &'a str,
    /// Stop nothing.
    pub simulate: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curtain {
    /// As in documents, such as `exited:0`.
    pub ending: String,
    /// Distinct blocked actions.
    pub blocked: u64,
    /// Events that were lost.
    pub losses: u64,
    /// The sealed evidence.
    pub runpack: PathBuf,
}

impl Rehearsal<'_> {
    /// Plays a script.
    ///
    /// # Errors
    /// What `gait exec` would say and exit with.
    pub fn play(&self, script: Script) -> Result<Curtain, CliError> {
        let facts = SessionFacts {
            identity: self.identity.clone(),
            workspace: self.workspace.display().to_string(),
            run_id: self.run_id.to_owned(),
        };
        let choice = PolicyChoice { name: self.policy, facts: &facts, out_dir: self.out_dir };
        let policy = Arc::new(session_config::load(&choice)?);
        session_config::check_enforceable(&policy)?;
        let identity = Identity {
            facts,
            policy_digest: policy.policy().digest(),
            program: b"script".to_vec(),
            command_digest: Digest::sha256(b"script\0"),
            circumstances: Circumstances::default(),
            options: RecorderOptions {
                repeats: session_config::repeats(&policy),
                ..RecorderOptions::default()
            },
        };
        let run = RunDirectory::create(self.out_dir, self.run_id)
            .map_err(|error| CliError::io("make the run directory").because(error))?;
        let hidden = session_config::hidden();
        let backend = Fake::new(script, Arc::clone(&policy), hidden.clone(), self.simulate);
        let plan = Plan { backend: Box::new(backend), policy, hidden, identity, allow_degraded: false, run };
        let outcome = session::run(plan, || Ok(SigningKey::from_seed([7; 32]))).map_err(session_error)?;
        Ok(Curtain {
            ending: outcome.ending.text(),
            blocked: outcome.blocked,
            losses: outcome.summary.losses,
            runpack: outcome.runpack,
        })
    }
}
