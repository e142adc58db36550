//! What goes into the gate and comes out of it (contract §3, §7, §9, §10, §11, §12).

use gait_agent::endpoint::EndpointClass;
use gait_agent::gate::{GateResult, Verdict};
use gait_agent::intent::{
    ContextRequest, IntentRequest, Kind, ProvenanceRequest, Skill, SkillRequest, Source, TargetRequest,
};
use gait_agent::schema;
use gait_agent::sign::Signature;
use gait_agent::trace::{Answer, ApprovalRecord, Scope, TraceRecord, TraceTarget};

use super::{COMMON, ENVELOPE, SIGNATURE_FIELDS, WARNINGS};
use crate::names::names;
use crate::shape::Shape::{
    AnyDigest, Const, Count, Digest, Flag, List, MaybeDigest, Name, Number, Object, Set, ShortId, Text, Time,
    Words,
};
use crate::shape::{Field, Record, Shape, optional, passed_over, required};

const VERDICT: Shape = Words(|| Verdict::ALL.map(Verdict::as_str).to_vec());
const CLASS: Shape = Words(|| EndpointClass::ALL.map(EndpointClass::as_str).to_vec());
const KIND: Shape = Words(|| Kind::ALL.iter().map(|kind| kind.as_str()).collect());

static TARGET: Record = Record::typed(
    &[&[
        required("kind", KIND, "What it is."),
        required("value", Name, "The thing itself; its case is kept."),
        optional("operation", Text, "What is done to it; lower-case."),
        optional("sensitivity", Text, "How sensitive it is; lower-case."),
        optional("endpoint_class", CLASS, "The class; inferred from kind, operation and tool if absent."),
        optional("endpoint_domain", Text, "The domain of a host or URL; inferred if absent."),
        optional("destructive", Flag, "Whether something is destroyed; inferred besides."),
    ]],
    names::<TargetRequest>,
);

static PROVENANCE: Record = Record::typed(
    &[&[
        required("arg_path", Name, "Which argument."),
        required(
            "source",
            Words(|| Source::ALL.iter().map(|source| source.as_str()).collect()),
            "Where it comes from.",
        ),
        optional("source_ref", Text, "Which one of that source."),
        optional("integrity_digest", MaybeDigest, "The digest of the argument at its source."),
    ]],
    names::<ProvenanceRequest>,
);

const SKILL_FIELDS: &[Field] = &[
    required("skill_name", Name, "Its name."),
    optional("skill_version", Text, "Its version."),
    required("source", Name, "Where it came from; lower-case."),
    required("publisher", Name, "Who published it."),
    optional("digest", MaybeDigest, "The digest of its package."),
    optional("signature_key_id", Text, "The key that signed it."),
];

static SKILL_CLAIM: Record = Record::typed(&[SKILL_FIELDS], names::<SkillRequest>);

static CONTEXT: Record = Record {
    open: true,
    fields: &[&[
        required("identity", Name, "Who calls."),
        required("workspace", Name, "The root of the work; `\\` is read as `/`."),
        required("risk_class", Name, "How risky the caller says it is: low, medium, high or another word."),
        optional("session_id", Text, "The caller's session."),
        optional("request_id", Text, "The caller's request."),
    ]],
    of_type: Some(names::<ContextRequest>),
};

pub(super) static INTENT_REQUEST: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::INTENT_REQUEST), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        &[
            required("tool_name", Name, "The tool; lower-case."),
            required("args", Object, "Its arguments."),
            required("targets", List(&Shape::Record(&TARGET)), "What the call reaches; may be empty."),
            optional("arg_provenance", List(&Shape::Record(&PROVENANCE)), "Where the arguments come from."),
            optional(
                "skill_provenance",
                Shape::Record(&SKILL_CLAIM),
                "The skill on whose behalf the call is made: a claim.",
            ),
            required("context", Shape::Record(&CONTEXT), "Who calls, and where."),
            passed_over("args_digest", AnyDigest, "Ignored and recomputed."),
            passed_over("intent_digest", AnyDigest, "Ignored and recomputed."),
        ],
    ],
    names::<IntentRequest>,
);

pub(super) static GATE_RESULT: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::GATE_RESULT), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        &[
            required("verdict", VERDICT, "The final verdict."),
            required("reason_codes", Set(&Text), "Why; sorted."),
            required("violations", Set(&Text), "What the intent violates; sorted."),
        ],
    ],
    names::<GateResult>,
);

pub(super) static SIGNATURE: Record = Record::typed(&[SIGNATURE_FIELDS], names::<Signature>);

static SKILL: Record = Record::typed(
    &[&[
        required("skill_name", Name, "Its name."),
        optional("skill_version", Text, "Its version."),
        required("source", Name, "Where it came from; lower-case."),
        required("publisher", Name, "Who published it."),
        optional("digest", Digest, "The digest of its package."),
        optional("signature_key_id", Text, "The key that signed it."),
    ]],
    names::<Skill>,
);

static TRACE_TARGET: Record = Record::typed(
    &[&[
        required("kind", Text, "What it is, as in the intent."),
        required("value", Text, "The thing itself."),
        required("operation", Text, "What was done to it."),
        required("endpoint_class", CLASS, "Its class."),
    ]],
    names::<TraceTarget>,
);

static APPROVAL: Record = Record::typed(
    &[&[
        required("answer", Words(names::<Answer>), "What was answered."),
        required("scope", Words(names::<Scope>), "How far the answer reaches."),
    ]],
    names::<ApprovalRecord>,
);

pub(super) static TRACE: Record = Record::typed(
    &[
        &[
            required("schema_id", Const(schema::TRACE), "Names the document."),
            required("schema_version", Const(schema::VERSION), "Names the generation."),
        ],
        COMMON,
        &[
            required("trace_id", ShortId, "The name of the decision: of policy, intent and verdict."),
            optional("correlation_id", Text, "The command that made it."),
            required("tool_name", Text, "The tool, normalised."),
            required("args_digest", Digest, "The digest of its arguments."),
            required("intent_digest", Digest, "The digest of the intent."),
            required("policy_digest", Digest, "The digest of the policy."),
            required("verdict", VERDICT, "The final verdict."),
            optional("violations", List(&Text), "What the intent violates; sorted."),
            optional("latency_ms", Number, "How long the evaluation took; never from `gait exec`."),
            optional("approval_token_ref", Text, "The approval tokens that counted."),
            optional("skill_provenance", Shape::Record(&SKILL), "The skill of the intent."),
            optional("run_id", Text, "The run; always from `gait exec`."),
            optional("reason_codes", List(&Text), "Why; sorted."),
            optional("matched_rule", Text, "The rule that decided."),
            optional("enforced", Flag, "`false` where the verdict was not carried out."),
            optional("simulated_verdict", VERDICT, "What the policy says where it was not enforced."),
            optional("target", Shape::Record(&TRACE_TARGET), "What was reached; always from `gait exec`."),
            optional("approval", Shape::Record(&APPROVAL), "What was answered when the policy asked."),
            optional("args", Object, "The arguments, in raw capture."),
            optional("signature", Shape::Record(&SIGNATURE), "Over all other fields."),
        ],
    ],
    names::<TraceRecord>,
);

pub(super) static APPROVAL_TOKEN: Record = Record::new(&[
    &[
        required("schema_id", Const("gait.gate.approval_token"), "Names the document."),
        required("schema_version", Const(schema::VERSION), "Names the generation."),
    ],
    COMMON,
    &[
        required("token_id", Name, "Its name: the first 12 bytes of the digest of what it says, in hex."),
        required("approver_identity", Name, "Who consents."),
        required("reason_code", Name, "Why."),
        required("intent_digest", AnyDigest, "To which intent."),
        required("policy_digest", AnyDigest, "Under which policy."),
        required("scope", List(&Name), "For what: `tool:<name>`, or `*`; sorted."),
        required("expires_at", Time, "Until when."),
        optional(
            "signature",
            Shape::Record(&SIGNATURE),
            "Over all other fields; a token without it grants nothing.",
        ),
    ],
]);

static AUDIT_ENTRY: Record = Record::new(&[&[
    required("token_id", Text, "The token."),
    required("approver_identity", Text, "Who it names."),
    required("reason_code", Text, "Why."),
    required("scope", List(&Text), "For what."),
    required("expires_at", Time, "Until when."),
    required("valid", Flag, "Whether it counts."),
    optional("error_code", Text, "Why it does not."),
]]);

pub(super) static APPROVAL_AUDIT: Record = Record::new(&[
    &[
        required("schema_id", Const("gait.gate.approval_audit_record"), "Names the document."),
        required("schema_version", Const(schema::VERSION), "Names the generation."),
    ],
    COMMON,
    &[
        required("trace_id", ShortId, "The decision."),
        required("tool_name", Text, "The tool, normalised."),
        required("intent_digest", Digest, "The intent."),
        required("policy_digest", Digest, "The policy."),
        required("required_approvals", Count, "How many it takes."),
        required("valid_approvals", Count, "How many counted."),
        required("approved", Flag, "Whether they suffice."),
        optional("approvers", Set(&Text), "Whose tokens counted; sorted."),
        required("entries", List(&Shape::Record(&AUDIT_ENTRY)), "Every token that was presented."),
    ],
]);

pub(super) static CREDENTIAL: Record = Record::new(&[
    &[
        required("schema_id", Const("gait.gate.broker_credential_record"), "Names the document."),
        required("schema_version", Const(schema::VERSION), "Names the generation."),
    ],
    COMMON,
    &[
        required("trace_id", ShortId, "The decision."),
        required("tool_name", Text, "The tool, normalised."),
        required("identity", Text, "Who calls."),
        required("broker", Words(|| vec!["command", "env", "stub"]), "Who issued it."),
        optional("reference", Text, "What was asked for."),
        optional("scope", List(&Text), "For what."),
        required("credential_ref", Name, "The name of the credential, never itself."),
    ],
]);

/// The contract keeps the spelling of the reference's seed generation here.
pub(super) static BROKER_REQUEST: Record = Record::new(&[&[
    required("ToolName", Text, "The tool, normalised."),
    required("Identity", Text, "Who calls."),
    required("Workspace", Text, "The root of the work."),
    required("SessionID", Text, "The caller's session, or empty."),
    required("RequestID", Text, "The caller's request, or empty."),
    required("Reference", Text, "What is asked for, or empty."),
    required("Scope", List(&Text), "For what."),
]]);

pub(super) static RATE_LIMIT_STATE: Record = Record::new(&[&[
    required("schema_id", Const("gait.gate.rate_limit_state"), "Names the document."),
    required("schema_version", Const(schema::VERSION), "Names the generation."),
    optional("created_at", Shape::OrNull(&Time), "When it was written."),
    optional("producer_version", Text, "The version of the producer."),
    required("counters", List(&Shape::Record(&COUNTER)), "The counters; sorted by key."),
]]);

static COUNTER: Record = Record::new(&[&[
    required("key", Text, "Window, scope, start of the window and whom it counts for."),
    required("count", Count, "Requests that were counted."),
]]);

pub(super) static EVAL_OUTPUT: Record = Record::new(&[
    &[
        required("profile", Words(|| vec!["standard", "oss-prod"]), "The profile."),
        required("verdict", VERDICT, "The final verdict; only `allow` lets the caller act."),
        optional("reason_codes", Set(&Text), "Why; sorted."),
        optional("violations", Set(&Text), "What the intent violates; sorted."),
        optional("approval_ref", Text, "The approval tokens that counted."),
        optional("required_approvals", Count, "How many approvals it takes."),
        optional("valid_approvals", Count, "How many counted."),
        optional("approval_audit_path", Text, "The audit record."),
        required("trace_id", ShortId, "The decision."),
        required("trace_path", Text, "The trace record."),
        required("policy_digest", Digest, "The policy."),
        required("intent_digest", Digest, "The intent."),
        optional("matched_rule", Text, "The rule that decided."),
        optional("rate_limit_scope", Text, "Whom the rule's limit counts for."),
        optional("rate_limit_key", Text, "The counter."),
        optional("rate_limit_used", Count, "Requests of the window that are used up."),
        optional("rate_limit_remaining", Count, "Requests that are left."),
        optional("credential_issuer", Text, "Who issued the credential."),
        optional("credential_ref", Text, "Its name."),
        optional("credential_evidence_path", Text, "Its evidence."),
        optional("simulate_mode", Flag, "`true` if nothing is enforced."),
        optional("would_have_blocked", Flag, "Whether the caller would have been stopped."),
        optional("simulated_verdict", VERDICT, "What the policy says."),
        optional("simulated_reason_codes", Set(&Text), "Why."),
    ],
    ENVELOPE,
    WARNINGS,
]);
