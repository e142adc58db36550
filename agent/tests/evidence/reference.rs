//! Runpacks of runs that a caller describes, against the reference's digests.

use std::io::Cursor;

use gait_agent::runpack::{
    Payloads, Reason, RecordInputError, RunRecord, Runpack, SignatureStatus, VerifyOptions, pack,
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

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A zip as Go's `archive/zip` lays it out for the reference (contract §16.1): sizes in a descriptor with signature
/// after the contents, an extended time stamp in both headers, mode 0644 by Unix. Contents are deflated as stored blocks.
fn as_go_writes(entries: &[(&str, &str)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let put = |out: &mut Vec<u8>, parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    // 1980-01-01T00:00:00Z as "UT", modification time only.
    let stamp = [b"UT\x05\x00\x01".as_slice(), &315_532_800_u32.to_le_bytes()].concat();
    for (name, text) in entries {
        let length = u16::try_from(text.len()).unwrap();
        let packed =
            [b"\x01".as_slice(), &length.to_le_bytes(), &(!length).to_le_bytes(), text.as_bytes()].concat();
        let sizes = [
            crc32(text.as_bytes()).to_le_bytes(),
            u32::try_from(packed.len()).unwrap().to_le_bytes(),
            u32::from(length).to_le_bytes(),
        ]
        .concat();
        let offset = u32::try_from(out.len()).unwrap().to_le_bytes();
        let lengths = [u16::try_from(name.len()).unwrap().to_le_bytes(), [9, 0]].concat();
        // Version 2.0, descriptor follows, deflate, 1980-01-01.
        let common = [20, 0, 8, 0, 8, 0, 0, 0, 33, 0];
        put(&mut out, &[b"PK\x03\x04", &common, &[0; 12], &lengths, name.as_bytes(), &stamp, &packed]);
        put(&mut out, &[b"PK\x07\x08", &sizes]);
        put(&mut directory, &[b"PK\x01\x02", &[20, 3], &common, &sizes, &lengths, &[0; 6]]);
        put(&mut directory, &[&(0o100_644_u32 << 16).to_le_bytes(), &offset, name.as_bytes(), &stamp]);
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let (size, offset) = (u32::try_from(directory.len()).unwrap(), u32::try_from(out.len()).unwrap());
    out.append(&mut directory);
    put(
        &mut out,
        &[b"PK\x05\x06", &[0; 4], &count, &count, &size.to_le_bytes(), &offset.to_le_bytes(), &[0; 2]],
    );
    out
}

/// The reference's own files of the vector, in the reference's own container, raw data and all.
#[test]
fn a_runpack_as_the_reference_writes_it_holds_and_is_read() {
    for expected in
        [include_str!("../vectors/expected_v17.json"), include_str!("../vectors/expected_head.json")]
    {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let expected = &expected["run_record"];
        let files = expected["files"].as_object().unwrap();
        let entries: Vec<_> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str().unwrap())).collect();
        let bytes = as_go_writes(&entries);
        let report = check(&bytes, &VerifyOptions::default());
        assert_eq!(report.findings, []);
        assert_eq!((report.files_checked, report.signature_status), (4, SignatureStatus::Missing));
        assert_eq!(
            report.manifest_digest.unwrap().to_string(),
            expected["manifest_digest"].as_str().unwrap()
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let record = Runpack::open(file.path()).unwrap().record().unwrap();
        assert_eq!((record.intents.len(), record.results.len(), record.refs.receipts.len()), (2, 1, 1));
        // A digit of a digest, found by whoever reads the files.
        let (name, text) = entries[0];
        let text = text.replacen("b755d9", "b755d8", 1);
        let changed: Vec<_> =
            std::iter::once((name, text.as_str())).chain(entries[1..].iter().copied()).collect();
        assert!(check(&as_go_writes(&changed), &VerifyOptions::default()).has(Reason::HashMismatch));
    }
}

/// What is ours in a described run has no file and no field that the reference does not know, unless it is signed.
#[test]
fn our_own_described_runs_add_nothing_but_the_declared_key() {
    let manifest = |signed| -> Value {
        let bytes = packed(Payloads::Strip, signed).1;
        serde_json::from_slice(body(&mut entries(&bytes), "manifest.json")).unwrap()
    };
    let expected: Value = serde_json::from_slice(include_bytes!("../vectors/expected_v17.json")).unwrap();
    let theirs: Value =
        serde_json::from_str(expected["run_record"]["files"]["manifest.json"].as_str().unwrap()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&manifest(false)), keys(&theirs));
    let mut signed = manifest(true);
    assert!(signed.as_object_mut().unwrap().remove("public_key").is_some());
    assert!(signed.as_object_mut().unwrap().remove("signatures").is_some());
    assert_eq!(keys(&signed), keys(&theirs));
}
