//! Where there is no room: in the ring, among the members.

use gait::kernel_programs::{LoadError, NamedPath, Programs};
use gait_ebpf::layout::{event_kind, session_flags, verdict};

use super::super::tables::{Policy, every};
use super::super::tree::{Tree, drain, open, run, start};
use super::{Check, EACCES, secret, setup};

/// Tasks that there is room for in the second half of the checks.
pub(crate) const MEMBERS: u32 = 12;
/// Bytes of a ring there.
pub(crate) const RING_BYTES: u32 = 1 << 15;

pub(super) const ROOMY: &[(&str, Check)] = &[("a_slow_reader_loses_nothing", slow_reader)];
pub(super) const CRAMPED: &[(&str, Check)] = &[
    ("threads_are_stopped_while_the_ring_is_full", pausing),
    ("what_cannot_be_told_is_blocked_and_counted", overflow),
    ("a_task_without_room_is_not_made", full),
    ("names_without_room_leave_nothing_behind", names),
];

/// Reads only while the process is stopped. Nothing may go wrong in it, and nothing be lost. Returns how many events there
/// were, and how often it was stopped.
fn read_when_stopped(programs: &mut Programs, mut tree: Tree) -> (usize, usize) {
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
    (told, pauses)
}

/// The ring fills up while nobody reads: the process is stopped, nothing is lost, nothing fails.
fn slow_reader(programs: &mut Programs) {
    let opens = std::env::var("GAIT_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(150_000);
    let policy = secret();
    let tree = start(programs, &policy, move || {
        let failed = (0..opens).filter(|_| open("/tmp/t/pub/f", libc::O_RDONLY) != 0).count();
        vec![i32::try_from(failed).unwrap()]
    });
    let (told, pauses) = read_when_stopped(programs, tree);
    assert!(pauses > 0);
    assert_eq!(told, opens);
}

/// As above, by several threads: the stop of one is that of all, and each makes its call again.
fn pausing(programs: &mut Programs) {
    const THREADS: usize = 4;
    const OPENS: usize = 1000;
    let policy = secret();
    let tree = start(programs, &policy, move || {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let path = if number % 2 == 0 { "/tmp/t/pub/f" } else { "/tmp/t/secret/f" };
                let wanted = if number % 2 == 0 { 0 } else { EACCES };
                std::thread::spawn(move || {
                    (0..OPENS).filter(|_| open(path, libc::O_RDONLY) != wanted).count()
                })
            })
            .collect();
        let wrong: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        vec![i32::try_from(wrong).unwrap()]
    });
    let (told, pauses) = read_when_stopped(programs, tree);
    assert!(pauses > 1, "the ring was never full");
    assert_eq!(told, THREADS * OPENS);
}

/// A session that names too much is not made, and what it named is not taken for what the next one names.
fn names(programs: &mut Programs) {
    let policy = secret();
    let mut tables = policy.tables();
    let places: Vec<_> = (0..20_000)
        .map(|descriptor| NamedPath { descriptor, state: tables.paths, name: descriptor })
        .collect();
    tables.identities = &places;
    let refused = programs.open_session(&tables).unwrap_err();
    assert!(matches!(refused, LoadError::Full { .. }), "{refused}");
    // The descriptors of this one are among those numbers.
    let (results, _) = run(programs, &policy, || vec![open("/tmp/t/secret/f", libc::O_RDONLY)]);
    assert_eq!(results, [EACCES]);
}

/// Mapping cannot be made again, so nothing keeps the ring from being really full.
fn overflow(programs: &mut Programs) {
    const TRIES: i32 = 1000;
    setup();
    let mut policy = Policy::new(every(verdict::ALLOW)).done();
    policy.flags = session_flags::MMAP_EXEC;
    let file = std::fs::File::open("/tmp/t/pub/f").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let mut tree = start(programs, &policy, move || {
        let mut results = vec![0; 2];
        for _ in 0..TRIES {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE, fd, 0) };
            results[usize::from(at == libc::MAP_FAILED)] += 1;
        }
        results
    });
    tree.go();
    while !tree.is_done() {}
    let told = drain(&mut tree.ring);
    let told = told.iter().filter(|told| told.event.kind == event_kind::ACTION).count();
    let lost = programs.counters(&tree.session).unwrap().lost;
    let (results, _) = tree.end(programs);
    assert_eq!(results[0] + results[1], TRIES);
    assert_eq!((usize::try_from(results[0]).unwrap(), u64::try_from(results[1]).unwrap()), (told, lost));
    assert!(told > 0 && lost > 0, "{told} told, {lost} lost");
}

/// Processes and threads are made until there is no room: each that was made is under control, and the rest is counted.
fn full(programs: &mut Programs) {
    let mut tree = start(programs, &secret(), || {
        let (mut made, mut refused, mut blocked) = (0, 0, 0);
        let mut wait = [0; 2];
        assert_eq!(unsafe { libc::pipe(wait.as_mut_ptr()) }, 0);
        for _ in 0..2 * MEMBERS {
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let tried = open("/tmp/t/secret/f", libc::O_RDONLY);
                let mut byte = [0u8; 1];
                unsafe { libc::close(wait[1]) };
                unsafe { libc::read(wait[0], byte.as_mut_ptr().cast(), 1) };
                unsafe { libc::_exit(i32::from(tried == EACCES)) };
            }
            made += i32::from(pid > 0);
            refused += i32::from(pid < 0 && super::super::tree::result(-1) == -libc::EAGAIN);
        }
        let thread = std::thread::Builder::new().spawn(|| ());
        let thread = thread.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
        unsafe { libc::close(wait[1]) };
        for _ in 0..made {
            let mut status = 0;
            unsafe { libc::wait(&raw mut status) };
            blocked += libc::WEXITSTATUS(status);
        }
        vec![made, refused, blocked, thread]
    });
    tree.go();
    while !tree.is_done() {
        tree.serve();
    }
    let counters = programs.counters(&tree.session).unwrap();
    let (results, _) = tree.end(programs);
    let room = i32::try_from(MEMBERS).unwrap();
    // Itself takes one place; tasks of the checks before may still be on their way out.
    assert!(results[0] > 0 && results[0] < room, "{results:?}");
    assert_eq!(results[0] + results[1], 2 * room);
    assert_eq!(results[2], results[0], "a child that was not under control");
    assert_eq!(results[3], libc::EAGAIN);
    assert_eq!(counters.forks_refused, u64::try_from(results[1]).unwrap() + 1);
}
