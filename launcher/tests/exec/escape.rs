//! The escape suite: one entry per known trick, each tried without gait first to show that it is one.
//!
//! The tricks are in `probe/escape.c`. Races have their own module, attacks on a dying supervisor too.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::evidence::Evidence;
use crate::harness::{Outcome, STANDARD, World, count, eventually, is_root, probe, skipped, value};

/// Whether the trick works where nothing holds it back.
#[derive(Clone, Copy, PartialEq)]
enum Native {
    /// It does, or the test proves nothing.
    Works,
    /// It does for root.
    WorksForRoot,
    /// It depends on the kernel's configuration: the reason.
    Depends(&'static str),
}
use Native::{Depends, Works, WorksForRoot};

/// Programs may come from the system and from the test's own directory only.
const PROGRAMS: &str = r#"
default_verdict: block
rules:
  - name: read
    priority: 10
    effect: allow
    match: {endpoint_classes: [fs.read]}
  - name: open-area
    priority: 20
    effect: allow
    match: {endpoint_classes: [fs.write, fs.delete], paths: ["${ws}/open/**"]}
  - name: programs
    priority: 30
    effect: allow
    match: {endpoint_classes: [proc.exec], paths: ["/usr/**", "/bin/**", "/lib/**", "/lib64/**", "${probes}/**", "${ws}/open/scripts-*"]}
"#;

/// A world, a sleeping process outside the tree, and what has to stay open.
struct Arena {
    world: World,
    outsider: Child,
}

impl Arena {
    fn new() -> Self {
        let world = World::new();
        world.write("ws/secret/file", "secret\n");
        world.write("ws/keep/file", "keep\n");
        let not_utf8 = std::ffi::OsStr::from_bytes(b"\xff\xfe");
        fs::write(world.ws().join("secret").join(not_utf8), "secret\n").expect("a file");
        let secret = fs::File::open(world.ws().join("secret/file")).expect("a file");
        // The outsider has the workspace as its directory and the secret as its standard input.
        let outsider = Command::new("sleep")
            .arg("600")
            .current_dir(world.ws())
            .stdin(secret)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sleep");
        Self { world, outsider }
    }

    fn fill(&self, words: &[&str]) -> Vec<String> {
        let outsider = self.outsider.id().to_string();
        words.iter().map(|word| self.world.fill(&word.replace("${outsider}", &outsider), 0)).collect()
    }

    /// Runs one attack, natively or under gait.
    fn attack(&self, under_gait: bool, name: &str, words: &[&str]) -> Outcome {
        let program = probe("escape");
        let filled = self.fill(words);
        let mut line = vec![program.as_str(), name];
        line.extend(filled.iter().map(String::as_str));
        if under_gait { self.world.gait(&line) } else { self.world.native(&line) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        drop(self.outsider.kill());
        drop(self.outsider.wait());
    }
}

/// Tries an attack without gait and with it, each in a fresh arena, and returns what is wrong.
fn try_attack(
    name: &str,
    words: &[&str],
    native: Native,
    policy: Option<&str>,
    prepare: &dyn Fn(&World) -> Vec<Box<dyn std::any::Any>>,
) -> Option<String> {
    let expected = match native {
        Works => true,
        WorksForRoot => is_root(),
        Depends(_) => false,
    };
    let outside = Arena::new();
    let held = prepare(&outside.world);
    let outcome = outside.attack(false, name, words);
    drop(held);
    let worked = value(&outcome.stdout, "escaped") == Some("1");
    if expected && !worked {
        return Some(format!(
            "{name}: proves nothing, it fails without gait too: {} {}",
            outcome.stdout, outcome.stderr
        ));
    }
    if let (Depends(why), false) = (native, worked) {
        skipped(&format!("{name} without gait"), why);
    }

    let inside = Arena::new();
    inside.world.set_policy(&policy.unwrap_or(STANDARD).replace("${probes}", env!("CARGO_TARGET_TMPDIR")), 0);
    let held = prepare(&inside.world);
    let outcome = inside.attack(true, name, words);
    drop(held);
    match value(&outcome.stdout, "escaped") {
        Some("0") if outcome.code() == 0 => None,
        _ => {
            Some(format!("{name} {words:?}: exit {} {}\n{}", outcome.code(), outcome.stdout, outcome.stderr))
        }
    }
}

fn nothing(_: &World) -> Vec<Box<dyn std::any::Any>> {
    Vec::new()
}

fn try_all(
    attacks: &[(&str, &[&str], Native)],
    policy: Option<&str>,
    prepare: &dyn Fn(&World) -> Vec<Box<dyn std::any::Any>>,
) {
    let only = std::env::var("GAIT_ATTACK").unwrap_or_default();
    let failures: Vec<_> = attacks
        .iter()
        .filter(|(name, ..)| name.contains(&only))
        .filter_map(|(name, words, native)| try_attack(name, words, *native, policy, prepare))
        .collect();
    assert!(failures.is_empty(), "{} of {} attacks\n{}", failures.len(), attacks.len(), failures.join("\n"));
}

#[test]
fn no_path_trick_reads_the_secret() {
    let ws: &[&str] = &["${ws}"];
    let other: &[&str] = &["${ws}", "${outsider}", "0"];
    try_all(
        &[
            ("read_dotdot", ws, Works),
            ("read_symlink", ws, Works),
            ("read_symlinked_directory", ws, Works),
            ("read_symlink_chain", ws, Works),
            ("read_proc_root", ws, Works),
            ("read_proc_thread_root", ws, Works),
            ("read_proc_pid_root", ws, Works),
            ("read_proc_task_root", ws, Works),
            ("read_proc_cwd", ws, Works),
            ("read_other_root", other, Works),
            ("read_other_cwd", other, Works),
            ("read_other_fd", other, Works),
            ("read_fd_link", ws, Works),
            ("read_dev_fd", ws, Works),
            ("read_fd_directory_link", ws, Works),
            ("read_link_to_fd_link", ws, Works),
            ("read_directory_descriptor", ws, Works),
            ("read_directory_descriptor_up", ws, Works),
            ("read_after_chdir", ws, Works),
            ("read_after_fchdir", ws, Works),
            ("read_after_thread_chdir", ws, Works),
            ("read_in_root", ws, Works),
            ("read_by_handle", ws, WorksForRoot),
            ("read_long_path", ws, Works),
            ("read_page_crossing", ws, Works),
            ("read_not_utf8", ws, Works),
            ("read_hard_link", ws, Works),
            ("read_hard_link_of_descriptor", ws, Works),
            ("read_renamed_directory", ws, Works),
            ("read_exchanged_directory", ws, Works),
            ("read_after_filter", ws, Works),
            ("read_after_log_filter", ws, Works),
            ("read_undumpable", ws, Works),
            ("read_in_vfork_child", ws, Works),
            ("read_shared_table_child", ws, Works),
            ("read_passed_path_descriptor", ws, Works),
            ("read_unlinked_path_descriptor", ws, Works),
            ("read_replaced_path_descriptor", ws, Works),
            ("read_renamed_file", ws, Works),
            ("read_restricted_self", ws, Depends("a process that is not judged is itself")),
        ],
        None,
        &nothing,
    );
}

#[test]
fn no_foreign_abi_or_dirty_register_gets_through() {
    let ws: &[&str] = &["${ws}"];
    try_all(
        &[
            ("read_i386", ws, Depends("the kernel has no 32-bit emulation")),
            ("read_x32", ws, Depends("the kernel has no x32")),
            ("read_dirty_number", ws, Depends("the kernel compares the whole register")),
            ("unknown_numbers", &[], Depends("numbers that no kernel knows reach nothing")),
            ("write_dirty_flags", ws, Works),
        ],
        None,
        &nothing,
    );
}

#[test]
fn nothing_that_is_to_be_kept_can_be_changed() {
    let ws: &[&str] = &["${ws}"];
    try_all(
        &[
            ("write_reopened", ws, Works),
            ("write_dangling_symlink", ws, Works),
            ("write_tmpfile_link", ws, Works),
            ("write_exchange", ws, Works),
            ("write_exchange_back", ws, Works),
            ("write_rename_over", ws, Works),
            ("write_trailing_slash", ws, Works),
            ("write_through_linked_directory", ws, Works),
            ("write_chmod_descriptor", ws, Works),
            ("write_chmod_magic_link", ws, Works),
            ("write_chmod_empty_path", ws, Depends("fchmodat2 is of Linux 6.6")),
            ("write_chown_empty_path", ws, Works),
            ("write_attribute_descriptor", ws, Depends("the file system has no user attributes")),
            ("write_times_descriptor", ws, Works),
            ("write_inode_flags", ws, Depends("the file system has no inode flags")),
            ("write_inode_project", ws, Depends("the file system has no inode flags")),
            ("write_unlink_after_chdir", ws, Works),
            ("write_unlink_descriptor", ws, Works),
            ("write_unlink_magic_parent", ws, Works),
            ("write_truncate_magic_link", ws, Works),
            ("write_device_node", ws, WorksForRoot),
            ("write_creat_setuid", ws, Works),
        ],
        None,
        &nothing,
    );
}

/// A policy that says "not readable" about a file in a directory that may be written.
const NAMED_SECRET: &str = r#"
default_verdict: block
rules:
  - name: no-secrets
    priority: 10
    effect: block
    match: {endpoint_classes: [fs.read], paths: ["${ws}/secret", "${ws}/secret/**"]}
  - name: rest
    priority: 20
    effect: allow
    match: {endpoint_classes: [fs.read, fs.write, fs.delete, proc.exec]}
"#;

#[test]
fn a_new_name_does_not_make_a_secret_readable() {
    let ws: &[&str] = &["${ws}"];
    try_all(
        &[
            ("read_hard_link", ws, Works),
            ("read_hard_link_of_descriptor", ws, Works),
            ("read_renamed_directory", ws, Works),
            ("read_exchanged_directory", ws, Works),
            ("read_renamed_file", ws, Works),
            ("read_unlinked_path_descriptor", ws, Works),
            ("read_replaced_path_descriptor", ws, Works),
        ],
        Some(NAMED_SECRET),
        &nothing,
    );
}

#[test]
fn no_program_outside_the_granted_ones_runs() {
    let program: &[&str] = &["${ws}/keep/ran"];
    let with_room: &[&str] = &["${ws}/keep/ran", "${ws}/open/copy"];
    // Scripts may be run from here, so that only the end of the chain is wrong.
    let scripts: &[&str] = &["${ws}/keep/ran", "${ws}/open/scripts-"];
    let place = |world: &World| -> Vec<Box<dyn std::any::Any>> {
        fs::copy(probe("ran"), world.ws().join("keep/ran")).expect("a copied program");
        Vec::new()
    };
    try_all(
        &[
            ("exec_plain", program, Works),
            ("exec_vfork", program, Works),
            ("exec_thread", program, Works),
            ("exec_memfd", program, Works),
            ("exec_memfd_link", program, Works),
            ("exec_copy", with_room, Works),
            ("exec_loader", program, Depends("the loader has another name here")),
            ("exec_descriptor", program, Works),
            ("exec_magic_link", program, Works),
            ("exec_interpreter", with_room, Works),
            ("exec_interpreter_chain", scripts, Works),
            ("exec_without_arguments", program, Works),
        ],
        Some(PROGRAMS),
        &place,
    );
}

#[test]
fn no_program_in_a_blocked_place_runs() {
    // Nearly everything may be run, so no floor of the kernel's stands behind the judge.
    let program: &[&str] = &["${ws}/keep/ran"];
    let with_room: &[&str] = &["${ws}/keep/ran", "${ws}/open/copy"];
    let place = |world: &World| -> Vec<Box<dyn std::any::Any>> {
        fs::copy(probe("ran"), world.ws().join("keep/ran")).expect("a copied program");
        Vec::new()
    };
    try_all(
        &[
            ("exec_plain", program, Works),
            ("exec_vfork", program, Works),
            ("exec_thread", program, Works),
            ("exec_descriptor", program, Works),
            ("exec_magic_link", program, Works),
            ("exec_interpreter", with_room, Works),
            ("exec_interpreter_chain", with_room, Works),
            ("exec_without_arguments", program, Works),
        ],
        None,
        &place,
    );
}

#[test]
fn a_copied_loader_cannot_run_what_is_not_granted() {
    // The program is readable and not executable: only the loader could run it.
    let arena = Arena::new();
    let place = |world: &World| {
        let ran = world.ws().join("keep/ran");
        fs::copy(probe("ran"), &ran).expect("a copied program");
        fs::set_permissions(&ran, fs::Permissions::from_mode(0o644)).expect("a mode");
    };
    place(&arena.world);
    arena.world.set_policy(&PROGRAMS.replace("${probes}", env!("CARGO_TARGET_TMPDIR")), 0);
    let outcome = arena.attack(true, "exec_loader", &["${ws}/keep/ran"]);
    assert_eq!(value(&outcome.stdout, "escaped"), Some("0"), "{outcome:?}");
}

#[test]
fn no_process_outside_the_tree_can_be_reached() {
    let attacks: Vec<&str> = vec![
        "other_kill",
        "other_tgkill",
        "other_tkill",
        "other_sigqueue",
        "other_pidfd_signal",
        "other_proc_pidfd_signal",
        "other_group",
        "other_seize",
        "other_read",
        "other_memory",
        "other_environment",
        "other_descriptor",
        "other_limit",
        "other_priority",
        "other_affinity",
        "other_oom_score",
        "other_owner_signal",
        "other_owner_structure",
        "other_owner_thread",
        "other_owner_group",
        "other_owner_group_structure",
        "other_owner_request",
        "other_owner_old_request",
    ];
    let mut failures = Vec::new();
    for name in attacks {
        // Without gait: the sleeping process. Under gait: it, and whatever stands above the workload.
        failures.extend(try_attack(name, &["${outsider}"], Works, None, &nothing));
        for above in ["parent", "grandparent"] {
            let arena = Arena::new();
            let outcome = arena.attack(true, name, &[above]);
            if value(&outcome.stdout, "escaped") != Some("0") || outcome.code() != 0 {
                failures.push(format!(
                    "{name} {above}: exit {} {}\n{}",
                    outcome.code(),
                    outcome.stdout,
                    outcome.stderr
                ));
            }
        }
    }
    failures.extend(try_attack("everyone", &[], Works, None, &nothing));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_process_can_be_signalled_by_its_own_descriptors() {
    let arena = Arena::new();
    assert_eq!(count(&arena.attack(false, "own_owner", &[]), "escaped"), 1, "without gait");
    let outcome = arena.attack(true, "own_owner", &[]);
    assert_eq!(count(&outcome, "escaped"), 1, "{outcome:?}");
    outcome.expect_clean();
}

#[test]
fn a_trusting_policy_does_not_hand_out_other_processes() {
    let mut failures = Vec::new();
    for name in [
        "other_memory",
        "other_environment",
        "other_oom_score",
        "other_descriptor_links",
        "other_kill",
        "other_seize",
    ] {
        for victim in ["${outsider}", "parent", "grandparent"] {
            let arena = Arena::new();
            arena.world.set_policy(TRUSTING, 0);
            let outcome = arena.attack(true, name, &[victim]);
            if value(&outcome.stdout, "escaped") != Some("0") || outcome.code() != 0 {
                failures.push(format!(
                    "{name} {victim}: exit {} {}\n{}",
                    outcome.code(),
                    outcome.stdout,
                    outcome.stderr
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_host_queue_can_be_removed() {
    let world = World::new();
    let name = format!("gait-escape-{}", std::process::id());
    let program = probe("escape");
    let make = || count(&world.native(&[&program, "own_queue", "make", &name]), "escaped");
    if make() == 0 {
        return skipped("message queues", "the kernel has none");
    }
    let outcome = world.gait(&[&program, "own_queue", "remove", &name]);
    let still_there = count(&world.native(&[&program, "own_queue", "remove", &name]), "escaped");
    assert_eq!((count(&outcome, "escaped"), still_there), (0, 1), "{outcome:?}");
}

#[test]
fn no_system_v_object_of_somebody_else_is_reached() {
    let world = World::new();
    let program = probe("escape");
    let key = (0x6700_0000 + std::process::id()).to_string();
    let made = world.native(&[&program, "own_sysv", "make", &key]);
    let ids: Vec<String> =
        ["memory", "semaphores", "queue"].map(|kind| count(&made, kind).to_string()).into();
    let words = |what: &'static str| {
        let mut words = vec![program.as_str(), "own_sysv", what, &key];
        words.extend(ids.iter().map(String::as_str));
        words
    };
    let mut wrong = Vec::new();
    for what in ["find", "create", "attach", "list", "value", "receive", "remove"] {
        world.forget_runs();
        let outcome = world.gait(&words(what));
        if count(&outcome, "escaped") != 0 {
            wrong.push(format!("{what}: {outcome:?}"));
        }
        if what != "list" && Evidence::read(&world.runpack()).blocked().is_empty() {
            wrong.push(format!("{what} is not recorded"));
        }
        // Without gait it works, so what is above proves something. The last of them removes the objects.
        if count(&world.native(&words(what)), "escaped") != 1 {
            wrong.push(format!("{what} proves nothing"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_that_are_no_text_are_recorded_unmistakably() {
    let arena = Arena::new();
    arena.attack(true, "read_not_utf8", &["${ws}"]);
    let evidence = Evidence::read(&arena.world.runpack());
    let wanted = format!("block fs.read read {}", arena.world.at("secret/\\xff\\xfe"));
    assert!(evidence.has(&wanted), "{:?}", evidence.blocked());
}

#[test]
fn the_ground_cannot_be_changed() {
    try_all(
        &[
            ("own_listener", &[], Works),
            ("own_uring", &[], Depends("io_uring is switched off")),
            ("own_user_namespace", &[], Depends("user namespaces are switched off")),
            ("own_clone_namespace", &[], Depends("user namespaces are switched off")),
            ("own_clone3_namespace", &[], Depends("user namespaces are switched off")),
            ("own_setns", &[], WorksForRoot),
            ("own_userfault", &[], Depends("the kernel has no userfaultfd")),
            ("own_keyring", &[], Works),
            ("own_route", &[], WorksForRoot),
        ],
        None,
        &nothing,
    );
}

#[test]
fn no_terminal_of_somebody_else_is_opened() {
    use nix::fcntl::OFlag;
    // A terminal of the test's own stands for one that somebody sits at. The policy grants all of /dev/pts.
    let pty = nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    nix::pty::unlockpt(&pty).expect("a terminal");
    let name = nix::pty::ptsname_r(&pty).expect("a name");
    let other: &[&str] = &[&name];
    try_all(
        &[
            ("tty_write", other, Works),
            ("tty_read", other, Works),
            ("tty_dotdot", other, Works),
            ("tty_descriptor", other, Works),
        ],
        None,
        &nothing,
    );
    let evidence = {
        let arena = Arena::new();
        arena.attack(true, "tty_write", other);
        Evidence::read(&arena.world.runpack())
    };
    assert!(evidence.has("block fs.write write /dev/pts/[n]"), "{:?}", evidence.records);
    // One that the tree made itself is its own.
    let own = Arena::new().attack(true, "tty_own", &[]);
    assert_eq!(value(&own.stdout, "escaped"), Some("1"), "{own:?}");
}

#[test]
fn requests_that_reach_past_their_descriptor_are_refused() {
    try_all(
        &[
            (
                "tty_inject",
                &[],
                Depends("since Linux 6.2 for administrators only, where it is so configured"),
            ),
            ("tty_inject_dirty", &[], Depends("as above")),
            ("tty_discipline", &[], Works),
            ("file_version", &["${ws}/keep/file"], Depends("the file system has no versions")),
        ],
        None,
        &nothing,
    );
    for (attack, call) in [
        ("tty_inject", "ioctl:TIOCSTI"),
        ("tty_inject_dirty", "ioctl:TIOCSTI"),
        ("tty_discipline", "ioctl:TIOCSETD"),
    ] {
        let arena = Arena::new();
        arena.attack(true, attack, &[]);
        let evidence = Evidence::read(&arena.world.runpack());
        assert!(evidence.has(&format!("block other ground {call}")), "{attack}: {:?}", evidence.blocked());
    }
}

#[test]
fn no_packet_reaches_a_blocked_port() {
    let blocked = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = blocked.local_addr().expect("an address").port();
    let blocked_datagrams = UdpSocket::bind(("127.0.0.1", port)).expect("the same port");
    let granted = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let granted_port = granted.local_addr().expect("an address").port();
    blocked.set_nonblocking(true).expect("a socket");
    blocked_datagrams.set_nonblocking(true).expect("a socket");
    let (blocked_word, granted_word) = (port.to_string(), granted_port.to_string());
    let words: &[&str] = &[&blocked_word, &granted_word];
    let policy = STANDARD.replace("${port}", &granted_word);
    let empty = || while blocked.accept().is_ok() || blocked_datagrams.recv(&mut [0; 16]).is_ok() {};
    let mut failures = Vec::new();
    let attacks = [
        ("net_fast_open", Works),
        ("net_fast_open_message", Works),
        ("net_fast_open_connect", Works),
        ("net_mptcp", Depends("the kernel has no MPTCP")),
        ("net_second_message", Works),
        ("net_other_than_connected", Works),
        ("net_reconnected", Works),
        ("net_mapped", Depends("the kernel has no IPv6")),
        ("net_mapped_datagram", Depends("the kernel has no IPv6")),
        ("net_any_address", Works),
        ("net_long_address", Works),
        ("net_nonblocking", Works),
        ("net_family_unspec_v4", Depends("some kernels refuse the family")),
        ("net_passed_socket", Works),
    ];
    for (name, native) in attacks {
        failures.extend(try_attack(name, words, native, Some(&policy), &nothing));
        empty();
        // Once more under gait alone, to see with the receiver's eyes.
        let arena = Arena::new();
        arena.world.set_policy(&policy, 0);
        arena.attack(true, name, words);
        let silent = |kind: std::io::Error| kind.kind() == ErrorKind::WouldBlock;
        if !blocked.accept().map_err(silent).is_err_and(|quiet| quiet) {
            failures.push(format!("{name}: a connection arrived"));
        }
        if !blocked_datagrams.recv(&mut [0; 16]).map_err(silent).is_err_and(|quiet| quiet) {
            failures.push(format!("{name}: a datagram arrived"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_unix_socket_outside_the_granted_ones_is_reached() {
    let name = format!("gait-escape-{}", std::process::id());
    let abstract_word = format!("@{name}");
    let listen = move |world: &World| -> Vec<Box<dyn std::any::Any>> {
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        // The last attack's listener may live on for a moment in a child that another test has just forked.
        let mut listener = UnixListener::bind_addr(&address);
        eventually(Duration::from_secs(10), || {
            if listener.is_err() {
                listener = UnixListener::bind_addr(&address);
            }
            listener.is_ok()
        });
        vec![
            Box::new(UnixListener::bind(world.ws().join("keep/sock")).expect("a socket")),
            Box::new(UnixDatagram::bind(world.ws().join("keep/dgram")).expect("a socket")),
            Box::new(listener.expect("a socket")),
        ]
    };
    let ws: &[&str] = &["${ws}"];
    try_all(
        &[
            ("unix_symlink", ws, Works),
            ("unix_relative", ws, Works),
            ("unix_magic_link", ws, Works),
            ("unix_datagram", ws, Works),
            ("unix_datagram_message", ws, Works),
            ("unix_unterminated", ws, Works),
            ("unix_abstract", &[&abstract_word], Works),
        ],
        None,
        &listen,
    );
}

#[test]
fn inherited_descriptors_are_closed_unless_granted() {
    let run = |under_gait: bool, granted: bool| {
        let mut arena = Arena::new();
        if granted {
            arena.world.flags(["--inherit-fd", "7"]);
        }
        let program = probe("escape");
        let (words, script) = ([program.as_str(), "read_inherited", "7"], "exec \"$@\" 7<secret/file");
        if under_gait {
            arena.world.wrapper(["sh", "-c", script, "sh"]);
            count(&arena.world.gait(&words), "escaped")
        } else {
            count(&arena.world.native(&[&["sh", "-c", script, "sh"], &words[..]].concat()), "escaped")
        }
    };
    assert_eq!(run(false, false), 1, "without gait the descriptor is inherited");
    assert_eq!(run(true, false), 0, "gait closes it");
    assert_eq!(run(true, true), 1, "--inherit-fd keeps it");
}

/// Everything may be read, and everything in the workspace written, also where gait keeps its evidence.
const TRUSTING: &str = r#"
default_verdict: block
rules:
  - name: rest
    effect: allow
    match: {endpoint_classes: [fs.read, fs.write, fs.delete, proc.exec]}
"#;

#[test]
fn the_workload_cannot_touch_its_evidence() {
    let world = World::new();
    world.set_policy(TRUSTING, 0);
    let escape = probe("escape");
    // One shell does it all, because the run directory only exists while the session lasts.
    let script = format!(
        "run=$(echo {out}/run_*); test -d \"$run\" || exit 9\n\
         for f in \"$run\"/*; do for a in write truncate unlink rename; do {escape} own_evidence_$a \"$f\"; done; done\n\
         {escape} own_evidence_create \"$run/forged\"\n\
         {escape} own_evidence_create {out}/runpack_forged.zip\n\
         {escape} own_evidence_rename \"$run\"\n\
         {escape} own_evidence_rename {out}\n\
         {escape} own_evidence_write {policy}\n\
         {escape} own_evidence_unlink {policy}\n",
        out = world.out().display(),
        policy = world.root().join("policy.yaml").display(),
    );
    let outcome = world.gait(&["sh", "-c", &script]);
    outcome.expect_code(0);
    assert!(outcome.stdout.lines().count() > 8, "{outcome:?}");
    assert!(!outcome.stdout.contains("escaped=1"), "{}\n{}", outcome.stdout, outcome.stderr);
    assert!(world.out().is_dir());
    assert!(Evidence::read(&world.runpack()).records.iter().any(|record| record.verdict == "block"));
}

#[test]
fn the_workload_cannot_read_the_private_key() {
    let world = World::new();
    world.set_policy(TRUSTING, 0);
    world.gait(&["true"]).expect_code(0);
    // Whatever gait made under the home directory is its own.
    let listing = world.native(&[
        "find",
        world.root().join("home").to_str().expect("UTF-8"),
        "-type",
        "f",
        "-perm",
        "0600",
    ]);
    let keys: Vec<_> = listing.stdout.lines().collect();
    assert!(!keys.is_empty(), "gait made no private key under HOME\n{}", listing.stdout);
    let escape = probe("escape");
    for key in keys {
        for attack in ["read", "write", "unlink", "rename", "truncate"] {
            let outcome = world.gait(&[&escape, &format!("own_evidence_{attack}"), key]);
            assert_eq!(value(&outcome.stdout, "escaped"), Some("0"), "{attack} {key}: {outcome:?}");
        }
        let outcome = world.gait(&[&escape, "own_evidence_link", key, &world.at("open/key")]);
        assert_eq!(value(&outcome.stdout, "escaped"), Some("0"), "link {key}: {outcome:?}");
    }
}

#[test]
fn daemons_die_with_the_session() {
    let world = World::new();
    let outcome = world.gait(&[&probe("workload"), "daemons", "20"]);
    outcome.expect_code(0);
    world.assert_no_survivor(Duration::from_millis(500));
}
