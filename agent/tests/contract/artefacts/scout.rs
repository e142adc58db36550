//! Signal reports, inventories and top actions (contract §20, §22).

use gait_agent::gate::Verdict;
use gait_agent::schema;
use gait_agent::scout::{Item, Snapshot};

use super::COMMON;
use crate::names::names;
use crate::shape::Shape::{Const, Count, Digest, Flag, List, Name, Object, RunId, Set, Text, Words};
use crate::shape::{Field, Record, Shape, optional, required};

const VERSION: Field = required("schema_version", Const(schema::VERSION), "Names the generation.");
const LEVEL: Shape = Words(|| vec!["critical", "high", "low", "medium"]);

pub(super) static FINGERPRINT: Record = Record::new(&[
    &[required("schema_id", Const(schema::RUN_FINGERPRINT), "Names the document."), VERSION],
    COMMON,
    &[
        required("run_id", RunId, "The run."),
        required("fingerprint", Digest, "The digest of the five lists that follow."),
        required("action_sequence", List(&Text), "What was done."),
        required("tool_classes", Set(&Text), "Of which kinds; sorted."),
        required("target_systems", Set(&Text), "To what; sorted."),
        required("reason_code_vector", Set(&Text), "What was said about it; sorted."),
        required("ref_receipt_digests", Set(&Text), "What it drew on; sorted."),
        required("source_runpack", Text, "The runpack."),
        optional("trace_count", Count, "Trace files that belong to the run, if there are any."),
        optional("regress_evidence_seen", Flag, "Whether a regression result speaks of the run."),
        optional("kind", Const("session"), "There for sessions of `gait exec` only."),
        optional("contract_fingerprint", Digest, "What a caller's formula makes of a session."),
    ],
]);

static FIXTURE: Record = Record::new(&[&[
    required("verdict", Words(|| Verdict::ALL.map(Verdict::as_str).to_vec()), "What the policy said."),
    optional("matched_rule", Text, "The rule that said it."),
    required("example", Text, "The action in the words of a rule's examples."),
    required("recorded_intent_digest", Digest, "The recorded intent."),
    required("intent", Object, "The action as a document of gate/intent_request."),
]]);

static SUGGESTION: Record = Record::new(&[&[
    required("kind", Words(|| vec!["configuration", "policy_fixture", "regress_fixture"]), "Its kind."),
    required("summary", Text, "What to do."),
    required("likely_scope", Text, "Where."),
    optional("fixtures", List(&Shape::Record(&FIXTURE)), "Stopped actions of the canonical run, at most 3."),
]]);

static RISK: Record = Record::new(&[&[
    required("privilege", Count, "Of the most privileged class, 1 to 4."),
    required("sensitivity", Count, "Of the most sensitive target, 1 to 3."),
    required("posture", Count, "2 if a policy stopped something."),
    required("score", Count, "The sum."),
    required("level", LEVEL, "Its name."),
]]);

const SUGGESTIONS: Shape = List(&Shape::Record(&SUGGESTION));

/// What families and issues share.
const FAMILY_FIELDS: &[Field] = &[
    required("family_id", Text, "`fam_` and the beginning of the fingerprint."),
    required("fingerprint", Digest, "The fingerprint."),
    required("count", Count, "Runs."),
    required("canonical_run_id", RunId, "The first of them."),
    optional("top_failure_reason", Text, "The first of the reasons."),
    required(
        "drivers",
        Set(&Words(|| {
            vec!["configuration_change", "policy_change", "reference_set_change", "tool_result_shape_change"]
        })),
        "What is behind it; sorted.",
    ),
    required("severity_score", Count, "By the formula for described runs."),
    required("severity_level", LEVEL, "Its name."),
    required("suggestions", SUGGESTIONS, "What to do."),
    optional("risk", Shape::Record(&RISK), "What sessions are ranked by."),
];

static FAMILY: Record = Record::new(&[
    FAMILY_FIELDS,
    &[
        required("run_ids", Set(&RunId), "The runs; sorted."),
        required("artifact_pointers", Set(&Text), "The runpacks; sorted."),
    ],
]);

static ISSUE: Record = Record::new(&[&[required("rank", Count, "Its place, from 1.")], FAMILY_FIELDS]);

pub(super) static SIGNAL: Record = Record::new(&[
    &[required("schema_id", Const(schema::SIGNAL_REPORT), "Names the document."), VERSION],
    COMMON,
    &[
        required("run_count", Count, "Runs."),
        required("family_count", Count, "Families."),
        required("fingerprints", List(&Shape::Record(&FINGERPRINT)), "Of every run."),
        required("families", List(&Shape::Record(&FAMILY)), "The most severe first."),
        required("top_issues", List(&Shape::Record(&ISSUE)), "The first of the families."),
    ],
]);

static ITEM: Record = Record::typed(
    &[&[
        required("id", Name, "Kind, form and name."),
        required("kind", Words(|| vec!["mcp_server", "tool"]), "What it is."),
        required("name", Text, "Its name."),
        required("locator", Text, "The file."),
        required("risk_level", LEVEL, "By the name."),
        required("tags", Set(&Text), "How it was found; sorted."),
    ]],
    names::<Item>,
);

pub(super) static SNAPSHOT: Record = Record::typed(
    &[
        &[required("schema_id", Const(schema::INVENTORY_SNAPSHOT), "Names the document."), VERSION],
        COMMON,
        &[
            required("snapshot_id", Text, "`snap_` and the beginning of a digest."),
            required("workspace", Text, "The directories."),
            required("items", List(&Shape::Record(&ITEM)), "What was found; sorted."),
        ],
    ],
    names::<Snapshot>,
);

static CHANGED: Record = Record::new(&[&[
    required("id", Name, "The item."),
    required("kind", Text, "What it is."),
    required("name", Text, "Its name."),
    required("before_locator", Text, "Where it was."),
    required("after_locator", Text, "Where it is."),
    required("before_risk_level", LEVEL, "What its risk was."),
    required("after_risk_level", LEVEL, "What it is."),
]]);

pub(super) static SNAPSHOT_DIFF: Record = Record::new(&[&[
    required("left_snapshot_id", Text, "The snapshot before."),
    required("right_snapshot_id", Text, "The one after."),
    required("added", List(&Shape::Record(&ITEM)), "What is only after."),
    required("removed", List(&Shape::Record(&ITEM)), "What is only before."),
    required("changed", List(&Shape::Record(&CHANGED)), "What is other."),
    required("added_count", Count, "How many were added."),
    required("removed_count", Count, "How many were removed."),
    required("changed_count", Count, "How many are other."),
]]);

static TOP_ACTION: Record = Record::new(&[&[
    required("rank", Count, "Its place, from 1."),
    required("score", Count, "What it weighs."),
    required("tool_class", Text, "The class of the tool."),
    required("blast_radius", Count, "How much it reaches, 1 to 3."),
    required("run_id", Text, "The run; `unknown` for a trace that names none."),
    optional("intent_id", Text, "Its number in the run."),
    optional("intent_digest", Text, "The digest of its intent."),
    optional("trace_id", Text, "The decision."),
    required("tool_name", Text, "The tool."),
    optional("verdict", Text, "What was decided."),
    optional("reason_codes", Set(&Text), "Why."),
    required("source_type", Words(|| vec!["runpack", "trace"]), "Where it was found."),
    required("source_artifact", Text, "The file."),
    optional("target", Text, "What a session's action reached."),
]]);

pub(super) static TOP: Record = Record::new(&[
    &[required("schema_id", Const(schema::TOP_ACTIONS), "Names the document."), VERSION],
    COMMON,
    &[
        required("run_count", Count, "Runs, those of traces included."),
        required("trace_count", Count, "Trace files."),
        required("action_count", Count, "Actions that were looked at."),
        required("top_actions", List(&Shape::Record(&TOP_ACTION)), "The first of them, at most 20."),
    ],
]);
