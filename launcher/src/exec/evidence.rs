//! What the guard writes: journal and traces while the session runs, the runpack at its end.

use std::cell::RefCell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gait_agent::action::Action;
use gait_agent::gate::{Decision, Verdict};
use gait_agent::intent::SessionFacts;
use gait_agent::policy::CompiledPolicy;
use gait_agent::runpack::{self, Env, SealError, Sealed, SessionFiles, SessionRun};
use gait_agent::sign::{Digest, SigningKey, canonical};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{
    Answer, Approval as RecordedApproval, Circumstances, Ending, JournalSummary, Observation, Reasons,
    RecordError, Recorder, RecorderOptions, Scope, SessionStart,
};

use super::coverage::Coverage;
use super::event::{Approval, Event};
use crate::backend::BackendKind;
use crate::run_id::runpack_path;
use crate::sys::process;

/// The reason of an action about which the kernel decided otherwise than the gate.
const BACKEND_DISAGREEMENT: &str = "backend_disagreement";
/// Names in a run directory.
pub(crate) const JOURNAL: &str = "journal.jsonl";
pub(crate) const TRACES: &str = "traces.jsonl";
pub(crate) const COVERAGE: &str = "coverage.json";
/// Buffer of the journal and of the traces.
const BUFFER: usize = 256 << 10;

/// Evidence could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    /// A file or directory.
    #[error("cannot write {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The run id is taken.
    #[error("a run of that id is there already: {}", .0.display())]
    Taken(PathBuf),
    /// The journal.
    #[error("cannot record")]
    Record(#[from] RecordError),
    /// The runpack.
    #[error("cannot seal the runpack")]
    Seal(#[from] SealError),
    /// A document has no canonical form.
    #[error("cannot write canonical JSON")]
    Canon(#[from] gait_agent::sign::CanonError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> EvidenceError {
    let path = path.to_owned();
    move |source| EvidenceError::File { path, source }
}

/// The run directory with its open files, made before anything runs.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    journal: File,
    traces: File,
}

impl RunDirectory {
    /// Makes `<out_dir>/run_<id>/` and its files.
    ///
    /// # Errors
    /// Where something cannot be written, or the run is there already.
    pub(crate) fn create(out_dir: &Path, run_id: &str) -> Result<Self, EvidenceError> {
        let path = out_dir.join(run_id);
        let pack = runpack_path(out_dir, run_id);
        if pack.exists() {
            return Err(EvidenceError::Taken(pack));
        }
        let mut builder = DirBuilder::new();
        builder.mode(0o750).recursive(true).create(out_dir).map_err(at(out_dir))?;
        let mut builder = DirBuilder::new();
        match builder.mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(EvidenceError::Taken(path));
            }
            other => other.map_err(at(&path))?,
        }
        let file = |name: &str| {
            let path = path.join(name);
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(at(&path))
        };
        let (journal, traces) = (file(JOURNAL)?, file(TRACES)?);
        // Says that somebody writes here, as long as this process lives. Where a file system knows no locks, nobody can tell.
        let _unknown = journal.try_lock().is_err();
        Ok(Self { path, journal, traces })
    }

    /// Puts something else in the place of the journal's file.
    #[cfg(test)]
    pub(crate) fn with_journal(self, journal: File) -> Self {
        let _replaced = std::fs::remove_file(self.path.join(JOURNAL)).is_err();
        Self { journal, ..self }
    }

    /// Removes what was made for a session that did not start.
    pub(crate) fn discard(self) {
        let _left_behind = std::fs::remove_dir_all(&self.path).is_err();
    }
}

/// What a session is, for its evidence.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) facts: SessionFacts,
    pub(crate) policy_digest: Digest,
    pub(crate) program: Vec<u8>,
    pub(crate) command_digest: Digest,
    pub(crate) circumstances: Circumstances,
    pub(crate) options: RecorderOptions,
}

/// `traces.jsonl`, which the journal writes through to.
#[derive(Debug, Clone)]
struct TraceFile(Rc<RefCell<BufWriter<File>>>);

impl Write for TraceFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// `journal.jsonl`. No byte of it reaches the file before the records that it may name: whoever kills the guard at any
/// moment leaves a journal without dangling references.
#[derive(Debug)]
struct JournalFile {
    out: BufWriter<File>,
    traces: TraceFile,
}

impl Write for JournalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.buffer().len() + bytes.len() > self.out.capacity() {
            self.traces.flush()?;
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.traces.flush()?;
        self.out.flush()
    }
}

/// The evidence of a running session.
pub(crate) struct Evidence {
    directory: PathBuf,
    recorder: Recorder<JournalFile, TraceFile>,
    /// The journal's file, kept open for its lock.
    lock: Option<File>,
    identity: Identity,
    key: SigningKey,
    started_ns: u64,
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Returns the gate's decision of an event. A word that is none can only come from a supervisor that lost its mind: then
/// the event stands as blocked.
pub(crate) fn decision(event: &Event<'_>) -> Decision {
    Decision::from_u64(event.decision).unwrap_or(Decision::NEVER)
}

/// The final verdict of an event: what the policy said, what was answered, whether it was carried out.
pub(crate) fn final_verdict(decision: Decision, event: &Event<'_>) -> Verdict {
    match decision.verdict() {
        _ if !event.enforced => Verdict::Allow,
        Verdict::RequireApproval if event.approval.grants() => Verdict::Allow,
        Verdict::RequireApproval => Verdict::Block,
        verdict => verdict,
    }
}

/// Returns the reasons of an event, the answer to a question included.
pub(crate) fn reasons(policy: &CompiledPolicy, decision: Decision, approval: Approval) -> Reasons {
    let why = policy.explain(decision);
    let mut codes = why.reason_codes;
    let answer = match approval {
        Approval::None => None,
        Approval::Once | Approval::Session => Some("approval_granted"),
        Approval::Refused => Some("approval_refused"),
        Approval::Unavailable => Some("approval_unavailable"),
        Approval::TimedOut => Some("approval_timed_out"),
    };
    codes.extend(answer.map(str::to_owned));
    Reasons { codes, violations: why.violations, matched_rule: why.matched_rule }
}

impl Evidence {
    /// Writes `coverage.json` and the journal's first line.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub(crate) fn begin(
        run: RunDirectory,
        identity: Identity,
        backend: BackendKind,
        coverage: &Coverage,
        key: SigningKey,
    ) -> Result<Self, EvidenceError> {
        let bytes = canonical(coverage)?;
        let place = run.path.join(COVERAGE);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place).map_err(at(&place))?;
        file.write_all(&bytes).map_err(at(&place))?;
        let started_ns = process::now_ns();
        let start = SessionStart {
            at_ns: started_ns,
            backend: backend.as_str().to_owned(),
            coverage_digest: Digest::sha256(&bytes),
            program: identity.program.clone(),
            command_digest: identity.command_digest,
            circumstances: Some(identity.circumstances.clone()),
        };
        let lock = run.journal.try_clone().ok();
        let traces = TraceFile(Rc::new(RefCell::new(BufWriter::with_capacity(BUFFER, run.traces))));
        let out = BufWriter::with_capacity(BUFFER, run.journal);
        let recorder = Recorder::new(
            identity.facts.clone(),
            identity.policy_digest,
            key.clone(),
            JournalFile { out, traces: traces.clone() },
            traces,
            &start,
            identity.options,
        )?;
        Ok(Self { directory: run.path, recorder, lock, identity, key, started_ns })
    }

    /// Records one event; returns whether its decision is seen for the first time.
    ///
    /// # Errors
    /// Where it cannot be written, and from then on always.
    pub(crate) fn record(
        &mut self,
        event: &Event<'_>,
        policy: &CompiledPolicy,
    ) -> Result<bool, EvidenceError> {
        let decision = decision(event);
        let simulated = (!event.enforced).then(|| decision.verdict());
        let seen = Observation {
            at_ns: event.at_ns,
            pid: event.tid,
            tid: event.tid,
            action: event.action,
            verdict: final_verdict(decision, event),
            enforced: event.enforced,
            simulated_verdict: simulated,
            approval: recorded_approval(event.approval),
            // Decisions use the low bits; equal decisions with other answers have other reasons.
            decision_key: event.decision.rotate_left(8) ^ event.approval as u64,
        };
        let observed = self.recorder.observe(&seen, || reasons(policy, decision, event.approval))?;
        Ok(observed.first)
    }

    /// Records an action about which the kernel decided otherwise than the gate: as it was, by the kernel's verdict.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) fn disagree(
        &mut self,
        event: &Event<'_>,
        kernel: Decision,
        what: &str,
    ) -> Result<(), EvidenceError> {
        let seen = Observation {
            at_ns: event.at_ns,
            pid: event.tid,
            tid: event.tid,
            action: event.action,
            verdict: final_verdict(kernel, event),
            enforced: event.enforced,
            simulated_verdict: (!event.enforced).then(|| kernel.verdict()),
            approval: recorded_approval(event.approval),
            // No decision of the gate has this word.
            decision_key: u64::MAX,
        };
        let codes = vec![BACKEND_DISAGREEMENT.to_owned()];
        self.recorder.observe(&seen, || Reasons { codes, ..Reasons::default() })?;
        self.note(&format!("kernel and policy disagree: {what}"))
    }

    /// Records that actions were lost.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) fn lose(&mut self, count: u64, reason: &str) -> Result<(), EvidenceError> {
        Ok(self.recorder.loss(process::now_ns(), count, reason)?)
    }

    /// Writes a note that a reader of the journal must know.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) fn note(&mut self, text: &str) -> Result<(), EvidenceError> {
        Ok(self.recorder.note(process::now_ns(), text)?)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) fn flush(&mut self) -> Result<(), EvidenceError> {
        Ok(self.recorder.flush(process::now_ns())?)
    }

    /// Seals the session into `<out_dir>/runpack_<id>.zip` and removes the run directory.
    ///
    /// # Errors
    /// Where the runpack cannot be written; the run directory stays then.
    pub(crate) fn seal(self, ending: Ending) -> Result<(JournalSummary, Sealed, PathBuf), EvidenceError> {
        let ended_ns = process::now_ns();
        let summary = self.recorder.finish(ended_ns, ending)?;
        let run_id = self.identity.facts.run_id.clone();
        let run = SessionRun {
            run_id: run_id.clone(),
            started_at: Timestamp::from_unix_nanos(self.started_ns),
            ended_at: Timestamp::from_unix_nanos(ended_ns),
            ending: Some(ending),
            env: env(),
            capture: self.identity.options.capture,
        };
        let out_dir = self.directory.parent().unwrap_or(Path::new("."));
        let (sealed, place) = seal_files(&self.directory, out_dir, &run, &self.key)?;
        let _left_behind = std::fs::remove_dir_all(&self.directory).is_err();
        // Until now nobody else could take the run for one that is left behind.
        drop(self.lock);
        Ok((summary, sealed, place))
    }
}

/// Seals the files of a directory into `<out_dir>/runpack_<id>.zip`.
///
/// # Errors
/// Where the runpack cannot be written; nothing is left of it then.
pub(crate) fn seal_files(
    directory: &Path,
    out_dir: &Path,
    run: &SessionRun,
    key: &SigningKey,
) -> Result<(Sealed, PathBuf), EvidenceError> {
    let [coverage, journal, traces] = [COVERAGE, JOURNAL, TRACES].map(|name| directory.join(name));
    let files = SessionFiles { coverage: &coverage, journal: &journal, traces: &traces };
    let place = runpack_path(out_dir, &run.run_id);
    let staged = out_dir.join(format!(".runpack_{}.zip.tmp", run.run_id));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&staged);
    let file = file.map_err(at(&staged))?;
    match runpack::seal(&files, run, key, BufWriter::with_capacity(BUFFER, file)) {
        Ok(sealed) => {
            std::fs::rename(&staged, &place).map_err(at(&place))?;
            Ok((sealed, place))
        }
        Err(error) => {
            let _left_behind = std::fs::remove_file(&staged).is_err();
            Err(error.into())
        }
    }
}

/// Returns where the session takes place.
pub(crate) fn env() -> Env {
    Env {
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        runtime: "gait exec".to_owned(),
    }
}

fn recorded_approval(approval: Approval) -> Option<RecordedApproval> {
    let (answer, scope, asked) = match approval {
        Approval::None => return None,
        Approval::Once => (Answer::Allow, Scope::Once, true),
        Approval::Session => (Answer::Allow, Scope::Session, true),
        Approval::Refused => (Answer::Block, Scope::Once, true),
        Approval::Unavailable => (Answer::Unavailable, Scope::Once, false),
        Approval::TimedOut => (Answer::TimedOut, Scope::Once, true),
    };
    Some(RecordedApproval { answer, scope, asked })
}

/// Describes an action in one line, for people.
pub(crate) fn describe(action: &Action<'_>) -> String {
    format!("{} {}", action.class(), crate::approval::object_text(&action.object))
}
