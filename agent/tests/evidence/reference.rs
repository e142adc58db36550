//! Runpacks of runs that a caller describes, against the reference's digests.

use std::io::Cursor;

use gait_agent::runpack::{
    Payloads, Reason, RecordInputError, RunRecord, SignatureStatus, VerifyOptions, pack,
};
use gait_agent::timestamp::Timestamp;
use serde_json::Value;

use crate::session_kit::{body, check, key, remanifest, repack, unpack};

const INPUT: &[u8] = include_bytes!("../vectors/inputs/run_record.json");

fn packed(payloads: Payloads, signed: bool) -> (String, Vec<u8>) {
    let record = RunRecord::from_json(INPUT).unwrap().complete(Timestamp::UNSET, payloads).unwrap();
    let key = key();
    let mut out = Cursor::new(Vec::new());
    let sealed = pack(&record, signed.then_some(&key), &mut out).unwrap();
    (sealed.manifest_digest.to_string(), out.into_inner())
}

fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    unpack(file.path())
}

#[test]
fn manifest_digest_and_files_equal_the_vectors() {
    let expected: Value = serde_json::from_slice(include_bytes!("../vectors/expected_v17.json")).unwrap();
    let expected = &expected["run_record"];
    let (digest, bytes) = packed(Payloads::Keep, false);
    assert_eq!(digest, expected["manifest_digest"].as_str().unwrap());
    let entries = entries(&bytes);
    assert_eq!(entries.len(), 5);
    for (name, bytes) in entries {
        assert_eq!(String::from_utf8(bytes).unwrap(), expected["files"][&name].as_str().unwrap(), "{name}");
    }
}

/// The current reference strips payloads in reference capture; these are its digests of the two files.
#[test]
fn stripped_files_equal_those_of_the_current_reference() {
    let (_, bytes) = packed(Payloads::Strip, false);
    let manifest = String::from_utf8(body(&mut entries(&bytes), "manifest.json").clone()).unwrap();
    for digest in [
        "8f4c450fbc19ecc2ca300444e05d9afb09e307708a74bb0adf665a5deaaeb89b",
        "1242727780ee89b6dc003307df557f8661d05f75bbc3e852ec69f7650d2c3028",
    ] {
        assert!(manifest.contains(digest));
    }
}

#[test]
fn an_unsigned_runpack_holds_unless_a_signature_is_required() {
    let (_, bytes) = packed(Payloads::Strip, false);
    let report = check(&bytes, &VerifyOptions::default());
    assert_eq!((report.ok(), report.signature_status), (true, SignatureStatus::Missing));
    assert_eq!((report.run_id.as_str(), report.files_checked, report.exec), ("run_vec", 4, None));
    let required = VerifyOptions { require_signature: true, ..VerifyOptions::default() };
    assert!(check(&bytes, &required).has(Reason::SignatureMissing));
    let (_, bytes) = packed(Payloads::Strip, true);
    assert!(check(&bytes, &required).ok());
}

/// Other producers write sizes after the contents and more metadata before them.
#[test]
fn an_archive_with_data_descriptors_holds() {
    let mut zip = zip::ZipWriter::new_stream(Vec::new());
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in entries(&packed(Payloads::Strip, true).1) {
        zip.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut zip, &bytes).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    assert!(bytes.windows(4).any(|window| window == b"PK\x07\x08"));
    assert_eq!(check(&bytes, &VerifyOptions::default()).findings, []);
}

#[test]
fn a_file_dropped_from_the_manifest_is_missed() {
    let mut entries = entries(&packed(Payloads::Strip, true).1);
    entries.retain(|entry| entry.0 != "refs.json");
    remanifest(&mut entries, &key());
    assert!(check(&repack(&entries), &VerifyOptions::default()).has(Reason::MissingFile));
}

#[test]
fn packing_twice_gives_equal_bytes() {
    assert_eq!(packed(Payloads::Strip, true), packed(Payloads::Strip, true));
}

#[test]
fn bad_descriptions_are_refused() {
    let edit = |edit: fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(INPUT).unwrap();
        edit(&mut value);
        let record = RunRecord::from_json(&serde_json::to_vec(&value).unwrap())?;
        record.complete(Timestamp::UNSET, Payloads::Strip)
    };
    let error = edit(|value| value["run"]["run_id"] = "".into()).unwrap_err();
    assert!(matches!(error, RecordInputError::Missing("run_id")));
    let error = edit(|value| value["run"]["run_id"] = "../x".into()).unwrap_err();
    assert!(matches!(error, RecordInputError::RunId(_)));
    let error = edit(|value| value["intents"][0]["args"]["path"] = "/b".into()).unwrap_err();
    assert!(matches!(error, RecordInputError::Digest { field: "args_digest", .. }));
    let error = edit(|value| value["intents"][1]["args_digest"] = "".into()).unwrap_err();
    assert!(matches!(error, RecordInputError::NoDigest { field: "args_digest", .. }));
    let error = edit(|value| value["capture_mode"] = "all".into()).unwrap_err();
    assert!(matches!(error, RecordInputError::CaptureMode(_)));
    assert!(edit(|value| value["refs"]["receipts"] = Value::Null).unwrap().refs.receipts.is_empty());
}
