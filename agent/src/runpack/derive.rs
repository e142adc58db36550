//! The contract's intents and results, as they follow from the trace records of a session.
//!
//! Writer and verifier share these functions: a verifier derives the lines anew and compares digests, so the two
//! files cannot tell another story than the signed records.

use crate::gate::Verdict;
use crate::schema;
use crate::sign::{CanonError, ObjectWriter};
use crate::trace::TraceRecord;

/// Appends the n-th line of `intents.jsonl`.
pub(super) fn intent_line(record: &TraceRecord, id: &str, out: &mut Vec<u8>) -> Result<(), CanonError> {
    let mut object = ObjectWriter::new(out);
    if let Some(args) = &record.args {
        object.value("args", args)?;
    }
    object.digest("args_digest", &record.args_digest);
    object.text("created_at", &record.created_at.to_string());
    object.text("intent_id", id);
    object.text("producer_version", &record.producer_version);
    object.text("run_id", record.run_id.as_deref().unwrap_or_default());
    object.text("schema_id", schema::RUNPACK_INTENT);
    object.text("schema_version", schema::VERSION);
    object.text("tool_name", &record.tool_name);
    object.finish();
    out.push(b'\n');
    Ok(())
}

/// Appends the n-th line of `results.jsonl`.
pub(super) fn result_line(record: &TraceRecord, id: &str, out: &mut Vec<u8>) {
    let mut object = ObjectWriter::new(out);
    object.text("created_at", &record.created_at.to_string());
    object.text("intent_id", id);
    object.text("producer_version", &record.producer_version);
    object.digest("result_digest", &record.result_digest());
    object.text("run_id", record.run_id.as_deref().unwrap_or_default());
    object.text("schema_id", schema::RUNPACK_RESULT);
    object.text("schema_version", schema::VERSION);
    object.text("status", status(record));
    object.finish();
    out.push(b'\n');
}

/// The contract knows two words only; what the verdict was stands in the trace record.
fn status(record: &TraceRecord) -> &'static str {
    if record.verdict == Verdict::Allow || record.enforced == Some(false) { "ok" } else { "error" }
}
