//! Writing runpacks: sorted entries, 1980 times, one compression level, so that equal input gives equal bytes.
//!
//! The manifest stands in the middle of the archive and needs the digests of the files after it. So the long files
//! are digested first, and compressed on threads of their own meanwhile; those that are too long to be kept in memory
//! even so are compressed when their turn comes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, Write};
use std::path::Path;
use std::thread::ScopedJoinHandle;

use serde::Serialize;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::derive::{intent_line, result_line};
use super::manifest::{
    COVERAGE, FileDigest, INTENTS, JOURNAL, JOURNAL_DIGEST, MANIFEST, Manifest, REFS, RESULTS, RUN, Sealed,
    TRACES,
};
use super::record::{Env, RecordInputError, Refs, Run, RunRecord, TimelineEvent, UNFINISHED, check_run_id};
use crate::intent::Capture;
use crate::schema;
use crate::sign::{CanonError, Digest, DigestHasher, Limits, ObjectWriter, SigningKey, canonical};
use crate::timestamp::Timestamp;
use crate::trace::{Ending, TraceRecord, intent_id};

/// Longer files are not compressed into memory, so that sealing stays within the supervisor's share.
const PACKED_IN_MEMORY_BYTES: u64 = 128 << 20;

/// A runpack cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A file of the session cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line of the traces is not a trace record.
    #[error("line {line} of traces.jsonl is not a trace record")]
    Trace {
        /// The line, counted from 1.
        line: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file changed while it was packed.
    #[error("{0} changed while it was packed")]
    Changed(&'static str),
    /// The archive cannot be written.
    #[error("runpack cannot be written")]
    Write(#[source] io::Error),
    /// A document has no canonical form.
    #[error("evidence has no canonical form")]
    Canon(#[from] CanonError),
    /// The run cannot be packed.
    #[error(transparent)]
    Record(#[from] RecordInputError),
}

impl From<zip::result::ZipError> for SealError {
    fn from(error: zip::result::ZipError) -> Self {
        Self::Write(error.into())
    }
}

/// The files of a session's run directory.
#[derive(Debug, Clone, Copy)]
pub struct SessionFiles<'a> {
    /// What the backend enforced; canonical JSON.
    pub coverage: &'a Path,
    /// The journal.
    pub journal: &'a Path,
    /// The trace records.
    pub traces: &'a Path,
}

/// What `run.json` tells about a session.
#[derive(Debug, Clone)]
pub struct SessionRun {
    /// The run.
    pub run_id: String,
    /// When the session began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How the workload ended; `None` for a session that was found unfinished.
    pub ending: Option<Ending>,
    /// Where it took place.
    pub env: Env,
    /// What was captured.
    pub capture: Capture,
}

/// One entry and where its contents come from.
struct Entry<'a> {
    name: &'static str,
    digest: Digest,
    contents: Contents<'a>,
}

enum Contents<'a> {
    Bytes(Vec<u8>),
    /// An archive that holds this one entry already compressed.
    Packed(Vec<u8>),
    File(&'a Path),
}

impl Entry<'_> {
    fn bytes(name: &'static str, bytes: Vec<u8>) -> Self {
        Self { name, digest: Digest::sha256(&bytes), contents: Contents::Bytes(bytes) }
    }
}

/// How every entry of an archive is written.
pub(crate) fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        // Most of what is left after that is digests and signatures, which no level makes smaller: on 20,000 decisions level 6
        // takes 2.5 times as long and saves 8 %.
        .compression_level(Some(2))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
}

/// Seals the run directory of a session.
///
/// # Errors
///
/// Fails if a file cannot be read, is not what it should be, or the archive cannot be written.
pub fn seal<W: Write + Seek>(
    files: &SessionFiles<'_>,
    run: &SessionRun,
    key: &SigningKey,
    out: W,
) -> Result<Sealed, SealError> {
    check_run_id(&run.run_id)?;
    let read_failed = |file| move |source| SealError::Read { file, source };
    let coverage = std::fs::read(files.coverage).map_err(read_failed(COVERAGE))?;
    let ((journal, journal_digest), derived, packed_journal, packed_traces) = std::thread::scope(|scope| {
        let journal = scope.spawn(|| pack_file(JOURNAL, files.journal, PACKED_IN_MEMORY_BYTES));
        let traces = scope.spawn(|| pack_file(TRACES, files.traces, PACKED_IN_MEMORY_BYTES));
        let digested = digest_journal(files.journal).map_err(read_failed(JOURNAL))?;
        let derived = derive(files.traces)?;
        Ok::<_, SealError>((digested, derived, joined(journal)?, joined(traces)?))
    })?;
    let timeline = vec![
        TimelineEvent { event: "start".to_owned(), ts: run.started_at, reference: String::new() },
        TimelineEvent {
            event: "end".to_owned(),
            ts: run.ended_at,
            reference: run.ending.map_or_else(|| UNFINISHED.to_owned(), Ending::text),
        },
    ];
    let run_document = Run {
        schema_id: schema::RUNPACK_RUN.to_owned(),
        schema_version: schema::VERSION.to_owned(),
        created_at: Some(run.started_at),
        producer_version: schema::PRODUCER_VERSION.to_owned(),
        run_id: run.run_id.clone(),
        env: run.env.clone(),
        timeline: Some(timeline),
    };
    let refs = Refs {
        schema_id: schema::RUNPACK_REFS.to_owned(),
        schema_version: schema::VERSION.to_owned(),
        created_at: Some(run.started_at),
        producer_version: schema::PRODUCER_VERSION.to_owned(),
        run_id: run.run_id.clone(),
        receipts: Vec::new(),
    };
    let entries = vec![
        Entry::bytes(COVERAGE, coverage),
        Entry { name: INTENTS, digest: derived.intents.digest, contents: derived.intents.contents },
        Entry::bytes(JOURNAL_DIGEST, journal_digest),
        same(packed_journal, journal)?,
        Entry::bytes(REFS, canonical(&refs)?),
        Entry { name: RESULTS, digest: derived.results.digest, contents: derived.results.contents },
        Entry::bytes(RUN, canonical(&run_document)?),
        same(packed_traces, derived.traces)?,
    ];
    let about = (run.run_id.as_str(), run.started_at, schema::PRODUCER_VERSION);
    write_archive(about, run.capture.as_str(), entries, Some(key), out)
}

/// Packs a completed run that a caller describes: the contract's five files.
///
/// # Errors
///
/// Fails if the archive cannot be written.
pub fn pack<W: Write + Seek>(
    record: &RunRecord,
    key: Option<&SigningKey>,
    out: W,
) -> Result<Sealed, SealError> {
    check_run_id(&record.run.run_id)?;
    let entries = vec![
        Entry::bytes(INTENTS, lines(&record.intents)?),
        Entry::bytes(REFS, canonical(&record.refs)?),
        Entry::bytes(RESULTS, lines(&record.results)?),
        Entry::bytes(RUN, canonical(&record.run)?),
    ];
    let created_at = record.run.created_at.unwrap_or(Timestamp::UNSET);
    let about = (record.run.run_id.as_str(), created_at, record.run.producer_version.as_str());
    write_archive(about, &record.capture_mode, entries, key, out)
}

fn lines(documents: &[impl Serialize]) -> Result<Vec<u8>, CanonError> {
    let mut out = Vec::new();
    for document in documents {
        out.append(&mut canonical(document)?);
        out.push(b'\n');
    }
    Ok(out)
}

/// Digests the journal, and makes the document that seals its head.
fn digest_journal(path: &Path) -> io::Result<(Digest, Vec<u8>)> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let (mut whole, mut count, mut head) = (DigestHasher::new(), 0, Digest::ZERO);
    let mut line = Vec::new();
    while next_line(&mut reader, &mut line)? {
        whole.update(&line);
        head = Digest::sha256(line.strip_suffix(b"\n").unwrap_or(&line));
        count += 1;
    }
    let mut out = Vec::new();
    let mut object = ObjectWriter::new(&mut out);
    object.digest("head", &head);
    object.field("lines", crate::sign::Field::Count(count));
    object.text("schema_id", schema::JOURNAL);
    object.text("schema_version", schema::VERSION);
    object.finish();
    Ok((whole.finish(), out))
}

/// Reads a line with its newline; `false` at the end. Lines beyond the limit of every reader are refused.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limit = Limits::LINE.bytes as u64 + 1;
    reader.by_ref().take(limit).read_until(b'\n', line)?;
    if line.len() > Limits::LINE.bytes && !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "line exceeds the limit"));
    }
    Ok(!line.is_empty())
}

/// Compresses a file into memory, or, if it is too long for that, only digests it.
fn pack_file<'a>(name: &'static str, path: &'a Path, limit: u64) -> Result<Entry<'a>, SealError> {
    let read_failed = |source| SealError::Read { file: name, source };
    let file = File::open(path).map_err(read_failed)?;
    let small = file.metadata().map_err(read_failed)?.len() <= limit;
    let mut packing = if small { Some(Packing::new(name)?) } else { None };
    let mut hasher = DigestHasher::new();
    each_chunk(file, read_failed, |chunk| match &mut packing {
        // At most what was small when it was opened: a file that grows meanwhile is refused later.
        Some(packing) => packing.write(chunk),
        None => {
            hasher.update(chunk);
            Ok(())
        }
    })?;
    match packing {
        Some(packing) => packing.finish(),
        None => Ok(Entry { name, digest: hasher.finish(), contents: Contents::File(path) }),
    }
}

fn each_chunk(
    file: File,
    read_failed: impl Fn(io::Error) -> SealError,
    mut each: impl FnMut(&[u8]) -> Result<(), SealError>,
) -> Result<(), SealError> {
    let mut file = file;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(&read_failed)? {
            0 => return Ok(()),
            length => each(&buffer[..length])?,
        }
    }
}

/// Holds what was packed against what was digested.
fn same(packed: Entry<'_>, digest: Digest) -> Result<Entry<'_>, SealError> {
    if packed.digest == digest { Ok(packed) } else { Err(SealError::Changed(packed.name)) }
}

/// Takes over what a thread made; a panic there goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, SealError>>) -> Result<T, SealError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Derived<'a> {
    traces: Digest,
    intents: Entry<'a>,
    results: Entry<'a>,
}

/// Digests the traces and derives intents and results from them.
fn derive<'a>(traces: &Path) -> Result<Derived<'a>, SealError> {
    let read_failed = |source| SealError::Read { file: TRACES, source };
    let mut reader = BufReader::with_capacity(1 << 16, File::open(traces).map_err(read_failed)?);
    let mut whole = DigestHasher::new();
    let (mut intents, mut results) = (Packing::new(INTENTS)?, Packing::new(RESULTS)?);
    let (mut line, mut text, mut number) = (Vec::new(), Vec::new(), 0);
    while next_line(&mut reader, &mut line).map_err(read_failed)? {
        whole.update(&line);
        number += 1;
        let record: TraceRecord =
            serde_json::from_slice(&line).map_err(|source| SealError::Trace { line: number, source })?;
        let id = intent_id(number);
        text.clear();
        intent_line(&record, &id, &mut text)?;
        intents.write(&text)?;
        text.clear();
        result_line(&record, &id, &mut text);
        results.write(&text)?;
    }
    Ok(Derived { traces: whole.finish(), intents: intents.finish()?, results: results.finish()? })
}

/// An entry that is compressed into memory while its digest is computed.
struct Packing {
    name: &'static str,
    hasher: DigestHasher,
    zip: ZipWriter<Cursor<Vec<u8>>>,
}

impl Packing {
    fn new(name: &'static str) -> Result<Self, SealError> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(name, options())?;
        Ok(Self { name, hasher: DigestHasher::new(), zip })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        self.hasher.update(bytes);
        self.zip.write_all(bytes).map_err(SealError::Write)
    }

    fn finish<'a>(self) -> Result<Entry<'a>, SealError> {
        let contents = Contents::Packed(self.zip.finish()?.into_inner());
        Ok(Entry { name: self.name, digest: self.hasher.finish(), contents })
    }
}

fn write_archive<W: Write + Seek>(
    run: (&str, Timestamp, &str),
    capture_mode: &str,
    mut entries: Vec<Entry<'_>>,
    key: Option<&SigningKey>,
    out: W,
) -> Result<Sealed, SealError> {
    entries.sort_by_key(|entry| entry.name);
    let files = entries
        .iter()
        .map(|entry| FileDigest { path: entry.name.to_owned(), sha256: entry.digest })
        .collect();
    let (manifest, sealed) = Manifest::seal(run, capture_mode, files, key)?;
    entries.push(Entry::bytes(MANIFEST, manifest));
    entries.sort_by_key(|entry| entry.name);
    let mut zip = ZipWriter::new(out);
    for entry in entries {
        write_entry(&mut zip, entry)?;
    }
    zip.finish()?.flush().map_err(SealError::Write)?;
    Ok(sealed)
}

fn write_entry<W: Write + Seek>(zip: &mut ZipWriter<W>, entry: Entry<'_>) -> Result<(), SealError> {
    match entry.contents {
        Contents::Bytes(bytes) => {
            zip.start_file(entry.name, options())?;
            zip.write_all(&bytes).map_err(SealError::Write)
        }
        Contents::Packed(archive) => {
            let mut archive = ZipArchive::new(Cursor::new(archive))?;
            zip.raw_copy_file(archive.by_index_raw(0)?)?;
            Ok(())
        }
        Contents::File(path) => {
            let read_failed = |source| SealError::Read { file: entry.name, source };
            let file = File::open(path).map_err(read_failed)?;
            zip.start_file(entry.name, options())?;
            let mut hasher = DigestHasher::new();
            each_chunk(file, read_failed, |chunk| {
                hasher.update(chunk);
                zip.write_all(chunk).map_err(SealError::Write)
            })?;
            if hasher.finish() == entry.digest { Ok(()) } else { Err(SealError::Changed(entry.name)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which way a file takes is a matter of memory, never of bytes.
    #[test]
    fn a_long_file_is_packed_like_a_short_one() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join(TRACES);
        let contents: Vec<u8> = (0..300_000_u32).flat_map(|at| (at % 977).to_le_bytes()).collect();
        std::fs::write(&path, &contents).unwrap();
        let archive = |limit| {
            let entry = pack_file(TRACES, &path, limit).unwrap();
            assert_eq!(entry.digest, Digest::sha256(&contents));
            let kept = matches!(entry.contents, Contents::Packed(_));
            assert_eq!(kept, limit > 0);
            let mut out = Cursor::new(Vec::new());
            let about = ("run_x", Timestamp::UNSET, "v");
            write_archive(about, "reference", vec![entry], None, &mut out).unwrap();
            out.into_inner()
        };
        assert_eq!(archive(0), archive(u64::MAX));
    }

    #[test]
    fn a_file_that_changes_while_it_is_packed_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join(JOURNAL);
        std::fs::write(&path, "before").unwrap();
        let entry = pack_file(JOURNAL, &path, 0).unwrap();
        assert!(same(pack_file(JOURNAL, &path, 9).unwrap(), entry.digest).is_ok());
        std::fs::write(&path, "after").unwrap();
        let packed = pack_file(JOURNAL, &path, 9).unwrap();
        assert!(matches!(same(packed, entry.digest), Err(SealError::Changed(JOURNAL))));
        let about = ("run_x", Timestamp::UNSET, "v");
        let written = write_archive(about, "reference", vec![entry], None, Cursor::new(Vec::new()));
        assert!(matches!(written, Err(SealError::Changed(JOURNAL))));
    }
}
