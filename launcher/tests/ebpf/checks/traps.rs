//! Traps that kernels have set for programs like these. Each is a check by the name of what went wrong once.

use std::fs;

use gait::kernel_programs::Programs;
use gait_ebpf::layout::verdict;

use super::super::tables::{Policy, every};
use super::super::tree::{c, open, result, run, start};
use super::{Check, EACCES, secret, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_loop_is_verified_for_every_turn", every_turn),
    ("a_dentry_may_have_no_inode", no_inode),
    ("members_are_found_while_tasks_are_preempted", preempted),
];

/// Linux 6.1 verifies the callback of a loop with the values of the first turn and drops the branches that those do not
/// take: what was asked of the second component and later ones was never asked.
fn every_turn(programs: &mut Programs) {
    const DEPTH: usize = 12;
    setup();
    let deepest = (0..DEPTH).fold("/tmp/t/turns".to_owned(), |path, at| format!("{path}/n{at}"));
    fs::create_dir_all(&deepest).unwrap();
    fs::write(format!("{deepest}/f"), "x").unwrap();
    // The component that decides lies as far above the file as there are turns; once by its name, once by what it is.
    for turn in 0..DEPTH {
        let named = (0..=turn).fold("/tmp/t/turns".to_owned(), |path, at| format!("{path}/n{at}"));
        let policy = Policy::new(every(verdict::SILENT)).rule(&named, every(verdict::BLOCK)).done();
        let path = format!("{deepest}/f");
        let above = named.rsplit_once('/').unwrap().0.to_owned();
        let (results, _) =
            run(programs, &policy, || vec![open(&path, libc::O_RDONLY), open(&above, libc::O_RDONLY)]);
        assert_eq!(results, [EACCES, 0], "by name, {named}");
        let moved = format!("{above}/moved");
        fs::rename(&named, &moved).unwrap();
        let path = path.replace(&named, &moved);
        let (results, _) =
            run(programs, &policy, || vec![open(&path, libc::O_RDONLY), open(&above, libc::O_RDONLY)]);
        fs::rename(&moved, &named).unwrap();
        assert_eq!(results, [EACCES, 0], "by identity, {named}");
    }
}

/// Linux 6.12 takes the inode of a dentry that came as an argument for never NULL: the test for that was dropped, and the
/// kernel died of a name that did not exist yet. Memory without a file comes to its hook without one too.
fn no_inode(programs: &mut Programs) {
    let policy = secret();
    let (results, _) = run(programs, &policy, || {
        let at = |name: &str| c(&format!("/tmp/t/pub/{name}"));
        let map = |protection| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) }
        };
        let executable = map(libc::PROT_READ | libc::PROT_EXEC);
        let plain = map(libc::PROT_READ);
        vec![
            open("/tmp/t/pub/born", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL),
            result(unsafe { libc::mkdir(at("born-d").as_ptr(), 0o755) }),
            result(unsafe { libc::mkfifo(at("born-p").as_ptr(), 0o644) }),
            result(unsafe { libc::symlink(c("x").as_ptr(), at("born-s").as_ptr()) }),
            result(unsafe { libc::link(at("f").as_ptr(), at("born-l").as_ptr()) }),
            result(unsafe { libc::rename(at("born").as_ptr(), at("born-n").as_ptr()) }),
            open("/tmp/t/pub/absent", libc::O_RDONLY),
            result(unsafe { libc::unlink(at("absent").as_ptr()) }),
            result(unsafe { libc::rename(at("absent").as_ptr(), at("other").as_ptr()) }),
            i32::from(executable == libc::MAP_FAILED),
            result(unsafe { libc::mprotect(plain, 4096, libc::PROT_READ | libc::PROT_EXEC) }),
        ]
    });
    let absent = -libc::ENOENT;
    assert_eq!(results, [0, 0, 0, 0, 0, 0, absent, absent, absent, 0, 0]);
    fs::remove_dir("/tmp/t/pub/born-d").unwrap();
    for name in ["born-p", "born-s", "born-l", "born-n"] {
        fs::remove_file(format!("/tmp/t/pub/{name}")).unwrap();
    }
}

/// On Linux 6.1 with preempt=full a lookup in task storage fails while another task is in the middle of one: members were
/// taken for strangers. Eight threads open what is blocked, and tasks come and go beside them.
fn preempted(programs: &mut Programs) {
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
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let watched = done.clone();
        let beside = std::thread::spawn(move || {
            while !watched.load(std::sync::atomic::Ordering::Relaxed) {
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    unsafe { libc::_exit(0) };
                }
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
        });
        let through: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        beside.join().unwrap();
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
