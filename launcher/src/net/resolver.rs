//! The built-in resolver: the workload's queries come here instead of to the name servers.
//!
//! Each query becomes an intent before anything leaves the machine. What is allowed is forwarded to the real name
//! servers, and the answer is remembered before the workload has it, so that the connect that follows can be judged by
//! name. Whatever is not a plain question is refused and goes nowhere.
//!
//! Limits: the sockets are on the loopback interface, so other programs of this host can reach them; they learn nothing
//! they could not ask for themselves, but they are judged as the workload is. Nothing is cached: each query is judged
//! and asked. The supervisor starts one resolver for a session, which ends with the supervisor's process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::addresses::Addresses;
use super::message::{Code, MESSAGE_MAX, Query, Unfit};
use super::upstream::{self, PATIENCE, Transport, Upstream};

/// Queries between their arrival and their answer; each has a thread, for a person may be asked about it.
const QUERIES_MAX: usize = 256;
/// Connections open at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take for its next message, and for taking a reply.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failure of a listening socket, which may be without descriptors.
const PAUSE: Duration = Duration::from_millis(20);
/// Ports tried until one is free for both transports.
const PORTS_TRIED: usize = 16;
/// The threads keep their buffers on the heap.
const STACK_SIZE: usize = 512 << 10;

/// Decides about one queried name (lower-case, no trailing dot); called before anything is sent. May block (a person
/// may be asked).
pub(crate) type Judge = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The resolver of a session.
pub(crate) struct Resolver {
    v4: SocketAddr,
    v6: Option<SocketAddr>,
    service: Arc<Service>,
}

impl Resolver {
    /// Binds UDP and TCP on the loopback addresses, each with one port of the kernel's choice, and starts to answer.
    ///
    /// # Errors
    ///
    /// Fails if there is no server to ask, or no socket or thread to be had. A host without IPv6 is none of these.
    pub(crate) fn start(upstream: Vec<SocketAddr>, judge: Judge) -> io::Result<Arc<Resolver>> {
        Resolver::start_with(upstream, PATIENCE, judge)
    }

    fn start_with(servers: Vec<SocketAddr>, patience: Duration, judge: Judge) -> io::Result<Arc<Resolver>> {
        if servers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name server to ask"));
        }
        let service = Arc::new(Service {
            upstream: Upstream::new(servers, patience),
            judge,
            addresses: Mutex::default(),
            queries: Slots::new(QUERIES_MAX),
            connections: Slots::new(CONNECTIONS_MAX),
        });
        let v4 = listen(Ipv4Addr::LOCALHOST.into(), &service)?;
        let v6 = match listen(Ipv6Addr::LOCALHOST.into(), &service) {
            Ok(address) => Some(address),
            Err(error) if is_without_v6(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Arc::new(Resolver { v4, v6, service }))
    }

    /// Returns where queries go, over UDP and TCP.
    pub(crate) fn address(&self, v6: bool) -> Option<SocketAddr> {
        if v6 { self.v6 } else { Some(self.v4) }
    }

    /// Returns the name that an address was last answered for, while that answer is valid: one that was asked for, not
    /// the target of an alias.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<Arc<str>> {
        self.service.addresses().names(address, Instant::now()).next().map(Arc::clone)
    }

    /// Returns the first name of an address that a test accepts, the latest first; the test may take its time.
    pub(crate) fn any_name(&self, address: IpAddr, test: &mut dyn FnMut(&str) -> bool) -> Option<Arc<str>> {
        let names: Vec<_> = self.service.addresses().names(address, Instant::now()).map(Arc::clone).collect();
        names.into_iter().find(|name| test(name))
    }
}

/// Whether a failure to bind says that this host has no IPv6.
fn is_without_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// What the threads share.
struct Service {
    upstream: Upstream,
    judge: Judge,
    addresses: Mutex<Addresses>,
    queries: Arc<Slots>,
    connections: Arc<Slots>,
}

impl Service {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        // Each change is whole when its call returns; a thread that died left nothing half done that matters.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a message and answers it by way of a thread of its own, or at once if it is none to forward.
    fn receive(
        self: &Arc<Self>,
        bytes: &[u8],
        transport: Transport,
        reply_to: impl FnOnce(&[u8]) + Send + 'static,
    ) {
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(Unfit::Reply(reply)) => return reply_to(&reply),
            Err(Unfit::Silent) => return,
        };
        let Some(slot) = self.queries.take() else { return reply_to(&query.reply(Code::ServerFailure)) };
        let service = Arc::clone(self);
        // A thread that cannot be had answers nothing; the client asks again.
        let _unlikely = spawn("gait-dns-query", move || {
            let reply = service.answer(&query, transport);
            reply_to(&reply);
            drop(slot);
        })
        .is_err();
    }

    /// Judges a query, and asks and remembers if it is allowed.
    fn answer(&self, query: &Query, transport: Transport) -> Vec<u8> {
        if !(self.judge)(query.name()) {
            return query.reply(Code::Refused);
        }
        let Some(reply) = self.upstream.ask(query, transport) else {
            return query.reply(Code::ServerFailure);
        };
        let found = query.addresses(&reply);
        let now = Instant::now();
        for (address, ttl_secs) in found {
            self.addresses().remember(address, query.name(), ttl_secs, now);
        }
        match transport {
            Transport::Datagram => query.datagram_reply(&reply),
            Transport::Stream => query.stream_reply(&reply),
        }
    }
}

/// A number of things that may be had at a time.
struct Slots {
    used: AtomicUsize,
    max: usize,
}

impl Slots {
    fn new(max: usize) -> Arc<Slots> {
        Arc::new(Slots { used: AtomicUsize::new(0), max })
    }

    fn take(self: &Arc<Self>) -> Option<Slot> {
        let more = |used| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Slot(Arc::clone(self)))
    }
}

/// One of these; given back when dropped.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_SIZE).spawn(work).map(drop)
}

/// Binds both transports to one port of an address and starts their threads.
fn listen(ip: IpAddr, service: &Arc<Service>) -> io::Result<SocketAddr> {
    let (socket, listener) = bind_both(ip)?;
    let address = socket.local_addr()?;
    let (datagrams, streams) = (Arc::clone(service), Arc::clone(service));
    spawn("gait-dns-udp", move || serve_datagrams(&Arc::new(socket), &datagrams))?;
    spawn("gait-dns-tcp", move || serve_streams(&listener, &streams))?;
    Ok(address)
}

fn bind_both(ip: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let socket = UdpSocket::bind((ip, 0))?;
        match TcpListener::bind(socket.local_addr()?) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < PORTS_TRIED => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn serve_datagrams(socket: &Arc<UdpSocket>, service: &Arc<Service>) {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            thread::sleep(PAUSE);
            continue;
        };
        let socket = Arc::clone(socket);
        let bytes = buffer.get(..length).unwrap_or_default();
        service.receive(bytes, Transport::Datagram, move |reply| {
            // A client that is gone needs no reply.
            let _gone = socket.send_to(reply, client).is_err();
        });
    }
}

fn serve_streams(listener: &TcpListener, service: &Arc<Service>) {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        // One too many is hung up on: nobody is to wait for a turn that others hold.
        let Some(slot) = service.connections.take() else { continue };
        let service = Arc::clone(service);
        let _unlikely = spawn("gait-dns-stream", move || {
            // Its end is the client's affair: it hung up, or was idle for too long.
            let _ended = serve_stream(stream, slot, &service).is_err();
        })
        .is_err();
    }
}

/// The writing end of a connection, held by each query that came over it.
struct Connection {
    writer: Mutex<TcpStream>,
    _slot: Slot,
}

/// Reads queries until the client ends or idles; their replies go out as they come (RFC 7766, 6.2.1.1).
fn serve_stream(mut stream: TcpStream, slot: Slot, service: &Arc<Service>) -> io::Result<()> {
    let writer = stream.try_clone()?;
    writer.set_write_timeout(Some(IDLE))?;
    let connection = Arc::new(Connection { writer: Mutex::new(writer), _slot: slot });
    loop {
        let message = upstream::read_message(&mut stream, Instant::now() + IDLE)?;
        let connection = Arc::clone(&connection);
        service.receive(&message, Transport::Stream, move |reply| {
            let mut writer = connection.writer.lock().unwrap_or_else(PoisonError::into_inner);
            // Half a message is the end of a connection: what followed would be read as its rest.
            if upstream::write_message(&mut *writer, reply).is_err() {
                let _gone = writer.shutdown(std::net::Shutdown::Both).is_err();
            }
        });
    }
}

#[cfg(test)]
mod tests;
