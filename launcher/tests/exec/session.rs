//! A workload notices nothing but the policy: status, signals, terminal, files, errno, timing of its neighbours.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::evidence::entry;
use crate::harness::{Outcome, World, count, is_root, probe, signal, skipped, which};

/// Nothing is stopped that could fail for another reason, so that what differs is gait's fault.
pub(crate) const ALL: &str = r#"
default_verdict: block
rules:
  - name: all
    effect: allow
    match: {endpoint_classes: [fs.read, fs.write, fs.delete, proc.exec, net.http, net.dns]}
"#;

pub(crate) fn free() -> World {
    let world = World::new();
    world.set_policy(ALL, 0);
    world
}

/// Runs words without gait and with it, in fresh worlds, and demands the same status and output.
fn same(words: impl Fn(&World) -> Vec<String>, input: &[u8]) -> Outcome {
    let run = |under_gait: bool| {
        let world = free();
        let line = words(&world);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let outcome =
            if under_gait { world.gait_with(&line, input) } else { world.native_with(&line, input) };
        (outcome, world.root().to_str().expect("UTF-8").to_owned())
    };
    let ((native, native_root), (gait, gait_root)) = (run(false), run(true));
    assert_eq!(gait.code(), native.code(), "{gait:?}\n{native:?}");
    assert_eq!(
        gait.stdout.replace(&gait_root, "ROOT"),
        native.stdout.replace(&native_root, "ROOT"),
        "{}",
        gait.stderr
    );
    gait.expect_clean();
    gait
}

fn shell(script: &str) -> impl Fn(&World) -> Vec<String> {
    move |world| vec!["sh".to_owned(), "-c".to_owned(), world.fill(script, 0)]
}

#[test]
fn every_exit_code_comes_through() {
    let world = free();
    let program = probe("workload");
    for code in 0..=255 {
        let outcome = world.gait(&[&program, "exit", &code.to_string()]);
        assert_eq!(outcome.status.code(), Some(code), "{}", outcome.stderr);
    }
    assert_eq!(world.runpacks().len(), 256);
}

/// Also that of an exec, which is recorded by a thread that serves no calls.
#[test]
fn every_event_has_its_time() {
    let world = free();
    world.gait(&["sh", "-c", "cat /dev/null; true"]).expect_code(0);
    let journal = entry(&world.runpack(), "journal.jsonl");
    let times: Vec<_> = journal
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["at"].to_string())
        .collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { panic!("an empty journal") };
    assert!(times.len() > 4, "{times:?}");
    assert!(times.iter().all(|at| first[..20] <= at[..20] && at[..20] <= last[..20]), "{times:?}");
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    let program = probe("workload");
    for number in [1, 2, 3, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
        let world = free();
        let outcome = world.gait(&[&program, "die", &number.to_string()]);
        assert_eq!(outcome.code(), 128 + number, "{}", outcome.stderr);
        world.runpack();
    }
}

#[test]
fn what_cannot_run_is_127_or_126() {
    let world = free();
    let plain = world.write("ws/open/plain", "no program");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("a mode");
    for (words, code) in [
        (["no-such-command-of-gait"], 127),
        (["./open/absent"], 127),
        (["./open/plain"], 126),
        (["./open"], 126),
    ] {
        let outcome = world.gait(&words);
        outcome.expect_code(code);
        let name = words[0].trim_start_matches("./");
        assert!(
            outcome.stderr.contains(name),
            "{words:?}: no word of why
{}",
            outcome.stderr
        );
    }
}

#[test]
fn a_large_input_goes_through() {
    let input: Vec<u8> =
        (0..4_000_000u32).flat_map(|i| [b'a' + u8::try_from(i % 26).expect("small")]).collect();
    let outcome = same(shell("cat"), &input);
    assert_eq!(outcome.stdout.len(), input.len());
    same(shell("wc -c; head -c 5"), &input);
    same(shell("read x; echo got $x"), b"one\ntwo\n");
}

#[test]
fn a_closed_pipe_ends_the_writer() {
    let world = free();
    let mut line = world.command(&["yes"]);
    line.stdout(std::process::Stdio::piped());
    let mut child = line.spawn().expect("gait");
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    reader.read_line(&mut first).expect("a line");
    drop(reader);
    let status = world.wait(&mut child).expect("yes ends when nobody reads");
    assert_eq!((first.as_str(), status.code()), ("y\n", Some(128 + 13)));
    world.assert_no_survivor(Duration::from_millis(500));
}

#[test]
fn signals_to_gait_reach_the_workload() {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    for wanted in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2] {
        let world = free();
        let mut child = world.command(&[&probe("workload"), "signals"]).spawn().expect("gait");
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        signal(i32::try_from(child.id()).expect("a pid"), wanted);
        line.clear();
        reader.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), format!("caught={}", wanted as i32), "{wanted}");
        let status = world.wait(&mut child).expect("an end");
        assert_eq!(status.code(), Some(wanted as i32));
    }
}

#[test]
fn a_stopped_session_goes_on() {
    let world = free();
    let mut child = world.command(&["sh", "-c", "echo ready; sleep 0.4; exit 7"]).spawn().expect("gait");
    let pid = i32::try_from(child.id()).expect("a pid");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    signal(pid, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().expect("a child").is_none(), "a stopped session ended");
    signal(pid, Signal::SIGCONT);
    assert_eq!(world.wait(&mut child).expect("an end").code(), Some(7));
}

#[test]
fn the_workload_inherits_what_it_would() {
    let program = probe("workload");
    same(
        shell(&format!(
            "{program} tree; trap '' USR1; {program} tree; umask 077; {program} tree; ulimit -n 100; {program} tree; nice {program} tree"
        )),
        b"",
    );
    // Whoever runs the tests may have more open than 0, 1 and 2; without gait that would be inherited.
    let outcome = free().gait(&[
        "sh",
        "-c",
        &format!("{program} fds; {program} fds 7<open/file; ls /proc/self/fd | wc -l"),
    ]);
    assert_eq!(outcome.stdout, "0 1 2 \n0 1 2 7 \n4\n", "{}", outcome.stderr);
    same(shell("pwd; cd open; pwd; cd -; echo ~; id; tty; ulimit -a"), b"");
}

#[test]
fn files_get_the_same_mode_and_owner() {
    same(
        shell(
            "cd open; for m in 000 022 027 077; do umask $m; : >f$m; mkdir d$m; mkfifo p$m; done; stat -c '%n %a %u %g %F' f* d* p*; \
               umask 0; mkdir -m 2775 sg; : >sg/x; stat -c '%a %g' sg sg/x; ln f022 h; ln -s f022 s; stat -c '%h' h; readlink s",
        ),
        b"",
    );
}

/// Calls with arguments that are wrong in themselves, as steps of the probe.
fn hopeless_steps() -> String {
    const FLAGS: [&str; 10] = [
        "RDONLY",
        "WRONLY",
        "RDWR",
        "WRONLY|CREAT",
        "WRONLY|CREAT|EXCL",
        "RDONLY|DIRECTORY",
        "RDONLY|NOFOLLOW",
        "WRONLY|TRUNC",
        "RDWR|TMPFILE",
        "RDONLY|PATH",
    ];
    let long = "/n".repeat(2) + &"n".repeat(300);
    let deep = format!("/tmp/{}", "d/".repeat(2100));
    let mut steps = String::new();
    for path in [
        "/proc/self/root",
        "/dev/full",
        "/dev/null/x",
        "/proc/self/fd",
        "/proc/self/fd/999",
        "/proc/nothing",
        "/sys/nothing",
    ] {
        for flags in FLAGS {
            steps += &format!("open\t{flags}\t{path}\n");
            // openat2 with O_PATH answers ENOSYS: its flags are behind a pointer, and the result cannot be injected.
            if !flags.contains("PATH") {
                steps += &format!("openat2\t{flags}\t{path}\n");
            }
        }
    }
    let paths = [
        "${ws}/absent/x",
        "${ws}/open",
        "${ws}/open/",
        "${ws}/open/file/x",
        "${ws}/open/file/",
        "${ws}/loop",
        "${ws}/dangling",
        "${ws}/to-dir/",
        "${ws}/open/.",
        "${ws}/open/..",
        &long,
        &deep,
    ];
    for path in paths {
        for flags in FLAGS {
            steps += &format!("open\t{flags}\t{path}\n");
            // openat2 with O_PATH answers ENOSYS: its flags are behind a pointer, and the result cannot be injected.
            if !flags.contains("PATH") {
                steps += &format!("openat2\t{flags}\t{path}\n");
            }
        }
        for verb in [
            "mkdir",
            "mkfifo",
            "symlink\tx",
            "rename\t${ws}/open/file",
            "link\t${ws}/keep/file",
            "exchange\t${ws}/keep/file",
            "noreplace\t${ws}/keep/file",
            "exec",
            "utime",
            "setxattr",
            "removexattr",
            "chown",
            "rmdir",
            "unlink",
            "bind_path",
            "connect\tstream",
        ] {
            steps += &format!("{verb}\t{path}\n");
        }
        steps += &format!("chmod\t{path}\t0755\ntruncate\t{path}\t0\ntruncate\t{path}\t-1\n");
        steps += &format!("rename\t{path}\t${{ws}}/open/r\nlink\t{path}\t${{ws}}/open/l\n");
    }
    for verb in ["mkdir", "unlink", "rmdir", "exec", "chmod", "open\tRDONLY", "symlink\tx", "symlink\t"] {
        steps += &format!("{verb}\t\t0\n");
    }
    steps
}

#[test]
fn failures_that_policy_has_nothing_to_do_with_look_the_same() {
    let steps = hopeless_steps();
    let program = probe("steps");
    let run = |under_gait: bool| {
        let world = free();
        for (to, name) in [("loop", "loop"), ("nowhere/x", "dangling"), ("open", "to-dir")] {
            std::os::unix::fs::symlink(to, world.ws().join(name)).expect("a symlink");
        }
        let input = world.fill(&steps, 0);
        let words = [program.as_str()];
        let outcome = if under_gait {
            world.gait_with(&words, input.as_bytes())
        } else {
            world.native_with(&words, input.as_bytes())
        };
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        outcome.stdout
    };
    let (native, gait) = (run(false), run(true));
    let differences: Vec<_> = steps
        .lines()
        .zip(native.lines().zip(gait.lines()))
        .filter(|(_, (native, gait))| native != gait)
        .map(|(step, (native, gait))| {
            let step: String = step.replace('\t', " ").chars().take(100).collect();
            format!("{step}: {native} became {gait}")
        })
        .collect();
    assert_eq!(native.lines().count(), steps.lines().count());
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn shells_pipes_and_jobs_work() {
    same(shell("for i in 1 2 3; do (sleep 0.$i; echo $i) & done; wait; echo done"), b"");
    same(
        shell(
            "seq 1 20000 | sort -rn | head -3 | tr '\\n' ' '; (exit 3); echo $?; sh -c 'kill -9 $$'; echo $?",
        ),
        b"",
    );
    same(
        shell(
            "sleep 5 & kill -TERM $!; wait $!; echo $?; kill -0 $$ && echo self; kill -0 -- -$$ 2>/dev/null; echo $?",
        ),
        b"",
    );
    same(
        shell(
            "cat <<X | (read a; echo [$a])\nheredoc\nX\nexec 5>open/five; echo hi >&5; exec 5>&-; cat open/five",
        ),
        b"",
    );
    if which("bash").is_some() {
        same(
            |_| {
                ["bash", "-c", "diff <(seq 3) <(seq 4); coproc cat; echo x >&${COPROC[1]}; read -u ${COPROC[0]} y; echo $y; kill $COPROC_PID"].map(str::to_owned).to_vec()
            },
            b"",
        );
    }
}

#[test]
fn make_runs_in_parallel() {
    let Some(_) = which("make") else { return skipped("make -j8", "no make") };
    same(
        |world| {
            let rules: String =
                (0..60).map(|i| format!("t{i}:\n\t@sh -c 'echo {i} >$@; test -s $@'\n")).collect();
            let all: String = (0..60).map(|i| format!(" t{i}")).collect();
            world.write("ws/open/Makefile", format!("all:{all}\n{rules}"));
            ["make", "-s", "-j8", "-C", "open"].map(str::to_owned).to_vec()
        },
        b"",
    );
}

#[test]
fn many_threads_and_many_processes_work() {
    let world = free();
    let program = probe("workload");
    assert_eq!(count(&world.gait(&[&program, "forks", "2000"]), "good"), 2000);
    world.forget_runs();
    assert_eq!(count(&world.gait(&[&program, "threads", &world.at("open"), "64"]), "bad"), 0);
}

#[test]
fn a_slow_decision_delays_nobody_else() {
    let world = free();
    let fifo = world.at("open/fifo");
    world.native(&["mkfifo", &fifo]).expect_code(0);
    let outcome = world.gait(&[&probe("workload"), "slow", &fifo, &world.at("open/file")]);
    outcome.expect_code(0);
    assert!(count(&outcome, "worst_ms") < 1000, "{}", outcome.stdout);
    world.assert_no_survivor(Duration::from_millis(500));
}

#[test]
fn a_storm_of_signals_repeats_nothing() {
    let world = free();
    let outcome = world.gait(&[&probe("workload"), "storm", &world.at("open"), "2000"]);
    outcome.expect_code(0);
    assert_eq!(count(&outcome, "twice"), 0);
}

#[test]
fn a_program_that_was_just_written_runs() {
    // A copy of the descriptor that lingers in the supervisor would make it busy.
    let world = free();
    let outcome = world.gait(&[&probe("workload"), "busy-text", &world.at("open/fresh"), "300"]);
    outcome.expect_code(0);
    assert_eq!(count(&outcome, "busy"), 0);
}

#[test]
fn locks_are_free_again_when_closed() {
    let Some(_) = which("flock") else { return skipped("flock", "no flock") };
    same(shell("for i in $(seq 60); do flock -n open/lock true || echo busy $i; done; echo end"), b"");
}

#[test]
fn nothing_stray_is_left() {
    let world = free();
    world.native(&["git", "init", "-q", "."]).expect_code(0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    let listing = |world: &World| world.native(&["find", ".", "-not", "-path", "./.git/*"]).stdout;
    let (status, files) = (world.native(&["git", "status", "--porcelain"]).stdout, listing(&world));
    world.gait(&["sh", "-c", "cat keep/file; ls -la; true"]).expect_code(0);
    assert_eq!(world.native(&["git", "status", "--porcelain"]).stdout, status);
    assert_eq!(listing(&world), files);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("procfs"), mounts);
    let left: Vec<_> =
        fs::read_dir(world.out()).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with("run")), "{left:?}");
    world.assert_no_survivor(Duration::from_millis(500));
}

// ---- who runs it

/// Opens a world to another user.
fn open_to_all(world: &World) {
    for dir in ["", "ws", "ws/open", "ws/keep", "ws/secret", "home", "out"] {
        fs::set_permissions(world.root().join(dir), fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    for file in ["policy.yaml", "ws/open/file", "ws/keep/file", "ws/secret/file"] {
        fs::set_permissions(world.root().join(file), fs::Permissions::from_mode(0o666)).expect("a mode");
    }
}

/// What must hold whoever runs gait.
fn holds_for(world: &World) {
    open_to_all(world);
    let outcome = world.gait(&[
        "sh",
        "-c",
        "cat keep/file; cat secret/file; echo x >open/made; rm -f keep/file; (setsid sleep 100 &); echo end",
    ]);
    outcome.expect_code(0);
    assert_eq!(outcome.stdout, "keep\nend\n", "{}", outcome.stderr);
    assert_eq!(outcome.blocked().len(), 2, "{}", outcome.stderr);
    assert!(world.exists("ws/open/made") && world.exists("ws/keep/file"));
    world.assert_no_survivor(Duration::from_millis(500));
    world.runpack();
}

#[test]
fn a_plain_user_can_run_it() {
    if !is_root() {
        return holds_for(&World::new());
    }
    let Some(_) = which("setpriv") else { return skipped("another user", "no setpriv") };
    let mut world = World::new();
    world.wrapper([
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]);
    holds_for(&world);
}

#[test]
fn it_runs_inside_a_user_namespace() {
    for script in ["exec \"$@\"", "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\""] {
        let mut world = World::new();
        if world.native(&["unshare", "-Ur", "true"]).code() != 0 {
            return skipped("a user namespace", "this host grants none");
        }
        world.wrapper(["unshare", "-Ur", "sh", "-c", script, "sh"]);
        holds_for(&world);
    }
}

/// Threads open files while their masks are looked at and set; the masks at the end are the ones that were set.
const MASKS: &str = r#"
import os, threading, time
cpus = sorted(os.sched_getaffinity(0))
ready, stop, masks = threading.Barrier(3), threading.Event(), {}
def opens(name):
    tid = threading.get_native_id()
    masks[name] = tid
    ready.wait()
    while not stop.is_set():
        os.close(os.open("file", os.O_RDONLY))
    masks[name] = sorted(os.sched_getaffinity(0))
threads = [threading.Thread(target=opens, args=(name,), daemon=True) for name in ("left", "set")]
for thread in threads: thread.start()
ready.wait()
target = masks["set"]
time.sleep(0.2)
if "set" in os.environ["MASKS"]:
    for mask in (cpus, cpus[:1]) * 500:
        os.sched_setaffinity(target, mask)
        time.sleep(0.0003)
        assert sorted(os.sched_getaffinity(target)) == mask, (mask, os.sched_getaffinity(target))
stop.set()
for thread in threads: thread.join()
wanted = cpus[:1] if "set" in os.environ["MASKS"] else cpus
assert masks["left"] == cpus, masks
assert masks["set"] == wanted, masks
assert sorted(os.sched_getaffinity(0)) == cpus
"#;

#[test]
fn cpu_masks_are_the_ones_that_the_workload_set() {
    for set in ["", "set"] {
        for _ in 0..5 {
            let mut world = free();
            world.write("ws/file", "content");
            world.env("MASKS", set);
            world.gait(&["python3", "-c", MASKS]).expect_code(0).expect_clean();
        }
    }
}
