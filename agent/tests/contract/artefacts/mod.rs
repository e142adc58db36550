//! The table of artefacts: every document that gait reads or writes, with its schema.
//!
//! To add one: describe its fields as a [`Record`] in the file of its area (`gate`, `runpack`, `exec`, `verbs`, or a new
//! one), add a line to [`ARTEFACTS`], and run `GAIT_BLESS=1 cargo test -p gait-agent --test contract`. Where the Rust
//! type lives in this crate and derives `Deserialize`, make the record `Record::typed(…, names::<Type>)`, and the test
//! holds the fields equal. Where it does not, set `checked_by` to `Output` and add a document that gait really wrote to
//! `launcher/tests/cli/schemas.rs` or `written.rs` beside it, which fail until every property of the schema was seen in one.

pub(crate) mod exec;
mod gate;
mod guard;
mod regress;
mod runpack;
mod runs;
mod scout;
mod verbs;

use crate::shape::Shape::{Digest, Flag, List, RunId, Text, Time, Words};
use crate::shape::{Field, Record, Shape, optional, required};

/// What holds an artefact's description to the code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckedBy {
    /// The Rust types and the fixtures of a primitive.
    Fixtures(&'static str),
    /// The Rust types, and evidence that was recorded for the fixtures.
    Types,
    /// Documents that gait really writes, in the launcher's tests.
    Output,
}

/// A document with a schema.
pub(crate) struct Artefact {
    /// The schema's file below `docs/contracts/schemas/v1/`, without its ending.
    pub(crate) file: &'static str,
    /// What it is.
    pub(crate) title: &'static str,
    pub(crate) shape: Shape,
    pub(crate) checked_by: CheckedBy,
}

const fn artefact(
    file: &'static str,
    title: &'static str,
    record: &'static Record,
    checked_by: CheckedBy,
) -> Artefact {
    Artefact { file, title, shape: Shape::Record(record), checked_by }
}

use CheckedBy::{Fixtures, Output, Types};

/// Every artefact.
pub(crate) static ARTEFACTS: &[Artefact] = &[
    artefact("exec/coverage", "Coverage of a session", &exec::COVERAGE, Types),
    artefact("exec/journal_digest", "Sealed head of a journal", &exec::HEAD, Types),
    Artefact {
        file: "exec/journal_line",
        title: "Line of a journal",
        shape: Shape::OneOf(&exec::LINES),
        checked_by: Types,
    },
    artefact("gate/approval_audit_record", "Approval audit record", &gate::APPROVAL_AUDIT, Output),
    artefact("gate/approval_token", "Approval token", &gate::APPROVAL_TOKEN, Output),
    artefact("gate/broker_credential_record", "Broker credential record", &gate::CREDENTIAL, Output),
    artefact("gate/broker_request", "Request to a credential broker", &gate::BROKER_REQUEST, Output),
    artefact("gate/gate_eval_output", "Answer of `gait gate eval --json`", &gate::EVAL_OUTPUT, Output),
    artefact("gate/gate_result", "GateResult", &gate::GATE_RESULT, Fixtures("gate_result")),
    artefact("gate/intent_request", "IntentRequest", &gate::INTENT_REQUEST, Fixtures("intent_request")),
    artefact("gate/rate_limit_state", "Rate limit state", &gate::RATE_LIMIT_STATE, Output),
    artefact("gate/trace_record", "TraceRecord", &gate::TRACE, Fixtures("trace_record")),
    Artefact {
        file: "guard/control_index",
        title: "Controls and what answers them",
        shape: guard::CONTROL_INDEX,
        checked_by: Output,
    },
    Artefact {
        file: "guard/evidence_pointers",
        title: "Numbered evidence of a pack",
        shape: guard::POINTERS,
        checked_by: Output,
    },
    artefact("guard/pack_manifest", "Manifest of an evidence pack", &guard::MANIFEST, Output),
    artefact("guard/policy_digests", "Policies of an incident", &guard::POLICY_DIGESTS, Output),
    artefact("guard/referenced_runpacks", "Receipts of a run in a pack", &guard::REFERENCES, Output),
    artefact("guard/regress_summary", "Regression results of a pack", &guard::REGRESS_SUMMARY, Output),
    artefact("guard/runpack_summary", "Run of a pack", &guard::RUNPACK_SUMMARY, Output),
    artefact("guard/session_summary", "Session of a pack", &guard::SESSION_SUMMARY, Output),
    artefact("guard/trace_summary", "Traces of a pack", &guard::TRACE_SUMMARY, Output),
    artefact(
        "policytest/policy_test_output",
        "Answer of `gait policy test --json`",
        &verbs::POLICY_TEST,
        Output,
    ),
    artefact("regress/regress_config", "gait.yaml, the fixtures of a suite", &regress::CONFIG, Output),
    artefact("regress/regress_fixture", "fixture.json", &regress::FIXTURE, Output),
    artefact("regress/regress_result", "regress_result.json", &regress::RESULT, Output),
    artefact("regress/regress_review", "Review of a change of policy", &regress::REVIEW, Output),
    artefact(
        "regress/regress_review_output",
        "Answer of `gait regress run --policy --json`",
        &regress::REVIEW_OUTPUT,
        Output,
    ),
    artefact("report/top_actions", "Actions that can do most harm", &scout::TOP, Output),
    artefact("runpack/intent", "Line of intents.jsonl", &runpack::INTENT, Fixtures("intent_entry")),
    artefact("runpack/manifest", "Manifest of a runpack", &runpack::MANIFEST, Fixtures("runpack_manifest")),
    artefact("runpack/reduce_report", "What reducing a run left out", &runs::REDUCE_REPORT, Output),
    artefact("runpack/refs", "References of a runpack", &runpack::REFS, Fixtures("refs")),
    artefact("runpack/replay_output", "Answer of `gait run replay --json`", &runs::REPLAY, Output),
    artefact("runpack/result", "Line of results.jsonl", &runpack::RESULT, Fixtures("result_entry")),
    artefact("runpack/run", "Run of a runpack", &runpack::RUN, Fixtures("run")),
    artefact("runpack/run_diff", "Difference of two runs", &runs::DIFF, Output),
    artefact("runpack/run_diff_output", "Answer of `gait run diff --json`", &runs::DIFF_OUTPUT, Output),
    artefact("runpack/run_record", "Run as a caller describes it", &runpack::RUN_RECORD, Types),
    artefact("scout/inventory_diff", "Difference of two inventories", &scout::SNAPSHOT_DIFF, Output),
    artefact("scout/inventory_snapshot", "What tools a directory holds", &scout::SNAPSHOT, Output),
    artefact("scout/run_fingerprint", "Fingerprint of a run", &scout::FINGERPRINT, Output),
    artefact("scout/signal_report", "Families of runs, ranked", &scout::SIGNAL, Output),
    artefact("verbs/doctor_output", "Answer of `gait doctor --json`", &verbs::DOCTOR, Output),
    artefact("verbs/failure_output", "Answer of any verb with `--json` that failed", &verbs::FAILURE, Output),
    artefact("verbs/verify_output", "Answer of `gait verify --json`", &verbs::VERIFY, Output),
];

/// Schemas that stand elsewhere, with their own test: where, and the file here.
pub(crate) const COPIED: &[(&str, &str)] = &[("policies/schema/policy.schema.json", "gate/policy")];

const COMMON: &[Field] = &[
    required("created_at", Time, "When it arose."),
    required("producer_version", Text, "The version of the producer."),
];

const RUN_ID: &[Field] = &[required("run_id", RunId, "The run.")];

const SIGNATURE_FIELDS: &[Field] = &[
    required("alg", Words(|| vec!["ed25519"]), "The algorithm."),
    required("key_id", Digest, "The digest of the 32 bytes of the public key."),
    required("sig", Shape::Base64, "The 64 bytes of the signature."),
    optional("signed_digest", Digest, "The digest that was signed; always written."),
];

/// What every answer with `--json` has besides its own fields; fields that are empty are left out.
const ENVELOPE: &[Field] = &[
    required("ok", Flag, "Whether the command did what it was asked to."),
    required("correlation_id", Shape::ShortId, "Of the command line."),
];

const WARNINGS: &[Field] = &[optional("warnings", List(&Text), "What the person should know besides.")];

/// What an answer has besides if the command failed and has something to say nevertheless.
const ALSO_FAILED: &[Field] = &[
    optional("error", Text, "What went wrong."),
    optional("error_code", Text, "Its stable code."),
    optional("error_category", Text, "Its category."),
    optional("retryable", Flag, "Whether trying again may help."),
    optional("hint", Text, "What to do."),
];
