//! What the daemon tells the service manager (sd_notify(3)) and whoever reads its log.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use sd_notify::NotifyState;

use crate::cli::output::one_line;
use crate::sys::{Errno, packets};

/// Writes one line to stderr, which systemd keeps. A log that nobody takes stops nothing.
pub(crate) fn say(text: &str) {
    _ = std::io::stderr().write_all(format!("gait agent: {}\n", one_line(text)).as_bytes());
}

/// Tells that connections are taken from now on.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that the end was asked for.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        say(&format!("the service manager cannot be told: {error}"));
    }
}

/// Takes the socket that the service manager has opened, if it has one for this process (sd_listen_fds(3)).
///
/// # Errors
/// It has something else for it.
pub(crate) fn socket() -> Result<Option<OwnedFd>, Errno> {
    let mut numbers =
        sd_notify::listen_fds().map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EINVAL)))?;
    match (numbers.next(), numbers.next()) {
        (None, _) => Ok(None),
        (Some(number), None) => packets::inherited_listener(number.as_raw_fd()).map(Some),
        (Some(_), Some(_)) => Err(Errno(libc::EINVAL)),
    }
}
