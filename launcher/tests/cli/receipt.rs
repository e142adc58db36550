//! The line for tickets: its grammar, who prints it, and that the runpack alone is enough to print it again.

use super::evidence::{flip, session};
use super::sandbox::Sandbox;

/// `GAIT run_id=<id> manifest=sha256:<64 hex> verify="gait verify <id>"`, nothing else (contract §17.3).
fn is_footer(line: &str, run_id: &str) -> bool {
    let Some(rest) = line.strip_prefix(&format!("GAIT run_id={run_id} manifest=sha256:")) else {
        return false;
    };
    let Some((digest, rest)) = rest.split_at_checked(64) else { return false };
    let id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !run_id.is_empty()
        && run_id.bytes().all(id)
        && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && rest == format!(" verify=\"gait verify {run_id}\"")
}

fn value<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap()
}

const RUN: &str = r#"{"run": {"run_id": "ID", "created_at": "2026-01-02T03:04:05Z"},
    "intents": [{"intent_id": "i", "tool_name": "t", "args": {"secret": "hunter2"}}],
    "results": [{"intent_id": "i", "status": "ok", "result": {"n": 1}}]}"#;

#[test]
fn the_footer_has_its_grammar_for_every_run_id_and_every_printer() {
    let mut sandbox = Sandbox::new();
    let long = format!("run_{}", "x".repeat(120));
    let ids = ["run_1", "run_a-b_C", "run_20260102T030405Z_deadbeef", "run_-", "r", "-1", "RUN", &long];
    for id in ids {
        sandbox.write("run.json", &RUN.replace("ID", id));
        let recorded = sandbox.gait("run record run.json");
        assert_eq!(recorded.exit, 0, "{id}");
        let footer = value(&recorded.stdout, "ticket_footer");
        assert!(is_footer(footer, id), "{footer}");
        let receipt = sandbox.gait(&format!("run receipt --from gait-out/runpack_{id}.zip"));
        assert_eq!(receipt.stdout, format!("{footer}\n"));
        let json = sandbox.gait(&format!("run receipt --json --from gait-out/runpack_{id}.zip")).json();
        assert_eq!(json["ticket_footer"], footer);
        assert!(footer.contains(json["manifest_digest"].as_str().unwrap()));
    }
    let demo = sandbox.gait("demo");
    assert!(is_footer(value(&demo.stdout, "ticket_footer"), "run_demo"));
    session(&sandbox, "run_s");
    assert!(is_footer(sandbox.gait("run receipt run_s").stdout.trim_end(), "run_s"));
}

/// Ids that could break the line, or the command in it, are refused before anything is written.
#[test]
fn ids_outside_the_grammar_make_no_runpack() {
    let mut sandbox = Sandbox::new();
    for id in ["", "a b", "a/b", "../a", "a\\\"b", "ä", "a\\n", "a;b"] {
        sandbox.write("run.json", &RUN.replace("ID", id));
        assert_eq!(sandbox.gait("run record run.json").exit, 6, "{id}");
    }
    assert!(!sandbox.path("gait-out").exists());
}

#[test]
fn the_runpack_alone_is_enough() {
    let mut sandbox = Sandbox::new();
    sandbox.write("run.json", &RUN.replace("ID", "run_r"));
    let footer = value(&sandbox.gait("run record run.json").stdout, "ticket_footer").to_owned();
    let pack = std::fs::read(sandbox.path("gait-out/runpack_run_r.zip")).unwrap();
    let mut elsewhere = Sandbox::new();
    std::fs::write(elsewhere.path("evidence.zip"), &pack).unwrap();
    assert_eq!(elsewhere.files(), ["evidence.zip"]);
    assert_eq!(elsewhere.gait("run receipt --from evidence.zip").stdout, format!("{footer}\n"));
    flip(&elsewhere.path("evidence.zip"), b"run.jsonPK");
    let broken = elsewhere.gait("run receipt --from evidence.zip");
    assert_eq!((broken.exit, broken.stdout.as_str()), (2, ""));
    std::fs::write(elsewhere.path("short.zip"), &pack[..pack.len() / 2]).unwrap();
    assert_eq!(elsewhere.gait("run receipt --from short.zip --json").exit, 2);
}
