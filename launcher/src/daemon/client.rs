//! The guard's side: the kernel programs of a session, by way of the daemon.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gait_ebpf::layout::{Counters, Grant};

use super::peer::ROOT;
use super::protocol::{PACKET_MAX, Reply, Request};
use super::{refused, tables};
use crate::backend::ebpf::{BpfRing, Kernel, Refused, Tables};
use crate::sys::{Errno, packets, process};

/// How long an answer may take: for the first one the daemon may have to be started, and to load its programs.
const PATIENCE_S: i64 = 60;

/// A connection to the daemon, and the session that it holds.
///
/// The daemon speaks only when asked, so that a hang-up of [`Kernel::line`] means one thing: it is gone, or has ended the
/// session. The session cannot be taken up again then; the guard ends it.
#[derive(Debug)]
pub(crate) struct Remote {
    socket: OwnedFd,
    /// Held for one request and its reply; false once these cannot be told apart any more.
    usable: Mutex<bool>,
}

impl Remote {
    /// Connects to the daemon.
    ///
    /// # Errors
    /// There is none, or it is not root's.
    pub(crate) fn connect(path: &Path) -> Result<Self, Refused> {
        let no = |errno: Errno| {
            let what = format!("no gait agent answers at {}: {errno}", path.display());
            refused(what, "start one (`systemctl start gait-agent.socket`), or run gait exec as root")
        };
        let socket = packets::connect_to(path).map_err(no)?;
        let owner = packets::peer(socket.as_fd()).map_err(no)?.uid;
        if owner != ROOT && owner != process::real_uid() {
            let what = format!("the agent at {} belongs to user {owner}, not to root", path.display());
            return Err(refused(what, "ask the administrator who put it there"));
        }
        packets::set_patience(socket.as_fd(), PATIENCE_S).map_err(no)?;
        Ok(Self { socket, usable: Mutex::new(true) })
    }

    /// Asks for one thing; one descriptor may go with it, and one come back.
    fn ask(
        &self,
        request: &Request,
        luggage: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>), Errno> {
        let mut usable: MutexGuard<'_, bool> = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        // A reply that did not come in time would be taken for that of the next request.
        if !std::mem::replace(&mut *usable, false) {
            return Err(Errno(libc::EPIPE));
        }
        // A daemon that refuses a connection says so unasked and hangs up; what it said can still be read.
        let sent = packets::send(self.socket.as_fd(), &request.encode(), luggage);
        if sent.is_err_and(|errno| errno != Errno(libc::EPIPE)) {
            return Err(Errno(libc::EPIPE));
        }
        let mut buffer = [0; PACKET_MAX];
        let packet = match packets::receive(self.socket.as_fd(), &mut buffer) {
            // It hung up before it read the request. What it had said is behind this error.
            Err(Errno(libc::ECONNRESET)) => packets::receive(self.socket.as_fd(), &mut buffer)?,
            other => other?,
        };
        let bytes = buffer.get(..packet.bytes).filter(|bytes| !bytes.is_empty() && !packet.cut);
        let reply = match Reply::decode(bytes.ok_or(Errno(libc::EPIPE))?) {
            Ok(reply) => reply,
            Err(malformed) => Reply::Refused(malformed.into()),
        };
        *usable = !matches!(reply, Reply::Refused(_));
        Ok((reply, packet.luggage.into_iter().next()))
    }

    /// As [`Self::ask`], with every "no" as one.
    fn demand(
        &self,
        request: &Request,
        luggage: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>), Refused> {
        match self.ask(request, luggage) {
            Ok((Reply::Refused(refused) | Reply::Failed(refused), _)) => Err(refused),
            Err(Errno(libc::EAGAIN)) => Err(lost(&format!("nothing came within {PATIENCE_S} s"))),
            Err(errno) => Err(lost(&errno.to_string())),
            Ok(answer) => Ok(answer),
        }
    }
}

fn lost(why: &str) -> Refused {
    let what = format!("the gait agent does not answer as it should: {why}");
    refused(what, "`systemctl status gait-agent` says more")
}

fn other() -> Refused {
    lost("it said something else")
}

impl Kernel for Remote {
    fn open(&self, tables: &Tables<'_>) -> Result<BpfRing, Refused> {
        let (shape, file) = tables::send(tables)
            .map_err(|error| refused(format!("the tables cannot be sent: {error}"), "free some memory"))?;
        match self.demand(&Request::Open(shape), Some(file.as_fd()))? {
            (Reply::Opened { ring_bytes }, Some(ring)) => BpfRing::new(ring, ring_bytes)
                .map_err(|errno| refused(format!("the ring cannot be mapped: {errno}"), "free some memory")),
            _ => Err(other()),
        }
    }

    fn seed(&self, pid: u32) -> Result<(), Refused> {
        let gone =
            |errno| refused(format!("process {pid} cannot be named: {errno}"), "start the session again");
        let pidfd = process::pidfd_open(pid).map_err(gone)?;
        match self.demand(&Request::Seed, Some(pidfd.as_fd()))? {
            (Reply::Done, None) => Ok(()),
            _ => Err(other()),
        }
    }

    fn grant(&self, tid: u32, grant: &Grant) -> Result<(), Refused> {
        match self.demand(&Request::Grant { tid, grant: *grant }, None)? {
            (Reply::Done, None) => Ok(()),
            _ => Err(other()),
        }
    }

    fn counters(&self) -> Result<Counters, Refused> {
        match self.demand(&Request::Counters, None)? {
            (Reply::Counters(counters), None) => Ok(counters),
            _ => Err(other()),
        }
    }

    fn close(&self) {
        // Where nobody answers, the daemon that comes next does the same.
        _ = self.ask(&Request::Close, None);
    }

    /// Readable for the time of a reply, too; only a hang-up says that the daemon is gone.
    fn line(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}
