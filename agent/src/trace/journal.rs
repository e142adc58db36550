//! The journal: an append-only chain of lines, each holding the digest of the one before.
//!
//! A line is a canonical object and a newline. `prev` is the digest of the previous line without its newline, 64
//! zeros in the first. Sequence numbers, counts and process ids are decimal strings. Limits: the chain shows that
//! nothing was changed, removed or inserted before a known head; the head itself is only proven by the signed manifest.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::circumstances::Circumstances;
use super::record::{Answer, Scope, TraceId};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::sign::{Digest, Field, Limits, ObjectWriter};
use crate::timestamp::Timestamp;

/// What a line of the journal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// The session began; always the first line and only there.
    SessionStart,
    /// The first event of a decision, whose trace record is the next of `traces.jsonl`.
    Record,
    /// Further events of earlier decisions, counted.
    Repeat,
    /// One further event of an earlier decision, told in full.
    Event,
    /// Somebody answered a question.
    Approval,
    /// Events were lost.
    Loss,
    /// Something else worth knowing.
    Note,
    /// The session ended; always the last line.
    SessionEnd,
}

impl LineKind {
    /// Returns the spelling in the journal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "session_start",
            Self::Record => "record",
            Self::Repeat => "repeat",
            Self::Event => "event",
            Self::Approval => "approval",
            Self::Loss => "loss",
            Self::Note => "note",
            Self::SessionEnd => "session_end",
        }
    }
}

/// How a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Gait ended it, because it could not go on.
    Aborted,
}

impl Ending {
    /// Returns the spelling in documents, such as `exited:0`, `killed:9`, `aborted`.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Exited(status) => format!("exited:{status}"),
            Self::Killed(signal) => format!("killed:{signal}"),
            Self::Aborted => "aborted".to_owned(),
        }
    }
}

/// Events per class and verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals([[u64; Verdict::ALL.len()]; EndpointClass::ALL.len()]);

impl Totals {
    /// Adds events.
    pub fn add(&mut self, class: EndpointClass, verdict: Verdict, count: u64) {
        let cell = &mut self.0[class as usize][verdict as usize];
        *cell = cell.saturating_add(count);
    }

    /// Returns the events of a class with a verdict.
    #[must_use]
    pub const fn get(&self, class: EndpointClass, verdict: Verdict) -> u64 {
        self.0[class as usize][verdict as usize]
    }

    /// Returns the events of all classes with a verdict.
    #[must_use]
    pub fn of_verdict(&self, verdict: Verdict) -> u64 {
        EndpointClass::ALL.iter().map(|&class| self.get(class, verdict)).sum()
    }

    /// Returns all events.
    #[must_use]
    pub fn sum(&self) -> u64 {
        Verdict::ALL.iter().map(|&verdict| self.of_verdict(verdict)).sum()
    }

    /// Yields the counts that are not zero, by class and verdict.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointClass, Verdict, u64)> + '_ {
        let pairs = EndpointClass::ALL
            .into_iter()
            .flat_map(|class| Verdict::ALL.into_iter().map(move |v| (class, v)));
        pairs.map(|(class, verdict)| (class, verdict, self.get(class, verdict))).filter(|cell| cell.2 > 0)
    }

    /// Returns the form of documents: class to verdict to decimal string, zeros left out.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, String>> {
        let mut map: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (class, verdict, count) in self.iter() {
            map.entry(class.as_str()).or_default().insert(verdict.as_str(), count.to_string());
        }
        map
    }
}

impl<'de> Deserialize<'de> for Totals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map: Distinct<Distinct<Decimal>> = Deserialize::deserialize(deserializer)?;
        let mut totals = Self::default();
        for (class, verdicts) in map.0 {
            let class: EndpointClass = class.parse().map_err(D::Error::custom)?;
            for (verdict, count) in verdicts.0 {
                totals.add(class, verdict.parse().map_err(D::Error::custom)?, count.0);
            }
        }
        Ok(totals)
    }
}

/// An object whose keys are distinct; of a plain map, the last of two equal keys would win.
struct Distinct<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Distinct<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fill<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fill<T> {
            type Value = Distinct<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Distinct<T>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry::<String, T>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
                    }
                    map.insert(key, value);
                }
                Ok(Distinct(map))
            }
        }

        deserializer.deserialize_map(Fill(PhantomData))
    }
}

/// The writing end of a journal.
#[derive(Debug)]
pub struct Journal<W> {
    out: W,
    line: Vec<u8>,
    lines: u64,
    head: Digest,
}

impl<W: Write> Journal<W> {
    /// Starts an empty journal.
    pub const fn new(out: W) -> Self {
        Self { out, line: Vec::new(), lines: 0, head: Digest::ZERO }
    }

    /// Goes on with a journal that has `lines` lines, the last of which has the digest `head`.
    pub(crate) const fn resume(out: W, lines: u64, head: Digest) -> Self {
        Self { out, line: Vec::new(), lines, head }
    }

    /// Appends a line.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written; the journal may then end in a part of the line and must not be used further.
    pub(crate) fn append(
        &mut self,
        at: Timestamp,
        kind: LineKind,
        fields: &[(&'static str, Field<'_>)],
    ) -> io::Result<()> {
        let mut time = Vec::with_capacity(32);
        time.push(b'"');
        at.write(&mut time);
        time.push(b'"');
        let mut all = Vec::with_capacity(fields.len() + 4);
        all.extend_from_slice(fields);
        all.push(("at", Field::Canonical(&time)));
        all.push(("kind", Field::Text(kind.as_str())));
        all.push(("prev", Field::Digest(&self.head)));
        all.push(("seq", Field::Count(self.lines)));
        all.sort_unstable_by_key(|(key, _)| *key);

        self.line.clear();
        let mut object = ObjectWriter::new(&mut self.line);
        for (key, value) in all {
            object.field(key, value);
        }
        object.finish();
        let head = Digest::sha256(&self.line);
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.head = head;
        self.lines += 1;
        Ok(())
    }

    /// Hands everything written to the operating system.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Returns the digest of the last line.
    #[must_use]
    pub const fn head(&self) -> Digest {
        self.head
    }

    /// Returns the number of lines.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }
}

/// Cuts a last line off that was not written to its end, as after the recorder was killed. Returns the bytes cut.
///
/// What is left can be sealed; its verification then says that the session is unfinished.
///
/// # Errors
///
/// Fails if the file cannot be read or shortened, or its last line exceeds every limit.
pub fn cut_torn_line(path: &Path) -> io::Result<u64> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let start = length.saturating_sub(Limits::LINE.bytes as u64 + 1);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let kept = match tail.iter().rposition(|&byte| byte == b'\n') {
        Some(newline) => start + newline as u64 + 1,
        None if start == 0 => 0,
        None => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of lines")),
    };
    if kept < length {
        file.set_len(kept)?;
    }
    Ok(length - kept)
}

/// A decimal string that fits 64 bits, without sign and leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal(u64);

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<u64>() {
            Ok(value) if value.to_string() == text => Ok(Self(value)),
            _ => Err(D::Error::custom(format_args!("{text:?} is not a decimal number"))),
        }
    }
}

fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Decimal::deserialize(deserializer)?.0)
}

fn some_decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    decimal(deserializer).map(Some)
}

/// `intent_<n>`, counted from 1.
fn intent_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = text.strip_prefix("intent_").and_then(|number| number.parse::<u64>().ok());
    match number {
        Some(number) if number > 0 && intent_id(number) == text => Ok(number),
        _ => Err(D::Error::custom(format_args!("{text:?} is not an intent id"))),
    }
}

fn some_intent_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    intent_number(deserializer).map(Some)
}

/// Returns the id of the n-th decision of a session, counted from 1.
pub(crate) fn intent_id(number: u64) -> String {
    format!("intent_{number}")
}

/// How often a decision was repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// The events.
    #[serde(deserialize_with = "decimal")]
    pub count: u64,
    /// The number of the decision.
    #[serde(rename = "intent_id", deserialize_with = "intent_number")]
    pub intent: u64,
}

/// A line of the journal as read; which optional fields are set depends on its kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/contracts/evidence.md has the table of the fields")]
pub struct Line {
    pub at: Timestamp,
    pub kind: LineKind,
    pub prev: Digest,
    #[serde(deserialize_with = "decimal")]
    pub seq: u64,

    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    #[serde(default)]
    pub answer: Option<Answer>,
    #[serde(default)]
    pub backend: Option<String>,
    #[serde(default)]
    pub circumstances: Option<Circumstances>,
    #[serde(default)]
    pub command_digest: Option<Digest>,
    #[serde(default, deserialize_with = "some_decimal")]
    pub count: Option<u64>,
    #[serde(default)]
    pub counts: Option<Vec<Counted>>,
    #[serde(default)]
    pub coverage_digest: Option<Digest>,
    #[serde(default)]
    pub ending: Option<String>,
    #[serde(default)]
    pub event_id: Option<TraceId>,
    #[serde(default)]
    pub image: Option<String>,
    #[serde(default, rename = "intent_id", deserialize_with = "some_intent_number")]
    pub intent: Option<u64>,
    #[serde(default)]
    pub key_id: Option<Digest>,
    #[serde(default, deserialize_with = "some_decimal")]
    pub losses: Option<u64>,
    #[serde(default, deserialize_with = "some_decimal")]
    pub pid: Option<u64>,
    #[serde(default)]
    pub policy_digest: Option<Digest>,
    #[serde(default)]
    pub producer_version: Option<String>,
    #[serde(default)]
    pub program: Option<String>,
    #[serde(default)]
    pub public_key: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub run_id: Option<String>,
    #[serde(default)]
    pub schema_id: Option<String>,
    #[serde(default)]
    pub schema_version: Option<String>,
    #[serde(default)]
    pub scope: Option<Scope>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default, deserialize_with = "some_decimal")]
    pub tid: Option<u64>,
    #[serde(default)]
    pub totals: Option<Totals>,
    #[serde(default)]
    pub trace_id: Option<TraceId>,
}

impl Line {
    /// Reads a line, without its newline.
    ///
    /// # Errors
    ///
    /// Fails if it is not a line of a journal; unknown and repeated keys are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        if bytes.first() != Some(&b'{') {
            // serde would read an array as the fields in order.
            return Err(serde_json::Error::custom("not an object"));
        }
        serde_json::from_slice(bytes)
    }
}
