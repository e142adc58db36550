//! Renaming: both names are judged and told.

use std::fs;

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{event_flags, event_kind, operation as op, verdict};

use super::super::tables::{Policy, but, every};
use super::super::tree::{c, result, run};
use super::{Check, EACCES, bits, secret, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_rename_tells_both_names", rename),
    ("an_exchange_is_two_renames_over", exchange),
    ("what_may_not_be_read_is_not_renamed", unreadable),
    ("no_whiteout_is_left", whiteout),
];

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
    let operations = (bits(&[op::RENAME_OLD]), bits(&[op::RENAME_NEW]));
    assert_eq!((told[0].event.operations, told[0].event.second_operations), operations);
}

fn rename_with(old: &str, new: &str, flags: libc::c_uint) -> i32 {
    let at = libc::AT_FDCWD;
    result(unsafe { libc::renameat2(at, c(old).as_ptr(), at, c(new).as_ptr(), flags) })
}

fn exchange(programs: &mut Programs) {
    let policy = secret();
    fs::write("/tmp/t/pub/g", "g").unwrap();
    let (results, told) = run(programs, &policy, || {
        let with = libc::RENAME_EXCHANGE;
        vec![
            rename_with("/tmp/t/pub/f", "/tmp/t/pub/g", with),
            rename_with("/tmp/t/pub/f", "/tmp/t/secret/f", with),
            rename_with("/tmp/t/secret/f", "/tmp/t/pub/f", with),
            rename_with("/tmp/t/pub/f", "/tmp/t/ro/f", with),
        ]
    });
    assert_eq!(results, [0, EACCES, EACCES, EACCES]);
    assert_eq!(fs::read("/tmp/t/pub/f").unwrap(), b"g");
    assert_eq!(fs::read("/tmp/t/secret/f").unwrap(), b"data");
    let both = bits(&[op::RENAME_NEW, op::RENAME_OVER]);
    let event = told[0].event;
    assert_eq!((event.operations, event.second_operations, event.verdict), (both, both, verdict::ALLOW));
    // The secret one is blocked because it may not be read, the last one because it may not be changed.
    let read = bits(&[op::READ]);
    let seen: Vec<_> = told[1..]
        .iter()
        .filter(|told| told.event.kind == event_kind::ACTION)
        .map(|told| (told.event.operations, told.event.second_operations, told.event.verdict))
        .collect();
    assert_eq!(seen, [(0, read, verdict::BLOCK), (read, 0, verdict::BLOCK), (both, both, verdict::BLOCK)]);
}

fn unreadable(programs: &mut Programs) {
    setup();
    // Everything but reading and listing.
    let word = but(every(verdict::ALLOW), &[op::READ, op::LIST], verdict::BLOCK);
    let policy = Policy::new(every(verdict::ALLOW)).rule("/tmp/t/secret", word).done();
    let (results, told) = run(programs, &policy, || {
        vec![
            rename_with("/tmp/t/secret/f", "/tmp/t/pub/out", 0),
            rename_with("/tmp/t/secret/a", "/tmp/t/pub/a", 0),
            rename_with("/tmp/t/pub/f", "/tmp/t/secret/f", libc::RENAME_EXCHANGE),
        ]
    });
    assert_eq!(results, [EACCES; 3]);
    let blocked: Vec<_> =
        told[..3].iter().map(|told| told.event.operations | told.event.second_operations).collect();
    assert_eq!(blocked, [bits(&[op::READ]), bits(&[op::LIST]), bits(&[op::READ])]);
}

/// A whiteout is a device node.
fn whiteout(programs: &mut Programs) {
    const RENAME_WHITEOUT: libc::c_uint = 4;
    let policy = secret();
    let moved = || rename_with("/tmp/t/pub/f", "/tmp/t/pub/w", RENAME_WHITEOUT);
    let (results, told) = run(programs, &policy, || vec![moved()]);
    assert_eq!(results, [EACCES]);
    assert_eq!((told[0].event.flags, told[0].event.verdict), (event_flags::NEVER, verdict::BLOCK));
    assert!(!fs::exists("/tmp/t/pub/w").unwrap());
    // Nobody else is kept from it, so it was the hook.
    assert_eq!(moved(), 0);
    fs::remove_file("/tmp/t/pub/f").unwrap();
    fs::rename("/tmp/t/pub/w", "/tmp/t/pub/f").unwrap();
}
