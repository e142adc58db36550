//! What only a kernel that has the rules does: rules follow objects, threads are stopped and asked for, programs stay
//! attached when gait is killed. These need the eBPF backend; `ebpf/vmtest` has the kernels for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal::SIGKILL;

use crate::evidence::Evidence;
use crate::harness::{GAIT, World, children, eventually, in_kernel, is_root, signal, skipped};

/// Where the programs of sessions are pinned.
const PINS: &str = "/sys/fs/bpf/gait";

/// Whether the tests of this module can be made here; says so where not.
fn possible(what: &str) -> bool {
    let possible = in_kernel();
    if !possible {
        skipped(what, "the tests do not run on the eBPF backend");
    }
    possible
}

/// A shell under gait that takes one line after the other.
struct Shell {
    gait: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(world: &World) -> Self {
        let mut command = world.command(&["sh"]);
        let mut gait = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gait");
        let input = gait.stdin.take().expect("a pipe");
        let output = BufReader::new(gait.stdout.take().expect("a pipe"));
        Self { gait, input, output }
    }

    /// Runs a line and returns its status and what it printed.
    fn run(&mut self, line: &str) -> (i32, String) {
        writeln!(self.input, "{{ {line}; }} 2>&1; echo; echo \"status=$?\"").expect("the shell");
        let mut said = String::new();
        loop {
            let mut text = String::new();
            assert!(
                self.output.read_line(&mut text).expect("the shell") > 0,
                "the shell ended after {said:?}"
            );
            if let Some(status) = text.strip_prefix("status=") {
                return (status.trim().parse().expect("a number"), said);
            }
            said.push_str(&text);
        }
    }

    /// Runs a line that must print `wanted`.
    fn prints(&mut self, line: &str, wanted: &str) {
        let (_, said) = self.run(line);
        assert!(said.contains(wanted), "{line} printed {said:?} and not {wanted:?}");
    }

    fn blocked(&mut self, line: &str) {
        self.prints(line, "Permission denied");
    }

    fn end(self) {
        drop(self.input);
        let output = self.gait.wait_with_output().expect("gait");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_rule_follows_what_it_names() {
    if !possible("rules that follow objects") {
        return;
    }
    let world = World::new();
    let mut shell = Shell::start(&world);
    shell.blocked("cat secret/file");
    // Somebody outside moves it into an area that is free.
    fs::rename(world.ws().join("secret"), world.ws().join("open/moved")).expect("a rename");
    shell.blocked("cat open/moved/file");
    shell.blocked("ls open/moved");
    // A new directory of that name is what the rule says, too.
    world.write("ws/secret/file", "another secret\n");
    shell.blocked("cat secret/file");
    shell.prints("cat keep/file", "keep");
    shell.end();
    let evidence = Evidence::read(&world.runpack());
    // Recorded by the name that blocks it.
    assert!(
        evidence.has(&format!("block fs.read read {}", world.at("secret/file"))),
        "{:?}",
        evidence.blocked()
    );
}

#[test]
fn a_bind_mount_is_no_way_round_a_rule() {
    if !possible("bind mounts") {
        return;
    }
    if !is_root() {
        return skipped("bind mounts", "only root mounts");
    }
    let world = World::new();
    world.write("ws/secret/deep/er/file", "secret\n");
    for (from, to) in [("secret", "ws/open/whole"), ("secret/deep/er", "ws/open/part")] {
        let to = world.root().join(to);
        fs::create_dir_all(&to).expect("a directory");
        mount(&[Path::new("--bind"), &world.ws().join(from), &to]);
    }
    let mut shell = Shell::start(&world);
    shell.blocked("cat open/whole/file");
    shell.blocked("cat open/part/file");
    shell.end();
    for at in ["ws/open/whole", "ws/open/part"] {
        let status =
            std::process::Command::new("umount").arg(world.root().join(at)).status().expect("umount");
        assert!(status.success());
    }
}

fn mount(words: &[&Path]) {
    let status = std::process::Command::new("mount").args(words).status().expect("mount");
    assert!(status.success(), "{words:?}");
}

#[test]
fn nobody_else_feels_a_session() {
    if !possible("processes outside") {
        return;
    }
    let world = World::new();
    let mut shell = Shell::start(&world);
    shell.blocked("cat secret/file");
    assert_eq!(fs::read_to_string(world.ws().join("secret/file")).expect("a file"), "secret\n");
    fs::write(world.ws().join("keep/by-others"), "x").expect("a file");
    fs::remove_file(world.ws().join("keep/by-others")).expect("a file");
    shell.end();
}

#[test]
fn two_sessions_have_their_own_rules() {
    if !possible("two sessions") {
        return;
    }
    let (one, other) = (World::new(), World::new());
    let mut first = Shell::start(&one);
    let mut second = Shell::start(&other);
    first.blocked("cat secret/file");
    second.blocked("cat secret/file");
    // What one may write the other may not.
    first.prints("echo mine >open/new && cat open/new", "mine");
    second.blocked(&format!("echo x >{}", one.at("open/other")));
    first.blocked(&format!("echo x >{}", other.at("open/other")));
    first.end();
    second.blocked("cat secret/file");
    second.end();
    for world in [one, other] {
        assert!(!world.exists("ws/open/other"));
    }
}

#[test]
fn names_that_no_table_holds_are_asked_for() {
    if !possible("names outside ASCII") {
        return;
    }
    let world = World::new();
    let mut shell = Shell::start(&world);
    shell.prints("echo gr\u{fc}n >open/\u{fc} && cat open/\u{fc}", "gr\u{fc}n");
    shell.blocked("echo x >keep/\u{fc}");
    shell.blocked("cat secret/\u{fc}; cat secret/file");
    shell.prints("rm open/\u{fc} && echo gone", "gone");
    shell.end();
    assert!(!world.exists("ws/keep/\u{fc}"));
    let evidence = Evidence::read(&world.runpack());
    for wanted in [
        format!("allow fs.write create {}", world.at("open/\u{fc}")),
        format!("block fs.write create {}", world.at("keep/\u{fc}")),
        format!("allow fs.delete unlink {}", world.at("open/\u{fc}")),
    ] {
        assert!(evidence.has(&wanted), "{wanted} is not among {:?}", evidence.records);
    }
}

#[test]
fn many_threads_are_asked_for_at_once() {
    if !possible("held threads") {
        return;
    }
    let world = World::new();
    let script = "import threading\n\
                  def work(n):\n  for i in range(5):\n    open(f'open/\u{e4}{n}-{i}','w').write('x')\n\
                  all=[threading.Thread(target=work,args=(n,)) for n in range(8)]\n\
                  [t.start() for t in all]; [t.join() for t in all]; print('done')\n";
    let outcome = world.gait(&["python3", "-c", script]);
    assert!(outcome.stdout.contains("done"), "{outcome:?}");
    let made = fs::read_dir(world.ws().join("open")).expect("a directory").count();
    // `file` is there from the start.
    assert_eq!(made, 41);
    let evidence = Evidence::read(&world.runpack());
    let recorded = evidence.records.iter().filter(|record| record.operation == "create").count();
    assert_eq!(recorded, 40);
}

#[test]
fn a_path_beyond_the_depth_is_blocked() {
    if !possible("deep paths") {
        return;
    }
    let world = World::new();
    let fits = "d/".repeat(40);
    let deep = "d/".repeat(70);
    fs::create_dir_all(world.ws().join("open").join(&deep)).expect("directories");
    let mut shell = Shell::start(&world);
    shell.prints(&format!("echo x >open/{fits}f && echo made"), "made");
    shell.blocked(&format!("echo x >open/{deep}f"));
    shell.end();
    assert!(world.exists(&format!("ws/open/{fits}f")));
    assert!(!world.exists(&format!("ws/open/{deep}f")));
}

/// The pins of one world's session.
fn pins() -> Vec<String> {
    let Ok(entries) = fs::read_dir(PINS) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_is_left_of_a_killed_session_stays_blocked_and_can_be_cleaned_up() {
    if !possible("killed sessions") {
        return;
    }
    if !is_root() {
        return skipped("killed sessions", "only root has pins of its own");
    }
    let mut world = World::new();
    world.flags(["--run-id", "run_killed_in_kernel"]);
    let mut shell = Shell::start(&world);
    shell.blocked("cat secret/file");
    let guard = i32::try_from(shell.gait.id()).expect("a pid");
    let supervisor = *children(guard).first().expect("the supervisor");
    let reaper = *children(supervisor).first().expect("the reaper");
    // All of gait at once, so that nobody is left to kill the workload.
    for pid in [reaper, supervisor, guard] {
        signal(pid, SIGKILL);
    }
    shell.gait.wait().expect("gait");
    assert!(pins().iter().any(|name| name == "run_killed_in_kernel"), "{:?}", pins());
    // The shell lives, and is as blocked as before.
    let said = try_run(&mut shell, "cat secret/file");
    assert!(said.is_none_or(|said| !said.contains("secret\n")));
    let cleaned = std::process::Command::new(&*GAIT).args(["doctor", "--cleanup"]).output().expect("gait");
    let text = String::from_utf8_lossy(&cleaned.stderr);
    if !world.survivors().is_empty() {
        assert!(!cleaned.status.success() && text.contains("run_killed_in_kernel"), "{cleaned:?}");
        for pid in world.survivors() {
            signal(pid, SIGKILL);
        }
    }
    let gone = || {
        let _tried = std::process::Command::new(&*GAIT).args(["doctor", "--cleanup"]).output();
        !pins().iter().any(|name| name == "run_killed_in_kernel")
    };
    assert!(eventually(Duration::from_secs(10), gone), "{:?}", pins());
}

/// Runs a line where the shell may have ended.
fn try_run(shell: &mut Shell, line: &str) -> Option<String> {
    writeln!(shell.input, "{line} 2>&1; echo over").ok()?;
    let mut said = String::new();
    loop {
        let mut text = String::new();
        if shell.output.read_line(&mut text).ok()? == 0 {
            return None;
        }
        if text.trim() == "over" {
            return Some(said);
        }
        said.push_str(&text);
    }
}

#[test]
fn a_session_leaves_nothing_pinned() {
    if !possible("pins") {
        return;
    }
    let mut world = World::new();
    world.flags(["--run-id", "run_with_pins"]);
    world.gait(&["true"]).expect_clean();
    assert!(!pins().iter().any(|name| name == "run_with_pins"), "{:?}", pins());
}
