//! Files and directories: what the tables say comes about, whatever way leads there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{event_flags, event_kind, operation as op, verdict};

use super::super::tables::{Policy, every};
use super::super::tree::{c, open, result, run};
use super::{Check, EACCES, EPERM, bits, secret, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("opens", opens),
    ("names", names),
    ("links_and_ways_around", ways_around),
    ("identity", identity),
    ("identity_in_layers", layers),
    ("too_deep_is_blocked", deep),
];

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

/// Where stat(2) gives numbers that are made up.
fn layers(programs: &mut Programs) {
    let made = Command::new("sh")
        .args([
            "-ec",
            "mkdir -p /tmp/o/low /tmp/o/up /tmp/o/all /tmp/o/d; : >/tmp/o/f
             mount -t tmpfs none /tmp/o/low; mount -t tmpfs none /tmp/o/up
             mkdir /tmp/o/low/d /tmp/o/up/u /tmp/o/up/w; echo x >/tmp/o/low/f; echo x >/tmp/o/low/d/g
             mount -t overlay -o lowerdir=/tmp/o/low,upperdir=/tmp/o/up/u,workdir=/tmp/o/up/w none /tmp/o/all
             mount --bind /tmp/o/all/f /tmp/o/f; mount --bind /tmp/o/all/d /tmp/o/d",
        ])
        .status()
        .unwrap();
    assert!(made.success());
    let device = |path: &str| fs::metadata(path).unwrap().dev();
    assert_ne!(device("/tmp/o/all/f"), device("/tmp/o/all"), "so the check shows something");
    let policy = Policy::new(every(verdict::ALLOW))
        .rule("/tmp/o/all/f", every(verdict::BLOCK))
        .rule("/tmp/o/all/d", every(verdict::BLOCK))
        .done();
    let act = || vec![open("/tmp/o/f", libc::O_RDONLY), open("/tmp/o/d/g", libc::O_RDONLY)];
    let (before, _) = run(programs, &policy, act);
    // Now it lies in another layer.
    fs::write("/tmp/o/all/d/g", "other").unwrap();
    let (after, _) = run(programs, &policy, act);
    // It keeps open what it names.
    drop(policy);
    let undone = Command::new("umount")
        .args(["/tmp/o/f", "/tmp/o/d", "/tmp/o/all", "/tmp/o/low", "/tmp/o/up"])
        .status()
        .unwrap();
    assert!(undone.success());
    assert_eq!((before, after), (vec![EACCES, EACCES], vec![EACCES, EACCES]));
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
