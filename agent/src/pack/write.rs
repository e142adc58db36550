//! Making an evidence pack: summaries, index, manifest, signature, zip; equal input gives equal bytes.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use serde_json::{Map, Value, json};
use zip::ZipWriter;
use zip::result::ZipError;

use super::manifest::{CONTROL_INDEX, Entry, MANIFEST, Manifest, POINTERS, Pointer, SCHEMA, Window, pack_id};
use super::template::Template;
use crate::runpack::write::options;
use crate::runpack::{ExecEvidence, ReadError, Runpack, VerifyReport};
use crate::schema;
use crate::sign::{CanonError, Digest, Limits, ParseError, SigningKey, canonical, digest_of, parse_strict};
use crate::timestamp::Timestamp;

/// As many entries as every reader of ours accepts, with those that each pack has.
const MAX_FILES: usize = 56;

/// A pack cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The runpack cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A document beside the runpack is not strict JSON.
    #[error("not strict JSON")]
    Parse(#[from] ParseError),
    /// A document is another one.
    #[error("not a {expected} document but {found:?}")]
    Schema {
        /// What it should be.
        expected: &'static str,
        /// What it says it is.
        found: String,
    },
    /// A document lacks what a summary needs.
    #[error("the document has no {0}")]
    Missing(&'static str),
    /// More files than a pack may have.
    #[error("{0} files are more than a pack may have ({MAX_FILES})")]
    TooMany(usize),
    /// A document has no canonical form.
    #[error(transparent)]
    Canon(#[from] CanonError),
    /// The archive cannot be written.
    #[error("pack cannot be written")]
    Write(#[from] std::io::Error),
}

impl From<ZipError> for PackError {
    fn from(error: ZipError) -> Self {
        Self::Write(error.into())
    }
}

/// What goes into a pack besides the run itself. Documents are given as bytes.
#[derive(Debug, Default)]
pub struct Build {
    template: Option<Template>,
    case_id: Option<String>,
    window: Option<Window>,
    inventories: Vec<Vec<u8>>,
    approvals: Vec<Vec<u8>>,
    credentials: Vec<Vec<u8>>,
    traces: Vec<Value>,
    regress: Vec<Value>,
    policies: Option<Vec<u8>>,
}

/// A pack that was made.
#[derive(Debug)]
pub struct Built {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Build {
    /// Begins a pack.
    #[must_use]
    pub fn new(template: Template, case_id: Option<&str>) -> Self {
        let case_id = case_id.map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned);
        Self { template: Some(template), case_id, ..Self::default() }
    }

    /// Adds an inventory snapshot.
    ///
    /// # Errors
    ///
    /// Fails if it is another document.
    pub fn inventory(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.inventories.push(canonical(&document(bytes, schema::INVENTORY_SNAPSHOT)?)?);
        Ok(())
    }

    /// Adds the record of an approval.
    ///
    /// # Errors
    ///
    /// Fails if it is another document.
    pub fn approval(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.approvals.push(canonical(&document(bytes, "gait.gate.approval_audit_record")?)?);
        Ok(())
    }

    /// Adds the record of a credential.
    ///
    /// # Errors
    ///
    /// Fails if it is another document.
    pub fn credential(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.credentials.push(canonical(&document(bytes, "gait.gate.broker_credential_record")?)?);
        Ok(())
    }

    /// Adds a trace record to the summary.
    ///
    /// # Errors
    ///
    /// Fails if it is another document, or lacks what is summed up.
    pub fn trace(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let trace = document(bytes, schema::TRACE)?;
        let mut line = Map::new();
        for key in ["trace_id", "tool_name", "verdict"] {
            line.insert(key.to_owned(), text(&trace, key)?.into());
        }
        self.traces.push(line.into());
        Ok(())
    }

    /// Adds a regression result to the summary.
    ///
    /// # Errors
    ///
    /// Fails if it is another document, or lacks what is summed up.
    pub fn regress(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let result = document(bytes, schema::REGRESS_RESULT)?;
        let graders = result.get("graders").and_then(Value::as_array).map_or(0, Vec::len);
        let (set, status) = (text(&result, "fixture_set")?, text(&result, "status")?);
        self.regress.push(json!({"fixture_set": set, "status": status, "graders": graders}));
        Ok(())
    }

    /// Sets the time of an incident and the policies that were in force.
    ///
    /// # Errors
    ///
    /// Never for text.
    pub fn incident(&mut self, window: Window, policy_digests: &[String]) -> Result<(), PackError> {
        self.policies = Some(canonical(&json!({
            "run_id": window.selection_anchor,
            "window_from": window.from,
            "window_to": window.to,
            "policy_digests": policy_digests,
        }))?);
        self.window = Some(window);
        Ok(())
    }

    fn files(self, run: BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, Vec<u8>>, PackError> {
        let mut files = run;
        let lists = [
            ("inventory_snapshot", self.inventories),
            ("approval_audit", self.approvals),
            ("credential_evidence", self.credentials),
        ];
        for (name, mut documents) in lists {
            // Whatever order they were named in, the pack is the same.
            documents.sort();
            documents.dedup();
            for (at, bytes) in documents.into_iter().enumerate() {
                files.insert(format!("{name}_{:02}.json", at + 1), bytes);
            }
        }
        if let Some(bytes) = summary("traces", "verdict", self.traces)? {
            files.insert("trace_summary.json".to_owned(), bytes);
        }
        if let Some(bytes) = summary("results", "status", self.regress)? {
            files.insert("regress_summary.json".to_owned(), bytes);
        }
        files.extend(self.policies.map(|bytes| ("policy_digests.json".to_owned(), bytes)));
        if files.len() > MAX_FILES { Err(PackError::TooMany(files.len())) } else { Ok(files) }
    }
}

fn document(bytes: &[u8], expected: &'static str) -> Result<Value, PackError> {
    let value = parse_strict(bytes, Limits::DOCUMENT)?;
    let found = value.get("schema_id").and_then(Value::as_str).unwrap_or_default();
    if found == expected { Ok(value) } else { Err(PackError::Schema { expected, found: found.to_owned() }) }
}

fn text<'a>(document: &'a Value, key: &'static str) -> Result<&'a str, PackError> {
    document.get(key).and_then(Value::as_str).ok_or(PackError::Missing(key))
}

/// Sums up documents: the lines sorted, and how many there are of each kind.
fn summary(list: &str, by: &str, mut lines: Vec<Value>) -> Result<Option<Vec<u8>>, CanonError> {
    if lines.is_empty() {
        return Ok(None);
    }
    let key = |line: &Value| {
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("trace_id"), text("fixture_set"), text("status"), line.to_string())
    };
    lines.sort_by_cached_key(key);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in &lines {
        let kind = line.get(by).and_then(Value::as_str).unwrap_or_default();
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    let total = lines.len();
    let mut summary = Map::new();
    summary.insert(list.to_owned(), lines.into());
    summary.insert(format!("{by}_counts"), json!(counts));
    summary.insert("total".to_owned(), total.into());
    canonical(&summary).map(Some)
}

/// Sums up the run, and what a session proves.
fn run_files(
    runpack: &mut Runpack,
    verified: &VerifyReport,
) -> Result<(BTreeMap<String, Vec<u8>>, Timestamp), PackError> {
    let manifest = runpack.manifest()?;
    let (mut intents, mut results) = (0_u64, 0_u64);
    runpack.each_intent(|_| intents += 1)?;
    runpack.each_result(|_| results += 1)?;
    let refs = runpack.refs()?;
    let summary = json!({
        "run_id": manifest.run_id,
        "manifest_digest": manifest.manifest_digest,
        "capture_mode": manifest.capture_mode,
        "intent_count": intents,
        "result_count": results,
        "receipt_count": refs.receipts.len(),
    });
    let mut receipts: Vec<_> = refs.receipts.iter().collect();
    receipts.sort_by(|a, b| a.ref_id.cmp(&b.ref_id));
    let receipts: Vec<_> = receipts
        .into_iter()
        .map(|receipt| {
            json!({
                "ref_id": receipt.ref_id,
                "source_type": receipt.source_type,
                "source_locator": receipt.source_locator,
                "content_digest": receipt.content_digest,
                "retrieved_at": receipt.retrieved_at,
            })
        })
        .collect();
    let references = json!({"run_id": manifest.run_id, "references": receipts.len(), "receipts": receipts});
    let mut files = BTreeMap::from([
        ("runpack_summary.json".to_owned(), canonical(&summary)?),
        ("referenced_runpacks.json".to_owned(), canonical(&references)?),
    ]);
    if let Some(exec) = &verified.exec {
        files.insert("session_summary.json".to_owned(), canonical(&session(&manifest.run_id, exec))?);
    }
    Ok((files, manifest.created_at))
}

/// What the verified journal of a session amounts to; integers are decimal strings, as in the journal.
fn session(run_id: &str, exec: &ExecEvidence) -> Value {
    json!({
        "run_id": run_id,
        "backend": exec.backend,
        "program": exec.program,
        "policy_digest": exec.policy_digest,
        "started_at": exec.started_at,
        "ended_at": exec.ended_at,
        "ending": exec.ending,
        "decisions": exec.traces.to_string(),
        "losses": exec.losses.to_string(),
        "approvals": exec.approvals.to_string(),
        "totals": exec.totals.to_map(),
    })
}

fn kind_of(path: &str) -> &'static str {
    match path {
        "runpack_summary.json" => "runpack",
        "trace_summary.json" => "trace",
        "regress_summary.json" | CONTROL_INDEX | POINTERS | "policy_digests.json" => "report",
        _ => "evidence",
    }
}

fn entries(files: &BTreeMap<String, Vec<u8>>) -> Vec<Entry> {
    let entry = |(path, bytes): (&String, &Vec<u8>)| Entry {
        path: path.clone(),
        sha256: Digest::sha256(bytes),
        kind: kind_of(path).to_owned(),
    };
    files.iter().map(entry).collect()
}

/// Makes the pack of a run that was verified.
///
/// # Errors
///
/// Fails if the runpack cannot be read or there are too many documents.
pub fn build(
    runpack: &mut Runpack,
    verified: &VerifyReport,
    mut parts: Build,
    key: &SigningKey,
    producer_version: &str,
) -> Result<Built, PackError> {
    let (run, created_at) = run_files(runpack, verified)?;
    let template = parts.template.unwrap_or(Template::Soc2);
    let (case_id, incident_window) = (parts.case_id.take(), parts.window.take());
    let mut files = parts.files(run)?;
    let evidence = entries(&files);
    let control_index = template.index(&evidence);
    let pointer = |(at, entry): (usize, Entry)| Pointer {
        pointer_id: format!("ev_{:03}", at + 1),
        path: entry.path,
        kind: entry.kind,
        sha256: entry.sha256,
    };
    let evidence_pointers: Vec<_> = evidence.into_iter().enumerate().map(pointer).collect();
    files.insert(CONTROL_INDEX.to_owned(), canonical(&control_index)?);
    files.insert(POINTERS.to_owned(), canonical(&evidence_pointers)?);
    let contents = entries(&files);
    let mut manifest = Manifest {
        schema_id: SCHEMA.to_owned(),
        schema_version: schema::VERSION.to_owned(),
        created_at,
        producer_version: producer_version.to_owned(),
        pack_id: pack_id(&verified.run_id, &contents)?,
        run_id: verified.run_id.clone(),
        case_id,
        template_id: template.as_str().to_owned(),
        generated_at: created_at,
        control_index,
        evidence_pointers,
        incident_window,
        contents,
        public_key: Some(key.verify_key().to_base64()),
        signatures: Vec::new(),
    };
    manifest.signatures = vec![key.sign_digest(&digest_of(&manifest)?)];
    files.insert(MANIFEST.to_owned(), canonical(&manifest)?);
    Ok(Built { bytes: zipped(&files)?, manifest })
}

fn zipped(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, PackError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), options())?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}
