//! The JSON schema of the language names exactly the keys and words that the decoder knows.

use serde_json::Value;

use super::{decode, decode_exec, decode_rule, model};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;

fn sorted<'t>(words: impl IntoIterator<Item = &'t str>) -> Vec<&'t str> {
    let mut words: Vec<_> = words.into_iter().collect();
    words.sort_unstable();
    words
}

#[test]
fn the_schema_knows_what_the_decoder_knows() {
    let text = include_str!("../../../policies/schema/policy.schema.json");
    let root: Value = serde_json::from_str(text).unwrap();
    let rule = &root["properties"]["rules"]["items"];
    let exec = &root["properties"]["exec"];
    let kernel = EndpointClass::KERNEL.map(EndpointClass::as_str);
    let objects: [(&Value, &[&str]); 13] = [
        (&root, &decode::DOCUMENT_KEYS),
        (&root["properties"]["fail_closed"], &decode::FAIL_CLOSED_KEYS),
        (rule, &decode_rule::RULE_KEYS),
        (&rule["properties"]["match"], &decode_rule::MATCH_KEYS),
        (&rule["properties"]["rate_limit"], &decode_rule::RATE_LIMIT_KEYS),
        (&rule["properties"]["dataflow"], &decode_rule::DATAFLOW_KEYS),
        (&rule["properties"]["endpoint"], &decode_rule::ENDPOINT_KEYS),
        (&rule["properties"]["examples"], &decode_rule::EXAMPLES_KEYS),
        (&rule["properties"]["approval"], &decode_rule::APPROVAL_KEYS),
        (exec, &decode_exec::EXEC_KEYS),
        (&exec["properties"]["evidence"], &decode_exec::EVIDENCE_KEYS),
        (&exec["properties"]["env"], &decode_exec::ENV_KEYS),
        (&exec["properties"]["limits"], &decode_exec::LIMITS_KEYS),
    ];
    for (object, keys) in objects {
        let known = object["properties"].as_object().unwrap().keys().map(String::as_str);
        assert_eq!(sorted(known), sorted(keys.iter().copied()));
        assert_eq!(object["additionalProperties"], Value::Bool(false));
    }
    let required = exec["properties"]["require"]["properties"].as_object().unwrap();
    assert_eq!(sorted(required.keys().map(String::as_str)), sorted(kernel));
    let words = |value: &'static [&'static str], place: &Value| {
        let listed = place["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        assert_eq!(sorted(listed), sorted(value.iter().copied()));
    };
    let verdicts: &'static [&'static str] = &["allow", "block", "dry_run", "require_approval"];
    assert_eq!(sorted(Verdict::ALL.map(Verdict::as_str)), sorted(verdicts.iter().copied()));
    words(verdicts, &rule["properties"]["effect"]);
    words(&["auto", "ebpf", "seccomp", "ptrace"], &exec["properties"]["backend"]);
    assert_eq!(model::BackendChoice::ALL.len(), 4);
    let classes = &rule["properties"]["match"]["properties"]["endpoint_classes"]["items"];
    let listed = classes["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    assert_eq!(sorted(listed), sorted(EndpointClass::ALL.map(EndpointClass::as_str)));
}
