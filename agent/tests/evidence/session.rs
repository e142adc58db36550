//! What an untouched session proves.

use std::io::{self, Write};

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::{EndpointClass, Operation};
use gait_agent::gate::Verdict;
use gait_agent::intent::Capture;
use gait_agent::runpack::{Reason, Runpack, SignatureStatus, VerifyOptions, verify};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::trace::{
    Answer, Approval, Ending, LineKind, Observation, Reasons, RecordError, Recorder, RecorderOptions,
    Repeats, Scope, SessionStart, cut_torn_line,
};

use crate::session_kit::{
    START_NS, TestRecorder, facts, key, path_action, plain_session, reasons, reseal_directory, seen, session,
    unpack, work,
};

#[test]
fn an_untouched_session_holds_and_tells_what_happened() {
    let session = plain_session();
    let report = session.verify();
    assert_eq!(report.findings, []);
    assert_eq!(report.signature_status, SignatureStatus::SelfSigned);
    assert_eq!(report.files_checked, 8);
    assert_eq!(report.manifest_digest, Some(session.sealed.manifest_digest));
    let exec = report.exec.unwrap();
    assert_eq!((exec.traces, exec.losses, exec.approvals), (4, 2, 1));
    assert_eq!(exec.totals, session.summary.totals);
    assert_eq!(exec.totals.get(EndpointClass::FsRead, Verdict::Allow), 4);
    assert_eq!(exec.totals.get(EndpointClass::NetHttp, Verdict::Allow), 2);
    assert_eq!(exec.totals.get(EndpointClass::FsDelete, Verdict::Block), 1);
    assert_eq!(exec.totals.sum(), 8);
    assert_eq!(exec.ending.as_deref(), Some("exited:3"));
    assert_eq!(exec.policy_digest, Some(Digest::sha256(b"policy")));

    let trusted =
        VerifyOptions { key: Some(key().verify_key()), require_signature: true, ..Default::default() };
    let report = verify(&session.runpack(), &trusted).unwrap();
    assert_eq!((report.ok(), report.signature_status), (true, SignatureStatus::Verified));
}

#[test]
fn the_entries_are_those_of_the_contract_and_four_more() {
    let names: Vec<_> = unpack(&plain_session().runpack()).into_iter().map(|entry| entry.0).collect();
    let want = [
        "coverage.json",
        "intents.jsonl",
        "journal.digest",
        "journal.jsonl",
        "manifest.json",
        "refs.json",
        "results.jsonl",
        "run.json",
        "traces.jsonl",
    ];
    assert_eq!(names, want);
}

#[test]
fn sealing_twice_gives_equal_bytes() {
    let session = plain_session();
    let first = std::fs::read(session.runpack()).unwrap();
    assert_eq!(reseal_directory(session.dir.path(), &key()), session.sealed);
    assert_eq!(std::fs::read(session.runpack()).unwrap(), first);
    let footer = session.sealed.ticket_footer();
    let want = format!(
        "GAIT run_id=run_test manifest=sha256:{} verify=\"gait verify run_test\"",
        session.sealed.manifest_digest
    );
    assert_eq!(footer, want);
}

#[test]
fn decisions_are_read_with_their_counts() {
    let session = plain_session();
    let mut runpack = Runpack::open(&session.runpack()).unwrap();
    assert!(runpack.is_session());
    let mut decisions = Vec::new();
    runpack.decisions(|decision| decisions.push(decision)).unwrap();
    let told: Vec<_> =
        decisions.iter().map(|it| (it.number, it.count, it.record.tool_name.as_str())).collect();
    let want = [(1, 4, "os.fs.read"), (2, 1, "os.fs.delete"), (3, 2, "os.net.http"), (4, 1, "os.proc.exec")];
    assert_eq!(told, want);
    let record = &decisions[0].record;
    assert_eq!(record.reason_codes, ["a_code", "matched_rule_x"]);
    assert_eq!((record.enforced, record.run_id.as_deref()), (Some(true), Some("run_test")));
    assert_eq!(record.latency_ms, None);
    assert_eq!(decisions[2].record.approval.unwrap().answer, Answer::Allow);
    assert_eq!(decisions[2].record.target.as_ref().unwrap().value, "example.com:443");

    let statuses: Vec<_> = runpack.results().unwrap().into_iter().map(|result| result.status).collect();
    assert_eq!(statuses, ["ok", "error", "ok", "ok"]);
    let ids: Vec<_> = runpack.intents().unwrap().into_iter().map(|intent| intent.intent_id).collect();
    assert_eq!(ids, ["intent_1", "intent_2", "intent_3", "intent_4"]);
    assert_eq!(runpack.manifest().unwrap().run_id, "run_test");
    let mut kinds = Vec::new();
    runpack.journal(|line| kinds.push(line.kind)).unwrap();
    let want = [
        LineKind::SessionStart,
        LineKind::Record,
        LineKind::Record,
        LineKind::Record,
        LineKind::Approval,
        LineKind::Record,
        LineKind::Repeat,
        LineKind::Loss,
        LineKind::Note,
        LineKind::Repeat,
        LineKind::SessionEnd,
    ];
    assert_eq!(kinds, want);
}

#[test]
fn every_event_is_told_where_the_policy_wants_all() {
    let options = RecorderOptions { repeats: Repeats::All, ..RecorderOptions::default() };
    let session = session(&key(), options, work);
    assert_eq!(session.verify().findings, []);
    let mut events = 0;
    let mut runpack = Runpack::open(&session.runpack()).unwrap();
    runpack.journal(|line| events += u64::from(line.kind == LineKind::Event)).unwrap();
    assert_eq!(events, 4);
}

#[test]
fn reference_capture_holds_no_argument_and_raw_does() {
    for (capture, holds) in [(Capture::Reference, false), (Capture::Raw, true)] {
        let options = RecorderOptions { capture, ..RecorderOptions::default() };
        let session = session(&key(), options, |recorder| {
            let action = Action {
                argv: Some(b"git\0--token=hunter2\0"),
                ..path_action(Operation::Exec, "/usr/bin/git")
            };
            recorder.observe(&seen(1, action, Verdict::Allow), reasons).unwrap();
        });
        assert_eq!(session.verify().findings, []);
        let entries = unpack(&session.runpack());
        let found = entries.iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("hunter2"));
        assert_eq!(found, holds);
    }
}

/// Two runs at other times and with other keys tell the same decisions.
#[test]
fn equal_runs_give_equal_trace_ids_and_intents() {
    let ids = |key: &SigningKey| {
        let session = session(key, RecorderOptions::default(), work);
        let mut ids = Vec::new();
        let mut runpack = Runpack::open(&session.runpack()).unwrap();
        runpack.decisions(|it| ids.push((it.record.trace_id, it.record.intent_digest))).unwrap();
        ids
    };
    assert_eq!(ids(&key()), ids(&SigningKey::from_seed([2; 32])));
}

fn recorder() -> TestRecorder {
    recorder_into(Vec::new())
}

fn recorder_into<T: Write>(traces: T) -> Recorder<Vec<u8>, T> {
    let start = SessionStart {
        at_ns: START_NS,
        backend: "fake".into(),
        coverage_digest: Digest::ZERO,
        program: b"/bin/sh".to_vec(),
        command_digest: Digest::ZERO,
        circumstances: None,
    };
    let options = RecorderOptions::default();
    Recorder::new(facts(), Digest::ZERO, key(), Vec::new(), traces, &start, options).unwrap()
}

/// Whatever a record tells makes another decision of an observation.
#[test]
fn only_equal_observations_are_repeats() {
    let base = seen(1, path_action(Operation::Exec, "/bin/sh"), Verdict::Allow);
    let mut recorder = recorder();
    let first = recorder.observe(&base, reasons).unwrap();
    assert!(first.first);
    let again = Observation { at_ns: START_NS + 9, pid: 7, tid: 7, ..base };
    let again = recorder.observe(&again, || panic!("reasons are asked for once")).unwrap();
    assert_eq!((again.first, again.intent), (false, first.intent));

    let approval = Approval { answer: Answer::Allow, scope: Scope::Once, asked: false };
    let others = [
        Observation { verdict: Verdict::Block, ..base },
        Observation { enforced: false, ..base },
        Observation { simulated_verdict: Some(Verdict::Block), ..base },
        Observation { approval: Some(approval), ..base },
        Observation { approval: Some(Approval { scope: Scope::Session, ..approval }), ..base },
        Observation { decision_key: 8, ..base },
        Observation { action: Action { argv: Some(b""), ..base.action }, ..base },
        Observation { action: Action { argv: Some(b"a\0"), ..base.action }, ..base },
        Observation { action: Action { object: Object::Path(b"/bin/sh2"), ..base.action }, ..base },
        Observation { action: Action { operation: Operation::MmapExec, ..base.action }, ..base },
    ];
    for (at, other) in others.iter().enumerate() {
        assert!(recorder.observe(other, reasons).unwrap().first, "{at}");
    }
}

#[test]
fn repeats_do_not_pile_up_in_memory() {
    let session = session(&key(), RecorderOptions::default(), |recorder| {
        let read = path_action(Operation::Read, "/a");
        for at in 0..200_000 {
            recorder.observe(&seen(at, read, Verdict::Allow), reasons).unwrap();
        }
    });
    let report = session.verify();
    assert_eq!(report.findings, []);
    assert_eq!(report.exec.unwrap().totals.sum(), 200_000);
    assert_eq!(session.summary.lines, 2 + 1 + 4);
}

/// Past the memory's end every event is told as a decision of its own, and the evidence still holds.
#[test]
fn what_is_not_remembered_is_recorded_again() {
    let options = RecorderOptions { remembered: 2, ..RecorderOptions::default() };
    let session = session(&key(), options, |recorder| {
        for path in ["/a", "/b", "/c", "/a", "/c", "/c"] {
            recorder.observe(&seen(1, path_action(Operation::Read, path), Verdict::Allow), reasons).unwrap();
        }
    });
    let report = session.verify();
    assert_eq!(report.findings, []);
    let exec = report.exec.unwrap();
    assert_eq!((exec.traces, exec.totals.sum()), (5, 6));
}

/// The longest of everything that a workload can bring about stays readable.
#[test]
fn no_line_exceeds_the_limit_of_its_readers() {
    let options = RecorderOptions { capture: Capture::Raw, ..RecorderOptions::default() };
    let session = session(&key(), options, |recorder| {
        let long = vec![1_u8; 4096];
        for length in [128 << 10, (128 << 10) + 1, 2 << 20] {
            let argv = vec![1_u8; length];
            let action = Action {
                operation: Operation::Exec,
                object: Object::Path(&long),
                image: &long,
                argv: Some(&argv),
            };
            recorder.observe(&seen(1, action, Verdict::Allow), reasons).unwrap();
        }
        recorder.note(START_NS, &"é".repeat(1 << 20)).unwrap();
        recorder.loss(START_NS, 1, &"\u{1}".repeat(1 << 20)).unwrap();
    });
    assert_eq!(session.verify().findings, []);
    let kept =
        unpack(&session.runpack()).iter().filter(|entry| entry.0 == "traces.jsonl").map(|e| e.1.len()).sum();
    assert!((700_000..1_200_000_usize).contains(&kept), "{kept}: only the first keeps its arguments");
}

/// The supervisor died in the middle of two writes: what is left is sealed, and says that it is not the whole.
#[test]
fn a_torn_session_is_sealed_as_unfinished() {
    let session = plain_session();
    for (name, cut) in [("journal.jsonl", 40), ("traces.jsonl", 0)] {
        let path = session.dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - cut);
        bytes.extend_from_slice(if cut == 0 { b"{\"approv" } else { b"" });
        std::fs::write(&path, &bytes).unwrap();
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        assert_eq!(cut_torn_line(&path).unwrap(), (bytes.len() - whole) as u64);
        assert_eq!(std::fs::read(&path).unwrap(), bytes[..whole]);
        assert_eq!(cut_torn_line(&path).unwrap(), 0);
    }
    reseal_directory(session.dir.path(), &key());
    let reasons: Vec<_> = session.verify().findings.iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::SessionUnfinished]);
}

/// A writer that is full after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_failed_write_nothing_is_accepted_any_more() {
    let mut recorder = recorder_into(Full(1500));
    let known = seen(1, path_action(Operation::Read, "/a"), Verdict::Allow);
    recorder.observe(&known, reasons).unwrap();
    let other = seen(2, path_action(Operation::Read, "/b"), Verdict::Allow);
    assert!(matches!(recorder.observe(&other, reasons), Err(RecordError::Write(_))));
    assert!(matches!(recorder.observe(&known, Reasons::default), Err(RecordError::Stopped)));
    assert!(matches!(recorder.flush(START_NS), Err(RecordError::Stopped)));
    assert!(matches!(recorder.finish(START_NS, Ending::Aborted), Err(RecordError::Stopped)));
}
