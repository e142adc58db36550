//! Levels of read evidence (`exec.evidence.reads`).

use crate::harness::World;

/// Reads wide, writes in the workspace; `off` and `named` are for policies like this one, without a hole in a tree.
const WIDE: &str = "
default_verdict: block
exec: {evidence: {reads: 'LEVEL'}}
rules:
  - name: read
    priority: 1
    effect: allow
    match: {endpoint_classes: [fs.read, proc.exec]}
  - name: write
    priority: 1
    effect: allow
    match: {endpoint_classes: [fs.write], paths: ['${ws}/open/**']}
";

#[test]
fn reads_are_recorded_as_the_policy_asks() {
    for (level, recorded) in [("exact", true), ("named", true), ("off", false)] {
        let world = World::new();
        world.set_policy(&WIDE.replace("LEVEL", level), 0);
        let outcome = world.gait(&["sh", "-c", "cat keep/file; echo x >open/made; echo x >keep/made"]);
        assert!(outcome.stdout.contains("keep"), "{level}: {outcome:?}");
        assert!(world.exists("ws/open/made") && !world.exists("ws/keep/made"), "{level}: {outcome:?}");
        assert_eq!(outcome.stderr.contains("fs.read"), recorded, "{level}: {}", outcome.stderr);
    }
}

#[test]
fn a_level_that_cannot_hold_the_policy_does_not_start() {
    let hole = "  - name: hole
    priority: 0
    effect: block
    match: {endpoint_classes: [fs.read], paths: ['${ws}/secret/**']}
";
    for level in ["named", "off"] {
        let world = World::new();
        world.set_policy(&format!("{}{hole}", WIDE.replace("LEVEL", level)), 0);
        let outcome = world.gait(&["sh", "-c", "echo ran >open/ran"]);
        assert_eq!(outcome.code(), 7, "{level}: {outcome:?}");
        assert!(!world.exists("ws/open/ran"), "{level}: the workload ran");
    }
}
