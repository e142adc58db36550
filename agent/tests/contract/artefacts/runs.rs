//! What `gait run diff|reduce|replay` write and answer (contract §17).

use gait_agent::schema;

use super::{ALSO_FAILED, COMMON, ENVELOPE, WARNINGS};
use crate::shape::Shape::{Const, Count, Digest, Flag, List, RunId, Set, Text, Words};
use crate::shape::{Field, Record, Shape, optional, required};

const KEY: &[Field] = &[
    required("endpoint_class", Text, "The class."),
    required("kind", Text, "What the target is."),
    optional("target", Text, "The target; left out with `--privacy metadata`."),
    required("operation", Text, "What was done."),
];
const LEFT: &[Field] =
    &[required("left", Set(&Text), "The verdicts on the left, or `<verdict> (simulated <verdict>)`.")];
const RIGHT: &[Field] = &[required("right", Set(&Text), "Those on the right.")];

static NEW: Record = Record::new(&[KEY, RIGHT]);
static VANISHED: Record = Record::new(&[KEY, LEFT]);
static CHANGED: Record = Record::new(&[KEY, LEFT, RIGHT]);

static DECISIONS: Record = Record::new(&[&[
    optional("policy_digest_left", Digest, "The policy on the left."),
    optional("policy_digest_right", Digest, "The one on the right."),
    required("unchanged_count", Count, "What is the same on both sides."),
    required("new_count", Count, "How much is on the right only."),
    required("vanished_count", Count, "How much is on the left only."),
    required("changed_count", Count, "How much has other verdicts."),
    optional("new", List(&Shape::Record(&NEW)), "On the right only; sorted."),
    optional("vanished", List(&Shape::Record(&VANISHED)), "On the left only; sorted."),
    optional("changed", List(&Shape::Record(&CHANGED)), "With other verdicts; sorted."),
]]);

static SUMMARY: Record = Record::new(&[&[
    required("run_id_left", RunId, "The run on the left."),
    required("run_id_right", RunId, "The one on the right."),
    required("manifest_changed", Flag, "Whether the manifests differ."),
    optional("files_changed", Set(&Text), "Entries that only one side has."),
    required("run_changed", Flag, "Whether environment or timeline differ, but for times."),
    required("intents_changed", Flag, "Whether intents differ."),
    required("results_changed", Flag, "Whether results differ."),
    required("refs_changed", Flag, "Whether references differ."),
    optional("left_only_intents", Set(&Text), "Intents on the left only."),
    optional("right_only_intents", Set(&Text), "On the right only."),
    optional("left_only_results", Set(&Text), "Results on the left only."),
    optional("right_only_results", Set(&Text), "On the right only."),
    optional("decisions", Shape::Record(&DECISIONS), "The difference of two sessions."),
]]);

const DIFF_FIELDS: &[Field] = &[
    required("privacy", Words(|| vec!["full", "metadata"]), "How much was looked at."),
    required("summary", Shape::Record(&SUMMARY), "The difference."),
];

/// The file of `--output`, which is the same for every command line.
pub(super) static DIFF: Record =
    Record::new(&[&[required("ok", Flag, "Whether the runs are the same.")], DIFF_FIELDS]);

pub(super) static DIFF_OUTPUT: Record = Record::new(&[
    DIFF_FIELDS,
    &[optional("output", Text, "The file that was written.")],
    ENVELOPE,
    ALSO_FAILED,
]);

pub(super) static REDUCE_REPORT: Record = Record::new(&[
    &[
        required("schema_id", Const(schema::REDUCE_REPORT), "Names the document."),
        required("schema_version", Const(schema::VERSION), "Names the generation."),
    ],
    COMMON,
    &[
        required("run_id", RunId, "The whole run."),
        required("reduced_run_id", RunId, "The reduced one."),
        required("predicate", Words(|| vec!["missing_result", "non_ok_status"]), "What was kept."),
        required("selected_intent_id", Text, "The intent that was kept."),
        required("original_intent_count", Count, "Intents before."),
        required("reduced_intent_count", Count, "Intents after."),
        required("original_result_count", Count, "Results before."),
        required("reduced_result_count", Count, "Results after."),
        required("original_ref_count", Count, "References before."),
        required("reduced_ref_count", Count, "References after."),
        required("still_failing", Flag, "Whether the predicate holds of what was kept."),
    ],
]);

static STEP: Record = Record::new(&[&[
    required("intent_id", Text, "The intent."),
    required("tool_name", Text, "Its tool."),
    required("status", Text, "The recorded status, `stubbed` or `missing`."),
    optional("stub_type", Words(|| vec!["db", "file", "http", "queue"]), "The kind of the stand-in."),
    optional("result_digest", Text, "The digest of the recorded result, or of the stand-in."),
]]);

pub(super) static REPLAY: Record = Record::new(&[
    &[
        required("run_id", RunId, "The run."),
        required("mode", Const("stub"), "Tools are never run."),
        optional("steps", List(&Shape::Record(&STEP)), "The intents, in their order."),
        optional("missing_results", List(&Text), "Intents without a result and a stand-in."),
        optional("requested_unsafe", Flag, "Whether real tools were asked for, with every interlock."),
    ],
    WARNINGS,
    ENVELOPE,
    ALSO_FAILED,
]);
