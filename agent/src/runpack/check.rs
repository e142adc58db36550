//! Checks of the lines inside a session's runpack: traces first, then the journal that refers to them.
//!
//! What can be said of a line alone is found by several threads, what depends on the lines before it in their order.

use super::derive::{intent_line, result_line};
use super::lines::Batch;
use super::reason::{Finding, Reason};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::sign::{BulkVerifier, Digest, DigestHasher, Signature, SignatureError, VerifyKey};
use crate::trace::{Line, LineKind, Totals, TraceError, TraceId, TraceRecord, intent_id, read_line};

/// More findings than this tell nothing new.
const MAX_FINDINGS: usize = 100;

/// From so many bytes of records on, tables for their signatures pay for themselves: some 500 records.
const BULK_BYTES: u64 = 512 << 10;

/// What was found so far, at most [`MAX_FINDINGS`].
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, reason: Reason, place: impl Into<String>) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(Finding { reason, place: place.into() });
        }
    }
}

/// What is kept of a trace record while the journal is checked: 14 bytes.
#[derive(Debug, Clone, Copy)]
struct Fact {
    id: TraceId,
    class: EndpointClass,
    verdict: Verdict,
}

/// What the traces amount to.
pub(super) struct Traces {
    facts: Vec<Option<Fact>>,
    pub(super) policy: Option<Digest>,
    /// The digest that `intents.jsonl` must have.
    pub(super) intents: Digest,
    /// The digest that `results.jsonl` must have.
    pub(super) results: Digest,
}

impl Traces {
    pub(super) fn len(&self) -> u64 {
        self.facts.len() as u64
    }

    fn fact(&self, intent: u64) -> Option<&Fact> {
        self.facts.get(usize::try_from(intent).ok()?.checked_sub(1)?)?.as_ref()
    }
}

/// What is checked of each trace record alone, on any thread.
pub(super) struct TraceRules<'a> {
    run_id: &'a str,
    key: Option<&'a VerifyKey>,
    bulk: Option<BulkVerifier>,
}

/// What the lines of a batch came to.
#[derive(Default)]
pub(super) struct CheckedTraces {
    facts: Vec<Option<Fact>>,
    /// The policy of the first line, and of each whose policy differs from that before it.
    policies: Vec<(u64, Digest)>,
    intents: Vec<u8>,
    results: Vec<u8>,
    findings: Vec<(Reason, u64)>,
}

fn trace_place(line: u64) -> String {
    format!("traces.jsonl line {line}")
}

/// A line that was read, or why it was not.
type ReadLine = Result<(TraceRecord, Signature, Digest), TraceError>;

impl<'a> TraceRules<'a> {
    /// `size` is that of all records together.
    pub(super) fn new(run_id: &'a str, key: Option<&'a VerifyKey>, size: u64) -> Self {
        let many = size >= BULK_BYTES;
        Self { run_id, key, bulk: key.filter(|_| many).and_then(BulkVerifier::new) }
    }

    /// Checks the lines of a batch.
    pub(super) fn check(&self, batch: &Batch) -> CheckedTraces {
        let mut checked = CheckedTraces::default();
        let read: Vec<ReadLine> = batch.lines().map(read_line).collect();
        let signed: Vec<_> =
            read.iter().flatten().map(|(_, signature, digest)| (*digest, signature)).collect();
        let mut proven = self.bulk.as_ref().map(|bulk| bulk.verify(&signed).into_iter());
        for ((bytes, read), line) in batch.lines().zip(read).zip(batch.first..) {
            let record = match read {
                Ok((record, signature, digest)) => {
                    // What the tables do not prove is asked about once more, one by one, which tells why.
                    let proven = proven.as_mut().and_then(Iterator::next) == Some(true);
                    if let (Some(key), false) = (self.key, proven)
                        && let Err(error) = key.verify_digest(&digest, &signature)
                    {
                        checked.findings.push((trace_reason(&error.into()), line));
                    }
                    Some(record)
                }
                Err(error) => {
                    checked.findings.push((trace_reason(&error), line));
                    // The record is needed for what refers to it, whatever its signature is worth.
                    serde_json::from_slice(bytes).ok()
                }
            };
            let fact = record.and_then(|record| self.record(&record, line, &mut checked));
            checked.facts.push(fact);
        }
        checked
    }

    /// Derives what follows from a record.
    fn record(&self, record: &TraceRecord, line: u64, checked: &mut CheckedTraces) -> Option<Fact> {
        if record.run_id.as_deref() != Some(self.run_id) {
            checked.findings.push((Reason::RunMismatch, line));
        }
        if checked.policies.last().is_none_or(|(_, policy)| *policy != record.policy_digest) {
            checked.policies.push((line, record.policy_digest));
        }
        let Some(target) = &record.target else {
            checked.findings.push((Reason::TraceInvalid, line));
            return None;
        };
        let id = intent_id(line);
        if intent_line(record, &id, &mut checked.intents).is_err() {
            checked.findings.push((Reason::TraceInvalid, line));
        }
        result_line(record, &id, &mut checked.results);
        Some(Fact { id: record.trace_id, class: target.endpoint_class, verdict: record.verdict })
    }
}

/// What the traces amount to so far; batches are taken in their order.
#[derive(Default)]
pub(super) struct TraceCheck {
    facts: Vec<Option<Fact>>,
    policy: Option<Digest>,
    intents: DigestHasher,
    results: DigestHasher,
}

impl TraceCheck {
    pub(super) fn take(&mut self, checked: CheckedTraces, found: &mut Findings) {
        let mut findings = checked.findings;
        for (line, policy) in checked.policies {
            if *self.policy.get_or_insert(policy) != policy {
                findings.push((Reason::PolicyMismatch, line));
            }
        }
        findings.sort_by_key(|(_, line)| *line);
        for (reason, line) in findings {
            found.add(reason, trace_place(line));
        }
        self.facts.extend(checked.facts);
        self.intents.update(&checked.intents);
        self.results.update(&checked.results);
    }

    pub(super) fn finish(self) -> Traces {
        Traces {
            facts: self.facts,
            policy: self.policy,
            intents: self.intents.finish(),
            results: self.results.finish(),
        }
    }
}

fn trace_reason(error: &TraceError) -> Reason {
    match error {
        TraceError::TraceId { .. } => Reason::TraceIdMismatch,
        TraceError::Unsigned => Reason::TraceSignatureInvalid,
        TraceError::Signature(SignatureError::Key { .. }) => Reason::KeyMismatch,
        TraceError::Signature(_) => Reason::TraceSignatureInvalid,
        TraceError::Parse(_)
        | TraceError::Shape(_)
        | TraceError::Schema { .. }
        | TraceError::Form
        | TraceError::Canon(_) => Reason::TraceInvalid,
    }
}

/// Lines of the journal with their digests; `None` where a line is malformed.
pub(super) struct JournalLines(Vec<(Digest, Option<Line>)>);

impl JournalLines {
    /// Reads the lines of a batch, on any thread.
    pub(super) fn read(batch: &Batch) -> Self {
        Self(batch.lines().map(|line| (Digest::sha256(line), Line::parse(line).ok())).collect())
    }
}

/// Checks `journal.jsonl` line by line.
pub(super) struct JournalCheck<'a> {
    traces: &'a Traces,
    run_id: &'a str,
    key: Option<&'a VerifyKey>,
    lines: u64,
    head: Digest,
    recorded: u64,
    totals: Totals,
    losses: u64,
    approvals: u64,
    start: Option<Line>,
    end: Option<Line>,
}

/// What the journal amounts to.
pub(super) struct JournalFacts {
    pub(super) lines: u64,
    pub(super) head: Digest,
    pub(super) totals: Totals,
    pub(super) losses: u64,
    pub(super) approvals: u64,
    /// Decisions that it tells of.
    pub(super) recorded: u64,
    pub(super) start: Option<Line>,
    pub(super) end: Option<Line>,
}

impl<'a> JournalCheck<'a> {
    pub(super) fn new(traces: &'a Traces, run_id: &'a str, key: Option<&'a VerifyKey>) -> Self {
        Self {
            traces,
            run_id,
            key,
            lines: 0,
            head: Digest::ZERO,
            recorded: 0,
            totals: Totals::default(),
            losses: 0,
            approvals: 0,
            start: None,
            end: None,
        }
    }

    pub(super) fn take(&mut self, lines: JournalLines, found: &mut Findings) {
        for (digest, line) in lines.0 {
            self.line(digest, line, found);
        }
    }

    fn line(&mut self, digest: Digest, line: Option<Line>, found: &mut Findings) {
        let number = self.lines;
        let place = || format!("journal.jsonl line {}", number + 1);
        let prev = std::mem::replace(&mut self.head, digest);
        self.lines += 1;
        let Some(line) = line else {
            found.add(Reason::JournalInvalid, place());
            return;
        };
        if line.prev != prev {
            found.add(Reason::ChainBroken, place());
        }
        if line.seq != number {
            found.add(Reason::SequenceGap, place());
        }
        if number == 0 && line.kind != LineKind::SessionStart {
            found.add(Reason::SessionNotStarted, place());
        }
        if self.end.is_some() {
            found.add(Reason::AfterSessionEnd, place());
        }
        if let Some(reason) = self.kind(line) {
            found.add(reason, place());
        }
    }

    /// Takes in what a line tells; returns what is wrong with it.
    fn kind(&mut self, line: Line) -> Option<Reason> {
        match line.kind {
            LineKind::SessionStart if self.start.is_some() => return Some(Reason::JournalInvalid),
            LineKind::SessionStart => {
                let reason = self.start_reason(&line);
                self.start = Some(line);
                return reason;
            }
            LineKind::Record => {
                let Some(intent) = line.intent else { return Some(Reason::JournalInvalid) };
                if intent != self.recorded + 1 {
                    return Some(Reason::TraceUnknown);
                }
                self.recorded = intent;
                return self.event(&line);
            }
            LineKind::Event => return self.event(&line),
            LineKind::Repeat => {
                let Some(counts) = &line.counts else { return Some(Reason::JournalInvalid) };
                for one in counts {
                    match self.traces.fact(one.intent) {
                        Some(fact) if one.intent <= self.recorded => {
                            self.totals.add(fact.class, fact.verdict, one.count);
                        }
                        _ => return Some(Reason::TraceUnknown),
                    }
                }
            }
            LineKind::Approval => {
                self.approvals += 1;
                let complete = line.answer.is_some() && line.scope.is_some();
                return if complete { self.reference(&line).err() } else { Some(Reason::JournalInvalid) };
            }
            LineKind::Loss => {
                let Some(count) = line.count else { return Some(Reason::JournalInvalid) };
                self.losses = self.losses.saturating_add(count);
            }
            LineKind::Note if line.text.is_none() => return Some(Reason::JournalInvalid),
            LineKind::Note => {}
            LineKind::SessionEnd => {
                let complete = line.ending.is_some() && line.totals.is_some() && line.losses.is_some();
                self.end = Some(line);
                return (!complete).then_some(Reason::JournalInvalid);
            }
        }
        None
    }

    fn start_reason(&self, line: &Line) -> Option<Reason> {
        let public = line.public_key.as_deref().map(VerifyKey::from_file_text);
        let Some(Ok(public)) = public else { return Some(Reason::JournalInvalid) };
        if line.key_id != Some(public.key_id()) || self.key.is_some_and(|key| *key != public) {
            return Some(Reason::KeyMismatch);
        }
        if line.run_id.as_deref() != Some(self.run_id) {
            return Some(Reason::RunMismatch);
        }
        if line.policy_digest.is_none() || self.traces.policy.is_some_and(|it| line.policy_digest != Some(it))
        {
            return Some(Reason::PolicyMismatch);
        }
        (line.coverage_digest.is_none() || line.backend.is_none()).then_some(Reason::JournalInvalid)
    }

    /// The decision that a line refers to, told so far and under its right name.
    fn reference(&self, line: &Line) -> Result<Fact, Reason> {
        let (Some(intent), Some(trace_id)) = (line.intent, line.trace_id) else {
            return Err(Reason::JournalInvalid);
        };
        match self.traces.fact(intent) {
            Some(fact) if fact.id == trace_id && intent <= self.recorded => Ok(*fact),
            _ => Err(Reason::TraceUnknown),
        }
    }

    fn event(&mut self, line: &Line) -> Option<Reason> {
        let fact = match self.reference(line) {
            Ok(fact) => fact,
            Err(reason) => return Some(reason),
        };
        let told = line.count == Some(1) && line.pid.is_some() && line.tid.is_some();
        if !told || line.event_id != Some(fact.id.event(line.at)) {
            return Some(Reason::JournalInvalid);
        }
        self.totals.add(fact.class, fact.verdict, 1);
        None
    }

    pub(super) fn finish(self, found: &mut Findings) -> JournalFacts {
        if self.lines == 0 {
            found.add(Reason::SessionNotStarted, "journal.jsonl");
        }
        if self.recorded < self.traces.len() {
            found.add(Reason::TraceUnrecorded, format!("traces.jsonl line {}", self.recorded + 1));
        }
        match &self.end {
            None => found.add(Reason::SessionUnfinished, "journal.jsonl"),
            Some(end) => {
                if end.totals.is_some_and(|totals| totals != self.totals) {
                    found.add(Reason::TotalsMismatch, "journal.jsonl");
                }
                if end.losses.is_some_and(|losses| losses != self.losses) {
                    found.add(Reason::UnaccountedLoss, "journal.jsonl");
                }
            }
        }
        JournalFacts {
            lines: self.lines,
            head: self.head,
            totals: self.totals,
            losses: self.losses,
            approvals: self.approvals,
            recorded: self.recorded,
            start: self.start,
            end: self.end,
        }
    }
}
