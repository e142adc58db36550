//! Verification of an evidence pack, offline: container, manifest, signature, every digest, nothing undeclared.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use serde_json::Value;
use zip::ZipArchive;

use super::manifest::{CONTROL_INDEX, MANIFEST, Manifest, POINTERS, SCHEMA, pack_id};
use crate::runpack::archive::{Layout, ScanError, Unpacked, scan};
use crate::runpack::{Finding, HashMismatch, Reason, SignatureStatus, VerifyError, VerifyOptions};
use crate::schema;
use crate::sign::{Digest, Limits, SignatureError, VerifyKey, canonical, digest_of, parse_strict};

/// More signatures than this are an attack on the verifier's time.
const MAX_SIGNATURES: usize = 16;

/// What verification found.
#[derive(Debug, Clone, Default)]
pub struct PackReport {
    /// The pack; empty if there is no manifest.
    pub pack_id: String,
    /// The run.
    pub run_id: String,
    /// Declared files that are there.
    pub files_checked: usize,
    /// Files that are not there, sorted.
    pub missing_files: Vec<String>,
    /// Files that differ, sorted.
    pub hash_mismatches: Vec<HashMismatch>,
    /// What the signature is worth.
    pub signature_status: SignatureStatus,
    /// The key that the pack says it is signed with.
    pub key_id: Option<Digest>,
    /// What is wrong with signatures.
    pub signature_errors: Vec<String>,
    /// Signatures.
    pub signatures_total: usize,
    /// Those that are valid.
    pub signatures_valid: usize,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

impl PackReport {
    /// Returns whether the pack holds.
    #[must_use]
    pub const fn ok(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, reason: Reason, place: impl Into<String>) {
        self.findings.push(Finding { reason, place: place.into() });
    }
}

/// Verifies an evidence pack.
///
/// # Errors
///
/// Fails only if the file cannot be read or is no archive; see the report for everything else.
pub fn verify_pack(path: &Path, options: &VerifyOptions) -> Result<PackReport, VerifyError> {
    let mut file = File::open(path)?;
    let mut report = PackReport::default();
    let mut layout = match scan(&mut file, &options.limits) {
        Ok(layout) => layout,
        Err(ScanError::Io(error)) => return Err(error.into()),
        Err(ScanError::NotAnArchive) => return Err(VerifyError::NotARunpack),
        Err(ScanError::Broken(finding)) => {
            report.findings.push(finding);
            return Ok(report);
        }
    };
    report.findings.append(&mut layout.findings);
    // Sizes, ratios and names that cannot be trusted end it before anything is unpacked.
    if report.ok() {
        match ZipArchive::new(BufReader::new(file)) {
            Ok(mut archive) => contents(&mut report, &layout, &mut archive, options),
            Err(_) => report.find(Reason::MalformedArchive, "directory"),
        }
    }
    Ok(report)
}

fn contents<R: Read + Seek>(
    report: &mut PackReport,
    layout: &Layout,
    archive: &mut ZipArchive<R>,
    options: &VerifyOptions,
) {
    if !layout.agrees(archive) {
        report.find(Reason::MalformedArchive, "directory");
        return;
    }
    if !layout.has(MANIFEST) {
        report.missing_files.push(MANIFEST.to_owned());
        report.find(Reason::MissingFile, MANIFEST);
        return;
    }
    let size = layout.entries.iter().find(|entry| entry.name == MANIFEST).map_or(0, |entry| entry.size);
    if size > options.limits.document {
        report.find(Reason::EntryTooLarge, MANIFEST);
        return;
    }
    let mut bytes = Vec::new();
    if let Err(error) = unpack(archive, layout, MANIFEST, Some(&mut bytes)) {
        report.find(Reason::EntryCorrupt, format!("{MANIFEST}: {error}"));
        return;
    }
    let Some((manifest, signed)) = manifest(&bytes, options.limits.entries) else {
        report.find(Reason::ManifestInvalid, MANIFEST);
        return;
    };
    report.pack_id.clone_from(&manifest.pack_id);
    report.run_id.clone_from(&manifest.run_id);
    if pack_id(&manifest.run_id, &manifest.contents).is_ok_and(|id| id != manifest.pack_id) {
        report.find(Reason::ManifestDigestMismatch, "pack_id");
    }
    signatures(report, &manifest, &signed, options);
    declared(report, &manifest, layout);
    for entry in &manifest.contents {
        if !layout.has(&entry.path) {
            continue;
        }
        report.files_checked += 1;
        // What is read as a document is small; the rest is only digested.
        let mut kept = Vec::new();
        let keep = [CONTROL_INDEX, POINTERS].contains(&&*entry.path).then_some(&mut kept);
        let actual = match unpack(archive, layout, &entry.path, keep) {
            Ok(digest) => Some(digest),
            Err(error) => {
                report.find(Reason::EntryCorrupt, format!("{}: {error}", entry.path));
                None
            }
        };
        if actual != Some(entry.sha256) {
            report.find(Reason::HashMismatch, &*entry.path);
            let (path, expected) = (entry.path.clone(), entry.sha256);
            report.hash_mismatches.push(HashMismatch { path, expected, actual });
        } else if !says_the_same(&manifest, &entry.path, &kept) {
            report.find(Reason::DerivedMismatch, &*entry.path);
        }
    }
}

/// The index and the pointers stand in the manifest and in files of their own.
fn says_the_same(manifest: &Manifest, path: &str, bytes: &[u8]) -> bool {
    let twin = match path {
        CONTROL_INDEX => canonical(&manifest.control_index),
        POINTERS => canonical(&manifest.evidence_pointers),
        _ => return true,
    };
    twin.is_ok_and(|twin| twin == bytes)
}

/// Unpacks an entry and returns its digest.
fn unpack<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    layout: &Layout,
    name: &str,
    keep: Option<&mut Vec<u8>>,
) -> io::Result<Digest> {
    let Some((index, entry)) = layout.entries.iter().enumerate().find(|(_, entry)| entry.name == name) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut unpacked = Unpacked::new(archive.by_index(index)?, entry.size);
    if let Some(bytes) = keep {
        unpacked.by_ref().take(Limits::DOCUMENT.bytes as u64).read_to_end(bytes)?;
    }
    unpacked.finish()
}

/// Reads the manifest. Returns it with the digest that signatures cover.
fn manifest(bytes: &[u8], entries: usize) -> Option<(Manifest, Digest)> {
    let mut value =
        parse_strict(bytes, Limits { bytes: bytes.len(), depth: 16 }).ok().filter(Value::is_object)?;
    let canonical = canonical(&value).ok()? == bytes;
    let manifest: Manifest = serde_json::from_value(value.clone()).ok()?;
    let names: BTreeSet<_> = manifest.contents.iter().map(|entry| &*entry.path).collect();
    let files = names.len() == manifest.contents.len()
        && names.len() <= entries
        && !names.contains(MANIFEST)
        && manifest.contents.is_sorted_by(|a, b| a.path <= b.path)
        && manifest.signatures.len() <= MAX_SIGNATURES;
    let schema = manifest.schema_id == SCHEMA && manifest.schema_version == schema::VERSION;
    value.as_object_mut()?.remove("signatures");
    let signed = digest_of(&value).ok()?;
    (canonical && files && schema && !manifest.run_id.is_empty()).then_some((manifest, signed))
}

fn declared(report: &mut PackReport, manifest: &Manifest, layout: &Layout) {
    let names: BTreeSet<_> = manifest.contents.iter().map(|entry| &*entry.path).collect();
    for needed in [CONTROL_INDEX, POINTERS] {
        if !names.contains(needed) {
            report.missing_files.push(needed.to_owned());
            report.find(Reason::MissingFile, needed);
        }
    }
    for name in &names {
        if !layout.has(name) {
            report.missing_files.push((*name).to_owned());
            report.find(Reason::MissingFile, *name);
        }
    }
    report.missing_files.sort();
    for entry in &layout.entries {
        if entry.name != MANIFEST && !names.contains(&*entry.name) {
            report.find(Reason::UndeclaredEntry, &*entry.name);
        }
    }
}

fn signatures(report: &mut PackReport, manifest: &Manifest, signed: &Digest, options: &VerifyOptions) {
    report.signatures_total = manifest.signatures.len();
    report.key_id = manifest.signatures.first().map(|signature| signature.key_id);
    let embedded = manifest.public_key.as_deref().map(VerifyKey::from_file_text);
    if let Some(Err(_)) = embedded {
        report.find(Reason::SignatureInvalid, "public_key");
    }
    let embedded = embedded.and_then(Result::ok);
    if options.key.is_some() && embedded.is_some() && options.key != embedded {
        report.find(Reason::KeyMismatch, "public_key");
    }
    if manifest.signatures.is_empty() {
        if options.require_signature {
            report.find(Reason::SignatureMissing, MANIFEST);
        }
        return;
    }
    let Some(key) = options.key.or(embedded) else {
        report.signature_status = SignatureStatus::Skipped;
        if options.require_signature {
            report.find(Reason::SignatureMissing, "no key to check the signature with");
        }
        return;
    };
    for (at, signature) in manifest.signatures.iter().enumerate() {
        match key.verify_digest(signed, signature) {
            Ok(()) => report.signatures_valid += 1,
            Err(error) => {
                report.signature_errors.push(error.to_string());
                let other = matches!(error, SignatureError::Key { .. });
                let reason = if other { Reason::KeyMismatch } else { Reason::SignatureInvalid };
                report.find(reason, format!("signature {}", at + 1));
            }
        }
    }
    report.signature_status = if report.signatures_valid < report.signatures_total {
        SignatureStatus::Failed
    } else if options.key.is_some() {
        SignatureStatus::Verified
    } else {
        SignatureStatus::SelfSigned
    };
}
