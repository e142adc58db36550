//! The signing key is out of the workload's reach, however it is given.

use crate::harness::World;

/// The published test seed 00…1f of the contract's vectors.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==";

const ALL: &str = "
default_verdict: allow
exec: {env: {allow: ['*'], deny: []}}
rules:
  - name: reads
    priority: 1
    effect: allow
    match: {endpoint_classes: [fs.read]}
";

#[test]
fn a_key_in_the_environment_signs_and_is_not_inherited() {
    let mut world = World::new();
    world.set_policy(ALL, 0);
    world.env("SIGNING", KEY);
    world.flags(["--key-mode", "prod", "--private-key-env", "SIGNING"]);
    let outcome = world.gait(&["sh", "-c", "env; tr '\\0' '\\n' </proc/self/environ"]);
    outcome.expect_code(0);
    assert!(outcome.stdout.contains("GAIT_RUN_ID="), "{outcome:?}");
    assert!(!outcome.stdout.contains("AAECAwQF"), "the workload has the key: {}", outcome.stdout);
}

#[test]
fn a_key_in_a_file_cannot_be_read() {
    let mut world = World::new();
    world.set_policy(ALL, 0);
    world.write("ws/open/key", KEY);
    let key = world.at("open/key");
    world.flags(["--key-mode", "prod", "--private-key", &key]);
    let outcome = world.gait(&[
        "sh",
        "-c",
        "cat open/key; ln open/key open/other; mv open/key open/moved; cat open/moved",
    ]);
    assert!(!outcome.stdout.contains("AAECAwQF"), "the workload has the key: {}", outcome.stdout);
    assert!(world.exists("ws/open/key"));
}
