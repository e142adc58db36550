//! Races between the judge and whoever changes what was named: 20,000 tries and more each, and not one may win.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::harness::{Outcome, STANDARD, World, count, probe};

const TRIES: &str = "20000";

/// A thread outside the tree that exchanges two names for ever.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Swapper {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut swaps = 0;
            while !told.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE)
                    .expect("an exchange");
                swaps += 1;
                // Without a rest the two meet in lock step on a small machine.
                for _ in 0..(swaps * 37) % 2000 {
                    std::hint::spin_loop();
                }
            }
            swaps
        });
        Self { stop, thread: Some(thread) }
    }

    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("a swapper")
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn world() -> World {
    let mut world = World::new();
    world.patience(Duration::from_secs(150));
    world
}

/// Runs a race and checks that it was one: both things were named, none of the wins was a bypass.
fn race(world: &World, words: &[&str]) -> Outcome {
    let program = probe("races");
    let mut line = vec![program.as_str()];
    line.extend(words);
    let won = |outcome: &Outcome| count(outcome, "allowed") > 0 && count(outcome, "refused") > 0;
    let outcome = (0..5)
        .map(|_| {
            let outcome = world.gait(&line);
            outcome.expect_code(0);
            assert_eq!(count(&outcome, "bypass"), 0, "{words:?}: {}", outcome.stdout);
            outcome
        })
        .find(won)
        .expect("a race in which both things were named");
    assert_eq!(count(&outcome, "bypass"), 0, "{words:?}: {}", outcome.stdout);
    outcome
}

/// Shows that the same race reaches the blocked thing where nobody judges.
fn reaches_without_gait(world: &World, words: &[&str]) {
    let program = probe("races");
    let mut line = vec![program.as_str()];
    line.extend(words);
    // On a busy machine the two threads may hardly ever run at the same time; then the race is run again.
    let outcome = (0..5).map(|_| world.native(&line)).find(|outcome| count(outcome, "bypass") > 0);
    assert!(outcome.is_some(), "proves nothing: {words:?} never won without gait");
}

#[test]
fn a_flipped_path_never_opens_the_secret() {
    let world = world();
    let (allowed, blocked) = (world.at("open/file"), world.at("secret/file"));
    reaches_without_gait(&world, &["open", TRIES, &allowed, &blocked]);
    race(&world, &["open", TRIES, &allowed, &blocked]);
}

#[test]
fn a_path_flipped_with_a_device_never_opens_the_secret() {
    // An exception for harmless devices once let 27 of 100 tries through in a prototype.
    let world = world();
    race(&world, &["open", TRIES, "/dev/null", &world.at("secret/file")]);
}

#[test]
fn a_path_flipped_with_procfs_never_opens_the_secret() {
    let world = world();
    race(&world, &["open", TRIES, "/proc/self/status", &world.at("secret/file")]);
}

#[test]
fn a_flipped_path_never_opens_for_writing() {
    let world = world();
    let (allowed, blocked) = (world.at("open/file"), world.at("keep/file"));
    reaches_without_gait(&world, &["write", TRIES, &allowed, &blocked]);
    race(&world, &["write", TRIES, &allowed, &blocked]);
}

#[test]
fn a_flipped_path_never_creates() {
    let world = world();
    let (allowed, blocked) = (world.at("open/made"), world.at("keep/made"));
    reaches_without_gait(&world, &["create", TRIES, &allowed, &blocked]);
    drop(fs::remove_file(&blocked));
    race(&world, &["create", TRIES, &allowed, &blocked]);
    assert!(!world.exists("ws/keep/made"));
}

#[test]
fn a_flipped_path_never_removes() {
    let world = world();
    let (allowed, blocked) = (world.at("open/gone"), world.at("keep/file"));
    reaches_without_gait(&world, &["unlink", TRIES, &allowed, &blocked]);
    world.write("ws/keep/file", "keep");
    race(&world, &["unlink", TRIES, &allowed, &blocked]);
    assert!(world.exists("ws/keep/file"));
}

#[test]
fn a_flipped_path_never_renames() {
    let world = world();
    let (allowed, blocked) = (world.at("open/moved"), world.at("keep/moved"));
    reaches_without_gait(&world, &["rename", TRIES, &allowed, &blocked]);
    drop(fs::remove_file(&blocked));
    race(&world, &["rename", TRIES, &allowed, &blocked]);
    assert!(!world.exists("ws/keep/moved"));
}

#[test]
fn a_symlink_swapped_from_outside_never_opens_the_secret() {
    let world = world();
    let (one, other) = (world.ws().join("open/l1"), world.ws().join("open/l2"));
    symlink("file", &one).expect("a symlink");
    symlink("../secret/file", &other).expect("a symlink");
    let swapper = Swapper::start(one.clone(), other);
    race(&world, &["outside-open", TRIES, one.to_str().expect("UTF-8"), &world.at("secret/file")]);
    assert!(swapper.finish() > 1000);
}

/// Exchanges a directory with a symlink to another one while something is done below it.
fn with_swapped_directory(world: &World, to: &str, attack: impl FnOnce(&Path)) {
    let (one, other) = (world.ws().join("open/d1"), world.ws().join("open/d2"));
    fs::create_dir(&one).expect("a directory");
    fs::write(one.join("file"), "open").expect("a file");
    symlink(to, &other).expect("a symlink");
    let swapper = Swapper::start(one.clone(), other);
    attack(&one);
    assert!(swapper.finish() > 1000);
}

#[test]
fn a_directory_swapped_from_outside_never_opens_the_secret() {
    let world = world();
    with_swapped_directory(&world, "../secret", |dir| {
        let path = dir.join("file");
        race(&world, &["outside-open", TRIES, path.to_str().expect("UTF-8"), &world.at("secret/file")]);
    });
}

#[test]
fn a_directory_swapped_from_outside_never_creates() {
    let world = world();
    // The probe creates what it is given by pointer; here pointer and text stay, the directory moves.
    with_swapped_directory(&world, "../keep", |dir| {
        let path = dir.join("made");
        race(&world, &["outside-create", TRIES, path.to_str().expect("UTF-8"), &world.at("keep/made")]);
    });
    assert!(!world.exists("ws/keep/made"));
}

#[test]
fn a_directory_swapped_from_outside_never_removes() {
    let world = world();
    with_swapped_directory(&world, "../keep", |dir| {
        let path = dir.join("file");
        race(&world, &["outside-unlink", TRIES, path.to_str().expect("UTF-8"), &world.at("keep/file")]);
    });
    assert!(world.exists("ws/keep/file"));
}

#[test]
fn a_flipped_address_never_connects() {
    let (world, allowed, blocked, policy) = ports();
    world.set_policy(&policy, 0);
    let words = [port(&allowed), port(&blocked)];
    reaches_without_gait(&world, &["connect", TRIES, &words[0], &words[1]]);
    race(&world, &["connect", TRIES, &words[0], &words[1]]);
}

#[test]
fn a_flipped_address_never_sends() {
    for kind in ["sendto", "sendmsg"] {
        let (world, allowed, blocked, policy) = ports();
        world.set_policy(&policy, 0);
        blocked.set_nonblocking(true).expect("a socket");
        let words = [port(&allowed), port(&blocked)];
        world.native(&[&probe("races"), kind, TRIES, &words[0], &words[1]]).expect_code(0);
        let mut reached = 0;
        while blocked.recv(&mut [0; 4]).is_ok() {
            reached += 1;
        }
        assert!(reached > 0, "proves nothing");
        race(&world, &[kind, TRIES, &words[0], &words[1]]);
        assert!(blocked.recv(&mut [0; 4]).is_err(), "{kind}: a datagram arrived at the blocked port");
    }
}

fn ports() -> (World, UdpSocket, UdpSocket, String) {
    let world = world();
    let allowed = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let blocked = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let policy = STANDARD.replace("${port}", &port(&allowed));
    (world, allowed, blocked, policy)
}

fn port(socket: &UdpSocket) -> String {
    socket.local_addr().expect("an address").port().to_string()
}

#[test]
fn a_flipped_program_never_runs() {
    let world = world();
    fs::copy(probe("ran"), world.ws().join("keep/ran")).expect("a copied program");
    let blocked = world.at("keep/ran");
    reaches_without_gait(&world, &["exec", "200", "/bin/true", &blocked]);
    let outcome = world.gait(&[&probe("races"), "exec", "1500", "/bin/true", &blocked]);
    outcome.expect_code(0);
    assert!(count(&outcome, "allowed") > 0, "no race: {}", outcome.stdout);
    assert_eq!(count(&outcome, "bypass"), 0, "{}", outcome.stdout);
}

#[test]
fn a_program_exchanged_from_outside_never_runs() {
    // The granted name holds the granted program or, for a moment, the other one: the verdict is about the name, so
    // what the name holds at the moment of the verdict may run; a symlink into a blocked directory may not.
    let world = world();
    fs::copy(probe("ran"), world.ws().join("keep/ran")).expect("a copied program");
    let (one, other) = (world.ws().join("open/p1"), world.ws().join("open/p2"));
    symlink("/bin/true", &one).expect("a symlink");
    symlink("../keep/ran", &other).expect("a symlink");
    let swapper = Swapper::start(one.clone(), other);
    let one = one.to_str().expect("UTF-8");
    let outcome = world.gait(&[&probe("races"), "exec", "1500", one, one]);
    outcome.expect_code(0);
    assert!(count(&outcome, "allowed") > 0, "no race: {}", outcome.stdout);
    assert_eq!(count(&outcome, "bypass"), 0, "{}", outcome.stdout);
    assert!(swapper.finish() > 100);
}

#[test]
fn a_flipped_script_never_runs() {
    // Both scripts have the same interpreter: the image alone cannot tell which of them was run.
    let world = world();
    for (name, code) in [("open/good", 0), ("keep/ran", 42)] {
        let script = world.write(&format!("ws/{name}"), format!("#!/bin/sh\nexit {code}\n"));
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let (allowed, blocked) = (world.at("open/good"), world.at("keep/ran"));
    reaches_without_gait(&world, &["exec", "200", &allowed, &blocked]);
    let outcome = world.gait(&[&probe("races"), "exec", "1500", &allowed, &blocked]);
    outcome.expect_code(0);
    assert!(count(&outcome, "allowed") > 0, "no race: {}", outcome.stdout);
    assert_eq!(count(&outcome, "bypass"), 0, "{}", outcome.stdout);
}
