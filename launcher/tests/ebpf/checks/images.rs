//! Images: what is executed or mapped executable, and what a process may do because of what it runs.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{event_kind, operation as op, session_flags, verdict};

use super::super::tables::{Policy, but, every};
use super::super::tree::{open, result, run, start_with};
use super::{Check, EACCES, bits, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_blocked_image_is_not_executed", blocked),
    ("a_script_is_judged_with_its_interpreter", scripts),
    ("a_blocked_image_is_not_mapped", mapped),
    ("what_a_process_runs_decides", classes),
];

/// Programs in a directory whose images are blocked, and in one whose are not. Their files may be read.
fn programs_of_both_kinds() -> Policy {
    setup();
    for directory in ["/tmp/t/no", "/tmp/t/yes"] {
        fs::create_dir_all(directory).unwrap();
        fs::copy("/bin/true", format!("{directory}/true")).unwrap();
        fs::copy("/bin/sh", format!("{directory}/sh")).unwrap();
        fs::copy("/bin/cat", format!("{directory}/cat")).unwrap();
    }
    let word = but(every(verdict::ALLOW), &[op::EXEC, op::MMAP_EXEC], verdict::BLOCK);
    let mut policy = Policy::new(every(verdict::ALLOW)).rule("/tmp/t/no", word).done();
    policy.flags = session_flags::MMAP_EXEC;
    policy
}

/// The exit status, or the negative errno of the exec.
fn execute(path: &str, arguments: &[&str]) -> i32 {
    let status = Command::new(path).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.map_or_else(|error| -error.raw_os_error().unwrap_or(0), |status| status.code().unwrap_or(-1000))
}

fn blocked(programs: &mut Programs) {
    let policy = programs_of_both_kinds();
    let (results, told) = run(programs, &policy, || {
        let open = fs::File::open("/tmp/t/no/true").unwrap();
        vec![
            execute("/tmp/t/yes/true", &[]),
            execute("/tmp/t/no/true", &[]),
            execute("/tmp/t/yes/../no/true", &[]),
            execute(&format!("/proc/self/fd/{}", open.as_raw_fd()), &[]),
            execute("/tmp/t/yes/sh", &["-c", "exec /tmp/t/no/true"]),
        ]
    });
    assert_eq!(results, [0, EACCES, EACCES, EACCES, 126]);
    let images: Vec<_> = told
        .iter()
        .filter(|told| told.event.kind == event_kind::IMAGE)
        .map(|told| told.first.as_str())
        .collect();
    assert_eq!(images, ["/tmp/t/yes/true", "/tmp/t/yes/sh"]);
    let blocked: Vec<_> = told
        .iter()
        .filter(|told| told.event.verdict == verdict::BLOCK && told.event.operations == bits(&[op::EXEC]))
        .map(|told| told.first.as_str())
        .collect();
    assert_eq!(blocked, ["/tmp/t/no/true"; 4]);
}

fn scripts(programs: &mut Programs) {
    let policy = programs_of_both_kinds();
    for (script, interpreter) in [("yes/a", "yes"), ("yes/b", "no"), ("no/c", "yes")] {
        let path = format!("/tmp/t/{script}");
        fs::write(&path, format!("#!/tmp/t/{interpreter}/sh\nexit 7\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (results, told) = run(programs, &policy, || {
        ["yes/a", "yes/b", "no/c"].map(|script| execute(&format!("/tmp/t/{script}"), &[])).to_vec()
    });
    assert_eq!(results, [7, EACCES, EACCES]);
    // What runs is the interpreter.
    let images: Vec<_> = told
        .iter()
        .filter(|told| told.event.kind == event_kind::IMAGE)
        .map(|told| told.first.as_str())
        .collect();
    assert_eq!(images, ["/tmp/t/yes/sh"]);
}

/// Maps the first page of a file. Returns its address, or the negative errno.
fn map(path: &str, protection: i32) -> Result<*mut libc::c_void, i32> {
    let file = fs::File::open(path).unwrap();
    let flags = libc::MAP_PRIVATE;
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(result(-1)) } else { Ok(at) }
}

fn mapped(programs: &mut Programs) {
    let policy = programs_of_both_kinds();
    let (read, run_it) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_EXEC);
    let (results, _) = run(programs, &policy, move || {
        let later = |path| result(unsafe { libc::mprotect(map(path, read).unwrap(), 4096, run_it) });
        let now = |path| map(path, run_it).err().unwrap_or(0);
        vec![
            now("/tmp/t/yes/true"),
            now("/tmp/t/no/true"),
            later("/tmp/t/yes/true"),
            later("/tmp/t/no/true"),
            // The loader of programs maps what it is told to.
            execute("/lib64/ld-linux-x86-64.so.2", &["/tmp/t/yes/true"]),
            i32::from(execute("/lib64/ld-linux-x86-64.so.2", &["/tmp/t/no/true"]) == 0),
        ]
    });
    assert_eq!(results, [0, EACCES, 0, EACCES, 0, 0]);
}

/// Only what lies in /tmp/t/yes may read the secret.
fn classes(programs: &mut Programs) {
    programs_of_both_kinds();
    // Regions: 0 the rest, 1 what is secret, 2 the readers. Regions are classes of images too.
    let policy = Policy::new(every(verdict::ALLOW))
        .rule("/tmp/t/secret", every(verdict::BLOCK))
        .rule("/tmp/t/yes", every(verdict::ALLOW))
        .done();
    let (yes, no) = (every(verdict::ALLOW), every(verdict::BLOCK));
    let words = [yes, yes, yes, no, no, yes, yes, yes, yes];
    let mut tables = policy.tables();
    tables.words = &words;
    tables.image_classes = 3;
    let tree = start_with(programs, &tables, || {
        let secret = "/tmp/t/secret/f";
        let all = ": <$0 || exit 1; (: <$0) || exit 2; ";
        vec![
            open(secret, libc::O_RDONLY),
            execute("/tmp/t/yes/cat", &[secret]),
            execute("/bin/cat", &[secret]),
            // Itself and a child may, but not what it runs.
            execute(
                "/tmp/t/yes/sh",
                &["-c", &format!("{all} /bin/cat $0 && exit 3; /tmp/t/yes/cat $0"), secret],
            ),
        ]
    });
    tree.go();
    let (results, _) = tree.end(programs);
    assert_eq!(results, [EACCES, 0, 1, 0]);
}
