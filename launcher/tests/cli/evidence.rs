//! `gait verify`, `gait trace verify`, `gait run inspect`, `gait run receipt` on good, tampered and wrong files.

use std::fs::File;
use std::path::Path;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, IntentRequest, SessionFacts};
use gait_agent::runpack::{Env, IntentEntry, ResultEntry, RunRecord, SessionFiles, SessionRun, pack, seal};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{
    Circumstances, Ending, Observation, Reasons, Recorder, RecorderOptions, SessionStart, TraceRecord,
};

use super::sandbox::Sandbox;

const START_NS: u64 = 1_700_000_000_000_000_000;

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

/// An event: what is done to what, the verdict, and the rule.
pub(crate) type Event<'a> = (Operation, Object<'a>, Verdict, &'a str);

/// Seals a session of four events, one of them repeated.
pub(crate) fn session(sandbox: &Sandbox, run_id: &str) {
    let host = Host { name: Some("evil.example"), address: None, port: 443 };
    let events = [
        (Operation::Read, Object::Path(b"/etc/hosts"), Verdict::Allow, "reads"),
        (Operation::Read, Object::Path(b"/etc/hosts"), Verdict::Allow, "reads"),
        (Operation::Unlink, Object::Path(b"/etc/a\nverify ok\x1b[2J"), Verdict::Block, "no-system-files"),
        (Operation::Connect, Object::Host(host), Verdict::Block, "no-network"),
    ];
    session_of(sandbox, run_id, &events);
}

/// Seals a session of these events, which says nothing of its policy.
pub(crate) fn session_of(sandbox: &Sandbox, run_id: &str, events: &[Event<'_>]) {
    session_under(sandbox, run_id, events, Digest::sha256(b"policy"), None);
}

/// Seals a session of these events under a policy.
pub(crate) fn session_under(
    sandbox: &Sandbox,
    run_id: &str,
    events: &[Event<'_>],
    policy: Digest,
    circumstances: Option<Circumstances>,
) {
    let dir = sandbox.path("run");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(sandbox.path("gait-out")).unwrap();
    let coverage = br#"{"backend":"seccomp"}"#;
    std::fs::write(dir.join("coverage.json"), coverage).unwrap();
    let facts =
        SessionFacts { identity: "uid:1000".into(), workspace: "/work".into(), run_id: run_id.into() };
    let start = SessionStart {
        at_ns: START_NS,
        backend: "seccomp".into(),
        coverage_digest: Digest::sha256(coverage),
        program: b"/usr/bin/python3".to_vec(),
        command_digest: Digest::sha256(b"python3\0"),
        circumstances,
    };
    let (journal, traces) = (dir.join("journal.jsonl"), dir.join("traces.jsonl"));
    let mut recorder = Recorder::new(
        facts,
        policy,
        key(),
        File::create(&journal).unwrap(),
        File::create(&traces).unwrap(),
        &start,
        RecorderOptions::default(),
    )
    .unwrap();
    for (at, (operation, object, verdict, rule)) in events.iter().copied().enumerate() {
        let event = Observation {
            at_ns: START_NS + at as u64,
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
            codes: vec![format!("matched_rule_{rule}")],
            violations: Vec::new(),
            matched_rule: Some(rule.to_owned()),
        };
        recorder.observe(&event, reasons).unwrap();
    }
    recorder.finish(START_NS + 10, Ending::Exited(0)).unwrap();
    let run = SessionRun {
        run_id: run_id.to_owned(),
        started_at: Timestamp::from_unix_nanos(START_NS),
        ended_at: Timestamp::from_unix_nanos(START_NS + 10),
        ending: Some(Ending::Exited(0)),
        env: Env::default(),
        capture: Capture::Reference,
    };
    let files = SessionFiles { coverage: &dir.join("coverage.json"), journal: &journal, traces: &traces };
    let out = File::create(sandbox.path(&format!("gait-out/runpack_{run_id}.zip"))).unwrap();
    seal(&files, &run, &key(), out).unwrap();
}

/// Packs a run that a caller describes, with a result that belongs to no intent.
pub(crate) fn described(sandbox: &Sandbox, key: Option<&SigningKey>) {
    let digest = Digest::sha256(b"{}").to_string();
    let intent = |id: &str| IntentEntry {
        intent_id: id.into(),
        tool_name: "tool.write".into(),
        args_digest: digest.clone(),
        ..IntentEntry::default()
    };
    let result = |id: &str| ResultEntry {
        intent_id: id.into(),
        status: "ok".into(),
        result_digest: digest.clone(),
        ..ResultEntry::default()
    };
    let mut record = RunRecord::default();
    record.run.run_id = "run_told".into();
    record.intents = vec![intent("intent_1"), intent("intent_2")];
    record.results = vec![result("intent_1"), result("intent_9")];
    let record = record.complete(Timestamp::UNSET, gait_agent::runpack::Payloads::Strip).unwrap();
    std::fs::create_dir_all(sandbox.path("gait-out")).unwrap();
    let out = File::create(sandbox.path("gait-out/runpack_run_told.zip")).unwrap();
    pack(&record, key, out).unwrap();
}

pub(crate) fn write_keys(sandbox: &Sandbox) {
    sandbox.write("public.key", &key().verify_key().to_file_text());
    sandbox.write("private.key", &key().to_file_text());
    sandbox.write("other.key", &SigningKey::from_seed([8; 32]).verify_key().to_file_text());
}

pub(crate) fn flip(path: &Path, needle: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn verify_a_session_by_name_and_path_with_and_without_a_key() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_s");
    write_keys(&sandbox);
    for line in [
        "verify run_s",
        "verify run_s --json",
        "verify gait-out/runpack_run_s.zip -public-key public.key",
        "verify run_s --profile strict --private-key private.key --json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    for line in ["verify run_s --public-key other.key", "verify run_s --require-signature --json"] {
        assert_eq!(sandbox.gait(line).exit, 2, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn a_runpack_of_the_persons_own_key_is_verified_without_naming_it() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_s");
    assert_eq!(sandbox.gait("verify run_s --json").json()["signature_status"], "self_signed");
    sandbox.write("home/.local/share/gait/keys/gait_public.key", &key().verify_key().to_file_text());
    assert_eq!(sandbox.gait("verify run_s --json").json()["signature_status"], "verified");
    assert_eq!(sandbox.gait("verify run_s --require-signature").exit, 0);
    let other = SigningKey::from_seed([8; 32]).verify_key().to_file_text();
    sandbox.write("home/.local/share/gait/keys/gait_public.key", &other);
    assert_eq!(sandbox.gait("verify run_s --json").json()["signature_status"], "self_signed");
    assert_eq!(sandbox.gait("verify run_s --require-signature").exit, 2);
}

#[test]
fn verify_says_what_was_done_to_a_runpack() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_s");
    let path = sandbox.path("gait-out/runpack_run_s.zip");
    flip(&path, b"run.jsonPK");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(sandbox.path("short.zip"), &whole[..whole.len() - 30]).unwrap();
    for line in [
        "verify run_s",
        "verify run_s --json",
        "verify ./short.zip",
        "run inspect run_s",
        "run receipt --from run_s --json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 2, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn wrong_inputs_of_verify_are_named() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_s");
    write_keys(&sandbox);
    sandbox.write("text.zip", "not a zip").write("bad.key", "!!").write("short.key", "AAAA");
    sandbox.write("long.key", &"A".repeat(5000));
    for line in [
        "verify",
        "verify run_nothing",
        "verify run_nothing --json",
        "verify ./nothing.zip",
        "verify gait-out/",
        "verify text.zip",
        "verify run_s --public-key nothing.key",
        "verify run_s --public-key bad.key",
        "verify run_s --public-key short.key --json",
        "verify run_s --public-key long.key",
        "verify run_s --public-key private.key",
        "verify run_s --public-key-env NOT_SET",
        "verify run_s --public-key public.key --private-key private.key",
        "verify run_s --profile strict",
        "verify run_s --profile severe",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn inspect_and_receipt() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_s");
    described(&sandbox, None);
    for line in [
        "run inspect run_s",
        "run inspect --from run_s --json",
        "run inspect run_told",
        "run inspect --from run_told --json",
        "run receipt run_s",
        "run receipt --from gait-out/runpack_run_told.zip --json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    for line in ["run inspect", "run inspect run_s --from run_s", "run receipt run_nothing"] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn an_unsigned_run_holds_unless_a_signature_is_required() {
    let mut sandbox = Sandbox::new();
    described(&sandbox, None);
    write_keys(&sandbox);
    assert_eq!(sandbox.gait("verify run_told --json").json()["signature_status"], "missing");
    let required = sandbox.gait("verify run_told --require-signature --public-key public.key --json");
    assert_eq!(required.exit, 2);
    assert_eq!(required.json()["reason_codes"][0], "signature_missing");
    described(&sandbox, Some(&key()));
    assert_eq!(sandbox.gait("verify run_told --require-signature --public-key public.key").exit, 0);
}

#[test]
fn trace_verify() {
    let mut sandbox = Sandbox::new();
    write_keys(&sandbox);
    let request = r#"{"tool_name": "tool.write", "targets": [{"kind": "path", "value": "/a"}],
        "context": {"identity": "a", "workspace": "/w", "risk_class": "low"},
        "schema_id": "gait.gate.intent_request", "schema_version": "1.0.0"}"#;
    let intent = IntentRequest::from_json(request.as_bytes()).unwrap().normalise().unwrap();
    let mut record = TraceRecord::new(Digest::sha256(b"policy"), &intent, Verdict::Block);
    sandbox.write("unsigned.json", &record.to_file_text().unwrap());
    record.sign(&key()).unwrap();
    let text = record.to_file_text().unwrap();
    sandbox.write("trace.json", &text);
    sandbox.write("changed.json", &text.replace("tool.write", "tool.reads"));
    sandbox.write("renamed.json", &text.replace("\"block\"", "\"allow\""));
    sandbox.write("twice.json", &text.replacen('{', "{\"verdict\": \"allow\",", 1));
    for (line, exit) in [
        ("trace verify trace.json --public-key public.key", 0),
        ("trace verify --path trace.json --private-key private.key --json", 0),
        ("trace verify trace.json --public-key other.key --json", 2),
        ("trace verify changed.json --public-key public.key", 2),
        ("trace verify renamed.json --public-key public.key", 2),
        ("trace verify unsigned.json --public-key public.key --json", 2),
        ("trace verify twice.json --public-key public.key", 6),
        ("trace verify public.key --public-key public.key", 6),
        ("trace verify nothing.json --public-key public.key", 6),
        ("trace verify trace.json", 6),
        ("trace verify --public-key public.key", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}
