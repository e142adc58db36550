//! The caps of `exec.limits`, looked at from outside: how many actions happened in which time.

use std::time::Instant;

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

/// The interpreter itself: what `PATH` names may be a script that does a lot before.
fn python(world: &World) -> String {
    let outcome = world.native(&["python3", "-c", "import sys; print(sys.executable)"]);
    outcome.expect_code(0).stdout.trim().to_owned()
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
    // A child uses up what is granted, however slow the machine, and runs a program in the next moment.
    let script = "
import os, time
def child(hungry):
    pid = os.fork()
    if pid == 0:
        try:
            while hungry: os.close(os.open('keep/file', os.O_RDONLY))
        except BlockingIOError: pass
        try: os.execv('/bin/true', ['true'])
        except BlockingIOError: os._exit(3)
        except OSError: os._exit(4)
    return os.waitpid(pid, 0)[1]
time.sleep(1.1)
ran = sum(child(False) == 0 for _ in range(15))
refused, end = 0, time.time() + 60
while refused <= 10 and time.time() < end:
    refused += child(True) == 3 << 8
print(f'ran={ran} refused={refused}')
";
    let outcome = world.gait(&[&python(&world), "-S", "-E", "-c", script]);
    outcome.expect_code(0);
    assert!(count(&outcome, "refused") > 10 && count(&outcome, "ran") > 10, "{outcome:?}");
}

#[test]
fn a_simulation_stops_nothing_and_says_what_would_have_been() {
    let mut world = world("{actions_per_second: 20}");
    world.flags(["--simulate"]);
    let outcome = world.gait(&[&python(&world), "-c", OPENS, "0.5"]);
    outcome.expect_code(0);
    assert_eq!(count(&outcome, "refused"), 0);
    let evidence = Evidence::read(&world.runpack());
    let told = evidence.records.iter().any(|record| {
        record.verdict == "allow"
            && record.simulated.as_deref() == Some("block")
            && record.reason_codes == ["limit_actions_per_second"]
    });
    assert!(told, "{:?}", evidence.records);
}
