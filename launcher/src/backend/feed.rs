//! The guard's ends of the two channels on which a judging process tells what it sees: the ring of events and the pipe of
//! news.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Pause;
use crate::exec::status::Status;
use crate::sys::process;
use crate::sys::ring::Consumer;

/// How long the guard lets events gather before it looks again, while they come.
const GATHER_MS: i32 = 4;

/// The reading ends.
#[derive(Debug)]
pub(super) struct Feed {
    events: Consumer,
    status: OwnedFd,
    message: Vec<u8>,
    news: bool,
}

/// What a wait ended for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    /// The descriptor of the caller.
    pub(super) also: bool,
    /// The other side's life.
    pub(super) life: bool,
}

impl Feed {
    pub(super) fn new(events: Consumer, status: OwnedFd) -> Self {
        Self { events, status, message: Vec::with_capacity(8192), news: false }
    }

    /// Takes the next message out of the ring.
    pub(super) fn pop(&mut self) -> bool {
        self.events.pop(&mut self.message)
    }

    /// Returns the message that was taken last.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Takes the next news, if there was reason to look.
    pub(super) fn news(&mut self) -> Option<Status> {
        if !self.news {
            return None;
        }
        let status = if process::readable(self.status.as_fd()) { self.await_news() } else { None };
        self.news = status.is_some();
        status
    }

    /// Has the next call of [`Self::news`] look.
    pub(super) fn look_for_news(&mut self) {
        self.news = true;
    }

    /// Waits for the next news; `None` where none can come any more.
    pub(super) fn await_news(&mut self) -> Option<Status> {
        Status::receive(&self.status)
    }

    /// Waits for an event, for news, for `also`, for one of `others`, or for `life`, which becomes readable when the other
    /// side ends.
    pub(super) fn wait(
        &mut self,
        also: BorrowedFd<'_>,
        life: BorrowedFd<'_>,
        others: &[BorrowedFd<'_>],
        pause: Pause,
    ) -> Ready {
        let busy = pause == Pause::Gather;
        if !busy && !self.events.may_sleep() {
            return Ready::default();
        }
        let mut fds = vec![also, life, self.status.as_fd()];
        // While events gather the bell is silent: the producer rings only for a sleeping reader.
        if !busy {
            fds.push(self.events.bell());
            fds.extend_from_slice(others);
        }
        let timeout = match pause {
            Pause::Gather => Some(GATHER_MS),
            Pause::Until(time) => Some(i32::try_from(time.as_millis()).unwrap_or(i32::MAX)),
            Pause::Idle => None,
        };
        let ready = process::poll(&fds, timeout).unwrap_or_default();
        if !busy {
            self.events.awake();
        }
        let is = |index: usize| ready.get(index) == Some(&true);
        self.news |= is(2);
        Ready { also: is(0), life: is(1) }
    }

    /// Takes no more events: whoever wants to tell of one is refused.
    pub(super) fn close(&self) {
        self.events.close();
    }
}
