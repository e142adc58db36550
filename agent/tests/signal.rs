//! The signal report against the reference's own, and against disturbed inputs.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs::File;
use std::path::{Path, PathBuf};

use gait_agent::runpack::{IntentEntry, Payloads, Receipt, ResultEntry, RunRecord, pack};
use gait_agent::scout::{ObserveError, SideEvidence, SignalReport, TopActions, observe, observe_all};
use gait_agent::sign::Digest;
use gait_agent::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

const RECORD: &[u8] = include_bytes!("vectors/inputs/run_record.json");

fn write(dir: &Path, name: &str, record: RunRecord) -> PathBuf {
    let path = dir.join(name);
    let record = record.complete(Timestamp::UNSET, Payloads::Strip).unwrap();
    pack(&record, None, File::create(&path).unwrap()).unwrap();
    path
}

fn report(paths: &[PathBuf], side: &SideEvidence) -> SignalReport {
    SignalReport::build(observe_all(paths, side).into_iter().map(Result::unwrap).collect())
}

/// The runpack of the contract's demo: three intents, three receipts.
fn demo() -> RunRecord {
    let digest = |text: String| Digest::sha256(text.as_bytes()).to_string();
    let names = ["tool.search", "tool.fetch", "tool.summarize"];
    let mut record = RunRecord::default();
    record.run.run_id = "run_demo".into();
    for (at, name) in names.into_iter().enumerate() {
        let id = format!("intent_{}", at + 1);
        record.intents.push(IntentEntry {
            intent_id: id.clone(),
            tool_name: name.into(),
            args_digest: digest(String::new()),
            ..IntentEntry::default()
        });
        record.results.push(ResultEntry {
            intent_id: id,
            status: "ok".into(),
            result_digest: digest(String::new()),
            ..ResultEntry::default()
        });
        record.refs.receipts.push(Receipt {
            ref_id: format!("ref_{}", at + 1),
            source_type: "demo".into(),
            source_locator: name.into(),
            query_digest: digest(format!("query-{}", at + 1)),
            content_digest: digest(format!("content-{}", at + 1)),
            ..Receipt::default()
        });
    }
    record
}

/// What differs from the reference on purpose: who made it, where the file lies, and the words of suggestions.
fn without_our_own(mut report: Value) -> Value {
    report.as_object_mut().unwrap().remove("producer_version");
    for list in ["fingerprints", "families", "top_issues"] {
        for one in report[list].as_array_mut().unwrap() {
            for key in ["producer_version", "source_runpack", "artifact_pointers"] {
                one.as_object_mut().unwrap().remove(key);
            }
            for suggestion in one.get_mut("suggestions").and_then(Value::as_array_mut).into_iter().flatten() {
                suggestion.as_object_mut().unwrap().remove("summary");
            }
        }
    }
    report
}

#[test]
fn the_report_of_the_vector_is_the_references() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "runpack_run_vec.zip", RunRecord::from_json(RECORD).unwrap());
    let ours = serde_json::to_value(report(&[path], &SideEvidence::default())).unwrap();
    let expected: Value = serde_json::from_slice(include_bytes!("vectors/expected_v17.json")).unwrap();
    assert_eq!(without_our_own(ours), without_our_own(expected["scout"]["report"].clone()));
}

#[test]
fn the_demo_has_the_references_fingerprint_and_score() {
    let dir = tempfile::tempdir().unwrap();
    let report = report(&[write(dir.path(), "demo.zip", demo())], &SideEvidence::default());
    let family = &report.families[0];
    assert_eq!(
        family.fingerprint.to_string(),
        "fc2118d76b8a1f629dc13367e1ab2304f6dd3362071e30fd1b07d3b795e9474f"
    );
    assert_eq!((family.severity_score, family.severity_level), (76, "medium"));
    assert_eq!((family.risk, &family.top_failure_reason), (None, &None));
}

#[test]
fn other_files_change_reasons_scores_and_drivers() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [write(dir.path(), "demo.zip", demo())];
    let mut side = SideEvidence::default();
    side.add_trace(
        br#"{"schema_id":"gait.gate.trace","verdict":"block","violations":["policy_x"],"run_id":"run_demo"}"#,
    )
    .unwrap();
    side.add_regress(
        br#"{"schema_id":"gait.regress.result","graders":[{"name":"run_demo/diff","status":"fail"}]}"#,
    )
    .unwrap();
    let report = report(&paths, &side);
    let entry = &report.fingerprints[0];
    assert_eq!(
        entry.facts.reason_code_vector,
        ["regress_failure", "trace_verdict_block", "violation_policy_x"]
    );
    assert_eq!((entry.trace_count, entry.regress_evidence_seen), (1, true));
    // 76, and 20 for the policy, and 3 reasons.
    assert_eq!(report.families[0].severity_score, 76 + 20 + 3);
    assert_eq!(report.families[0].drivers, ["policy_change"]);
}

#[test]
fn equal_runs_are_one_family_and_at_most_ten_issues_are_at_the_top() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for at in 0..12_usize {
        for twin in 0..=usize::from(at == 3) {
            let mut record = demo();
            record.run.run_id = format!("run_{at:02}_{twin}");
            record.intents[0].tool_name = format!("tool.search{at}");
            paths.push(write(dir.path(), &format!("{at}_{twin}.zip"), record));
        }
    }
    let report = report(&paths, &SideEvidence::default());
    assert_eq!((report.run_count, report.family_count, report.top_issues.len()), (13, 12, 10));
    let first = &report.families[0];
    assert_eq!((first.count, &*first.canonical_run_id, first.severity_score), (2, "run_03_0", 77));
    assert_eq!(first.run_ids, ["run_03_0", "run_03_1"]);
    let ids: Vec<_> = report.families[1..].iter().map(|family| &family.family_id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn a_runpack_that_was_changed_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "demo.zip", demo());
    let side = SideEvidence::default();
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, changed).unwrap();
        // Fields of the container that no reader heeds, such as times, may change: then the report may not.
        if let Ok(run) = observe(&path, &side) {
            let text = SignalReport::build(vec![run]).to_file_text().unwrap();
            assert!(text.contains("fc2118d76b8a1f62"), "byte {at}");
        }
    }
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    assert!(matches!(observe(&path, &side), Err(ObserveError::Broken(_))));
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(observe(&path, &side), Err(ObserveError::Verify(_))));
    assert!(matches!(observe(&dir.path().join("none.zip"), &side), Err(ObserveError::Verify(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn any_order_of_inputs_gives_equal_bytes(order in Just((0..9_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..9_usize).map(|at| {
            let mut record = demo();
            record.run.run_id = format!("run_{}", at / 2);
            record.results[0].status = ["ok", "error", "timeout"][at % 3].into();
            write(dir.path(), &format!("{at}.zip"), record)
        }).collect();
        let shuffled: Vec<PathBuf> = order.iter().map(|&at| paths[at].clone()).collect();
        let side = SideEvidence::default();
        prop_assert_eq!(
            report(&paths, &side).to_file_text().unwrap(),
            report(&shuffled, &side).to_file_text().unwrap()
        );
    }
}

#[test]
fn top_actions_are_scored_by_the_contracts_formula_and_capped() {
    let dir = tempfile::tempdir().unwrap();
    let vector = write(dir.path(), "vec.zip", RunRecord::from_json(RECORD).unwrap());
    let trace = |id: &str, verdict: &str| {
        format!(
            r#"{{"schema_id":"gait.gate.trace","trace_id":"{id}","tool_name":"tool.write","verdict":"{verdict}",
                "violations":["internal_x"]}}"#
        )
    };
    let report = |limit: usize, order: [&str; 2]| {
        let mut top = TopActions::new(limit);
        top.add_runpack(&vector).unwrap();
        for id in order {
            let verdict = if id == "a" { "block" } else { "require_approval" };
            top.add_trace(trace(id, verdict).as_bytes(), Path::new(id)).unwrap();
        }
        top.finish().unwrap()
    };
    let all = report(5, ["a", "b"]);
    let rows: Vec<_> = all.top_actions.iter().map(|it| (it.rank, it.score, it.tool_name.as_str())).collect();
    assert_eq!(
        rows,
        [
            // Destructive, a production target, one reason.
            (1, 400 + 30 + 1, "tool.delete"),
            // Write, an internal word, blocked, verdict and violation.
            (2, 300 + 20 + 15 + 3, "tool.write"),
            (3, 300 + 20 + 12 + 4, "tool.write"),
            (4, 100 + 30, "http.fetch"),
        ]
    );
    assert_eq!((all.run_count, all.trace_count, all.action_count), (2, 2, 4));
    assert_eq!(all.top_actions[1].run_id, "unknown");
    assert_eq!(report(5, ["b", "a"]), all);
    assert_eq!(report(1, ["a", "b"]).top_actions, all.top_actions[..1]);
    assert!(TopActions::new(5).finish().is_none());
}
