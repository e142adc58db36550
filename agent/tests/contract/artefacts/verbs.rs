//! What verbs answer with `--json`, beside the gate's own (contract §1.3, §13, §14, §17).

use gait_agent::gate::Verdict;

use super::{ALSO_FAILED, ENVELOPE};
use crate::shape::Shape::{
    Const, Count, Decimal, Digest, Flag, List, Map, Object, OrNull, Set, Text, Time, Words,
};
use crate::shape::{Record, Shape, optional, required};

const VERDICT: Shape = Words(|| Verdict::ALL.map(Verdict::as_str).to_vec());

pub(super) static POLICY_TEST: Record = Record::new(&[
    &[
        required("schema_id", Const("gait.policytest.result"), "Names the document."),
        required("schema_version", Const("1.0.0"), "Names the generation."),
        required("created_at", Time, "When the intent arose."),
        required("policy_digest", Digest, "The policy."),
        required("intent_digest", Digest, "The intent."),
        required("verdict", VERDICT, "What the policy says."),
        optional("matched_rule", Text, "The rule that decided."),
        optional("reason_codes", Set(&Text), "Why; sorted."),
        optional("violations", Set(&Text), "What the intent violates; sorted."),
        required("summary", Text, "All of it in one line of at most 240 characters."),
    ],
    ENVELOPE,
]);

static MISMATCH: Record = Record::new(&[&[
    required("path", Text, "The file."),
    required("expected", Digest, "The digest in the manifest."),
    required("actual", OrNull(&Digest), "The digest of the contents; null if they cannot be unpacked."),
]]);

static FOUND: Record =
    Record::new(&[&[required("reason_code", Text, "The code."), required("place", Text, "Where.")]]);

static EXEC: Record = Record::new(&[&[
    required("policy_digest", OrNull(&Digest), "The policy."),
    required("backend", OrNull(&Text), "What enforced."),
    required("program", OrNull(&Text), "The program that was started."),
    required("started_at", OrNull(&Time), "When the session began."),
    required("ended_at", OrNull(&Time), "When it ended."),
    required("ending", OrNull(&Text), "`exited:<n>`, `killed:<n>` or `aborted`."),
    required("decisions", Decimal, "Distinct decisions."),
    required("journal_lines", Decimal, "Lines of the journal."),
    required("events", Decimal, "Events."),
    required("losses", Decimal, "Events that were not seen."),
    required("approvals", Decimal, "Questions that were answered."),
    required("totals", Map(&Map(&Decimal)), "Class to verdict to events."),
]]);

pub(super) static VERIFY: Record = Record {
    open: true,
    fields: &[
        &[
            optional("path", Text, "The runpack."),
            optional("run_id", Text, "The run."),
            optional("manifest_digest", Digest, "The digest of the manifest, computed."),
            optional("files_checked", Count, "Declared files that were read."),
            optional("missing_files", List(&Text), "Files that are not there."),
            optional("hash_mismatches", List(&Shape::Record(&MISMATCH)), "Files that differ."),
            optional(
                "signature_status",
                Words(|| vec!["failed", "missing", "self_signed", "skipped", "verified"]),
                "What the signature is worth.",
            ),
            optional("signature_note", Text, "The same in words, where it needs some."),
            optional("signature_errors", List(&Text), "What is wrong with signatures."),
            optional("signatures_total", Count, "Signatures."),
            optional("signatures_valid", Count, "Those that are valid."),
            optional("key_id", Digest, "The key that the runpack says it is signed with."),
            optional("reason_codes", Set(&Text), "Every code of docs/contracts/evidence.md that was found."),
            optional("findings", List(&Shape::Record(&FOUND)), "The same with places."),
            optional("exec", Shape::Record(&EXEC), "What the session did, if it is the runpack of one."),
        ],
        ENVELOPE,
        ALSO_FAILED,
    ],
    of_type: None,
};

static CHECK: Record = Record::new(&[&[
    required("name", Text, "What was looked at."),
    required("status", Words(|| vec!["fail", "pass", "warn"]), "What came of it."),
    required("message", Text, "The same in words."),
    optional("fix_command", Text, "What would mend it."),
    optional("non_fixable", Flag, "Whether nothing on this host can."),
]]);

pub(super) static DOCTOR: Record = Record::new(&[
    &[
        required("schema_id", Const("gait.doctor.result"), "Names the document."),
        required("schema_version", Const("1.0.0"), "Names the generation."),
        required("created_at", Time, "When."),
        required("producer_version", Text, "The version of the producer."),
        required("status", Words(|| vec!["fail", "pass", "warn"]), "The worst of the checks."),
        required("non_fixable", Flag, "Whether something cannot be mended on this host."),
        required("summary", Text, "The same in words."),
        optional("fix_commands", List(&Text), "What would mend it."),
        required("checks", List(&Shape::Record(&CHECK)), "The checks."),
        required("backends", Map(&Object), "What each backend could enforce."),
    ],
    ENVELOPE,
    ALSO_FAILED,
]);

pub(super) static FAILURE: Record = Record::new(&[
    ENVELOPE,
    &[
        required("error", Text, "What went wrong."),
        required("error_code", Text, "Its stable code, one per exit code: docs/exit-codes.md."),
        required("error_category", Text, "Its category."),
        required("retryable", Flag, "Whether trying again may help."),
        required("hint", Text, "What to do."),
        optional("reason_code", Text, "How an input is bad: docs/exit-codes.md."),
    ],
]);
