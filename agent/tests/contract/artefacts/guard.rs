//! Evidence packs: the manifest and the summaries beside it (contract §21).

use gait_agent::pack::{Control, Entry, Manifest, Pointer, Window};
use gait_agent::schema;

use super::gate::SIGNATURE;
use super::{COMMON, RUN_ID};
use crate::names::names;
use crate::shape::Shape::{
    Base64, Const, Count, Decimal, Digest, List, Map, Name, OrNull, RunId, Set, Text, Time, Words,
};
use crate::shape::{Field, Record, Shape, optional, required};

const KIND: Shape = Words(|| vec!["evidence", "report", "runpack", "trace"]);
const FILE: &[Field] = &[
    required("path", Name, "The file."),
    required("type", KIND, "What it is."),
    required("sha256", Digest, "The digest of its contents."),
];

static ENTRY: Record = Record::typed(&[FILE], names::<Entry>);

static CONTROL: Record = Record::typed(
    &[&[
        required("control_id", Name, "Its id in its catalogue."),
        required("title", Text, "What it is about."),
        required("evidence_paths", Set(&Text), "The files that answer it; sorted."),
    ]],
    names::<Control>,
);

static POINTER: Record =
    Record::typed(&[&[required("pointer_id", Text, "`ev_001` and on.")], FILE], names::<Pointer>);

static WINDOW: Record = Record::typed(
    &[&[
        required("from", Time, "Its beginning."),
        required("to", Time, "Its end."),
        required("window_seconds", Count, "Seconds on either side of the run."),
        required("selection_anchor", RunId, "The run."),
    ]],
    names::<Window>,
);

pub(super) const CONTROL_INDEX: Shape = List(&Shape::Record(&CONTROL));
pub(super) const POINTERS: Shape = List(&Shape::Record(&POINTER));

pub(super) static MANIFEST: Record = Record::typed(
    &[
        &[
            required("schema_id", Const("gait.guard.pack_manifest"), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        RUN_ID,
        &[
            required("pack_id", Text, "`pack_` and the beginning of the digest of run and contents."),
            optional("case_id", Text, "The case, as somebody else numbers it."),
            required("template_id", Text, "The template of the index."),
            required("generated_at", Time, "When the run began, so that equal evidence gives equal packs."),
            required("control_index", CONTROL_INDEX, "What answers which control."),
            required("evidence_pointers", POINTERS, "Every piece of evidence."),
            optional("incident_window", Shape::Record(&WINDOW), "The time of an incident."),
            required("contents", List(&Shape::Record(&ENTRY)), "Every other entry; sorted."),
            optional("public_key", Base64, "The key of the signatures, if no other is trusted."),
            optional("signatures", List(&Shape::Record(&SIGNATURE)), "Over this document without them."),
        ],
    ],
    names::<Manifest>,
);

pub(super) static RUNPACK_SUMMARY: Record = Record::new(&[
    RUN_ID,
    &[
        required("manifest_digest", Digest, "The runpack."),
        required("capture_mode", Words(|| vec!["raw", "reference"]), "How it was captured."),
        required("intent_count", Count, "Intents."),
        required("result_count", Count, "Results."),
        required("receipt_count", Count, "Receipts."),
    ],
]);

static RECEIPT: Record = Record::new(&[&[
    required("ref_id", Text, "The receipt."),
    required("source_type", Text, "Its kind."),
    required("source_locator", Text, "Where it is from."),
    required("content_digest", Text, "What was there."),
    required("retrieved_at", OrNull(&Time), "When."),
]]);

pub(super) static REFERENCES: Record = Record::new(&[
    RUN_ID,
    &[
        required("references", Count, "How many."),
        required("receipts", List(&Shape::Record(&RECEIPT)), "The receipts, by id."),
    ],
]);

pub(super) static SESSION_SUMMARY: Record = Record::new(&[
    RUN_ID,
    &[
        required("backend", OrNull(&Text), "What enforced."),
        required("program", OrNull(&Text), "The program that was started."),
        required("policy_digest", OrNull(&Digest), "The policy."),
        required("started_at", OrNull(&Time), "When the session began."),
        required("ended_at", OrNull(&Time), "When it ended."),
        required("ending", OrNull(&Text), "`exited:<n>`, `killed:<n>` or `aborted`."),
        required("decisions", Decimal, "Distinct decisions."),
        required("losses", Decimal, "Events that were not seen."),
        required("approvals", Decimal, "Questions that were answered."),
        required("totals", Map(&Map(&Decimal)), "Class to verdict to events."),
    ],
]);

static TRACE: Record = Record::new(&[&[
    required("trace_id", Text, "The decision."),
    required("tool_name", Text, "The tool."),
    required("verdict", Text, "What was decided."),
]]);

pub(super) static TRACE_SUMMARY: Record = Record::new(&[&[
    required("traces", List(&Shape::Record(&TRACE)), "The traces, by id."),
    required("verdict_counts", Map(&Count), "How many of each verdict."),
    required("total", Count, "How many."),
]]);

static REGRESS: Record = Record::new(&[&[
    required("fixture_set", Text, "The set."),
    required("status", Text, "Whether it passed."),
    required("graders", Count, "How many graders."),
]]);

pub(super) static REGRESS_SUMMARY: Record = Record::new(&[&[
    required("results", List(&Shape::Record(&REGRESS)), "The results, by set."),
    required("status_counts", Map(&Count), "How many of each status."),
    required("total", Count, "How many."),
]]);

pub(super) static POLICY_DIGESTS: Record = Record::new(&[
    RUN_ID,
    &[
        required("window_from", Time, "The beginning of the incident's time."),
        required("window_to", Time, "Its end."),
        required("policy_digests", Set(&Text), "The policies that were in force then."),
    ],
]);
