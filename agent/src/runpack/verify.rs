//! Verification of a runpack, offline, with only a public key.
//!
//! What cannot be a runpack at all is an error; everything that is wrong with one is a [`super::Finding`], and a runpack holds
//! if there is none. Without a trusted key the signature is checked with the key that the runpack itself carries: that
//! shows that it was not changed since somebody signed it, not who that was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::thread;

use serde::Deserialize;
use serde_json::Value;
use zip::ZipArchive;

use super::archive::{ArchiveLimits, Layout, Positioned, ScanError, Unpacked, scan};
use super::check::{Findings, JournalCheck, JournalFacts, JournalLines, TraceCheck, TraceRules, Traces};
use super::document::generation_reason;
use super::lines::{Batch, each_batch};
use super::manifest::{
    COVERAGE, INTENTS, JOURNAL, JOURNAL_DIGEST, MANIFEST, Manifest, REFERENCE_FILES, REFS, RESULTS, RUN,
    SESSION_FILES, TRACES, digests,
};
use super::reason::Reason;
use super::record::{Refs, Run, UNFINISHED};
use super::report::{ExecEvidence, HashMismatch, SignatureStatus, VerifyReport};
use crate::schema;
use crate::sign::{Digest, Limits, SignatureError, VerifyKey, canonical, parse_strict};
use crate::timestamp::Timestamp;

/// More signatures than this are an attack on the verifier's time.
const MAX_SIGNATURES: usize = 16;

/// The file cannot be verified, for a reason that proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It cannot be read.
    #[error("runpack cannot be read")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("not a runpack: the file does not begin like a zip archive")]
    NotARunpack,
}

/// How a runpack is verified.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// The trusted key.
    pub key: Option<VerifyKey>,
    /// Whether there must be a valid signature; always so for the runpack of a session.
    pub require_signature: bool,
    /// How large it may be.
    pub limits: ArchiveLimits,
}

/// Verifies a runpack.
///
/// # Errors
///
/// Fails only if the file cannot be read or is no archive; see the report for everything else.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport, VerifyError> {
    verify_as_far(path, options, Depth::Everything)
}

/// Verifies that a runpack is what it was when it was sealed: the container, the manifest with its signature, and the
/// digest of every file. Whether the seal was put on a consistent session, [`verify`] says.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_seal(path: &Path, options: &VerifyOptions) -> Result<VerifyReport, VerifyError> {
    verify_as_far(path, options, Depth::Seal)
}

/// As [`verify_seal`], for a caller who reads no other entries than these besides the manifest: only their digests are
/// checked.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_seal_of(
    path: &Path,
    options: &VerifyOptions,
    entries: &[&str],
) -> Result<VerifyReport, VerifyError> {
    verify_as_far(path, options, Depth::SealOf(entries))
}

/// How far verification goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth<'a> {
    Everything,
    Seal,
    SealOf(&'a [&'a str]),
}

fn verify_as_far(
    path: &Path,
    options: &VerifyOptions,
    depth: Depth<'_>,
) -> Result<VerifyReport, VerifyError> {
    let mut file = File::open(path)?;
    let layout = match scan(&mut file, &options.limits) {
        Ok(layout) => layout,
        Err(ScanError::Io(error)) => return Err(error.into()),
        Err(ScanError::NotAnArchive) => return Err(VerifyError::NotARunpack),
        Err(ScanError::Broken(finding)) => {
            return Ok(VerifyReport { findings: vec![finding], ..VerifyReport::default() });
        }
    };
    let mut verifier =
        Verifier { options, layout, depth, report: VerifyReport::default(), found: Findings::default() };
    verifier.found.0.append(&mut verifier.layout.findings);
    // Sizes, ratios and names that cannot be trusted end it before anything is unpacked.
    if verifier.found.0.is_empty() {
        match unpacker(&file) {
            Ok(mut archive) => verifier.contents(&file, &mut archive),
            Err(_) => verifier.found.add(Reason::MalformedArchive, "directory"),
        }
    }
    verifier.report.findings = verifier.found.0;
    Ok(verifier.report)
}

/// What unpacks entries; each thread has its own.
type Unpacker<'f> = ZipArchive<BufReader<Positioned<'f>>>;

fn unpacker(file: &File) -> zip::result::ZipResult<Unpacker<'_>> {
    ZipArchive::new(BufReader::new(Positioned::new(file)))
}

/// The sealed head of a journal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    head: Digest,
    lines: String,
    schema_id: String,
    schema_version: String,
}

/// Opens an entry; `None` if it is not there.
fn open<'z, 'f>(
    layout: &Layout,
    archive: &'z mut Unpacker<'f>,
    name: &str,
) -> Option<io::Result<Unpacked<impl Read + use<'z, 'f>>>> {
    let index = layout.entries.iter().position(|entry| entry.name == name)?;
    let size = layout.entries[index].size;
    Some(archive.by_index(index).map(|file| Unpacked::new(file, size)).map_err(Into::into))
}

struct Verifier<'a> {
    options: &'a VerifyOptions,
    layout: Layout,
    depth: Depth<'a>,
    report: VerifyReport,
    found: Findings,
}

impl Verifier<'_> {
    fn contents(&mut self, file: &File, archive: &mut Unpacker<'_>) {
        if !self.layout.agrees(archive) {
            self.found.add(Reason::MalformedArchive, "directory");
            return;
        }
        let Some(bytes) = self.document(archive, MANIFEST).map(|(bytes, _)| bytes) else {
            if !self.has_entry(MANIFEST) {
                self.missing(MANIFEST);
            }
            return;
        };
        let Some((manifest, signed)) = self.manifest(&bytes) else { return };
        let files: BTreeMap<_, _> =
            manifest.files.iter().map(|file| (file.path.clone(), file.sha256)).collect();
        let session = SESSION_FILES.iter().any(|&name| self.has_entry(name) || files.contains_key(name));
        self.declared(&files, session);
        let key = self.signatures(&manifest, &signed, session);
        if session && !self.layout.is_plain() {
            self.found.add(Reason::MalformedArchive, "entry headers");
        }

        let mut actual = BTreeMap::new();
        let mut bodies = BTreeMap::new();
        for name in [COVERAGE, JOURNAL_DIGEST, REFS, RUN] {
            if let Some((bytes, digest)) = self.document(archive, name) {
                actual.insert(name.to_owned(), digest);
                bodies.insert(name, bytes);
            }
        }
        if session && self.depth == Depth::Everything {
            self.session((file, archive), &manifest.run_id, key.as_ref(), &mut actual, &bodies);
        }
        self.check_run(&manifest, bodies.get(RUN).map(Vec::as_slice));
        if let Some(reason) = bodies.get(REFS).and_then(|it| generation_reason::<Refs>(it, &manifest.run_id))
        {
            self.found.add(reason, REFS);
        }
        self.hashes(archive, &files, actual);
    }

    fn has_entry(&self, name: &str) -> bool {
        self.layout.has(name)
    }

    fn missing(&mut self, name: &str) {
        if !self.report.missing_files.iter().any(|missing| missing == name) {
            self.report.missing_files.push(name.to_owned());
            self.found.add(Reason::MissingFile, name);
        }
    }

    /// Reads an entry that is small enough to be held.
    fn document(&mut self, archive: &mut Unpacker<'_>, name: &str) -> Option<(Vec<u8>, Digest)> {
        let size = self.layout.entries.iter().find(|entry| entry.name == name)?.size;
        if size > self.options.limits.document {
            self.found.add(Reason::EntryTooLarge, name);
            return None;
        }
        let read = open(&self.layout, archive, name)?.and_then(|mut unpacked| {
            let mut bytes = Vec::new();
            unpacked.read_to_end(&mut bytes)?;
            Ok((bytes, unpacked.finish()?))
        });
        self.unpacked(name, read)
    }

    fn unpacked<T>(&mut self, name: &str, read: io::Result<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                self.found.add(Reason::EntryCorrupt, format!("{name}: {error}"));
                None
            }
        }
    }

    /// Reads the manifest and checks its digest of itself. Returns it with the digest that signatures cover.
    fn manifest(&mut self, bytes: &[u8]) -> Option<(Manifest, Digest)> {
        let limits = Limits { bytes: bytes.len(), depth: 16 };
        let entries = self.options.limits.entries;
        // What declares more than there can be is not worth bringing into canonical form.
        let few = |value: &Value| value["files"].as_array().is_some_and(|files| files.len() <= entries);
        let parsed = parse_strict(bytes, limits).ok().filter(few).and_then(|value| {
            let canonical = canonical(&value).ok()? == bytes;
            let manifest: Manifest = serde_json::from_value(value.clone()).ok()?;
            let names: BTreeSet<_> = manifest.files.iter().map(|file| &*file.path).collect();
            let files = names.len() == manifest.files.len()
                && names.len() <= entries
                && manifest.signatures.len() <= MAX_SIGNATURES
                && manifest.files.is_sorted_by(|a, b| a.path <= b.path)
                && !names.contains(MANIFEST);
            let schema = manifest.schema_id == schema::RUNPACK_MANIFEST
                && manifest.schema_version == schema::VERSION
                && !manifest.run_id.is_empty();
            (canonical && files && schema).then_some((manifest, digests(&value).ok()?))
        });
        let Some((manifest, (own, signed))) = parsed else {
            self.found.add(Reason::ManifestInvalid, MANIFEST);
            return None;
        };
        self.report.run_id.clone_from(&manifest.run_id);
        self.report.manifest_digest = Some(own);
        if manifest.manifest_digest != own.to_string() {
            self.found.add(Reason::ManifestDigestMismatch, MANIFEST);
        }
        Some((manifest, signed))
    }

    /// Holds the declared files against the entries.
    fn declared(&mut self, files: &BTreeMap<String, Digest>, session: bool) {
        let needed = REFERENCE_FILES.iter().chain(SESSION_FILES.iter().filter(|_| session));
        for name in needed {
            if !files.contains_key(*name) {
                self.missing(name);
            }
        }
        for name in files.keys() {
            if !self.has_entry(name) {
                self.missing(name);
            }
        }
        let undeclared: Vec<_> = self
            .layout
            .entries
            .iter()
            .map(|entry| entry.name.clone())
            .filter(|name| name != MANIFEST && !files.contains_key(name))
            .collect();
        for name in undeclared {
            self.found.add(Reason::UndeclaredEntry, name);
        }
    }

    /// Checks the signatures; returns the key that everything else must be signed with.
    fn signatures(&mut self, manifest: &Manifest, signed: &Digest, session: bool) -> Option<VerifyKey> {
        self.report.signatures_total = manifest.signatures.len();
        self.report.key_id = manifest.signatures.first().map(|signature| signature.key_id);
        let embedded = manifest.public_key.as_deref().map(VerifyKey::from_file_text);
        if let Some(Err(_)) = embedded {
            self.found.add(Reason::SignatureInvalid, "public_key");
        }
        let embedded = embedded.and_then(Result::ok);
        if let (Some(trusted), Some(embedded)) = (&self.options.key, &embedded)
            && trusted != embedded
        {
            self.found.add(Reason::KeyMismatch, "public_key");
        }
        let key = self.options.key.or(embedded);
        if manifest.signatures.is_empty() {
            if self.options.require_signature || session {
                self.found.add(Reason::SignatureMissing, MANIFEST);
            }
            return key;
        }
        let Some(key) = key else {
            self.report.signature_status = SignatureStatus::Skipped;
            if self.options.require_signature || session {
                self.found.add(Reason::SignatureMissing, "no key to check the signature with");
            }
            return None;
        };
        for (at, signature) in manifest.signatures.iter().enumerate() {
            let place = format!("signature {}", at + 1);
            match key.verify_digest(signed, signature) {
                Ok(()) => self.report.signatures_valid += 1,
                Err(error) => {
                    self.report.signature_errors.push(error.to_string());
                    let other = matches!(error, SignatureError::Key { .. });
                    let reason = if other { Reason::KeyMismatch } else { Reason::SignatureInvalid };
                    self.found.add(reason, place);
                }
            }
        }
        self.report.signature_status = if self.report.signatures_valid < self.report.signatures_total {
            SignatureStatus::Failed
        } else if self.options.key.is_some() {
            SignatureStatus::Verified
        } else {
            SignatureStatus::SelfSigned
        };
        Some(key)
    }

    /// Checks everything that only the runpack of a session has.
    fn session(
        &mut self,
        (file, archive): (&File, &mut Unpacker<'_>),
        run_id: &str,
        key: Option<&VerifyKey>,
        actual: &mut BTreeMap<String, Digest>,
        bodies: &BTreeMap<&str, Vec<u8>>,
    ) {
        let layout = self.layout.clone();
        let (traces, journal, derived) = thread::scope(|scope| {
            // Not in the threads of this one: unpacking and digesting these two needs nothing of the others.
            let derived = scope.spawn(|| [INTENTS, RESULTS].map(|name| (name, digest(file, &layout, name))));
            let traces = self.traces(archive, run_id, key, actual);
            let mut journal = JournalCheck::new(&traces, run_id, key);
            let found =
                self.lines(archive, JOURNAL, JournalLines::read, |lines, found| journal.take(lines, found));
            actual.extend(found.map(|digest| (JOURNAL.to_owned(), digest)));
            let journal = journal.finish(&mut self.found);
            let derived = derived.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (traces, journal, derived)
        });
        for (name, digest) in derived {
            let follows = if name == INTENTS { traces.intents } else { traces.results };
            let Some(digest) = digest.and_then(|digest| self.unpacked(name, digest)) else { continue };
            if digest != follows {
                self.found.add(Reason::DerivedMismatch, name);
            }
            actual.insert(name.to_owned(), digest);
        }
        self.seals(&journal, actual, bodies);
        let mut exec = evidence(&traces, journal);
        exec.sealed_later = bodies.get(RUN).and_then(|bytes| sealed_later(bytes));
        self.report.exec = Some(exec);
    }

    /// Checks the trace records.
    fn traces(
        &mut self,
        archive: &mut Unpacker<'_>,
        run_id: &str,
        key: Option<&VerifyKey>,
        actual: &mut BTreeMap<String, Digest>,
    ) -> Traces {
        let size =
            self.layout.entries.iter().find(|entry| entry.name == TRACES).map_or(0, |entry| entry.size);
        let rules = TraceRules::new(run_id, key, size);
        let mut traces = TraceCheck::default();
        let work = |batch: &Batch| rules.check(batch);
        let found = self.lines(archive, TRACES, work, |checked, found| traces.take(checked, found));
        actual.extend(found.map(|digest| (TRACES.to_owned(), digest)));
        traces.finish()
    }

    /// Holds what the session sealed at its start and end against what is there.
    fn seals(
        &mut self,
        journal: &JournalFacts,
        actual: &BTreeMap<String, Digest>,
        bodies: &BTreeMap<&str, Vec<u8>>,
    ) {
        let sealed = bodies.get(JOURNAL_DIGEST).and_then(|bytes| serde_json::from_slice::<Head>(bytes).ok());
        let holds = sealed.is_some_and(|sealed| {
            sealed.head == journal.head
                && sealed.lines == journal.lines.to_string()
                && (&*sealed.schema_id, &*sealed.schema_version) == (schema::JOURNAL, schema::VERSION)
        });
        if !holds {
            self.found.add(Reason::JournalHeadMismatch, JOURNAL_DIGEST);
        }
        let coverage = journal.start.as_ref().and_then(|start| start.coverage_digest);
        if coverage.is_none() || coverage != actual.get(COVERAGE).copied() {
            self.found.add(Reason::CoverageMismatch, COVERAGE);
        }
    }

    /// Goes through the lines of an entry, the work on several threads and what it comes to in order.
    fn lines<T: Send>(
        &mut self,
        archive: &mut Unpacker<'_>,
        name: &str,
        work: impl Fn(&Batch) -> T + Sync,
        mut take: impl FnMut(T, &mut Findings),
    ) -> Option<Digest> {
        let unpacked = open(&self.layout, archive, name)?;
        let found = &mut self.found;
        let read = unpacked.and_then(|it| each_batch(it, Limits::LINE.bytes, work, |done| take(done, found)));
        self.unpacked(name, read)
    }

    fn check_run(&mut self, manifest: &Manifest, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return };
        if let Some(reason) = generation_reason::<Run>(bytes, &manifest.run_id) {
            self.found.add(reason, RUN);
        }
    }

    /// Compares every declared file with its digest, unpacking those that were not read yet.
    fn hashes(
        &mut self,
        archive: &mut Unpacker<'_>,
        files: &BTreeMap<String, Digest>,
        mut actual: BTreeMap<String, Digest>,
    ) {
        for (path, &expected) in files {
            let read = !matches!(self.depth, Depth::SealOf(entries) if !entries.contains(&path.as_str()));
            if !read || !self.has_entry(path) {
                continue;
            }
            self.report.files_checked += 1;
            if !actual.contains_key(path)
                && let Some(entry) = open(&self.layout, archive, path)
                && let Some(digest) = self.unpacked(path, entry.and_then(Unpacked::finish))
            {
                actual.insert(path.clone(), digest);
            }
            let actual = actual.get(path).copied();
            if actual != Some(expected) {
                self.found.add(Reason::HashMismatch, &**path);
                self.report.hash_mismatches.push(HashMismatch { path: path.clone(), expected, actual });
            }
        }
    }
}

/// Unpacks an entry only to digest it.
fn digest(file: &File, layout: &Layout, name: &str) -> Option<io::Result<Digest>> {
    let mut archive = match unpacker(file) {
        Ok(archive) => archive,
        Err(error) => return Some(Err(error.into())),
    };
    open(layout, &mut archive, name).map(|entry| entry.and_then(Unpacked::finish))
}

/// Returns when a runpack was sealed whose session did not do it: the timeline has an end without an ending.
fn sealed_later(run: &[u8]) -> Option<Timestamp> {
    let run: Run = serde_json::from_slice(run).ok()?;
    let end =
        run.timeline?.into_iter().find(|event| event.event == "end" && event.reference == UNFINISHED)?;
    Some(end.ts)
}

fn evidence(traces: &Traces, journal: JournalFacts) -> ExecEvidence {
    let (start, end) = (journal.start, journal.end);
    ExecEvidence {
        policy_digest: start.as_ref().and_then(|line| line.policy_digest),
        started_at: start.as_ref().map(|line| line.at),
        program: start.as_ref().and_then(|line| line.program.clone()),
        backend: start.and_then(|line| line.backend),
        ended_at: end.as_ref().map(|line| line.at),
        ending: end.and_then(|line| line.ending),
        sealed_later: None,
        traces: traces.len(),
        lines: journal.lines,
        totals: journal.totals,
        losses: journal.losses,
        approvals: journal.approvals,
    }
}
