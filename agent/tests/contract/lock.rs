//! The lock: what consumers rely on, committed, and only to be changed together with a version.
//!
//! `docs/contracts/primitive_contract.lock.json` holds, per document and version, every field with whether it must be
//! there, its form, its constant or its words; and golden values of every digest rule. A change of what is locked under
//! an unchanged version fails, also with `GAIT_BLESS`. What is only added (an optional field, a new vector, a new
//! version) is taken up by blessing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::{EndpointClass, Operation};
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, Intent, IntentRequest, SessionFacts};
use gait_agent::policy::Policy;
use gait_agent::runpack::{VerifyOptions, verify};
use gait_agent::schema;
use gait_agent::sign::{Digest, Limits, SigningKey, digest_of, parse_strict};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{TraceId, read_trace};
use serde_json::{Value, json};

use crate::artefacts::{ARTEFACTS, Artefact, CheckedBy};
use crate::shape::{Presence, Record, Shape};
use crate::{bless, place};

const FILE: &str = "docs/contracts/primitive_contract.lock.json";

impl Artefact {
    /// Whether others build on it: everything but the answers of verbs, which may still gain what they lack.
    fn is_locked(&self) -> bool {
        self.checked_by != CheckedBy::Output || self.file.starts_with("gate/")
    }

    /// The version that the document names; that of the folder where it names none.
    fn version(&self) -> &'static str {
        let named =
            self.shape.record().and_then(|record| record.all().find(|it| it.name == "schema_version"));
        match named.map(|field| field.shape) {
            Some(Shape::Const(version)) => version,
            _ => schema::VERSION,
        }
    }
}

fn fields(record: &Record, place: &str, all: &mut BTreeMap<String, String>) {
    for field in record.all() {
        let place = format!("{place}/{}", field.name);
        let presence = match field.presence {
            Presence::Required => "required",
            Presence::Optional => "optional",
            Presence::PassedOver => "passed over",
        };
        all.insert(place.clone(), format!("{presence}: {}", field.shape.words()));
        if let Some(inner) = field.shape.record() {
            fields(inner, &place, all);
        }
    }
}

fn document(artefact: &Artefact) -> Value {
    let mut all = BTreeMap::new();
    match artefact.shape {
        Shape::OneOf(records) => {
            for record in records {
                let kind = record.all().find(|field| field.name == "kind").unwrap();
                fields(record, &format!("({})", kind.shape.words().trim_matches('`')), &mut all);
            }
        }
        shape => fields(shape.record().unwrap(), "", &mut all),
    }
    json!(all)
}

/// What is to be locked, as the code is now.
pub(crate) fn current() -> Value {
    let documents: BTreeMap<_, _> = ARTEFACTS
        .iter()
        .filter(|artefact| artefact.is_locked())
        .map(|artefact| (artefact.file, json!({artefact.version(): document(artefact)})))
        .collect();
    json!({"digests": {schema::VERSION: digests()}, "documents": documents})
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(place(&format!("docs/contracts/fixtures/v1/{name}"))).unwrap()
}

/// One value per digest rule, computed by the code that everybody uses.
pub(crate) fn digests() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut vector =
        |name: &str, value: String| assert!(all.insert(name.to_owned(), value).is_none(), "{name}");

    let stress = include_bytes!("../vectors/inputs/i02_jcs.json");
    let value = parse_strict(stress, Limits::DOCUMENT).unwrap();
    vector("canonical_json of i02_jcs.json", digest_of(&value).unwrap().to_string());
    let seed = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let key = SigningKey::from_seed(seed);
    vector("key_id of the seed 00 01 … 1f", key.key_id().to_string());
    vector("signature of sha256(\"gait\")", key.sign_digest(&Digest::sha256(b"gait")).sig);

    for name in ["tool_minimal", "tool_jcs", "tool_context", "tool_egress_tainted", "tool_full"] {
        let bytes = fixture(&format!("intent_request/valid/{name}.json"));
        let intent = || IntentRequest::from_json(&bytes).and_then(IntentRequest::normalise);
        let digest = intent().map(|intent| intent.args_digest());
        vector(&format!("args_digest of intent_request/{name}"), told(digest));
        let digest = intent().map(|intent| intent.intent_digest());
        vector(&format!("intent_digest of intent_request/{name}"), told(digest));
    }
    for (name, text) in [
        ("p01_default", include_str!("../vectors/inputs/p01_default.yaml")),
        ("p02_match", include_str!("../vectors/inputs/p02_match.yaml")),
        ("p03_constraints", include_str!("../vectors/inputs/p03_constraints.yaml")),
        ("p04_failclosed", include_str!("../vectors/inputs/p04_failclosed.yaml")),
    ] {
        vector(&format!("policy_digest of {name}.yaml"), policy(text).digest().to_string());
    }

    let (policy, intent) = (Digest::sha256(b"policy"), Digest::sha256(b"intent"));
    for verdict in Verdict::ALL {
        vector(&format!("trace_id of {verdict}"), TraceId::new(&policy, &intent, verdict).to_string());
    }
    let id = TraceId::new(&policy, &intent, Verdict::Allow);
    vector(
        "event_id at 2026-01-02T03:04:05.06Z",
        id.event("2026-01-02T03:04:05.060Z".parse::<Timestamp>().unwrap()).to_string(),
    );
    for name in ["exec_delete_approved", "exec_program_raw", "gate_simulated"] {
        let read = read_trace(&fixture(&format!("trace_record/valid/{name}.json")));
        vector(&format!("signed_digest of trace_record/{name}"), told(read.map(|(_, digest)| digest)));
    }
    for run in ["run_fixture", "run_fixture_approved"] {
        // Verification derives intents and results anew, and follows the chain of the journal to its sealed head.
        let path = place(&format!("docs/contracts/fixtures/v1/runpacks/runpack_{run}.zip"));
        let report = verify(&path, &VerifyOptions::default()).unwrap();
        let digest = match report.findings.first() {
            None => report.manifest_digest.unwrap().to_string(),
            Some(finding) => format!("refused: {finding}"),
        };
        vector(&format!("manifest_digest of runpacks/{run}"), digest);
    }
    mapping(&mut vector);
    all
}

/// A digest, or why there is none: a document of before that is refused now is a change like any other.
fn told<E: std::fmt::Display>(digest: Result<Digest, E>) -> String {
    digest.map_or_else(|error| format!("refused: {error}"), |digest| digest.to_string())
}

fn policy(text: &str) -> Policy {
    Policy::parse("policy.yaml", text).unwrap()
}

/// The intents that `gait exec` makes of what the kernel saw, one per operation.
fn mapping(vector: &mut impl FnMut(&str, String)) {
    let facts =
        SessionFacts { identity: "uid:1000".into(), workspace: "/srv/demo".into(), run_id: "run_x".into() };
    let host = Host { name: Some("example.com"), address: Some(IpAddr::from([192, 0, 2, 1])), port: 443 };
    for &operation in Operation::ALL {
        let object = match operation.class() {
            EndpointClass::NetHttp | EndpointClass::NetDns => Object::Host(host),
            EndpointClass::Other => Object::Other("thing"),
            _ => Object::Path(b"/srv/demo/a \xff"),
        };
        let argv = (operation == Operation::Exec).then_some(&b"a\0-b\0"[..]);
        let action = Action { operation, object, image: b"/usr/bin/a", argv };
        let intent = Intent::from_action(&facts, &action, Capture::Reference);
        let name = format!("intent_digest of the event {} {operation:?}", operation.class());
        vector(&name, intent.intent_digest().to_string());
    }
}

/// A difference between what is locked and what the code says.
#[derive(Debug, PartialEq)]
struct Change {
    /// Whether consumers of the version may rely on what was.
    breaks: bool,
    text: String,
}

/// Compares what is locked with what is.
fn compare(locked: &Value, current: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    let empty = serde_json::Map::new();
    let object = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let mut parts = vec![("digests".to_owned(), locked["digests"].clone(), current["digests"].clone())];
    for (name, versions) in object(&locked["documents"]) {
        parts.push((name.clone(), versions, current["documents"][&name].clone()));
    }
    for (name, versions) in object(&current["documents"]) {
        if locked["documents"].get(&name).is_none() {
            parts.push((name, json!({}), versions));
        }
    }
    for (name, locked, current) in parts {
        if current.is_null() {
            changes.push(Change { breaks: true, text: format!("{name} is gone") });
        }
        for (version, now) in object(&current) {
            let Some(was) = locked.get(&version) else {
                changes.push(Change { breaks: false, text: format!("{name} {version} is new") });
                continue;
            };
            compare_version(&format!("{name} {version}"), &object(was), &object(&now), &mut changes);
        }
    }
    changes
}

fn compare_version(
    name: &str,
    was: &serde_json::Map<String, Value>,
    now: &serde_json::Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let mut change = |breaks, text: String| changes.push(Change { breaks, text: format!("{name}: {text}") });
    for (key, value) in was {
        match now.get(key) {
            None => change(true, format!("{key} is gone; it was {value}")),
            Some(other) if other != value => change(true, format!("{key} was {value}, is {other}")),
            Some(_) => {}
        }
    }
    for (key, value) in now {
        if !was.contains_key(key) {
            let needed = value.as_str().is_some_and(|text| text.starts_with("required"));
            // A required field inside an optional one that is new asks nothing of who does not write that one.
            let inside_new = key.rsplit_once('/').is_some_and(|(outer, _)| {
                !outer.is_empty() && now.contains_key(outer) && !was.contains_key(outer)
            });
            change(needed && !inside_new, format!("{key} is new: {value}"));
        }
    }
}

fn said(changes: &[Change]) -> String {
    changes.iter().map(|change| format!("  {}\n", change.text)).collect()
}

#[test]
fn what_consumers_rely_on_does_not_change_under_one_version() {
    let text = std::fs::read_to_string(place(FILE)).unwrap_or_else(|_| "{}".into());
    let locked: Value = serde_json::from_str(&text).unwrap();
    let current = current();
    let changes = compare(&locked, &current);
    let breaking: Vec<_> = changes.into_iter().filter(|change| change.breaks).collect();
    assert!(
        breaking.is_empty(),
        "the primitive contract changed without a new version:\n{}\
         Undo this, or: give the documents a new schema_version (agent/src/schema.rs and the table in \
         agent/tests/contract/artefacts), keep reading the old one, say in docs/contracts/primitive_contract.md how to \
         go over, and run GAIT_BLESS=1 cargo test -p gait-agent --test contract",
        said(&breaking)
    );
    let mut merged = locked.clone();
    merge(&mut merged, &current);
    if bless() {
        std::fs::write(place(FILE), format!("{}\n", serde_json::to_string_pretty(&merged).unwrap())).unwrap();
    } else {
        assert!(
            merged == locked,
            "the primitive contract grew, which is allowed: GAIT_BLESS=1 cargo test -p gait-agent --test contract\n{}",
            said(&compare(&locked, &current))
        );
    }
}

/// Takes up what is new; what is locked of other versions stays.
fn merge(locked: &mut Value, current: &Value) {
    if let (Some(locked), Some(current)) = (locked.as_object_mut(), current.as_object()) {
        for (key, value) in current {
            merge(locked.entry(key.clone()).or_insert(json!({})), value);
        }
    } else {
        *locked = current.clone();
    }
}

/// Every trial change of the kind that breaks a consumer is seen, named, and not to be blessed away.
#[test]
fn trial_changes_are_seen() {
    let now = current();
    assert_eq!(compare(&now, &now), []);
    let intent = |now: &mut Value| now["documents"]["gate/intent_request"]["1.0.0"].take();
    type Trial = (&'static str, &'static str, fn(&mut serde_json::Map<String, Value>));
    let trials: [Trial; 9] = [
        ("a required field removed", "/tool_name is gone", |it| drop(it.remove("/tool_name"))),
        ("a nested required field removed", "/context/identity is gone", |it| {
            drop(it.remove("/context/identity"))
        }),
        ("a required field made optional", "/args was \"required: object\", is \"optional: object\"", |it| {
            it["/args"] = "optional: object".into();
        }),
        ("an optional field made required", "/arg_provenance was", |it| {
            let text = it["/arg_provenance"].as_str().unwrap().replace("optional", "required");
            it["/arg_provenance"] = text.into();
        }),
        ("a new required field", "/approver is new", |it| {
            it.insert("/approver".into(), "required: string".into());
        }),
        ("a constant changed", "/schema_id was", |it| {
            it["/schema_id"] = "required: `gait.gate.request`".into();
        }),
        ("a word removed", "/targets/kind was", |it| {
            let text = it["/targets/kind"].as_str().unwrap().replace("`bucket`, ", "");
            it["/targets/kind"] = text.into();
        }),
        ("a word added", "/targets/endpoint_class was", |it| {
            let text = format!("{}, `fs.watch`", it["/targets/endpoint_class"].as_str().unwrap());
            it["/targets/endpoint_class"] = text.into();
        }),
        ("a form loosened", "/context/risk_class was", |it| {
            it["/context/risk_class"] = "required: string".into();
        }),
    ];
    for (what, text, change) in trials {
        let mut changed = now.clone();
        let Value::Object(mut fields) = intent(&mut changed) else { panic!("fields") };
        change(&mut fields);
        changed["documents"]["gate/intent_request"]["1.0.0"] = fields.into();
        let changes = compare(&now, &changed);
        assert_eq!(changes.len(), 1, "{what}: {changes:?}");
        assert!(changes[0].breaks && changes[0].text.contains(text), "{what}: {changes:?}");
        assert!(changes[0].text.starts_with("gate/intent_request 1.0.0: "), "{what}");
    }
    for (name, value) in digests() {
        let mut changed = now.clone();
        changed["digests"]["1.0.0"][&name] = value.replace(|digit: char| digit.is_ascii_digit(), "a").into();
        let changes = compare(&now, &changed);
        assert!(changes.len() == 1 && changes[0].breaks && changes[0].text.contains(&name), "{changes:?}");
    }
    let mut changed = now.clone();
    changed["documents"].as_object_mut().unwrap().remove("runpack/refs");
    assert_eq!(compare(&now, &changed), [Change { breaks: true, text: "runpack/refs is gone".into() }]);
}

#[test]
fn what_only_adds_is_taken_up_and_a_new_version_is_a_new_entry() {
    let now = current();
    let mut changed = now.clone();
    changed["documents"]["gate/trace_record"]["1.0.0"]["/note"] = "optional: object, below".into();
    changed["documents"]["gate/trace_record"]["1.0.0"]["/note/by"] = "required: string".into();
    let changes = compare(&now, &changed);
    assert!(changes.len() == 2 && changes.iter().all(|change| !change.breaks), "{changes:?}");

    let mut changed = now.clone();
    let versions = changed["documents"]["gate/trace_record"].as_object_mut().unwrap();
    let mut fields = versions.remove("1.0.0").unwrap();
    fields.as_object_mut().unwrap().remove("/tool_name");
    versions.insert("2.0.0".into(), fields);
    let changes = compare(&now, &changed);
    assert!(changes.len() == 1 && !changes[0].breaks, "{changes:?}");
    let mut merged = now.clone();
    merge(&mut merged, &changed);
    assert_eq!(merged["documents"]["gate/trace_record"].as_object().unwrap().len(), 2);
    assert_eq!(compare(&merged, &now), [], "what was locked of the old version is still locked");
}
