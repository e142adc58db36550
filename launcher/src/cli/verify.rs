//! `gait verify`: does a runpack hold?

use std::path::{Path, PathBuf};

use clap::Subcommand;
use gait_agent::runpack::{
    ArchiveLimits, ExecEvidence, Finding, HashMismatch, Reason, Runpack, SignatureStatus, VerifyError,
    VerifyOptions, VerifyReport, compared_entries, verify_seal, verify_seal_of,
};
use gait_agent::sign::VerifyKey;
use serde::Serialize;

use super::args::{Verify, VerifyKeyArgs, VerifyProfile};
use super::output::one_line;
use super::verify_chain::VerifyChain;
use super::{Answer, CliError, ErrorCode};
use crate::keyring::{self, VerifySource};
use crate::run_id::{find_runpack, find_unsealed};

/// `gait verify …`, besides a runpack alone.
#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Checks a runpack, a trace and a pack at once, and that they belong together.
    Chain(Box<VerifyChain>),
}

/// How many findings the text shows; JSON has them all.
const SHOWN_FINDINGS: usize = 20;

#[derive(Serialize)]
struct Report {
    path: String,
    run_id: String,
    manifest_digest: Option<String>,
    files_checked: usize,
    missing_files: Vec<String>,
    hash_mismatches: Vec<Mismatch>,
    signature_status: &'static str,
    signature_note: Option<&'static str>,
    signature_errors: Vec<String>,
    signatures_total: usize,
    signatures_valid: usize,
    key_id: Option<String>,
    reason_codes: Vec<&'static str>,
    findings: Vec<Found>,
    exec: Option<Exec>,
}

/// A file whose contents are not those declared, as the answers of all verifying verbs tell it.
#[derive(Serialize)]
pub(super) struct Mismatch {
    path: String,
    expected: String,
    actual: Option<String>,
}

impl From<&HashMismatch> for Mismatch {
    fn from(it: &HashMismatch) -> Self {
        Self {
            path: it.path.clone(),
            expected: it.expected.to_string(),
            actual: it.actual.map(|digest| digest.to_string()),
        }
    }
}

/// A finding, as the answers of all verifying verbs tell it.
#[derive(Serialize)]
pub(super) struct Found {
    reason_code: &'static str,
    place: String,
}

impl From<&Finding> for Found {
    fn from(it: &Finding) -> Self {
        Self { reason_code: it.reason.code(), place: it.place.clone() }
    }
}

/// What a session's evidence says, with counts as in the documents: decimal strings.
#[derive(Serialize)]
struct Exec {
    policy_digest: Option<String>,
    backend: Option<String>,
    program: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    ending: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_later: Option<String>,
    decisions: String,
    journal_lines: String,
    events: String,
    losses: String,
    approvals: String,
    totals: serde_json::Value,
}

/// A runpack and what verification says about it.
pub(super) struct Verified {
    pub(super) path: PathBuf,
    pub(super) report: VerifyReport,
}

/// Finds a runpack and verifies it with the given key, else with the person's own.
///
/// # Errors
///
/// Fails if there is no such runpack or it is something else.
pub(super) fn check(
    name: &str,
    key: Option<VerifyKey>,
    require_signature: bool,
) -> Result<Verified, CliError> {
    let path = find_runpack(name);
    // A runpack that is there is what is meant; without one, there may still be the directory that it would be made of.
    if path.as_ref().map_or(true, |path| !path.is_file())
        && let Some(run) = find_unsealed(name)
    {
        return Err(CliError::input(format!("{} is a run that was not sealed", run.display()))
            .hint(format!("if its session is over, seal what it left: gait run seal {name}")));
    }
    let path = path?;
    let options = VerifyOptions { key, require_signature, limits: ArchiveLimits::default() };
    let mut report =
        gait_agent::runpack::verify(&path, &options).map_err(|error| unreadable(&path, error))?;
    // A key id is the digest of its key, so a valid signature under the runpack's key with the id of the person's
    // own key is a valid signature under that key.
    if report.signature_status == SignatureStatus::SelfSigned
        && report.key_id.is_some()
        && report.key_id == keyring::user_verify_key().map(|own| own.key_id())
    {
        report.signature_status = SignatureStatus::Verified;
    }
    if require_signature
        && report.signature_status == SignatureStatus::SelfSigned
        && !report.has(Reason::SignatureMissing)
    {
        let place = "no signature by a trusted key".to_owned();
        report.findings.push(Finding { reason: Reason::SignatureMissing, place });
    }
    Ok(Verified { path, report })
}

fn unreadable(path: &Path, error: VerifyError) -> CliError {
    let shown = path.display();
    match error {
        VerifyError::Read(source) => CliError::input(format!("read runpack {shown}")).because(source),
        error => CliError::input(format!("{shown}")).because(error).hint("name a runpack_<run_id>.zip"),
    }
}

impl Verified {
    /// Makes the error of a runpack that does not hold.
    pub(super) fn failure(&self) -> Option<CliError> {
        if self.report.ok() {
            return None;
        }
        let codes = reason_codes(&self.report).join(", ");
        let message = format!("{} does not hold: {codes}", self.path.display());
        Some(CliError::new(ErrorCode::VerificationFailed, message))
    }
}

fn reason_codes(report: &VerifyReport) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.findings.iter().map(|finding| finding.reason.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Verifies a runpack, or a chain of artefacts.
///
/// # Errors
///
/// Bad keys, a profile without a key, a runpack that cannot be read.
pub(super) fn verify(args: Verify) -> Result<Answer, CliError> {
    if let Some(VerifyCommand::Chain(args)) = &args.chain {
        return super::verify_chain::chain(args);
    }
    let name = args.run.unwrap_or_default();
    let required = (args.profile == VerifyProfile::Strict, args.require_signature);
    Ok(single(&name, required, args.key)?.1)
}

/// Verifies one runpack; `required` is whether the profile is strict, and whether a signature is demanded.
///
/// # Errors
///
/// As [`verify`].
pub(super) fn single(
    name: &str,
    required: (bool, bool),
    key: VerifyKeyArgs,
) -> Result<(Verified, Answer), CliError> {
    let (strict, require_signature) = required;
    let key = VerifySource::from(key).load()?;
    if strict && key.is_none() {
        return Err(CliError::input("profile strict needs a key to verify with")
            .hint("give --public-key or --public-key-env"));
    }
    let verified = check(name, key, strict || require_signature)?;
    let note = note(&verified.report);
    let report = report(&verified, note);
    let text = text(&verified, note);
    let answer = Answer::ok(&report, text)?;
    let answer = match verified.failure() {
        None => answer,
        Some(error) => answer.failed(error),
    };
    Ok((verified, answer))
}

/// Checks that what comparing two runpacks reads is what they were sealed with: container, manifest with its signature,
/// digests. The decisions of sessions are not checked one by one.
///
/// # Errors
///
/// Fails if one is not there, is something else, or does not hold.
pub(super) fn check_seals(left: &str, right: &str) -> Result<(PathBuf, PathBuf), CliError> {
    let paths = (find_runpack(left)?, find_runpack(right)?);
    // What cannot be opened is looked at as a whole below, which says why.
    let entries = match (Runpack::open(&paths.0), Runpack::open(&paths.1)) {
        (Ok(left), Ok(right)) => compared_entries(&left, &right),
        _ => None,
    };
    let seal = |path: &Path| -> Result<(), CliError> {
        let options = VerifyOptions::default();
        let report = match entries {
            Some(entries) => verify_seal_of(path, &options, &entries),
            None => verify_seal(path, &options),
        };
        let report = report.map_err(|error| unreadable(path, error))?;
        Verified { path: path.to_owned(), report }.failure().map_or(Ok(()), Err)
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| seal(&paths.1));
        let one = seal(&paths.0);
        (one, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    one.and(other).map(|()| paths)
}

const fn note(report: &VerifyReport) -> Option<&'static str> {
    match report.signature_status {
        SignatureStatus::Skipped => Some("public key not configured"),
        SignatureStatus::SelfSigned => Some(
            "public key not configured; valid under the key that the runpack carries itself, which says nothing of \
             who signed it",
        ),
        SignatureStatus::Missing | SignatureStatus::Verified | SignatureStatus::Failed => None,
    }
}

fn report(verified: &Verified, note: Option<&'static str>) -> Report {
    let Verified { path, report } = verified;
    Report {
        path: path.display().to_string(),
        run_id: report.run_id.clone(),
        manifest_digest: report.manifest_digest.map(|digest| digest.to_string()),
        files_checked: report.files_checked,
        missing_files: report.missing_files.clone(),
        hash_mismatches: report.hash_mismatches.iter().map(Mismatch::from).collect(),
        signature_status: report.signature_status.as_str(),
        signature_note: note,
        signature_errors: report.signature_errors.clone(),
        signatures_total: report.signatures_total,
        signatures_valid: report.signatures_valid,
        key_id: report.key_id.map(|id| id.to_string()),
        reason_codes: reason_codes(report),
        findings: report.findings.iter().map(Found::from).collect(),
        exec: report.exec.as_ref().map(exec),
    }
}

fn exec(evidence: &ExecEvidence) -> Exec {
    let text = ToString::to_string;
    Exec {
        policy_digest: evidence.policy_digest.as_ref().map(text),
        backend: evidence.backend.clone(),
        program: evidence.program.clone(),
        started_at: evidence.started_at.as_ref().map(ToString::to_string),
        ended_at: evidence.ended_at.as_ref().map(ToString::to_string),
        ending: evidence.ending.clone(),
        sealed_later: evidence.sealed_later.as_ref().map(ToString::to_string),
        decisions: evidence.traces.to_string(),
        journal_lines: evidence.lines.to_string(),
        events: evidence.totals.sum().to_string(),
        losses: evidence.losses.to_string(),
        approvals: evidence.approvals.to_string(),
        totals: serde_json::json!(evidence.totals.to_map()),
    }
}

/// What a person must know of how the session ended: nothing, where the workload ended by itself.
fn end_of(exec: &ExecEvidence) -> Option<String> {
    let ending = exec.ending.as_deref().unwrap_or("unfinished");
    match exec.sealed_later {
        Some(at) => Some(format!(
            "session {ending}, sealed later on {at}: what it did at the very end may be missing"
        )),
        None if ending == "aborted" => Some("session aborted: gait ended it".to_owned()),
        None => None,
    }
}

fn text(verified: &Verified, note: Option<&str>) -> String {
    let Verified { path, report } = verified;
    let mut lines = Vec::new();
    let path = path.display().to_string();
    let path = one_line(&path);
    if report.ok() {
        lines.push(format!("verify ok: {path}"));
    } else {
        lines.push(format!("verify failed: {path}"));
        if !report.missing_files.is_empty() {
            lines.push(format!("missing files: {}", one_line(&report.missing_files.join(", "))));
        }
        if !report.hash_mismatches.is_empty() {
            lines.push(format!("hash mismatches: {}", report.hash_mismatches.len()));
        }
    }
    let signature = report.signature_status.as_str();
    lines.push(note.map_or_else(
        || format!("signature status: {signature}"),
        |note| format!("signature status: {signature} ({note})"),
    ));
    if let Some(exec) = &report.exec {
        lines.extend(end_of(exec));
    }
    if !report.signature_errors.is_empty() {
        lines.push(format!("signature errors: {}", report.signature_errors.join("; ")));
    }
    for finding in report.findings.iter().take(SHOWN_FINDINGS) {
        lines.push(format!("  {}: {}", finding.reason.code(), one_line(&finding.place)));
    }
    if report.findings.len() > SHOWN_FINDINGS {
        lines.push(format!("  and {} more", report.findings.len() - SHOWN_FINDINGS));
    }
    lines.join("\n")
}
