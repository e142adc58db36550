//! What each fuzz target does with its bytes: hands them to a parser of outside data and checks what must then hold.
//!
//! The same bodies run in two places: under libFuzzer (`fuzz_targets/`, nightly) and over mutations of committed seeds in
//! `cargo test` (`agent/tests/parsers.rs`, stable). A body fails by panicking.

use std::io::{Cursor, Write};

use gait_agent::action::{Action, Object};
use gait_agent::document::Document;
use gait_agent::endpoint::Operation;
use gait_agent::gate::{CompiledPolicy, GateResult, Verdict, evaluate};
use gait_agent::intent::{IntentRequest, SessionFacts};
use gait_agent::policy::{Policy, Vars};
use gait_agent::runpack::{
    IntentEntry, Manifest, Payloads, Refs, ResultEntry, Run, RunRecord, Runpack, VerifyOptions, pack, verify,
};
use gait_agent::sign::{Limits, SigningKey, VerifyKey, canonical, digest_of, parse_strict};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{Line, read_trace};
use zip::write::SimpleFileOptions;

/// A target.
pub(crate) struct Target {
    /// Its name; `fuzz_targets/<name>.rs` runs it.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) body: fn(&[u8]),
    /// Where its seeds are: files, or folders with their files, from the root of the repository.
    pub(crate) seeds: &'static [&'static str],
    /// How many mutations a test run affords.
    pub(crate) mutations: u64,
}

/// Every target of this crate.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "policy",
        body: policy,
        seeds: &["policies", "agent/tests/vectors/inputs"],
        mutations: 600,
    },
    Target {
        name: "intent",
        body: intent,
        seeds: &[
            "docs/contracts/fixtures/v1/intent_request/valid",
            "docs/contracts/fixtures/v1/intent_request/invalid",
        ],
        mutations: 6000,
    },
    Target {
        name: "trace",
        body: trace,
        seeds: &[
            "docs/contracts/fixtures/v1/trace_record/valid",
            "docs/contracts/fixtures/v1/trace_record/invalid",
        ],
        mutations: 6000,
    },
    Target {
        name: "journal_line",
        body: journal_line,
        seeds: &["agent/fuzz/seeds/journal_line"],
        mutations: 6000,
    },
    Target {
        name: "document",
        body: document,
        seeds: &[
            "docs/contracts/fixtures/v1/gate_result/valid",
            "docs/contracts/fixtures/v1/runpack_manifest/valid",
            "docs/contracts/fixtures/v1/run/valid",
            "docs/contracts/fixtures/v1/intent_entry/valid",
            "docs/contracts/fixtures/v1/result_entry/valid",
            "docs/contracts/fixtures/v1/refs/valid",
        ],
        mutations: 6000,
    },
    Target {
        name: "run_record",
        body: run_record,
        seeds: &["agent/tests/vectors/inputs/run_record.json"],
        mutations: 1500,
    },
    Target {
        name: "runpack",
        body: runpack,
        seeds: &["docs/contracts/fixtures/v1/runpacks"],
        mutations: 1500,
    },
    Target {
        name: "runpack_entry",
        body: runpack_entry,
        seeds: &["agent/fuzz/seeds/runpack_entry"],
        mutations: 800,
    },
    Target {
        name: "key",
        body: key,
        seeds: &["agent/fuzz/seeds/key", "docs/contracts/fixtures/v1/public.key"],
        mutations: 3000,
    },
];

/// Policy text: parsed, and if it is a policy, digested, compiled and asked.
pub(crate) fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(policy) = Policy::parse("fuzzed.yaml", text) else { return };
    assert_eq!(Policy::parse("fuzzed.yaml", text).map(|it| it.digest()).ok(), Some(policy.digest()));
    let facts = SessionFacts { identity: "uid:1".into(), workspace: "/w".into(), run_id: "run_f".into() };
    let Ok(compiled) = CompiledPolicy::compile(&policy, &facts, &Vars::default()) else { return };
    for path in [&b"/w/a"[..], b"/etc/passwd", b"/", b"\xff/..", b""] {
        for operation in [Operation::Read, Operation::Unlink, Operation::Exec] {
            let argv = (operation == Operation::Exec).then_some(&b"git\0push\0-f\0"[..]);
            let action = Action { operation, object: Object::Path(path), image: b"/usr/bin/a", argv };
            let _verdict = compiled.decide(&action).verdict();
        }
    }
}

/// An intent request: the same bytes give the same digests, and whatever is an intent can be judged.
pub(crate) fn intent(data: &[u8]) {
    let read = || IntentRequest::from_json(data).and_then(IntentRequest::normalise);
    let Ok(intent) = read() else { return };
    assert_eq!(read().map(|again| again.intent_digest()).ok(), Some(intent.intent_digest()));
    assert_eq!(digest_of(intent.args()).ok(), Some(intent.args_digest()));
    let policy = Policy::parse("p.yaml", "default_verdict: block\n");
    assert!(policy.is_ok_and(|policy| evaluate(&policy, &intent).verdict == Verdict::Block));
}

/// A trace file: what is read comes back the same from its own canonical form.
pub(crate) fn trace(data: &[u8]) {
    let Ok((record, _)) = read_trace(data) else { return };
    let form = record.canonical();
    let again = form.as_deref().ok().and_then(|form| read_trace(form).ok());
    assert_eq!(again.map(|(record, _)| record), Some(record));
}

/// A line of a journal.
pub(crate) fn journal_line(data: &[u8]) {
    if Line::parse(data).is_ok() {
        let value = parse_strict(data, Limits { bytes: usize::MAX, ..Limits::DOCUMENT });
        assert!(value.is_ok(), "a line that is read is strict JSON");
    }
}

/// Documents that are read strictly.
pub(crate) fn document(data: &[u8]) {
    fn read<D: Document + serde::Serialize>(data: &[u8]) -> Option<()> {
        let form = canonical(&D::from_json(data).ok()?).ok()?;
        // What is written of it is a document, too. (A manifest with fields that are not known loses them, and its digest.)
        assert!(D::SCHEMA_ID.ends_with("manifest") || D::from_json(&form).is_ok());
        Some(())
    }
    let known = [
        read::<GateResult>(data),
        read::<Manifest>(data),
        read::<Run>(data),
        read::<IntentEntry>(data),
        read::<ResultEntry>(data),
        read::<Refs>(data),
    ];
    assert!(known.into_iter().flatten().count() <= 1, "a document is one thing only");
}

/// A described run: what can be completed can be packed, and what is packed holds.
pub(crate) fn run_record(data: &[u8]) {
    let Ok(record) = RunRecord::from_json(data) else { return };
    let Ok(record) = record.complete(Timestamp::UNSET, Payloads::Strip) else { return };
    let mut packed = Cursor::new(Vec::new());
    if pack(&record, None, &mut packed).is_ok() {
        verified(packed.get_ref(), true);
    }
}

/// The bytes of a runpack: verification says something, and what holds can be read.
pub(crate) fn runpack(data: &[u8]) {
    verified(data, false);
}

fn verified(data: &[u8], must_hold: bool) {
    let file = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(data).map(|()| file));
    let Ok(file) = file else { return };
    let report = verify(file.path(), &VerifyOptions::default());
    let holds = report.as_ref().is_ok_and(|report| report.ok());
    assert!(holds || !must_hold, "{:?}", report.map(|report| report.findings));
    let Ok(mut opened) = Runpack::open(file.path()) else {
        assert!(!holds, "what holds can be opened");
        return;
    };
    let read = [
        opened.manifest().is_ok(),
        opened.run().is_ok(),
        opened.refs().is_ok(),
        opened.intents().is_ok(),
        opened.results().is_ok(),
        !opened.is_session() || opened.decisions(drop).is_ok(),
    ];
    assert!(!holds || read == [true; 6], "what holds can be read: {read:?}");
}

/// The entries of a session's runpack; the first byte of the data says which one the rest stands in for.
const ENTRIES: [&str; 9] = [
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

/// One entry of a runpack, packed again so that its bytes get past the container, under a manifest that fits.
pub(crate) fn runpack_entry(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else { return };
    let which = ENTRIES[usize::from(which) % ENTRIES.len()];
    let Some(mut entries) = recorded() else { return };
    for (name, bytes) in &mut entries {
        if *name == which {
            body.clone_into(bytes);
        }
    }
    if which != "manifest.json" {
        let key = SigningKey::from_seed([1; 32]);
        fit_manifest(&mut entries, &key);
    }
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_level(Some(6))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    for (name, bytes) in &entries {
        if zip.start_file(*name, options).is_err() || zip.write_all(bytes).is_err() {
            return;
        }
    }
    if let Ok(packed) = zip.finish() {
        verified(packed.get_ref(), false);
    }
}

fn recorded() -> Option<Vec<(&'static str, Vec<u8>)>> {
    const PACK: &[u8] = include_bytes!("../../docs/contracts/fixtures/v1/runpacks/runpack_run_fixture.zip");
    let mut archive = zip::ZipArchive::new(Cursor::new(PACK)).ok()?;
    let mut entries = Vec::new();
    for name in ENTRIES {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut archive.by_name(name).ok()?, &mut bytes).ok()?;
        entries.push((name, bytes));
    }
    Some(entries)
}

/// Makes the manifest declare the entries as they are, and signs it.
fn fit_manifest(entries: &mut [(&'static str, Vec<u8>)], key: &SigningKey) -> Option<()> {
    let files: Vec<_> = entries
        .iter()
        .filter(|(name, _)| *name != "manifest.json")
        .map(|(name, bytes)| serde_json::json!({"path": name, "sha256": gait_agent::sign::Digest::sha256(bytes)}))
        .collect();
    let (_, bytes) = entries.iter_mut().find(|(name, _)| *name == "manifest.json")?;
    let mut manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    manifest["files"] = files.into();
    manifest["public_key"] = key.verify_key().to_base64().into();
    manifest["manifest_digest"] = "".into();
    manifest.as_object_mut()?.remove("signatures");
    manifest["manifest_digest"] = digest_of(&manifest).ok()?.to_string().into();
    manifest["signatures"] = serde_json::json!([key.sign_digest(&digest_of(&manifest).ok()?)]);
    *bytes = canonical(&manifest).ok()?;
    Some(())
}

/// Key files: what is a key has one text only.
pub(crate) fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = SigningKey::from_file_text(text) {
        assert_eq!(key.to_file_text().trim(), text.trim());
    }
    if let Ok(key) = VerifyKey::from_file_text(text) {
        assert_eq!(key.to_base64(), text.trim());
    }
}
