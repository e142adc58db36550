//! Archives and documents that nobody wrote by accident, each with the reason it is refused for.

use gait_agent::runpack::{ArchiveLimits, Reason, VerifyOptions, VerifyReport};
use gait_agent::sign::canonical;
use serde_json::{Value, json};

use crate::session_kit::{
    Entries, body, check, key, lines, plain_session, remanifest, repack, resign, unlines, unpack,
};

/// An archive written by hand: what the headers say need not be so.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    body: Vec<u8>,
    method: u16,
    flags: u16,
    claims: Option<u32>,
    at: Option<u32>,
}

fn raw(name: &[u8], body: &[u8]) -> Raw {
    Raw { name: name.to_vec(), body: body.to_vec(), method: 0, flags: 0, claims: None, at: None }
}

fn header(entry: &Raw, start: &[u8]) -> Vec<u8> {
    let size = entry.claims.unwrap_or(u32::try_from(entry.body.len()).unwrap());
    let mut out = start.to_vec();
    for word in [entry.flags, entry.method, 0, 33] {
        out.extend(word.to_le_bytes());
    }
    out.extend([0; 4]);
    out.extend(u32::try_from(entry.body.len()).unwrap().to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(u16::try_from(entry.name.len()).unwrap().to_le_bytes());
    out.extend([0; 2]);
    out
}

fn archive(entries: &[Raw], count: u16) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = entry.at.unwrap_or(u32::try_from(out.len()).unwrap());
        out.extend(header(entry, b"PK\x03\x04\x14\0"));
        out.extend(&entry.name);
        out.extend(&entry.body);
        directory.extend(header(entry, b"PK\x01\x02\x14\x03\x14\0"));
        directory.extend([0; 6]);
        directory.extend((0o100_644_u32 << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(&entry.name);
    }
    let (at, size) = (u32::try_from(out.len()).unwrap(), u32::try_from(directory.len()).unwrap());
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0; 2]);
    out
}

fn checked(bytes: &[u8]) -> VerifyReport {
    check(bytes, &VerifyOptions::default())
}

#[test]
fn archives_that_no_writer_makes() {
    let one = |change: fn(&mut Raw)| {
        let mut entry = raw(b"run.json", b"{}");
        change(&mut entry);
        archive(&[entry], 1)
    };
    let twice = {
        let first = raw(b"a.json", b"{}");
        let second = Raw { at: Some(0), ..raw(b"b.json", b"{}") };
        archive(&[first, second], 2)
    };
    let cases: [(&str, Vec<u8>, Reason); 13] = [
        ("a name that is not UTF-8", one(|it| it.name = b"run\xff.json".to_vec()), Reason::MalformedArchive),
        ("no name", one(|it| it.name = Vec::new()), Reason::UnsafeEntryName),
        ("a directory", one(|it| it.name = b"run/".to_vec()), Reason::UnsafeEntryName),
        ("a name of 65535 bytes", one(|it| it.name = vec![b'a'; 65_535]), Reason::MissingFile),
        ("a name with a line break", one(|it| it.name = b"run\n.json".to_vec()), Reason::UnsafeEntryName),
        ("a size of 4 GiB", one(|it| it.claims = Some(u32::MAX - 1)), Reason::EntryTooLarge),
        ("a size that is that of zip64", one(|it| it.claims = Some(u32::MAX)), Reason::EntryTooLarge),
        ("two entries over the same bytes", twice, Reason::MalformedArchive),
        ("an entry beyond the end", one(|it| it.at = Some(u32::MAX)), Reason::MalformedArchive),
        ("more entries than there are", archive(&[raw(b"run.json", b"{}")], 2), Reason::MalformedArchive),
        ("fewer entries than there are", archive(&[raw(b"run.json", b"{}")], 0), Reason::MalformedArchive),
        ("65535 entries that are not there", archive(&[], u16::MAX), Reason::TooManyEntries),
        ("nothing at all", archive(&[], 0), Reason::MissingFile),
    ];
    for (what, bytes, reason) in cases {
        let report = checked(&bytes);
        assert!(report.has(reason), "{what}: {:?}", report.findings);
    }
}

/// A million entries: in the count of the directory, and hidden behind a small one.
#[test]
fn a_million_entries() {
    let name = |at: u32| format!("{at:07}").into_bytes();
    let mut directory = Vec::with_capacity(54_000_000);
    let template = header(&raw(&name(0), b""), b"PK\x01\x02\x14\x03\x14\0");
    for at in 0..1_000_000 {
        directory.extend(&template);
        directory.extend([0; 14]);
        directory.extend(name(at));
    }
    let start = b"PK\x03\x04";
    for (count, reason) in [(u16::MAX, Reason::TooManyEntries), (64, Reason::MalformedArchive)] {
        let mut bytes = [&start[..], &directory].concat();
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        bytes.extend(count.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend([0; 2]);
        let report = checked(&bytes);
        assert!(report.has(reason), "{count}: {:?}", report.findings);
    }
}

/// Entries that are stored in ways gait does not write, in an archive that is otherwise a session's.
#[test]
fn methods_and_flags_that_are_not_ours() {
    for (method, flags) in [(99, 0), (12, 0), (0, 1), (8, 1 << 6)] {
        let mut entries: Vec<_> = unpack(&plain_session().runpack())
            .into_iter()
            .map(|(name, body)| raw(name.as_bytes(), &body))
            .collect();
        let at = entries.iter().position(|entry| entry.name == b"run.json").unwrap();
        (entries[at].method, entries[at].flags) = (method, flags);
        let report = checked(&archive(&entries, 9));
        assert!(!report.ok(), "{method} {flags}");
        assert!(report.has(Reason::MalformedArchive) || report.has(Reason::EntryCorrupt), "{method} {flags}");
    }
}

/// A session's runpack with one entry changed, sealed anew with the right key: only the entry can be to blame.
fn with(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> VerifyReport {
    let mut entries: Entries = unpack(&plain_session().runpack());
    edit(body(&mut entries, name));
    remanifest(&mut entries, &key());
    checked(&repack(&entries))
}

fn deep(levels: usize) -> Vec<u8> {
    ["[".repeat(levels), "]".repeat(levels)].concat().into_bytes()
}

#[test]
fn documents_that_are_not_what_json_should_be() {
    type Make = fn() -> Vec<u8>;
    let bodies: [(&str, Make); 8] = [
        ("nothing", Vec::new),
        ("a million brackets", || deep(1_000_000)),
        ("NaN", || b"NaN".to_vec()),
        ("a number without end", || vec![b'9'; 1 << 20]),
        ("not UTF-8", || b"{\"\xff\":1}".to_vec()),
        ("half a surrogate", || b"{\"a\":\"\\ud800\"}".to_vec()),
        ("a list", || b"[]".to_vec()),
        ("a key twice", || b"{\"schema_id\":1,\"schema_id\":1}".to_vec()),
    ];
    let entries = [
        ("run.json", Reason::DocumentInvalid),
        ("refs.json", Reason::DocumentInvalid),
        ("journal.digest", Reason::JournalHeadMismatch),
        ("coverage.json", Reason::CoverageMismatch),
    ];
    for (what, make) in bodies {
        for (name, reason) in entries {
            let report = with(name, |bytes| *bytes = make());
            assert!(
                report.has(reason) || report.has(Reason::CompressionRatio),
                "{name}, {what}: {:?}",
                report.findings
            );
        }
        for (name, reason) in
            [("journal.jsonl", Reason::JournalInvalid), ("traces.jsonl", Reason::TraceInvalid)]
        {
            let report = with(name, |bytes| {
                let mut all = lines(bytes);
                all[1] = make();
                *bytes = unlines(&all);
            });
            let refused = report.has(reason)
                || report.has(Reason::EntryCorrupt)
                || report.has(Reason::CompressionRatio);
            assert!(refused, "{name}, {what}: {:?}", report.findings);
        }
    }
}

#[test]
fn manifests_that_are_too_much() {
    let sealed = |edit: fn(&mut Value)| {
        let mut entries: Entries = unpack(&plain_session().runpack());
        let mut manifest: Value = serde_json::from_slice(body(&mut entries, "manifest.json")).unwrap();
        edit(&mut manifest);
        resign(&mut manifest, &key());
        *body(&mut entries, "manifest.json") = canonical(&manifest).unwrap();
        checked(&repack(&entries))
    };
    let report = sealed(|manifest| {
        manifest["note"] = (0..20).fold(json!(1), |inner, _| json!([inner]));
    });
    assert!(report.has(Reason::ManifestInvalid), "nested deeply");
    let report = sealed(|manifest| {
        let files = (0..20_000).map(|at| json!({"path": format!("f{at:07}"), "sha256": "0".repeat(64)}));
        manifest["files"] = files.collect();
    });
    assert!(report.has(Reason::ManifestInvalid), "20,000 files");
    let mut entries: Entries = unpack(&plain_session().runpack());
    let noise: String = (0..80_000_u32).map(|at| format!("{:08x}", at.wrapping_mul(2_654_435_761))).collect();
    *body(&mut entries, "manifest.json") = noise.into_bytes();
    let small = ArchiveLimits { document: 512 << 10, ..ArchiveLimits::default() };
    let options = VerifyOptions { limits: small, ..VerifyOptions::default() };
    assert!(check(&repack(&entries), &options).has(Reason::EntryTooLarge), "640 KB where 512 are allowed");
    for (key, value) in
        [("run_id", json!("")), ("files", json!({})), ("created_at", json!("never")), ("schema_id", json!(1))]
    {
        let mut entries: Entries = unpack(&plain_session().runpack());
        let mut manifest: Value = serde_json::from_slice(body(&mut entries, "manifest.json")).unwrap();
        manifest[key] = value;
        *body(&mut entries, "manifest.json") = canonical(&manifest).unwrap();
        assert!(checked(&repack(&entries)).has(Reason::ManifestInvalid), "{key}");
    }
}

/// What is found is kept to a number that a report can hold, however much there is.
#[test]
fn a_hundred_thousand_bad_lines() {
    let report = with("journal.jsonl", |bytes| {
        let mut noise = 1_u32;
        for _ in 0..100_000 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.extend(format!("{{\"x\":{noise}}}\n").into_bytes());
        }
    });
    assert!(report.has(Reason::JournalInvalid));
    assert!(report.findings.len() <= 110, "{}", report.findings.len());
}

/// A line may have a mebibyte, and not a byte more.
#[test]
fn a_line_without_end() {
    let long = |length: usize| {
        let mut noise = 1_u64;
        let mut line = String::with_capacity(length + 16);
        while line.len() < length {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            line.push_str(&format!("{noise:016x}"));
        }
        line.truncate(length);
        line.into_bytes()
    };
    for (length, reason) in [(1 << 20, Reason::JournalInvalid), ((1 << 20) + 1, Reason::EntryCorrupt)] {
        let report = with("journal.jsonl", |bytes| {
            bytes.extend(long(length));
            bytes.push(b'\n');
        });
        assert!(report.has(reason), "{length}: {:?}", report.findings);
    }
}
