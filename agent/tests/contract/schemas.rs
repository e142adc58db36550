//! The JSON Schemas: made from the table, held equal to the committed files, and the table to the types.

use std::collections::BTreeSet;
use std::io::Read;

use gait_agent::trace::Line;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::artefacts::exec::{LINES, kinds};
use crate::artefacts::{ARTEFACTS, Artefact, COPIED, CheckedBy};
use crate::names::names;
use crate::shape::{Presence, Record, Shape};
use crate::{hold, place};

const BASE: &str = "docs/contracts/schemas/v1";

impl Artefact {
    /// The whole schema.
    pub(crate) fn schema(&self) -> Value {
        let mut schema = self.shape.schema();
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["$id"] = format!("urn:gait:schema:v1:{}", self.file.replace('/', ":")).into();
        schema["title"] = self.title.into();
        if self.checked_by == CheckedBy::Output {
            schema["$comment"] = "checked against real output by launcher/tests/cli/schemas.rs".into();
        }
        schema
    }

    pub(crate) fn validator(&self) -> Validator {
        validator(&self.schema())
    }
}

pub(crate) fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::options().should_validate_formats(false).build(schema).unwrap()
}

pub(crate) fn artefact(file: &str) -> &'static Artefact {
    ARTEFACTS.iter().find(|artefact| artefact.file == file).unwrap()
}

fn text(schema: &Value) -> String {
    let mut text = serde_json::to_string_pretty(schema).unwrap();
    text.push('\n');
    text
}

#[test]
fn the_schemas_are_made_from_the_table() {
    let mut files = BTreeSet::new();
    for artefact in ARTEFACTS {
        let schema = artefact.schema();
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{}", artefact.file);
        hold(&format!("{BASE}/{}.schema.json", artefact.file), &text(&schema));
        assert!(files.insert(artefact.file), "{} twice", artefact.file);
    }
    for (source, file) in COPIED {
        let source = std::fs::read_to_string(place(source)).unwrap();
        assert!(jsonschema::draft202012::meta::is_valid(&serde_json::from_str(&source).unwrap()));
        hold(&format!("{BASE}/{file}.schema.json"), &source);
        files.insert(file);
    }
    let mut found = BTreeSet::new();
    for area in std::fs::read_dir(place(BASE)).unwrap() {
        let area = area.unwrap().path();
        for file in std::fs::read_dir(&area).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let stem = name.strip_suffix(".schema.json").unwrap_or(&name);
            found.insert(format!("{}/{stem}", area.file_name().unwrap().to_str().unwrap()));
        }
    }
    let files: BTreeSet<_> = files.into_iter().map(str::to_owned).collect();
    assert_eq!(found, files, "a schema without a line in the table");
}

/// Calls `each` with every record of a shape.
fn records(shape: Shape, each: &mut impl FnMut(&'static Record)) {
    match shape {
        Shape::OneOf(records_of) => records_of.iter().for_each(|record| records(Shape::Record(record), each)),
        _ => {
            if let Some(record) = shape.record() {
                each(record);
                record.all().for_each(|field| records(field.shape, each));
            }
        }
    }
}

#[test]
fn the_table_has_the_fields_of_the_types() {
    let mut typed = 0;
    for artefact in ARTEFACTS {
        records(artefact.shape, &mut |record| {
            let Some(of_type) = record.of_type else { return };
            let known = record.all().filter(|field| field.presence != Presence::PassedOver);
            let known: BTreeSet<_> = known.map(|field| field.name).collect();
            assert_eq!(known, of_type().into_iter().collect(), "{}", artefact.file);
            assert_eq!(record.all().count(), record.all().map(|f| f.name).collect::<BTreeSet<_>>().len());
            typed += 1;
        });
        let untyped = matches!(artefact.checked_by, CheckedBy::Fixtures(_))
            && !matches!(artefact.shape, Shape::Record(record) if record.of_type.is_some());
        assert!(!untyped, "{}: a primitive is held to its type", artefact.file);
    }
    assert!(typed > 20);

    let union: BTreeSet<_> = LINES.iter().flat_map(|record| record.all()).map(|field| field.name).collect();
    assert_eq!(union, names::<Line>().into_iter().collect(), "the fields of a journal's line");
    let told: BTreeSet<_> = LINES
        .iter()
        .map(|record| match record.all().find(|field| field.name == "kind").unwrap().shape {
            Shape::Const(kind) => kind,
            _ => panic!("the kind of a line is a constant"),
        })
        .collect();
    assert_eq!(told, kinds().into_iter().collect());
}

fn entry(run: &str, name: &str) -> Vec<u8> {
    let path = place(&format!("docs/contracts/fixtures/v1/runpacks/runpack_{run}.zip"));
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Evidence that `gait exec` recorded is what the schemas say, entry for entry and line for line.
#[test]
fn recorded_runpacks_are_what_the_schemas_say() {
    let documents = [
        ("exec/coverage", "coverage.json"),
        ("exec/journal_digest", "journal.digest"),
        ("exec/journal_line", "journal.jsonl"),
        ("gate/trace_record", "traces.jsonl"),
        ("runpack/intent", "intents.jsonl"),
        ("runpack/manifest", "manifest.json"),
        ("runpack/refs", "refs.json"),
        ("runpack/result", "results.jsonl"),
        ("runpack/run", "run.json"),
    ];
    for run in ["run_fixture", "run_fixture_approved"] {
        for (file, name) in documents {
            let validator = artefact(file).validator();
            let bytes = entry(run, name);
            let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            for (at, line) in lines.enumerate() {
                let value: Value = serde_json::from_slice(line).unwrap();
                if let Err(error) = validator.validate(&value) {
                    panic!("{run} {name} line {}: {error} at {}", at + 1, error.instance_path());
                }
                if name == "journal.jsonl" {
                    Line::parse(line).unwrap();
                }
            }
        }
    }
}

/// The kinds of lines that the recorded sessions did not have, and mistakes that the schema of a line must see.
#[test]
fn every_kind_of_line_has_its_fields() {
    let validator = artefact("exec/journal_line").validator();
    let common = json!({"at": "2026-01-02T03:04:05Z", "prev": "0".repeat(64), "seq": "1"});
    let line = |fields: Value| {
        let mut line = common.clone();
        line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        line
    };
    let good = [
        line(json!({"kind": "loss", "count": "2", "reason": "full"})),
        line(json!({"kind": "note", "text": "x"})),
        line(json!({"kind": "event", "count": "1", "event_id": "a".repeat(24), "intent_id": "intent_1",
            "pid": "1", "tid": "1", "trace_id": "b".repeat(24)})),
    ];
    for line in &good {
        assert!(validator.is_valid(line), "{line}");
        Line::parse(line.to_string().as_bytes()).unwrap();
    }
    let bad = [
        line(json!({"kind": "note"})),
        line(json!({"kind": "note", "text": "x", "count": "1"})),
        line(json!({"kind": "other", "text": "x"})),
        line(json!({"kind": "loss", "count": 2, "reason": "full"})),
        line(json!({"kind": "loss", "count": "02", "reason": "full"})),
    ];
    for line in bad {
        assert!(!validator.is_valid(&line), "{line}");
    }
}

/// The description of a run that the contract's vectors have is one that the schema takes.
#[test]
fn a_described_run_is_what_the_schema_says() {
    let validator = artefact("runpack/run_record").validator();
    let text = include_str!("../vectors/inputs/run_record.json");
    let record: Value = serde_json::from_str(text).unwrap();
    assert!(validator.is_valid(&record));
    for (pointer, wrong) in
        [("/run/run_id", json!("a b")), ("/intents", json!({})), ("/capture_mode", json!("all"))]
    {
        let mut changed = record.clone();
        if let Some(place) = changed.pointer_mut(pointer) {
            *place = wrong;
        } else {
            changed[pointer.trim_start_matches('/')] = wrong;
        }
        assert!(!validator.is_valid(&changed), "{pointer}");
    }
}
