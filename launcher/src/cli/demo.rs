//! `gait demo`: a first runpack in a second, made and verified by the code that makes every other one.
//!
//! Three tool calls of an imaginary agent (contract §18.8). Everything is fixed, times included, so that the demo gives
//! the same bytes each time and its footer can be compared.

use std::path::Path;

use gait_agent::runpack::{
    Env, IntentEntry, Payloads, Receipt, Refs, ResultEntry, Run, RunRecord, TimelineEvent,
};
use gait_agent::sign::Digest;
use gait_agent::timestamp::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::run::write_failed;
use super::{Answer, CliError, ErrorCode};
use crate::described_run;
use crate::run_id::runpack_path;

const RUN_ID: &str = "run_demo";
const OUT_DIR: &str = "./gait-out";
/// 2026-02-05T00:00:00Z.
const STARTED_NS: u64 = 1_770_249_600_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

const NEXT: [&str; 3] =
    ["gait verify run_demo", "gait run inspect --from run_demo", "gait run receipt --from run_demo"];

#[derive(Serialize)]
struct Report {
    mode: &'static str,
    run_id: String,
    bundle: String,
    manifest_digest: String,
    ticket_footer: String,
    verify: &'static str,
    next_commands: [&'static str; 3],
}

/// Records, packs and verifies the demo run.
///
/// # Errors
///
/// A directory that cannot be written.
pub(super) fn demo() -> Result<Answer, CliError> {
    let place = runpack_path(Path::new(OUT_DIR), RUN_ID);
    let record = described()
        .complete(Timestamp::UNSET, Payloads::Strip)
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "describe the demo").because(error))?;
    // Writing verifies; what does not hold does not appear.
    let (sealed, _) =
        described_run::write(&record, None, &place).map_err(|error| write_failed(&place, error))?;
    let report = Report {
        mode: "standard",
        bundle: place.display().to_string(),
        manifest_digest: sealed.manifest_digest.to_string(),
        ticket_footer: sealed.ticket_footer(),
        verify: "ok",
        next_commands: NEXT,
        run_id: sealed.run_id,
    };
    let text = format!(
        "run_id={}\nbundle={}\nticket_footer={}\nverify={}\nnext={}",
        report.run_id,
        report.bundle,
        report.ticket_footer,
        report.verify,
        NEXT.join(",")
    );
    Answer::ok(&report, text)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_nanos(STARTED_NS + seconds * SECOND_NS)
}

fn described() -> RunRecord {
    let calls = [
        ("tool.search", json!({"query": "what does gait record"})),
        ("tool.fetch", json!({"source": "ref_2"})),
        ("tool.summarize", json!({"sources": ["ref_1", "ref_2", "ref_3"]})),
    ];
    let intents = (1..).zip(calls).map(|(number, (tool_name, args)): (usize, _)| IntentEntry {
        intent_id: format!("intent_{number}"),
        tool_name: tool_name.to_owned(),
        args: Some(args),
        ..IntentEntry::default()
    });
    let results = (1..=3).map(|number| ResultEntry {
        intent_id: format!("intent_{number}"),
        status: "ok".to_owned(),
        result: Some(json!({"ok": true, "message": format!("demo result {number}")})),
        ..ResultEntry::default()
    });
    let receipts = (1..=3).map(|number| Receipt {
        ref_id: format!("ref_{number}"),
        source_type: "demo".to_owned(),
        source_locator: format!("demo/source-{number}"),
        query_digest: Digest::sha256(format!("query-{number}").as_bytes()).to_string(),
        content_digest: Digest::sha256(format!("content-{number}").as_bytes()).to_string(),
        retrieved_at: Some(at(0)),
        redaction_mode: "reference".to_owned(),
        ..Receipt::default()
    });
    let event = |event: &str, seconds| TimelineEvent {
        event: event.to_owned(),
        ts: at(seconds),
        reference: String::new(),
    };
    RunRecord {
        run: Run {
            created_at: Some(at(0)),
            run_id: RUN_ID.to_owned(),
            env: Env { os: "demo".to_owned(), arch: "demo".to_owned(), runtime: "demo".to_owned() },
            timeline: Some(vec![event("start", 0), event("finish", 2)]),
            ..Run::default()
        },
        intents: intents.collect(),
        results: results.collect(),
        refs: Refs { receipts: receipts.collect(), ..Refs::default() },
        capture_mode: "reference".to_owned(),
    }
}
