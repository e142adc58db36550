//! What only a session of `gait exec` has (docs/contracts/evidence.md).

use gait_agent::endpoint::EndpointClass;
use gait_agent::schema;
use gait_agent::trace::{Answer, Circumstances, Counted, LineKind, Scope};

use super::RUN_ID;
use crate::names::names;
use crate::shape::Shape::{
    Base64, Const, Decimal, Digest, Flag, IntentId, List, Map, Set, ShortId, Text, Time, Words,
};
use crate::shape::{Field, Record, Shape, optional, required};

const LINE: &[Field] = &[
    required("at", Time, "When."),
    required("prev", Digest, "The digest of the line before, without its newline; 64 zeros in the first."),
    required("seq", Decimal, "Its number, from 0."),
];

const EVENT: &[Field] = &[
    optional("address", Text, "The address of a peer whose target has its name."),
    required("count", Const("1"), "Always one."),
    required("event_id", ShortId, "Of the trace id and the time."),
    optional("image", Text, "The program that acted."),
    required("intent_id", IntentId, "The decision."),
    required("pid", Decimal, "The process."),
    required("tid", Decimal, "The thread."),
    required("trace_id", ShortId, "The decision's name."),
];

static COUNTED: Record = Record::typed(
    &[&[
        required("count", Decimal, "How many events."),
        required("intent_id", IntentId, "Of which decision."),
    ]],
    names::<Counted>,
);

static CIRCUMSTANCES: Record = Record::typed(
    &[&[
        optional("command", List(&Text), "The command and its arguments, in raw capture."),
        required("directory", Text, "Where it was started."),
        required("home", Text, "`${home}`."),
        required("identity", Text, "Whom the workload acted for."),
        required("policy", Text, "The policy as it was named."),
        required("protect", List(&Text), "What the workload was not to change."),
        required("run_dir", Text, "`${run_dir}`."),
        required("tmp", Text, "`${tmp}`."),
        required("uid", Decimal, "`${uid}`."),
        required("workspace", Text, "`${workspace}`."),
    ]],
    names::<Circumstances>,
);

macro_rules! line {
    ($name:ident, $kind:literal, $($fields:expr),+) => {
        static $name: Record =
            Record::new(&[LINE, &[required("kind", Const($kind), "What the line tells.")], $($fields),+]);
    };
}

line!(
    START,
    "session_start",
    RUN_ID,
    &[
        required("backend", Text, "What enforces."),
        optional(
            "circumstances",
            Shape::Record(&CIRCUMSTANCES),
            "What the actions can be judged again with.",
        ),
        required("command_digest", Digest, "Of the arguments, each ended by NUL."),
        required("coverage_digest", Digest, "Of coverage.json."),
        required("key_id", Digest, "The key that signs."),
        required("policy_digest", Digest, "The policy."),
        required("producer_version", Text, "The version of the producer."),
        required("program", Text, "The program that was started."),
        required("public_key", Base64, "The key itself."),
        required("schema_id", Const(schema::JOURNAL), "Names the document."),
        required("schema_version", Const(schema::VERSION), "Names the generation."),
    ]
);
line!(RECORD, "record", EVENT);
line!(EVENT_LINE, "event", EVENT);
line!(
    REPEAT,
    "repeat",
    &[required("counts", List(&Shape::Record(&COUNTED)), "Later events of earlier decisions.")]
);
line!(
    APPROVAL,
    "approval",
    &[
        required("answer", Words(names::<Answer>), "What was answered."),
        required("intent_id", IntentId, "The decision."),
        required("pid", Decimal, "The process."),
        required("scope", Words(names::<Scope>), "How far the answer reaches."),
        required("tid", Decimal, "The thread."),
        required("trace_id", ShortId, "The decision's name."),
    ]
);
line!(
    LOSS,
    "loss",
    &[required("count", Decimal, "How many events were not seen."), required("reason", Text, "Why."),]
);
line!(NOTE, "note", &[required("text", Text, "Anything else that a reader must know.")]);
line!(
    END,
    "session_end",
    &[
        required("ending", Text, "`exited:<n>`, `killed:<n>` or `aborted`."),
        required("losses", Decimal, "All events that were not seen."),
        required("totals", Map(&Map(&Decimal)), "Class to verdict to events; zeros left out."),
    ]
);

/// The kinds of lines, in the order of [`LineKind`].
pub(crate) static LINES: [&Record; 8] =
    [&START, &RECORD, &REPEAT, &EVENT_LINE, &APPROVAL, &LOSS, &NOTE, &END];

/// The words that tell lines apart.
pub(crate) fn kinds() -> Vec<&'static str> {
    names::<LineKind>()
}

pub(super) static HEAD: Record = Record::new(&[&[
    required("head", Digest, "The digest of the journal's last line."),
    required("lines", Decimal, "How many lines it has."),
    required("schema_id", Const(schema::JOURNAL), "Names the document."),
    required("schema_version", Const(schema::VERSION), "Names the generation."),
]]);

const LEVEL: Shape = Words(|| vec!["enforced", "observed"]);
const PLACE: Shape = Words(|| vec!["absent", "landlock"]);

static ROW: Record = Record::new(&[&[
    required("id", Text, "The row of docs/coverage.md."),
    required("level", LEVEL, "How far it is covered."),
    required(
        "treatment",
        Words(|| vec!["on_behalf", "refused", "scalar", "verified"]),
        "How its calls are answered.",
    ),
    optional("note", Text, "What else to know."),
    optional(
        "preloaded",
        Words(|| vec!["partly", "wholly"]),
        "How far its calls are decided by rules that the kernel was given.",
    ),
]]);

static CLASSES: Record = Record {
    open: false,
    fields: &[&[
        required("fs.delete", LEVEL, "How far the class is covered."),
        required("fs.read", LEVEL, "How far the class is covered."),
        required("fs.write", LEVEL, "How far the class is covered."),
        required("net.dns", LEVEL, "How far the class is covered."),
        required("net.http", LEVEL, "How far the class is covered."),
        required("other", LEVEL, "How far the class is covered."),
        required("proc.exec", LEVEL, "How far the class is covered."),
    ]],
    of_type: Some(|| EndpointClass::KERNEL.map(EndpointClass::as_str).to_vec()),
};

pub(super) static COVERAGE: Record = Record::new(&[&[
    required("schema_id", Const(schema::COVERAGE), "Names the document."),
    required("schema_version", Const(schema::VERSION), "Names the generation."),
    required("backend", Words(|| vec!["seccomp"]), "What holds calls."),
    optional("preloaded_by", Words(|| vec!["ebpf"]), "What decides by rules that it was given."),
    required("mode", Words(|| vec!["enforce", "simulate"]), "Whether anything is stopped."),
    required("classes", Shape::Record(&CLASSES), "Per class."),
    required("floor", PLACE, "What bounds the reach of a mistake."),
    required("scope", PLACE, "What bounds signals and abstract sockets."),
    required("wait_killable", Flag, "Whether a held call survives a signal."),
    required("sync_wake_up", Flag, "Whether wake-ups are synchronous."),
    required("reads", Words(|| vec!["exact", "named", "off"]), "How reads are recorded."),
    required("rows", List(&Shape::Record(&ROW)), "Per row of docs/coverage.md."),
    required("degraded", Set(&Text), "What is weaker than it could be."),
]]);
