//! io_uring: what a ring is asked to do is done by the task itself, by its workers or by a thread that polls.

use std::ffi::CString;

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{event_kind, operation as op, verdict};

use super::super::tables::{Policy, but, every};
use super::super::tree::{c, result, run};
use super::{Check, EACCES, EPERM, setup};

pub(super) const CHECKS: &[(&str, Check)] = &[("what_a_ring_is_asked_is_judged", ring)];

/// linux/io_uring.h
const OPENAT: u8 = 18;
const CONNECT: u8 = 16;
const UNLINKAT: u8 = 36;
const SQE_ASYNC: u8 = 1 << 4;
const SETUP_SQPOLL: u32 = 1 << 1;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 2;
const ENTRIES_AT: libc::off_t = 0x1000_0000;

#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    /// Of completions: lost ones, and where the entries are.
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    address: u64,
}

#[repr(C)]
#[derive(Default)]
struct Parameters {
    submissions: u32,
    completions: u32,
    flags: u32,
    rest: [u32; 7],
    submission: Offsets,
    completion: Offsets,
}

#[repr(C)]
#[derive(Default)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    rest: [u64; 4],
}

fn map(fd: i32, bytes: usize, offset: libc::off_t) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, offset) };
    assert_ne!(at, libc::MAP_FAILED, "no ring is mapped: {}", result(-1));
    at.cast()
}

/// Has one thing done by a ring of its own. Returns what came of it.
fn ask(setup: u32, entry: Entry) -> i32 {
    let mut parameters = Parameters { flags: setup, ..Parameters::default() };
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
    if fd < 0 {
        return result(-1);
    }
    let fd = i32::try_from(fd).unwrap();
    let at = map(fd, 4096, 0);
    let entries = map(fd, size_of::<Entry>(), ENTRIES_AT);
    let flags = ENTER_GETEVENTS | if setup & SETUP_SQPOLL == 0 { 0 } else { ENTER_SQ_WAKEUP };
    let answer = unsafe {
        entries.cast::<Entry>().write(entry);
        at.add(parameters.submission.array as usize).cast::<u32>().write_volatile(0);
        let tail = at.add(parameters.submission.tail as usize).cast::<u32>();
        std::sync::atomic::AtomicU32::from_ptr(tail).store(1, std::sync::atomic::Ordering::Release);
        let entered = libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, flags, 0, 0);
        assert!(entered >= 0, "the ring is not entered: {}", result(-1));
        // After the number that was given with it.
        at.add(parameters.completion.dropped as usize).add(8).cast::<i32>().read_volatile()
    };
    unsafe { libc::close(fd) };
    answer
}

/// 0, or the negative errno.
fn opened(setup: u32, flags: u8, path: &CString) -> i32 {
    let entry = Entry {
        operation: OPENAT,
        flags,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: libc::O_RDONLY.cast_unsigned(),
        ..Entry::default()
    };
    ask(setup, entry).min(0)
}

fn ring(programs: &mut Programs) {
    setup();
    std::fs::create_dir_all("/tmp/t/asked").unwrap();
    std::fs::write("/tmp/t/asked/f", "x").unwrap();
    let held = but(every(verdict::ALLOW), &[op::READ], verdict::HOLD);
    let policy = Policy::new(every(verdict::ALLOW))
        .rule("/tmp/t/asked", held)
        .rule("/tmp/t/secret", every(verdict::BLOCK))
        .done();
    let (results, told) = run(programs, &policy, || {
        let paths = ["/tmp/t/pub/f", "/tmp/t/secret/f", "/tmp/t/asked/f"].map(c);
        let mut results = Vec::new();
        for (setup, flags) in [(0, 0), (0, SQE_ASYNC), (SETUP_SQPOLL, 0)] {
            results.extend(paths.iter().map(|path| opened(setup, flags, path)));
        }
        let removal = |path: &CString| Entry {
            operation: UNLINKAT,
            fd: libc::AT_FDCWD,
            address: path.as_ptr() as u64,
            ..Entry::default()
        };
        results.push(ask(0, removal(&paths[1])));
        results.push(ask(0, removal(&paths[0])));
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        address.sin_family = libc::AF_INET as u16;
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let length = size_of::<libc::sockaddr_in>() as u64;
        let address = (&raw const address) as u64;
        results.push(ask(
            0,
            Entry { operation: CONNECT, fd: socket, offset: length, address, ..Entry::default() },
        ));
        results
    });
    // Nobody can be asked there: neither the call that enters the ring nor a worker can be made to wait and try again.
    let opens = [0, EACCES, EACCES];
    assert_eq!(results[..9], [opens, opens, opens].concat());
    assert_eq!(results[9..], [EACCES, 0, EPERM]);
    assert!(std::fs::exists("/tmp/t/secret/f").unwrap());
    assert!(told.iter().all(|told| told.event.kind != event_kind::HOLD), "{told:?}");
    let asked = told.iter().filter(|told| told.first == "/tmp/t/asked/f");
    assert_eq!(asked.map(|told| told.event.verdict).collect::<Vec<_>>(), [verdict::BLOCK; 3]);
}
