//! The real name servers: one question, one answer that can be trusted to be its answer.
//!
//! Whoever can make the resolver believe a false reply chooses which addresses a rule about a name lets through. So each
//! query has a socket (and so a port of the kernel's choice) and a random id of its own, the socket is connected to the
//! server, the question must come back, and a socket at which somebody guesses is given up.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{self, MESSAGE_MAX, Query};

/// How long a server is waited for, in each of its transports.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams that are not the reply: beyond these somebody guesses.
const STRAYS_MAX: usize = 64;

/// How a query came and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Stream,
}

/// The name servers of this machine, asked in order.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Vec<SocketAddr>,
    patience: Duration,
}

impl Upstream {
    pub(super) fn new(servers: Vec<SocketAddr>, patience: Duration) -> Upstream {
        Upstream { servers, patience }
    }

    /// Asks the servers in turn until one answers.
    ///
    /// Returns the reply, under the id that it was asked with. Where none is good, a server's refusal or a cut reply is
    /// better than nothing; `None` if no server replied.
    pub(super) fn ask(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        let mut second_best = None;
        for &server in &self.servers {
            match self.ask_one(server, query, transport) {
                Ok(reply) if message::is_failure(&reply) => second_best = second_best.or(Some(reply)),
                Ok(reply) => return Some(reply),
                // A server that does not answer is what the others are for.
                Err(_) => {}
            }
        }
        second_best
    }

    fn ask_one(&self, server: SocketAddr, query: &Query, transport: Transport) -> io::Result<Vec<u8>> {
        if transport == Transport::Stream {
            return self.ask_stream(server, query);
        }
        let reply = self.ask_datagram(server, query)?;
        if !message::is_truncated(&reply) {
            return Ok(reply);
        }
        Ok(self.ask_stream(server, query).unwrap_or(reply))
    }

    fn ask_datagram(&self, server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.patience;
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // The kernel keeps datagrams of others from a connected socket.
        socket.connect(server)?;
        let id = random_id()?;
        socket.send(&query.with_id(id))?;
        let mut buffer = vec![0; MESSAGE_MAX];
        for _ in 0..STRAYS_MAX {
            socket.set_read_timeout(Some(left_until(deadline)?))?;
            let length = match socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let reply = buffer.get(..length).unwrap_or_default();
            if query.is_answered_by(reply, id) {
                return Ok(reply.to_vec());
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    fn ask_stream(&self, server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.patience;
        let mut stream = TcpStream::connect_timeout(&server, self.patience)?;
        stream.set_write_timeout(Some(left_until(deadline)?))?;
        let id = random_id()?;
        write_message(&mut stream, &query.with_id(id))?;
        let reply = read_message(&mut stream, deadline)?;
        if query.is_answered_by(&reply, id) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(u16::from_ne_bytes(id))
}

/// The time left, never zero, which sockets take for forever.
fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads one message with its length before it (RFC 1035, 4.2.2).
pub(super) fn read_message(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_all(stream, &mut length, deadline)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    read_all(stream, &mut message, deadline)?;
    Ok(message)
}

/// Fills a buffer by a deadline, however slowly the bytes drip.
fn read_all(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = buffer.split_at_mut(length).1,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes one message with its length before it, in one piece.
pub(super) fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    stream.write_all(&bytes)
}
