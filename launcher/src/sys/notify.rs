//! seccomp(2) and the user notification of seccomp_unotify(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::affinity::Steered;
use super::{Errno, check, check_long};

/// `struct seccomp_notif`: one held system call.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The calling thread, in our pid namespace.
    pub(crate) tid: u32,
    pub(crate) flags: u32,
    pub(crate) nr: i32,
    pub(crate) arch: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const _: () =
    assert!(size_of::<Notification>() == 80 && size_of::<Response>() == 24 && size_of::<AddFd>() == 24);

/// Request numbers of `linux/seccomp.h`: `_IOWR('!', 0, struct seccomp_notif)` and so on.
const IOCTL_RECV: u64 = 0xc050_2100;
const IOCTL_SEND: u64 = 0xc018_2101;
const IOCTL_ID_VALID: u64 = 0x4008_2102;
const IOCTL_ADDFD: u64 = 0x4018_2103;
const IOCTL_SET_FLAGS: u64 = 0x4008_2104;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, Linux 6.6.
const SYNC_WAKE_UP: libc::c_ulong = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: libc::c_ulong = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux 5.19.
pub(crate) const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// Installs a filter on the calling thread and returns its listener.
///
/// # Errors
/// `EBUSY` where a filter with a listener is installed already, `EINVAL` where a flag is not known.
pub(crate) fn install(filter: &[libc::sock_filter], flags: libc::c_ulong) -> Result<OwnedFd, Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_error| Errno(libc::E2BIG))?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `len` live instructions, which the kernel copies and never writes.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            NEW_LISTENER | flags,
            &raw const program,
        )
    };
    let fd = RawFd::try_from(check_long(fd)?).map_err(|_error| Errno(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The supervisor's end of a filter.
#[derive(Debug)]
pub(crate) struct Listener(pub(crate) OwnedFd);

impl Listener {
    /// Asks for wake-ups that move the waiter onto the caller's CPU.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.6: slower, not wrong.
    pub(crate) fn set_sync_wake_up(&self) -> Result<(), Errno> {
        // SAFETY: plain integers.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_SET_FLAGS, SYNC_WAKE_UP) }).map(drop)
    }

    /// Waits for the next held call.
    ///
    /// # Errors
    /// `ENOENT` where the caller was killed meanwhile or no task uses the filter any more, `EINTR` on a signal.
    pub(crate) fn receive(&self) -> Result<Notification, Errno> {
        let mut notification = Notification::default();
        // SAFETY: the kernel demands a zeroed structure of this size and fills it.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_RECV, &raw mut notification) })?;
        Ok(notification)
    }

    /// Returns whether the call is still held, so that its tid still means its task.
    pub(crate) fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel reads eight bytes.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_ID_VALID, &raw const id) == 0 }
    }

    fn send(&self, response: Response) -> Result<(), Errno> {
        // SAFETY: `response` is a live structure of the size in the request number.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_SEND, &raw const response) }).map(drop)
    }

    /// Answers with a value.
    pub(crate) fn answer_value(&self, id: u64, val: i64) -> Result<(), Errno> {
        self.send(Response { id, val, error: 0, flags: 0 })
    }

    /// Answers with an errno.
    pub(crate) fn answer_errno(&self, id: u64, errno: Errno) -> Result<(), Errno> {
        self.send(Response { id, val: 0, error: -errno.0, flags: 0 })
    }

    /// Lets the kernel go on with the call. Only where no pointer decides, or the outcome is verified.
    pub(crate) fn answer_continue(&self, id: u64) -> Result<(), Errno> {
        self.send(Response { id, val: 0, error: 0, flags: CONTINUE })
    }

    fn add(&self, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> Result<i32, Errno> {
        let request = AddFd {
            id,
            flags: 0,
            srcfd: fd.as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: if cloexec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
        };
        // SAFETY: `request` is a live structure of the size in the request number.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_ADDFD, &raw const request) })
    }

    /// Puts a descriptor into the caller's table, closes ours, and answers with the number.
    ///
    /// In two steps, for two reasons. A copy that outlives the caller's own close(2) makes a later execve(2) fail with
    /// `ETXTBSY` and keeps locks. And only the second step wakes the caller on the CPU that we leave
    /// ([`Self::set_sync_wake_up`]); for the wake-up of the first see [`Steered`].
    pub(crate) fn answer_fd(
        &self,
        held: &Notification,
        fd: OwnedFd,
        cloexec: bool,
        steer: bool,
    ) -> Result<(), Errno> {
        use std::os::fd::AsFd;
        let steered = if steer { Steered::here(held.tid) } else { None };
        let number = self.add(held.id, fd.as_fd(), cloexec)?;
        drop(fd);
        drop(steered);
        self.answer_value(held.id, i64::from(number))
    }
}
