//! Sessions that nobody finished: what can be said of the files that a killed recorder left, and the end that they get.
//!
//! Trace records are signed one by one, so each of them holds by itself. The journal is only a chain until it is sealed:
//! nothing in the files shows whether lines at its end are missing. What follows is therefore said in the journal, and the
//! ending is always [`Ending::Aborted`].

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::archive::Unpacked;
use super::check::{Findings, JournalCheck, JournalLines, TraceCheck, TraceRules};
use super::lines::{self, Batch};
use super::manifest::{COVERAGE, JOURNAL, TRACES};
use super::reason::{Finding, Reason};
use super::write::SessionFiles;
use crate::intent::Capture;
use crate::sign::{CanonError, Digest, Field, Limits, VerifyKey, canonical};
use crate::timestamp::Timestamp;
use crate::trace::{Ending, Journal, Line, LineKind, Totals, TraceId, TraceRecord, intent_id};

/// The files of a session cannot be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfinishedError {
    /// A file cannot be read or written.
    #[error("{file} cannot be used")]
    File {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The journal has no beginning, so nothing was recorded.
    #[error("the journal does not begin")]
    Empty,
    /// The session was signed with another key.
    #[error("the session was signed with another key, {0}")]
    Key(Digest),
    /// The files contradict themselves.
    #[error("the files do not hold: {}", codes(.0))]
    Findings(Vec<Finding>),
    /// The totals have no canonical form.
    #[error("the totals have no canonical form")]
    Canon(#[from] CanonError),
}

fn codes(findings: &[Finding]) -> String {
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.reason.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(", ")
}

/// What the files of a session say, all of which has been checked.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// The run.
    pub run_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// The time of the last line.
    pub last_at: Timestamp,
    /// Whether the journal has its end: only the sealing is missing.
    pub complete: bool,
    /// How it ended, where the journal says so.
    pub ending: Option<String>,
    /// What was captured.
    pub capture: Capture,
    /// Decisions whose records are there and that the journal does not tell of.
    pub untold: u64,
    /// Distinct decisions.
    pub decisions: u64,
    /// Events per class and verdict, as far as the journal tells.
    pub totals: Totals,
    recorded: u64,
    losses: u64,
    lines: u64,
    head: Digest,
}

fn failed(file: &'static str) -> impl Fn(io::Error) -> UnfinishedError {
    move |source| UnfinishedError::File { file, source }
}

fn open(name: &'static str, path: &Path) -> Result<Unpacked<File>, UnfinishedError> {
    let file = File::open(path).map_err(failed(name))?;
    let size = file.metadata().map_err(failed(name))?.len();
    Ok(Unpacked::new(file, size))
}

/// Has `work` done on the lines of a file, and hands what comes of it to `take` in their order.
fn each_batch<T: Send>(
    name: &'static str,
    path: &Path,
    work: impl Fn(&Batch) -> T + Sync,
    take: impl FnMut(T),
) -> Result<(), UnfinishedError> {
    let digest = lines::each_batch(open(name, path)?, Limits::LINE.bytes, work, take);
    digest.map(drop).map_err(failed(name))
}

/// Reads the first line of the journal.
fn first_line(path: &Path) -> Result<Option<Line>, UnfinishedError> {
    let mut reader =
        BufReader::new(File::open(path).map_err(failed(JOURNAL))?.take(Limits::LINE.bytes as u64));
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).map_err(failed(JOURNAL))?;
    Ok(line.strip_suffix(b"\n").and_then(|line| Line::parse(line).ok()))
}

/// Checks the files of a session that was not sealed, torn last lines cut off already.
///
/// # Errors
///
/// Fails if they were changed, as far as that can be seen, or belong to another key.
pub fn examine(files: &SessionFiles<'_>, key: &VerifyKey) -> Result<Unfinished, UnfinishedError> {
    let start = first_line(files.journal)?.filter(|line| line.kind == LineKind::SessionStart);
    let Some(Line { run_id: Some(run_id), key_id: Some(key_id), at: started_at, .. }) = start else {
        return Err(UnfinishedError::Empty);
    };
    if key_id != key.key_id() {
        return Err(UnfinishedError::Key(key_id));
    }
    let mut found = Findings::default();
    let mut capture = Capture::Reference;
    let size = std::fs::metadata(files.traces).map_err(failed(TRACES))?.len();
    let rules = TraceRules::new(&run_id, Some(key), size);
    let mut traces = TraceCheck::default();
    let work =
        |batch: &Batch| (batch.lines().any(|line| line.starts_with(b"{\"args\":")), rules.check(batch));
    each_batch(TRACES, files.traces, work, |(raw, checked)| {
        if raw {
            capture = Capture::Raw;
        }
        traces.take(checked, &mut found);
    })?;
    let traces = traces.finish();
    let mut last_at = started_at;
    let mut journal = JournalCheck::new(&traces, &run_id, Some(key));
    let work = |batch: &Batch| {
        let last = batch.lines().last().and_then(|line| Line::parse(line).ok());
        (last.map(|line| line.at), JournalLines::read(batch))
    };
    each_batch(JOURNAL, files.journal, work, |(at, lines)| {
        last_at = at.unwrap_or(last_at);
        journal.take(lines, &mut found);
    })?;
    let facts = journal.finish(&mut found);
    let coverage = std::fs::read(files.coverage).map_err(failed(COVERAGE))?;
    let declared = facts.start.as_ref().and_then(|line| line.coverage_digest);
    if declared != Some(Digest::sha256(&coverage)) {
        found.add(Reason::CoverageMismatch, COVERAGE);
    }
    // That is what an unfinished session is; everything else is not to be explained by a recorder that was killed.
    let complete = facts.end.is_some();
    let usual = |finding: &Finding| {
        !complete && matches!(finding.reason, Reason::SessionUnfinished | Reason::TraceUnrecorded)
    };
    let findings: Vec<_> = found.0.into_iter().filter(|finding| !usual(finding)).collect();
    if !findings.is_empty() {
        return Err(UnfinishedError::Findings(findings));
    }
    Ok(Unfinished {
        run_id,
        started_at,
        last_at,
        complete,
        ending: facts.end.and_then(|line| line.ending),
        capture,
        untold: traces.len() - facts.recorded,
        decisions: traces.len(),
        totals: facts.totals,
        recorded: facts.recorded,
        losses: facts.losses,
        lines: facts.lines,
        head: facts.head,
    })
}

impl Unfinished {
    /// Appends the end that the session did not get: decisions that only the traces tell of, what a reader must know, and
    /// `aborted`. A journal that is complete stays as it is.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be written; it is of no use then.
    pub fn finish(&mut self, files: &SessionFiles<'_>, now: Timestamp) -> Result<(), UnfinishedError> {
        if self.complete {
            return Ok(());
        }
        let file = OpenOptions::new().append(true).open(files.journal).map_err(failed(JOURNAL))?;
        let mut journal = Journal::resume(io::BufWriter::new(file), self.lines, self.head);
        let mut number = 0;
        let mut written = Ok(());
        let (recorded, totals) = (self.recorded, &mut self.totals);
        let digest = lines::each_line(open(TRACES, files.traces)?, Limits::LINE.bytes, |line| {
            number += 1;
            if number > recorded && written.is_ok() {
                written = tell(&mut journal, number, line, totals);
            }
        });
        digest.map_err(failed(TRACES))?;
        written.map_err(failed(JOURNAL))?;
        let text = self.note();
        let totals = canonical(&self.totals.to_map())?;
        let end = [
            ("ending", Field::Text(&Ending::Aborted.text())),
            ("losses", Field::Count(self.losses)),
            ("totals", Field::Canonical(&totals)),
        ];
        journal
            .append(now, LineKind::Note, &[("text", Field::Text(&text))])
            .and_then(|()| journal.append(now, LineKind::SessionEnd, &end))
            .and_then(|()| journal.flush())
            .map_err(failed(JOURNAL))?;
        (self.complete, self.ending) = (true, Some(Ending::Aborted.text()));
        Ok(())
    }

    fn note(&self) -> String {
        let mut text = format!(
            "the session was not finished and is sealed later; the last line it wrote is of {}. What happened after it, and \
             repeats that were not yet counted, are unknown",
            self.last_at
        );
        if self.untold > 0 {
            text.push_str(&format!(
                "; of {} decisions there are records only, so their processes and repeats are unknown",
                self.untold
            ));
        }
        text
    }
}

/// Tells of a decision of which there is a record only. Whose it was is unknown: process 0 does not exist.
fn tell(
    journal: &mut Journal<io::BufWriter<File>>,
    number: u64,
    line: &[u8],
    totals: &mut Totals,
) -> io::Result<()> {
    let record: TraceRecord = serde_json::from_slice(line)?;
    let (id, event) = (record.trace_id.to_string(), TraceId::event(&record.trace_id, record.created_at));
    journal.append(
        record.created_at,
        LineKind::Record,
        &[
            ("count", Field::Count(1)),
            ("event_id", Field::Text(&event.to_string())),
            ("intent_id", Field::Text(&intent_id(number))),
            ("pid", Field::Count(0)),
            ("tid", Field::Count(0)),
            ("trace_id", Field::Text(&id)),
        ],
    )?;
    if let Some(target) = record.target {
        totals.add(target.endpoint_class, record.verdict, 1);
    }
    Ok(())
}
