//! The daemon's side of a connection. Each has a thread of its own, so that a client that does not read, or sends a
//! descriptor whose file answers slowly, keeps nobody waiting but itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::peer::Peer;
use super::protocol::{Malformed, PACKET_MAX, Reply, Request, Shape};
use super::registry::{Registry, Seat, Share};
use super::{New, Owner, notify, refused, tables};
use crate::backend::ebpf::Refused;
use crate::sys::packets::{self, Packet};
use crate::sys::{Errno, process};

/// Bytes of a connection's stack. The tables are on the heap.
const STACK: usize = 256 << 10;
/// What is waited after a connection could not be taken, for want of descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// Takes connections until `stop` is readable.
///
/// # Errors
/// The socket is none, or the threads cannot be had.
pub(crate) fn serve(
    listener: BorrowedFd<'_>,
    stop: BorrowedFd<'_>,
    owner: &Arc<dyn Owner>,
    registry: &Arc<Registry>,
) -> Result<(), Errno> {
    loop {
        let ready = process::poll(&[stop, listener], None)?;
        if ready.first() == Some(&true) {
            return Ok(());
        }
        if ready.get(1) != Some(&true) {
            continue;
        }
        match packets::accept(listener) {
            Ok(connection) => take(connection, owner, registry),
            // The client went away again.
            Err(Errno(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN)) => {}
            Err(errno @ Errno(libc::EBADF | libc::EINVAL | libc::ENOTSOCK)) => return Err(errno),
            Err(errno) => {
                notify::say(&format!("a connection cannot be taken: {errno}"));
                std::thread::sleep(BREATH);
            }
        }
    }
}

/// Tells everybody who waits at the socket why there is no daemon.
pub(crate) fn refuse_waiting(listener: BorrowedFd<'_>, refused: &Refused) {
    while process::readable(listener)
        && let Ok(connection) = packets::accept(listener)
    {
        _ = packets::send(connection.as_fd(), &Reply::Refused(refused.clone()).encode(), None);
    }
}

/// Starts a connection's thread.
fn take(connection: OwnedFd, owner: &Arc<dyn Owner>, registry: &Arc<Registry>) {
    let Ok(peer) = Peer::of(connection.as_fd()) else { return };
    let seat = match registry.seat(peer.credentials.uid) {
        Ok(seat) => seat,
        Err(refused) => {
            // Not from this thread if it would wait; a new socket has room for one packet.
            _ = packets::send(connection.as_fd(), &Reply::Refused(refused).encode(), None);
            return;
        }
    };
    let (owner, registry) = (Arc::clone(owner), Arc::clone(registry));
    let start =
        std::thread::Builder::new().name("connection".to_owned()).stack_size(STACK).spawn(move || {
            Connection { socket: connection, peer, owner, registry, state: State::New, _seat: seat }
                .converse();
        });
    if let Err(error) = start {
        notify::say(&format!("a connection cannot be served: {error}"));
    }
}

/// How far a connection has come.
#[derive(Debug)]
enum State {
    New,
    /// It has a session, and nothing runs in it.
    Opened(u32, Share),
    /// A process runs in it.
    Seeded(u32, Share),
    Closed,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    peer: Peer,
    owner: Arc<dyn Owner>,
    registry: Arc<Registry>,
    state: State,
    _seat: Seat,
}

impl Connection {
    /// Answers until the other side is gone or was refused something.
    fn converse(mut self) {
        let mut buffer = [0; PACKET_MAX];
        while let Ok(packet) = packets::receive(self.socket.as_fd(), &mut buffer)
            && packet.bytes > 0
        {
            let (reply, luggage) = match self.answer(&buffer, packet) {
                Ok(answer) => answer,
                Err(refused) => {
                    // The session goes before the answer, so that who reads it can rely on that.
                    self.end();
                    notify::say(&format!("{}: refused: {refused}", self.name()));
                    _ = packets::send(self.socket.as_fd(), &Reply::Refused(refused).encode(), None);
                    return;
                }
            };
            if packets::send(self.socket.as_fd(), &reply.encode(), luggage.as_ref().map(AsFd::as_fd)).is_err()
            {
                return;
            }
        }
    }

    fn name(&self) -> String {
        let who = self.peer.credentials;
        format!("process {} of user {}", who.pid, who.uid)
    }

    fn answer(&mut self, buffer: &[u8], packet: Packet) -> Result<(Reply, Option<OwnedFd>), Refused> {
        let bytes = buffer.get(..packet.bytes).filter(|_| !packet.cut).ok_or(Malformed::Form)?;
        let request = Request::decode(bytes)?;
        let mut luggage = packet.luggage.into_iter();
        let (first, more) = (luggage.next(), luggage.next());
        let brings = matches!(request, Request::Open(_) | Request::Seed);
        if first.is_some() != brings || more.is_some() {
            return Err(Malformed::Form.into());
        }
        match (request, first) {
            (Request::Open(shape), Some(file)) => {
                self.open(&shape, file).map(|(ring_bytes, ring)| (Reply::Opened { ring_bytes }, Some(ring)))
            }
            (Request::Seed, Some(pidfd)) => self.seed(pidfd.as_fd()).map(|()| (Reply::Done, None)),
            (Request::Grant { tid, grant }, None) => {
                let granted = self.owner.grant(self.session()?, tid, &grant);
                Ok((granted.map_or_else(Reply::Failed, |()| Reply::Done), None))
            }
            (Request::Counters, None) => {
                let counters = self.owner.counters(self.session()?);
                Ok((counters.map_or_else(Reply::Failed, Reply::Counters), None))
            }
            (Request::Close, None) => {
                self.session()?;
                self.end();
                Ok((Reply::Done, None))
            }
            _ => Err(Malformed::Form.into()),
        }
    }

    fn session(&self) -> Result<u32, Refused> {
        match &self.state {
            State::Opened(session, _) | State::Seeded(session, _) => Ok(*session),
            State::New | State::Closed => Err(out_of_order("there is no session on this connection")),
        }
    }

    fn open(&mut self, shape: &Shape, file: OwnedFd) -> Result<(u32, OwnedFd), Refused> {
        if !matches!(self.state, State::New) {
            return Err(out_of_order("a connection can have one session"));
        }
        let wrong = |error: tables::TableError| {
            refused(error.to_string(), "use one version of gait for the daemon and the command")
        };
        let bytes = tables::bytes_of(shape).map_err(wrong)?;
        // First the share, then the memory.
        let share = self.registry.share(self.peer.credentials.uid, bytes)?;
        let tables = tables::Owned::read(shape, bytes, file).map_err(wrong)?;
        let New { session, ring, ring_bytes } = self.owner.open(&tables.tables(self.peer.credentials.pid))?;
        self.state = State::Opened(session, share);
        notify::say(&format!("session {session} opened by {}", self.name()));
        Ok((ring_bytes, ring))
    }

    fn seed(&mut self, pidfd: BorrowedFd<'_>) -> Result<(), Refused> {
        let State::Opened(session, _) = &self.state else {
            return Err(out_of_order("a session begins with one process, after it was opened"));
        };
        let session = *session;
        let pid = self.peer.admit(pidfd)?;
        self.owner.seed(session, pid)?;
        if let Err(refused) = self.peer.confirm(pidfd, pid) {
            // The number may have become somebody else's in between; that one goes free again.
            self.owner.forget(session);
            return Err(refused);
        }
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Opened(session, share) => State::Seeded(session, share),
            other => other,
        };
        Ok(())
    }

    /// Blocks the session, if there is one.
    fn end(&mut self) {
        if let State::Opened(session, share) | State::Seeded(session, share) =
            std::mem::replace(&mut self.state, State::Closed)
        {
            self.registry.block(session, Some(share));
            notify::say(&format!("session {session} ended"));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

fn out_of_order(what: &str) -> Refused {
    refused(what, "this is a mistake of the program that connected")
}
