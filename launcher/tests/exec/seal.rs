//! Runs whose guard was killed: what they leave can be sealed later, says that it was, and cannot be changed unnoticed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal::SIGKILL;
use serde_json::Value;

use crate::harness::{GAIT, World, signal};

const RUN: &str = "run_killed";

/// A session that has done something and goes on.
fn running(world: &mut World) -> Child {
    world.flags(["--run-id", RUN]);
    let script = "cat keep/file; cat keep/file; cat secret/file; echo x >open/made; echo ready; sleep 60";
    let mut child = world.command(&["sh", "-c", script]).spawn().expect("gait");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.expect("a line") == "ready"));
    child
}

/// What a session leaves whose guard is killed after everything above was handed to the system.
fn killed() -> (World, PathBuf) {
    let mut world = World::new();
    let mut child = running(&mut world);
    thread::sleep(Duration::from_millis(600));
    signal(i32::try_from(child.id()).expect("a pid"), SIGKILL);
    child.wait().expect("a child");
    world.assert_no_survivor(Duration::from_secs(2));
    let run = world.out().join(RUN);
    assert!(run.join("journal.jsonl").is_file() && world.runpacks().is_empty());
    (world, run)
}

fn gait(world: &World, words: &[&str]) -> (i32, Value, String) {
    let mut command = Command::new(GAIT.as_str());
    command.args(words).arg("--json").env("HOME", world.root().join("home")).current_dir(world.root());
    let Output { status, stdout, stderr } = command.output().expect("gait");
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{words:?}: {error}\n{text}\n{}", String::from_utf8_lossy(&stderr)));
    (status.code().expect("an exit"), value, text)
}

fn seal(world: &World, run: &Path) -> (i32, Value, String) {
    gait(world, &["run", "seal", run.to_str().expect("a path of ours")])
}

fn verify(world: &World, path: &Path) -> (i32, Value, String) {
    gait(world, &["verify", path.to_str().expect("a path of ours")])
}

fn change(file: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<_> = fs::read_to_string(file).expect("a file").lines().map(str::to_owned).collect();
    edit(&mut lines);
    fs::write(file, lines.join("\n") + "\n").expect("a file");
}

#[test]
fn what_a_killed_guard_left_is_sealed_as_aborted() {
    let (world, run) = killed();
    // Until then every reader says what there is and what to do.
    for words in [["verify"].as_slice(), &["run", "inspect"], &["run", "receipt"]] {
        let (code, answer, text) = gait(&world, &[words, &[run.to_str().expect("UTF-8")]].concat());
        assert_eq!(code, 6, "{text}");
        assert!(answer["error"].as_str().expect("an error").contains("was not sealed"), "{text}");
        assert!(answer["hint"].as_str().expect("a hint").contains("gait run seal"), "{text}");
    }
    let (code, answer, text) = seal(&world, &run);
    assert_eq!((code, &answer["ending"]), (0, &"aborted".into()), "{text}");
    assert!(!run.exists(), "the files are in the runpack now");
    assert_eq!(fs::read_dir(world.out()).expect("a directory").count(), 1, "nothing else is left");

    let (code, answer, text) = verify(&world, &world.runpack());
    assert_eq!((code, &answer["signature_status"]), (0, &"verified".into()), "{text}");
    let exec = &answer["exec"];
    assert_eq!(exec["ending"], "aborted", "{text}");
    assert!(exec["sealed_later"].is_string(), "{text}");
    let (code, answer, _) = gait(&world, &["run", "inspect", world.runpack().to_str().expect("UTF-8")]);
    assert_eq!(code, 0);
    let told = answer.to_string();
    for target in ["keep/file", "secret/file", "open/made"] {
        assert!(told.contains(&world.at(target)), "{target} is missing");
    }
    let shown = Command::new(GAIT.as_str()).arg("verify").arg(world.runpack()).output().expect("gait");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("session aborted, sealed later on 2"), "{shown}");
    // Once more there is nothing to do.
    assert_eq!(seal(&world, &run).0, 6);
}

#[test]
fn a_session_that_runs_is_not_sealed_under_its_feet() {
    let mut world = World::new();
    let mut child = running(&mut world);
    let run = world.out().join(RUN);
    let (code, answer, text) = seal(&world, &run);
    assert_eq!((code, &answer["error_code"]), (1, &"state_contention".into()), "{text}");
    assert!(run.is_dir() && world.runpacks().is_empty());
    signal(i32::try_from(child.id()).expect("a pid"), nix::sys::signal::Signal::SIGTERM);
    child.wait().expect("a child");
    assert_eq!(verify(&world, &world.runpack()).0, 0, "it seals itself");
}

#[test]
fn a_changed_line_is_refused() {
    type Edit = fn(&mut Vec<String>);
    let edits: [(&str, &str, Edit); 6] = [
        ("journal.jsonl", "chain_broken", |lines| lines[1] = lines[1].replace("\"pid\":\"", "\"pid\":\"1")),
        ("journal.jsonl", "chain_broken", |lines| drop(lines.remove(2))),
        ("journal.jsonl", "chain_broken", |lines| lines.swap(2, 3)),
        ("traces.jsonl", "trace_id_mismatch", |lines| {
            let blocked =
                lines.iter_mut().find(|line| line.contains("\"verdict\":\"block\"")).expect("a block");
            *blocked = blocked.replace("\"verdict\":\"block\"", "\"verdict\":\"allow\"");
        }),
        ("traces.jsonl", "trace_signature_invalid", |lines| {
            lines[0] =
                lines[0].replace("\"os\":", "\"so\":").replace("\"enforced\":true", "\"enforced\":false");
        }),
        ("traces.jsonl", "trace_unknown", |lines| drop(lines.pop())),
    ];
    let (world, run) = killed();
    let kept: Vec<_> =
        ["journal.jsonl", "traces.jsonl"].map(|name| fs::read(run.join(name)).expect(name)).into();
    for (file, reason, edit) in edits {
        change(&run.join(file), edit);
        let (code, answer, text) = seal(&world, &run);
        assert_eq!(
            (code, &answer["error_code"]),
            (2, &"verification_failed".into()),
            "{file} {reason}: {text}"
        );
        assert!(answer["error"].as_str().expect("an error").contains(reason), "{file} {reason}: {text}");
        assert!(world.runpacks().is_empty());
        assert_eq!(
            fs::read_dir(world.out()).expect("a directory").count(),
            1,
            "the files are where they were"
        );
        for (name, bytes) in ["journal.jsonl", "traces.jsonl"].iter().zip(&kept) {
            fs::write(run.join(name), bytes).expect("a file");
        }
    }
    fs::write(run.join("coverage.json"), "{}").expect("a file");
    assert_eq!(seal(&world, &run).0, 2);
}

#[test]
fn torn_lines_are_cut_and_records_without_a_line_are_told() {
    let (world, run) = killed();
    for name in ["journal.jsonl", "traces.jsonl"] {
        let mut file = fs::File::options().append(true).open(run.join(name)).expect(name);
        file.write_all(b"{\"at\":\"20").expect("a torn line");
    }
    let before = fs::read_to_string(run.join("journal.jsonl")).expect("a journal").lines().count();
    // The last decision's line did not make it; its record did, because records are written first.
    change(&run.join("journal.jsonl"), |lines| {
        let last = lines.iter().rposition(|line| line.contains("\"kind\":\"record\"")).expect("a record");
        lines.truncate(last);
    });
    assert!(before > 3);
    let (code, answer, text) = seal(&world, &run);
    assert_eq!(code, 0, "{text}");
    assert_eq!(answer["untold_decisions"], "1", "{text}");
    let (code, answer, text) = verify(&world, &world.runpack());
    assert_eq!((code, &answer["exec"]["ending"]), (0, &"aborted".into()), "{text}");
}

#[test]
fn only_the_key_of_the_session_seals_it() {
    let (world, run) = killed();
    let keys = world.root().join("other");
    let (code, _, text) = gait(&world, &["keys", "init", "--out-dir", keys.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{text}");
    let key = fs::read_dir(&keys)
        .expect("keys")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("private"))
        .expect("a private key");
    let words = ["run", "seal", run.to_str().expect("UTF-8"), "--key-mode", "prod", "--private-key"];
    let (code, answer, text) = gait(&world, &[words.as_slice(), &[key.to_str().expect("UTF-8")]].concat());
    assert_eq!(code, 6, "{text}");
    assert!(answer["error"].as_str().expect("an error").contains("another key"), "{text}");
    assert!(world.runpacks().is_empty() && run.is_dir());
    assert_eq!(seal(&world, &run).0, 0);
}
