//! The documents of regression suites (contract §19).

use gait_agent::gate::Verdict;
use gait_agent::regress::{
    Config, ConfigEntry, ExecFixture, ExpectedDecision, Fixture, Grader, RegressResult, Status,
};
use gait_agent::schema;

use super::{ALSO_FAILED, COMMON, ENVELOPE};
use crate::names::names;
use crate::shape::Shape::{
    Anything, Const, Count, Digest, IntentId, List, Name, Object, OrNull, RunId, Text, Words,
};
use crate::shape::{Field, Record, Shape, optional, required};

const STATUS: Shape = Words(|| [Status::Fail, Status::Pass].map(Status::as_str).to_vec());
const VERDICT: Shape = Words(|| Verdict::ALL.map(Verdict::as_str).to_vec());
const FIXTURE_NAME: Field = required("name", Name, "Of the fixture, and of its folder.");
const VERSION: Field = required("schema_version", Const(schema::VERSION), "Names the generation.");

static CONFIG_ENTRY: Record = Record::typed(
    &[&[
        FIXTURE_NAME,
        required("run_id", RunId, "The run that it was made of."),
        required("runpack", Name, "Its runpack, relative to this file and below it."),
    ]],
    names::<ConfigEntry>,
);

pub(super) static CONFIG: Record = Record::typed(
    &[&[
        required("schema_id", Const(schema::REGRESS_CONFIG), "Names the document."),
        VERSION,
        required("fixture_set", Text, "The set; `default`."),
        required("fixtures", List(&Shape::Record(&CONFIG_ENTRY)), "The fixtures; no name twice."),
    ]],
    names::<Config>,
);

static EXPECTED: Record = Record::typed(
    &[&[
        required("intent_id", IntentId, "Which decision."),
        required("about", Text, "What it is about, for readers."),
        required("recorded", VERDICT, "The recorded verdict."),
        required("verdict", VERDICT, "The expected one."),
    ]],
    names::<ExpectedDecision>,
);

static EXEC: Record = Record::typed(
    &[&[
        required("policy", Text, "A shipped policy, or a file relative to gait.yaml."),
        optional("policy_digest", OrNull(&Digest), "The policy that the expected verdicts come from."),
        optional("expected", List(&Shape::Record(&EXPECTED)), "Decisions that are to be others."),
        optional("workspace", OrNull(&Text), "The workspace, where it is not the recorded one."),
        optional("command", OrNull(&List(&Text)), "The command of `--live`."),
        optional("live_ignore", List(&Text), "What `--live` passes over: `CLASS TARGET`, globs."),
    ]],
    names::<ExecFixture>,
);

pub(super) static FIXTURE: Record = Record::typed(
    &[&[
        required("schema_id", Const(schema::REGRESS_FIXTURE), "Names the document."),
        VERSION,
        FIXTURE_NAME,
        required("run_id", RunId, "The run."),
        required("runpack", Name, "The runpack, relative to this file and below it."),
        required("expected_replay_exit_code", Count, "0, or 2 where results are missing."),
        optional("candidate_runpack", OrNull(&Text), "The runpack that is compared with the recorded one."),
        optional("diff_allow_changed_files", List(&Text), "Entries in which it may differ."),
        optional("expected_tool_sequence", OrNull(&List(&Text)), "The tools, in the order of the intents."),
        optional("expected_verdict_sequence", OrNull(&List(&Text)), "The verdicts, in the same order."),
        optional("exec", OrNull(&Shape::Record(&EXEC)), "What a session of `gait exec` is held against."),
        optional("context_conformance", Anything, "Of later generations: grading fails."),
        optional("allow_context_runtime_drift", Anything, "Of later generations: grading fails."),
        optional("expected_context_set_digest", Anything, "Of later generations: grading fails."),
        optional("session_chain", Anything, "Of later generations: grading fails."),
        optional("checkpoint_index", Anything, "Of later generations: grading fails."),
    ]],
    names::<Fixture>,
);

static GRADER: Record = Record::typed(
    &[&[
        required("name", Name, "`<fixture>/<grader>`."),
        required("status", STATUS, "The answer."),
        required("reason_codes", List(&Text), "Why not; empty if it passes."),
        required("details", Object, "The facts behind it, which depend on the grader."),
    ]],
    names::<Grader>,
);

pub(super) static RESULT: Record = Record::typed(
    &[
        &[required("schema_id", Const(schema::REGRESS_RESULT), "Names the document."), VERSION],
        COMMON,
        &[
            required("fixture_set", Text, "The set."),
            required("status", STATUS, "Whether all graders passed."),
            required("graders", List(&Shape::Record(&GRADER)), "The graders, by name."),
        ],
    ],
    names::<RegressResult>,
);

const COUNTS: &[Field] = &[
    required("decisions", Count, "The recorded decisions."),
    required("stopped", Count, "Those that were allowed and would be stopped."),
    required("loosened", Count, "Those that would be judged less strictly."),
    required("tightened", Count, "Those that were stopped and would be judged more strictly."),
    required("open", Count, "Those that depend on what was not recorded."),
];

static REVIEWED: Record =
    Record::new(&[&[required("run_id", RunId, "The run."), required("path", Text, "Its runpack.")], COUNTS]);

static GROUP: Record = Record::new(&[&[
    required("effect", Words(|| vec!["stopped", "loosened", "tightened", "open"]), "What it amounts to."),
    required("from", VERDICT, "The recorded verdict."),
    required("to", VERDICT, "The new one."),
    required("rule", Text, "The rule that would decide, or reason codes where none does."),
    required("was_rule", Text, "The one that did."),
    required("endpoint_class", Text, "The class."),
    required("target", Text, "The target, normalised."),
    required("decisions", Count, "Decisions."),
    required("events", Count, "Events."),
    required("runs", Count, "Runs."),
]]);

const REVIEWED_RUNS: Shape = List(&Shape::Record(&REVIEWED));
const GROUPS: Shape = List(&Shape::Record(&GROUP));

const REVIEW_FIELDS: &[Field] = &[
    required("schema_id", Const(schema::REGRESS_REVIEW), "Names the document."),
    VERSION,
    required("policy", Text, "The policy, as it was named."),
    required("policy_digest", Digest, "Its digest."),
    required("runs", REVIEWED_RUNS, "The runs, by id."),
    required("groups_left_out", Count, "How many more there are."),
];

const GROUPS_ABOUT: &str = "What would change, added up; at most 1000.";

/// The file of `--output`.
pub(super) static REVIEW: Record = Record::new(&[
    REVIEW_FIELDS,
    COUNTS,
    &[
        required("groups", GROUPS, GROUPS_ABOUT),
        required("artifact_paths", List(&Text), "Empty: the file cannot tell of itself."),
    ],
]);

/// The answer, which leaves out empty lists as every answer does.
pub(super) static REVIEW_OUTPUT: Record = Record::new(&[
    REVIEW_FIELDS,
    COUNTS,
    &[
        optional("groups", GROUPS, GROUPS_ABOUT),
        optional("artifact_paths", List(&Text), "Files that were written."),
    ],
    ENVELOPE,
    ALSO_FAILED,
]);
