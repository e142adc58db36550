//! What `gait exec` says and answers: exit codes, messages, modes, output that cannot be written.

use std::fs;
use std::time::Duration;

use crate::evidence::{Evidence, entry};
use crate::harness::{GAIT, World, is_root, skipped};
use crate::session::{ALL, free};

#[test]
fn bad_input_is_told_apart_and_runs_nothing() {
    let world = free();
    let marker = world.at("open/ran");
    let bad = |name: &str, text: &str| world.write(name, text).to_str().expect("UTF-8").to_owned();
    let unknown_key = bad("unknown.yaml", "default_verdict: block\nrulez: []\n");
    let bad_glob = bad(
        "glob.yaml",
        "default_verdict: block\nrules:\n  - {name: a, effect: allow, match: {paths: [\"/a[\"]}}\n",
    );
    let bad_verdict = bad("verdict.yaml", "default_verdict: alow\n");
    let impossible = bad("impossible.yaml", "default_verdict: block\nexec: {backend: ptrace}\n");
    let bad_key = bad("key.b64", "not a key");
    let file = bad("plain-file", "");
    let out_in_file = format!("{file}/out");
    let cases: Vec<(&str, Vec<&str>, i32)> = vec![
        ("no command", vec!["exec"], 6),
        ("no command after --", vec!["exec", "--"], 6),
        ("no --", vec!["exec", "touch", &marker], 6),
        ("unknown flag", vec!["exec", "--no-such-flag", "--", "touch", &marker], 6),
        ("unknown key", vec!["exec", "--policy", &unknown_key, "--", "touch", &marker], 6),
        ("bad glob", vec!["exec", "--policy", &bad_glob, "--", "touch", &marker], 6),
        ("bad verdict", vec!["exec", "--policy", &bad_verdict, "--", "touch", &marker], 6),
        ("no such policy", vec!["exec", "--policy", "/nonexistent/p.yaml", "--", "touch", &marker], 6),
        ("no such built-in", vec!["exec", "--policy", "no-such-policy", "--", "touch", &marker], 6),
        ("bad key", vec!["exec", "--key-mode", "prod", "--private-key", &bad_key, "--", "touch", &marker], 6),
        ("unusable output", vec!["exec", "--out-dir", &out_in_file, "--", "touch", &marker], 125),
        ("no such workspace", vec!["exec", "--workspace", "/nonexistent/ws", "--", "touch", &marker], 6),
        ("bad run id", vec!["exec", "--run-id", "../../x", "--", "touch", &marker], 6),
        ("a descriptor that is not open", vec!["exec", "--inherit-fd", "555", "--", "touch", &marker], 6),
        ("a backend that is not here", vec!["exec", "--policy", &impossible, "--", "touch", &marker], 7),
    ];
    let mut failures = Vec::new();
    for (what, words, code) in cases {
        let mut line = vec![GAIT.as_str()];
        line.extend(words);
        let outcome = world.native(&line);
        if outcome.code() != code || outcome.stderr.trim().is_empty() || world.exists("ws/open/ran") {
            failures.push(format!(
                "{what}: exit {} instead of {code}, ran: {}\n{}",
                outcome.code(),
                world.exists("ws/open/ran"),
                outcome.stderr
            ));
            drop(fs::remove_file(&marker));
        }
        if outcome.stderr.contains("panicked") {
            failures.push(format!("{what}: a panic\n{}", outcome.stderr));
        }
    }
    for entry in ["ws/gait-out"] {
        if world.exists(entry) {
            failures.push(format!("{entry} was left behind by a session that never was"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn blocks_are_told_with_rule_place_and_hint() {
    let world = World::new();
    let outcome = world.gait(&["sh", "-c", "cat secret/file; exit 0"]);
    outcome.expect_code(0);
    let blocked = outcome.blocked();
    let wanted = format!("gait: blocked fs.read {} by rule no-secrets (", world.at("secret/file"));
    assert!(blocked.len() == 1 && blocked[0].starts_with(&wanted), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("hint: The secrets of the workspace are not for the workload."),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("Permission denied"), "{}", outcome.stderr);
}

#[test]
fn fail_on_block_changes_the_status_and_only_then() {
    let mut world = World::new();
    world.flags(["--fail-on", "block"]);
    world.gait(&["sh", "-c", "cat secret/file; exit 0"]).expect_code(3);
    world.gait(&["sh", "-c", "cat keep/file; exit 5"]).expect_code(5);
}

#[test]
fn simulate_stops_nothing_and_says_so() {
    let mut world = World::new();
    world.flags(["--simulate"]);
    let outcome = world.gait(&["sh", "-c", "cat secret/file; rm keep/file; echo x >keep/new"]);
    outcome.expect_code(0);
    assert_eq!(outcome.stdout, "secret\n", "{}", outcome.stderr);
    assert!(!world.exists("ws/keep/file") && world.exists("ws/keep/new"));
    let evidence = Evidence::read(&world.runpack());
    let simulated = |target: &str| {
        let record = evidence.records.iter().find(|record| record.target == target);
        record.and_then(|record| record.simulated.clone())
    };
    assert_eq!(simulated(&world.at("keep/file")).as_deref(), Some("block"), "{evidence:?}");
    assert_eq!(simulated(&world.at("secret/file")).as_deref(), Some("block"), "{evidence:?}");
    assert!(
        entry(&world.runpack(), "coverage.json").contains("simulate"),
        "a simulated session looks like an enforced one"
    );
}

#[test]
fn the_run_id_names_the_session() {
    let mut world = free();
    world.flags(["--run-id", "run_of_test"]);
    let outcome = world.gait(&["sh", "-c", "echo $GAIT_RUN_ID"]);
    assert_eq!(outcome.stdout, "run_of_test\n", "{}", outcome.stderr);
    assert_eq!(world.runpack(), world.out().join("runpack_run_of_test.zip"));
    world.native(&[&GAIT, "verify", world.runpack().to_str().expect("UTF-8")]).expect_code(0);
    // The same name again must not overwrite what is there.
    let before = fs::read(world.runpack()).expect("a runpack");
    let again = world.gait(&["true"]);
    assert_ne!(again.code(), 0, "a run id was used twice");
    assert_eq!(fs::read(world.runpack()).expect("a runpack"), before);
}

#[test]
fn the_environment_follows_the_policy() {
    let mut world = World::new();
    world.set_policy(
        &format!("{ALL}exec:\n  env:\n    deny: [\"*_TOKEN\", SECRET_WORD]\n    set: {{ADDED: \"yes\"}}\n"),
        0,
    );
    world.env("MY_TOKEN", "t0k3n").env("SECRET_WORD", "w").env("HARMLESS", "h");
    let outcome = world.gait(&["env"]);
    let has = |name: &str| outcome.stdout.lines().any(|line| line.starts_with(&format!("{name}=")));
    assert!(
        !has("MY_TOKEN") && !has("SECRET_WORD") && has("HARMLESS") && has("ADDED") && has("PATH"),
        "{}",
        outcome.stdout
    );
    for file in ["traces.jsonl", "run.json", "intents.jsonl", "coverage.json"] {
        assert!(!entry(&world.runpack(), file).contains("t0k3n"), "a value of the environment is in {file}");
    }
}

#[test]
fn a_full_disk_stops_the_session() {
    if !is_root() {
        return skipped("a full disk", "mounting a small file system needs root");
    }
    let mut world = free();
    let out = world.out().to_str().expect("UTF-8").to_owned();
    // A mount namespace of the test's own: nothing is mounted for anybody else.
    let mount = format!("mount -t tmpfs -o size=128k none {out} && exec \"$@\"");
    world.wrapper(["unshare", "-m", "sh", "-c", &mount, "sh"]);
    let script = format!(
        "i=0; while [ $i -lt 3000 ]; do : >open/f$i || exit 9; i=$((i+1)); done; : >open/end; {}",
        "true"
    );
    let outcome = world.gait(&["sh", "-c", &script]);
    outcome.expect_code(125);
    assert!(!world.exists("ws/open/end"), "the workload went on without evidence");
    assert!(outcome.stderr.to_lowercase().contains("space"), "{}", outcome.stderr);
    world.assert_no_survivor(Duration::from_millis(500));
}

#[test]
fn gait_inside_gait_says_so() {
    let world = free();
    let outcome = world.gait(&[&GAIT, "exec", "--out-dir", &world.at("open/inner"), "--", "true"]);
    assert_eq!(outcome.code(), 7, "{outcome:?}");
    assert!(outcome.stderr.contains("under gait exec already"), "{}", outcome.stderr);
}

#[test]
fn closed_standard_descriptors_are_no_trouble() {
    for script in ["exec \"$@\" <&-", "exec \"$@\" 2>&-", "exec \"$@\" >&- 2>&-"] {
        let mut world = free();
        world.wrapper(["sh", "-c", script, "sh"]);
        world.gait(&["sh", "-c", "echo x >open/made; exit 3"]).expect_code(3);
        assert!(world.exists("ws/open/made"), "{script}");
    }
}
