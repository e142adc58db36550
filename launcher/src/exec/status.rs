//! Short messages from the supervisor, the reaper and the starting workload to the guard.
//!
//! Each is 16 bytes, far below `PIPE_BUF`, so writes of several processes never mix.

use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{Errno, process};

/// Where the start of a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    /// fork(2) or a thread.
    Process = 1,
    /// The Landlock floor or scope.
    Landlock,
    /// The seccomp filter.
    Filter,
    /// Handing the listener to the supervisor.
    Listener,
    /// Closing and keeping descriptors.
    Descriptors,
}

impl Step {
    const ALL: [Self; 5] = [Self::Process, Self::Landlock, Self::Filter, Self::Listener, Self::Descriptors];

    /// Says what was being done.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "starting a process or thread of the supervisor",
            Self::Landlock => "installing the Landlock floor",
            Self::Filter => "installing the seccomp filter",
            Self::Listener => "taking over the seccomp listener",
            Self::Descriptors => "closing inherited descriptors",
        }
    }
}

/// What the guard is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The supervisor is ready; what it could install.
    Ready { floor: bool, scope: bool, killable: bool, sync: bool },
    /// The workload's first process.
    Started { pid: u32 },
    /// The workload's execve(2) failed.
    ExecFailed { errno: Errno },
    /// The start failed.
    Failed { step: Step, errno: Errno },
    /// The workload's first process stopped.
    Stopped { signal: i32 },
    /// It ended.
    Exited { status: i32 },
    /// It was killed.
    Killed { signal: i32 },
    /// Nothing of the tree is left.
    TreeEnded,
}

impl Status {
    fn words(self) -> [u32; 4] {
        let bits = |flags: [bool; 4]| flags.iter().fold(0, |acc, &flag| acc << 1 | u32::from(flag));
        match self {
            Self::Ready { floor, scope, killable, sync } => [1, bits([floor, scope, killable, sync]), 0, 0],
            Self::Started { pid } => [2, pid, 0, 0],
            Self::ExecFailed { errno } => [3, errno.0.cast_unsigned(), 0, 0],
            Self::Failed { step, errno } => [4, step as u32, errno.0.cast_unsigned(), 0],
            Self::Stopped { signal } => [5, signal.cast_unsigned(), 0, 0],
            Self::Exited { status } => [6, status.cast_unsigned(), 0, 0],
            Self::Killed { signal } => [7, signal.cast_unsigned(), 0, 0],
            Self::TreeEnded => [8, 0, 0, 0],
        }
    }

    /// Writes the message. A guard that is gone needs none.
    pub(crate) fn send(self, to: BorrowedFd<'_>) {
        let mut bytes = [0u8; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.words()) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        let _gone = process::write(to, &bytes).is_err();
    }

    /// Reads the next message; `None` at the end.
    pub(crate) fn receive(from: &impl AsFd) -> Option<Self> {
        let mut bytes = [0u8; 16];
        if process::read(from.as_fd(), &mut bytes) != Ok(16) {
            return None;
        }
        let word = |i: usize| bytes[4 * i..4 * i + 4].try_into().map_or(0, u32::from_ne_bytes);
        let bit = |n: u32| word(1) >> n & 1 == 1;
        Some(match word(0) {
            1 => Self::Ready { floor: bit(3), scope: bit(2), killable: bit(1), sync: bit(0) },
            2 => Self::Started { pid: word(1) },
            3 => Self::ExecFailed { errno: Errno(word(1).cast_signed()) },
            4 => Self::Failed {
                step: *Step::ALL.iter().find(|step| **step as u32 == word(1))?,
                errno: Errno(word(2).cast_signed()),
            },
            5 => Self::Stopped { signal: word(1).cast_signed() },
            6 => Self::Exited { status: word(1).cast_signed() },
            7 => Self::Killed { signal: word(1).cast_signed() },
            8 => Self::TreeEnded,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_way() {
        let (read, write) = process::pipe().unwrap();
        let all = [
            Status::Ready { floor: true, scope: false, killable: true, sync: false },
            Status::Started { pid: 42 },
            Status::ExecFailed { errno: Errno(13) },
            Status::Failed { step: Step::Filter, errno: Errno(16) },
            Status::Stopped { signal: 20 },
            Status::Exited { status: 255 },
            Status::Killed { signal: 9 },
            Status::TreeEnded,
        ];
        for status in all {
            status.send(write.as_fd());
            assert_eq!(Status::receive(&read), Some(status));
        }
    }
}
