//! The supervisor dies, at any moment: nothing of the workload may live on, and nothing unjudged may happen.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};

use crate::harness::{World, children, eventually, probe, signal};

/// How long what is left of a session may take to vanish.
const GRACE: Duration = Duration::from_secs(2);

/// Whom to kill.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whom {
    /// The process that the user started.
    Guard,
    /// Its child, which judges.
    Supervisor,
    /// Both, the supervisor first.
    Both,
}

struct Session {
    guard: Child,
}

impl Session {
    fn start(mut command: Command) -> Self {
        Self { guard: command.spawn().expect("gait") }
    }

    /// Waits until the workload says that it is ready.
    fn until_ready(&mut self) {
        let mut line = String::new();
        BufReader::new(self.guard.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
    }

    fn guard(&self) -> i32 {
        i32::try_from(self.guard.id()).expect("a pid")
    }

    fn supervisor(&self) -> Option<i32> {
        children(self.guard()).first().copied()
    }

    /// Kills and returns the moment at which the killed process was surely dead.
    fn kill(&mut self, whom: Whom) -> SystemTime {
        let supervisor = self.supervisor();
        if whom != Whom::Guard
            && let Some(pid) = supervisor
        {
            signal(pid, SIGKILL);
        }
        if whom != Whom::Supervisor {
            signal(self.guard(), SIGKILL);
        }
        match (whom, supervisor) {
            (Whom::Supervisor | Whom::Both, Some(pid)) => {
                assert!(eventually(GRACE, || is_dead(pid)), "SIGKILL did not kill");
            }
            _ => {
                self.guard.wait().expect("a child");
            }
        }
        SystemTime::now()
    }
}

fn is_dead(pid: i32) -> bool {
    // The threads of a killed process end one by one; it is dead when no task is left that could run.
    fs::read_dir(format!("/proc/{pid}/task")).map_or(true, |tasks| {
        tasks.flatten().all(|task| {
            fs::read_to_string(task.path().join("stat")).map_or(true, |stat| {
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
            })
        })
    })
}

fn newest(dir: &Path) -> Option<SystemTime> {
    fs::read_dir(dir)
        .expect("a directory")
        .flatten()
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max()
}

#[test]
fn nothing_survives_and_nothing_happens_after_the_judge_is_killed() {
    for whom in [Whom::Supervisor, Whom::Guard] {
        for turn in 0..4u64 {
            let world = World::new();
            let mut session =
                Session::start(world.command(&[&probe("workload"), "writers", &world.at("open"), "6"]));
            session.until_ready();
            thread::sleep(Duration::from_millis(20 + 35 * turn));
            let dead = session.kill(whom);
            let took = world.assert_no_survivor(GRACE);
            let last = newest(&world.ws().join("open")).expect("the writers wrote");
            if whom == Whom::Supervisor {
                assert!(
                    last <= dead,
                    "a file is {:?} younger than the judge's death",
                    last.duration_since(dead)
                );
                let status = world.wait(&mut session.guard).expect("the guard ends by itself");
                assert_eq!(status.code(), Some(125), "{whom:?}");
            } else {
                // The supervisor may outlive the guard for a moment, and judge; but only for a moment.
                assert!(last <= dead + GRACE);
            }
            eprintln!("{whom:?} killed: the last process was gone after {took:?}");
        }
    }
}

#[test]
fn nothing_survives_a_death_during_start_up() {
    for whom in [Whom::Supervisor, Whom::Guard] {
        for turn in 0..25u64 {
            let world = World::new();
            let mut session =
                Session::start(world.command(&[&probe("workload"), "writers", &world.at("open"), "3"]));
            let wait = Instant::now() + Duration::from_micros(turn * 700);
            while Instant::now() < wait {
                std::hint::spin_loop();
            }
            session.kill(whom);
            world.assert_no_survivor(GRACE);
            assert!(world.wait(&mut session.guard).is_some(), "the guard does not end by itself");
            assert!(
                world.runpacks().is_empty() || whom == Whom::Supervisor,
                "a killed session is not sealed as whole"
            );
        }
    }
}

#[test]
fn nothing_survives_among_daemons_forks_and_programs() {
    for kind in ["churn", "idle", "execs"] {
        for whom in [Whom::Supervisor, Whom::Guard] {
            let world = World::new();
            let mut session = Session::start(world.command(&[&probe("workload"), kind]));
            session.until_ready();
            thread::sleep(Duration::from_millis(60));
            session.kill(whom);
            let took = world.assert_no_survivor(GRACE);
            eprintln!("{kind}, {whom:?} killed: the last process was gone after {took:?}");
            assert!(world.wait(&mut session.guard).is_some(), "the guard does not end by itself");
        }
    }
}

#[test]
fn a_stopped_supervisor_stops_the_workload_and_goes_on() {
    let world = World::new();
    let dir = world.ws().join("open");
    let mut session = Session::start(world.command(&[&probe("workload"), "writers", &world.at("open"), "2"]));
    session.until_ready();
    let supervisor = session.supervisor().expect("a supervisor");
    signal(supervisor, SIGSTOP);
    thread::sleep(Duration::from_millis(50));
    let before = newest(&dir);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(newest(&dir), before, "something happened while nobody judged");
    signal(supervisor, SIGCONT);
    assert!(eventually(Duration::from_secs(5), || newest(&dir) > before), "the session does not go on");
    session.kill(Whom::Guard);
    world.assert_no_survivor(GRACE);
}

#[test]
fn the_end_of_both_leaves_nothing() {
    // Two deaths at once: who could clean up is gone, so the kernel must do it.
    let world = World::new();
    let mut session = Session::start(world.command(&[&probe("workload"), "churn"]));
    session.until_ready();
    thread::sleep(Duration::from_millis(60));
    session.kill(Whom::Both);
    let took = world.assert_no_survivor(GRACE);
    eprintln!("both killed: the last process was gone after {took:?}");
    drop(session.guard.wait());
}

#[test]
fn a_session_outlives_no_leader() {
    let world = World::new();
    let outcome = world.gait(&["sh", "-c", "sleep 300 & sleep 300 & (setsid sleep 300 &) ; exit 4"]);
    outcome.expect_code(4);
    world.assert_no_survivor(Duration::from_millis(500));
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
}
