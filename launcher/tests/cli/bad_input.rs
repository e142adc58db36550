//! Inputs that are bad, one verb and one file at a time: the exit code, the stable reason code, one clear error, bounded
//! memory, and nothing left behind.

use std::io::Write;

use super::evidence::session;
use super::gate::sandbox;
use super::sandbox::Sandbox;

/// The address space of a command: the program, its libraries and some threads take a third of it.
const MEMORY_KIB: u64 = 400 << 10;

/// A kind of bad file: its name, its bytes, and the reason code.
type Bad = (&'static str, Vec<u8>, &'static str);

fn deep(levels: usize) -> Vec<u8> {
    format!("{{\"args\":{}1{}}}", "{\"a\":".repeat(levels), "}".repeat(levels)).into_bytes()
}

/// What no reader of JSON takes, whatever it expects.
fn bad_json() -> Vec<Bad> {
    let mut cases: Vec<Bad> = vec![
        ("empty", Vec::new(), "not_json"),
        ("cut-off", b"{\"schema_id\": \"gait".to_vec(), "not_json"),
        ("nan", b"{\"a\": NaN}".to_vec(), "not_json"),
        ("infinity", b"{\"a\": 1e999}".to_vec(), "not_json"),
        ("two-documents", b"{} {}".to_vec(), "not_json"),
        ("not-utf8", b"{\"a\": \"\xff\"}".to_vec(), "not_json"),
        ("half-surrogate", b"{\"a\": \"\\ud800\"}".to_vec(), "not_json"),
        ("twice", b"{\"a\": {\"b\": 1, \"b\": 2}}".to_vec(), "duplicate_key"),
        ("twice-in-disguise", b"{\"a\": 1, \"\\u0061\": 2}".to_vec(), "duplicate_key"),
        ("deep", deep(100), "too_deep"),
        ("very-deep", deep(500_000), "too_deep"),
        ("a-list", b"[]".to_vec(), "wrong_shape"),
        ("huge", b" ".repeat(9 << 20), "too_large"),
    ];
    let mut many = b"[".to_vec();
    many.extend(b"[],".repeat(1_000_000));
    many.extend(b"[]]");
    cases.push(("a-million-lists", many, "wrong_shape"));
    cases
}

/// Runs a verb on each file and checks what comes of it.
fn refuse(sandbox: &Sandbox, line: &[&str], cases: Vec<Bad>, exit: i32) {
    for (name, bytes, reason) in cases {
        let path = sandbox.path("bad-input");
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        let before = sandbox.files();
        let answered = sandbox.gait_within(MEMORY_KIB, line);
        let told = answered.json();
        assert_eq!(answered.exit, exit, "{line:?} {name}: {told}");
        assert_eq!(
            (&told["ok"], &told["reason_code"]),
            (&false.into(), &reason.into()),
            "{line:?} {name}: {told}"
        );
        let error = told["error"].as_str().unwrap();
        assert!(error.contains("bad-input") && error.len() < 1500, "{line:?} {name}: {error}");
        assert_eq!(sandbox.files(), before, "{line:?} {name} leaves something behind");
    }
}

#[test]
fn intents() {
    let sandbox = sandbox();
    let good = sandbox.read("read.json");
    let mut cases = bad_json();
    let changed: [(&'static str, &str, &str, &'static str); 8] = [
        ("generation", "\"1.0.0\"", "\"2.0.0\"", "wrong_generation"),
        ("another-document", "gait.gate.intent_request", "gait.gate.trace", "wrong_generation"),
        ("no-tool", "\"tool.read\"", "\"\"", "missing_field"),
        ("odd-kind", "\"path\"", "\"planet\"", "unknown_word"),
        ("odd-time", "2026-01-02T03:04:05Z", "2026-02-30T03:04:05Z", "malformed_value"),
        ("args-a-list", "{\"a\": 1}", "[1]", "wrong_shape"),
        ("blank-argument", "{\"a\": 1}", "{\" \": 1}", "malformed_value"),
        ("argument-twice", "{\"a\": 1}", "{\"a\": 1, \"a \": 2}", "duplicate_key"),
    ];
    for (name, from, to, reason) in changed {
        assert!(good.contains(from), "{name}");
        cases.push((name, good.replacen(from, to, 1).into_bytes(), reason));
    }
    // A list has no fields that could be wrong; an object of no fields lacks the first that is needed.
    cases.push(("no-fields", b"{}".to_vec(), "missing_field"));
    let eval = ["gate", "eval", "--policy", "p.yaml", "--intent", "bad-input", "--json"];
    refuse(&sandbox, &eval, cases.clone(), 6);
    refuse(&sandbox, &["policy", "test", "p.yaml", "bad-input", "--json"], cases, 6);
}

#[test]
fn traces() {
    let sandbox = sandbox();
    let mut cases = bad_json();
    cases.push(("no-fields", b"{}".to_vec(), "wrong_shape"));
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contracts/fixtures/v1/trace_record");
    let record = std::fs::read_to_string(format!("{fixtures}/valid/gate_block.json")).unwrap();
    cases.push(("generation", record.replacen("1.0.0", "2.0.0", 1).into_bytes(), "wrong_generation"));
    let verify = ["trace", "verify", "bad-input", "--public-key", "public.key", "--json"];
    refuse(&sandbox, &verify, cases, 6);
    let renamed = record.replacen("\"block\"", "\"allow\"", 1).into_bytes();
    refuse(&sandbox, &verify, vec![("another-verdict", renamed, "id_mismatch")], 2);
    refuse(&sandbox, &verify, vec![("another-key", record.into_bytes(), "signature_invalid")], 2);
}

#[test]
fn approval_tokens() {
    let sandbox = sandbox();
    let mut cases: Vec<Bad> = bad_json();
    // Tokens are small: what is large is refused before it is read.
    for case in &mut cases {
        if case.1.len() > 64 << 10 {
            case.2 = "too_large";
        }
    }
    cases.push(("no-fields", b"{}".to_vec(), "wrong_shape"));
    let eval = [
        "gate",
        "eval",
        "--policy",
        "p.yaml",
        "--intent",
        "pay.json",
        "--approval-token",
        "bad-input",
        "--json",
    ];
    refuse(&sandbox, &eval, cases, 6);
}

#[test]
fn keys_and_policies() {
    let sandbox = sandbox();
    let keys: Vec<Bad> = vec![
        ("empty", Vec::new(), "not_a_key"),
        ("not-base64", b"!!!".to_vec(), "not_a_key"),
        ("too-short", b"AAAA".to_vec(), "not_a_key"),
        ("no-point", b"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_vec(), "not_a_key"),
        ("not-utf8", b"\xff\xfe".to_vec(), "not_utf8"),
        ("huge", b"A".repeat(9 << 20), "too_large"),
    ];
    session(&sandbox, "run_s");
    refuse(&sandbox, &["verify", "run_s", "--public-key", "bad-input", "--json"], keys, 6);
    let aliases =
        (0..12).map(|at| format!("k{at}: &a{at} [{}]\n", format!("*a{}, ", at.max(1) - 1).repeat(9)));
    let policies: Vec<Bad> = vec![
        ("cut-off", b"rules:\n  - {name: a, effect: bl".to_vec(), "invalid_policy"),
        ("not-utf8", b"rules: \"\xff\"\n".to_vec(), "invalid_policy"),
        ("twice", b"default_verdict: block\ndefault_verdict: allow\n".to_vec(), "invalid_policy"),
        ("unknown", b"default_verdict: block\nrulez: []\n".to_vec(), "invalid_policy"),
        ("generation", b"schema_version: 2.0.0\n".to_vec(), "invalid_policy"),
        ("deep", [b"rules: ".to_vec(), b"[".repeat(100_000)].concat(), "invalid_policy"),
        ("aliases", aliases.collect::<String>().into_bytes(), "invalid_policy"),
        ("huge", b"# \n".repeat(6 << 20), "invalid_policy"),
    ];
    let eval = ["gate", "eval", "--policy", "bad-input", "--intent", "read.json", "--json"];
    refuse(&sandbox, &eval, policies, 6);
}

#[test]
fn runpacks() {
    let sandbox = Sandbox::new();
    session(&sandbox, "run_s");
    let whole = std::fs::read(sandbox.path("gait-out/runpack_run_s.zip")).unwrap();
    for verb in [&["verify"][..], &["run", "inspect"], &["run", "receipt"]] {
        let none: Vec<Bad> = vec![
            ("empty", Vec::new(), "not_a_runpack"),
            ("text", b"hello".to_vec(), "not_a_runpack"),
            ("json", b"{}".to_vec(), "not_a_runpack"),
        ];
        refuse(&sandbox, &[verb, &["./bad-input", "--json"]].concat(), none, 6);
        let damaged = [
            ("cut in half", whole[..whole.len() / 2].to_vec(), "truncated_archive"),
            ("a byte at the end", [&whole[..], b"x"].concat(), "truncated_archive"),
            ("something in front", [b"PK before", &whole[..]].concat(), "malformed_archive"),
            ("a bomb", bomb(), "compression_ratio"),
        ];
        for (what, bytes, reason) in damaged {
            std::fs::write(sandbox.path("bad-input"), bytes).unwrap();
            let before = sandbox.files();
            let answered = sandbox.gait_within(MEMORY_KIB, &[verb, &["./bad-input", "--json"]].concat());
            let told = answered.json();
            assert_eq!(answered.exit, 2, "{verb:?} {what}: {told}");
            assert!(told.to_string().contains(reason), "{verb:?} {what}: {told}");
            assert_eq!(sandbox.files(), before, "{verb:?} {what}");
        }
    }
}

/// A quarter of a gigabyte of nothing.
fn bomb() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("journal.jsonl", zip::write::SimpleFileOptions::default()).unwrap();
    let nothing = vec![b' '; 1 << 20];
    for _ in 0..256 {
        zip.write_all(&nothing).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn files_that_are_not_there() {
    let mut sandbox = sandbox();
    for (line, reason) in [
        ("verify run_nothing --json", "missing_file"),
        ("verify ./nothing.zip --json", "missing_file"),
        ("run inspect ./nothing.zip --json", "missing_file"),
        ("run receipt run_nothing --json", "missing_file"),
        ("trace verify nothing.json --public-key public.key --json", "missing_file"),
        ("trace verify home --public-key public.key --json", "unreadable_file"),
        ("gate eval --policy p.yaml --intent nothing.json --json", "missing_file"),
        ("gate eval --policy p.yaml --intent home --json", "unreadable_file"),
        ("gate eval --policy nothing.yaml --intent read.json --json", "invalid_policy"),
        (
            "gate eval --policy p.yaml --intent read.json --key-mode prod --private-key nothing.key --json",
            "missing_file",
        ),
    ] {
        let answered = sandbox.gait(line);
        assert_eq!(answered.exit, 6, "{line}");
        assert_eq!(answered.json()["reason_code"], reason, "{line}: {}", answered.stdout);
    }
}

/// A reason is told only where an input is to blame, and `docs/exit-codes.md` has every one that is told here.
#[test]
fn reasons_are_documented() {
    let mut sandbox = sandbox();
    let answered = sandbox.gait("gate eval --policy p.yaml --json");
    assert!(answered.json().get("reason_code").is_none());
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/exit-codes.md")).unwrap();
    let source = include_str!("bad_input.rs");
    for code in ["not_json", "too_deep", "duplicate_key", "wrong_shape", "wrong_generation", "missing_file"] {
        assert!(source.contains(code) && page.contains(&format!("| `{code}` |")), "{code}");
    }
}
