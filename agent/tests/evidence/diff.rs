//! What the difference of two runs tells, and what it leaves out.

use std::fs::File;

use gait_agent::endpoint::{EndpointClass, Operation};
use gait_agent::gate::Verdict;
use gait_agent::runpack::{
    Diff, Payloads, Privacy, Reason, RunRecord, Runpack, VerifyOptions, compared_entries, diff, pack,
    verify_seal, verify_seal_of,
};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{Observation, RecorderOptions};
use serde_json::{Value, json};

use crate::session_kit::{Session, body, key, path_action, reasons, repack, seen, session, unpack};

const INPUT: &[u8] = include_bytes!("../vectors/inputs/run_record.json");

/// A session with these reads and unlinks, in this order.
fn decided(events: &[(Operation, &str, Verdict)]) -> Session {
    session(&key(), RecorderOptions::default(), |recorder| {
        for (at, (operation, path, verdict)) in events.iter().enumerate() {
            let event = seen(at as u64, path_action(*operation, path), *verdict);
            recorder.observe(&event, reasons).unwrap();
        }
    })
}

fn compare(left: &Session, right: &Session, privacy: Privacy) -> Diff {
    let open = |session: &Session| Runpack::open(&session.runpack()).unwrap();
    diff(&mut open(left), &mut open(right), privacy).unwrap()
}

const READ: (Operation, &str, Verdict) = (Operation::Read, "/etc/hosts", Verdict::Allow);
const WIPE: (Operation, &str, Verdict) = (Operation::Unlink, "/w/a", Verdict::Allow);

#[test]
fn the_order_and_number_of_events_do_not_count() {
    let found = compare(&decided(&[READ, WIPE, WIPE]), &decided(&[WIPE, READ, READ]), Privacy::Full);
    assert!(!found.changed(), "{found:?}");
    let decisions = found.decisions.unwrap();
    assert_eq!((decisions.unchanged_count, decisions.new_count, decisions.vanished_count), (2, 0, 0));
    assert_eq!(decisions.policy_digest_left, decisions.policy_digest_right);
}

#[test]
fn new_vanished_and_changed_decisions_are_told_by_class_target_and_verdict() {
    let left = decided(&[READ, WIPE]);
    let blocked = (Operation::Unlink, "/w/a", Verdict::Block);
    let other = (Operation::Read, "/etc/shadow", Verdict::Block);
    let found = compare(&left, &decided(&[other, blocked]), Privacy::Full);
    assert!(found.changed() && found.intents_changed && found.results_changed);
    assert_eq!(
        (found.left_only_intents, found.right_only_intents),
        (vec!["intent_1".into()], vec!["intent_1".into()])
    );
    let decisions = found.decisions.unwrap();
    assert_eq!(decisions.vanished[0].key.target, "/etc/hosts");
    assert_eq!(decisions.new[0].key.endpoint_class, EndpointClass::FsRead);
    let changed = json!(decisions.changed);
    let want = json!([{"endpoint_class": "fs.delete", "kind": "path", "target": "/w/a", "operation": "unlink",
        "left": ["allow"], "right": ["block"]}]);
    assert_eq!(changed, want);
}

#[test]
fn a_verdict_that_is_not_enforced_counts_by_what_it_would_have_been() {
    let observed = |simulated| {
        session(&key(), RecorderOptions::default(), |recorder| {
            let event = seen(1, path_action(Operation::Read, "/etc/hosts"), Verdict::Allow);
            let event = Observation { enforced: false, simulated_verdict: Some(simulated), ..event };
            recorder.observe(&event, reasons).unwrap();
        })
    };
    let (blocked, allowed) = (observed(Verdict::Block), observed(Verdict::Allow));
    assert!(!compare(&blocked, &blocked, Privacy::Full).changed());
    let decisions = compare(&blocked, &allowed, Privacy::Full).decisions.unwrap();
    assert_eq!(json!(decisions.changed[0].left), json!(["allow (simulated block)"]));
}

#[test]
fn metadata_names_no_target() {
    let found = compare(&decided(&[READ]), &decided(&[WIPE]), Privacy::Metadata);
    let decisions = found.decisions.clone().unwrap();
    assert_eq!((decisions.new_count, decisions.vanished_count), (1, 1));
    assert!(!serde_json::to_string(&found).unwrap().contains("/w/a"));
}

/// Packs the vector's run after `edit`, and reads it back.
fn described(payloads: Payloads, edit: impl FnOnce(&mut Value)) -> Runpack {
    let mut value: Value = serde_json::from_slice(INPUT).unwrap();
    edit(&mut value);
    let record = RunRecord::from_json(&serde_json::to_vec(&value).unwrap()).unwrap();
    let record = record.complete(Timestamp::UNSET, payloads).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    pack(&record, None, File::create(file.path()).unwrap()).unwrap();
    Runpack::open(file.path()).unwrap()
}

#[test]
fn ids_times_and_producers_of_described_runs_do_not_count() {
    let mut left = described(Payloads::Strip, |_| {});
    let mut right = described(Payloads::Strip, |run| {
        run["run"]["run_id"] = "run_other".into();
        run["run"]["producer_version"] = "9".into();
        run["run"]["timeline"][1]["ts"] = "2027-01-01T00:00:00Z".into();
        for list in ["intents", "results"] {
            run[list][0]["created_at"] = "2027-01-01T00:00:00Z".into();
            run[list][0]["producer_version"] = "9".into();
        }
        run["refs"]["receipts"][0]["retrieved_at"] = "2027-01-01T00:00:00Z".into();
    });
    let found = diff(&mut left, &mut right, Privacy::Full).unwrap();
    assert!(!found.changed(), "{found:?}");
    assert_eq!((found.run_id_left.as_str(), found.run_id_right.as_str()), ("run_vec", "run_other"));
    assert_eq!(found.decisions, None);
}

/// A change, and which parts it changes: run, intents, results, refs, manifest.
type Case = (fn(&mut Value), [bool; 5]);

#[test]
fn each_part_of_a_described_run_is_told_apart() {
    let cases: [Case; 6] = [
        (|run| run["run"]["env"]["os"] = "plan9".into(), [true, false, false, false, false]),
        (|run| run["run"]["timeline"][1]["event"] = "abort".into(), [true, false, false, false, false]),
        (|run| run["intents"][1]["tool_name"] = "x".into(), [false, true, false, false, false]),
        (|run| run["results"][0]["status"] = "ok".into(), [false, false, true, false, false]),
        (|run| run["refs"]["receipts"][0]["source_locator"] = "x".into(), [false, false, false, true, false]),
        (|run| run["capture_mode"] = "raw".into(), [false, false, false, false, true]),
    ];
    for (edit, want) in cases {
        let mut left = described(Payloads::Keep, |_| {});
        let found = diff(&mut left, &mut described(Payloads::Keep, edit), Privacy::Full).unwrap();
        let got = [
            found.run_changed,
            found.intents_changed,
            found.results_changed,
            found.refs_changed,
            found.manifest_changed,
        ];
        assert_eq!(got, want, "{found:?}");
        assert!(found.changed());
    }
}

#[test]
fn metadata_looks_at_no_payload_and_only_counts_receipts() {
    let payloads =
        |payloads| described(payloads, |run| run["refs"]["receipts"][0]["source_locator"] = "x".into());
    let (mut kept, mut stripped) = (described(Payloads::Keep, |_| {}), payloads(Payloads::Strip));
    assert!(diff(&mut kept, &mut stripped, Privacy::Full).unwrap().intents_changed);
    assert!(!diff(&mut kept, &mut stripped, Privacy::Metadata).unwrap().changed());
    let mut fewer = described(Payloads::Keep, |run| run["refs"]["receipts"] = json!([]));
    assert!(diff(&mut kept, &mut fewer, Privacy::Metadata).unwrap().refs_changed);
}

#[test]
fn records_of_one_side_are_named_and_a_session_differs_from_a_description() {
    let mut left = described(Payloads::Strip, |_| {});
    let mut right = described(Payloads::Strip, |run| {
        run["intents"][1]["intent_id"] = "intent_3".into();
        run["results"] = json!([]);
    });
    let found = diff(&mut left, &mut right, Privacy::Full).unwrap();
    assert_eq!(
        (found.left_only_intents, found.right_only_intents),
        (vec!["intent_2".into()], vec!["intent_3".into()])
    );
    assert_eq!((found.left_only_results, found.right_only_results), (vec!["intent_1".into()], vec![]));
    let session = decided(&[READ]);
    let mut session = Runpack::open(&session.runpack()).unwrap();
    let found = diff(&mut left, &mut session, Privacy::Full).unwrap();
    assert_eq!(found.files_changed, ["coverage.json", "journal.digest", "journal.jsonl", "traces.jsonl"]);
    assert!(found.manifest_changed && found.decisions.is_none());
}

#[test]
fn a_seal_covers_what_is_compared() {
    let session = decided(&[READ]);
    let (one, other) =
        (Runpack::open(&session.runpack()).unwrap(), Runpack::open(&session.runpack()).unwrap());
    let entries = compared_entries(&one, &other).unwrap();
    let check = |changed: Option<&str>| {
        let mut all = unpack(&session.runpack());
        if let Some(name) = changed {
            // One letter of a value, so that the entry is still what it was to a parser.
            let bytes = body(&mut all, name);
            let at = bytes.iter().rposition(u8::is_ascii_lowercase).unwrap();
            bytes[at] ^= 1;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), repack(&all)).unwrap();
        let options = VerifyOptions::default();
        let whole = verify_seal(file.path(), &options).unwrap();
        let compared = verify_seal_of(file.path(), &options, &entries).unwrap();
        (whole.ok(), compared.ok(), compared.has(Reason::HashMismatch))
    };
    assert_eq!(check(None), (true, true, false));
    for name in entries {
        assert_eq!(check(Some(name)), (false, false, true), "{name}");
    }
    for name in ["journal.jsonl", "intents.jsonl", "coverage.json"] {
        assert_eq!(check(Some(name)), (false, true, false), "{name}");
    }
    assert!(!check(Some("manifest.json")).1);
    assert_eq!(compared_entries(&one, &described(Payloads::Strip, |_| {})), None);
}
