//! The workload on a terminal: Ctrl-C, Ctrl-Z, size, job control, questions.
//!
//! python3 drives the pseudo-terminal (`probe/terminal.py`); without it these tests say that they are skipped.

use std::time::Duration;

use serde_json::{Value, json};

use crate::evidence::Evidence;
use crate::harness::{World, skipped, which};
use crate::session::{ALL, free};

/// Plays a dialogue on a pseudo-terminal; returns (exit status, transcript).
pub(crate) fn talk(world: &World, words: &[&str], steps: &[Value]) -> Option<(i64, String)> {
    let Some(_) = which("python3") else {
        skipped("the terminal", "no python3, whose pty module drives it");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exec/probe/terminal.py");
    let plan = json!({"argv": words, "talk": steps}).to_string();
    let outcome = world.native(&["python3", script, &plan]);
    let told: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    let transcript = told["transcript"].as_str().expect("a transcript").to_owned();
    assert_eq!(told["ok"], json!(true), "waited for {} in\n{transcript}", told["failed"]);
    Some((told["status"].as_i64().expect("a status"), transcript))
}

/// The words of `gait exec … -- words`.
pub(crate) fn gait_words(world: &World, words: &[&str]) -> Vec<String> {
    let command = world.command(words);
    let mut line = vec![command.get_program().to_string_lossy().into_owned()];
    line.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    line
}

pub(crate) fn talk_under_gait(world: &World, words: &[&str], steps: &[Value]) -> Option<(i64, String)> {
    let line = gait_words(world, words);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    talk(world, &line, steps)
}

#[test]
fn control_c_ends_the_workload() {
    let world = free();
    let steps = [json!({"expect": "ready"}), json!({"send": "\u{3}"})];
    if let Some((status, _)) = talk_under_gait(&world, &["sh", "-c", "echo ready; exec sleep 100"], &steps) {
        assert!(status == 130 || status == -2, "{status}");
        world.runpack();
    }
    world.assert_no_survivor(Duration::from_millis(500));
}

#[test]
fn control_c_can_be_caught() {
    let world = free();
    let steps = [json!({"expect": "ready"}), json!({"send": "\u{3}"}), json!({"expect": "caught"})];
    if let Some((status, _)) = talk_under_gait(
        &world,
        &["sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"],
        &steps,
    ) {
        assert_eq!(status, 9);
    }
}

#[test]
fn the_workload_reads_from_the_terminal_and_sees_its_size() {
    let world = free();
    let steps = [
        json!({"expect": "size 24 80"}),
        json!({"resize": [50, 132]}),
        json!({"expect": "winch 50 132"}),
        json!({"send": "hello\n"}),
        json!({"expect": "got hello"}),
    ];
    let script = "import os,signal,sys\n\
                  def on(*_):\n  s=os.get_terminal_size(0); print('winch',s.lines,s.columns,flush=True)\n\
                  signal.signal(signal.SIGWINCH,on); s=os.get_terminal_size(0); print('size',s.lines,s.columns,flush=True)\n\
                  print('got',sys.stdin.readline(),os.ttyname(0)[:9],os.tcgetpgrp(0)==os.getpgrp(),flush=True)\n";
    if let Some((status, transcript)) = talk_under_gait(&world, &["python3", "-c", script], &steps) {
        assert_eq!(status, 0, "{transcript}");
        assert!(transcript.contains("/dev/pts/ True"), "the workload is not in the foreground\n{transcript}");
    }
}

#[test]
fn a_shell_can_stop_and_resume_gait() {
    let Some(_) = which("bash") else { return skipped("job control", "no bash") };
    let world = free();
    let line = gait_words(&world, &["sh", "-c", "echo began; sleep 1; echo ended; exit 6"]);
    let start =
        line.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ");
    let steps = [
        json!({"expect": "\\$ "}),
        json!({"send": format!("{start}\n")}),
        json!({"expect": "began\r"}),
        // A shell that is just forking cannot stop.
        json!({"pause": 0.3}),
        json!({"send": "\u{1a}"}),
        json!({"expect": "Stopped.*\\$ "}),
        json!({"pause": 1.2}),
        json!({"send": "jobs; echo stat'us'=$?\n"}),
        json!({"expect": "Stopped.*status=0"}),
        json!({"send": "fg\n"}),
        json!({"expect": "ended\r.*\\$ "}),
        json!({"send": "echo code'='$?\n"}),
        json!({"expect": "code=6"}),
        json!({"send": "exit 0\n"}),
    ];
    if let Some((status, transcript)) = talk(&world, &["bash", "--norc", "--noprofile", "-i"], &steps) {
        assert_eq!(status, 0, "{transcript}");
        let before = transcript.split("Stopped").next().expect("a part");
        assert!(!before.contains("ended\r"), "the workload ran on while it was stopped\n{transcript}");
    }
}

#[test]
fn an_interactive_shell_has_job_control() {
    let Some(_) = which("bash") else { return skipped("job control", "no bash") };
    let world = free();
    let steps = [
        json!({"expect": "\\$ "}),
        json!({"send": "sleep 50\n"}),
        json!({"pause": 0.4}),
        json!({"send": "\u{1a}"}),
        json!({"expect": "Stopped.*\\$ "}),
        json!({"send": "bg\n"}),
        json!({"expect": "sleep 50 &"}),
        json!({"send": "jobs\n"}),
        json!({"expect": "Running"}),
        json!({"send": "fg\n"}),
        json!({"pause": 0.4}),
        json!({"send": "\u{3}"}),
        json!({"expect": "\\$ "}),
        json!({"send": "echo code'='$?\n"}),
        json!({"expect": "code=130"}),
        json!({"send": "exit 11\n"}),
    ];
    if let Some((status, transcript)) =
        talk_under_gait(&world, &["bash", "--norc", "--noprofile", "-i"], &steps)
    {
        assert_eq!(status, 11, "{transcript}");
        assert!(!transcript.contains("no job control"), "{transcript}");
    }
}

#[test]
fn nothing_can_be_typed_into_the_terminal() {
    let world = free();
    let script = "import fcntl,termios,sys\n\
                  try:\n  fcntl.ioctl(0,termios.TIOCSTI,b'x'); print('typed')\n\
                  except OSError as e: print('errno',e.errno)\n";
    if let Some((_, transcript)) =
        talk_under_gait(&world, &["python3", "-c", script], &[json!({"expect": "errno|typed"})])
    {
        assert!(transcript.contains("errno 1"), "{transcript}");
    }
}

#[test]
fn an_approval_can_be_given_on_the_terminal() {
    let policy = ALL.replace(
        "rules:\n",
        "rules:\n  - name: ask\n    priority: -1\n    effect: require_approval\n    match: {endpoint_classes: [fs.write], paths: [\"${ws}/keep/**\"]}\n    justification: Ask before keep is changed.\n",
    );
    for (answer, done) in [("o\n", true), ("b\n", false)] {
        let world = World::new();
        world.set_policy(&policy, 0);
        let steps = [
            json!({"expect": "Ask before keep is changed"}),
            json!({"expect": "lock\\? "}),
            json!({"send": answer}),
            json!({"expect": "end"}),
        ];
        if talk_under_gait(&world, &["sh", "-c", "echo x >keep/new; echo end"], &steps).is_some() {
            assert_eq!(world.exists("ws/keep/new"), done, "{answer:?}");
        }
    }
    // Nobody to ask: blocked, and the record says why.
    let world = World::new();
    world.set_policy(&policy, 0);
    world.gait(&["sh", "-c", "echo x >keep/new"]);
    assert!(!world.exists("ws/keep/new"));
    let evidence = Evidence::read(&world.runpack());
    assert!(
        evidence
            .records
            .iter()
            .any(|record| record.reason_codes.iter().any(|code| code == "approval_unavailable")),
        "{evidence:?}"
    );
}
