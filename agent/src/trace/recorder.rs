//! The recorder: turns the session's observations into trace records and journal lines.
//!
//! A decision that was seen before costs one hash-map look-up; intent, digests and signature are made at its first
//! occurrence only. Memory is bounded: past [`RecorderOptions::remembered`] distinct decisions nothing is remembered
//! any more and every further one is recorded as new. After the first write error every call fails, so that the session blocks.
//! The session's writer thread is the one caller.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write};

use super::circumstances::Circumstances;
use super::journal::{Ending, Journal, LineKind, Totals, intent_id};
use super::record::{Approval, ApprovalRecord, TraceId, TraceRecord, TraceTarget};
use crate::action::{Action, Host, Object};
use crate::gate::Verdict;
use crate::intent::{Capture, Intent, SessionFacts, path_text};
use crate::schema;
use crate::sign::{CanonError, Digest, Field, SigningKey, canonical};
use crate::timestamp::Timestamp;

/// How many distinct decisions are remembered by default: 7/8 of 2^20 slots, some 40 MiB.
const REMEMBERED: usize = 900_000;

/// How many repeats may wait in memory before they are written.
const MAX_PENDING: u64 = 1 << 16;

/// How much free text stands in one line.
const TEXT_BYTES: usize = 16 << 10;

/// How many counts stand in one line, which keeps lines far below the limit of their readers.
const COUNTS_PER_LINE: usize = 1024;

/// Evidence could not be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The journal or the traces could not be written.
    #[error("evidence could not be written")]
    Write(#[from] io::Error),
    /// A document has no canonical form.
    #[error("evidence has no canonical form")]
    Canon(#[from] CanonError),
    /// An earlier write failed.
    #[error("recording stopped after an earlier failure")]
    Stopped,
}

/// What the journal's first line tells about the session.
#[derive(Debug, Clone)]
pub struct SessionStart {
    /// When it began.
    pub at_ns: u64,
    /// The backend that enforces.
    pub backend: String,
    /// The digest of `coverage.json`, the file's bytes.
    pub coverage_digest: Digest,
    /// The program that the workload starts with.
    pub program: Vec<u8>,
    /// The digest of its arguments, each ended by NUL.
    pub command_digest: Digest,
    /// What its actions can be judged again with.
    pub circumstances: Option<Circumstances>,
}

/// What is written of repeated decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repeats {
    /// Counts.
    #[default]
    Counted,
    /// One line per event.
    All,
}

/// How the recorder writes.
#[derive(Debug, Clone, Copy)]
pub struct RecorderOptions {
    /// What of the arguments is kept.
    pub capture: Capture,
    /// What is written of repeated decisions.
    pub repeats: Repeats,
    /// How many distinct decisions are remembered.
    pub remembered: usize,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self { capture: Capture::default(), repeats: Repeats::default(), remembered: REMEMBERED }
    }
}

/// One judged event.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// When it was seen, in nanoseconds since 1970.
    pub at_ns: u64,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The action.
    pub action: Action<'a>,
    /// The final verdict.
    pub verdict: Verdict,
    /// Whether the verdict was carried out.
    pub enforced: bool,
    /// What the policy would have said, where it was not enforced.
    pub simulated_verdict: Option<Verdict>,
    /// What was answered, if the policy asked.
    pub approval: Option<Approval>,
    /// What decided: equal for two observations only if their [`Reasons`] are equal.
    pub decision_key: u64,
}

/// Why a verdict was given. Asked for at the first occurrence of a decision only.
#[derive(Debug, Clone, Default)]
pub struct Reasons {
    /// Reason codes.
    pub codes: Vec<String>,
    /// Violations.
    pub violations: Vec<String>,
    /// The rule that decided.
    pub matched_rule: Option<String>,
}

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The number of the decision, counted from 1.
    pub intent: u64,
    /// Whether it was its first occurrence.
    pub first: bool,
}

/// What a finished recording amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSummary {
    /// The digest of the journal's last line.
    pub head: Digest,
    /// The number of its lines.
    pub lines: u64,
    /// The number of trace records.
    pub traces: u64,
    /// Events per class and verdict.
    pub totals: Totals,
    /// Events that were lost.
    pub losses: u64,
}

/// A decision that was seen before.
#[derive(Debug, Clone, Copy)]
struct Seen {
    intent: u32,
    pending: u32,
}

/// The evidence of a running session.
pub struct Recorder<J, T> {
    facts: SessionFacts,
    policy_digest: Digest,
    key: SigningKey,
    options: RecorderOptions,
    journal: Journal<J>,
    traces: T,
    seen: HashMap<[u64; 2], Seen>,
    /// Two secret hash keys: a workload that could make two decisions collide could hide one behind the other.
    hashers: [RandomState; 2],
    ids: Vec<TraceId>,
    dirty: Vec<[u64; 2]>,
    pending: u64,
    scratch: Vec<u8>,
    count: u64,
    totals: Totals,
    losses: u64,
    stopped: bool,
}

impl<J: Write, T: Write> Recorder<J, T> {
    /// Begins recording and writes the journal's first line.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn new(
        facts: SessionFacts,
        policy_digest: Digest,
        key: SigningKey,
        journal: J,
        traces: T,
        start: &SessionStart,
        options: RecorderOptions,
    ) -> Result<Self, RecordError> {
        let mut journal = Journal::new(journal);
        let at = Timestamp::from_unix_nanos(start.at_ns);
        let circumstances = start.circumstances.as_ref().map(canonical).transpose()?;
        let known = circumstances.as_deref().map(|text| ("circumstances", Field::Canonical(text)));
        let (key_id, public_key) = (key.key_id(), key.verify_key().to_base64());
        let program = path_text(&start.program);
        let fields = [
            ("backend", Field::Text(&start.backend)),
            ("command_digest", Field::Digest(&start.command_digest)),
            ("coverage_digest", Field::Digest(&start.coverage_digest)),
            ("key_id", Field::Digest(&key_id)),
            ("policy_digest", Field::Digest(&policy_digest)),
            ("producer_version", Field::Text(schema::PRODUCER_VERSION)),
            ("program", Field::Text(&program)),
            ("public_key", Field::Text(&public_key)),
            ("run_id", Field::Text(&facts.run_id)),
            ("schema_id", Field::Text(schema::JOURNAL)),
            ("schema_version", Field::Text(schema::VERSION)),
        ];
        journal.append(at, LineKind::SessionStart, &known.into_iter().chain(fields).collect::<Vec<_>>())?;
        journal.flush()?;
        Ok(Self {
            facts,
            policy_digest,
            key,
            options,
            journal,
            traces,
            seen: HashMap::new(),
            hashers: [RandomState::new(), RandomState::new()],
            ids: Vec::new(),
            dirty: Vec::new(),
            pending: 0,
            scratch: Vec::new(),
            count: 0,
            totals: Totals::default(),
            losses: 0,
            stopped: false,
        })
    }

    /// Records an event. `reasons` is called at the first occurrence of a decision only.
    ///
    /// # Errors
    ///
    /// Fails if the event could not be written, and from then on always.
    pub fn observe(
        &mut self,
        seen: &Observation<'_>,
        reasons: impl FnOnce() -> Reasons,
    ) -> Result<Observed, RecordError> {
        let key = self.key_of(seen);
        let intent = match self.seen.get_mut(&key) {
            Some(entry) if !self.stopped => {
                let intent = entry.intent;
                if self.options.repeats == Repeats::Counted {
                    if entry.pending == 0 {
                        self.dirty.push(key);
                    }
                    entry.pending += 1;
                    self.pending += 1;
                }
                Some(u64::from(intent))
            }
            _ => None,
        };
        let Some(intent) = intent else {
            let intent = self.guarded(|this| this.first(seen, key, reasons()))?;
            return Ok(Observed { intent, first: true });
        };
        self.totals.add(seen.action.class(), seen.verdict, 1);
        let asked = seen.approval.is_some_and(|approval| approval.asked);
        if asked || self.options.repeats == Repeats::All || self.pending >= MAX_PENDING {
            self.guarded(|this| this.again(seen, intent))?;
        }
        Ok(Observed { intent, first: false })
    }

    /// Runs a step that writes; if it fails, nothing is recorded any more.
    fn guarded<R>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<R, RecordError>,
    ) -> Result<R, RecordError> {
        if self.stopped {
            return Err(RecordError::Stopped);
        }
        let result = step(self);
        self.stopped = result.is_err();
        result
    }

    /// The identity of a decision: everything that its record would tell.
    fn key_of(&mut self, seen: &Observation<'_>) -> [u64; 2] {
        let bytes = &mut self.scratch;
        bytes.clear();
        bytes.push(seen.action.operation as u8);
        bytes.push(seen.verdict as u8);
        bytes.push(u8::from(seen.enforced));
        bytes.push(seen.simulated_verdict.map_or(u8::MAX, |verdict| verdict as u8));
        match seen.approval {
            None => bytes.push(u8::MAX),
            Some(approval) => bytes.push((approval.answer as u8) << 4 | approval.scope as u8),
        }
        bytes.extend_from_slice(&seen.decision_key.to_le_bytes());
        match seen.action.object {
            Object::Path(path) => tagged(bytes, 0, path),
            Object::Other(text) => tagged(bytes, 1, text.as_bytes()),
            Object::Host(host) => {
                match host.address {
                    None => bytes.push(2),
                    Some(std::net::IpAddr::V4(address)) => tagged(bytes, 3, &address.octets()),
                    Some(std::net::IpAddr::V6(address)) => tagged(bytes, 4, &address.octets()),
                }
                bytes.extend_from_slice(&host.port.to_le_bytes());
                tagged(bytes, u8::from(host.name.is_some()), host.name.unwrap_or_default().as_bytes());
            }
        }
        if let Some(argv) = seen.action.argv {
            tagged(bytes, 5, argv);
        }
        [self.hashers[0].hash_one(&*bytes), self.hashers[1].hash_one(&*bytes)]
    }

    fn first(&mut self, seen: &Observation<'_>, key: [u64; 2], reasons: Reasons) -> Result<u64, RecordError> {
        let at = Timestamp::from_unix_nanos(seen.at_ns);
        let mut record = self.record(seen, at, reasons);
        let mut line = record.sign(&self.key)?;
        line.push(b'\n');
        self.traces.write_all(&line)?;
        let intent = self.count + 1;
        self.event_line(seen, at, LineKind::Record, intent, &record.trace_id)?;
        self.count = intent;
        self.totals.add(seen.action.class(), seen.verdict, 1);
        if self.seen.len() < self.options.remembered
            && let Ok(intent) = u32::try_from(intent)
        {
            self.seen.insert(key, Seen { intent, pending: 0 });
            self.ids.push(record.trace_id);
        }
        self.answer_line(seen, at, intent, &record.trace_id)?;
        Ok(intent)
    }

    fn again(&mut self, seen: &Observation<'_>, intent: u64) -> Result<(), RecordError> {
        let at = Timestamp::from_unix_nanos(seen.at_ns);
        // Decisions that are remembered were numbered first, without gaps.
        let index = usize::try_from(intent - 1).unwrap_or(usize::MAX);
        let Some(&trace_id) = self.ids.get(index) else { return Err(RecordError::Stopped) };
        if self.options.repeats == Repeats::All {
            self.event_line(seen, at, LineKind::Event, intent, &trace_id)?;
        }
        self.answer_line(seen, at, intent, &trace_id)?;
        if self.pending >= MAX_PENDING {
            self.write_repeats(at)?;
        }
        Ok(())
    }

    fn record(&self, seen: &Observation<'_>, at: Timestamp, reasons: Reasons) -> TraceRecord {
        let intent = Intent::from_action(&self.facts, &seen.action, self.options.capture);
        let mut record = TraceRecord::new(self.policy_digest, &intent, seen.verdict);
        record.created_at = at;
        record.run_id = Some(self.facts.run_id.clone());
        record.reason_codes = sorted(reasons.codes);
        record.violations = sorted(reasons.violations);
        record.matched_rule = reasons.matched_rule;
        record.enforced = Some(seen.enforced);
        record.simulated_verdict = seen.simulated_verdict;
        record.approval =
            seen.approval.map(|approval| ApprovalRecord { answer: approval.answer, scope: approval.scope });
        record.target = intent.targets().first().map(|target| TraceTarget {
            kind: target.kind.as_str().to_owned(),
            value: target.value.clone(),
            operation: target.operation.clone(),
            endpoint_class: target.endpoint_class,
        });
        if self.options.capture == Capture::Raw {
            record.args = Some(intent.args().clone());
        }
        record
    }

    fn event_line(
        &mut self,
        seen: &Observation<'_>,
        at: Timestamp,
        kind: LineKind,
        intent: u64,
        trace_id: &TraceId,
    ) -> Result<(), RecordError> {
        let (event_id, trace_id) = (trace_id.event(at).to_string(), trace_id.to_string());
        let (intent_id, image) = (intent_id(intent), path_text(seen.action.image));
        // A record names the peer by its name; which address that was is a circumstance like the program.
        let address = match seen.action.object {
            Object::Host(Host { name: Some(_), address: Some(address), .. }) => Some(address.to_string()),
            Object::Path(_) | Object::Host(_) | Object::Other(_) => None,
        };
        let mut fields = vec![
            ("count", Field::Count(1)),
            ("event_id", Field::Text(&event_id)),
            ("intent_id", Field::Text(&intent_id)),
            ("pid", Field::Count(u64::from(seen.pid))),
            ("tid", Field::Count(u64::from(seen.tid))),
            ("trace_id", Field::Text(&trace_id)),
        ];
        fields.extend(address.as_deref().map(|address| ("address", Field::Text(address))));
        if !image.is_empty() {
            fields.push(("image", Field::Text(&image)));
        }
        Ok(self.journal.append(at, kind, &fields)?)
    }

    fn answer_line(
        &mut self,
        seen: &Observation<'_>,
        at: Timestamp,
        intent: u64,
        trace_id: &TraceId,
    ) -> Result<(), RecordError> {
        let Some(approval) = seen.approval.filter(|approval| approval.asked) else { return Ok(()) };
        let fields = [
            ("answer", Field::Text(approval.answer.as_str())),
            ("intent_id", Field::Text(&intent_id(intent))),
            ("pid", Field::Count(u64::from(seen.pid))),
            ("scope", Field::Text(approval.scope.as_str())),
            ("tid", Field::Count(u64::from(seen.tid))),
            ("trace_id", Field::Text(&trace_id.to_string())),
        ];
        Ok(self.journal.append(at, LineKind::Approval, &fields)?)
    }

    fn write_repeats(&mut self, at: Timestamp) -> Result<(), RecordError> {
        let mut counts = Vec::with_capacity(self.dirty.len());
        for key in self.dirty.drain(..) {
            if let Some(entry) = self.seen.get_mut(&key) {
                counts.push((entry.intent, std::mem::take(&mut entry.pending)));
            }
        }
        self.pending = 0;
        counts.sort_unstable();
        for batch in counts.chunks(COUNTS_PER_LINE) {
            let mut text = Vec::with_capacity(batch.len() * 40);
            for (intent, count) in batch {
                text.push(if text.is_empty() { b'[' } else { b',' });
                write!(text, "{{\"count\":\"{count}\",\"intent_id\":\"intent_{intent}\"}}")?;
            }
            text.push(b']');
            self.journal.append(at, LineKind::Repeat, &[("counts", Field::Canonical(&text))])?;
        }
        Ok(())
    }

    /// Records that events were lost, and why.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`].
    pub fn loss(&mut self, at_ns: u64, count: u64, reason: &str) -> Result<(), RecordError> {
        self.guarded(|this| {
            let fields = [("count", Field::Count(count)), ("reason", Field::Text(clip(reason)))];
            this.journal.append(Timestamp::from_unix_nanos(at_ns), LineKind::Loss, &fields)?;
            this.losses = this.losses.saturating_add(count);
            Ok(())
        })
    }

    /// Records something that is no event but that a reader must know.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`].
    pub fn note(&mut self, at_ns: u64, text: &str) -> Result<(), RecordError> {
        self.guarded(|this| {
            let fields = [("text", Field::Text(clip(text)))];
            Ok(this.journal.append(Timestamp::from_unix_nanos(at_ns), LineKind::Note, &fields)?)
        })
    }

    /// Writes the repeats that wait in memory and hands everything to the operating system.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`].
    pub fn flush(&mut self, at_ns: u64) -> Result<(), RecordError> {
        self.guarded(|this| {
            this.write_repeats(Timestamp::from_unix_nanos(at_ns))?;
            // Traces first: a journal must not name a record that is not there.
            this.traces.flush()?;
            Ok(this.journal.flush()?)
        })
    }

    /// Returns the events recorded so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Writes the last line and ends the recording.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`].
    pub fn finish(mut self, at_ns: u64, ending: Ending) -> Result<JournalSummary, RecordError> {
        self.flush(at_ns)?;
        let totals = canonical(&self.totals.to_map())?;
        let fields = [
            ("ending", Field::Text(&ending.text())),
            ("losses", Field::Count(self.losses)),
            ("totals", Field::Canonical(&totals)),
        ];
        self.journal.append(Timestamp::from_unix_nanos(at_ns), LineKind::SessionEnd, &fields)?;
        self.journal.flush()?;
        Ok(JournalSummary {
            head: self.journal.head(),
            lines: self.journal.lines(),
            traces: self.count,
            totals: self.totals,
            losses: self.losses,
        })
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&bytes.len().to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Cuts free text, so that the line keeps within the limit of its readers.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts.dedup();
    texts
}
