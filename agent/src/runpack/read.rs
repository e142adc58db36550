//! Reading a runpack for people: its documents, and the decisions of a session with how often each was made.
//!
//! Reading proves nothing; callers verify first.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use zip::ZipArchive;
use zip::result::ZipError;

use super::archive::Unpacked;
use super::lines::each_line;
use super::manifest::{INTENTS, JOURNAL, MANIFEST, Manifest, REFS, RESULTS, RUN, TRACES};
use super::record::{IntentEntry, Refs, ResultEntry, Run, RunRecord};
use crate::gate::Verdict;
use crate::sign::{Digest, Limits, ParseError, parse_strict};
use crate::trace::{Line, LineKind, TraceRecord};

/// A runpack cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be opened, or is no archive.
    #[error("runpack cannot be opened")]
    Open(#[source] io::Error),
    /// An entry is not there or cannot be unpacked.
    #[error("{entry} cannot be read")]
    Entry {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry is not strict JSON.
    #[error("{entry} is not strict JSON")]
    Parse {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// An entry has another shape.
    #[error("{entry} has an unexpected shape")]
    Shape {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A decision of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Its number, counted from 1.
    pub number: u64,
    /// How often it was made.
    pub count: u64,
    /// Its record.
    pub record: TraceRecord,
}

/// The part of a trace record that says what was decided of what: reading it alone takes a fraction of the time.
#[derive(Debug, Deserialize)]
pub(super) struct Told<'a> {
    pub(super) policy_digest: Option<Digest>,
    pub(super) verdict: Verdict,
    #[serde(default)]
    pub(super) simulated_verdict: Option<Verdict>,
    #[serde(borrow, default)]
    pub(super) target: Option<ToldTarget<'a>>,
}

/// The target of a [`Told`].
#[derive(Debug, Deserialize)]
pub(super) struct ToldTarget<'a> {
    #[serde(borrow)]
    pub(super) endpoint_class: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) operation: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) value: Cow<'a, str>,
}

/// An open runpack.
pub struct Runpack {
    archive: ZipArchive<BufReader<File>>,
}

impl Runpack {
    /// Opens a runpack.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is no archive.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(ReadError::Open)?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| ReadError::Open(error.into()))?;
        Ok(Self { archive })
    }

    /// Returns whether it is the runpack of a session.
    #[must_use]
    pub fn is_session(&self) -> bool {
        self.archive.index_for_name(TRACES).is_some()
    }

    /// Reads the manifest.
    ///
    /// # Errors
    ///
    /// Fails if it is not there or not a manifest.
    pub fn manifest(&mut self) -> Result<Manifest, ReadError> {
        self.document(MANIFEST)
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    ///
    /// Fails if it is not there or has another shape.
    pub fn run(&mut self) -> Result<Run, ReadError> {
        self.document(RUN)
    }

    /// Reads `refs.json`.
    ///
    /// # Errors
    ///
    /// Fails if it is not there or has another shape.
    pub fn refs(&mut self) -> Result<Refs, ReadError> {
        self.document(REFS)
    }

    /// Reads all intents. For sessions, [`Self::decisions`] needs less memory and tells more.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn intents(&mut self) -> Result<Vec<IntentEntry>, ReadError> {
        self.entries(INTENTS)
    }

    /// Reads all results.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn results(&mut self) -> Result<Vec<ResultEntry>, ReadError> {
        self.entries(RESULTS)
    }

    /// Reads the whole run as it would be described to be packed again. Memory grows with the run.
    ///
    /// # Errors
    ///
    /// Fails if a part cannot be read.
    pub fn record(&mut self) -> Result<RunRecord, ReadError> {
        Ok(RunRecord {
            run: self.run()?,
            intents: self.intents()?,
            results: self.results()?,
            refs: self.refs()?,
            capture_mode: self.manifest()?.capture_mode,
        })
    }

    /// Hands the trace records of a session to `each`, in order; [`Self::decisions`] counts their repeats besides.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn traces(&mut self, mut each: impl FnMut(TraceRecord)) -> Result<(), ReadError> {
        self.lines(TRACES, |bytes| {
            each(serde_json::from_slice(bytes)?);
            Ok(())
        })
    }

    /// Hands the gist of the trace records of a session to `each`, in order.
    pub(super) fn told(&mut self, mut each: impl FnMut(Told<'_>)) -> Result<(), ReadError> {
        self.lines(TRACES, |bytes| {
            each(serde_json::from_slice(bytes)?);
            Ok(())
        })
    }

    /// Reads a small entry as bytes, such as `coverage.json`.
    ///
    /// # Errors
    ///
    /// Fails if it is not there, exceeds 16 MiB or cannot be unpacked.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, ReadError> {
        let failed = |source| ReadError::Entry { entry: name.to_owned(), source };
        let mut bytes = Vec::new();
        let limit = 16 << 20;
        let entry = self.archive.by_name(name).map_err(|error| failed(error.into()))?;
        entry.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "larger than 16 MiB")));
        }
        Ok(bytes)
    }

    /// Hands the intents to `each`, in order and one at a time.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn each_intent(&mut self, mut each: impl FnMut(IntentEntry)) -> Result<(), ReadError> {
        self.lines(INTENTS, |bytes| serde_json::from_slice(bytes).map(&mut each))
    }

    /// Hands the results to `each`, in order and one at a time.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn each_result(&mut self, mut each: impl FnMut(ResultEntry)) -> Result<(), ReadError> {
        self.lines(RESULTS, |bytes| serde_json::from_slice(bytes).map(&mut each))
    }

    /// Reads the first line of the journal alone: the start of the session.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn session_start(&mut self) -> Result<Line, ReadError> {
        let entry = || JOURNAL.to_owned();
        let failed = |source| ReadError::Entry { entry: entry(), source };
        let file = self.archive.by_name(JOURNAL).map_err(|error: ZipError| failed(error.into()))?;
        let mut line = Vec::new();
        let limit = Limits::LINE.bytes as u64 + 1;
        BufReader::new(file.take(limit)).read_until(b'\n', &mut line).map_err(failed)?;
        Line::parse(line.strip_suffix(b"\n").unwrap_or(&line))
            .map_err(|source| ReadError::Shape { entry: entry(), source })
    }

    /// Hands the lines of the journal to `each`, in order.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn journal(&mut self, mut each: impl FnMut(Line)) -> Result<(), ReadError> {
        self.lines(JOURNAL, |bytes| Line::parse(bytes).map(&mut each))
    }

    /// Hands the lines of `traces.jsonl` to `each`, as they are.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read, or `each` refuses one.
    pub fn trace_lines(
        &mut self,
        each: impl FnMut(&[u8]) -> Result<(), serde_json::Error>,
    ) -> Result<(), ReadError> {
        self.lines(TRACES, each)
    }

    /// Hands the lines of the journal to `each`, for who needs a part of each only.
    pub(crate) fn journal_lines(
        &mut self,
        each: impl FnMut(&[u8]) -> Result<(), serde_json::Error>,
    ) -> Result<(), ReadError> {
        self.lines(JOURNAL, each)
    }

    /// Hands the decisions of a session to `each`, in the order of their first occurrence.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read.
    pub fn decisions(&mut self, mut each: impl FnMut(Decision)) -> Result<(), ReadError> {
        let mut counts: Vec<u64> = Vec::new();
        let mut add = |intent: u64, count: u64| {
            // Numbers come in order, so the list grows by one at a time; others belong to no trace.
            let index = usize::try_from(intent).unwrap_or(usize::MAX).wrapping_sub(1);
            if index == counts.len() {
                counts.push(count);
            } else if let Some(sum) = counts.get_mut(index) {
                *sum = sum.saturating_add(count);
            }
        };
        self.journal(|line| match line.kind {
            LineKind::Record | LineKind::Event => add(line.intent.unwrap_or_default(), 1),
            LineKind::Repeat => {
                line.counts.into_iter().flatten().for_each(|one| add(one.intent, one.count));
            }
            LineKind::SessionStart
            | LineKind::Approval
            | LineKind::Loss
            | LineKind::Note
            | LineKind::SessionEnd => {}
        })?;
        let mut number = 0;
        self.lines(TRACES, |bytes| {
            let record = serde_json::from_slice(bytes)?;
            number += 1;
            let count = usize::try_from(number - 1).ok().and_then(|at| counts.get(at)).copied();
            each(Decision { number, count: count.unwrap_or_default(), record });
            Ok(())
        })
    }

    fn document<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ReadError> {
        let bytes = self.bytes(name)?;
        let entry = || name.to_owned();
        let value = parse_strict(&bytes, Limits { bytes: bytes.len(), ..Limits::DOCUMENT })
            .map_err(|source| ReadError::Parse { entry: entry(), source })?;
        serde_json::from_value(value).map_err(|source| ReadError::Shape { entry: entry(), source })
    }

    fn entries<T: DeserializeOwned>(&mut self, name: &str) -> Result<Vec<T>, ReadError> {
        let mut all = Vec::new();
        self.lines(name, |bytes| {
            all.push(serde_json::from_slice(bytes)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn lines(
        &mut self,
        name: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), serde_json::Error>,
    ) -> Result<(), ReadError> {
        let failed = |source| ReadError::Entry { entry: name.to_owned(), source };
        let entry = self.archive.by_name(name).map_err(|error: ZipError| failed(error.into()))?;
        let size = entry.size();
        let mut wrong = None;
        let read = each_line(Unpacked::new(entry, size), Limits::DOCUMENT.bytes, |line| {
            if wrong.is_none() {
                wrong = each(line).err();
            }
        });
        read.map_err(failed)?;
        match wrong {
            None => Ok(()),
            Some(source) => Err(ReadError::Shape { entry: name.to_owned(), source }),
        }
    }
}
