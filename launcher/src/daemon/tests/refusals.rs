//! What clients may not do, one by one: malformed messages, tables that lead out of themselves, processes that are not
//! theirs to register, and more than their share.

use std::process::{Command, Stdio};

use super::{DAEMON_DIRECTORY, Place, soon};
use crate::daemon::peer::ROOT;
use crate::sys::process;

/// Whatever was refused, nothing of it may be left.
fn nothing_left(place: &Place) {
    soon("nothing is left", || place.pins() == ["programs attached"]);
}

#[test]
fn a_session_from_begin_to_end() {
    let place = Place::new();
    let _daemon = place.start();
    let said = place.ask(&["session"]);
    let expected = [
        "opened with a descriptor",
        "ring 1",
        "done",
        "done",
        "failed: no answer has room",
        "counters 5 0 1",
        "done",
        "refused: there is no session on this connection",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    soon("the session is given back", || {
        place.pins().iter().all(|line| line.starts_with("grant.1.") || line == "programs attached")
    });
}

#[test]
fn messages_that_are_no_requests_end_the_connection() {
    let place = Place::new();
    let _daemon = place.start();
    let form = "refused: a message is not in its form";
    let none = "refused: there is no session on this connection";
    for (deed, expected) in [
        ("short", vec![form]),
        ("empty", vec!["hung up"]),
        ("behind", vec![form]),
        ("kind", vec![form]),
        ("version", vec!["refused: the other side speaks version 2 of the protocol, this one version 1"]),
        ("large", vec![form]),
        ("early", vec![none, none, none, "refused: a session begins with one process, after it was opened"]),
        ("twice", vec!["refused: a connection can have one session"]),
        ("verdict", vec![form]),
        ("bare", vec![form]),
        ("luggage", vec![form; 3]),
    ] {
        assert_eq!(place.ask(&[deed]).lines().collect::<Vec<_>>(), expected, "{deed}");
    }
    nothing_left(&place);
}

#[test]
fn tables_that_are_not_what_they_say_are_refused_by_name() {
    let place = Place::new();
    let _daemon = place.start();
    let sealed = "refused: the tables are not a sealed file in memory";
    let length = "refused: the file of the tables has not the length that was said";
    for (deed, expected) in [
        ("unsealed", vec![sealed]),
        ("pipe", vec![sealed]),
        ("length", vec![length; 2]),
        ("layout", vec!["refused: the tables are of layout 99, the programs of layout 2"]),
        ("flags", vec!["refused: the flags 0x40 are not known"]),
        (
            "many",
            vec![
                "refused: 4294967295 cells are more than the 4194304 that one session may have",
                "refused: 4294967295 words are more than the 1048576 that one session may have",
                "refused: 16385 places are more than the 16384 that one session may have",
            ],
        ),
        (
            "state",
            vec![
                "refused: state 330 is not within the tables",
                "refused: state 4294967295 is not within the tables",
                "refused: state 329 is not within the tables",
            ],
        ),
        (
            "edges",
            vec![
                "refused: the edges of state 0 are not within the tables",
                "refused: state 330 is not within the tables",
                "refused: state 4294967295 is not within the tables",
            ],
        ),
        (
            "region",
            vec![
                "refused: state 6 leads to region 2, of which there are 2",
                "refused: state 8 leads to class 1, of which there are 1",
                "refused: state 6 leads to region 1, of which there are 0",
            ],
        ),
        ("places", vec!["refused: state 330 is not within the tables"]),
    ] {
        assert_eq!(place.ask(&[deed]).lines().collect::<Vec<_>>(), expected, "{deed}");
    }
    nothing_left(&place);
}

/// A process of this test's own, which no client has started.
struct Bystander(std::process::Child);

impl Bystander {
    /// Of the client's user, and as unprivileged, or of this test's.
    fn start(of_client: bool) -> Self {
        let mut command = Command::new("setpriv");
        if of_client && process::real_uid() == ROOT {
            command.args(["--reuid", super::NOBODY, "--regid", super::NOBODY, "--clear-groups"]);
        }
        command.args(["--no-new-privs", "sleep", "60"]).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Self(command.spawn().unwrap());
        let comm = format!("/proc/{}/comm", started.0.id());
        soon("sleep runs", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
        started
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn only_own_unprivileged_single_processes_below_oneself_can_be_registered() {
    let place = Place::new();
    let _daemon = place.start();
    let (root, same) = (Bystander::start(false), Bystander::start(true));
    let case = |words: &[&str], parts: &[&str]| {
        let said = place.ask(words);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), parts.len(), "{words:?}: {said}");
        for (line, part) in lines.iter().zip(parts) {
            assert!(line.contains(part), "{words:?}: {line:?} does not say {part:?}");
        }
    };
    let (root, same) = (root.0.id().to_string(), same.0.id().to_string());
    if process::real_uid() == ROOT {
        case(&["other", &root], &["is not entirely user 65534's"]);
    }
    case(&["other", "1"], &["is not entirely user"]);
    case(&["other", &same], &["does not descend from process"]);
    case(&["self"], &["does not descend from process"]);
    case(&["orphan"], &["does not descend from process"]);
    case(&["threads"], &["has 3 threads, and may have one"]);
    case(&["ended"], &["refused: the process is gone", "refused: the process is gone"]);
    case(&["nothing"], &["the descriptor is no pidfd"]);
    case(&["again"], &["done", "is in a session already", "hung up"]);
    case(&["second"], &["done, refused: a session begins with one process, after it was opened"]);
    nothing_left(&place);
}

#[test]
fn a_process_that_could_gain_privileges_is_not_registered() {
    let place = Place::new();
    let _daemon = place.start();
    let mut client = place.client(&["register"]);
    // The same words without the one that takes them.
    let words: Vec<_> =
        client.get_args().filter(|word| *word != "--no-new-privs").map(ToOwned::to_owned).collect();
    client = Command::new("setpriv");
    let done = client.args(words).env("PATH", "/usr/bin:/bin").current_dir("/").output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("could still gain privileges"), "{said}");
    nothing_left(&place);
}

#[test]
fn a_user_has_a_share_and_no_more() {
    let place = Place::new();
    let _daemon = place.start();
    let said = place.ask(&["sessions"]);
    assert!(said.contains(" has 8 sessions, and no more are possible"), "{said}");
    nothing_left(&place);
    let said = place.ask(&["connections"]);
    assert!(said.contains(" has 16 connections, and no more are possible"), "{said}");
    let said = place.ask(&["megabytes"]);
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("opened with a descriptor"));
    assert!(lines.next().is_some_and(|line| line.contains("would take more than 64 MiB")), "{said}");
    nothing_left(&place);
    // What was refused or ended is given back: all of it is there again.
    assert!(place.ask(&["session"]).starts_with("opened"));
}

#[test]
fn a_second_daemon_says_so_and_leaves_the_first_alone() {
    let place = Place::new();
    let _daemon = place.start();
    let done = place.daemon_command().env(DAEMON_DIRECTORY, place.path()).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("did not run: another gait agent runs (it holds "), "{said}");
    assert!(place.ask(&["session"]).starts_with("opened"));
}
