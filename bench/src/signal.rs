//! The signal report over many sessions: reading, checking and fingerprinting them, and ranking the families.
//!
//! A few sessions are recorded and sealed, each of about as many distinct decisions as the demo agent's, and copied:
//! reading a copy costs what reading an original does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, SessionFacts};
use gait_agent::runpack::{Env, SessionFiles, SessionRun, seal};
use gait_agent::scout::{SideEvidence, SignalReport, observe_all};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{Ending, Observation, Reasons, Recorder, RecorderOptions, SessionStart};

use crate::args::SignalArgs;
use crate::budget;
use crate::error::BenchError;
use crate::report::{Host as Machine, Report, Table, number};
use crate::stats::Spread;

/// The name of the number reported here.
pub(crate) const RUNS_1000_MS: &str = "signal.runs_1000_ms";

const RUNS: usize = 1000;
/// Sessions that are recorded; the rest are copies.
const ORIGINALS: usize = 8;
/// Distinct decisions per session.
const DECISIONS: u64 = 400;
const START_NS: u64 = 1_767_323_045_000_000_000;

pub(crate) fn measure(args: &SignalArgs) -> Result<Report, BenchError> {
    let dir = tempfile::tempdir().map_err(|e| BenchError::io("a temporary directory", e))?;
    let runs = if args.report.quick { RUNS / 20 } else { RUNS };
    let paths = runpacks(dir.path(), runs)?;
    let rounds = if args.report.quick { 1 } else { args.rounds.max(1) };
    let mut times = Vec::with_capacity(rounds);
    let mut families = 0;
    for _ in 0..rounds {
        let start = Instant::now();
        let observed: Result<Vec<_>, _> = observe_all(&paths, &SideEvidence::default()).into_iter().collect();
        let report = SignalReport::build(observed.map_err(|e| BenchError::Missing(e.to_string()))?);
        let text = report.to_file_text().map_err(|e| BenchError::json("signal report", e))?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        families = if text.is_empty() { 0 } else { report.family_count };
    }
    let mut report = Report::new("signal", Machine::here(), args.report.quick);
    let ms = Spread::of(&times).map_or(f64::NAN, |spread| spread.median);
    report.numbers.insert(RUNS_1000_MS.to_owned(), ms * RUNS as f64 / runs as f64);
    let rows = vec![
        ["runs", "families", "ms", "µs per run"].map(str::to_owned).to_vec(),
        vec![runs.to_string(), families.to_string(), number(ms), number(ms * 1000.0 / runs as f64)],
    ];
    report
        .tables
        .push(Table { title: format!("sessions of {DECISIONS} decisions, median of {rounds}"), rows });
    report.judge(&budget::load()?);
    Ok(report)
}

fn runpacks(dir: &Path, runs: usize) -> Result<Vec<PathBuf>, BenchError> {
    let originals: Vec<PathBuf> =
        (0..ORIGINALS).map(|at| session(dir, at).map_err(BenchError::Missing)).collect::<Result<_, _>>()?;
    let copy = |at: usize| {
        let path = dir.join(format!("copy_{at}.zip"));
        let original = originals.get(at % ORIGINALS).cloned().unwrap_or_default();
        fs::copy(original, &path).map_err(|e| BenchError::io("a copy of a runpack", e))?;
        Ok(path)
    };
    (0..runs).map(copy).collect()
}

/// Records and seals a session: mostly files, some programs and peers, and three actions that are stopped.
fn session(dir: &Path, number: usize) -> Result<PathBuf, String> {
    let place = |name: &str| dir.join(format!("{number}_{name}"));
    let create = |path: &Path| File::create(path).map_err(|e| e.to_string());
    let run_id = format!("run_bench_{number}");
    let coverage = br#"{"backend":"bench"}"#;
    fs::write(place("coverage"), coverage).map_err(|e| e.to_string())?;
    let start = SessionStart {
        at_ns: START_NS,
        backend: "bench".into(),
        coverage_digest: Digest::sha256(coverage),
        program: b"/usr/bin/python3".to_vec(),
        command_digest: Digest::sha256(b"python3\0"),
        circumstances: None,
    };
    let facts =
        SessionFacts { identity: "uid:1000".into(), workspace: "/work".into(), run_id: run_id.clone() };
    let (journal, traces) = (place("journal"), place("traces"));
    let key = SigningKey::from_seed([7; 32]);
    let mut recorder = Recorder::new(
        facts,
        Digest::sha256(b"policy"),
        key.clone(),
        create(&journal)?,
        create(&traces)?,
        &start,
        RecorderOptions::default(),
    )
    .map_err(|e| e.to_string())?;
    for at in 0..DECISIONS {
        let path = format!("/work/src/module_{}/file_{at}.py", at % 23);
        let secret = format!("/home/dev/.ssh/id_{}", number % 3);
        let host = Host { name: Some("files.example.org"), address: None, port: 443 };
        let (operation, object, verdict) = match at % 50 {
            0 => (Operation::Exec, Object::Path(path.as_bytes()), Verdict::Allow),
            1 => (Operation::Connect, Object::Host(host), Verdict::Allow),
            2 => (Operation::Read, Object::Path(secret.as_bytes()), Verdict::Block),
            3..10 => (Operation::Create, Object::Path(path.as_bytes()), Verdict::Allow),
            _ => (Operation::Read, Object::Path(path.as_bytes()), Verdict::Allow),
        };
        let event = Observation {
            at_ns: START_NS + at,
            pid: 10,
            tid: 10,
            action: Action { operation, object, image: b"/usr/bin/python3", argv: None },
            verdict,
            enforced: true,
            simulated_verdict: None,
            approval: None,
            decision_key: 0,
        };
        let reasons = || Reasons {
            codes: vec!["matched_rule_bench".to_owned()],
            violations: Vec::new(),
            matched_rule: Some("bench".to_owned()),
        };
        recorder.observe(&event, reasons).map_err(|e| e.to_string())?;
    }
    recorder.finish(START_NS + DECISIONS, Ending::Exited(0)).map_err(|e| e.to_string())?;
    let run = SessionRun {
        run_id,
        started_at: Timestamp::from_unix_nanos(START_NS),
        ended_at: Timestamp::from_unix_nanos(START_NS + DECISIONS),
        ending: Some(Ending::Exited(0)),
        env: Env::default(),
        capture: Capture::Reference,
    };
    let path = place("runpack.zip");
    let files = SessionFiles { coverage: &place("coverage"), journal: &journal, traces: &traces };
    seal(&files, &run, &key, create(&path)?).map_err(|e| e.to_string())?;
    Ok(path)
}
