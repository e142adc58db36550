//! Evidence packs: equal to the reference's, equal twice, and sensitive to every change.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use gait_agent::pack::{
    Build, Built, PackError, PackReport, Sources, Template, Window, build, collect, verify_pack,
};
use gait_agent::runpack::{
    Payloads, Reason, RunRecord, Runpack, SignatureStatus, VerifyOptions, pack, verify,
};
use gait_agent::sign::{SigningKey, canonical, digest_of};
use gait_agent::timestamp::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

const RECORD: &[u8] = include_bytes!("vectors/inputs/run_record.json");

/// The published test key of the vectors.
fn key() -> SigningKey {
    SigningKey::from_seed(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn runpack(dir: &Path) -> PathBuf {
    let path = dir.join("runpack_run_vec.zip");
    let record = RunRecord::from_json(RECORD).unwrap().complete(Timestamp::UNSET, Payloads::Keep).unwrap();
    pack(&record, None, File::create(&path).unwrap()).unwrap();
    path
}

fn built(parts: Build) -> Built {
    let dir = TempDir::new().unwrap();
    let path = runpack(dir.path());
    let report = verify(&path, &VerifyOptions::default()).unwrap();
    build(&mut Runpack::open(&path).unwrap(), &report, parts, &key(), "0.0.0-dev").unwrap()
}

fn check(bytes: &[u8], options: &VerifyOptions) -> PackReport {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pack.zip");
    std::fs::write(&path, bytes).unwrap();
    verify_pack(&path, options).unwrap()
}

#[test]
fn contents_id_and_signature_are_the_references() {
    let built = built(Build::new(Template::named("soc2"), None));
    let expected: Value = serde_json::from_slice(include_bytes!("vectors/expected_v17.json")).unwrap();
    let expected = &expected["guard_pack"];
    assert_eq!(serde_json::to_value(&built.manifest.contents).unwrap(), expected["contents"]);
    assert_eq!(built.manifest.pack_id, expected["pack_id"].as_str().unwrap());
    // Without the key that we add, the document is the reference's to the last byte: so is its signature.
    let mut manifest = serde_json::to_value(&built.manifest).unwrap();
    manifest.as_object_mut().unwrap().remove("public_key");
    manifest.as_object_mut().unwrap().remove("signatures");
    let signature = key().sign_digest(&digest_of(&manifest).unwrap());
    assert_eq!(serde_json::to_value([signature]).unwrap(), expected["signatures"]);
}

fn approval(trace_id: &str, created_at: &str) -> Vec<u8> {
    json!({"schema_id": "gait.gate.approval_audit_record", "trace_id": trace_id, "created_at": created_at})
        .to_string()
        .into_bytes()
}

fn trace(id: &str, created_at: &str) -> Vec<u8> {
    json!({"schema_id": "gait.gate.trace", "trace_id": id, "tool_name": "tool.x", "verdict": "block",
        "created_at": created_at, "policy_digest": "p"})
    .to_string()
    .into_bytes()
}

#[test]
fn any_order_of_documents_gives_equal_bytes_and_templates_index_them() {
    let (one, two) = (trace("t1", "2026-01-02T03:04:05Z"), trace("t2", "2026-01-02T03:04:05Z"));
    let (three, four) = (approval("t1", "2026-01-02T03:04:05Z"), approval("t2", "2026-01-02T03:04:05Z"));
    let make = |traces: [&[u8]; 2], approvals: [&[u8]; 2]| {
        let mut parts = Build::new(Template::Pci, Some(" CASE-1 "));
        traces.iter().for_each(|bytes| parts.trace(bytes).unwrap());
        approvals.iter().for_each(|bytes| parts.approval(bytes).unwrap());
        parts
            .regress(br#"{"schema_id":"gait.regress.result","fixture_set":"default","status":"fail"}"#)
            .unwrap();
        built(parts)
    };
    let forth = make([&one, &two], [&three, &four]);
    assert_eq!(forth.bytes, make([&two, &one], [&four, &three]).bytes);
    assert_eq!(forth.manifest.case_id.as_deref(), Some("CASE-1"));
    let answers: Vec<_> =
        forth.manifest.control_index.iter().map(|control| control.evidence_paths.join(" ")).collect();
    assert_eq!(
        answers,
        [
            "regress_summary.json trace_summary.json",
            "approval_audit_01.json approval_audit_02.json referenced_runpacks.json",
            "regress_summary.json runpack_summary.json",
        ]
    );
    assert_eq!(check(&forth.bytes, &VerifyOptions::default()).findings, []);
}

#[test]
fn an_incident_takes_what_is_of_its_time_and_its_decisions() {
    let sources = Sources {
        traces: vec![
            trace("t1", "2026-01-02T03:00:00Z"),
            trace("t2", "2026-01-09T00:00:00Z"),
            b"not json".to_vec(),
        ],
        regress: vec![b"{}".to_vec()],
        approvals: vec![
            approval("t1", "2026-01-02T04:00:00Z"),
            approval("t9", "2026-01-02T04:00:00Z"),
            approval("t1", "2025-01-02T04:00:00Z"),
        ],
        credentials: Vec::new(),
    };
    let window = Window {
        from: "2026-01-01T03:04:05Z".parse().unwrap(),
        to: "2026-01-03T03:04:05Z".parse().unwrap(),
        window_seconds: 86400,
        selection_anchor: "run_vec".into(),
    };
    let mut parts = Build::new(Template::named("anything"), None);
    let collected = collect(&mut parts, &sources, (window.from, window.to)).unwrap();
    assert_eq!((collected.traces, collected.regress, collected.approvals), (1, 0, 1));
    parts.incident(window.clone(), &Vec::from_iter(collected.policy_digests)).unwrap();
    let built = built(parts);
    assert_eq!(
        (built.manifest.incident_window.as_ref(), &*built.manifest.template_id),
        (Some(&window), "incident_response")
    );
    let names: Vec<_> = built.manifest.contents.iter().map(|entry| &*entry.path).collect();
    assert!(names.contains(&"approval_audit_01.json") && names.contains(&"policy_digests.json"), "{names:?}");
    assert_eq!(check(&built.bytes, &VerifyOptions::default()).findings, []);
}

#[test]
fn other_documents_and_too_many_are_refused() {
    let mut parts = Build::new(Template::Soc2, None);
    assert!(matches!(parts.trace(&approval("t", "x")), Err(PackError::Schema { .. })));
    assert!(matches!(parts.approval(b"{"), Err(PackError::Parse(_))));
    let bare = br#"{"schema_id":"gait.gate.trace"}"#;
    assert!(matches!(parts.trace(bare), Err(PackError::Missing("trace_id"))));
    for at in 0..60 {
        parts.approval(&approval(&at.to_string(), "x")).unwrap();
    }
    let dir = TempDir::new().unwrap();
    let path = runpack(dir.path());
    let report = verify(&path, &VerifyOptions::default()).unwrap();
    let made = build(&mut Runpack::open(&path).unwrap(), &report, parts, &key(), "v");
    assert!(matches!(made, Err(PackError::TooMany(62))));
}

type Entries = Vec<(String, Vec<u8>)>;

fn entries() -> Entries {
    let mut parts = Build::new(Template::Soc2, None);
    parts.trace(&trace("t1", "x")).unwrap();
    let bytes = built(parts).bytes;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|at| {
            let mut entry = archive.by_index(at).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (String::from_utf8(entry.name_raw().to_vec()).unwrap(), bytes)
        })
        .collect()
}

fn zipped(entries: &Entries) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn body<'a>(entries: &'a mut Entries, name: &str) -> &'a mut Vec<u8> {
    &mut entries.iter_mut().find(|entry| entry.0 == name).unwrap().1
}

fn edited(edit: impl FnOnce(&mut Entries)) -> PackReport {
    let mut entries = entries();
    edit(&mut entries);
    entries.sort();
    check(&zipped(&entries), &VerifyOptions::default())
}

fn manifest_edited(edit: impl FnOnce(&mut Value)) -> PackReport {
    edited(|entries| {
        let bytes = body(entries, "pack_manifest.json");
        let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
        edit(&mut manifest);
        *bytes = canonical(&manifest).unwrap();
    })
}

#[test]
fn every_way_of_changing_a_pack_is_found() {
    assert!(edited(|_| ()).ok());
    let changed = edited(|entries| body(entries, "trace_summary.json").push(b' '));
    assert!(changed.findings.iter().any(|it| it.reason == Reason::HashMismatch));
    assert_eq!(changed.hash_mismatches[0].path, "trace_summary.json");
    let has = |report: PackReport, reason: Reason| {
        assert!(report.findings.iter().any(|it| it.reason == reason), "{reason}: {:?}", report.findings);
    };
    has(edited(|entries| entries.retain(|entry| entry.0 != "trace_summary.json")), Reason::MissingFile);
    has(edited(|entries| entries.retain(|entry| entry.0 != "pack_manifest.json")), Reason::MissingFile);
    has(edited(|entries| entries.push(("z.json".into(), Vec::new()))), Reason::UndeclaredEntry);
    has(edited(|entries| entries.push(("../z".into(), Vec::new()))), Reason::UnsafeEntryName);
    has(edited(|entries| entries.push(("/etc/z".into(), Vec::new()))), Reason::UnsafeEntryName);
    has(edited(|entries| entries.push(("z.json".into(), vec![0; 4 << 20]))), Reason::CompressionRatio);
    has(edited(|entries| body(entries, "pack_manifest.json").push(b'\n')), Reason::ManifestInvalid);
    has(manifest_edited(|manifest| manifest["schema_version"] = "9.0.0".into()), Reason::ManifestInvalid);
    has(manifest_edited(|manifest| manifest["case_id"] = "other".into()), Reason::SignatureInvalid);
    has(manifest_edited(|manifest| manifest["pack_id"] = "pack_0".into()), Reason::ManifestDigestMismatch);
    has(manifest_edited(|manifest| manifest["run_id"] = "run_other".into()), Reason::ManifestDigestMismatch);
    has(manifest_edited(|manifest| manifest["public_key"] = "AAAA".into()), Reason::SignatureInvalid);
    has(manifest_edited(|manifest| manifest["control_index"] = json!([])), Reason::DerivedMismatch);
    let whole = zipped(&entries());
    has(check(&whole[..whole.len() - 9], &VerifyOptions::default()), Reason::TruncatedArchive);
}

#[test]
fn signatures_are_worth_what_the_key_is() {
    let bytes = built(Build::new(Template::Soc2, None)).bytes;
    let with = |key, require_signature| VerifyOptions { key, require_signature, ..VerifyOptions::default() };
    assert_eq!(check(&bytes, &with(None, true)).signature_status, SignatureStatus::SelfSigned);
    let trusted = check(&bytes, &with(Some(key().verify_key()), true));
    assert_eq!((trusted.ok(), trusted.signature_status), (true, SignatureStatus::Verified));
    let other = check(&bytes, &with(Some(SigningKey::from_seed([9; 32]).verify_key()), false));
    assert_eq!((other.ok(), other.signature_status), (false, SignatureStatus::Failed));
    let unsigned = |require| {
        let mut entries = entries();
        let bytes = body(&mut entries, "pack_manifest.json");
        let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
        manifest.as_object_mut().unwrap().remove("signatures");
        *bytes = canonical(&manifest).unwrap();
        check(&zipped(&entries), &with(None, require)).findings
    };
    assert_eq!(unsigned(false), []);
    assert_eq!(unsigned(true)[0].reason, Reason::SignatureMissing);
}
