//! From the names that the kernel saw to the path that is judged and recorded.
//!
//! The same rules as for held calls hold: what varies between equal runs (numbers of processes and terminals) does not
//! stand in a path, and what belongs to a process outside the tree is nobody's business.

use crate::sys::fs::{self, At};

/// What user space makes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    /// Judge it by this path.
    Judged(Vec<u8>),
    /// It belongs to somebody outside the tree: never, and recorded by this path.
    Foreign(Vec<u8>),
    /// It belongs to a process outside the tree and is not even told of, as for held calls.
    Hidden,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) tid: u32,
    pub(super) tgid: u32,
    /// Everything of the tree descends from this process.
    pub(super) tree: u32,
}

/// How terminals are called in paths, by the kernel programs already: numbers differ between equal runs.
const TERMINAL: &[u8] = b"/dev/pts/[n]";
/// The inode of the terminal 0 in a devpts file system (`devpts_pty_new` of the kernel).
const FIRST_TERMINAL: u64 = 3;

/// Puts a path into the form in which it is judged. `inode` is the object's, `writes` says whether the action changes it.
pub(super) fn judged(path: Vec<u8>, inode: u64, asker: Asker, writes: bool) -> Object {
    if let Some(rest) = path.strip_prefix(b"/proc/") {
        let mut parts = rest.splitn(2, |&byte| byte == b'/');
        if let Some(pid) = parts.next().and_then(number) {
            return process_entry(pid, parts.next().unwrap_or_default(), asker, writes);
        }
    }
    if path == TERMINAL {
        let terminal = inode.checked_sub(FIRST_TERMINAL).and_then(|number| u32::try_from(number).ok());
        let own = terminal.is_some_and(|terminal| is_own_terminal(terminal, asker));
        return if own { Object::Judged(path) } else { Object::Foreign(path) };
    }
    Object::Judged(path)
}

fn process_entry(pid: u32, rest: &[u8], asker: Asker, writes: bool) -> Object {
    let Some(path) =
        crate::backend::seccomp::recorded_process(pid, rest, (asker.tid, asker.tgid), asker.tree)
    else {
        return Object::Hidden;
    };
    if writes && path.starts_with(b"/proc/[pid]/") { Object::Foreign(path) } else { Object::Judged(path) }
}

/// Whether a process of the tree holds the master side of a terminal, or the terminal is the asker's own or that of the
/// session.
fn is_own_terminal(terminal: u32, asker: Asker) -> bool {
    let controls = |process: &str| terminal_of(process).is_some_and(|number| number == terminal);
    if controls(&asker.tgid.to_string()) || controls("self") {
        return true;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|entry| {
        let pid = number(entry.file_name().as_encoded_bytes());
        pid.is_some_and(|pid| {
            crate::backend::seccomp::descends_from(pid, asker.tree) && holds_master(pid, terminal)
        })
    })
}

/// Whether a process has the master side open; `tty-index` of `/proc/PID/fdinfo/FD` (`pty_show_fdinfo` of the kernel).
fn holds_master(pid: u32, terminal: u32) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        let is_master = std::fs::read_link(entry.path()).is_ok_and(|link| link.ends_with("ptmx"));
        is_master
            && std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display()))
                .is_ok_and(|info| {
                    let index = info.lines().find_map(|line| line.strip_prefix("tty-index:"));
                    index.and_then(|index| index.trim().parse::<u32>().ok()) == Some(terminal)
                })
    })
}

/// The number of a process's controlling terminal, where that is a Unix98 one; their majors are 136 to 143.
fn terminal_of(process: &str) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    let after = stat.get(stat.iter().rposition(|&byte| byte == b')')? + 2..)?;
    let device: i32 = std::str::from_utf8(after).ok()?.split(' ').nth(4)?.parse().ok()?;
    let device = device.cast_unsigned();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    (136..=143).contains(&major).then(|| (major - 136) * 256 + minor)
}

fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Returns the path of this program: the image of the workload's first process until it runs another.
pub(super) fn own_image() -> Vec<u8> {
    let mut image = Vec::new();
    let read = fs::readlinkat(At::Cwd, c"/proc/self/exe", &mut image);
    if read.is_ok() { image } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::process;

    fn asker() -> Asker {
        Asker { tid: process::tid(), tgid: process::pid(), tree: process::pid() }
    }

    #[test]
    fn ordinary_paths_stay() {
        for path in [&b"/etc/passwd"[..], b"/proc/meminfo", b"/proc/self/maps", b"/dev/pts", b"/dev/pts/ptmx"]
        {
            assert_eq!(judged(path.to_vec(), 7, asker(), false), Object::Judged(path.to_vec()));
        }
    }

    #[test]
    fn numbers_do_not_stay() {
        let own = format!("/proc/{}/maps", process::pid()).into_bytes();
        assert_eq!(judged(own, 7, asker(), false), Object::Judged(b"/proc/self/maps".to_vec()));
        assert_eq!(judged(b"/proc/1/maps".to_vec(), 7, asker(), false), Object::Hidden);
        assert_eq!(
            judged(b"/proc/1/stat".to_vec(), 7, asker(), false),
            Object::Judged(b"/proc/[pid]/stat".to_vec())
        );
        assert_eq!(
            judged(b"/proc/1/comm".to_vec(), 7, asker(), true),
            Object::Foreign(b"/proc/[pid]/comm".to_vec())
        );
    }

    #[test]
    fn a_terminal_is_known_by_its_inode() {
        use std::os::fd::AsRawFd as _;
        let master = fs::openat(At::Cwd, c"/dev/ptmx", libc::O_RDWR | libc::O_CLOEXEC, 0).unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", master.as_raw_fd())).unwrap();
        let index = info.lines().find_map(|line| line.strip_prefix("tty-index:")).unwrap();
        let index: u64 = index.trim().parse().unwrap();
        let name = std::ffi::CString::new(format!("/dev/pts/{index}")).unwrap();
        let end = fs::openat(At::Cwd, &name, libc::O_PATH | libc::O_CLOEXEC, 0).unwrap();
        assert_eq!(fs::fstat(end.as_fd()).unwrap().ino, index + FIRST_TERMINAL);
        // This process holds its master, and descends from its parent.
        let parent = std::os::unix::process::parent_id();
        let asker = Asker { tree: parent, ..asker() };
        let judged = |inode| judged(TERMINAL.to_vec(), inode, asker, true);
        assert_eq!(judged(index + FIRST_TERMINAL), Object::Judged(TERMINAL.to_vec()));
        for foreign in [0, 4_000_000, u64::MAX] {
            assert_eq!(judged(foreign), Object::Foreign(TERMINAL.to_vec()), "{foreign}");
        }
    }
}
