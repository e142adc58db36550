//! Verification of a runpack, offline, with only a public key.
//!
//! What cannot be a runpack at all is an error; everything that is wrong with one is a [`Finding`], and a runpack holds
//! if there is none. Without a trusted key the signature is checked with the key that the runpack itself carries: that
//! shows that it was not changed since somebody signed it, not who that was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use zip::ZipArchive;

use super::archive::{ArchiveLimits, Layout, ScanError, Unpacked, each_line, scan};
use super::check::{Findings, JournalCheck, JournalFacts, TraceCheck, Traces};
use super::document::generation_reason;
use super::manifest::{
    COVERAGE, INTENTS, JOURNAL, JOURNAL_DIGEST, MANIFEST, Manifest, REFERENCE_FILES, REFS, RESULTS, RUN,
    SESSION_FILES, TRACES, digests,
};
use super::reason::{Finding, Reason};
use super::record::{Refs, Run};
use crate::schema;
use crate::sign::{Digest, Limits, SignatureError, VerifyKey, canonical, parse_strict};
use crate::timestamp::Timestamp;
use crate::trace::Totals;

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

/// What the signature of the manifest is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignatureStatus {
    /// There is none.
    #[default]
    Missing,
    /// There is one, and no key to check it with.
    Skipped,
    /// Valid under the key that the runpack carries itself.
    SelfSigned,
    /// Valid under the trusted key.
    Verified,
    /// Not valid.
    Failed,
}

impl SignatureStatus {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Skipped => "skipped",
            Self::SelfSigned => "self_signed",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

/// A file whose contents are not those declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashMismatch {
    /// The file.
    pub path: String,
    /// The digest in the manifest.
    pub expected: Digest,
    /// The digest of the contents; `None` if they cannot be unpacked.
    pub actual: Option<Digest>,
}

/// What the runpack of a session proves, provided that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecEvidence {
    /// The policy.
    pub policy_digest: Option<Digest>,
    /// The backend.
    pub backend: Option<String>,
    /// The program.
    pub program: Option<String>,
    /// When the session began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How the workload ended, such as `exited:0`.
    pub ending: Option<String>,
    /// Distinct decisions.
    pub traces: u64,
    /// Lines of the journal.
    pub lines: u64,
    /// Events per class and verdict.
    pub totals: Totals,
    /// Events that were lost, as the session itself counted them.
    pub losses: u64,
    /// Questions that were answered.
    pub approvals: u64,
}

/// What verification found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// The run; empty if there is no manifest.
    pub run_id: String,
    /// The digest of the manifest, computed.
    pub manifest_digest: Option<Digest>,
    /// Declared files that were read.
    pub files_checked: usize,
    /// Files that are not there, sorted.
    pub missing_files: Vec<String>,
    /// Files that differ, sorted.
    pub hash_mismatches: Vec<HashMismatch>,
    /// What the signature is worth.
    pub signature_status: SignatureStatus,
    /// The key that the runpack says it is signed with.
    pub key_id: Option<Digest>,
    /// What is wrong with signatures.
    pub signature_errors: Vec<String>,
    /// Signatures.
    pub signatures_total: usize,
    /// Those that are valid.
    pub signatures_valid: usize,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// What the session did, if it is the runpack of one.
    pub exec: Option<ExecEvidence>,
}

impl VerifyReport {
    /// Returns whether the runpack holds.
    #[must_use]
    pub const fn ok(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns whether a reason is among the findings.
    #[must_use]
    pub fn has(&self, reason: Reason) -> bool {
        self.findings.iter().any(|finding| finding.reason == reason)
    }
}

/// Verifies a runpack.
///
/// # Errors
///
/// Fails only if the file cannot be read or is no archive; see the report for everything else.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport, VerifyError> {
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
        Verifier { options, layout, report: VerifyReport::default(), found: Findings::default() };
    verifier.found.0.append(&mut verifier.layout.findings);
    // Sizes, ratios and names that cannot be trusted end it before anything is unpacked.
    if verifier.found.0.is_empty() {
        match ZipArchive::new(BufReader::new(file)) {
            Ok(mut archive) => verifier.contents(&mut archive),
            Err(_) => verifier.found.add(Reason::MalformedArchive, "directory"),
        }
    }
    verifier.report.findings = verifier.found.0;
    Ok(verifier.report)
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

struct Verifier<'a> {
    options: &'a VerifyOptions,
    layout: Layout,
    report: VerifyReport,
    found: Findings,
}

impl Verifier<'_> {
    /// Whether the unpacker sees the same entries as the strict scan.
    fn agrees<R: Read + Seek>(&self, archive: &mut ZipArchive<R>) -> bool {
        let entries = &self.layout.entries;
        archive.len() == entries.len()
            && entries.iter().enumerate().all(|(at, entry)| {
                archive
                    .by_index_raw(at)
                    .is_ok_and(|it| it.name_raw() == entry.name.as_bytes() && it.size() == entry.size)
            })
    }

    fn contents<R: Read + Seek>(&mut self, archive: &mut ZipArchive<R>) {
        if !self.agrees(archive) {
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
        if session {
            self.session(archive, &manifest.run_id, key.as_ref(), &mut actual, &bodies);
        }
        self.check_run(&manifest, bodies.get(RUN).map(Vec::as_slice));
        if let Some(reason) = bodies.get(REFS).and_then(|it| generation_reason::<Refs>(it, &manifest.run_id))
        {
            self.found.add(reason, REFS);
        }
        self.hashes(archive, &files, actual);
    }

    fn has_entry(&self, name: &str) -> bool {
        self.layout.entries.iter().any(|entry| entry.name == name)
    }

    fn missing(&mut self, name: &str) {
        if !self.report.missing_files.iter().any(|missing| missing == name) {
            self.report.missing_files.push(name.to_owned());
            self.found.add(Reason::MissingFile, name);
        }
    }

    /// Opens an entry; `None` if it is not there.
    fn open<'z, R: Read + Seek>(
        &self,
        archive: &'z mut ZipArchive<R>,
        name: &str,
    ) -> Option<io::Result<Unpacked<impl Read + use<'z, R>>>> {
        let index = self.layout.entries.iter().position(|entry| entry.name == name)?;
        let size = self.layout.entries[index].size;
        Some(archive.by_index(index).map(|file| Unpacked::new(file, size)).map_err(Into::into))
    }

    /// Reads an entry that is small enough to be held.
    fn document<R: Read + Seek>(
        &mut self,
        archive: &mut ZipArchive<R>,
        name: &str,
    ) -> Option<(Vec<u8>, Digest)> {
        let size = self.layout.entries.iter().find(|entry| entry.name == name)?.size;
        if size > self.options.limits.document {
            self.found.add(Reason::EntryTooLarge, name);
            return None;
        }
        let read = self.open(archive, name)?.and_then(|mut unpacked| {
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
    fn session<R: Read + Seek>(
        &mut self,
        archive: &mut ZipArchive<R>,
        run_id: &str,
        key: Option<&VerifyKey>,
        actual: &mut BTreeMap<String, Digest>,
        bodies: &BTreeMap<&str, Vec<u8>>,
    ) {
        let mut traces = TraceCheck::new(run_id, key);
        if let Some(digest) = self.lines(archive, TRACES, |line, found| traces.line(line, found)) {
            actual.insert(TRACES.to_owned(), digest);
        }
        let traces = traces.finish();
        let mut journal = JournalCheck::new(&traces, run_id, key);
        if let Some(digest) = self.lines(archive, JOURNAL, |line, found| journal.line(line, found)) {
            actual.insert(JOURNAL.to_owned(), digest);
        }
        let journal = journal.finish(&mut self.found);
        for (name, derived) in [(INTENTS, traces.intents), (RESULTS, traces.results)] {
            let digest = self.open(archive, name).map(|entry| entry.and_then(Unpacked::finish));
            let Some(digest) = digest.and_then(|digest| self.unpacked(name, digest)) else { continue };
            if digest != derived {
                self.found.add(Reason::DerivedMismatch, name);
            }
            actual.insert(name.to_owned(), digest);
        }
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
        self.report.exec = Some(evidence(&traces, journal));
    }

    fn lines<R: Read + Seek>(
        &mut self,
        archive: &mut ZipArchive<R>,
        name: &str,
        mut each: impl FnMut(&[u8], &mut Findings),
    ) -> Option<Digest> {
        let unpacked = self.open(archive, name)?;
        let mut found = std::mem::take(&mut self.found);
        let read = unpacked.and_then(|it| each_line(it, Limits::LINE.bytes, |line| each(line, &mut found)));
        self.found = found;
        self.unpacked(name, read)
    }

    fn check_run(&mut self, manifest: &Manifest, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return };
        if let Some(reason) = generation_reason::<Run>(bytes, &manifest.run_id) {
            self.found.add(reason, RUN);
        }
    }

    /// Compares every declared file with its digest, unpacking those that were not read yet.
    fn hashes<R: Read + Seek>(
        &mut self,
        archive: &mut ZipArchive<R>,
        files: &BTreeMap<String, Digest>,
        mut actual: BTreeMap<String, Digest>,
    ) {
        for (path, &expected) in files {
            if !self.has_entry(path) {
                continue;
            }
            self.report.files_checked += 1;
            if !actual.contains_key(path)
                && let Some(entry) = self.open(archive, path)
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

fn evidence(traces: &Traces, journal: JournalFacts) -> ExecEvidence {
    let (start, end) = (journal.start, journal.end);
    ExecEvidence {
        policy_digest: start.as_ref().and_then(|line| line.policy_digest),
        started_at: start.as_ref().map(|line| line.at),
        program: start.as_ref().and_then(|line| line.program.clone()),
        backend: start.and_then(|line| line.backend),
        ended_at: end.as_ref().map(|line| line.at),
        ending: end.and_then(|line| line.ending),
        traces: traces.len(),
        lines: journal.lines,
        totals: journal.totals,
        losses: journal.losses,
        approvals: journal.approvals,
    }
}
