use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FORGED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// Long enough for a busy machine, since nothing here waits for it unless it fails.
const LONG: Duration = Duration::from_secs(60);

fn query(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(0x0707);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).unwrap(), TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

fn reply(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut packet = Packet::parse(query).unwrap().into_reply();
    let owner = packet.questions[0].qname.clone();
    let data = RData::A(A { address: address.into() });
    packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data));
    packet.build_bytes_vec().unwrap()
}

fn coded(query: &[u8], code: RCODE) -> Vec<u8> {
    let mut packet = Packet::parse(query).unwrap().into_reply();
    *packet.rcode_mut() = code;
    packet.build_bytes_vec().unwrap()
}

fn code(reply: &[u8]) -> RCODE {
    let packet = Packet::parse(reply).unwrap();
    assert!(packet.has_flags(PacketFlag::RESPONSE));
    assert_eq!(packet.id(), 0x0707, "the client's id");
    packet.rcode()
}

fn address(reply: &[u8]) -> Option<Ipv4Addr> {
    assert_eq!(code(reply), RCODE::NoError);
    match Packet::parse(reply).unwrap().answers.last()?.rdata {
        RData::A(A { address }) => Some(address.into()),
        _ => None,
    }
}

/// A name server that answers each datagram as it is told, and keeps what it was asked.
fn name_server(
    mut answer: impl FnMut(&UdpSocket, SocketAddr, &[u8]) + Send + 'static,
) -> (SocketAddr, Receiver<Vec<u8>>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = socket.local_addr().unwrap();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
            answer(&socket, client, &buffer[..length]);
        }
    });
    (server, asked)
}

fn give(socket: &UdpSocket, client: SocketAddr, message: &[u8]) {
    socket.send_to(message, client).unwrap();
}

/// A name server that gives every name one address.
fn plain_server() -> (SocketAddr, Receiver<Vec<u8>>) {
    name_server(|socket, client, query| give(socket, client, &reply(query, ADDRESS)))
}

/// Serves streams at the address of a datagram server; one connection for one query.
fn stream_server(server: SocketAddr, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let listener = TcpListener::bind(server).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let query = upstream::read_message(&mut stream, Instant::now() + LONG).unwrap();
            upstream::write_message(&mut stream, &answer(&query)).unwrap();
        }
    });
}

fn resolver(servers: Vec<SocketAddr>) -> Arc<Resolver> {
    Resolver::start_with(servers, LONG, Arc::new(|_| true)).unwrap()
}

/// Sends a datagram to the resolver and returns the socket to wait at.
fn send(resolver: &Resolver, message: &[u8]) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(resolver.address(false).unwrap()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.send(message).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn ask(resolver: &Resolver, message: &[u8]) -> Vec<u8> {
    receive(&send(resolver, message))
}

fn connect(resolver: &Resolver) -> TcpStream {
    TcpStream::connect(resolver.address(false).unwrap()).unwrap()
}

fn read(stream: &mut TcpStream) -> Vec<u8> {
    upstream::read_message(stream, Instant::now() + LONG).unwrap()
}

fn name_of(resolver: &Resolver, address: Ipv4Addr) -> Option<String> {
    resolver.name_of(address.into()).map(|name| name.to_string())
}

/// Waits until no query is under way.
fn settle(resolver: &Resolver) {
    while resolver.service.queries.used.load(Ordering::Acquire) > 0 {
        thread::yield_now();
    }
}

#[test]
fn an_allowed_name_is_answered_and_remembered() {
    let (server, asked) = plain_server();
    let resolver = resolver(vec![server]);
    assert_eq!(name_of(&resolver, ADDRESS), None);
    let sent = query("Files.Example");
    assert_eq!(address(&ask(&resolver, &sent)), Some(ADDRESS));
    assert_eq!(name_of(&resolver, ADDRESS).as_deref(), Some("files.example"));
    assert_eq!(asked.recv().unwrap()[2..], sent[2..], "forwarded as it was");
    ask(&resolver, &query("other.example"));
    assert_eq!(name_of(&resolver, ADDRESS).as_deref(), Some("other.example"), "the latest");
    let accepted = resolver.any_name(ADDRESS.into(), &mut |name| name.starts_with("files."));
    assert_eq!(accepted.as_deref(), Some("files.example"));
    assert_eq!(resolver.any_name(ADDRESS.into(), &mut |_| false), None);
}

#[test]
fn a_blocked_name_never_leaves_the_machine() {
    let (server, asked) = plain_server();
    let (sender, judged) = mpsc::channel();
    let judge = move |name: &str| {
        sender.send(name.to_owned()).unwrap();
        name != "secret.example"
    };
    let resolver = Resolver::start_with(vec![server], LONG, Arc::new(judge)).unwrap();
    assert_eq!(code(&ask(&resolver, &query("Secret.example"))), RCODE::Refused);
    let mut stream = connect(&resolver);
    upstream::write_message(&mut stream, &query("secret.example")).unwrap();
    assert_eq!(code(&read(&mut stream)), RCODE::Refused);
    ask(&resolver, &query("fine.example"));
    assert_eq!(judged.try_iter().collect::<Vec<_>>(), ["secret.example", "secret.example", "fine.example"]);
    let names: Vec<_> =
        asked.try_iter().map(|query| Packet::parse(&query).unwrap().questions[0].qname.to_string()).collect();
    assert_eq!(names, ["fine.example"]);
}

#[test]
fn ids_and_ports_are_new_for_each_query() {
    let (sender, clients) = mpsc::channel();
    let (server, asked) = name_server(move |socket, client, query| {
        sender.send(client.port()).unwrap();
        give(socket, client, &reply(query, ADDRESS));
    });
    let resolver = resolver(vec![server]);
    for _ in 0..16 {
        ask(&resolver, &query("a.example"));
    }
    let ids: std::collections::HashSet<_> = asked.try_iter().map(|query| [query[0], query[1]]).collect();
    let ports: std::collections::HashSet<_> = clients.try_iter().collect();
    assert!(ids.len() > 8 && ports.len() > 8, "{ids:?} {ports:?}");
}

#[test]
fn forged_replies_are_not_believed() {
    let (server, _asked) = name_server(|socket, client, asked| {
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // All that a forger may know, but from elsewhere.
        stranger.send_to(&reply(asked, FORGED), client).unwrap();
        let forged = reply(asked, FORGED);
        let mut other_id = forged.clone();
        other_id[1] ^= 1;
        let mut other_name = reply(&query("b.example"), FORGED);
        other_name[..2].copy_from_slice(&asked[..2]);
        let mut no_reply = forged;
        no_reply[2] &= 0x7f;
        for message in [other_id, other_name, no_reply, b"\0".to_vec(), Vec::new(), reply(asked, ADDRESS)] {
            give(socket, client, &message);
        }
    });
    let resolver = resolver(vec![server]);
    assert_eq!(address(&ask(&resolver, &query("a.example"))), Some(ADDRESS));
    assert_eq!(name_of(&resolver, FORGED), None);
}

#[test]
fn a_socket_at_which_somebody_guesses_is_given_up() {
    let (guessed, _asked) = name_server(|socket, client, query| {
        let mut forged = reply(query, FORGED);
        for _ in 0..64 {
            forged[1] = forged[1].wrapping_add(1);
            give(socket, client, &forged);
        }
        give(socket, client, &reply(query, FORGED));
    });
    let (server, _asked) = plain_server();
    let resolver = resolver(vec![guessed, server]);
    assert_eq!(address(&ask(&resolver, &query("a.example"))), Some(ADDRESS));
    assert_eq!(name_of(&resolver, FORGED), None);
}

#[test]
fn an_alias_is_remembered_by_the_name_that_was_asked() {
    let (server, _asked) = name_server(|socket, client, query| {
        let mut packet = Packet::parse(query).unwrap().into_reply();
        let owner = packet.questions[0].qname.clone();
        let target = Name::new("edge.cdn.example").unwrap();
        let records = [
            (owner, RData::CNAME(CNAME(target.clone()))),
            (target, RData::A(A { address: ADDRESS.into() })),
            (Name::new("unasked.example").unwrap(), RData::A(A { address: FORGED.into() })),
        ];
        for (owner, data) in records {
            packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data));
        }
        socket.send_to(&packet.build_bytes_vec().unwrap(), client).unwrap();
    });
    let resolver = resolver(vec![server]);
    ask(&resolver, &query("www.example"));
    assert_eq!(name_of(&resolver, ADDRESS).as_deref(), Some("www.example"));
    assert_eq!(name_of(&resolver, FORGED), None);
}

/// A server that cuts its datagrams.
fn cutting_server() -> (SocketAddr, Receiver<Vec<u8>>) {
    name_server(|socket, client, query| {
        let mut cut = coded(query, RCODE::NoError);
        cut[2] |= 0x02;
        give(socket, client, &cut);
    })
}

#[test]
fn a_cut_reply_is_fetched_over_a_stream() {
    let (server, _asked) = cutting_server();
    stream_server(server, |query| reply(query, ADDRESS));
    let resolver = resolver(vec![server]);
    assert_eq!(address(&ask(&resolver, &query("a.example"))), Some(ADDRESS));
    assert_eq!(name_of(&resolver, ADDRESS).as_deref(), Some("a.example"));
}

#[test]
fn a_cut_reply_is_passed_on_where_there_is_no_stream() {
    let (server, _asked) = cutting_server();
    let resolver = resolver(vec![server]);
    let reply = ask(&resolver, &query("a.example"));
    assert!(Packet::parse(&reply).unwrap().has_flags(PacketFlag::TRUNCATION));
}

#[test]
fn streams_are_asked_over_streams_and_their_replies_checked() {
    let (server, asked) = plain_server();
    stream_server(server, |query| match query[HEADER_END + 1] {
        b'x' => reply(&self::query("b.example"), FORGED),
        _ => reply(query, ADDRESS),
    });
    let resolver = resolver(vec![server]);
    let mut stream = connect(&resolver);
    upstream::write_message(&mut stream, &query("x.example")).unwrap();
    assert_eq!(code(&read(&mut stream)), RCODE::ServerFailure);
    // Two at once, the second in two pieces.
    let second = query("second.example");
    upstream::write_message(&mut stream, &query("first.example")).unwrap();
    stream.write_all(&u16::try_from(second.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&second[..5]).unwrap();
    assert_eq!(address(&read(&mut stream)), Some(ADDRESS));
    stream.write_all(&second[5..]).unwrap();
    assert_eq!(address(&read(&mut stream)), Some(ADDRESS));
    assert_eq!(name_of(&resolver, ADDRESS).as_deref(), Some("second.example"));
    assert_eq!(name_of(&resolver, FORGED), None);
    assert!(asked.try_recv().is_err(), "no datagram was sent");
}

/// Where the question begins.
const HEADER_END: usize = 12;

#[test]
fn a_silent_server_is_followed_by_the_next() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (server, _asked) = plain_server();
    let servers = vec![silent.local_addr().unwrap(), server];
    let resolver = Resolver::start_with(servers, Duration::from_secs(1), Arc::new(|_| true)).unwrap();
    // On a busy machine the second may be too late as well, and is asked again.
    let mut replies = (0..20).map(|_| ask(&resolver, &query("a.example")));
    let answer = replies.find(|reply| code(reply) != RCODE::ServerFailure);
    assert_eq!(answer.and_then(|reply| address(&reply)), Some(ADDRESS));
    let mut buffer = [0; 512];
    assert!(silent.recv(&mut buffer).unwrap() > 0, "the first was asked first");
}

#[test]
fn a_failing_server_is_followed_by_the_next() {
    let failing = |code| name_server(move |socket, client, query| give(socket, client, &coded(query, code)));
    let ((refusing, _asked), (broken, _asked_too)) = (failing(RCODE::Refused), failing(RCODE::ServerFailure));
    let (server, _asked_last) = plain_server();
    let all = resolver(vec![refusing, broken, server]);
    assert_eq!(address(&ask(&all, &query("a.example"))), Some(ADDRESS));
    let failing = resolver(vec![refusing, broken]);
    assert_eq!(code(&ask(&failing, &query("a.example"))), RCODE::Refused, "the first failure is told");
}

#[test]
fn without_any_answer_the_query_fails() {
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert_eq!(code(&ask(&resolver(vec![closed]), &query("a.example"))), RCODE::ServerFailure);
    assert!(Resolver::start(Vec::new(), Arc::new(|_| true)).is_err());
}

/// A judge that holds names that begin with `slow` until it is let go.
fn slow_judge() -> (Judge, Receiver<()>, Sender<()>) {
    let (arrived, arrivals) = mpsc::channel();
    let (let_go, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let judge = move |name: &str| {
        if name.starts_with("slow") {
            arrived.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        }
        true
    };
    (Arc::new(judge), arrivals, let_go)
}

#[test]
fn a_held_query_does_not_hold_others() {
    let (server, _asked) = plain_server();
    stream_server(server, |query| reply(query, ADDRESS));
    let (judge, arrivals, let_go) = slow_judge();
    let resolver = Resolver::start_with(vec![server], LONG, judge).unwrap();
    let slow = send(&resolver, &query("slow.example"));
    let mut stream = connect(&resolver);
    upstream::write_message(&mut stream, &query("slow.example")).unwrap();
    arrivals.recv().unwrap();
    arrivals.recv().unwrap();
    assert_eq!(address(&ask(&resolver, &query("quick.example"))), Some(ADDRESS));
    upstream::write_message(&mut stream, &query("quick.example")).unwrap();
    assert_eq!(Packet::parse(&read(&mut stream)).unwrap().questions[0].qname.to_string(), "quick.example");
    let_go.send(()).unwrap();
    let_go.send(()).unwrap();
    assert_eq!(address(&receive(&slow)), Some(ADDRESS));
    assert_eq!(address(&read(&mut stream)), Some(ADDRESS));
}

#[test]
fn queries_beyond_the_limit_fail_at_once() {
    let (server, asked) = plain_server();
    let (judge, arrivals, let_go) = slow_judge();
    let resolver = Resolver::start_with(vec![server], LONG, judge).unwrap();
    let held: Vec<_> = (0..QUERIES_MAX)
        .map(|_| {
            let socket = send(&resolver, &query("slow.example"));
            arrivals.recv().unwrap();
            socket
        })
        .collect();
    assert_eq!(code(&ask(&resolver, &query("late.example"))), RCODE::ServerFailure);
    assert!(asked.try_recv().is_err());
    for socket in held {
        let_go.send(()).unwrap();
        drop(socket);
    }
    settle(&resolver);
    assert_eq!(address(&ask(&resolver, &query("late.example"))), Some(ADDRESS));
}

#[test]
fn connections_beyond_the_limit_are_hung_up_on() {
    let (server, _asked) = plain_server();
    let resolver = Resolver::start_with(vec![server], LONG, Arc::new(|_| false)).unwrap();
    let refused = |stream: &mut TcpStream| {
        let sent = upstream::write_message(stream, &query("a.example"));
        sent.and_then(|()| upstream::read_message(stream, Instant::now() + LONG))
    };
    let mut open: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(&resolver)).collect();
    assert!(refused(&mut connect(&resolver)).is_err());
    assert!(refused(&mut open[0]).is_ok());
    open.clear();
    while resolver.service.connections.used.load(Ordering::Acquire) > 0 {
        thread::yield_now();
    }
    assert!(refused(&mut connect(&resolver)).is_ok());
}

#[test]
fn both_families_are_served() {
    let (server, _asked) = plain_server();
    let resolver = resolver(vec![server]);
    // A machine without IPv6 has no such address to serve.
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        assert_eq!(resolver.address(true), None);
        return;
    }
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    socket.connect(resolver.address(true).unwrap()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.send(&query("a.example")).unwrap();
    assert_eq!(address(&receive(&socket)), Some(ADDRESS));
}

/// Whatever is no plain question: noise, and questions with something wrong.
fn unfit() -> impl Strategy<Value = Vec<u8>> {
    let plain = query("smuggled.example");
    let length = plain.len();
    let set = move |at: usize, byte: u8| {
        let mut bytes = query("smuggled.example");
        bytes[at] = byte;
        bytes
    };
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200)
            .prop_filter("a question by chance", |bytes| Query::read(bytes).is_err()),
        (0..length).prop_map(move |cut| plain[..cut].to_vec()),
        prop::collection::vec(any::<u8>(), 1..50).prop_map(|tail| [query("smuggled.example"), tail].concat()),
        (8..=255_u8).prop_map(move |flags| set(2, flags)),
        (0..=255_u8).prop_filter("one question", |&count| count != 1).prop_map(move |count| set(5, count)),
        (1..=255_u8, prop_oneof![Just(7_usize), Just(9), Just(11)])
            .prop_map(move |(count, at)| set(at, count)),
        (0..=255_u8)
            .prop_filter("the internet", |&class| class != 1)
            .prop_map(move |class| set(length - 1, class)),
        (64..=255_u8).prop_map(move |label| set(HEADER_END, label)),
    ]
}

/// Half a message, refused under an id of its own.
const LAST: [u8; 4] = [0xfe, 0xfd, 1, 0];

#[test]
fn garbage_is_not_judged_and_goes_nowhere() {
    let (server, asked) = plain_server();
    let (sender, judged) = mpsc::channel();
    let judge = move |name: &str| sender.send(name.to_owned()).is_ok();
    let resolver = Resolver::start_with(vec![server], LONG, Arc::new(judge)).unwrap();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(unfit(), 1..16), |messages| {
            let socket = send(&resolver, &[]);
            let mut stream = connect(&resolver);
            for message in &messages {
                socket.send(message).unwrap();
                upstream::write_message(&mut stream, message).unwrap();
            }
            // Its reply comes when all before it have been read.
            let last = query("last.example");
            assert_eq!(address(&ask(&resolver, &last)), Some(ADDRESS));
            upstream::write_message(&mut stream, &LAST).unwrap();
            while read(&mut stream)[..2] != LAST[..2] {}
            settle(&resolver);
            prop_assert_eq!(judged.try_iter().collect::<Vec<_>>(), ["last.example"]);
            prop_assert_eq!(asked.try_iter().count(), 1);
            Ok(())
        })
        .unwrap();
}
