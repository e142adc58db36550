//! The graders of one fixture (contract section 19.2), and two of gait's own for sessions of `gait exec`: `decisions`
//! asks the policy again about everything that the session did, `live` lets the command do it again.
//!
//! A runpack that does not hold is graded by `schema_validation` alone: nothing it says would mean anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gait_agent::gate::Verdict;
use gait_agent::regress::{ConfigEntry, Fixture, Grader, Judge, Judgement, Session, Status};
use gait_agent::runpack::{
    IntentEntry, ReadError, Reason, Refs, ResultEntry, Runpack, VerifyOptions, VerifyReport,
};
use gait_agent::timestamp::Timestamp;
use serde_json::{Map, Value, json};

use super::live::{self, LiveOptions};
use super::replay;
use super::suite::{Suite, confined};
use crate::cli::output::one_line;
use crate::cli::{CliError, ErrorCode};

/// How many changes a grader lists in the result; the rest is counted.
const LISTED: usize = 200;
/// How many of them are shown.
pub(super) const SHOWN: usize = 20;

/// What is wrong with the archive itself: in the contract's words it cannot be parsed.
const ARCHIVE: [Reason; 9] = [
    Reason::TruncatedArchive,
    Reason::MalformedArchive,
    Reason::TooManyEntries,
    Reason::UnsafeEntryName,
    Reason::DuplicateEntry,
    Reason::EntriesOutOfOrder,
    Reason::EntryTooLarge,
    Reason::CompressionRatio,
    Reason::EntryCorrupt,
];

/// What the graders of a fixture said.
#[derive(Debug, Default)]
pub(super) struct Graded {
    pub(super) graders: Vec<Grader>,
    /// What people should see of a failure, in one screen.
    pub(super) lines: Vec<String>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) warnings: Vec<String>,
}

impl Graded {
    fn add(&mut self, fixture: &Fixture, grader: &str, reasons: Vec<String>, details: Value) {
        let mut all = Map::new();
        all.insert("fixture".to_owned(), fixture.name.clone().into());
        all.insert("run_id".to_owned(), fixture.run_id.clone().into());
        if let Value::Object(details) = details {
            all.extend(details);
        }
        self.graders.push(Grader::new(&fixture.name, grader, reasons, all));
    }

    /// Adds the first lines of `total`, and how many more there are.
    pub(super) fn show(&mut self, head: String, lines: Vec<String>, total: usize) {
        self.lines.push(head);
        let left = total.saturating_sub(SHOWN);
        self.lines.extend(lines.into_iter().take(SHOWN));
        if left > 0 {
            self.lines.push(format!("  and {left} more"));
        }
    }
}

/// Grades a fixture.
///
/// # Errors
///
/// The fixture's own files cannot be used, its policy cannot, or the live run could not be made.
pub(super) fn grade(
    suite: &Suite,
    entry: &ConfigEntry,
    live: Option<&LiveOptions<'_>>,
) -> Result<Graded, CliError> {
    let fixture = suite.fixture(entry)?;
    let mut graded = Graded::default();
    let unchecked = fixture.unchecked();
    if !unchecked.is_empty() {
        graded.warnings.push(format!("fixture {}: {} is not checked", fixture.name, unchecked.join(", ")));
    }
    let Some(pack) = schema_validation(suite, &fixture, &mut graded) else { return Ok(graded) };
    graded.created_at = pack.created_at;
    expected_exit_code(&fixture, &pack, &mut graded);
    diff(suite, &fixture, &pack, &mut graded);
    trajectory(&fixture, &pack, &mut graded)?;
    if let Some(exec) = fixture.exec.as_ref().filter(|_| pack.is_session) {
        let (session, mut runpack) = replay::session(&pack.path)?;
        let (name, policy) = replay::of_fixture(&suite.root, exec)?;
        let was = replay::was(&session, None)?;
        let judge = replay::judge(&policy, was.as_ref(), &session, Some(exec))?;
        let about = Asked { policy: &name, digest: policy.digest().to_string() };
        decisions(&fixture, &judge, &about, (&session, &mut runpack), &pack.path, &mut graded)?;
        if let Some(options) = live {
            live::live(suite, &fixture, exec, &name, &judge, (&session, &mut runpack), options, &mut graded)?;
        }
    } else if live.is_some() {
        graded.warnings.push(format!("fixture {}: not the run of a command, so not run again", fixture.name));
    }
    Ok(graded)
}

/// A runpack that holds. Of a session only the frame is kept: its intents follow from its decisions.
struct Pack {
    path: PathBuf,
    is_session: bool,
    created_at: Option<Timestamp>,
    refs: Refs,
    intents: Vec<IntentEntry>,
    results: Vec<ResultEntry>,
}

fn schema_validation(suite: &Suite, fixture: &Fixture, graded: &mut Graded) -> Option<Pack> {
    let directory = suite.fixture_directory(&fixture.name);
    let read = confined(&directory, &fixture.runpack)
        .map_err(|error| ("schema_validation_error", error.to_string()))
        .and_then(|path| read(path));
    let (reasons, details, pack) = match read {
        Ok((pack, report)) => {
            let mut reasons = codes(&report);
            let mut details = facts(&report);
            let counts = match &report.exec {
                Some(exec) => (exec.traces, exec.traces),
                None => (pack.intents.len() as u64, pack.results.len() as u64),
            };
            if report.ok() && fixture.run_id != report.run_id {
                reasons.push("run_schema_invalid".to_owned());
                details.insert("error".to_owned(), "the runpack is of another run".into());
            }
            details.insert("intent_records".to_owned(), counts.0.into());
            details.insert("result_records".to_owned(), counts.1.into());
            details.insert("reference_receipts".to_owned(), pack.refs.receipts.len().into());
            let holds = reasons.is_empty();
            (reasons, details, Some(pack).filter(|_| holds))
        }
        Err((code, error)) => {
            (vec![code.to_owned()], Map::from_iter([("error".to_owned(), Value::from(error))]), None)
        }
    };
    if !reasons.is_empty() {
        graded.lines.push(format!(
            "{}: {} does not hold: {}",
            fixture.name,
            directory.join(&fixture.runpack).display(),
            reasons.join(", ")
        ));
    }
    graded.add(fixture, "schema_validation", reasons, Value::Object(details));
    pack
}

type Unreadable = (&'static str, String);

fn read(path: PathBuf) -> Result<(Pack, VerifyReport), Unreadable> {
    let report = gait_agent::runpack::verify(&path, &VerifyOptions::default())
        .map_err(|error| ("schema_validation_error", chain(&error)))?;
    let mut pack = Pack {
        path,
        is_session: report.exec.is_some(),
        created_at: None,
        refs: Refs::default(),
        intents: Vec::new(),
        results: Vec::new(),
    };
    if !report.ok() {
        // What is in it is not looked at.
        return Ok((pack, report));
    }
    let failed = |code| move |error: ReadError| (code, chain(&error));
    let mut runpack = Runpack::open(&pack.path).map_err(failed("runpack_parse_error"))?;
    pack.created_at = runpack.run().map_err(failed("run_schema_invalid"))?.created_at;
    pack.refs = runpack.refs().map_err(failed("refs_schema_invalid"))?;
    if !pack.is_session {
        pack.intents = runpack.intents().map_err(failed("intent_schema_invalid"))?;
        pack.results = runpack.results().map_err(failed("result_schema_invalid"))?;
    }
    Ok((pack, report))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The contract's codes, then gait's finer ones.
fn codes(report: &VerifyReport) -> Vec<String> {
    let mut codes = BTreeSet::new();
    for finding in &report.findings {
        let code = match finding.reason {
            Reason::MissingFile => "missing_files",
            Reason::HashMismatch => "hash_mismatch",
            Reason::ManifestInvalid | Reason::ManifestDigestMismatch => "manifest_schema_invalid",
            reason if ARCHIVE.contains(&reason) => "runpack_parse_error",
            _ => "schema_validation_error",
        };
        codes.insert((0, code));
        if matches!(code, "runpack_parse_error" | "schema_validation_error") {
            codes.insert((1, finding.reason.code()));
        }
    }
    codes.into_iter().map(|(_, code)| code.to_owned()).collect()
}

fn facts(report: &VerifyReport) -> Map<String, Value> {
    let missing = if report.missing_files.is_empty() { Value::Null } else { json!(report.missing_files) };
    let mismatches: Vec<_> = report
        .hash_mismatches
        .iter()
        .map(|one| {
            let actual = one.actual.map(|digest| digest.to_string());
            json!({"path": one.path, "expected": one.expected.to_string(), "actual": actual})
        })
        .collect();
    Map::from_iter([
        ("missing_files".to_owned(), missing),
        ("hash_mismatches".to_owned(), Value::from(mismatches)),
    ])
}

/// Replays the recorded results: what has none and no known stub is missing.
fn expected_exit_code(fixture: &Fixture, pack: &Pack, graded: &mut Graded) {
    let answered: BTreeSet<_> = pack.results.iter().map(|result| result.intent_id.as_str()).collect();
    let missing: Vec<_> = pack
        .intents
        .iter()
        .filter(|intent| !answered.contains(intent.intent_id.as_str()) && !has_stub(&intent.tool_name))
        .map(|intent| intent.intent_id.as_str())
        .collect();
    let actual = if missing.is_empty() { 0 } else { i32::from(ErrorCode::VerificationFailed.exit()) };
    let expected = fixture.expected_replay_exit_code;
    let reasons = if actual == expected { Vec::new() } else { vec!["unexpected_exit_code".to_owned()] };
    if !reasons.is_empty() {
        graded.lines.push(format!("{}: replay exits with {actual}, expected {expected}", fixture.name));
    }
    let details =
        json!({"expected_exit_code": expected, "actual_exit_code": actual, "missing_results": missing});
    graded.add(fixture, "expected_exit_code", reasons, details);
}

/// Whether a result can be made up for a tool (contract section 18.3).
fn has_stub(tool: &str) -> bool {
    const KINDS: [&str; 15] = [
        "http", "fetch", "url", "file", "path", "fs", "write", "db", "sql", "query", "table", "queue",
        "topic", "publish", "kafka",
    ];
    let tool = tool.to_lowercase();
    KINDS.iter().any(|kind| tool.contains(kind))
}

/// Compares the recorded run with the candidate; without one nothing can differ.
fn diff(suite: &Suite, fixture: &Fixture, pack: &Pack, graded: &mut Graded) {
    let directory = suite.fixture_directory(&fixture.name);
    let candidate = fixture.candidate_runpack.as_deref().unwrap_or(&fixture.runpack);
    let mut details = json!({
        "candidate_runpack": candidate,
        "changed_files": [],
        "allowed_files": fixture.diff_allow_changed_files,
    });
    let mut reasons = Vec::new();
    let compared = match fixture.candidate_runpack.as_deref() {
        None => Ok(Vec::new()),
        Some(candidate) => confined(&directory, candidate)
            .map_err(|error| ("candidate_path_invalid", error.to_string()))
            .and_then(|path| changed_files(pack, path)),
    };
    match compared {
        Ok(changed) => {
            let allowed = |file: &&&str| !fixture.diff_allow_changed_files.iter().any(|one| one == **file);
            let unexpected: Vec<_> = changed.iter().filter(allowed).copied().collect();
            if !unexpected.is_empty() {
                reasons.push("unexpected_diff".to_owned());
                graded.lines.push(format!(
                    "{}: the candidate differs in {}",
                    fixture.name,
                    unexpected.join(", ")
                ));
                details["unexpected_files"] = json!(unexpected);
            }
            details["changed_files"] = json!(changed);
        }
        Err((code, error)) => {
            reasons.push(code.to_owned());
            graded.lines.push(format!("{}: candidate {candidate}: {error}", fixture.name));
            details["error"] = error.into();
        }
    }
    graded.add(fixture, "diff", reasons, details);
}

fn changed_files(recorded: &Pack, candidate: PathBuf) -> Result<Vec<&'static str>, Unreadable> {
    let (candidate, report) = read(candidate).map_err(|(_, error)| ("diff_error", error))?;
    if !report.ok() {
        return Err(("diff_error", format!("it does not hold: {}", codes(&report).join(", "))));
    }
    if recorded.is_session || candidate.is_session {
        return Err(("diff_error", "sessions of gait exec are compared by `regress run --live`".to_owned()));
    }
    let mut changed = Vec::new();
    let intents = |pack: &Pack| {
        let all = pack.intents.iter().cloned().map(|mut one| {
            (one.run_id, one.producer_version, one.created_at) = (String::new(), String::new(), None);
            one.schema_version = String::new();
            (one.intent_id.clone(), format!("{one:?}"))
        });
        all.collect::<BTreeMap<_, _>>()
    };
    let results = |pack: &Pack| {
        let all = pack.results.iter().cloned().map(|mut one| {
            (one.run_id, one.producer_version, one.created_at) = (String::new(), String::new(), None);
            one.schema_version = String::new();
            (one.intent_id.clone(), format!("{one:?}"))
        });
        all.collect::<BTreeMap<_, _>>()
    };
    let refs = |pack: &Pack| {
        let mut receipts = pack.refs.receipts.clone();
        receipts.iter_mut().for_each(|receipt| receipt.retrieved_at = None);
        receipts
    };
    if intents(recorded) != intents(&candidate) {
        changed.push("intents.jsonl");
    }
    if refs(recorded) != refs(&candidate) {
        changed.push("refs.json");
    }
    if results(recorded) != results(&candidate) {
        changed.push("results.jsonl");
    }
    Ok(changed)
}

/// Compares tools and answers with those that the fixture expects, if it does.
fn trajectory(fixture: &Fixture, pack: &Pack, graded: &mut Graded) -> Result<(), CliError> {
    let (tools, verdicts) = (&fixture.expected_tool_sequence, &fixture.expected_verdict_sequence);
    if tools.is_none() && verdicts.is_none() {
        return Ok(());
    }
    let mut actual = (Vec::new(), Vec::new());
    if pack.is_session {
        let mut runpack = Runpack::open(&pack.path).map_err(|error| unreadable(&pack.path, error))?;
        let read = runpack.traces(|record| {
            actual.0.push(record.tool_name);
            actual.1.push(record.verdict.as_str().to_owned());
        });
        read.map_err(|error| unreadable(&pack.path, error))?;
    } else {
        actual.0 = pack.intents.iter().map(|intent| intent.tool_name.clone()).collect();
        let verdict = |result: &ResultEntry| {
            let kept = result.result.as_ref().and_then(|payload| payload["verdict"].as_str());
            kept.unwrap_or(&result.status).to_owned()
        };
        actual.1 = pack.results.iter().map(verdict).collect();
    }
    let mut reasons = Vec::new();
    if tools.as_ref().is_some_and(|expected| *expected != actual.0) {
        reasons.push("tool_sequence_mismatch".to_owned());
    }
    if verdicts.as_ref().is_some_and(|expected| *expected != actual.1) {
        reasons.push("verdict_sequence_mismatch".to_owned());
    }
    let holds = reasons.is_empty();
    if !holds {
        graded.lines.push(format!("{}: {}", fixture.name, reasons.join(", ")));
    }
    graded.add(fixture, "trajectory", reasons, json!({"tools": actual.0.len(), "verdicts": actual.1.len()}));
    if let Some(grader) = graded.graders.last_mut().filter(|_| holds) {
        // The contract says so of this grader when it passes.
        grader.reason_codes.push("trajectory_match".to_owned());
        grader.status = Status::Pass;
    }
    Ok(())
}

fn unreadable(path: &Path, error: ReadError) -> CliError {
    CliError::input(format!("read runpack {}", path.display())).because(error)
}

/// The policy that is asked.
struct Asked<'a> {
    policy: &'a str,
    digest: String,
}

/// Judges every recorded decision again.
fn decisions(
    fixture: &Fixture,
    judge: &Judge,
    asked: &Asked<'_>,
    (session, runpack): (&Session, &mut Runpack),
    path: &Path,
    graded: &mut Graded,
) -> Result<(), CliError> {
    let (mut changes, mut lines, mut changed, mut open) = (Vec::new(), Vec::new(), 0_u64, 0_u64);
    let mut reasons = BTreeSet::new();
    let replayed = judge.replay(session, runpack, |recorded, judgement| {
        let Judgement::Changed { now, by } = judgement else {
            open += u64::from(matches!(judgement, Judgement::Open(_)));
            return;
        };
        changed += 1;
        let held = judge.held(recorded);
        reasons.insert(reason(held, now));
        if changes.len() < LISTED {
            let (class, operation) = (recorded.class().as_str(), recorded.operation.as_str());
            changes.push(json!({
                "intent_id": recorded.intent_id(),
                "endpoint_class": class,
                "operation": operation,
                "value": recorded.value,
                "expected": held,
                "actual": now,
                "rule": by,
                "was_rule": recorded.by,
                "count": recorded.count,
            }));
            if lines.len() < SHOWN {
                let value = one_line(&recorded.value);
                lines.push(format!("  {held} -> {now}  {class} {operation} {value}  rule={}", one_line(&by)));
            }
        }
    });
    replayed.map_err(|error| replay::unreplayable(path, error))?;
    let reasons: Vec<String> = reasons.into_iter().map(str::to_owned).collect();
    if changed > 0 {
        let total = usize::try_from(changed).unwrap_or(usize::MAX);
        graded.show(
            format!("{}: {changed} of {} decisions changed", fixture.name, session.len()),
            lines,
            total,
        );
    }
    if open > 0 {
        graded.warnings.push(format!(
            "fixture {}: {open} decisions depend on arguments that were not kept (`gait exec --capture raw`)",
            fixture.name
        ));
    }
    let details = json!({
        "policy": asked.policy,
        "policy_digest": asked.digest,
        "recorded_policy_digest": session.policy_digest.map(|digest| digest.to_string()),
        "decisions": session.len(),
        "changed": changed,
        "undetermined": open,
        "changes": changes,
    });
    graded.add(fixture, "decisions", reasons, details);
    Ok(())
}

/// The reason code of a changed decision; in the order of the alphabet the worst comes first.
fn reason(held: Verdict, now: Verdict) -> &'static str {
    match held {
        _ if now < held => "decision_loosened",
        Verdict::Allow => "decision_stopped",
        _ => "decision_tightened",
    }
}

impl Graded {
    /// Adds what a live run showed.
    pub(super) fn add_live(&mut self, fixture: &Fixture, reasons: Vec<String>, details: Value) {
        self.add(fixture, "live", reasons, details);
    }
}
