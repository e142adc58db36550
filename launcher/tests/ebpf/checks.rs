//! The checks. Each returns normally, or panics.

use std::fs;

use gait::kernel_programs::{LoadError, LoadOptions, Programs, remove_pins};
use gait_ebpf::layout::{Grant, event_flags, event_kind, operation as op, session_flags, verdict};

use super::tables::{Policy, but, every};
use super::tree::{c, drain, open, result, run, start};

pub(crate) type Check = fn(&mut Programs);

pub(crate) const ALL: &[(&str, Check)] = &[
    ("outsiders_are_untouched", outsiders),
    ("opens", opens),
    ("names", names),
    ("links_and_ways_around", ways_around),
    ("identity", identity),
    ("too_deep_is_blocked", deep),
    ("holding", holding),
    ("children", children),
    ("the_ground", ground),
    ("simulation_blocks_nothing", simulation),
    ("nothing_gets_through_under_threads", threads),
    ("a_slow_reader_loses_nothing", slow_reader),
    ("a_rename_tells_both_names", rename),
    ("pins_outlive_their_loader", pins),
];

const EACCES: i32 = -libc::EACCES;
const EPERM: i32 = -libc::EPERM;

fn setup() {
    for directory in ["/tmp/t/pub/sub", "/tmp/t/secret/a/b", "/tmp/t/ro"] {
        fs::create_dir_all(directory).unwrap();
    }
    for file in ["/tmp/t/pub/f", "/tmp/t/secret/f", "/tmp/t/secret/a/b/g", "/tmp/t/ro/f"] {
        fs::write(file, "data").unwrap();
    }
}

fn secret() -> Policy {
    setup();
    let ro = but(every(verdict::BLOCK), &[op::READ, op::LIST], verdict::ALLOW);
    Policy::new(every(verdict::ALLOW))
        .rule("/tmp/t/ro", ro)
        .rule("/tmp/t/secret", every(verdict::BLOCK))
        .done()
}

fn outsiders(programs: &mut Programs) {
    let policy = secret();
    let tree = start(programs, &policy, Vec::new);
    assert_eq!(open("/tmp/t/secret/f", libc::O_RDONLY), 0);
    tree.go();
    let (_, told) = tree.end(programs);
    assert!(told.iter().all(|told| told.event.kind == event_kind::EMPTY), "{told:?}");
}

fn opens(programs: &mut Programs) {
    let (results, told) = run(programs, &secret(), || {
        vec![
            open("/tmp/t/pub/f", libc::O_RDWR),
            open("/tmp/t/secret/f", libc::O_RDONLY),
            open("/tmp/t/ro/f", libc::O_RDONLY),
            open("/tmp/t/ro/f", libc::O_WRONLY),
            open("/tmp/t/ro/new", libc::O_WRONLY | libc::O_CREAT),
            open("/tmp/t/pub/new", libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
            open("/tmp/t/pub/new", libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
            open("/tmp/t/pub", libc::O_RDONLY | libc::O_DIRECTORY),
            open("/tmp/t/pub", libc::O_RDWR | libc::O_TMPFILE),
        ]
    });
    assert_eq!(results, [0, EACCES, 0, EACCES, EACCES, 0, 0, 0, 0]);
    let seen: Vec<_> = told
        .iter()
        .filter(|told| told.event.kind == event_kind::ACTION)
        .map(|told| (told.first.as_str(), told.event.operations, told.event.verdict))
        .collect();
    let bits = |operations: &[u32]| operations.iter().fold(0, |bits, operation| bits | 1 << operation);
    assert_eq!(
        seen,
        [
            ("/tmp/t/pub/f", bits(&[op::READ, op::WRITE]), verdict::ALLOW),
            ("/tmp/t/secret/f", bits(&[op::READ]), verdict::BLOCK),
            ("/tmp/t/ro/f", bits(&[op::READ]), verdict::ALLOW),
            ("/tmp/t/ro/f", bits(&[op::WRITE]), verdict::BLOCK),
            ("/tmp/t/ro/new", bits(&[op::CREATE]), verdict::BLOCK),
            ("/tmp/t/pub/new", bits(&[op::CREATE]), verdict::ALLOW),
            ("/tmp/t/pub/new", bits(&[op::WRITE, op::TRUNCATE]), verdict::ALLOW),
            ("/tmp/t/pub", bits(&[op::LIST]), verdict::ALLOW),
            ("/tmp/t/pub", bits(&[op::CREATE]), verdict::ALLOW),
        ]
    );
}

fn names(programs: &mut Programs) {
    let act = |directory: &'static str| {
        move || {
            let at = |name: &str| c(&format!("{directory}/{name}"));
            // SAFETY (all below): NUL-terminated paths.
            vec![
                result(unsafe { libc::mkdir(at("d").as_ptr(), 0o755) }),
                result(unsafe { libc::symlink(c("x").as_ptr(), at("s").as_ptr()) }),
                result(unsafe { libc::mkfifo(at("p").as_ptr(), 0o644) }),
                result(unsafe { libc::link(at("f").as_ptr(), at("l").as_ptr()) }),
                result(unsafe { libc::rename(at("f").as_ptr(), at("f2").as_ptr()) }),
                result(unsafe { libc::rename(at("f2").as_ptr(), at("f").as_ptr()) }),
                result(unsafe { libc::chmod(at("f").as_ptr(), 0o600) }),
                result(unsafe { libc::chown(at("f").as_ptr(), 0, 0) }),
                result(unsafe { libc::truncate(at("f").as_ptr(), 0) }),
                result(unsafe { libc::mknod(at("dev").as_ptr(), libc::S_IFCHR | 0o600, 0x103) }),
                result(unsafe { libc::unlink(at("f").as_ptr()) }),
                result(unsafe { libc::rmdir(at("sub").as_ptr()) }),
            ]
        }
    };
    let (results, _) = run(programs, &secret(), act("/tmp/t/pub"));
    assert_eq!(results, [0, 0, 0, 0, 0, 0, 0, 0, EACCES, EACCES, 0, 0]);
    fs::create_dir_all("/tmp/t/secret/sub").unwrap();
    let enoent = -libc::ENOENT;
    let (results, _) = run(programs, &secret(), act("/tmp/t/secret"));
    assert_eq!(
        results,
        [EACCES, EACCES, EACCES, EACCES, EACCES, enoent, EACCES, EACCES, EACCES, EACCES, EACCES, EACCES]
    );
    for path in ["/tmp/t/pub/d", "/tmp/t/pub/s", "/tmp/t/pub/p", "/tmp/t/pub/l"] {
        fs::remove_file(path).or_else(|_error| fs::remove_dir(path)).unwrap();
    }
}

fn mount(from: &str, to: &str, kind: &str, flags: libc::c_ulong) {
    // SAFETY: NUL-terminated texts.
    let mounted =
        unsafe { libc::mount(c(from).as_ptr(), c(to).as_ptr(), c(kind).as_ptr(), flags, std::ptr::null()) };
    assert_eq!(result(mounted), 0);
}

fn ways_around(programs: &mut Programs) {
    setup();
    for link in ["/tmp/t/pub/link", "/tmp/t/pub/hard"] {
        fs::remove_file(link).unwrap_or_default();
    }
    std::os::unix::fs::symlink("/tmp/t/secret/f", "/tmp/t/pub/link").unwrap();
    let (results, _) = run(programs, &secret(), || {
        // SAFETY: a NUL-terminated path.
        let fd = unsafe { libc::open(c("/tmp/t/secret/f").as_ptr(), libc::O_PATH) };
        vec![
            open("/tmp/t/pub/link", libc::O_RDONLY),
            open("/tmp/t/pub/../secret/f", libc::O_RDONLY),
            open("/proc/self/root/tmp/t/secret/f", libc::O_RDONLY),
            open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY),
            // SAFETY: NUL-terminated paths.
            result(unsafe { libc::link(c("/tmp/t/secret/f").as_ptr(), c("/tmp/t/pub/hard").as_ptr()) }),
            result(unsafe { libc::rename(c("/tmp/t/secret").as_ptr(), c("/tmp/t/pub/x").as_ptr()) }),
            result(unsafe { libc::chroot(c("/tmp/t").as_ptr()) }),
        ]
    });
    assert_eq!(results, [EACCES, EACCES, EACCES, EACCES, EACCES, EACCES, EPERM]);
}

fn identity(programs: &mut Programs) {
    let policy = secret();
    // Renamed by an outsider, after the policy was made.
    fs::rename("/tmp/t/secret", "/tmp/t/pub/moved").unwrap();
    let (results, told) = run(programs, &policy, || vec![open("/tmp/t/pub/moved/a/b/g", libc::O_RDONLY)]);
    fs::rename("/tmp/t/pub/moved", "/tmp/t/secret").unwrap();
    assert_eq!(results, [EACCES]);
    let event = told[0].event;
    assert_eq!((event.flags, event.identity, event.identity_depth), (event_flags::IDENTITY, 1, 3));
    // A bind mount of what lies below it: nothing of the path, nor of the mount's own files, is named by a rule.
    fs::create_dir_all("/tmp/t/bind").unwrap();
    mount("/tmp/t/secret/a", "/tmp/t/bind", "", libc::MS_BIND);
    let (results, told) = run(programs, &policy, || vec![open("/tmp/t/bind/b/g", libc::O_RDONLY)]);
    // SAFETY: a NUL-terminated path.
    unsafe { libc::umount(c("/tmp/t/bind").as_ptr()) };
    assert_eq!(results, [EACCES]);
    let event = told[0].event;
    assert_eq!((event.flags, event.identity_depth, event.first_hidden), (event_flags::IDENTITY, 2, 2));
    assert_eq!(told[0].first, "/tmp/t/bind/b/g");
    // A file system mounted below it.
    mount("none", "/tmp/t/secret/a", "tmpfs", 0);
    fs::write("/tmp/t/secret/a/on", "x").unwrap();
    let (results, _) = run(programs, &policy, || vec![open("/tmp/t/secret/a/on", libc::O_RDONLY)]);
    // SAFETY: a NUL-terminated path.
    unsafe { libc::umount(c("/tmp/t/secret/a").as_ptr()) };
    assert_eq!(results, [EACCES]);
}

fn deep(programs: &mut Programs) {
    let policy = secret();
    let path = format!("/tmp/t/pub{}", "/d".repeat(70));
    fs::create_dir_all(&path).unwrap();
    let shallow = format!("/tmp/t/pub{}", "/d".repeat(50));
    let long = format!("/tmp/t/pub/{}", "n".repeat(255));
    let (results, told) = run(programs, &policy, || {
        vec![
            open(&shallow, libc::O_RDONLY),
            open(&path, libc::O_RDONLY),
            open(&long, libc::O_RDWR | libc::O_CREAT),
            open(&long, libc::O_RDONLY),
        ]
    });
    fs::remove_dir_all("/tmp/t/pub/d").unwrap();
    assert_eq!(results, [0, EACCES, 0, 0]);
    assert_eq!(told[1].event.flags, event_flags::TOO_LONG);
    assert_eq!(told[3].first, long);
}

fn holding(programs: &mut Programs) {
    setup();
    let policy = Policy::new(every(verdict::ALLOW)).rule("/tmp/t/secret", every(verdict::HOLD)).done();
    let mut tree = start(programs, &policy, || {
        vec![
            open("/tmp/t/secret/f", libc::O_RDONLY),
            open("/tmp/t/secret/f", libc::O_RDWR),
            open("/tmp/t/secret/new", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL),
        ]
    });
    tree.go();
    let mut held = 0;
    while !tree.is_done() {
        for told in drain(&mut tree.ring) {
            if told.event.kind != event_kind::HOLD {
                continue;
            }
            let answer = if held == 1 { verdict::BLOCK } else { verdict::ALLOW };
            held += 1;
            let grant = Grant {
                object: told.event.object,
                second: told.event.second,
                until: 0,
                operations: told.event.operations,
                verdict: u32::from(answer),
            };
            programs.grant(&tree.session, told.event.tid, grant, std::time::Duration::from_secs(60)).unwrap();
            let stat = format!("/proc/{}/stat", told.event.tid);
            while !fs::read_to_string(&stat).unwrap().contains(") T ") {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            // SAFETY: our own child.
            unsafe { libc::kill(tree.pid, libc::SIGCONT) };
        }
    }
    let (results, _) = tree.end(programs);
    assert_eq!(results, [0, EACCES, 0]);
    assert_eq!(held, 3);
    fs::remove_file("/tmp/t/secret/new").unwrap();
}

fn children(programs: &mut Programs) {
    let mut tree = start(programs, &secret(), || {
        let thread = std::thread::spawn(|| open("/tmp/t/secret/f", libc::O_RDONLY)).join().unwrap();
        let mut results = vec![thread];
        for way in 0..3 {
            // SAFETY: the child makes system calls only.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                if way == 1 {
                    // SAFETY: no arguments.
                    unsafe { libc::setsid() };
                }
                // SAFETY: as above; the grandchild is reparented.
                if way == 2 && unsafe { libc::fork() } != 0 {
                    let mut status = 0;
                    // SAFETY: one integer.
                    unsafe { libc::wait(&raw mut status) };
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(libc::WEXITSTATUS(status)) };
                }
                let blocked = open("/tmp/t/secret/f", libc::O_RDONLY) == EACCES;
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(blocked)) };
            }
            let mut status = 0;
            // SAFETY: one integer.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            results.push(libc::WEXITSTATUS(status));
        }
        let shell =
            std::process::Command::new("/bin/sh").args(["-c", "cat /tmp/t/secret/f"]).output().unwrap();
        results.push(i32::from(shell.status.success()));
        results
    });
    tree.go();
    let mut told = Vec::new();
    // The kernel frees a task some time after its parent has asked for its status.
    tree.reap();
    for _ in 0..1000 {
        told.extend(drain(&mut tree.ring));
        if told.last().is_some_and(|told| told.event.kind == event_kind::EMPTY) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(told.last().unwrap().event.kind, event_kind::EMPTY);
    assert_eq!(programs.counters(&tree.session).unwrap().members, 0);
    let (results, _) = tree.end(programs);
    assert_eq!(results, [EACCES, 1, 1, 1, 0]);
    let images: Vec<_> = told
        .iter()
        .filter(|told| told.event.kind == event_kind::IMAGE)
        .map(|told| told.event.image)
        .collect();
    assert!(!images.is_empty() && images.windows(2).all(|pair| pair[0] < pair[1]), "{images:?}");
}

fn ground(programs: &mut Programs) {
    let own = std::process::id().cast_signed();
    let (results, _) = run(programs, &secret(), move || {
        // SAFETY (all below): plain integers and NUL-terminated paths.
        vec![
            result(unsafe { libc::kill(own, 0) }),
            result(unsafe { libc::unshare(libc::CLONE_NEWUSER) }),
            result(
                i32::try_from(unsafe { libc::syscall(libc::SYS_bpf, 0, [0u64; 16].as_ptr(), 128) }).unwrap(),
            ),
            result(unsafe { libc::umount(c("/proc").as_ptr()) }),
            open("/proc/sys/kernel/core_pattern", libc::O_WRONLY),
            open("/sys/fs/cgroup/cgroup.procs", libc::O_WRONLY),
            open("/proc/self/comm", libc::O_WRONLY),
        ]
    });
    assert_eq!(results, [EPERM, EPERM, EPERM, EPERM, EACCES, EACCES, 0]);
}

fn simulation(programs: &mut Programs) {
    let mut policy = secret();
    policy.flags = session_flags::SIMULATE;
    let (results, told) = run(programs, &policy, || {
        vec![open("/tmp/t/secret/f", libc::O_RDONLY), open("/tmp/t/ro/f", libc::O_RDWR)]
    });
    assert_eq!(results, [0, 0]);
    assert!(
        told[..2].iter().all(|told| {
            (told.event.flags, told.event.verdict) == (event_flags::SIMULATED, verdict::BLOCK)
        })
    );
}

/// Eight threads that open what is blocked, and tasks that come and go beside them: with preempt=full a lookup in task
/// storage failed here on 6.1.
fn threads(programs: &mut Programs) {
    let opens = std::env::var("GAIT_OPENS").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000);
    let silent = Policy::new(every(verdict::SILENT)).rule("/tmp/t/secret", every(verdict::BLOCK)).done();
    setup();
    let mut tree = start(programs, &silent, move || {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    (0..opens / 8).filter(|_| open("/tmp/t/secret/f", libc::O_RDONLY) != EACCES).count()
                })
            })
            .collect();
        let through: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        vec![i32::try_from(through).unwrap()]
    });
    tree.go();
    let mut told = 0;
    while !tree.is_done() {
        told += tree.serve();
    }
    told += tree.serve();
    let lost = programs.counters(&tree.session).unwrap().lost;
    let (results, _) = tree.end(programs);
    assert_eq!((results, lost), (vec![0], 0));
    assert_eq!(told, opens / 8 * 8);
}

/// The ring fills up while nobody reads: the process is stopped, nothing is lost, nothing fails.
fn slow_reader(programs: &mut Programs) {
    let opens = std::env::var("GAIT_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(150_000);
    let policy = secret();
    let mut tree = start(programs, &policy, move || {
        let failed = (0..opens).filter(|_| open("/tmp/t/pub/f", libc::O_RDONLY) != 0).count();
        vec![i32::try_from(failed).unwrap()]
    });
    tree.go();
    let (mut told, mut pauses) = (0, 0);
    while !tree.is_done() {
        if tree.is_stopped() {
            pauses += 1;
            told += tree.serve();
        }
    }
    told += tree.serve();
    let lost = programs.counters(&tree.session).unwrap().lost;
    let (results, _) = tree.end(programs);
    assert_eq!((results, lost), (vec![0], 0));
    assert!(pauses > 0);
    assert_eq!(told, opens);
}

fn rename(programs: &mut Programs) {
    let policy = secret();
    let (results, told) = run(programs, &policy, || {
        vec![
            result(unsafe { libc::rename(c("/tmp/t/pub/f").as_ptr(), c("/tmp/t/pub/sub/g").as_ptr()) }),
            result(unsafe { libc::rename(c("/tmp/t/pub/sub/g").as_ptr(), c("/tmp/t/secret/g").as_ptr()) }),
        ]
    });
    assert_eq!(results, [0, EACCES]);
    let seen: Vec<_> = told[..2].iter().map(|told| (told.first.as_str(), told.second.as_str())).collect();
    assert_eq!(seen, [("/tmp/t/pub/f", "/tmp/t/pub/sub/g"), ("/tmp/t/pub/sub/g", "/tmp/t/secret/g")]);
    let bits = (1 << op::RENAME_OLD, 1 << op::RENAME_NEW);
    assert_eq!((told[0].event.operations, told[0].event.second_operations), bits);
}

/// A loader that is gone: what it attached stays while it is pinned, and ends with the pins.
fn pins(_programs: &mut Programs) {
    let policy = secret();
    let (mut go, mut out) = ([0; 2], [0; 2]);
    assert_eq!(unsafe { libc::pipe(go.as_mut_ptr()) + libc::pipe(out.as_mut_ptr()) }, 0);
    let loader = unsafe { libc::fork() };
    if loader == 0 {
        let member = unsafe { libc::fork() };
        if member == 0 {
            let mut byte = [0u8; 1];
            // One byte for each try.
            while unsafe { libc::read(go[0], byte.as_mut_ptr().cast(), 1) } == 1 {
                let answer = open("/tmp/t/secret/f", libc::O_RDONLY).to_ne_bytes();
                unsafe { libc::write(out[1], answer.as_ptr().cast(), 4) };
            }
            unsafe { libc::_exit(0) };
        }
        let options = LoadOptions { pin: Some("test".to_owned()), ..LoadOptions::default() };
        let mut programs = Programs::load(&options).unwrap();
        assert!(matches!(Programs::load(&options), Err(LoadError::PinsExist { .. })));
        let session = programs.open_session(&policy.tables()).unwrap();
        programs.seed(&session, member.unsigned_abs(), 0).unwrap();
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    unsafe { libc::waitpid(loader, std::ptr::null_mut(), 0) };
    let ask = || {
        let mut answer = [0u8; 4];
        unsafe { libc::write(go[1], b"x".as_ptr().cast(), 1) };
        assert_eq!(unsafe { libc::read(out[0], answer.as_mut_ptr().cast(), 4) }, 4);
        i32::from_ne_bytes(answer)
    };
    assert_eq!(ask(), EACCES);
    remove_pins("test").unwrap();
    let free = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        ask() == 0
    });
    assert!(free, "still attached");
    assert!(!fs::exists("/sys/fs/bpf/gait/test").unwrap());
}
