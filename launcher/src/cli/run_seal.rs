//! `gait run seal`: the runpack of a session whose guard could not make it.
//!
//! The run directory is left as it is until the runpack is there: everything is done on copies beside it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use gait_agent::runpack::{SessionFiles, SessionRun, Unfinished, UnfinishedError, examine};
use gait_agent::sign::SigningKey;
use gait_agent::trace::{Ending, cut_torn_line};
use serde::Serialize;

use super::args::SigningKeyArgs;
use super::{Answer, CliError, ErrorCode};
use crate::exec::evidence::{COVERAGE, EvidenceError, JOURNAL, TRACES, env, seal_files};
use crate::keyring::{self, DevKey};
use crate::run_id::{find_unsealed, now, runpack_path};

/// Flags of `gait run seal`.
#[derive(Debug, Args)]
pub struct Seal {
    /// The run, or the path of its directory.
    #[arg(value_name = "RUN_ID|DIR")]
    pub run: String,
    #[command(flatten)]
    pub key: SigningKeyArgs,
}

#[derive(Serialize)]
struct Report {
    run_id: String,
    runpack: String,
    manifest_digest: String,
    ticket_footer: String,
    ending: String,
    decisions: String,
    events: String,
    last_event_at: String,
    /// Decisions of which only the records were there.
    untold_decisions: String,
    /// Bytes of lines that were not written to their end.
    torn_bytes: String,
}

/// The copies that are worked on; removed whatever happens.
struct Workbench(PathBuf);

impl Drop for Workbench {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0).is_err();
    }
}

impl Workbench {
    /// Copies the files of a run to a directory of its own beside it.
    fn copy(run: &Path, beside: &Path, name: &str) -> Result<Self, CliError> {
        let bench = Self(beside.join(format!(".seal_{name}_{}", crate::sys::process::pid())));
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| CliError::io(format!("copy {path}")).because(error)
        };
        DirBuilder::new().mode(0o700).create(&bench.0).map_err(failed(&bench.0))?;
        for name in [COVERAGE, JOURNAL, TRACES] {
            let from = run.join(name);
            std::fs::copy(&from, bench.0.join(name)).map_err(failed(&from))?;
        }
        Ok(bench)
    }

    /// Cuts off what was not written to its end; returns the bytes.
    fn cut(&self) -> Result<u64, CliError> {
        let mut torn = 0;
        for name in [JOURNAL, TRACES] {
            torn += cut_torn_line(&self.0.join(name)).map_err(|error| {
                CliError::new(ErrorCode::VerificationFailed, format!("{name} is damaged")).because(error)
            })?;
        }
        Ok(torn)
    }
}

/// Seals a run.
///
/// # Errors
///
/// No such run, one whose session is not over, one that was changed, the wrong key.
pub(super) fn seal(args: &Seal) -> Result<Answer, CliError> {
    let Some(run) = find_unsealed(&args.run) else {
        return Err(CliError::input(format!("no unsealed run: {}", args.run))
            .hint("name a run below ./gait-out, or the path of its directory"));
    };
    let run = run.canonicalize().map_err(|error| CliError::input(args.run.clone()).because(error))?;
    let (Some(out_dir), Some(name)) = (run.parent(), run.file_name().and_then(|name| name.to_str())) else {
        return Err(CliError::input(format!("{} is not the directory of a run", run.display())));
    };
    let place = runpack_path(out_dir, name);
    if place.exists() {
        return Err(CliError::input(format!("{} is there already", place.display()))
            .hint("verify it; if it holds, the run directory can be removed"));
    }
    let lock = locked(&run)?;
    let (mode, source) = args.key.source();
    let (key, _) = keyring::signing_key(mode, &source, DevKey::PerUser)?;
    let bench = Workbench::copy(&run, out_dir, name)?;
    let torn = bench.cut()?;
    let report = sealed(&run, name, &bench, &key, torn)?;
    let _left_behind = std::fs::remove_dir_all(&run).is_err();
    drop(lock);
    let text = format!(
        "run seal: session {} sealed later, {} decisions, {} events; last event {}\n{}",
        report.ending, report.decisions, report.events, report.last_event_at, report.runpack
    );
    let footer = report.ticket_footer.clone();
    let mut answer = Answer::ok(&report, text)?;
    answer.talk.push(footer);
    Ok(answer)
}

/// Takes the lock that a running session holds.
fn locked(run: &Path) -> Result<File, CliError> {
    let path = run.join(JOURNAL);
    let file = File::open(&path)
        .map_err(|error| CliError::input(format!("read {}", path.display())).because(error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(CliError::new(ErrorCode::StateContention, format!("{} is being written", run.display()))
                .hint("its session is running, and seals it when it ends"))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(CliError::io(format!("lock {}", path.display())).because(error))
        }
    }
}

fn sealed(
    run: &Path,
    name: &str,
    bench: &Workbench,
    key: &SigningKey,
    torn: u64,
) -> Result<Report, CliError> {
    let [coverage, journal, traces] = [COVERAGE, JOURNAL, TRACES].map(|name| bench.0.join(name));
    let files = SessionFiles { coverage: &coverage, journal: &journal, traces: &traces };
    let wrong = |error| unfinished_error(run, error);
    let mut found = examine(&files, &key.verify_key()).map_err(wrong)?;
    if found.run_id != name {
        return Err(CliError::new(
            ErrorCode::VerificationFailed,
            format!("{} holds the files of {}", run.display(), found.run_id),
        ));
    }
    let at = now();
    found.finish(&files, at).map_err(wrong)?;
    let session = SessionRun {
        run_id: found.run_id.clone(),
        started_at: found.started_at,
        ended_at: at,
        ending: None,
        env: env(),
        capture: found.capture,
    };
    let out_dir = run.parent().unwrap_or(Path::new("."));
    let (sealed, place) = seal_files(&bench.0, out_dir, &session, key).map_err(seal_error)?;
    Ok(report(found, &sealed, &place, torn))
}

fn report(found: Unfinished, sealed: &gait_agent::runpack::Sealed, place: &Path, torn: u64) -> Report {
    Report {
        run_id: found.run_id,
        runpack: place.display().to_string(),
        manifest_digest: sealed.manifest_digest.to_string(),
        ticket_footer: sealed.ticket_footer(),
        ending: found.ending.unwrap_or_else(|| Ending::Aborted.text()),
        decisions: found.decisions.to_string(),
        events: found.totals.sum().to_string(),
        last_event_at: found.last_at.to_string(),
        untold_decisions: found.untold.to_string(),
        torn_bytes: torn.to_string(),
    }
}

fn seal_error(error: EvidenceError) -> CliError {
    CliError::io("seal the run").because(error)
}

fn unfinished_error(run: &Path, error: UnfinishedError) -> CliError {
    let shown = run.display();
    match error {
        UnfinishedError::File { .. } => CliError::io(format!("use {shown}")).because(error),
        UnfinishedError::Empty => CliError::input(format!("nothing was recorded in {shown}"))
            .because(error)
            .hint("the session did not start; the directory can be removed"),
        UnfinishedError::Key(_) => CliError::input(format!("seal {shown}"))
            .because(error)
            .hint("only the key of the session can seal it: --key-mode prod --private-key FILE"),
        other => CliError::new(ErrorCode::VerificationFailed, format!("{shown} was changed"))
            .because(other)
            .hint("keep it as it is and look at it by hand: its records are signed one by one"),
    }
}
