//! What it costs to look at evidence afterwards: `gait verify` and `gait run diff` on runpacks of 100,000 actions, and
//! `gait gate eval`, each as a whole process.
//!
//! The runpacks are recorded and sealed by the code that sessions use, without a session. Two kinds: one where a tenth of
//! the actions are new decisions and the rest repeats (builds and test suites are about so), and one where every single
//! action is a decision of its own, which is the worst that a verifier can meet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, SessionFacts};
use gait_agent::runpack::{Env, SessionFiles, SessionRun, seal};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{Ending, Observation, Reasons, Recorder, RecorderOptions, SessionStart};

use crate::args::EvidenceArgs;
use crate::budget;
use crate::error::BenchError;
use crate::report::{Host, Report, Table, number};
use crate::stats::Spread;

/// The names of the numbers that have budgets.
#[cfg(test)]
pub(crate) const NUMBERS: [&str; 5] =
    ["verify.typical_ms", "verify.distinct_ms", "diff.typical_ms", "diff.distinct_ms", "gate_eval.p50_ms"];

const START_NS: u64 = 1_767_323_045_000_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// How many actions share one decision.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    repeats: usize,
}

const KINDS: [Kind; 2] = [Kind { name: "typical", repeats: 10 }, Kind { name: "distinct", repeats: 1 }];

/// The intent that `gait gate eval` judges.
const INTENT: &str = r#"{"schema_id": "gait.gate.intent_request", "schema_version": "1.0.0",
 "created_at": "2026-01-02T03:04:05Z", "tool_name": "tool.write",
 "args": {"path": "/w/notes.txt"}, "targets": [{"kind": "path", "value": "/w/notes.txt", "operation": "write"}],
 "context": {"identity": "bench", "workspace": "/w", "risk_class": "low"}}"#;

pub(crate) fn measure(args: &EvidenceArgs) -> Result<Report, BenchError> {
    let gait = gait(args)?;
    let dir = tempfile::TempDir::new().map_err(|e| BenchError::io("temporary directory", e))?;
    let mut report = Report::new("evidence", Host::here(), args.report.quick);
    let actions = if args.report.quick { args.actions / 20 } else { args.actions }.max(1);
    let bench = Bench {
        gait,
        dir: dir.path().to_owned(),
        rounds: if args.report.quick { 1 } else { args.rounds.max(1) },
    };
    let head = ["runpack", "decisions", "record ms", "seal ms", "MiB", "verify ms", "diff ms"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for kind in KINDS {
        match bench.runpacks(kind, actions, &mut report) {
            Ok(row) => rows.push(row),
            Err(error) => report.failures.push(format!("{}: {error}", kind.name)),
        }
    }
    report.tables.push(Table { title: format!("runpacks of {actions} actions, medians"), rows });
    match bench.gate_eval(args.evaluations) {
        Ok(spread) => {
            report.numbers.insert("gate_eval.p50_ms".to_owned(), spread.median);
            let cells =
                [number(spread.p25), number(spread.median), number(spread.p75), spread.samples.to_string()];
            let head = ["p25 ms", "p50 ms", "p75 ms", "runs"].map(str::to_owned).to_vec();
            report.tables.push(Table {
                title: "gait gate eval as a process".to_owned(),
                rows: vec![head, cells.to_vec()],
            });
        }
        Err(error) => report.failures.push(format!("gate eval: {error}")),
    }
    report.judge(&budget::load()?);
    Ok(report)
}

/// Finds gait: the one given, or the one beside this program.
fn gait(args: &EvidenceArgs) -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(|e| BenchError::io("own path", e))?;
    let gait = args.gait.clone().unwrap_or_else(|| own.with_file_name("gait"));
    fs::canonicalize(&gait).map_err(|_missing| {
        BenchError::Missing(format!("{} is not there: build it, or name it with --gait", gait.display()))
    })
}

struct Bench {
    gait: PathBuf,
    dir: PathBuf,
    rounds: usize,
}

impl Bench {
    /// Makes two runpacks of a kind, which differ in nothing that counts, and measures them.
    fn runpacks(&self, kind: Kind, actions: usize, report: &mut Report) -> Result<Vec<String>, BenchError> {
        let made = [self.make(kind, actions, "a")?, self.make(kind, actions, "b")?];
        let [left, right] = [&made[0].path, &made[1].path].map(|path| path.display().to_string());
        let verify = self.timed(&["verify", &left], self.rounds)?;
        let diff = self.timed(&["run", "diff", &left, &right], self.rounds)?;
        report.numbers.insert(format!("verify.{}_ms", kind.name), verify.median);
        report.numbers.insert(format!("diff.{}_ms", kind.name), diff.median);
        let size = fs::metadata(&made[0].path).map_err(|e| BenchError::io(&left, e))?.len();
        Ok(vec![
            kind.name.to_owned(),
            (actions / kind.repeats).to_string(),
            number(made[0].record_ms),
            number(made[0].seal_ms),
            number(size as f64 / MIB),
            number(verify.median),
            number(diff.median),
        ])
    }

    /// Records and seals one session.
    fn make(&self, kind: Kind, actions: usize, name: &str) -> Result<Made, BenchError> {
        let dir = self.dir.join(format!("{}_{name}", kind.name));
        fs::create_dir(&dir).map_err(|e| BenchError::io(dir.display().to_string(), e))?;
        let create = |name: &str| {
            let path = dir.join(name);
            File::create(&path)
                .map(std::io::BufWriter::new)
                .map_err(|e| BenchError::io(path.display().to_string(), e))
        };
        let coverage = br#"{"backend":"bench"}"#;
        fs::write(dir.join("coverage.json"), coverage).map_err(|e| BenchError::io("coverage.json", e))?;
        let key = SigningKey::from_seed([1; 32]);
        let run_id = format!("run_{}_{name}", kind.name);
        let failed = |detail: String| BenchError::Program { command: "record a session".to_owned(), detail };
        let start = Instant::now();
        record(kind, &run_id, actions, &key, (create("journal.jsonl")?, create("traces.jsonl")?), coverage)
            .map_err(|error| failed(error.to_string()))?;
        let record_ms = start.elapsed().as_secs_f64() * 1e3;
        let run = SessionRun {
            run_id,
            started_at: Timestamp::from_unix_nanos(START_NS),
            ended_at: Timestamp::from_unix_nanos(START_NS + 60_000_000_000),
            ending: Some(Ending::Exited(0)),
            env: Env::default(),
            capture: Capture::Reference,
        };
        let files = SessionFiles {
            coverage: &dir.join("coverage.json"),
            journal: &dir.join("journal.jsonl"),
            traces: &dir.join("traces.jsonl"),
        };
        let path = dir.join("runpack.zip");
        let out = File::create(&path).map_err(|e| BenchError::io(path.display().to_string(), e))?;
        let start = Instant::now();
        seal(&files, &run, &key, out).map_err(|error| failed(error.to_string()))?;
        Ok(Made { path, record_ms, seal_ms: start.elapsed().as_secs_f64() * 1e3 })
    }

    /// Times whole processes.
    fn timed(&self, arguments: &[&str], rounds: usize) -> Result<Spread, BenchError> {
        let mut samples = Vec::new();
        // The first run reads the program and the file into memory.
        for round in 0..=rounds {
            let start = Instant::now();
            let output = Command::new(&self.gait)
                .args(arguments)
                .env_clear()
                .env("HOME", &self.dir)
                .current_dir(&self.dir)
                .stdin(Stdio::null())
                .output()
                .map_err(|e| BenchError::io("gait", e))?;
            let elapsed = start.elapsed().as_secs_f64() * 1e3;
            if !output.status.success() {
                let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(BenchError::Program { command: format!("gait {}", arguments.join(" ")), detail });
            }
            if round > 0 {
                samples.push(elapsed);
            }
        }
        Spread::of(&samples).ok_or_else(|| BenchError::Missing("no samples".to_owned()))
    }

    fn gate_eval(&self, evaluations: usize) -> Result<Spread, BenchError> {
        let write = |name: &str, text: &str| {
            let path: &Path = &self.dir.join(name);
            fs::write(path, text).map_err(|e| BenchError::io(path.display().to_string(), e))
        };
        write("intent.json", INTENT)?;
        write(
            "policy.yaml",
            "default_verdict: allow\nrules:\n  - name: low\n    priority: 1\n    effect: allow\n    match: {risk_classes: [low]}\n",
        )?;
        let rounds = if self.rounds == 1 { 10 } else { evaluations.max(1) };
        let arguments = [
            "gate",
            "eval",
            "--policy",
            "policy.yaml",
            "--intent",
            "intent.json",
            "--trace-out",
            "trace.json",
            "--json",
        ];
        self.timed(&arguments, rounds)
    }
}

struct Made {
    path: PathBuf,
    record_ms: f64,
    seal_ms: f64,
}

type Out = std::io::BufWriter<File>;

fn record(
    kind: Kind,
    run_id: &str,
    actions: usize,
    key: &SigningKey,
    (journal, traces): (Out, Out),
    coverage: &[u8],
) -> Result<(), gait_agent::trace::RecordError> {
    let facts = SessionFacts {
        identity: "uid:1000".into(),
        workspace: "/home/dev/project".into(),
        run_id: run_id.to_owned(),
    };
    let start = SessionStart {
        at_ns: START_NS,
        backend: "bench".into(),
        coverage_digest: Digest::sha256(coverage),
        program: b"/usr/bin/make".to_vec(),
        command_digest: Digest::sha256(b"make\0"),
        circumstances: None,
    };
    let policy = Digest::sha256(b"policy");
    let mut recorder =
        Recorder::new(facts, policy, key.clone(), journal, traces, &start, RecorderOptions::default())?;
    let distinct = (actions / kind.repeats).max(1);
    let operations = [Operation::Read, Operation::Write, Operation::Unlink, Operation::Create];
    for at in 0..actions {
        let number = at % distinct;
        let path = format!("/home/dev/project/target/debug/deps/module_{:05}/object_{number}.o", number / 64);
        let verdict = if number.is_multiple_of(97) { Verdict::Block } else { Verdict::Allow };
        let seen = Observation {
            at_ns: START_NS + at as u64 * 100_003,
            pid: 4000 + (at % 300) as u32,
            tid: 4000 + (at % 300) as u32,
            action: Action {
                operation: operations[number % operations.len()],
                object: Object::Path(path.as_bytes()),
                image: b"/usr/bin/cc",
                argv: None,
            },
            verdict,
            enforced: true,
            simulated_verdict: None,
            approval: None,
            decision_key: number as u64 % 97,
        };
        recorder.observe(&seen, || Reasons {
            codes: vec!["matched_rule_workspace".into()],
            violations: Vec::new(),
            matched_rule: Some("workspace".into()),
        })?;
    }
    recorder.finish(START_NS + 60_000_000_000, Ending::Exited(0))?;
    Ok(())
}
