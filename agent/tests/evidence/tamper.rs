//! Every way of tampering with a session's runpack has its own reason.

use gait_agent::runpack::{Reason, SignatureStatus, VerifyError, VerifyOptions, VerifyReport, verify};
use gait_agent::sign::{Digest, SigningKey, canonical};
use proptest::prelude::*;
use serde_json::Value;

use crate::session_kit::{
    Entries, body, check, key, lines, plain_session, rechain, rehead, remanifest, repack, reseal_directory,
    resign, small_limits, unlines, unpack,
};

fn entries() -> Entries {
    unpack(&plain_session().runpack())
}

fn report(entries: &Entries) -> VerifyReport {
    check(&repack(entries), &VerifyOptions::default())
}

/// The untouched runpack goes through the same tools and holds, or no test here would mean anything.
#[test]
fn taking_apart_and_putting_together_changes_nothing() {
    let session = plain_session();
    let mut entries = unpack(&session.runpack());
    assert_eq!(repack(&entries), std::fs::read(session.runpack()).unwrap());
    rechain(&mut entries, |_| {});
    remanifest(&mut entries, &key());
    assert_eq!(repack(&entries), std::fs::read(session.runpack()).unwrap());
}

#[test]
fn a_flipped_bit_in_any_entry() {
    for (at, (name, bytes)) in entries().iter().enumerate() {
        let mut changed = entries();
        changed[at].1[bytes.len() / 2] ^= 1;
        let report = report(&changed);
        if name == "manifest.json" {
            assert!(!report.ok(), "{name}");
        } else {
            assert!(report.has(Reason::HashMismatch), "{name}");
            assert!(report.hash_mismatches.iter().any(|mismatch| mismatch.path == *name), "{name}");
        }
    }
}

#[test]
fn a_removed_entry() {
    for (at, (name, _)) in entries().iter().enumerate() {
        let mut changed = entries();
        changed.remove(at);
        let report = report(&changed);
        assert!(report.has(Reason::MissingFile), "{name}");
        assert_eq!(report.missing_files, [name.as_str()]);
    }
}

/// Even if the manifest is signed anew without it, a session's runpack misses its parts.
#[test]
fn a_removed_and_undeclared_entry() {
    for (at, (name, _)) in entries().iter().enumerate() {
        let mut changed = entries();
        changed.remove(at);
        if name != "manifest.json" {
            remanifest(&mut changed, &key());
        }
        assert!(report(&changed).has(Reason::MissingFile), "{name}");
    }
}

#[test]
fn an_added_entry() {
    let mut changed = entries();
    changed.push(("zz.txt".into(), b"x".to_vec()));
    assert!(report(&changed).has(Reason::UndeclaredEntry));
    remanifest(&mut changed, &key());
    assert!(report(&changed).ok(), "declared and signed, it is part of the evidence");
}

#[test]
fn reordered_entries() {
    let mut changed = entries();
    changed.swap(0, 1);
    assert!(report(&changed).has(Reason::EntriesOutOfOrder));
}

/// Renames an entry in the bytes of the archive, which no zip library would do.
fn rename(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let places: Vec<_> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())).collect();
    assert_eq!(places.len(), 2, "once before the contents, once in the directory");
    for at in places {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
}

#[test]
fn a_duplicated_entry() {
    let mut changed = entries();
    let run = body(&mut changed, "run.json").clone();
    changed.insert(8, ("run.jsoo".into(), run));
    let mut bytes = repack(&changed);
    rename(&mut bytes, "run.jsoo", "run.json");
    assert!(check(&bytes, &VerifyOptions::default()).has(Reason::DuplicateEntry));
}

#[test]
fn names_that_lead_elsewhere() {
    for name in ["../x", "/etc/x", "a/../b", "a\\b", "C:x", "./x", "a//b", "a\0b"] {
        let mut changed = entries();
        changed.push(("n".repeat(name.len()), b"x".to_vec()));
        let mut bytes = repack(&changed);
        rename(&mut bytes, &"n".repeat(name.len()), name);
        assert!(check(&bytes, &VerifyOptions::default()).has(Reason::UnsafeEntryName), "{name}");
    }
}

#[test]
fn bombs_and_giants() {
    let mut changed = entries();
    body(&mut changed, "traces.jsonl").resize(2 << 20, b' ');
    assert!(report(&changed).has(Reason::CompressionRatio));

    let mut noise = 1_u32;
    let mut changed = entries();
    let traces = body(&mut changed, "traces.jsonl");
    while traces.len() <= 3 << 20 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        traces.extend_from_slice(&noise.to_le_bytes());
    }
    let limits = VerifyOptions { limits: small_limits(), ..VerifyOptions::default() };
    assert!(check(&repack(&changed), &limits).has(Reason::EntryTooLarge));

    let mut changed = entries();
    changed.extend((0..60).map(|at| (format!("z{at:02}"), Vec::new())));
    assert!(report(&changed).has(Reason::TooManyEntries));
}

/// A reader that goes by the headers before the contents would see another file.
#[test]
fn two_names_for_one_entry() {
    let mut bytes = repack(&entries());
    let at = (0..bytes.len()).find(|&at| bytes[at..].starts_with(b"run.json")).unwrap();
    bytes[at..at + 8].copy_from_slice(b"run.jsoo");
    assert!(check(&bytes, &VerifyOptions::default()).has(Reason::MalformedArchive));
}

/// The directory claims fewer bytes than the entry unpacks to.
#[test]
fn an_entry_that_lies_about_its_size() {
    let mut changed = entries();
    let size = body(&mut changed, "run.json").len();
    let mut bytes = repack(&changed);
    let wanted = u32::try_from(size).unwrap().to_le_bytes();
    let name = b"run.json";
    let central = (0..bytes.len()).rev().find(|&at| bytes[at..].starts_with(name)).unwrap() - 46;
    let local = (0..bytes.len()).find(|&at| bytes[at..].starts_with(name)).unwrap() - 30;
    for at in [central + 24, local + 22] {
        assert_eq!(bytes[at..at + 4], wanted);
        bytes[at..at + 4].copy_from_slice(&u32::try_from(size - 1).unwrap().to_le_bytes());
    }
    assert!(check(&bytes, &VerifyOptions::default()).has(Reason::EntryCorrupt));
}

#[test]
fn a_truncated_archive() {
    let bytes = repack(&entries());
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 21] {
        assert!(check(&bytes[..length], &VerifyOptions::default()).has(Reason::TruncatedArchive), "{length}");
    }
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(verify(&path, &VerifyOptions::default()), Err(VerifyError::NotARunpack)));
    std::fs::write(&path, b"{\"not\":\"a zip\"}").unwrap();
    assert!(matches!(verify(&path, &VerifyOptions::default()), Err(VerifyError::NotARunpack)));
    assert!(matches!(verify(&dir.path().join("y"), &VerifyOptions::default()), Err(VerifyError::Read(_))));
}

#[test]
fn bytes_around_the_archive() {
    let bytes = repack(&entries());
    let before = [b"PK hidden".as_slice(), &bytes].concat();
    assert!(check(&before, &VerifyOptions::default()).has(Reason::MalformedArchive));
    let after = [&bytes, b"hidden".as_slice()].concat();
    assert!(check(&after, &VerifyOptions::default()).has(Reason::TruncatedArchive));
}

#[test]
fn a_changed_manifest() {
    let edit = |edit: fn(&mut Value)| {
        let mut changed = entries();
        let mut manifest: Value = serde_json::from_slice(body(&mut changed, "manifest.json")).unwrap();
        edit(&mut manifest);
        *body(&mut changed, "manifest.json") = canonical(&manifest).unwrap();
        report(&changed)
    };
    let changed = edit(|manifest| manifest["capture_mode"] = "raw".into());
    assert!(changed.has(Reason::ManifestDigestMismatch) && changed.has(Reason::SignatureInvalid));
    assert_eq!(changed.signature_status, SignatureStatus::Failed);
    let changed = edit(|manifest| manifest["manifest_digest"] = "0".repeat(64).into());
    assert!(changed.has(Reason::ManifestDigestMismatch));
    let changed = edit(|manifest| manifest["schema_version"] = "9.0.0".into());
    assert!(changed.has(Reason::ManifestInvalid));
    let changed = edit(|manifest| manifest["signatures"] = Value::Array(Vec::new()));
    assert!(changed.has(Reason::SignatureMissing));
    let changed = edit(|manifest| manifest["signatures"][0]["alg"] = "none".into());
    assert!(changed.has(Reason::SignatureInvalid));
    let changed = edit(|manifest| manifest["public_key"] = "AAAA".into());
    assert!(changed.has(Reason::SignatureInvalid));

    let changed = edit(|manifest| {
        let more =
            (0..100).map(|at| serde_json::json!({"path": format!("z{at:03}"), "sha256": Digest::ZERO}));
        manifest["files"].as_array_mut().unwrap().extend(more);
    });
    assert!(changed.has(Reason::ManifestInvalid));

    let mut spaced = entries();
    body(&mut spaced, "manifest.json").push(b' ');
    assert!(report(&spaced).has(Reason::ManifestInvalid));
    let mut twice = entries();
    let text = String::from_utf8(body(&mut twice, "manifest.json").clone()).unwrap();
    *body(&mut twice, "manifest.json") = text.replacen('{', "{\"run_id\":\"run_other\",", 1).into_bytes();
    assert!(report(&twice).has(Reason::ManifestInvalid));
}

/// Somebody without the key forges everything with a key of their own.
#[test]
fn a_swapped_key() {
    let forger = SigningKey::from_seed([66; 32]);
    let forged = crate::session_kit::session(&forger, Default::default(), crate::session_kit::work);
    let bytes = std::fs::read(forged.runpack()).unwrap();
    let trusted = VerifyOptions { key: Some(key().verify_key()), ..VerifyOptions::default() };
    let report = check(&bytes, &trusted);
    assert!(report.has(Reason::KeyMismatch));
    assert_eq!(report.signature_status, SignatureStatus::Failed);
    let alone = check(&bytes, &VerifyOptions::default());
    assert_eq!((alone.ok(), alone.signature_status), (true, SignatureStatus::SelfSigned));
    assert_eq!(alone.key_id, Some(forger.key_id()));

    let session = plain_session();
    reseal_directory(session.dir.path(), &forger);
    assert!(session.verify().has(Reason::KeyMismatch), "only the manifest is signed with the other key");
}

/// Changes a file and fits manifest and signature to it, with the right key: what is left is the file's own proof.
fn inside(edit: impl FnOnce(&mut Entries)) -> VerifyReport {
    let mut changed = entries();
    edit(&mut changed);
    remanifest(&mut changed, &key());
    let report = report(&changed);
    assert_eq!(report.signature_status, SignatureStatus::SelfSigned);
    assert!(report.hash_mismatches.is_empty());
    report
}

fn edit_trace(entries: &mut Entries, edit: impl FnOnce(&mut Value)) {
    let mut all = lines(body(entries, "traces.jsonl"));
    let mut value: Value = serde_json::from_slice(&all[1]).unwrap();
    edit(&mut value);
    all[1] = canonical(&value).unwrap();
    *body(entries, "traces.jsonl") = unlines(&all);
}

#[test]
fn changed_traces() {
    let edited = |edit: fn(&mut Value)| inside(|entries| edit_trace(entries, edit));
    let changed = edited(|trace| trace["target"]["value"] = "/etc/other".into());
    assert!(changed.has(Reason::TraceSignatureInvalid));
    let changed = edited(|trace| trace["verdict"] = "allow".into());
    assert!(changed.has(Reason::TraceIdMismatch) && changed.has(Reason::DerivedMismatch));
    let changed = edited(|trace| drop(trace.as_object_mut().unwrap().remove("signature")));
    assert!(changed.has(Reason::TraceSignatureInvalid));
    let changed = edited(|trace| trace["extra"] = 1.into());
    assert!(changed.has(Reason::TraceInvalid));
    let changed = edited(|trace| trace["run_id"] = "run_other".into());
    assert!(changed.has(Reason::RunMismatch));
    let changed = edited(|trace| trace["policy_digest"] = "0".repeat(64).into());
    assert!(changed.has(Reason::PolicyMismatch));

    let changed = inside(|entries| {
        let mut all = lines(body(entries, "traces.jsonl"));
        all.swap(0, 1);
        *body(entries, "traces.jsonl") = unlines(&all);
    });
    assert!(changed.has(Reason::TraceUnknown));
    let changed = inside(|entries| {
        let mut all = lines(body(entries, "traces.jsonl"));
        all.pop();
        *body(entries, "traces.jsonl") = unlines(&all);
    });
    assert!(changed.has(Reason::TraceUnknown));
    let changed = inside(|entries| {
        let mut all = lines(body(entries, "traces.jsonl"));
        all.push(all[0].clone());
        *body(entries, "traces.jsonl") = unlines(&all);
    });
    assert!(changed.has(Reason::TraceUnrecorded));
    let changed = inside(|entries| {
        let traces = body(entries, "traces.jsonl");
        traces.truncate(traces.len() - 1);
    });
    assert!(changed.has(Reason::EntryCorrupt));
}

#[test]
fn changed_intents_and_results() {
    for (name, from, to) in [
        ("intents.jsonl", "os.fs.delete", "os.fs.read"),
        ("results.jsonl", "error", "ok"),
        ("results.jsonl", "ok", "error"),
    ] {
        let changed = inside(|entries| {
            let text = String::from_utf8(body(entries, name).clone()).unwrap();
            assert!(text.contains(from));
            *body(entries, name) = text.replacen(from, to, 1).into_bytes();
        });
        assert_eq!(changed.findings.len(), 1);
        assert!(changed.has(Reason::DerivedMismatch), "{name}");
    }
}

#[test]
fn a_broken_chain() {
    let lines_edited = |edit: fn(&mut Vec<Vec<u8>>)| {
        inside(|entries| {
            let mut all = lines(body(entries, "journal.jsonl"));
            edit(&mut all);
            *body(entries, "journal.jsonl") = unlines(&all);
            rehead(entries);
        })
    };
    let removed = lines_edited(|all| drop(all.remove(2)));
    assert!(removed.has(Reason::ChainBroken) && removed.has(Reason::SequenceGap));
    let doubled = lines_edited(|all| all.insert(2, all[2].clone()));
    assert!(doubled.has(Reason::ChainBroken) && doubled.has(Reason::SequenceGap));
    let swapped = lines_edited(|all| all.swap(2, 3));
    assert!(swapped.has(Reason::ChainBroken));
    let garbage = lines_edited(|all| all[2] = b"{}".to_vec());
    assert!(garbage.has(Reason::JournalInvalid) && garbage.has(Reason::ChainBroken));

    let cut = inside(|entries| {
        let mut all = lines(body(entries, "journal.jsonl"));
        all.pop();
        *body(entries, "journal.jsonl") = unlines(&all);
    });
    assert!(cut.has(Reason::JournalHeadMismatch) && cut.has(Reason::SessionUnfinished));
}

#[test]
fn another_head_of_the_journal() {
    for (field, other) in [("head", "0".repeat(64)), ("lines", "3".to_owned()), ("schema_id", "x".to_owned())]
    {
        let changed = inside(|entries| {
            let mut sealed: Value = serde_json::from_slice(body(entries, "journal.digest")).unwrap();
            sealed[field] = other.into();
            *body(entries, "journal.digest") = canonical(&sealed).unwrap();
        });
        assert!(changed.has(Reason::JournalHeadMismatch), "{field}");
        assert_eq!(changed.findings.len(), 1);
    }
}

fn at(values: &[Value], kind: &str) -> usize {
    values.iter().position(|value| value["kind"] == kind).unwrap()
}

/// A journal that is chained anew: only what it tells gives it away.
fn retold(edit: impl FnOnce(&mut Vec<Value>)) -> VerifyReport {
    inside(|entries| rechain(entries, edit))
}

#[test]
fn a_journal_that_tells_another_story() {
    let report = retold(|all| drop(all.pop()));
    assert!(report.has(Reason::SessionUnfinished));
    let report = retold(|all| drop(all.remove(0)));
    assert!(report.has(Reason::SessionNotStarted));
    let report = retold(|all| all.push(all[at(all, "note")].clone()));
    assert!(report.has(Reason::AfterSessionEnd));
    let report = retold(|all| all.insert(1, all[0].clone()));
    assert!(report.has(Reason::JournalInvalid));
    let report = retold(|all| drop(all.remove(at(all, "loss"))));
    assert!(report.has(Reason::UnaccountedLoss));
    let report = retold(|all| drop(all.remove(at(all, "repeat"))));
    assert!(report.has(Reason::TotalsMismatch));
    let report = retold(|all| {
        let repeat = at(all, "repeat");
        all[repeat]["counts"][0]["count"] = "1000".into();
    });
    assert!(report.has(Reason::TotalsMismatch));
    let report = retold(|all| {
        let repeat = at(all, "repeat");
        all[repeat]["counts"][0]["intent_id"] = "intent_9".into();
    });
    assert!(report.has(Reason::TraceUnknown));
    let report = retold(|all| drop(all.remove(at(all, "record"))));
    assert!(report.has(Reason::TraceUnknown));
    let report = retold(|all| {
        let record = at(all, "record");
        all[record]["pid"] = 100.into();
    });
    assert!(report.has(Reason::JournalInvalid));
    let report = retold(|all| {
        let record = at(all, "record");
        all[record]["at"] = "2020-01-01T00:00:00Z".into();
    });
    assert!(report.has(Reason::JournalInvalid), "the event id covers the time");
    let report = retold(|all| {
        let mut extra = all[at(all, "record")].clone();
        extra.as_object_mut().unwrap().remove("intent_id");
        all.insert(2, extra);
    });
    assert!(report.has(Reason::JournalInvalid));
    let report = retold(|all| all[0]["run_id"] = "run_other".into());
    assert!(report.has(Reason::RunMismatch));
    let report = retold(|all| all[0]["policy_digest"] = Digest::ZERO.to_string().into());
    assert!(report.has(Reason::PolicyMismatch));
    let report = retold(|all| all[0]["key_id"] = Digest::ZERO.to_string().into());
    assert!(report.has(Reason::KeyMismatch));
    let report = retold(|all| {
        let other = SigningKey::from_seed([66; 32]).verify_key();
        all[0]["key_id"] = other.key_id().to_string().into();
        all[0]["public_key"] = other.to_base64().into();
    });
    assert!(report.has(Reason::KeyMismatch));
    let report = retold(|all| {
        let end = all.len() - 1;
        all[end]["losses"] = "0".into();
    });
    assert!(report.has(Reason::UnaccountedLoss));
}

#[test]
fn parts_of_another_session() {
    let changed = inside(|entries| *body(entries, "coverage.json") = b"{\"backend\":\"other\"}".to_vec());
    assert!(changed.has(Reason::CoverageMismatch));
    let changed = inside(|entries| {
        let text = String::from_utf8(body(entries, "run.json").clone()).unwrap();
        *body(entries, "run.json") = text.replace("run_test", "run_other").into_bytes();
    });
    assert!(changed.has(Reason::RunMismatch));

    let mut other = entries();
    let mut manifest: Value = serde_json::from_slice(body(&mut other, "manifest.json")).unwrap();
    manifest["run_id"] = "run_other".into();
    resign(&mut manifest, &key());
    *body(&mut other, "manifest.json") = canonical(&manifest).unwrap();
    assert!(report(&other).has(Reason::RunMismatch));
}

#[test]
fn documents_of_another_kind_or_generation() {
    for (name, from, to) in [
        ("run.json", "\"1.0.0\"", "\"2.0.0\""),
        ("run.json", "gait.runpack.run", "gait.runpack.ran"),
        ("run.json", "{\"created_at\"", "{\"run_id\":\"run_test\",\"created_at\""),
        ("refs.json", "\"1.0.0\"", "\"2.0.0\""),
        ("refs.json", "\"receipts\":[]", "\"receipts\":{}"),
        ("refs.json", "\"receipts\":[]", "\"receipts\":NaN"),
    ] {
        let changed = inside(|entries| {
            let text = String::from_utf8(body(entries, name).clone()).unwrap();
            assert!(text.contains(from), "{name} {from}");
            *body(entries, name) = text.replacen(from, to, 1).into_bytes();
        });
        assert!(changed.has(Reason::DocumentInvalid), "{name} {to}");
        assert_eq!(changed.findings.len(), 1, "{name} {to}");
    }
    let changed = inside(|entries| {
        let text = String::from_utf8(body(entries, "refs.json").clone()).unwrap();
        *body(entries, "refs.json") = text.replace("run_test", "run_other").into_bytes();
    });
    assert!(changed.has(Reason::RunMismatch));
}

/// Every byte before and after the contents is accounted for, too.
#[test]
fn a_changed_byte_anywhere_in_headers() {
    let bytes = repack(&entries());
    let headers: Vec<_> = (0..bytes.len())
        .filter(|&at| bytes[at..].starts_with(b"PK\x03\x04"))
        .flat_map(|at| at..at + 30)
        .chain(
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"PK\x01\x02")).flat_map(|at| at..at + 46),
        )
        .chain(bytes.len() - 22..bytes.len())
        .collect();
    assert_eq!(headers.len(), 9 * 76 + 22);
    for at in headers {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, &changed).unwrap();
        let holds = verify(&path, &VerifyOptions::default()).is_ok_and(|report| report.ok());
        assert!(!holds, "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_changed_byte_of_a_file_never_holds(file in 0_usize..9, at in any::<prop::sample::Index>(), with in 1_u8..) {
        thread_local!(static ENTRIES: Entries = entries());
        let mut changed = ENTRIES.with(Clone::clone);
        let bytes = &mut changed[file].1;
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        prop_assert!(!report(&changed).ok());
    }

    /// Even with head and manifest sealed anew. The last line has no successor: its proof is the sealed head, and the
    /// line feed before it only says where it starts (`the_last_two_lines_joined`).
    #[test]
    fn one_changed_byte_of_a_journal_breaks_the_chain(at in any::<prop::sample::Index>(), with in 1_u8..) {
        thread_local!(static ENTRIES: Entries = entries());
        let mut changed = ENTRIES.with(Clone::clone);
        let bytes = body(&mut changed, "journal.jsonl");
        let at = at.index(last_line_feed(bytes));
        bytes[at] ^= with;
        rehead(&mut changed);
        remanifest(&mut changed, &key());
        prop_assert!(report(&changed).has(Reason::ChainBroken));
    }
}

/// Where the line before the last one ends.
fn last_line_feed(journal: &[u8]) -> usize {
    journal.len() - lines(journal).last().unwrap().len() - 2
}

/// What is left of the two is no line, whatever stands where the line feed stood, with head and manifest sealed anew.
#[test]
fn the_last_two_lines_joined() {
    let entries = entries();
    for with in 1..=u8::MAX {
        let mut changed = entries.clone();
        let bytes = body(&mut changed, "journal.jsonl");
        let at = last_line_feed(bytes);
        assert_eq!(bytes[at], b'\n');
        bytes[at] ^= with;
        rehead(&mut changed);
        remanifest(&mut changed, &key());
        let report = report(&changed);
        assert!(report.has(Reason::JournalInvalid) && report.has(Reason::SessionUnfinished), "{with}");
    }
}

#[test]
fn every_reason_is_documented_and_provoked() {
    let tests = concat!(include_str!("tamper.rs"), include_str!("reference.rs"));
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/contracts/evidence.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table: String = Reason::ALL
        .iter()
        .map(|reason| format!("| `{}` | {} |\n", reason.code(), reason.meaning()))
        .collect();
    assert!(page.contains(&table), "docs/contracts/evidence.md should have this table:\n{table}");
    for reason in Reason::ALL {
        assert!(tests.contains(&format!("has(Reason::{reason:?})")), "no test provokes {reason}");
    }
}
