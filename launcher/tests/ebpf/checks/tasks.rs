//! Whatever way a task comes into being or changes, it stays under control.

use gait::kernel_programs::Programs;
use gait_ebpf::layout::event_kind;

use super::super::tree::{c, drain, open, start};
use super::{Check, EACCES, secret};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("children", children),
    ("children_of_raw_calls", raw),
    ("a_child_that_borrows_the_memory", borrowing),
    ("a_thread_that_executes_takes_its_process_over", thread_executes),
];

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

/// Ends this task with whether a blocked open was blocked.
fn end_after_a_try() -> ! {
    let blocked = open("/tmp/t/secret/f", libc::O_RDONLY) == EACCES;
    unsafe { libc::_exit(if blocked { 1 } else { 2 }) }
}

fn status_of(pid: i32) -> i32 {
    let mut status = 0;
    unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

/// Runs `act` in a session. Afterwards nobody may be left who is counted as a member.
fn run_to_the_last(programs: &mut Programs, act: impl FnOnce() -> Vec<i32>) -> Vec<i32> {
    let mut tree = start(programs, &secret(), act);
    tree.go();
    tree.reap();
    let empty = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        drain(&mut tree.ring).iter().any(|told| told.event.kind == event_kind::EMPTY)
    });
    assert!(empty, "the last member is gone and nobody said so");
    assert_eq!(programs.counters(&tree.session).unwrap().members, 0);
    tree.end(programs).0
}

/// clone(2) and clone3(2) with flags that the library does not use, and into namespaces of its own.
fn raw(programs: &mut Programs) {
    let results = run_to_the_last(programs, || {
        let signal = libc::c_long::from(libc::SIGCHLD);
        let flags = [
            0,
            libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SYSVSEM,
            libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET,
            libc::CLONE_NEWCGROUP | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC,
            libc::CLONE_PTRACE | libc::CLONE_UNTRACED,
        ];
        let mut results = Vec::new();
        for flags in flags.map(libc::c_long::from) {
            // Without a stack of its own the child goes on with a copy of this one, as after fork(2).
            let pid = unsafe { libc::syscall(libc::SYS_clone, flags | signal, 0, 0, 0, 0) };
            if pid == 0 {
                end_after_a_try();
            }
            results.push(status_of(i32::try_from(pid).unwrap()));
            let arguments = [flags.unsigned_abs(), 0, 0, 0, signal.unsigned_abs(), 0, 0, 0];
            let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
            if pid == 0 {
                end_after_a_try();
            }
            results.push(status_of(i32::try_from(pid).unwrap()));
        }
        results
    });
    assert_eq!(results, [1; 10]);
}

extern "C" fn try_and_end(_nothing: *mut libc::c_void) -> i32 {
    end_after_a_try()
}

/// As vfork(2): the parent waits while the child uses its memory, on a stack of its own here.
fn borrowing(programs: &mut Programs) {
    let results = run_to_the_last(programs, || {
        let mut stack = vec![0u64; 16 * 1024];
        let top = unsafe { stack.as_mut_ptr().add(stack.len()) }.cast();
        [libc::CLONE_VFORK, libc::CLONE_VFORK | libc::CLONE_FILES, 0]
            .map(|flags| {
                let flags = flags | libc::CLONE_VM | libc::SIGCHLD;
                status_of(unsafe { libc::clone(try_and_end, top, flags, std::ptr::null_mut()) })
            })
            .to_vec()
    });
    assert_eq!(results, [1; 3]);
}

/// The process's first thread is gone then, and its number belongs to the task that executed.
fn thread_executes(programs: &mut Programs) {
    let results = run_to_the_last(programs, || {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code =
                "cat /tmp/t/secret/f 2>/dev/null && exit 2; cat /tmp/t/pub/f >/dev/null || exit 3; exit 1";
            let words = [c("/bin/sh"), c("-c"), c(code)];
            let pointers = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
            let addresses = pointers.map(|pointer| pointer as usize);
            std::thread::spawn(move || {
                let pointers = addresses.map(|address| address as *const libc::c_char);
                unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
            });
            std::thread::sleep(std::time::Duration::from_secs(60));
            unsafe { libc::_exit(4) };
        }
        vec![status_of(pid)]
    });
    assert_eq!(results, [1]);
}
