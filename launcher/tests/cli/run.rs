//! `gait demo`, `gait run record|replay|diff|reduce`, `gait verify chain` and `gait migrate`.

use std::fs::File;
use std::io::Read;

use gait_agent::action::Object;
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_agent::intent::IntentRequest;
use gait_agent::policy::Policy;
use gait_agent::runpack::{Payloads, RunRecord, pack};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{Circumstances, TraceRecord};

use super::evidence::{key, session, session_of, session_under, write_keys};
use super::sandbox::Sandbox;

pub(super) const INPUT: &str = include_str!("../../../agent/tests/vectors/inputs/run_record.json");

fn entry(sandbox: &Sandbox, runpack: &str, name: &str) -> String {
    let mut archive = zip::ZipArchive::new(File::open(sandbox.path(runpack)).unwrap()).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_demo_is_the_same_each_time_and_verifies() {
    let mut sandbox = Sandbox::new();
    assert_eq!(sandbox.gait("demo").exit, 0);
    let first = std::fs::read(sandbox.path("gait-out/runpack_run_demo.zip")).unwrap();
    std::fs::remove_file(sandbox.path("gait-out/runpack_run_demo.zip")).unwrap();
    assert_eq!(sandbox.gait("demo --json").exit, 0);
    assert_eq!(std::fs::read(sandbox.path("gait-out/runpack_run_demo.zip")).unwrap(), first);
    for next in ["verify run_demo", "run inspect --from run_demo", "run receipt --from run_demo"] {
        assert_eq!(sandbox.gait(next).exit, 0, "{next}");
    }
    assert_eq!(sandbox.files(), ["gait-out/runpack_run_demo.zip"]);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn the_demo_says_where_it_cannot_write() {
    let mut sandbox = Sandbox::new();
    sandbox.write("gait-out", "a file");
    assert_eq!(sandbox.gait("demo --json").exit, 1);
    assert_eq!(sandbox.files(), ["gait-out"]);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn record_keeps_digests_unless_raw_capture_is_asked_for() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", INPUT);
    assert_eq!(sandbox.gait("run record run.json").exit, 0);
    let intents = entry(&sandbox, "gait-out/runpack_run_vec.zip", "intents.jsonl");
    let results = entry(&sandbox, "gait-out/runpack_run_vec.zip", "results.jsonl");
    assert!(!intents.contains("\"args\":") && !results.contains("\"result\":"), "{intents}{results}");
    assert_eq!(
        sandbox.gait("run record -input run.json --out-dir o --run-id run_x --capture-mode raw --json").exit,
        0
    );
    let intents = entry(&sandbox, "o/runpack_run_x.zip", "intents.jsonl");
    assert!(intents.contains("\"args\":{\"path\":\"/a\"}"));
    for name in ["intents.jsonl", "results.jsonl", "refs.json", "run.json", "manifest.json"] {
        let text = entry(&sandbox, "o/runpack_run_x.zip", name);
        assert!(text.contains("run_x") && !text.contains("run_vec"), "{name}: {text}");
    }
    assert_eq!(sandbox.gait("verify o/runpack_run_x.zip").exit, 0);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn record_signs_if_asked() {
    let mut sandbox = Sandbox::new();
    write_keys(&sandbox);
    sandbox.write("run.json", INPUT);
    let signed = sandbox.gait("run record run.json --key-mode prod --private-key private.key --json").json();
    assert_eq!(signed["signature_key_id"], key().key_id().to_string());
    assert_eq!(signed["signature_status"], "verified");
    assert_eq!(sandbox.gait("verify run_vec --profile strict --public-key public.key").exit, 0);
    assert_eq!(sandbox.gait("verify run_vec --profile strict --public-key other.key").exit, 2);
    assert_eq!(sandbox.gait("run record run.json --key-mode dev").exit, 0);
    assert_eq!(sandbox.gait("verify run_vec --require-signature").exit, 0);
    for line in ["--private-key private.key", "--key-mode prod", "--key-mode dev --private-key private.key"] {
        assert_eq!(sandbox.gait(&format!("run record run.json {line}")).exit, 6, "{line}");
    }
}

#[test]
fn wrong_descriptions_are_named_and_leave_what_was_there() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", INPUT).write("text.json", "run").write("list.json", "[]");
    sandbox.write("twice.json", &INPUT.replacen("\"run_id\"", "\"run_id\": \"run_a\", \"run_id\"", 1));
    sandbox.write("digest.json", &INPUT.replacen("\"path\": \"/a\"", "\"path\": \"/b\"", 1));
    sandbox.write("deep.json", &"[".repeat(100_000));
    sandbox.write("time.json", &INPUT.replacen("2026-01-02T03:04:05Z", "yesterday", 1));
    assert_eq!(sandbox.gait("run record run.json").exit, 0);
    let before = std::fs::read(sandbox.path("gait-out/runpack_run_vec.zip")).unwrap();
    for name in ["nothing", "text", "list", "twice", "digest", "deep", "time"] {
        assert_eq!(sandbox.gait(&format!("run record {name}.json")).exit, 6, "{name}");
    }
    for line in [
        "run record",
        "run record run.json --input run.json",
        "run record run.json --capture-mode all",
        "run record run.json --run-id ../x --json",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    assert_eq!(std::fs::read(sandbox.path("gait-out/runpack_run_vec.zip")).unwrap(), before);
    assert!(sandbox.files().iter().all(|file| !file.contains(".tmp")));
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn replay_answers_with_recorded_results_and_stand_ins() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", INPUT).write("missing.json", &INPUT.replace("http.fetch", "think"));
    sandbox.gait("run record run.json");
    sandbox.gait("run record missing.json --run-id run_m");
    session(&sandbox, "run_s");
    for (line, exit) in [
        ("run replay run_vec", 0),
        ("run replay --from run_vec --json", 0),
        ("run replay run_m", 2),
        ("run replay run_m --json", 2),
        ("run replay run_s", 0),
        ("run replay", 6),
        ("run replay run_nothing", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn real_tools_need_every_interlock_and_are_not_run_even_so() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", INPUT);
    sandbox.gait("run record run.json --capture-mode raw");
    let all = "run replay run_vec --real-tools --unsafe-real-tools --allow-tools tool.delete";
    for line in [
        "run replay run_vec --real-tools",
        "run replay run_vec --real-tools --unsafe-real-tools",
        "run replay run_vec --real-tools --unsafe-real-tools --allow-tools , --json",
        all,
    ] {
        assert_eq!(sandbox.gait(line).exit, 8, "{line}");
    }
    sandbox.env("GAIT_ALLOW_REAL_REPLAY", "true").env("OTHER", "1");
    assert_eq!(sandbox.gait(all).exit, 8);
    let answer = sandbox.gait(&format!("{all} --unsafe-real-tools-env OTHER --json"));
    assert_eq!((answer.exit, answer.json()["requested_unsafe"].as_bool()), (0, Some(true)));
    assert_eq!(answer.json()["mode"], "stub");
    assert_eq!(sandbox.files(), ["gait-out/runpack_run_vec.zip", "run.json"]);
}

/// A session under `policy.yaml`, whose digest is only right while that is `text`.
pub(super) fn judged_session(sandbox: &Sandbox, text: &str) {
    sandbox.write("policy.yaml", text);
    let policy = Policy::load(sandbox.path("policy.yaml").to_str().unwrap()).unwrap();
    let circumstances = Circumstances {
        command: None,
        directory: sandbox.path("").to_str().unwrap().trim_end_matches('/').to_owned(),
        home: "/home/u".into(),
        identity: "uid:1000".into(),
        policy: "policy.yaml".into(),
        protect: Vec::new(),
        run_dir: "/work/gait-out/run_p".into(),
        tmp: "/tmp".into(),
        uid: "1000".into(),
        workspace: "/work".into(),
    };
    let events = [
        (Operation::Read, Object::Path(b"/etc/hosts"), Verdict::Allow, "reads"),
        (Operation::Read, Object::Path(b"/work/a"), Verdict::Allow, "reads"),
        (Operation::Unlink, Object::Path(b"/work/a"), Verdict::Block, "deletes"),
    ];
    session_under(sandbox, "run_p", &events, policy.digest(), Some(circumstances));
}

pub(super) const JUDGED: &str = "default_verdict: block
rules:
  - name: reads
    priority: 1
    effect: allow
    match: {endpoint_classes: [fs.read]}
  - name: deletes
    priority: 2
    effect: block
    match: {endpoint_classes: [fs.delete]}
";

#[test]
fn replay_judges_a_session_again() {
    let mut sandbox = Sandbox::new();
    judged_session(&sandbox, JUDGED);
    let other = JUDGED.replace("effect: block", "effect: allow").replace("[fs.read]", "[fs.write]");
    sandbox.write("other.yaml", &other).write("wrong.yaml", "rules: 1");
    sandbox.write("run.json", INPUT);
    sandbox.gait("run record run.json");
    for (line, exit) in [
        ("run replay run_p --policy policy.yaml", 0),
        ("run replay run_p --policy policy.yaml --json", 0),
        ("run replay run_p --policy other.yaml", 2),
        ("run replay run_p --policy other.yaml --json", 2),
        ("run replay run_p --policy wrong.yaml", 6),
        ("run replay run_vec --policy policy.yaml", 6),
        ("run replay run_p --policy policy.yaml --real-tools", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn diff_of_described_runs() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", INPUT).write("other.json", &INPUT.replace("\"error\"", "\"ok\""));
    sandbox.gait("run record run.json");
    sandbox.gait("run record run.json --run-id run_same");
    sandbox.gait("run record other.json --run-id run_other");
    for (line, exit) in [
        ("run diff run_vec run_same", 0),
        ("run diff run_vec run_same --json", 0),
        ("run diff run_vec run_other", 2),
        ("run diff run_vec gait-out/runpack_run_other.zip --json --output d/diff.json", 2),
        ("run diff run_vec", 6),
        ("run diff run_vec run_nothing", 6),
        ("run diff run_vec run_other --privacy all", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    let written: serde_json::Value = serde_json::from_str(&sandbox.read("d/diff.json")).unwrap();
    assert_eq!((&written["ok"], &written["summary"]["results_changed"]), (&false.into(), &true.into()));
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn diff_of_sessions_tells_new_vanished_and_changed_decisions() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_a");
    let events = [
        (Operation::Unlink, Object::Path(b"/etc/a\nverify ok\x1b[2J"), Verdict::Allow, "all"),
        (Operation::Read, Object::Path(b"/etc/hosts"), Verdict::Allow, "reads"),
        (Operation::Write, Object::Path(b"/etc/new"), Verdict::Allow, "all"),
    ];
    session_of(&sandbox, "run_b", &events);
    session_of(&sandbox, "run_c", &[events[2], events[1], events[0], events[0]]);
    for (line, exit) in [
        ("run diff run_a run_b", 2),
        ("run diff run_a run_b --json", 2),
        ("run diff run_a run_b --privacy metadata --json", 2),
        ("run diff run_b run_c", 0),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

/// Unequal because somebody changed it would be told as a difference of the runs.
#[test]
fn diff_refuses_what_was_changed_after_it_was_sealed() {
    let mut sandbox = Sandbox::new();
    session(&sandbox, "run_a");
    session(&sandbox, "run_b");
    super::evidence::flip(&sandbox.path("gait-out/runpack_run_b.zip"), b"traces.jsonlPK");
    for line in ["run diff run_a run_b", "run diff run_b run_a"] {
        let answer = sandbox.gait(line);
        assert_eq!((answer.exit, answer.stdout.as_str()), (2, ""), "{line}");
    }
}

#[test]
fn reduce_keeps_one_failing_intent() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", INPUT);
    sandbox.gait("run record run.json");
    session(&sandbox, "run_s");
    sandbox.gait("demo");
    for (line, exit) in [
        ("run reduce run_vec", 0),
        ("run reduce --from run_vec --predicate non_ok_status --out o/r.zip --report-out o/r.json --json", 0),
        ("run reduce run_s --predicate non_ok_status --out o/s.zip", 0),
        ("run reduce run_demo", 6),
        ("run reduce run_demo --predicate any", 6),
        ("run reduce run_vec --out o/x --report-out o/x", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    for path in ["gait-out/runpack_run_vec_reduced_missing_result.zip", "o/r.zip", "o/s.zip"] {
        assert_eq!(sandbox.gait(&format!("verify ./{path}")).exit, 0, "{path}");
    }
    let report = sandbox.read("gait-out/runpack_run_vec_reduced_missing_result.zip.reduce_report.json");
    assert!(report.starts_with("{\n  \"schema_id\": \"gait.runpack.reduce_report\",\n  \"schema_version\""));
    assert!(!sandbox.path("o/x").exists());
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn chain_verifies_each_part_and_that_they_belong_together() {
    let mut sandbox = Sandbox::new();
    write_keys(&sandbox);
    session(&sandbox, "run_a");
    session(&sandbox, "run_b");
    let first = |runpack: &str| entry(&sandbox, runpack, "traces.jsonl").lines().next().unwrap().to_owned();
    let (own, other) = (first("gait-out/runpack_run_a.zip"), first("gait-out/runpack_run_b.zip"));
    sandbox.write("own.json", &own).write("other.json", &other);
    sandbox.write("changed.json", &own.replace("/etc/hosts", "/etc/group"));
    let mut invented: TraceRecord = serde_json::from_str(&own).unwrap();
    invented.reason_codes.push("z".into());
    sandbox.write("invented.json", std::str::from_utf8(&invented.sign(&key()).unwrap()).unwrap());
    let request =
        r#"{"tool_name": "t", "context": {"identity": "a", "workspace": "/w", "risk_class": "low"}}"#;
    let intent = IntentRequest::from_json(request.as_bytes()).unwrap().normalise().unwrap();
    let mut single = TraceRecord::new(Digest::sha256(b"policy"), &intent, Verdict::Allow);
    single.sign(&key()).unwrap();
    sandbox.write("single.json", &single.to_file_text().unwrap());
    for run in ["run_a", "run_b"] {
        let line = format!(
            "guard pack --run {run} --out {run}.zip --key-mode prod --private-key private.key --json"
        );
        assert_eq!(sandbox.gait(&line).exit, 0, "{line}");
    }
    let mut torn = std::fs::read(sandbox.path("run_a.zip")).unwrap();
    torn.truncate(torn.len() - 9);
    std::fs::write(sandbox.path("torn.zip"), torn).unwrap();
    for (line, exit) in [
        ("verify chain --run run_a", 0),
        ("verify chain --run run_a --trace own.json --public-key public.key --json", 0),
        ("verify chain --run run_a --trace single.json --public-key public.key", 0),
        ("verify chain --run run_a --trace other.json --public-key public.key", 2),
        ("verify chain --run run_a --trace invented.json --public-key public.key --json", 2),
        ("verify chain --run run_a --trace changed.json --public-key public.key", 2),
        ("verify chain --run run_a --trace own.json --public-key other.key --json", 2),
        ("verify chain --run run_a --pack run_a.zip --trace own.json --public-key public.key", 0),
        ("verify chain --run run_a --pack run_a.zip --profile strict --public-key public.key --json", 0),
        ("verify chain --run run_a --pack run_b.zip --public-key public.key", 2),
        ("verify chain --run run_a --pack torn.zip --public-key public.key", 2),
        ("verify chain --run run_a --pack run_a.zip --public-key other.key", 2),
        ("verify chain --run run_a --pack nothing.zip", 6),
        ("verify chain --run run_a --require-signature", 2),
        ("verify chain --run run_a --trace own.json", 6),
        ("verify chain --run run_a --profile strict", 6),
        ("verify chain", 6),
        ("verify chain --run run_nothing", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn migrate_takes_raw_data_out_of_reference_captures_and_leaves_the_rest() {
    let mut sandbox = Sandbox::new();
    // As generation 7 of the reference packs it.
    let record = RunRecord::from_json(INPUT.as_bytes()).unwrap();
    let record = record.complete(Timestamp::UNSET, Payloads::Keep).unwrap();
    std::fs::create_dir(sandbox.path("gait-out")).unwrap();
    let write = |name: &str, key: Option<&SigningKey>| {
        pack(&record, key, File::create(sandbox.path(name)).unwrap()).unwrap();
    };
    write("gait-out/runpack_run_vec.zip", None);
    write("signed.zip", Some(&key()));
    let before = std::fs::read(sandbox.path("gait-out/runpack_run_vec.zip")).unwrap();
    session(&sandbox, "run_s");
    for line in [
        "migrate run_vec",
        "migrate --input signed.zip --out o/signed.zip --target v1 --json",
        "migrate gait-out/runpack_run_vec_migrated.zip --json",
        "migrate run_s --out o/s.zip",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    for path in ["gait-out/runpack_run_vec_migrated.zip", "o/signed.zip"] {
        assert!(!entry(&sandbox, path, "intents.jsonl").contains("\"args\":"), "{path}");
        assert_eq!(sandbox.gait(&format!("verify {path}")).exit, 0, "{path}");
    }
    let copied = std::fs::read(sandbox.path("o/s.zip")).unwrap();
    assert_eq!(copied, std::fs::read(sandbox.path("gait-out/runpack_run_s.zip")).unwrap());
    assert_eq!(std::fs::read(sandbox.path("gait-out/runpack_run_vec.zip")).unwrap(), before);
    for line in
        ["migrate", "migrate run_vec --target v2", "migrate run_nothing", "migrate run_vec --input run_vec"]
    {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    super::evidence::flip(&sandbox.path("signed.zip"), b"run.jsonPK");
    assert_eq!(sandbox.gait("migrate signed.zip --out o/n.zip").exit, 2);
    assert!(!sandbox.path("o/n.zip").exists());
    insta::assert_snapshot!(sandbox.story());
}
