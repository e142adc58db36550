//! What verbs answer with `--json`, beside the gate's own (contract §1.3, §13, §14, §17).

use gait_agent::gate::Verdict;

use super::ENVELOPE;
use crate::shape::Shape::{Const, Count, Digest, Flag, List, Map, Object, Set, Text, Time, Words};
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
    optional("actual", Text, "The digest of the contents; empty if they cannot be unpacked."),
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
            optional("signature_errors", List(&Text), "What is wrong with signatures."),
            optional("signatures_total", Count, "Signatures."),
            optional("signatures_valid", Count, "Those that are valid."),
            optional("reason_codes", List(&Text), "Every code of docs/contracts/evidence.md that was found."),
        ],
        ENVELOPE,
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
]);
