//! What gait really writes, held to the JSON Schemas of `docs/contracts/schemas/v1/`.
//!
//! The schemas whose `$comment` names this file have no Rust type that could be asked for its fields. So each of their
//! documents seen here must be valid, and all of them together must have had every property that the schema has: a
//! field that nobody writes is a mistake, too. To add a schema, see `agent/tests/contract/artefacts/mod.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::evidence::{flip, session};
use super::gate::{keys, sandbox};
use super::sandbox::Sandbox;
use super::written;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contracts/schemas/v1");
const MARK: &str = "checked against real output by launcher/tests/cli/schemas.rs";

/// Properties that depend on the host, and so may never be seen.
const OF_THE_HOST: [(&str, &[&str]); 1] = [(
    "verbs/doctor_output",
    &[
        "/checks/fix_command",
        "/checks/non_fixable",
        "/fix_commands",
        "/warnings",
        "/error",
        "/error_code",
        "/error_category",
        "/retryable",
        "/hint",
    ],
)];

/// The documents of one schema.
struct Seen {
    schema: Value,
    validator: jsonschema::Validator,
    properties: BTreeSet<String>,
}

/// The schemas that are checked here.
pub(super) struct Schemas(BTreeMap<String, Seen>);

impl Schemas {
    fn load() -> Self {
        let mut all = BTreeMap::new();
        for area in std::fs::read_dir(BASE).unwrap() {
            let area = area.unwrap().path();
            for file in std::fs::read_dir(&area).unwrap() {
                let path = file.unwrap().path();
                let schema: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
                if schema["$comment"] != MARK {
                    continue;
                }
                let name =
                    path.strip_prefix(BASE).unwrap().to_str().unwrap().trim_end_matches(".schema.json");
                let validator = jsonschema::draft202012::new(&schema).unwrap();
                let properties = BTreeSet::new();
                all.insert(name.to_owned(), Seen { schema, validator, properties });
            }
        }
        assert!(all.len() >= 33, "the schemas of {BASE}");
        Self(all)
    }

    pub(super) fn see(&mut self, name: &str, document: &Value) {
        let seen = self.0.get_mut(name).unwrap_or_else(|| panic!("no schema {name} is checked here"));
        if let Err(error) = seen.validator.validate(document) {
            panic!("{name}: {error} at {:?} of {document}", error.instance_path().as_str());
        }
        collect(document, "", &mut seen.properties);
    }

    pub(super) fn see_file(&mut self, name: &str, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap();
        self.see(name, &serde_json::from_str(&text).unwrap());
    }

    /// Every schema has had a document, and every property a value.
    fn finish(self) {
        for (name, seen) in self.0 {
            let excused = OF_THE_HOST.iter().find(|(schema, _)| *schema == name).map_or(&[][..], |it| it.1);
            let mut properties = BTreeSet::new();
            described(&seen.schema, "", &mut properties);
            let missing: Vec<_> = properties
                .into_iter()
                .filter(|property| !seen.properties.contains(property) && !excused.contains(&&**property))
                .collect();
            assert!(missing.is_empty(), "{name}: no document had {missing:?}");
        }
    }
}

/// The places of a document's fields; items of a list are in the place of the list.
fn collect(value: &Value, place: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, place, all)),
        Value::Object(fields) => {
            for (key, value) in fields {
                let place = format!("{place}/{key}");
                collect(value, &place, all);
                all.insert(place);
            }
        }
        _ => {}
    }
}

/// The places of a schema's properties.
fn described(schema: &Value, place: &str, all: &mut BTreeSet<String>) {
    if let Some(items) = schema.get("items") {
        described(items, place, all);
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}/{key}");
        described(inner, &place, all);
        all.insert(place);
    }
}

fn gate_documents(schemas: &mut Schemas) {
    let mut sandbox = sandbox();
    // A broker that keeps the request, so that it can be looked at.
    let script = format!(
        "#!/bin/sh\ncat > {}\necho '{{\"credential_ref\":\"v1\"}}'\n",
        sandbox.path("request.json").display()
    );
    sandbox.write("broker.sh", &script);
    std::fs::set_permissions(sandbox.path("broker.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let broker = sandbox.path("broker.sh");
    let eval = "gate eval --policy p.yaml --trace-out t.json --approval-audit-out a.json --json";
    let lines = [
        format!("{eval} --intent read.json"),
        format!("{eval} --intent none.json --simulate"),
        format!("{eval} --intent few.json"),
        format!("{eval} --intent vault.json --credential-broker stub"),
        format!(
            "{eval} --intent vault.json --credential-broker command --credential-command {} --credential-evidence-out c.json",
            broker.display()
        ),
        format!("{eval} --intent pay.json --approval-token-ref ticket-1"),
        format!("{eval} --intent nothing.json"),
        format!("{eval} --intent none.json --key-mode prod"),
    ];
    for line in lines {
        let answered = sandbox.gait(&line);
        schemas.see(
            if answered.exit == 6 { "verbs/failure_output" } else { "gate/gate_eval_output" },
            &answered.json(),
        );
    }
    schemas.see_file("gate/broker_request", &sandbox.path("request.json"));
    schemas.see_file("gate/broker_credential_record", &sandbox.path("c.json"));
    schemas.see_file("gate/rate_limit_state", &sandbox.path(".gait-out/gate_rate_limits.json"));
    schemas.see_file("gate/approval_audit_record", &sandbox.path("a.json"));

    let asked = sandbox.gait(&format!("{eval} --intent pay.json")).json();
    let digest = |key: &str| asked[key].as_str().unwrap().to_owned();
    for (who, key) in [("ann", "private.key"), ("eve", "other.key")] {
        let line = format!(
            "approve --intent-digest {} --policy-digest {} --ttl 1h --scope tool:tool.pay --approver {who} \
             --reason-code ok --out {who}.json --key-mode prod --private-key {key}",
            digest("intent_digest"),
            digest("policy_digest")
        );
        assert_eq!(sandbox.gait(&line).exit, 0);
        schemas.see_file("gate/approval_token", &sandbox.path(&format!("{who}.json")));
    }
    let tokens = "--approval-token-chain ann.json,eve.json --approval-public-key public.key";
    sandbox.gait(&format!("{eval} --intent pay.json {tokens}"));
    schemas.see_file("gate/approval_audit_record", &sandbox.path("a.json"));

    sandbox.write(
        "v.yaml",
        "rules:\n  - {name: a, effect: block, violations: [v], match: {tool_names: [tool.pay]}}\n",
    );
    for tool in ["read", "pay", "nothing"] {
        let answered = sandbox.gait(&format!("policy test v.yaml {tool}.json --json"));
        let failed = answered.exit == 6;
        let schema = if failed { "verbs/failure_output" } else { "policytest/policy_test_output" };
        schemas.see(schema, &answered.json());
    }
}

fn evidence_documents(schemas: &mut Schemas) {
    let mut sandbox = Sandbox::new();
    keys(&sandbox);
    session(&sandbox, "run_s");
    let verify = |sandbox: &mut Sandbox, schemas: &mut Schemas, line: &str| {
        schemas.see("verbs/verify_output", &sandbox.gait(line).json());
    };
    verify(&mut sandbox, schemas, "verify run_s --json");
    verify(&mut sandbox, schemas, "verify run_s --json --public-key public.key");
    schemas.see("verbs/failure_output", &sandbox.gait("verify run_s --json --public-key private.key").json());
    let other = gait_agent::sign::SigningKey::from_seed([9; 32]).verify_key().to_file_text();
    sandbox.write("stranger.key", &other);
    verify(&mut sandbox, schemas, "verify run_s --json --public-key stranger.key");

    let path = sandbox.path("gait-out/runpack_run_s.zip");
    flip(&path, b"run.jsonPK");
    verify(&mut sandbox, schemas, "verify run_s --json");
    for damage in 0..2 {
        session(&sandbox, "run_s");
        let mut entries = entries(&path);
        if damage == 0 {
            entries.retain(|(name, _)| name != "refs.json");
        } else {
            entries.iter_mut().find(|entry| entry.0 == "run.json").unwrap().1.push(b' ');
        }
        write(&path, &entries);
        verify(&mut sandbox, schemas, "verify run_s --json");
    }
    let doctor = sandbox.gait("doctor --json");
    schemas.see("verbs/doctor_output", &doctor.json());
}

pub(super) fn entries(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    (0..archive.len())
        .map(|at| {
            let mut entry = archive.by_index(at).unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

fn write(path: &Path, entries: &[(String, Vec<u8>)]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn what_is_written_is_what_the_schemas_say() {
    let mut schemas = Schemas::load();
    gate_documents(&mut schemas);
    evidence_documents(&mut schemas);
    written::run_documents(&mut schemas);
    written::regress_documents(&mut schemas);
    written::report_documents(&mut schemas);
    written::pack_documents(&mut schemas);
    schemas.finish();
}
