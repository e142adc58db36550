//! What stands in a runpack (contract §16).

use gait_agent::runpack::{
    Env, FileDigest, IntentEntry, Manifest, Receipt, Refs, ResultEntry, Run, RunRecord, TimelineEvent,
};
use gait_agent::schema;

use super::gate::SIGNATURE;
use super::{COMMON, RUN_ID};
use crate::names::names;
use crate::shape::Shape::{
    Anything, Base64, Const, Digest, List, MaybeDigest, Name, Object, OrNull, RunId, Set, Text, Time, Words,
};
use crate::shape::{Field, Record, Shape, optional, required};

static FILE: Record = Record::typed(
    &[&[
        required("path", Name, "The name of the entry."),
        required("sha256", Digest, "The digest of its contents."),
    ]],
    names::<FileDigest>,
);

const CAPTURE: Shape = Words(|| vec!["reference", "raw"]);

pub(super) static MANIFEST: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::RUNPACK_MANIFEST), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        RUN_ID,
        &[
            required("capture_mode", CAPTURE, "Whether raw arguments and results are kept."),
            required("files", Set(&Shape::Record(&FILE)), "Every other entry; sorted by name."),
            required(
                "manifest_digest",
                Digest,
                "The digest of this document with this field empty and without signatures.",
            ),
            optional(
                "public_key",
                Base64,
                "The key that the signatures can be checked with if no other is trusted.",
            ),
            optional("signatures", List(&Shape::Record(&SIGNATURE)), "Over this document without them."),
        ],
    ],
    names::<Manifest>,
);

static ENV: Record = Record::typed(
    &[&[
        required("os", Text, "The operating system."),
        required("arch", Text, "The processor architecture."),
        required("runtime", Text, "The runtime."),
    ]],
    names::<Env>,
);

static EVENT: Record = Record::typed(
    &[&[
        required("event", Text, "What happened."),
        required("ts", Time, "When."),
        optional("ref", Text, "What it refers to."),
    ]],
    names::<TimelineEvent>,
);

pub(super) static RUN: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::RUNPACK_RUN), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        RUN_ID,
        &[
            required("env", Shape::Record(&ENV), "Where the run took place."),
            required("timeline", OrNull(&List(&Shape::Record(&EVENT))), "What happened; null if never set."),
        ],
    ],
    names::<Run>,
);

pub(super) static INTENT: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::RUNPACK_INTENT), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        RUN_ID,
        &[
            required("intent_id", Name, "Its name within the run."),
            required("tool_name", Name, "The tool."),
            required("args_digest", Digest, "The digest of the arguments."),
            optional("args", Object, "The arguments, in raw capture."),
        ],
    ],
    names::<IntentEntry>,
);

pub(super) static RESULT: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::RUNPACK_RESULT), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        RUN_ID,
        &[
            required("intent_id", Name, "The intent that it is the result of."),
            required("status", Words(|| vec!["error", "ok"]), "How it went."),
            required("result_digest", Digest, "The digest of the result."),
            optional("result", Anything, "The result, in raw capture."),
        ],
    ],
    names::<ResultEntry>,
);

static RECEIPT: Record = Record::typed(
    &[&[
        required("ref_id", Text, "Its name within the run."),
        required("source_type", Text, "What kind of source it is."),
        required("source_locator", Text, "Where it is."),
        required("query_digest", Digest, "The digest of what was asked."),
        required("content_digest", Digest, "The digest of what was answered."),
        required("retrieved_at", Time, "When."),
        required("redaction_mode", Text, "What was left out."),
        optional("sensitivity_label", Text, "How sensitive it is."),
        optional("retrieval_params", Anything, "How it was asked."),
    ]],
    names::<Receipt>,
);

pub(super) static REFS: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::RUNPACK_REFS), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        RUN_ID,
        &[required("receipts", List(&Shape::Record(&RECEIPT)), "The sources that the run drew on.")],
    ],
    names::<Refs>,
);

/// What gait fills in where a caller leaves it out.
const FILLED: &[Field] = &[
    optional("schema_id", Text, "Filled in."),
    optional("schema_version", Text, "Filled in."),
    optional("created_at", OrNull(&Time), "Filled in: that of the run, or now."),
    optional("producer_version", Text, "Filled in."),
];

static RECORD_RUN: Record = Record {
    open: true,
    fields: &[
        FILLED,
        &[
            optional("run_id", RunId, "The run; may be given on the command line instead."),
            optional("env", Shape::Record(&ENV), "Where the run took place."),
            optional("timeline", OrNull(&List(&Shape::Record(&EVENT))), "What happened."),
        ],
    ],
    of_type: Some(names::<Run>),
};

static RECORD_INTENT: Record = Record {
    open: true,
    fields: &[
        FILLED,
        &[
            optional("run_id", Text, "Filled in."),
            required("intent_id", Name, "Its name within the run."),
            required("tool_name", Name, "The tool."),
            optional("args_digest", MaybeDigest, "The digest of the arguments; computed if they are there."),
            optional("args", Anything, "The arguments; left out of a reference capture."),
        ],
    ],
    of_type: Some(names::<IntentEntry>),
};

static RECORD_RESULT: Record = Record {
    open: true,
    fields: &[
        FILLED,
        &[
            optional("run_id", Text, "Filled in."),
            required("intent_id", Name, "The intent that it is the result of."),
            required("status", Text, "`ok`, `error`, or a word of the producer's own."),
            optional("result_digest", MaybeDigest, "The digest of the result; computed if it is there."),
            optional("result", Anything, "The result; left out of a reference capture."),
        ],
    ],
    of_type: Some(names::<ResultEntry>),
};

static RECORD_REFS: Record = Record {
    open: true,
    fields: &[
        FILLED,
        &[
            optional("run_id", Text, "Filled in."),
            optional(
                "receipts",
                OrNull(&List(&Shape::Record(&RECEIPT))),
                "The sources that the run drew on.",
            ),
        ],
    ],
    of_type: Some(names::<Refs>),
};

pub(super) static RUN_RECORD: Record = Record {
    open: true,
    fields: &[&[
        required("run", Shape::Record(&RECORD_RUN), "The run."),
        optional("intents", OrNull(&List(&Shape::Record(&RECORD_INTENT))), "What was asked for, in order."),
        optional("results", OrNull(&List(&Shape::Record(&RECORD_RESULT))), "What came of it, in order."),
        optional("refs", Shape::Record(&RECORD_REFS), "The sources."),
        optional(
            "capture_mode",
            Words(|| vec!["", "reference", "raw"]),
            "Whether raw arguments and results are kept.",
        ),
    ]],
    of_type: Some(names::<RunRecord>),
};
