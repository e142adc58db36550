//! `gait guard pack`, `gait guard verify` and `gait incident pack`: a run and what lies around it, for people who were
//! not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use gait_agent::pack::{
    Build, Built, PackError, PackReport, Sources, Template, Window, build, collect, verify_pack,
};
use gait_agent::runpack::{
    ArchiveLimits, Finding, Reason, Runpack, SignatureStatus, VerifyError, VerifyOptions,
};
use gait_agent::schema;
use gait_agent::timestamp::Timestamp;
use serde::Serialize;

use super::args::{SigningKeyArgs, VerifyKeyArgs, VerifyProfile, duration};
use super::output::one_line;
use super::verify::{Found, Mismatch, Verified, check};
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::input;
use crate::keyring::{self, DevKey, VerifySource, signing_key};

/// A document that a tool hands in.
const DOCUMENT_BYTES: u64 = 8 << 20;
/// How many documents beside a run are looked at.
const MAX_BESIDE: usize = 10_000;

/// `gait guard …`.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Packs the evidence of a run with what is named, indexed by the controls of an audit, and signs it.
    Pack(GuardPack),
    /// Checks an evidence pack offline: every file, the index and the signatures.
    Verify(GuardVerify),
}

/// `gait incident …`.
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// Packs the evidence of a run with what lies beside it and falls into its time.
    Pack(IncidentPack),
}

/// Flags of `gait guard pack`.
#[derive(Debug, Args)]
pub struct GuardPack {
    /// The run, or the runpack's path.
    #[arg(long, value_name = "RUN_ID|PATH")]
    pub run: String,
    /// Where the pack goes [default: `evidence_pack_PACK_ID.zip` beside the run].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The number of the case, as somebody else counts.
    #[arg(long, value_name = "TEXT")]
    pub case_id: Option<String>,
    /// Inventory snapshots.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub inventory: Vec<PathBuf>,
    /// Trace files, to be summed up.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub trace: Vec<PathBuf>,
    /// Regression results, to be summed up.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub regress: Vec<PathBuf>,
    /// Records of approvals.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub approval_audit: Vec<PathBuf>,
    /// Records of credentials.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub credential_evidence: Vec<PathBuf>,
    /// soc2, pci or `incident_response`; any other name means the last.
    #[arg(long, value_name = "NAME", default_value = "soc2")]
    pub template: String,
    #[command(flatten)]
    pub key: SigningKeyArgs,
}

/// Flags of `gait incident pack`.
#[derive(Debug, Args)]
pub struct IncidentPack {
    /// The run, or the runpack's path.
    #[arg(long, value_name = "RUN_ID|PATH")]
    pub from: String,
    /// How long before and after the run's beginning a document may be, such as 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    pub window: Duration,
    /// Where the pack goes [default: `evidence_pack_PACK_ID.zip` beside the run].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The number of the case, as somebody else counts.
    #[arg(long, value_name = "TEXT")]
    pub case_id: Option<String>,
    /// soc2, pci or `incident_response`; any other name means the last.
    #[arg(long, value_name = "NAME", default_value = "incident_response")]
    pub template: String,
    #[command(flatten)]
    pub key: SigningKeyArgs,
}

/// Arguments of `gait guard verify`.
#[derive(Debug, Args)]
pub struct GuardVerify {
    /// The pack.
    #[arg(value_name = "PATH", required_unless_present = "path_flag", conflicts_with = "path_flag")]
    pub path: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(long = "path", id = "path_flag", value_name = "PATH")]
    pub path_flag: Option<PathBuf>,
    /// strict demands a signature by a key that is named.
    #[arg(long, value_enum, default_value_t)]
    pub profile: VerifyProfile,
    /// Fail unless the pack is signed by a trusted key.
    #[arg(long)]
    pub require_signature: bool,
    #[command(flatten)]
    pub key: VerifyKeyArgs,
}

#[derive(Serialize)]
struct Packed {
    pack_path: String,
    pack_id: String,
    run_id: String,
    template_id: String,
    controls: usize,
    rendered_artifacts: usize,
    manifest_path: String,
    key_id: String,
}

#[derive(Serialize)]
struct PackedIncident {
    #[serde(flatten)]
    packed: Packed,
    trace_count: usize,
    regress_count: usize,
    approval_audit_count: usize,
    credential_evidence_count: usize,
    policy_digests: Vec<String>,
    window_from: Timestamp,
    window_to: Timestamp,
}

/// Makes a pack of what is named.
///
/// # Errors
///
/// A run that does not hold, a document that is another one, a pack that cannot be written.
pub(super) fn pack(args: &GuardPack) -> Result<Answer, CliError> {
    let verified = holding(&args.run)?;
    let mut parts = Build::new(Template::named(&args.template), args.case_id.as_deref());
    type Add = fn(&mut Build, &[u8]) -> Result<(), PackError>;
    let lists: [(&'static str, &[PathBuf], Add); 5] = [
        ("inventory", &args.inventory, Build::inventory),
        ("trace", &args.trace, Build::trace),
        ("regress result", &args.regress, Build::regress),
        ("approval audit", &args.approval_audit, Build::approval),
        ("credential evidence", &args.credential_evidence, Build::credential),
    ];
    for (what, paths, add) in lists {
        for path in paths {
            let bytes = input::read(what, path, DOCUMENT_BYTES)?;
            add(&mut parts, &bytes)
                .map_err(|error| CliError::input(format!("{what} {}", path.display())).because(error))?;
        }
    }
    let (built, warnings) = built(&verified, parts, &args.key)?;
    let packed = write(&verified, built, args.out.as_deref())?;
    let text = text("guard pack", &packed);
    Ok(Answer::ok(&packed, text)?.warn(warnings))
}

/// Makes a pack of what lies beside a run.
///
/// # Errors
///
/// A run that does not hold, a directory that cannot be read, a pack that cannot be written.
pub(super) fn incident(args: &IncidentPack) -> Result<Answer, CliError> {
    let verified = holding(&args.from)?;
    let unreadable = |error| CliError::input(format!("read {}", verified.path.display())).because(error);
    let began =
        Runpack::open(&verified.path).and_then(|mut it| it.manifest()).map_err(unreadable)?.created_at;
    let span = i128::try_from(args.window.as_nanos()).unwrap_or(i128::MAX);
    let at = |nanos: i128| u64::try_from(nanos.max(0)).map_or(u64::MAX, |nanos| nanos);
    let window = Window {
        from: Timestamp::from_unix_nanos(at(began.unix_nanos().saturating_sub(span))),
        to: Timestamp::from_unix_nanos(at(began.unix_nanos().saturating_add(span))),
        window_seconds: args.window.as_secs(),
        selection_anchor: verified.report.run_id.clone(),
    };
    let mut parts = Build::new(Template::named(&args.template), args.case_id.as_deref());
    let sources = beside(&verified.path)?;
    let failed = |error| CliError::input("documents beside the run").because(error);
    let mut collected = collect(&mut parts, &sources, (window.from, window.to)).map_err(failed)?;
    let session = verified.report.exec.as_ref().and_then(|exec| exec.policy_digest);
    collected.policy_digests.extend(session.map(|digest| digest.to_string()));
    let policy_digests: Vec<_> = collected.policy_digests.into_iter().collect();
    let (window_from, window_to) = (window.from, window.to);
    parts.incident(window, &policy_digests).map_err(failed)?;
    let (built, warnings) = built(&verified, parts, &args.key)?;
    let packed = write(&verified, built, args.out.as_deref())?;
    let text = format!(
        "{}\nwindow: {window_from} to {window_to} traces={} regress={} approvals={} credentials={}",
        text("incident pack", &packed),
        collected.traces,
        collected.regress,
        collected.approvals,
        collected.credentials
    );
    let report = PackedIncident {
        packed,
        trace_count: collected.traces,
        regress_count: collected.regress,
        approval_audit_count: collected.approvals,
        credential_evidence_count: collected.credentials,
        policy_digests,
        window_from,
        window_to,
    };
    Ok(Answer::ok(&report, text)?.warn(warnings))
}

fn holding(run: &str) -> Result<Verified, CliError> {
    let verified = check(run, None, false)?;
    verified.failure().map_or(Ok(verified), Err)
}

fn built(verified: &Verified, parts: Build, key: &SigningKeyArgs) -> Result<(Built, Vec<String>), CliError> {
    let (mode, source) = key.source();
    // The person's own key, as for sessions: a key for one process would make every pack another.
    let (key, warning) = signing_key(mode, &source, DevKey::PerUser)?;
    let shown = verified.path.display();
    let failed = |error: PackError| CliError::input(format!("pack {shown}")).because(error);
    let mut runpack = Runpack::open(&verified.path).map_err(|error| failed(error.into()))?;
    let built =
        build(&mut runpack, &verified.report, parts, &key, schema::PRODUCER_VERSION).map_err(failed)?;
    Ok((built, warning.into_iter().map(str::to_owned).collect()))
}

fn write(verified: &Verified, built: Built, out: Option<&Path>) -> Result<Packed, CliError> {
    let Built { bytes, manifest } = built;
    let place = out.map_or_else(
        || verified.path.with_file_name(format!("evidence_pack_{}.zip", manifest.pack_id)),
        Path::to_path_buf,
    );
    let pack_path = place.display().to_string();
    Staged::write(&place, &bytes)
        .and_then(|staged| staged.commit(Existing::Replace))
        .map_err(|error| CliError::io(format!("write {pack_path}")).because(error))?;
    Ok(Packed {
        manifest_path: format!("{pack_path}#pack_manifest.json"),
        pack_path,
        pack_id: manifest.pack_id,
        run_id: manifest.run_id,
        template_id: manifest.template_id,
        controls: manifest.control_index.len(),
        rendered_artifacts: 0,
        key_id: manifest.signatures.first().map(|it| it.key_id.to_string()).unwrap_or_default(),
    })
}

fn text(verb: &str, packed: &Packed) -> String {
    let Packed { pack_path, pack_id, run_id, template_id, controls, .. } = packed;
    let path = one_line(pack_path);
    format!("{verb} ok: {path}\npack_id={pack_id} run_id={run_id} template={template_id} controls={controls}")
}

/// Reads the documents beside a run by the names that gait gives them.
fn beside(run: &Path) -> Result<Sources, CliError> {
    let parent = run.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or_else(|| Path::new("."));
    let failed = |error| CliError::input(format!("read directory {}", directory.display())).because(error);
    let mut sources = Sources::default();
    let mut seen = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".json") {
            continue;
        }
        let list = if name.starts_with("trace_") {
            &mut sources.traces
        } else if name.starts_with("regress") {
            &mut sources.regress
        } else if name.starts_with("approval_audit_") {
            &mut sources.approvals
        } else if name.starts_with("credential_evidence_") {
            &mut sources.credentials
        } else {
            continue;
        };
        seen += 1;
        if seen > MAX_BESIDE {
            let message = format!("more than {MAX_BESIDE} documents in {}", directory.display());
            return Err(CliError::input(message).hint("name them with `gait guard pack`"));
        }
        // What cannot be read or is too large is no document of ours.
        list.extend(input::read("document", &path, DOCUMENT_BYTES));
    }
    Ok(sources)
}

#[derive(Serialize)]
struct Checked {
    path: String,
    pack_id: String,
    run_id: String,
    files_checked: usize,
    missing_files: Vec<String>,
    hash_mismatches: Vec<Mismatch>,
    signature_status: &'static str,
    signature_errors: Vec<String>,
    signatures_total: usize,
    signatures_valid: usize,
    key_id: Option<String>,
    reason_codes: Vec<&'static str>,
    findings: Vec<Found>,
}

/// Verifies a pack.
///
/// # Errors
///
/// Bad keys, a profile without a key, a file that cannot be read or is no archive.
pub(super) fn verify(args: GuardVerify) -> Result<Answer, CliError> {
    let path = args.path.or(args.path_flag).unwrap_or_default();
    let strict = args.profile == VerifyProfile::Strict;
    let key = VerifySource::from(args.key).load()?;
    if strict && key.is_none() {
        return Err(CliError::input("profile strict needs a key to verify with")
            .hint("give --public-key or --public-key-env"));
    }
    let require_signature = strict || args.require_signature;
    let options = VerifyOptions { key, require_signature, limits: ArchiveLimits::default() };
    let mut report = verify_pack(&path, &options).map_err(|error| unreadable(&path, error))?;
    trust(&mut report, require_signature);
    let codes = reason_codes(&report);
    let shown = path.display().to_string();
    let text = checked_text(&report, &shown);
    let checked = checked(report, shown.clone(), codes.clone());
    let answer = Answer::ok(&checked, text)?;
    Ok(if codes.is_empty() {
        answer
    } else {
        let message = format!("{shown} does not hold: {}", codes.join(", "));
        answer.failed(CliError::new(ErrorCode::VerificationFailed, message))
    })
}

/// A valid signature under the person's own key is a trusted one; one under no known key does not do where a signature
/// is required.
fn trust(report: &mut PackReport, require_signature: bool) {
    if report.signature_status != SignatureStatus::SelfSigned {
        return;
    }
    if report.key_id.is_some() && report.key_id == keyring::user_verify_key().map(|own| own.key_id()) {
        report.signature_status = SignatureStatus::Verified;
    } else if require_signature {
        let place = "no signature by a trusted key".to_owned();
        report.findings.push(Finding { reason: Reason::SignatureMissing, place });
    }
}

fn unreadable(path: &Path, error: VerifyError) -> CliError {
    match error {
        VerifyError::Read(source) => CliError::input(format!("read pack {}", path.display())).because(source),
        _ => CliError::input(format!("{} is no evidence pack: it is no zip archive", path.display()))
            .hint("name an evidence_pack_<pack_id>.zip"),
    }
}

fn reason_codes(report: &PackReport) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.findings.iter().map(|finding| finding.reason.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn checked_text(report: &PackReport, path: &str) -> String {
    let outcome = if report.ok() { "ok" } else { "failed" };
    let mut lines = vec![
        format!("guard verify {outcome}: {}", one_line(path)),
        format!("signature status: {}", report.signature_status.as_str()),
    ];
    for finding in report.findings.iter().take(20) {
        lines.push(format!("  {}: {}", finding.reason.code(), one_line(&finding.place)));
    }
    lines.join("\n")
}

fn checked(report: PackReport, path: String, reason_codes: Vec<&'static str>) -> Checked {
    Checked {
        path,
        pack_id: report.pack_id,
        run_id: report.run_id,
        files_checked: report.files_checked,
        missing_files: report.missing_files,
        hash_mismatches: report.hash_mismatches.iter().map(Mismatch::from).collect(),
        signature_status: report.signature_status.as_str(),
        signature_errors: report.signature_errors,
        signatures_total: report.signatures_total,
        signatures_valid: report.signatures_valid,
        key_id: report.key_id.map(|id| id.to_string()),
        reason_codes,
        findings: report.findings.iter().map(Found::from).collect(),
    }
}
