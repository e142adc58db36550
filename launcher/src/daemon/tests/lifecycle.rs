//! Deaths and restarts: whatever dies, nothing that was under control is let go.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gait_ebpf::layout::{self, Counters, Grant, session_flags};

use super::owner::{KILLS, STUBBORN};
use super::{Daemon, Place, soon};
use crate::backend::ebpf::{Kernel, Refused, Tables};
use crate::daemon::client::Remote;
use crate::sys::{packets, process};

#[test]
fn when_the_guard_dies_its_session_is_blocked_until_it_is_empty() {
    let place = Place::new();
    let _daemon = place.start();
    let mut holder = place.hold();
    let member = format!("member.{} 1", holder.member);
    assert_eq!(place.pins(), [member.as_str(), "programs attached", "session.1 live"]);
    holder.child.kill().unwrap();
    soon("the session is blocked", || place.pins().contains(&"session.1 blocked".to_owned()));
    assert!(place.pins().contains(&member), "its process is in it for as long as it lives");
    process::kill(holder.member, libc::SIGKILL).unwrap();
    soon("the session is given back", || place.pins() == ["programs attached"]);
}

#[test]
fn a_session_that_cannot_be_blocked_is_tried_again_and_never_given_back_before() {
    let place = Place::new();
    let _daemon = place.start();
    let holder = place.hold();
    let stubborn = place.path().join("pins").join(STUBBORN);
    std::fs::write(&stubborn, "").unwrap();
    drop(holder);
    std::thread::sleep(Duration::from_millis(700));
    assert!(place.pins().contains(&"session.1 live".to_owned()), "{:?}", place.pins());
    std::fs::remove_file(stubborn).unwrap();
    soon("the session is given back", || place.pins() == ["programs attached"]);
}

#[test]
fn a_killed_daemon_leaves_everything_pinned_and_the_next_one_blocks_what_it_finds() {
    let place = Place::new();
    let daemon = place.start();
    let holder = place.hold();
    let member = format!("member.{} 1", holder.member);
    let running = [member.clone(), "programs attached".to_owned(), "session.1 live".to_owned()];
    daemon.signal(libc::SIGKILL);
    assert_eq!(daemon.ended(), (String::new(), Some(libc::SIGKILL)));
    assert_eq!(place.pins(), running, "nobody has opened anything");

    let _next = place.start();
    soon("the session is blocked", || place.pins().contains(&"session.1 blocked".to_owned()));
    assert!(place.pins().contains(&member));
    // Others are served meanwhile, and get a number that is free.
    assert!(place.ask(&["session"]).contains("ring 2"));
    let pid = holder.member;
    let mut holder = holder;
    holder.child.kill().unwrap();
    process::kill(pid, libc::SIGKILL).unwrap();
    soon("the session is given back", || !place.pins().iter().any(|line| line.starts_with("session.")));
}

#[test]
fn the_guard_is_told_by_the_hang_up() {
    let place = Place::new();
    let daemon = place.start();
    let holder = place.hold();
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    let said = holder.done();
    assert_eq!(said, "hung up");
}

#[test]
fn asked_to_end_it_opens_no_gate_and_takes_the_programs_out_only_if_nobody_is_under_them() {
    let place = Place::new();
    let daemon = place.start();
    let holder = place.hold();
    let running = place.pins();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended(), ("ended with 1 live, 0 blocked".to_owned(), None));
    assert_eq!(place.pins(), running);
    assert!(!place.socket().exists());

    let next = place.start();
    drop(holder);
    soon("the session is given back", || place.pins() == ["programs attached"]);
    next.signal(libc::SIGHUP);
    assert!(place.ask(&["session"]).starts_with("opened"), "another signal changes nothing");
    soon("empty", || !place.pins().iter().any(|line| line.starts_with("session.")));
    next.signal(libc::SIGINT);
    assert_eq!(next.ended().0, "ended with 0 live, 0 blocked");
    assert!(!place.pins().contains(&"programs attached".to_owned()));
}

#[test]
fn a_process_that_dies_while_it_is_registered_puts_nobody_else_under_control() {
    let place = Place::new();
    let _daemon = place.start();
    std::fs::write(place.path().join("pins").join(KILLS), "").unwrap();
    assert_eq!(place.ask(&["register"]), "refused: the process is gone");
    assert!(place.pins().contains(&"forgot.1 ".to_owned()), "{:?}", place.pins());
    soon("the session is given back", || !place.pins().iter().any(|line| line.starts_with("session.")));
}

#[test]
fn the_service_manager_is_told_of_begin_and_end() {
    let place = Place::new();
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(super::SOON)).unwrap();
    let daemon = Daemon(place.daemon_command().env("NOTIFY_SOCKET", &path).spawn().unwrap());
    let told = || {
        let mut bytes = [0; 512];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(told(), "READY=1\nSTATUS=takes sessions\n");
    assert!(super::is_there(&place.socket()), "it is ready when it says so");
    daemon.signal(libc::SIGTERM);
    assert_eq!(told(), "STOPPING=1\nSTATUS=0 sessions live, 0 are blocked\n");
    daemon.ended();
}

/// Starts a daemon that finds `fd` as its descriptor 3, as systemd would start it.
fn activated(place: &Place, fd: impl Into<Stdio>) -> Daemon {
    let plain = place.daemon_command();
    let words = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", words]).arg(plain.get_program()).args(plain.get_args());
    command.env(super::DAEMON_DIRECTORY, place.path()).env_remove("NOTIFY_SOCKET");
    command.stdin(fd).stdout(Stdio::piped()).stderr(Stdio::piped());
    Daemon(command.spawn().unwrap())
}

#[test]
fn a_socket_of_the_service_manager_is_used_and_not_removed() {
    let place = Place::new();
    let path = place.path().join("systemd.sock");
    let listener = packets::listen_at(&path).unwrap();
    let daemon = activated(&place, listener);
    // Connections wait in the socket until the daemon takes them.
    let remote = Remote::connect(&path).unwrap();
    assert_eq!(open(&remote).unwrap(), "ring 1");
    assert!(!place.socket().exists());
    drop(remote);
    soon("the session is given back", || place.pins() == ["programs attached"]);
    daemon.signal(libc::SIGTERM);
    daemon.ended();
    assert!(path.exists());

    let stream = std::os::unix::net::UnixListener::bind(place.path().join("stream.sock")).unwrap();
    let (said, _) = activated(&place, std::os::fd::OwnedFd::from(stream)).ended();
    assert_eq!(said, "did not run: take the socket of the service manager, one of the kind SOCK_SEQPACKET");
}

/// Else the service manager would start a daemon that cannot run again and again, and the guards would wait.
#[test]
fn a_daemon_that_cannot_run_tells_those_who_wait_why() {
    let place = Place::new();
    std::fs::write(place.path().join("unable"), "this kernel has no hooks").unwrap();
    let path = place.path().join("systemd.sock");
    let listener = packets::listen_at(&path).unwrap();
    let waiting = [Remote::connect(&path).unwrap(), Remote::connect(&path).unwrap()];
    let (said, _) = activated(&place, listener.try_clone().unwrap()).ended();
    assert_eq!(said, "did not run: this kernel has no hooks");
    assert!(!process::readable(std::os::fd::AsFd::as_fd(&listener)), "nobody is left waiting");
    for remote in waiting {
        assert_eq!(open(&remote).unwrap_err().what, "this kernel has no hooks");
    }
}

/// Opens a session, and returns the one record of its ring.
fn open(remote: &Remote) -> Result<String, Refused> {
    // One state that everything ends in.
    let cells = [u64::from(layout::NO_EDGES), 0];
    let tables = Tables {
        holder: 7,
        cells: &cells,
        words: &[0],
        names: 0,
        paths: 0,
        images: 0,
        image_classes: 1,
        flags: session_flags::LIVE | session_flags::SIMULATE,
        identities: &[],
    };
    let mut ring = remote.open(&tables)?;
    Ok(String::from_utf8(ring.next().unwrap().to_vec()).unwrap())
}

/// A process of the test's own that has given up privileges.
fn sleeper() -> Child {
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "sleep", "60"]).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().unwrap();
    let comm = format!("/proc/{}/comm", child.id());
    soon("sleep runs", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
    child
}

#[test]
fn the_guards_side_does_all_of_a_session() {
    let place = Place::new();
    let absent = Remote::connect(&place.socket()).unwrap_err();
    assert!(absent.what.starts_with("no gait agent answers at "), "{absent:?}");
    let daemon = place.start();
    let remote = Remote::connect(&place.socket()).unwrap();
    let second = Remote::connect(&place.socket()).unwrap();
    assert_eq!(open(&remote).unwrap(), "ring 1");
    assert_eq!(open(&second).unwrap(), "ring 2");
    let mut child = sleeper();
    remote.seed(child.id()).unwrap();
    let taken = second.seed(child.id()).unwrap_err();
    assert!(taken.what.ends_with("is in a session already"), "{taken:?}");
    assert!(second.counters().is_err(), "a refusal is the end");

    let grant = |object| Grant { object, second: 0, until: 1, operations: 1, verdict: 3 };
    std::thread::scope(|scope| {
        for tid in 1..=8 {
            let (remote, grant) = (&remote, &grant);
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(remote.grant(tid, &grant(u64::from(tid))), Ok(()));
                    assert_eq!(remote.grant(tid, &grant(0)).unwrap_err().what, "no answer has room");
                }
            });
        }
    });
    let grants = place.pins().iter().filter(|line| line.starts_with("grant.1.")).count();
    assert_eq!(grants, 8);
    let counters = Counters { lost: 5, members: 1, ..Counters::default() };
    assert_eq!(remote.counters(), Ok(counters));
    assert!(!process::hung_up(remote.line().unwrap()));
    remote.close();
    soon("the session is blocked", || place.pins().contains(&"session.1 blocked".to_owned()));
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    assert!(process::hung_up(remote.line().unwrap()));
    assert!(remote.counters().unwrap_err().what.starts_with("the gait agent does not answer"));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A refusal that comes before anything was asked is told all the same, whichever of the two is faster.
#[test]
fn a_connection_too_many_is_told_why() {
    let place = Place::new();
    let _daemon = place.start();
    if process::real_uid() == crate::daemon::peer::ROOT {
        // Root has as many as there are.
        let said = place.ask(&["connections"]);
        assert!(said.contains(" has 16 connections, and no more are possible"), "{said}");
        return;
    }
    let lines: Vec<Remote> = (0..16).map(|_| Remote::connect(&place.socket()).unwrap()).collect();
    for _ in 0..50 {
        let refused = open(&Remote::connect(&place.socket()).unwrap()).unwrap_err();
        assert!(refused.what.contains(" has 16 connections"), "{refused:?}");
    }
    drop(lines);
}
