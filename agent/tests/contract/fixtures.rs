//! The fixtures of the primitives: accepted or refused by types and schemas alike, but for the exceptions they list.

use std::collections::{BTreeMap, BTreeSet};

use gait_agent::document::{Document, DocumentError};
use gait_agent::gate::GateResult;
use gait_agent::intent::{IntentError, IntentRequest};
use gait_agent::runpack::{IntentEntry, Manifest, Refs, ResultEntry, Run};
use gait_agent::sign::{ParseError, VerifyKey};
use gait_agent::trace::{TraceError, read_trace, verify_trace};
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use crate::artefacts::{ARTEFACTS, Artefact, CheckedBy};
use crate::place;

const BASE: &str = "docs/contracts/fixtures/v1";

/// The primitives, with their schemas.
fn primitives() -> impl Iterator<Item = (&'static str, &'static Artefact)> {
    ARTEFACTS.iter().filter_map(|artefact| match artefact.checked_by {
        CheckedBy::Fixtures(primitive) => Some((primitive, artefact)),
        CheckedBy::Types | CheckedBy::Output => None,
    })
}

fn folder(primitive: &str, kind: &str) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(place(&format!("{BASE}/{primitive}/{kind}")))
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
        })
        .collect()
}

fn expected(primitive: &str, kind: &str) -> Map<String, Value> {
    let text = std::fs::read_to_string(place(&format!("{BASE}/{primitive}/expect.json"))).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[kind].as_object().unwrap().clone()
}

fn key() -> VerifyKey {
    VerifyKey::from_file_text(&std::fs::read_to_string(place(&format!("{BASE}/public.key"))).unwrap())
        .unwrap()
}

/// Why a reader refuses a document: the code of the fixtures, or several where the type cannot tell them apart.
type Refusal = Vec<&'static str>;

fn of_parse(error: &ParseError) -> Refusal {
    vec![error.code()]
}

/// What serde finds: it says so in words, and which of these it was does not matter to anybody but people.
const SHAPE: [&str; 5] = ["wrong_type", "missing_field", "unknown_field", "unknown_word", "malformed_value"];

fn of_document(error: &DocumentError) -> Refusal {
    match error {
        DocumentError::Parse(error) => of_parse(error),
        DocumentError::Shape(_) => SHAPE.to_vec(),
        DocumentError::Missing(_) => vec!["missing_field"],
        DocumentError::Schema { .. } => vec!["wrong_constant"],
        DocumentError::Malformed(_) => vec!["malformed_value", "unknown_word", "wrong_type"],
        DocumentError::Order(_) => vec!["order"],
        DocumentError::Digest(_) => vec!["digest_mismatch"],
        DocumentError::Form => vec!["not_canonical"],
        other => panic!("no reason for {other:?}"),
    }
}

fn of_intent(error: &IntentError) -> Refusal {
    match error {
        IntentError::Parse(error) => of_parse(error),
        IntentError::Shape(_) => SHAPE.to_vec(),
        IntentError::Schema { .. } => vec!["wrong_constant"],
        IntentError::Missing(_) => vec!["missing_field", "malformed_value"],
        // An absent word is an empty one here.
        IntentError::Unsupported { value, .. } if value.is_empty() => vec!["missing_field"],
        IntentError::Unsupported { .. } => vec!["unknown_word"],
        IntentError::Digest(_) | IntentError::CreatedAt(_) | IntentError::BlankArgument => {
            vec!["malformed_value"]
        }
        IntentError::DuplicateArgument(_) => vec!["duplicate_key"],
        other => panic!("no reason for {other:?}"),
    }
}

fn of_trace(error: &TraceError) -> Refusal {
    match error {
        TraceError::Parse(error) => of_parse(error),
        TraceError::Shape(_) => SHAPE.to_vec(),
        TraceError::Schema { .. } => vec!["wrong_constant"],
        TraceError::TraceId { .. } => vec!["id_mismatch"],
        TraceError::Signature(_) | TraceError::Unsigned => vec!["signature_mismatch", "unknown_field"],
        other => panic!("no reason for {other:?}"),
    }
}

fn read<D: Document>(bytes: &[u8], facts: impl FnOnce(D) -> Value) -> Result<Value, Refusal> {
    D::from_json(bytes).map(facts).map_err(|error| of_document(&error))
}

/// Reads a document with the Rust types: what they compute from it, or why they refuse it.
fn reader(primitive: &str, bytes: &[u8]) -> Result<Value, Refusal> {
    match primitive {
        "intent_request" => {
            let intent = IntentRequest::from_json(bytes).and_then(IntentRequest::normalise);
            let intent = intent.map_err(|error| of_intent(&error))?;
            Ok(json!({"intent_digest": intent.intent_digest(), "args_digest": intent.args_digest()}))
        }
        "trace_record" => {
            let (record, digest) = read_trace(bytes).map_err(|error| of_trace(&error))?;
            Ok(json!({"trace_id": record.trace_id, "signed_digest": digest}))
        }
        "gate_result" => read::<GateResult>(bytes, |_| json!({})),
        "runpack_manifest" => read(bytes, |it: Manifest| json!({"manifest_digest": it.manifest_digest})),
        "run" => read::<Run>(bytes, |_| json!({})),
        "refs" => read::<Refs>(bytes, |_| json!({})),
        "intent_entry" => read(bytes, |it: IntentEntry| json!({"args_digest": it.args_digest})),
        "result_entry" => read(bytes, |it: ResultEntry| json!({"result_digest": it.result_digest})),
        other => panic!("no reader for {other}"),
    }
}

/// What the schema finds: reasons and places.
fn by_schema(artefact: &Artefact, bytes: &[u8]) -> Vec<(&'static str, String)> {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Vec::new() };
    let validator = artefact.validator();
    let found = validator.iter_errors(&value).map(|error| {
        let at = error.instance_path().to_string();
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                ("missing_field", format!("{at}/{}", property.as_str().unwrap()))
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                ("unknown_field", format!("{at}/{}", unexpected[0]))
            }
            ValidationErrorKind::Type { .. } => ("wrong_type", at),
            ValidationErrorKind::Constant { .. } => ("wrong_constant", at),
            ValidationErrorKind::Enum { .. } => ("unknown_word", at),
            ValidationErrorKind::Pattern { .. } => ("malformed_value", at),
            ValidationErrorKind::UniqueItems => ("order", at),
            other => panic!("no reason for {other:?}"),
        }
    });
    found.collect()
}

#[test]
fn valid_documents_are_accepted_and_come_to_what_is_said() {
    for (primitive, artefact) in primitives() {
        let (files, expected) = (folder(primitive, "valid"), expected(primitive, "valid"));
        assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{primitive}");
        for (name, bytes) in files {
            let place = format!("{primitive}/valid/{name}");
            assert_eq!(by_schema(artefact, &bytes), [], "{place}");
            let facts = reader(primitive, &bytes).unwrap_or_else(|reason| panic!("{place}: {reason:?}"));
            for (fact, value) in expected[&name].as_object().unwrap() {
                assert_eq!(&facts[fact], value, "{place}: {fact}");
            }
            if primitive == "trace_record" {
                verify_trace(&bytes, &key()).unwrap();
            }
        }
    }
}

#[test]
fn invalid_documents_are_refused_by_whom_is_said_and_for_that_reason() {
    let mut seen = BTreeSet::new();
    for (primitive, artefact) in primitives() {
        let (files, expected) = (folder(primitive, "invalid"), expected(primitive, "invalid"));
        assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{primitive}");
        for (name, bytes) in files {
            let place = format!("{primitive}/invalid/{name}");
            let said = &expected[&name];
            let (reason, at) = (said["reason"].as_str().unwrap(), said["at"].as_str().unwrap());
            let by = said["refused_by"].as_array().unwrap();
            let says = |who: &str| by.iter().any(|name| name == who);

            let found = by_schema(artefact, &bytes);
            assert_eq!(!found.is_empty(), says("schema"), "{place}: the schema finds {found:?}");
            if says("schema") {
                assert!(found.iter().any(|(code, path)| *code == reason && path == at), "{place}: {found:?}");
            }
            match reader(primitive, &bytes) {
                Ok(_) => assert!(!says("reader"), "{place}: the types accept it"),
                Err(codes) => {
                    assert!(says("reader"), "{place}: the types refuse it: {codes:?}");
                    assert!(codes.contains(&reason), "{place}: {codes:?}");
                }
            }
            if says("signature") {
                let codes = of_trace(&verify_trace(&bytes, &key()).unwrap_err());
                assert!(codes.contains(&reason), "{place}: {codes:?}");
            }
            // Where the schema is stricter than the reader, somebody has to have said why.
            let differs = says("schema") && !says("reader");
            assert_eq!(differs, said.get("why").is_some(), "{place}: why do they differ?");
            seen.insert(reason.to_owned());
        }
    }
    let page = std::fs::read_to_string(place(&format!("{BASE}/README.md"))).unwrap();
    for reason in seen {
        assert!(page.contains(&format!("| `{reason}` |")), "{reason} is not explained");
    }
}

/// Each field that the schema requires is missed in one fixture at least.
#[test]
fn every_required_field_is_missed_once() {
    for (primitive, artefact) in primitives() {
        let missed: BTreeSet<_> = expected(primitive, "invalid")
            .values()
            .filter(|said| said["reason"] == "missing_field")
            .map(|said| said["at"].as_str().unwrap().to_owned())
            .collect();
        let record = artefact.shape.record().unwrap();
        for field in record.required() {
            assert!(missed.contains(&format!("/{field}")), "{primitive}: no fixture without {field}");
        }
    }
}

/// The requests that were made of recorded evidence have the digests of the evidence.
#[test]
fn requests_of_recorded_actions_have_the_digests_of_the_records() {
    let pairs = [
        ("exec_read_allowed", "exec_read_allowed"),
        ("exec_read_blocked", "exec_read_blocked"),
        ("exec_delete_asked", "exec_delete_unanswered"),
        ("exec_delete_asked", "exec_delete_approved"),
        ("exec_program_raw", "exec_program_raw"),
    ];
    let (requests, records) = (folder("intent_request", "valid"), folder("trace_record", "valid"));
    for (request, record) in pairs {
        let facts = reader("intent_request", &requests[&format!("{request}.json")]).unwrap();
        let (record, _) = read_trace(&records[&format!("{record}.json")]).unwrap();
        assert_eq!(facts["intent_digest"], record.intent_digest.to_string(), "{request}");
    }
}
