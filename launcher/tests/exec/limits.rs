//! The caps of `exec.limits`, looked at from outside: how many processes there are, how many actions happened in which time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use crate::evidence::{Evidence, entry};
use crate::harness::{World, count};

fn world(limits: &str) -> World {
    let world = World::new();
    world.set_policy(
        &format!(
            "default_verdict: block\nrules:\n  - name: rest\n    effect: allow\n    match: {{endpoint_classes: \
             [fs.read, fs.write, proc.exec]}}\nexec:\n  limits: {limits}\n"
        ),
        0,
    );
    world
}

/// The processes and threads of the workload; guard, supervisor and reaper carry the mark too.
fn living(world: &World) -> u64 {
    let threads = |pid: i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let ours = name.starts_with("gait");
        fs::read_dir(format!("/proc/{pid}/task"))
            .map_or(0, |tasks| if ours { 0 } else { tasks.count() as u64 })
    };
    world.survivors().into_iter().map(threads).sum()
}

/// The interpreter itself: what `PATH` names may be a script that does a lot before.
fn python(world: &World) -> String {
    let outcome = world.native(&["python3", "-c", "import sys; print(sys.executable)"]);
    outcome.expect_code(0).stdout.trim().to_owned()
}

/// Makes as many as it can, says how many that were, and keeps them until its input ends.
const FORKS: &str = "
import os, sys, time
made = 0
for _ in range(40):
    try:
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        made += 1
    except BlockingIOError:
        pass
print(f'made={made}', flush=True)
sys.stdin.read()
";

const THREADS: &str = "
import sys, threading, time
made = 0
for _ in range(40):
    try:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); made += 1
    except RuntimeError:
        pass
print(f'made={made}', flush=True)
sys.stdin.read()
";

#[test]
fn no_more_processes_and_threads_live_than_are_granted() {
    for (script, most) in [(FORKS, 12u64), (THREADS, 12)] {
        let world = world(&format!("{{processes: {most}}}"));
        let mut command = world.command(&["python3", "-c", script]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("gait");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(living(&world), most, "{line}");
        assert_eq!(line.trim(), format!("made={}", most - 1), "all that are granted can be had");
        drop(child.stdin.take());
        assert!(world.wait(&mut child).is_some_and(|status| status.success()));
        let evidence = Evidence::read(&world.runpack());
        let refused = evidence.records.iter().find(|record| record.operation == "spawn").expect("a record");
        assert_eq!((refused.verdict.as_str(), refused.class.as_str()), ("block", "other"));
        assert_eq!(refused.reason_codes, ["limit_processes"]);
    }
}

#[test]
fn a_storm_of_forks_never_goes_beyond_the_limit() {
    let world = world("{processes: 20}");
    let script = "
import os, time
end = time.time() + 2
def storm():
    while time.time() < end:
        try:
            if os.fork() == 0:
                storm(); os._exit(0)
        except BlockingIOError:
            pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]: pass
        except ChildProcessError:
            pass
storm()
";
    let mut child = world.command(&["python3", "-c", script]).spawn().expect("gait");
    let mut most = 0;
    while child.try_wait().expect("a child").is_none() {
        most = most.max(living(&world));
        thread::sleep(Duration::from_millis(3));
    }
    assert!(most <= 20, "{most} lived at once");
    assert!(most > 15, "the limit was hardly reached: {most}");
    world.assert_no_survivor(Duration::from_secs(1));
}

#[test]
fn processes_one_after_the_other_are_not_limited() {
    let world = world("{processes: 3}");
    let script =
        "i=0; while [ $i -lt 60 ]; do /bin/true || exit 1; (exit 0) | cat >/dev/null; i=$((i+1)); done";
    let outcome = world.gait(&["sh", "-c", script]);
    outcome.expect_code(0).expect_clean();
    let outcome = world.gait(&["make", "--version"]);
    outcome.expect_code(0);
}

/// Opens files by name as fast as it can for a while; counts what it got.
const OPENS: &str = "
import errno, os, sys, time
end = time.time() + float(sys.argv[1])
got = refused = other = 0
while time.time() < end:
    try:
        os.close(os.open('keep/file', os.O_RDONLY)); got += 1
    except OSError as error:
        if error.errno == errno.EAGAIN: refused += 1
        else: other += 1
print(f'got={got} refused={refused} other={other}')
";

#[test]
fn no_more_actions_happen_in_a_second_than_are_granted() {
    const RATE: u64 = 400;
    let world = world(&format!("{{actions_per_second: {RATE}}}"));
    let started = Instant::now();
    let outcome = world.gait(&[&python(&world), "-c", OPENS, "2"]);
    let most = (started.elapsed().as_secs_f64() * RATE as f64) as u64 + RATE + 1;
    outcome.expect_code(0);
    let (got, refused) = (count(&outcome, "got"), count(&outcome, "refused"));
    assert_eq!(count(&outcome, "other"), 0);
    assert!(refused > RATE, "python opens faster than that: {outcome:?}");
    assert!(got > RATE, "what is granted can be had: {got}");
    let pack = world.runpack();
    let evidence = Evidence::read(&pack);
    let blocked: Vec<_> = evidence.records.iter().filter(|record| record.verdict == "block").collect();
    assert!(blocked.iter().all(|record| record.reason_codes == ["limit_actions_per_second"]), "{blocked:?}");
    // The evidence counts what the program counted.
    let end = entry(&pack, "journal.jsonl").lines().last().expect("an end").to_owned();
    let end: serde_json::Value = serde_json::from_str(&end).expect("JSON");
    let total = |class: &str, verdict: &str| {
        end["totals"][class][verdict].as_str().map_or(0, |text| text.parse::<u64>().expect("a number"))
    };
    assert_eq!(total("fs.read", "block"), refused);
    let all = total("fs.read", "allow") + total("proc.exec", "allow");
    assert!(all >= got && all <= most, "{all} of {most}");
}

#[test]
fn below_the_rate_nothing_is_refused() {
    let world = world("{actions_per_second: 5000}");
    world
        .gait(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do cat keep/file; done"])
        .expect_code(0)
        .expect_clean();
}

#[test]
fn a_program_beyond_the_rate_does_not_run_and_its_caller_goes_on() {
    let world = world("{actions_per_second: 200}");
    let script = "
import os, time
time.sleep(1.1)
ran = refused = 0
for _ in range(150):
    pid = os.fork()
    if pid == 0:
        try: os.execv('/bin/true', ['true'])
        except BlockingIOError: os._exit(3)
        except OSError: os._exit(4)
    status = os.waitpid(pid, 0)[1]
    if status == 0: ran += 1
    elif status == 3 << 8: refused += 1
    else: print('status', status)
print(f'ran={ran} refused={refused}')
";
    let outcome = world.gait(&[&python(&world), "-S", "-E", "-c", script]);
    outcome.expect_code(0);
    assert!(count(&outcome, "refused") > 10 && count(&outcome, "ran") > 10, "{outcome:?}");
}

#[test]
fn a_simulation_stops_nothing_and_says_what_would_have_been() {
    let mut world = world("{processes: 2, actions_per_second: 20}");
    world.flags(["--simulate"]);
    let outcome = world.gait(&["python3", "-c", FORKS]);
    outcome.expect_code(0);
    assert_eq!(count(&outcome, "made"), 40);
    let evidence = Evidence::read(&world.runpack());
    for reason in ["limit_processes", "limit_actions_per_second"] {
        let told = evidence.records.iter().any(|record| {
            record.verdict == "allow"
                && record.simulated.as_deref() == Some("block")
                && record.reason_codes == [reason]
        });
        assert!(told, "{reason}");
    }
}
