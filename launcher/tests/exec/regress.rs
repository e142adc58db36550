//! Incident to regression with real sessions: a run becomes a fixture, its command runs again, a change of policy is
//! held against it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{GAIT, Outcome, World};

/// Reads an input, asks for a temporary file, writes a result; `extra` is what an incident adds.
const JOB: &str = "cat open/file >/dev/null\nt=$(mktemp) && rm \"$t\"\necho done > open/result\n";

/// A world in which the job ran once, with its runpack.
fn recorded(flags: &[&str]) -> (World, PathBuf) {
    let mut world = World::new();
    world.use_builtin("coding-agent");
    // So that the second run finds what the first one found.
    world.write("ws/open/result", "");
    world.write("ws/job.sh", JOB);
    world.flags(flags.iter().copied());
    let outcome = world.gait(&["sh", "job.sh"]);
    assert!(outcome.status.success(), "{outcome:?}");
    let pack =
        fs::read_dir(world.out()).expect("evidence").next().expect("a runpack").expect("an entry").path();
    (world, pack)
}

/// Runs `gait regress WORDS` in the workspace.
fn regress(world: &World, words: &[&str]) -> Outcome {
    let mut line = vec![GAIT.as_str(), "regress"];
    line.extend(words);
    world.native(&line)
}

fn exit(outcome: &Outcome) -> i32 {
    outcome.status.code().expect("an exit code")
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn a_run_is_a_regression_test_in_one_command_and_its_command_can_run_again() {
    let (world, pack) = recorded(&[]);
    let made = regress(
        &world,
        &["bootstrap", "--from", text(&pack), "--name", "Job", "--junit", "j.xml", "--", "sh", "job.sh"],
    );
    assert_eq!(exit(&made), 0, "{made:?}");
    assert!(
        made.stdout.starts_with("regress bootstrap ok: fixture=job fixture_set=default graders=4\n"),
        "{made:?}"
    );
    assert!(world.exists("ws/fixtures/job/runpack.zip") && world.exists("ws/j.xml"));

    // Nothing changed: same endpoints, although the temporary file has another name.
    let again = regress(&world, &["run", "--live", "--out-dir", text(&world.out())]);
    assert_eq!(exit(&again), 0, "{again:?}");

    // The job does something more and something less.
    world.write("ws/job.sh", "cat keep/file open/file >/dev/null\necho done > open/result\n");
    let differs = regress(&world, &["run", "--live", "--out-dir", text(&world.out())]);
    assert_eq!(exit(&differs), 5, "{differs:?}");
    let lines: Vec<&str> = differs.stdout.lines().collect();
    assert_eq!(lines[0], "regress run failed: fixture_set=default failed=1");
    assert_eq!(lines[1], "top_failure_reason: new_endpoint");
    assert_eq!(lines[2], "next: gait regress run --json");
    assert_eq!(lines[3], "artifacts: regress_result.json");
    assert!(lines.contains(&"  new       fs.read ${workspace}/keep/file  allow"), "{differs:?}");
    assert!(lines.contains(&"  vanished  fs.write ${tmp}/tmp.${random}  allow"), "{differs:?}");
    assert!(lines.iter().any(|line| line.starts_with("  vanished  proc.exec ") && line.contains("mktemp")));
    // Only what differs is told.
    assert!(!differs.stdout.contains("open/file"), "{differs:?}");
}

#[test]
fn a_live_run_tells_a_changed_verdict_and_ignores_what_the_fixture_ignores() {
    let (world, pack) = recorded(&["--capture", "raw"]);
    // Raw capture knows the command.
    let made = regress(&world, &["init", "--from", text(&pack), "--name", "job"]);
    assert_eq!(exit(&made), 0, "{made:?}");
    let path = world.ws().join("fixtures/job/fixture.json");
    let mut fixture: Value = serde_json::from_slice(&fs::read(&path).expect("a fixture")).expect("JSON");
    assert_eq!(fixture["exec"]["command"], serde_json::json!(["sh", "job.sh"]));
    world.write(
        "ws/strict.yaml",
        "extends: [coding-agent]\nrules:\n  - name: keep-the-input\n    priority: 1\n    effect: block\n    match:\n      \
         operations: [read]\n      paths: [\"${workspace}/open/file\"]\n",
    );
    fixture["exec"]["policy"] = "strict.yaml".into();
    fs::write(&path, fixture.to_string()).expect("a written fixture");
    let out = world.out();
    let live = ["run", "--live", "--json", "--out-dir", text(&out)];
    let differs = regress(&world, &live);
    assert_eq!(exit(&differs), 5, "{differs:?}");
    // The program's own output is no data of gait's.
    let answer: Value = serde_json::from_str(&differs.stdout).expect("one line of JSON");
    assert_eq!(answer["top_failure_reason"], "decision_stopped");
    let result: Value =
        serde_json::from_slice(&fs::read(world.ws().join("regress_result.json")).expect("a result"))
            .expect("JSON");
    let grader = |name: &str| {
        let all = result["graders"].as_array().expect("graders");
        all.iter().find(|grader| grader["name"] == format!("job/{name}")).expect(name).clone()
    };
    assert_eq!(grader("decisions")["reason_codes"], serde_json::json!(["decision_stopped"]));
    let live_grader = grader("live");
    assert_eq!(live_grader["reason_codes"], serde_json::json!(["changed_verdict"]));
    let difference = &live_grader["details"]["differences"][0];
    assert_eq!(difference["target"], "${workspace}/open/file");
    assert_eq!((&difference["recorded"], &difference["live"]), (&"allow".into(), &"block".into()));

    fixture["exec"]["live_ignore"] = serde_json::json!(["fs.read ${workspace}/open/*"]);
    fs::write(&path, fixture.to_string()).expect("a written fixture");
    regress(&world, &live);
    let result = fs::read_to_string(world.ws().join("regress_result.json")).expect("a result");
    assert!(!result.contains("changed_verdict"), "{result}");
}

#[test]
fn a_command_that_is_another_one_or_is_not_known_is_not_run() {
    let (world, pack) = recorded(&[]);
    let other = regress(&world, &["init", "--from", text(&pack), "--", "sh", "-c", "touch open/other"]);
    assert_eq!(exit(&other), 6, "{other:?}");
    assert!(other.stderr.contains("not the command of the run"), "{other:?}");
    assert!(!world.exists("ws/gait.yaml"), "nothing is made of it");
    assert_eq!(
        fs::read_dir(world.ws().join("fixtures")).map_or(0, Iterator::count),
        0,
        "nothing is left of it"
    );

    assert_eq!(exit(&regress(&world, &["init", "--from", text(&pack), "--name", "job"])), 0);
    let unknown = regress(&world, &["run", "--live"]);
    assert_eq!(exit(&unknown), 6, "{unknown:?}");
    assert!(unknown.stderr.contains("the command of the run is not known"), "{unknown:?}");
    assert!(!world.exists("ws/regress_result.json"));
}

#[test]
fn a_live_run_that_does_not_end_is_ended() {
    let (world, pack) = recorded(&[]);
    let made = regress(&world, &["init", "--from", text(&pack), "--name", "job", "--", "sh", "job.sh"]);
    assert_eq!(exit(&made), 0, "{made:?}");
    world.write("ws/job.sh", "cat open/file >/dev/null\nexec sleep 600\n");
    let late = regress(&world, &["run", "--live", "--timeout", "1", "--out-dir", text(&world.out())]);
    assert_eq!(exit(&late), 5, "{late:?}");
    assert!(late.stdout.contains("top_failure_reason: live_timeout"), "{late:?}");
    assert!(world.survivors().is_empty(), "the tree is gone");
}

#[test]
fn a_change_of_policy_is_held_against_the_recorded_runs() {
    let (world, pack) = recorded(&[]);
    world.write(
        "ws/strict.yaml",
        "extends: [coding-agent]\nrules:\n  - name: keep-the-input\n    priority: 1\n    effect: block\n    match:\n      \
         operations: [read]\n      paths: [\"${workspace}/open/file\"]\n",
    );
    let out = world.out();
    let review = regress(&world, &["run", "--policy", "strict.yaml", "--json", text(&out)]);
    assert_eq!(exit(&review), 5, "{review:?}");
    let answer: Value = serde_json::from_str(&review.stdout).expect("one line of JSON");
    assert_eq!((&answer["stopped"], &answer["loosened"], &answer["open"]), (&1.into(), &0.into(), &0.into()));
    let group = &answer["groups"][0];
    assert_eq!(group["target"], "${workspace}/open/file");
    assert_eq!(
        (&group["rule"], &group["from"], &group["to"]),
        (&"keep-the-input".into(), &"allow".into(), &"block".into())
    );

    let same = regress(&world, &["run", "--policy", "coding-agent", text(&out)]);
    assert_eq!(exit(&same), 0, "{same:?}");
    assert!(same.stdout.contains("stopped=0 loosened=0 tightened=0 open=0"), "{same:?}");

    let comment = regress(
        &world,
        &["run", "--policy", "strict.yaml", "--format", "markdown", "--fail-on", "never", text(&out)],
    );
    assert_eq!(exit(&comment), 0, "{comment:?}");
    let row = "| stopped | allow | block | fs.read | `${workspace}/open/file` | `keep-the-input` | 1 | 1 |";
    assert!(comment.stdout.contains(row), "{comment:?}");

    // One bad runpack among good ones is an error and not left out.
    let mut bytes = fs::read(&pack).expect("a runpack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.write("out/runpack_bad.zip", bytes);
    let bad = regress(&world, &["run", "--policy", "coding-agent", text(&out)]);
    assert_eq!(exit(&bad), 2, "{bad:?}");
    assert!(bad.stderr.contains("runpack_bad.zip does not hold"), "{bad:?}");
}

/// The incident was allowed; the fixture expects what the mended policy says, and fails once that is loosened.
#[test]
fn the_policy_that_mends_an_incident_is_what_the_fixture_expects() {
    let (world, pack) = recorded(&[]);
    let policy = |path: &str| {
        format!(
            "extends: [coding-agent]\nrules:\n  - name: mended\n    priority: 1\n    effect: block\n    match:\n      \
             operations: [read]\n      paths: [\"${{workspace}}/{path}\"]\n"
        )
    };
    world.write("ws/gait.policy.yaml", policy("open/file"));
    let made = regress(
        &world,
        &["bootstrap", "--from", text(&pack), "--name", "job", "--expect-policy", "gait.policy.yaml"],
    );
    assert_eq!(exit(&made), 0, "{made:?}");
    world.write("ws/gait.policy.yaml", policy("open/other"));
    let loose = regress(&world, &["run"]);
    assert_eq!(exit(&loose), 5, "{loose:?}");
    assert!(loose.stdout.contains("top_failure_reason: decision_loosened"), "{loose:?}");
    let line = format!("  block -> allow  fs.read read {}  rule=", world.at("open/file"));
    assert!(loose.stdout.contains(&line), "{loose:?}");
}
