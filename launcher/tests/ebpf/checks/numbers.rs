//! File systems whose names are numbers, and files that have no name any more.

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{event_flags, event_kind, operation as op, verdict};

use super::super::tables::{Policy, every};
use super::super::tree::{Told, answer, c, open, result, run, start};
use super::{Check, EACCES, bits, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("the_entries_of_a_process", processes),
    ("terminals_are_asked_for", terminals),
    ("removed_files_are_opened_again", removed),
    ("removed_files_of_another_place_are_asked_for", removed_elsewhere),
];

/// Paths that were told with a kind of event.
fn of_kind(told: &[Told], kind: u8) -> Vec<&str> {
    told.iter().filter(|told| told.event.kind == kind).map(|told| told.first.as_str()).collect()
}

/// One's own entries are called the same in every run; those of others are left to user space, which knows the tree.
fn processes(programs: &mut Programs) {
    setup();
    let policy = Policy::new(every(verdict::ALLOW)).done();
    let mut tree = start(programs, &policy, || {
        let (pid, tid) = (std::process::id(), unsafe { libc::gettid() });
        vec![
            open("/proc/self/status", libc::O_RDONLY),
            open(&format!("/proc/{pid}/stat"), libc::O_RDONLY),
            open(&format!("/proc/{pid}/task/{tid}/stat"), libc::O_RDONLY),
            open("/proc/thread-self/comm", libc::O_RDONLY),
            open("/proc/1/status", libc::O_RDONLY),
            open("/proc/1/maps", libc::O_RDONLY),
            open("/proc/sys/kernel/osrelease", libc::O_RDONLY),
        ]
    });
    let told = answer(programs, &mut tree, |told| {
        if told.first.ends_with("status") { verdict::ALLOW } else { verdict::BLOCK }
    });
    let (results, rest) = tree.end(programs);
    assert_eq!(results, [0, 0, 0, 0, 0, EACCES, 0]);
    assert_eq!(of_kind(&told, event_kind::HOLD), ["/proc/1/status", "/proc/1/maps"]);
    let told: Vec<Told> = told.into_iter().chain(rest).collect();
    assert_eq!(
        of_kind(&told, event_kind::ACTION),
        [
            "/proc/self/status",
            "/proc/self/stat",
            "/proc/self/task/[tid]/stat",
            "/proc/self/task/[tid]/comm",
            "/proc/sys/kernel/osrelease",
        ]
    );
}

fn terminals(programs: &mut Programs) {
    setup();
    let policy = Policy::new(every(verdict::ALLOW)).done();
    let main = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) };
    assert!(main >= 0 && unsafe { libc::grantpt(main) + libc::unlockpt(main) } == 0);
    let main = unsafe { fs::File::from_raw_fd(main) };
    let mut name = [0u8; 64];
    assert_eq!(unsafe { libc::ptsname_r(main.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) }, 0);
    let name = std::ffi::CStr::from_bytes_until_nul(&name).unwrap().to_str().unwrap().to_owned();
    let mut tree = start(programs, &policy, move || vec![open(&name, libc::O_RDWR | libc::O_NOCTTY)]);
    let told = answer(programs, &mut tree, |_told| verdict::BLOCK);
    let (results, _) = tree.end(programs);
    assert_eq!(results, [EACCES]);
    assert_eq!(of_kind(&told, event_kind::HOLD), ["/dev/pts/[n]"]);
}

/// The tree had it open, so nothing new is reached, and nothing is told.
fn removed(programs: &mut Programs) {
    setup();
    fs::remove_file("/tmp/t/pub/gone").unwrap_or_default();
    let policy = Policy::new(every(verdict::ALLOW)).done();
    let (results, told) = run(programs, &policy, || {
        let kept = unsafe { libc::open(c("/tmp/t/pub/gone").as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600) };
        vec![
            result(kept),
            result(unsafe { libc::unlink(c("/tmp/t/pub/gone").as_ptr()) }),
            open(&format!("/proc/self/fd/{kept}"), libc::O_RDWR),
        ]
    });
    assert_eq!(results, [0, 0, 0]);
    let seen: Vec<_> = told
        .iter()
        .filter(|told| told.event.kind == event_kind::ACTION)
        .map(|told| (told.first.as_str(), told.event.operations))
        .collect();
    let path = "/tmp/t/pub/gone";
    assert_eq!(seen, [(path, bits(&[op::CREATE])), (path, bits(&[op::UNLINK]))]);
}

/// Where the path that it had says anything but "allow", that counts.
fn removed_elsewhere(programs: &mut Programs) {
    setup();
    fs::create_dir_all("/tmp/t/asked").unwrap();
    let policy = Policy::new(every(verdict::ALLOW))
        .rule("/tmp/t/asked", every(verdict::HOLD))
        .rule("/tmp/t/secret", every(verdict::BLOCK))
        .done();
    let gone = |path: &str| {
        fs::write(path, "x").unwrap();
        let kept = fs::File::open(path).unwrap();
        fs::remove_file(path).unwrap();
        kept
    };
    let (asked, secret) = (gone("/tmp/t/asked/gone"), gone("/tmp/t/secret/gone"));
    let again = |file: &fs::File| open(&format!("/proc/self/fd/{}", file.as_raw_fd()), libc::O_RDONLY);
    let mut tree = start(programs, &policy, || vec![again(&asked), again(&asked), again(&secret)]);
    let mut held = 0;
    let told = answer(programs, &mut tree, |_told| {
        held += 1;
        if held == 1 { verdict::ALLOW } else { verdict::BLOCK }
    });
    let (results, rest) = tree.end(programs);
    assert_eq!(results, [0, EACCES, EACCES]);
    assert_eq!(of_kind(&told, event_kind::HOLD), ["/tmp/t/asked/gone"; 2]);
    let told: Vec<Told> = told.into_iter().chain(rest).collect();
    assert_eq!(of_kind(&told, event_kind::ACTION), ["/tmp/t/secret/gone"]);
    assert!(told[..3].iter().all(|told| told.event.flags & event_flags::REMOVED != 0), "{told:?}");
}
