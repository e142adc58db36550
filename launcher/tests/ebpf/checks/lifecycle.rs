//! Who is under control and since when, what is asked, and what stays when the loader is gone.

use std::fs;

use gait::kernel_programs::{LoadError, LoadOptions, Programs, remove_pins};
use gait_ebpf::layout::{event_flags, event_kind, session_flags, verdict};

use super::super::tables::{Policy, every};
use super::super::tree::{answer, open, run, start};
use super::{Check, EACCES, secret, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("outsiders_are_untouched", outsiders),
    ("holding", holding),
    ("simulation_blocks_nothing", simulation),
    ("pins_outlive_their_loader", pins),
];

fn outsiders(programs: &mut Programs) {
    let policy = secret();
    let tree = start(programs, &policy, Vec::new);
    assert_eq!(open("/tmp/t/secret/f", libc::O_RDONLY), 0);
    tree.go();
    let (_, told) = tree.end(programs);
    assert!(told.iter().all(|told| told.event.kind == event_kind::EMPTY), "{told:?}");
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
    let mut held = 0;
    answer(programs, &mut tree, |_told| {
        held += 1;
        if held == 2 { verdict::BLOCK } else { verdict::ALLOW }
    });
    let (results, _) = tree.end(programs);
    assert_eq!(results, [0, EACCES, 0]);
    assert_eq!(held, 3);
    fs::remove_file("/tmp/t/secret/new").unwrap();
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
