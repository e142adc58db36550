//! Recorded intents before a policy again: what `gait regress run` does with the runpack of a session, without the
//! verification before it.
//!
//! The session is made here: as many different reads, writes, programs and peers as there are to be intents, recorded
//! and sealed as `gait exec` does, under the default policy.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, DEFAULT, Policy, Vars};
use gait_agent::regress::{Judge, Judgement, Session};
use gait_agent::runpack::{Env, Runpack, SessionFiles, SessionRun, seal};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{
    Circumstances, Ending, Observation, Reasons, Recorder, RecorderOptions, SessionStart,
};

use crate::args::RegressArgs;
use crate::budget;
use crate::error::BenchError;
use crate::report::{Host as Machine, Report, Table};
use crate::stats::Spread;

const REPLAY: &str = "regress.replay_ms";

/// The names of the numbers reported here.
#[cfg(test)]
pub(crate) const NUMBERS: [&str; 1] = [REPLAY];

const WORKSPACE: &str = "/home/dev/project";

pub(crate) fn measure(args: &RegressArgs) -> Result<Report, BenchError> {
    let quick = args.report.quick;
    let (intents, rounds) = if quick { (args.intents / 20, 1) } else { (args.intents, args.rounds.max(1)) };
    let policy = Policy::load(DEFAULT).map_err(|e| BenchError::Missing(e.to_string()))?;
    let directory = tempfile::tempdir().map_err(|e| BenchError::io("a temporary directory", e))?;
    record(&policy, intents.max(1), directory.path())?;
    let pack = directory.path().join("runpack.zip");
    let mut times = Vec::with_capacity(rounds);
    let mut judged = (0, 0);
    for _ in 0..rounds {
        let start = Instant::now();
        judged = replay(&policy, &pack)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let (seen, changed) = judged;
    let mut report = Report::new("regress", Machine::here(), quick);
    if changed > 0 {
        report.failures.push(format!("{changed} of {seen} decisions changed under their own policy"));
    }
    let median = Spread::of(&times).map_or(0.0, |spread| spread.median);
    report.numbers.insert(REPLAY.to_owned(), median);
    let head = ["intents", "replay ms"].map(str::to_owned).to_vec();
    report.tables.push(Table {
        title: format!("recorded intents before {DEFAULT}, from the runpack"),
        rows: vec![head, vec![seen.to_string(), format!("{median:.1}")]],
    });
    report.judge(&budget::load()?);
    Ok(report)
}

/// Returns how many decisions were judged, and how many are others now.
fn replay(policy: &Policy, pack: &Path) -> Result<(u64, u64), BenchError> {
    let failed = |what: &dyn std::fmt::Display| BenchError::Missing(what.to_string());
    let mut runpack = Runpack::open(pack).map_err(|e| failed(&e))?;
    let session = Session::read(&mut runpack).map_err(|e| failed(&e))?;
    let judge = Judge::new(policy, Some(policy), &session, session.policy_digest, BTreeMap::new())
        .map_err(|e| failed(&e))?;
    let (mut seen, mut changed) = (0, 0);
    judge
        .replay(&session, &mut runpack, |_, judgement| {
            seen += 1;
            changed += u64::from(black_box(judgement) != Judgement::Same);
        })
        .map_err(|e| failed(&e))?;
    Ok((seen, changed))
}

fn record(policy: &Policy, intents: usize, directory: &Path) -> Result<(), BenchError> {
    let failed = |what: &dyn std::fmt::Display| BenchError::Missing(what.to_string());
    let facts =
        SessionFacts { identity: "uid:1000".into(), workspace: WORKSPACE.into(), run_id: "run_bench".into() };
    let vars = Vars { home: "/home/dev".into(), ..Vars::default() };
    let compiled = CompiledPolicy::compile(policy, &facts, &vars).map_err(|e| failed(&e))?;
    let path = |name: &str| directory.join(name);
    let create = |name: &str| File::create(path(name)).map_err(|e| BenchError::io(name, e));
    std::fs::write(path("coverage.json"), "{}").map_err(|e| BenchError::io("coverage.json", e))?;
    let start = SessionStart {
        at_ns: 1,
        backend: "none".into(),
        coverage_digest: Digest::sha256(b"{}"),
        program: b"/usr/bin/python3".to_vec(),
        command_digest: Digest::sha256(b"python3\0"),
        circumstances: Some(circumstances(&facts, &vars)),
    };
    let key = SigningKey::from_seed([1; 32]);
    let (journal, traces) =
        (BufWriter::new(create("journal.jsonl")?), BufWriter::new(create("traces.jsonl")?));
    let options = RecorderOptions::default();
    let mut recorder = Recorder::new(facts, policy.digest(), key.clone(), journal, traces, &start, options)
        .map_err(|e| failed(&e))?;
    for at in 0..intents {
        let text = text(at);
        let argv = argv(at);
        let action = action(at, &text, &argv);
        let decision = compiled.decide(&action);
        let seen = Observation {
            at_ns: 1 + at as u64,
            pid: 1,
            tid: 1,
            action,
            verdict: decision.verdict(),
            enforced: true,
            simulated_verdict: None,
            approval: None,
            decision_key: decision.to_u64(),
        };
        let why = compiled.explain(decision);
        let reasons = || Reasons {
            codes: why.reason_codes,
            violations: why.violations,
            matched_rule: why.matched_rule,
        };
        recorder.observe(&seen, reasons).map_err(|e| failed(&e))?;
    }
    recorder.finish(1, Ending::Exited(0)).map_err(|e| failed(&e))?;
    let run = SessionRun {
        run_id: "run_bench".into(),
        started_at: Timestamp::from_unix_nanos(1),
        ended_at: Timestamp::from_unix_nanos(1),
        ending: Some(Ending::Exited(0)),
        env: Env::default(),
        capture: options.capture,
    };
    let files = SessionFiles {
        coverage: &path("coverage.json"),
        journal: &path("journal.jsonl"),
        traces: &path("traces.jsonl"),
    };
    seal(&files, &run, &key, create("runpack.zip")?).map(drop).map_err(|e| failed(&e))
}

fn circumstances(facts: &SessionFacts, vars: &Vars) -> Circumstances {
    Circumstances {
        command: None,
        directory: facts.workspace.clone(),
        home: vars.home.clone(),
        identity: facts.identity.clone(),
        policy: DEFAULT.to_owned(),
        protect: Vec::new(),
        run_dir: vars.run_dir.clone(),
        tmp: vars.tmp.clone(),
        uid: vars.uid.to_string(),
        workspace: facts.workspace.clone(),
    }
}

fn text(at: usize) -> String {
    match at % 8 {
        0 => format!("/usr/lib/python3/dist-packages/package_{at}/module.py"),
        1 => format!("host-{at}.example.org"),
        2 => format!("/usr/bin/tool-{at}"),
        _ => format!("{WORKSPACE}/src/part_{}/file_{at}.rs", at % 97),
    }
}

fn argv(at: usize) -> Vec<u8> {
    format!("tool\0--number\0{at}\0").into_bytes()
}

fn action<'a>(at: usize, text: &'a str, argv: &'a [u8]) -> Action<'a> {
    let path = Object::Path(text.as_bytes());
    let address = IpAddr::from([203, 0, 113, 7]);
    let (operation, object, argv) = match at % 8 {
        0 | 3 | 4 => (Operation::Read, path, None),
        1 => (
            Operation::Connect,
            Object::Host(Host { name: Some(text), address: Some(address), port: 443 }),
            None,
        ),
        2 => (Operation::Exec, path, Some(argv)),
        5 => (Operation::Unlink, path, None),
        _ => (Operation::Write, path, None),
    };
    Action { operation, object, image: b"/usr/bin/python3", argv }
}
