//! A process under control, and what it is told to do.

use std::ffi::CString;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use gait::kernel_programs::{BpfRing, Programs, SessionHandle, Tables};
use gait_ebpf::layout::{Event, Grant, event_kind};

use super::tables::Policy;

/// What the ring told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) event: Event,
    pub(crate) first: String,
    pub(crate) second: String,
}

pub(crate) fn drain(ring: &mut BpfRing) -> Vec<Told> {
    let mut all = Vec::new();
    while let Some(record) = ring.next() {
        // SAFETY: an event is integers only, and the record is at least that long.
        let event: Event = unsafe { record.as_ptr().cast::<Event>().read_unaligned() };
        let names = &record[size_of::<Event>()..];
        let second = usize::try_from(event.first_bytes + event.first_hidden).unwrap();
        let first = path(&names[..usize::try_from(event.first_bytes).unwrap()]);
        let bytes = usize::try_from(event.second_bytes).unwrap();
        let second = path(&names[second.min(names.len())..(second + bytes).min(names.len())]);
        all.push(Told { event, first, second });
    }
    all
}

fn path(names: &[u8]) -> String {
    let mut parts: Vec<_> = names.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    parts.pop();
    parts.reverse();
    format!("/{}", parts.join("/"))
}

/// A session with one process, which waits.
pub(crate) struct Tree {
    pub(crate) session: SessionHandle,
    pub(crate) ring: BpfRing,
    pub(crate) pid: i32,
    start: i32,
    out: std::fs::File,
}

/// Runs `act` in a new process of a new session.
pub(crate) fn start(programs: &mut Programs, policy: &Policy, act: impl FnOnce() -> Vec<i32>) -> Tree {
    start_with(programs, &policy.tables(), act)
}

/// As [`start`], with tables of another making.
pub(crate) fn start_with(
    programs: &mut Programs,
    tables: &Tables<'_>,
    act: impl FnOnce() -> Vec<i32>,
) -> Tree {
    let session = programs.open_session(tables).unwrap();
    let ring = session.reader().unwrap();
    let (mut go, mut out) = ([0; 2], [0; 2]);
    // SAFETY: two arrays of two integers.
    assert_eq!(unsafe { libc::pipe(go.as_mut_ptr()) + libc::pipe(out.as_mut_ptr()) }, 0);
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut byte = [0u8; 1];
        // SAFETY: descriptors of this process.
        unsafe { libc::close(go[1]) };
        // SAFETY: one byte.
        unsafe { libc::read(go[0], byte.as_mut_ptr().cast(), 1) };
        let text: Vec<u8> = act().iter().flat_map(|result| result.to_ne_bytes()).collect();
        // SAFETY: a buffer of this process.
        unsafe { libc::write(out[1], text.as_ptr().cast(), text.len()) };
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: descriptors of this process.
    assert_eq!(unsafe { libc::close(go[0]) + libc::close(out[1]) }, 0);
    programs.seed(&session, pid.unsigned_abs(), 0).unwrap();
    // SAFETY: a descriptor that nothing else owns.
    let out = unsafe { std::fs::File::from_raw_fd(out[0]) };
    Tree { session, ring, pid, start: go[1], out }
}

impl Tree {
    pub(crate) fn go(&self) {
        // SAFETY: a descriptor of this process.
        unsafe { libc::close(self.start) };
    }

    /// Whether the process has said its results.
    pub(crate) fn is_done(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.out.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one struct.
        unsafe { libc::poll(&raw mut poll, 1, 10) > 0 }
    }

    /// Takes the status of the process, which has ended.
    pub(crate) fn reap(&self) {
        // SAFETY: our own child.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }

    /// Whether the process is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).is_ok_and(|stat| stat.contains(") T "))
    }

    /// Reads all that there is without keeping it, and continues the process where it was stopped for that. Returns how
    /// many actions were told.
    pub(crate) fn serve(&mut self) -> usize {
        let (mut actions, mut paused) = (0, false);
        while let Some(record) = self.ring.next() {
            match record[size_of::<Event>() - 8] {
                event_kind::ACTION => actions += 1,
                event_kind::PAUSE => paused = true,
                _ => {}
            }
        }
        if paused || self.is_stopped() {
            // SAFETY: our own child.
            unsafe { libc::kill(self.pid, libc::SIGCONT) };
        }
        actions
    }

    /// Waits for its end: its results, and all that was told.
    pub(crate) fn end(mut self, programs: &mut Programs) -> (Vec<i32>, Vec<Told>) {
        let mut bytes = Vec::new();
        self.out.read_to_end(&mut bytes).unwrap();
        self.reap();
        let told = drain(&mut self.ring);
        programs.close_session(self.session).unwrap();
        let results =
            bytes.chunks_exact(4).map(|word| i32::from_ne_bytes(word.try_into().unwrap())).collect();
        (results, told)
    }
}

/// Results of `act`, run in a session, and what was told.
pub(crate) fn run(
    programs: &mut Programs,
    policy: &Policy,
    act: impl FnOnce() -> Vec<i32>,
) -> (Vec<i32>, Vec<Told>) {
    let tree = start(programs, policy, act);
    tree.go();
    tree.end(programs)
}

/// Lets a tree go and answers what it asks, until it has said its results. Returns what was told meanwhile.
pub(crate) fn answer(
    programs: &mut Programs,
    tree: &mut Tree,
    mut verdict: impl FnMut(&Told) -> u8,
) -> Vec<Told> {
    tree.go();
    let mut all = Vec::new();
    while !tree.is_done() {
        for told in drain(&mut tree.ring) {
            if told.event.kind == event_kind::HOLD {
                let grant = Grant {
                    object: told.event.object,
                    second: told.event.second,
                    until: 0,
                    operations: told.event.operations,
                    verdict: u32::from(verdict(&told)),
                };
                let minute = std::time::Duration::from_secs(60);
                programs.grant(&tree.session, told.event.tid, grant, minute).unwrap();
                let stat = format!("/proc/{}/stat", told.event.tid);
                while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                // SAFETY: a process of this test.
                unsafe { libc::kill(told.event.tgid.cast_signed(), libc::SIGCONT) };
            }
            all.push(told);
        }
    }
    all
}

/// 0, or the negative errno.
pub(crate) fn result(value: i32) -> i32 {
    if value < 0 { -std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

pub(crate) fn c(path: &str) -> CString {
    CString::new(path).unwrap()
}

pub(crate) fn open(path: &str, flags: i32) -> i32 {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, 0o644) };
    let answer = result(fd);
    if fd >= 0 {
        // SAFETY: our own.
        unsafe { libc::close(fd) };
    }
    answer
}
