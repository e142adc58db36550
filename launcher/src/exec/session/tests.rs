//! The guard against a kernel that plays by a script, where no real kernel would do what is to be tested.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gait_agent::endpoint::Operation;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{Policy, Vars};
use gait_agent::runpack::{Env, Reason, SessionFiles, SessionRun, VerifyOptions, VerifyReport, seal, verify};
use gait_agent::sign::{Digest, canonical};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{Line, LineKind, RecorderOptions};
use tempfile::TempDir;

use super::*;
use crate::backend::fake::{Answer, Deed, Fake, Script, Step, Thing};
use crate::cli::{ErrorCode, session_error};

const POLICY: &str = "default_verdict: block\nrules:\n  - name: ours\n    effect: allow\n    match: \
                      {endpoint_classes: [fs.read, fs.write], paths: [\"/w/**\"]}\n";

fn read(path: &str) -> Deed {
    let thing = Thing::Path(path.as_bytes().to_vec());
    Deed { operation: Operation::Read, thing, image: b"/bin/x".to_vec(), argv: None }
}

fn held(path: &str) -> Step {
    Step::Held(vec![read(path)])
}

/// A script that does not look at answers.
fn steps(steps: Vec<Step>) -> Script {
    let mut steps = steps.into_iter();
    Box::new(move |_| steps.next())
}

fn key() -> SigningKey {
    SigningKey::from_seed([9; 32])
}

/// A session with a script, on a directory of its own.
struct World {
    root: TempDir,
}

impl World {
    fn new() -> Self {
        Self { root: TempDir::new().unwrap() }
    }

    fn run(&self, script: Script) -> Result<Outcome, SessionError> {
        let run = RunDirectory::create(self.root.path(), "run_t").unwrap();
        self.run_in(script, run)
    }

    fn run_in(&self, script: Script, run: RunDirectory) -> Result<Outcome, SessionError> {
        let facts = SessionFacts { identity: "uid:1".into(), workspace: "/w".into(), run_id: "run_t".into() };
        let policy = Policy::parse("policy.yaml", POLICY).unwrap();
        let policy = Arc::new(CompiledPolicy::compile(&policy, &facts, &Vars::default()).unwrap());
        let hidden = vec![b"/w/keys".to_vec()];
        let identity = Identity {
            facts,
            policy_digest: policy.policy().digest(),
            program: b"script".to_vec(),
            command_digest: Digest::sha256(b""),
            circumstances: gait_agent::trace::Circumstances::default(),
            options: RecorderOptions::default(),
        };
        let backend = Box::new(Fake::new(script, Arc::clone(&policy), hidden.clone(), false));
        run_plan(Plan { backend, policy, hidden, identity, allow_degraded: false, run })
    }
}

fn run_plan(plan: Plan) -> Result<Outcome, SessionError> {
    run(plan, || Ok(key()))
}

fn verified(runpack: &Path) -> VerifyReport {
    let options = VerifyOptions { key: Some(key().verify_key()), ..VerifyOptions::default() };
    verify(runpack, &options).unwrap()
}

fn entry(runpack: &Path, name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(File::open(runpack).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn lines(runpack: &Path) -> Vec<Line> {
    let journal = entry(runpack, "journal.jsonl");
    journal.split(|&b| b == b'\n').filter(|it| !it.is_empty()).map(|it| Line::parse(it).unwrap()).collect()
}

#[test]
fn held_and_decided_actions_are_one_story() {
    let world = World::new();
    let outcome = world
        .run(steps(vec![
            held("/w/a"),
            held("/etc/b"),
            Step::Decided { deed: read("/w/a"), like: read("/w/x") },
            Step::Decided { deed: read("/etc/b"), like: read("/etc/y") },
            Step::NeverHappened(read("/w/c")),
            Step::Exits(3),
        ]))
        .unwrap();
    assert_eq!((outcome.ending, outcome.blocked), (Ending::Exited(3), 2));
    let report = verified(&outcome.runpack);
    assert!(report.ok(), "{:?}", report.findings);
    let exec = report.exec.unwrap();
    // The kernel's decision and the gate's are the same decision: one record, told twice.
    assert_eq!((exec.traces, exec.totals.sum()), (3, 5));
    assert_eq!(exec.backend.as_deref(), Some("fake"));
}

#[test]
fn what_is_hidden_is_hidden_from_a_kernel_that_decides_too() {
    let world = World::new();
    let decided = Step::Decided { deed: read("/w/keys/k"), like: read("/w/x") };
    let error = world.run(steps(vec![decided, Step::Exits(0)])).unwrap_err();
    assert!(matches!(error, SessionError::Disagreement { .. }), "{error}");
}

#[test]
fn a_kernel_that_allows_what_the_policy_blocks_ends_the_session() {
    for (deed, like, kernel, gate) in
        [("/etc/shadow", "/w/x", "allow", "block"), ("/w/a", "/etc/x", "block", "allow")]
    {
        let world = World::new();
        let error = world
            .run(steps(vec![
                held("/w/before"),
                Step::Decided { deed: read(deed), like: read(like) },
                held("/w/after"),
                Step::Exits(0),
            ]))
            .unwrap_err();
        let SessionError::Disagreement { runpack, what } = &error else { panic!("{error}") };
        assert!(
            what.starts_with(&format!("fs.read {deed}: the kernel says {kernel}, the policy {gate}")),
            "{what}"
        );
        let report = verified(runpack);
        assert!(report.ok(), "{:?}", report.findings);
        let exec = report.exec.unwrap();
        assert_eq!(exec.ending.as_deref(), Some("aborted"));
        let told = lines(runpack).into_iter().any(|line| line.text.is_some_and(|text| text.contains(what)));
        assert!(told, "the journal does not tell");
        let traces = String::from_utf8(entry(runpack, "traces.jsonl")).unwrap();
        let record = traces.lines().find(|line| line.contains(deed)).unwrap();
        assert!(record.contains("backend_disagreement"), "{record}");
        assert!(
            record.contains(&format!("\"verdict\":\"{kernel}\"")),
            "the record is what happened: {record}"
        );
        let error = session_error(error);
        assert_eq!((error.code, error.code.exit()), (ErrorCode::InternalFailure, 1));
    }
}

#[test]
fn losses_are_counted_and_sealed() {
    let world = World::new();
    let script = vec![held("/w/a"), Step::Lost(41), Step::Garbled, held("/w/b"), Step::Exits(0)];
    let outcome = world.run(steps(script)).unwrap();
    assert_eq!(outcome.summary.losses, 42);
    let report = verified(&outcome.runpack);
    assert!(report.ok(), "a counted loss is accounted for: {:?}", report.findings);
    assert_eq!(report.exec.unwrap().losses, 42);
}

/// Seals the files of a runpack again, after one change, with the right key: as a producer that lies would.
fn resealed(world: &World, runpack: &Path, change: impl Fn(&mut Vec<serde_json::Value>)) -> VerifyReport {
    let dir = world.root.path().join("again");
    std::fs::create_dir(&dir).unwrap();
    let mut journal: Vec<serde_json::Value> = entry(runpack, "journal.jsonl")
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    change(&mut journal);
    let (mut bytes, mut prev) = (Vec::new(), Digest::ZERO);
    for (seq, line) in journal.iter_mut().enumerate() {
        line["seq"] = seq.to_string().into();
        line["prev"] = prev.to_string().into();
        let text = canonical(line).unwrap();
        prev = Digest::sha256(&text);
        bytes.extend_from_slice(&text);
        bytes.push(b'\n');
    }
    let [coverage, journal, traces] =
        ["coverage.json", "journal.jsonl", "traces.jsonl"].map(|name| dir.join(name));
    std::fs::write(&coverage, entry(runpack, "coverage.json")).unwrap();
    std::fs::write(&traces, entry(runpack, "traces.jsonl")).unwrap();
    std::fs::write(&journal, bytes).unwrap();
    let run = SessionRun {
        run_id: "run_t".into(),
        started_at: Timestamp::from_unix_nanos(1),
        ended_at: Timestamp::from_unix_nanos(2),
        ending: Some(Ending::Exited(0)),
        env: Env::default(),
        capture: gait_agent::intent::Capture::Reference,
    };
    let again = world.root.path().join("again.zip");
    let files = SessionFiles { coverage: &coverage, journal: &journal, traces: &traces };
    seal(&files, &run, &key(), File::create(&again).unwrap()).unwrap();
    verified(&again)
}

#[test]
fn a_gap_that_nobody_accounts_for_fails_verification() {
    let script = || steps(vec![held("/w/a"), Step::Lost(41), held("/w/b"), held("/w/b"), Step::Exits(0)]);
    let world = World::new();
    let outcome = world.run(script()).unwrap();
    let same = resealed(&world, &outcome.runpack, |_| {});
    assert!(same.ok(), "the change below is what fails: {:?}", same.findings);

    let world = World::new();
    let outcome = world.run(script()).unwrap();
    let silent = resealed(&world, &outcome.runpack, |journal| journal.retain(|line| line["kind"] != "loss"));
    assert!(silent.has(Reason::UnaccountedLoss), "{:?}", silent.findings);

    let world = World::new();
    let outcome = world.run(script()).unwrap();
    let fewer = resealed(&world, &outcome.runpack, |journal| journal.retain(|line| line["kind"] != "repeat"));
    assert!(fewer.has(Reason::TotalsMismatch), "{:?}", fewer.findings);
}

#[test]
fn a_backend_that_dies_leaves_what_it_had_told() {
    let world = World::new();
    let error = world.run(steps(vec![held("/w/a"), Step::Garbled, Step::Dies])).unwrap_err();
    let SessionError::SupervisorDied(Some(runpack)) = error else { panic!("{error}") };
    let report = verified(&runpack);
    assert!(report.ok(), "{:?}", report.findings);
    let exec = report.exec.unwrap();
    assert_eq!((exec.ending.as_deref(), exec.totals.sum(), exec.losses), (Some("aborted"), 1, 1));
    assert!(lines(&runpack).iter().any(|line| line.kind == LineKind::Note));
}

#[test]
fn a_backend_that_ends_before_the_tree_has_died() {
    let world = World::new();
    let error = world.run(steps(vec![held("/w/a")])).unwrap_err();
    assert!(matches!(error, SessionError::SupervisorDied(Some(_))), "{error}");
}

#[test]
fn actions_between_the_first_process_and_the_end_of_the_tree_are_recorded() {
    let world = World::new();
    let outcome = world.run(steps(vec![held("/w/a"), Step::Exits(0), held("/w/daemon")])).unwrap();
    let report = verified(&outcome.runpack);
    assert!(report.ok(), "{:?}", report.findings);
    assert_eq!((outcome.ending, report.exec.unwrap().totals.sum()), (Ending::Exited(0), 2));
}

#[test]
fn an_event_after_the_end_is_a_loss_and_no_clean_end() {
    let world = World::new();
    let script = vec![held("/w/a"), Step::Exits(0), Step::Afterwards(read("/w/late"))];
    let error = world.run(steps(script)).unwrap_err();
    let SessionError::SupervisorDied(Some(runpack)) = error else { panic!("{error}") };
    let report = verified(&runpack);
    assert!(report.ok(), "nothing stands behind the end: {:?}", report.findings);
    let exec = report.exec.unwrap();
    assert_eq!((exec.ending.as_deref(), exec.losses), (Some("aborted"), 1));
}

/// Makes a run directory whose journal is a pipe; the other end decides whether it takes anything.
fn piped(world: &World) -> (RunDirectory, File) {
    let (reader, writer) = process::pipe().unwrap();
    let run = RunDirectory::create(world.root.path(), "run_t").unwrap();
    (run.with_journal(File::from(writer)), File::from(reader))
}

/// Plays held calls of ever new files until `enough` says so; counts how many were allowed.
fn calls(
    allowed: Arc<AtomicUsize>,
    mut enough: impl FnMut(usize, Option<Answer>) -> bool + Send + 'static,
) -> Script {
    let mut number = 0;
    Box::new(move |answer| {
        if answer == Some(Ok(())) {
            allowed.fetch_add(1, Ordering::Relaxed);
        }
        number += 1;
        (!enough(number, answer)).then(|| held(&format!("/w/{number:0>200}")))
    })
}

#[test]
fn a_journal_that_died_lets_nothing_through() {
    let world = World::new();
    let (run, mut reader) = piped(&world);
    let mut first = [0];
    let late = Instant::now() + Duration::from_secs(60);
    let mut refused = 0;
    let mut reader_gone = false;
    let script = calls(Arc::default(), move |_, answer| {
        if !reader_gone {
            reader.read_exact(&mut first).unwrap();
            reader = File::open("/dev/null").unwrap();
            reader_gone = true;
        }
        match answer {
            Some(Ok(())) => assert_eq!(refused, 0, "a call was allowed after the journal was found dead"),
            Some(Err(errno)) => {
                assert_eq!(errno, libc::EPERM);
                refused += 1;
            }
            None => {}
        }
        refused > 20 || Instant::now() > late
    });
    let error = world.run_in(script, run).unwrap_err();
    assert!(matches!(error, SessionError::Evidence(_)), "{error}");
    let told = session_error(error).text();
    assert!(told.contains("fail_closed_journal_unavailable"), "{told}");
    assert!(!world.root.path().join("runpack_run_t.zip").exists());
}

#[test]
fn a_journal_that_is_full_makes_calls_wait() {
    const CALLS: usize = 30_000;
    let world = World::new();
    let (run, mut reader) = piped(&world);
    let allowed = Arc::new(AtomicUsize::new(0));
    let script = calls(Arc::clone(&allowed), |number, _| number > CALLS);
    let seen = Arc::clone(&allowed);
    let reading = std::thread::spawn(move || {
        // Nobody reads: pipe, buffers and ring fill up, and then the calls stand still.
        let (mut last, mut since) = (usize::MAX, Instant::now());
        while since.elapsed() < Duration::from_millis(400) {
            let now = seen.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        last
    });
    // The pipe is no file that could be sealed.
    let error = world.run_in(script, run).unwrap_err();
    let stood = reading.join().unwrap();
    assert!(stood < CALLS, "nothing made the calls wait");
    assert!(stood > 1000);
    assert_eq!(allowed.load(Ordering::Relaxed), CALLS, "every call went on once there was room");
    assert!(matches!(error, SessionError::Evidence(_)), "{error}");
}
