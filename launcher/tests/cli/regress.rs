//! `gait regress …` on runs that a caller describes: the contract's files, graders, shapes and exit codes, and suites
//! that would lead elsewhere.

use std::fs::File;

use gait_agent::runpack::{IntentEntry, Payloads, ResultEntry, RunRecord, pack};
use gait_agent::sign::Digest;
use gait_agent::timestamp::Timestamp;

use super::sandbox::Sandbox;

/// Packs a run of two tool calls, of which `answered` have results.
fn described(sandbox: &Sandbox, run_id: &str, answered: usize) {
    let digest = Digest::sha256(b"{}").to_string();
    let ids = ["intent_1", "intent_2"];
    let mut record = RunRecord::default();
    record.run.run_id = run_id.into();
    record.run.created_at = Some(Timestamp::from_unix_nanos(1_700_000_000_000_000_000));
    record.run.env.os = "demo".into();
    record.intents = ids
        .map(|id| IntentEntry {
            intent_id: id.into(),
            tool_name: "tool.approve".into(),
            args_digest: digest.clone(),
            ..IntentEntry::default()
        })
        .to_vec();
    record.results = ids[..answered]
        .iter()
        .map(|&id| ResultEntry {
            intent_id: id.into(),
            status: "ok".into(),
            result_digest: digest.clone(),
            ..ResultEntry::default()
        })
        .collect();
    let record = record.complete(Timestamp::UNSET, Payloads::Strip).unwrap();
    std::fs::create_dir_all(sandbox.path("gait-out")).unwrap();
    let out = File::create(sandbox.path(&format!("gait-out/runpack_{run_id}.zip"))).unwrap();
    pack(&record, None, out).unwrap();
}

fn edit(sandbox: &Sandbox, name: &str, from: &str, to: &str) {
    let text = sandbox.read(name);
    assert!(text.contains(from), "{text}");
    sandbox.write(name, &text.replacen(from, to, 1));
}

#[test]
fn a_run_becomes_a_fixture_and_is_graded() {
    let mut sandbox = Sandbox::new();
    described(&sandbox, "run_told", 2);
    sandbox.gait("regress init --from run_told");
    sandbox.gait("regress run");
    sandbox.gait("regress run --json --junit out/junit.xml --output out/result.json");
    sandbox.gait("regress add --from gait-out/runpack_run_told.zip --name Second/Name --json");
    sandbox.gait("regress bootstrap --from run_told --name second-name --json");
    insta::assert_snapshot!(sandbox.story());
    insta::assert_snapshot!("gait_yaml", sandbox.read("gait.yaml"));
    insta::assert_snapshot!("fixture_json", sandbox.read("fixtures/run_told/fixture.json"));
    insta::assert_snapshot!("result_json", sandbox.read("out/result.json"));
    insta::assert_snapshot!("junit_xml", sandbox.read("out/junit.xml"));
    let files = sandbox.files();
    let left: Vec<_> = files.iter().filter(|file| file.contains(".tmp") || file.contains(".old")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_fails_says_why_first() {
    let mut sandbox = Sandbox::new();
    described(&sandbox, "run_told", 1);
    described(&sandbox, "run_other", 2);
    // A result is missing, and the fixture does not expect it.
    sandbox.gait("regress bootstrap --from run_told --junit junit.xml");
    edit(&sandbox, "fixtures/run_told/fixture.json", "exit_code\": 0", "exit_code\": 2");
    sandbox.gait("regress run");
    // Another candidate, with and without leave.
    std::fs::copy(
        sandbox.path("gait-out/runpack_run_other.zip"),
        sandbox.path("fixtures/run_told/candidate.zip"),
    )
    .unwrap();
    edit(
        &sandbox,
        "fixtures/run_told/fixture.json",
        "exit_code\": 2",
        "exit_code\": 2, \"candidate_runpack\": \"candidate.zip\"",
    );
    sandbox.gait("regress run --json");
    edit(
        &sandbox,
        "fixtures/run_told/fixture.json",
        "exit_code\": 2",
        "exit_code\": 2, \"diff_allow_changed_files\": [\"results.jsonl\"]",
    );
    sandbox.gait("regress run");
    edit(&sandbox, "fixtures/run_told/fixture.json", "candidate.zip", "../../gait-out/runpack_run_other.zip");
    sandbox.gait("regress run");
    // Sequences of a later generation.
    edit(
        &sandbox,
        "fixtures/run_told/fixture.json",
        "\"../../gait-out/runpack_run_other.zip\"",
        "null, \"expected_tool_sequence\": [\"tool.approve\"], \"session_chain\": true",
    );
    sandbox.gait("regress run");
    // A runpack that was tampered with.
    let path = sandbox.path("fixtures/run_told/runpack.zip");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
    sandbox.gait("regress run");
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn bad_input_is_named_and_nothing_is_left() {
    let mut sandbox = Sandbox::new();
    sandbox.gait("regress run");
    sandbox.gait("regress init --from run_missing");
    sandbox.write("x.zip", "no zip");
    sandbox.gait("regress init --from x.zip");
    described(&sandbox, "run_told", 2);
    sandbox.gait("regress init --from run_told -- true");
    sandbox.gait("regress run --live --policy coding-agent");
    sandbox.gait("regress run gait-out");
    sandbox.gait("regress run --policy coding-agent gait-out");
    sandbox.gait("regress run --policy nothing gait-out");
    sandbox.write("gait.yaml", "fixtures: []");
    sandbox.gait("regress bootstrap --from run_told");
    let config = |name: &str, runpack: &str| {
        format!(
            r#"{{"schema_id":"gait.regress.config","schema_version":"1.0.0","fixture_set":"default",
               "fixtures":[{{"name":"{name}","run_id":"run_told","runpack":"{runpack}"}}]}}"#
        )
    };
    sandbox.write("gait.yaml", &config("../x", "x"));
    sandbox.gait("regress run");
    sandbox.write("gait.yaml", &config("x", "../x"));
    sandbox.gait("regress run");
    sandbox.write("gait.yaml", &config("gone", "fixtures/gone/runpack.zip"));
    sandbox.gait("regress run");
    for verb in ["init", "add", "run", "bootstrap"] {
        sandbox.gait(&format!("regress {verb} --explain"));
    }
    insta::assert_snapshot!(sandbox.story());
    let files = sandbox.files();
    let made: Vec<_> =
        files.iter().filter(|file| file.contains("fixtures/") || file.contains("result")).collect();
    assert!(made.is_empty(), "{made:?}");
}

/// Neither a directory that is a link nor a file that is one leads out of the suite.
#[test]
fn links_do_not_lead_out_of_the_suite() {
    let mut sandbox = Sandbox::new();
    described(&sandbox, "run_told", 2);
    std::fs::create_dir(sandbox.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("elsewhere"), sandbox.path("fixtures")).unwrap();
    assert_eq!(sandbox.gait("regress init --from run_told").exit, 6);
    assert_eq!(std::fs::read_dir(sandbox.path("elsewhere")).unwrap().count(), 0);
    std::fs::remove_file(sandbox.path("fixtures")).unwrap();

    assert_eq!(sandbox.gait("regress init --from run_told").exit, 0);
    let runpack = sandbox.path("fixtures/run_told/runpack.zip");
    std::fs::remove_file(&runpack).unwrap();
    std::os::unix::fs::symlink(sandbox.path("gait-out/runpack_run_told.zip"), &runpack).unwrap();
    let failed = sandbox.gait("regress run --json");
    assert_eq!((failed.exit, &failed.json()["top_failure_reason"]), (5, &"schema_validation_error".into()));

    let fixture = sandbox.path("fixtures/run_told/fixture.json");
    std::fs::rename(&fixture, sandbox.path("fixture.json")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("fixture.json"), &fixture).unwrap();
    assert_eq!(sandbox.gait("regress run").exit, 6);

    std::fs::remove_dir_all(sandbox.path("fixtures/run_told")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("elsewhere"), sandbox.path("fixtures/run_told")).unwrap();
    assert_eq!(sandbox.gait("regress init --from run_told").exit, 6);
    assert_eq!(std::fs::read_dir(sandbox.path("elsewhere")).unwrap().count(), 0);
}

/// The file that names the fixtures cannot be written: a new fixture is not there, a replaced one is the old one.
#[test]
fn a_fixture_that_cannot_be_named_is_taken_back() {
    let mut sandbox = Sandbox::new();
    described(&sandbox, "run_told", 2);
    described(&sandbox, "run_other", 2);
    // It can be looked for, but no file beside it can have a longer name.
    let long = "c".repeat(250);
    assert_eq!(sandbox.gait(&format!("regress init --from run_told --name f --config {long}")).exit, 1);
    assert!(!sandbox.files().iter().any(|file| file.contains("fixtures/")), "{:?}", sandbox.files());

    assert_eq!(sandbox.gait("regress init --from run_told --name f").exit, 0);
    let before = sandbox.read("fixtures/f/fixture.json");
    assert_eq!(sandbox.gait(&format!("regress init --from run_other --name f --config {long}")).exit, 1);
    assert_eq!(sandbox.read("fixtures/f/fixture.json"), before);
    assert_eq!(sandbox.gait("regress run").exit, 0);
    assert_eq!(sandbox.files().iter().filter(|file| file.contains("fixtures/")).count(), 2);
}
