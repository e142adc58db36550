//! Reading runpacks for the signal: sealed and unchanged, or not at all.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::contract::{NamedRun, Weights};
use super::driver::Fixture;
use super::evidence::SideEvidence;
use super::fingerprint::{Kind, RunFingerprint};
use super::session::{Decided, SessionRun};
use crate::runpack::{Finding, ReadError, Runpack, VerifyError, VerifyOptions, verify_seal};
use crate::sign::CanonError;

/// A runpack cannot be told anything from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// It cannot be read, or is something else.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It was changed since it was sealed, or is malformed.
    #[error("does not hold: {}", listed(.0))]
    Broken(Vec<Finding>),
    /// A file in it has another shape.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its facts have no canonical form.
    #[error(transparent)]
    Canon(#[from] CanonError),
}

fn listed(findings: &[Finding]) -> String {
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.reason.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(", ")
}

/// What one runpack says.
#[derive(Debug, Clone)]
pub struct RunObservation {
    pub(super) entry: RunFingerprint,
    /// By the contract's formula.
    pub(super) severity: u32,
    /// Of a session, by endpoint classes and places.
    pub(super) weights: Option<Weights>,
    /// Whether a session's policy stopped something.
    pub(super) stopped: bool,
    pub(super) fixtures: Vec<Fixture>,
}

/// Opens a runpack that is as it was sealed.
pub(super) fn open_sealed(path: &Path) -> Result<(Runpack, String), ObserveError> {
    let report = verify_seal(path, &VerifyOptions::default())?;
    if !report.ok() {
        return Err(ObserveError::Broken(report.findings));
    }
    Ok((Runpack::open(path)?, report.run_id))
}

/// Reads one runpack.
///
/// # Errors
///
/// Fails if it cannot be read, does not hold, or has an unexpected shape.
pub fn observe(path: &Path, side: &SideEvidence) -> Result<RunObservation, ObserveError> {
    let (mut runpack, run_id) = open_sealed(path)?;
    let attached = side.of(&run_id);
    let source = path.display().to_string();
    let mut observation = if runpack.is_session() {
        session(&mut runpack, run_id, source, &attached)?
    } else {
        let mut run = NamedRun::default();
        runpack.each_intent(|intent| run.intent(&intent.tool_name))?;
        runpack.each_result(|result| run.result(&result.status))?;
        run.refs(&runpack.refs()?);
        let (facts, weights) = run.finish(&attached);
        RunObservation {
            entry: RunFingerprint::new(run_id, facts.fingerprint()?, facts, source),
            severity: weights.score(),
            weights: None,
            stopped: false,
            fixtures: Vec::new(),
        }
    };
    observation.entry.trace_count = attached.traces;
    observation.entry.regress_evidence_seen = attached.regress;
    Ok(observation)
}

fn session(
    runpack: &mut Runpack,
    run_id: String,
    source: String,
    attached: &super::evidence::Attached,
) -> Result<RunObservation, ObserveError> {
    let mut run = SessionRun::new(runpack.session_start()?.circumstances.unwrap_or_default());
    runpack.trace_lines(|line| {
        run.decision(&serde_json::from_slice::<Decided>(line)?);
        Ok(())
    })?;
    let timeline = runpack.run()?.timeline.unwrap_or_default();
    let ending = timeline.iter().rev().find(|event| event.event == "end");
    let signal = run.finish(ending.map_or("", |event| &event.reference), attached);
    let (named, severity) = signal.named;
    let mut entry = RunFingerprint::new(run_id, signal.facts.fingerprint()?, signal.facts, source);
    entry.kind = Kind::Session;
    entry.contract_fingerprint = Some(named.fingerprint()?);
    Ok(RunObservation {
        entry,
        severity: severity.score(),
        weights: Some(signal.weights),
        stopped: signal.stopped,
        fixtures: signal.fixtures,
    })
}

/// Reads runpacks on all cores; the results are in the order of the paths.
#[must_use]
pub fn observe_all(paths: &[PathBuf], side: &SideEvidence) -> Vec<Result<RunObservation, ObserveError>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(paths.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, path)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            paths.get(at).map(|path| (at, path))
        } {
            done.push((at, observe(path, side)));
        }
        done
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}
