use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME};
use simple_dns::{Name, PacketFlag, Question, ResourceRecord, TYPE};

use super::*;

/// A query as a stub resolver makes it.
fn asked(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).unwrap(), kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

fn with_edns(mut query: Vec<u8>, payload: u16, options: &[u8]) -> Vec<u8> {
    query[11] = 1;
    query.extend([0, 0, 41]);
    query.extend(payload.to_be_bytes());
    query.extend([0, 0, 0x80, 0]);
    query.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    query.extend(options);
    query
}

fn record<'a>(owner: &'a str, ttl: u32, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(Name::new(owner).unwrap(), CLASS::IN, ttl, data)
}

fn a(address: [u8; 4]) -> RData<'static> {
    RData::A(A { address: u32::from_be_bytes(address) })
}

fn alias(target: &str) -> RData<'_> {
    RData::CNAME(CNAME(Name::new(target).unwrap()))
}

fn answered(query: &[u8], answers: Vec<ResourceRecord<'_>>) -> Vec<u8> {
    let mut packet = Packet::parse(query).unwrap().into_reply();
    packet.answers = answers;
    packet.build_bytes_vec_compressed().unwrap()
}

fn addresses(query: &[u8], answers: Vec<ResourceRecord<'_>>) -> Vec<(String, u32)> {
    let reply = answered(query, answers);
    let found = Query::read(query).unwrap().addresses(&reply);
    found.into_iter().map(|(address, ttl)| (address.to_string(), ttl)).collect()
}

fn code_of(unfit: Result<Query, Unfit>) -> Option<u8> {
    match unfit {
        Err(Unfit::Reply(reply)) => {
            assert_eq!(&reply[..2], [0x12, 0x34], "the client knows its query by the id");
            assert_eq!(reply[2] & RESPONSE, RESPONSE);
            Some(reply[3] & CODE)
        }
        _ => None,
    }
}

#[test]
fn names_are_lower_case_and_without_a_trailing_dot() {
    let name = |text| Query::read(&asked(text, TYPE::A)).unwrap().name().to_string();
    assert_eq!(name("Files.PythonHosted.ORG"), "files.pythonhosted.org");
    assert_eq!(name("_http._tcp.x-1.example"), "_http._tcp.x-1.example");
    assert_eq!(name("."), ".");
}

#[test]
fn a_dot_within_a_label_does_not_separate_labels() {
    // Two labels, which a careless reader takes for `x.pythonhosted.org`.
    let query = Query::read(&asked(r"x\.pythonhosted.org", TYPE::A)).unwrap();
    assert_eq!(&**query.name(), r"x\046pythonhosted.org");
    let query = Query::read(&asked(r"*\000\\.Example", TYPE::A)).unwrap();
    assert_eq!(&**query.name(), r"\042\000\092.example");
}

#[test]
fn a_query_is_sent_on_as_it_came_but_for_the_id() {
    let bytes = with_edns(asked("MiXed.example", TYPE::AAAA), 1400, &[0, 10, 0, 2, 7, 7]);
    let sent = Query::read(&bytes).unwrap().with_id(0xbeef);
    assert_eq!((&sent[..2], &sent[2..]), (&[0xbe, 0xef][..], &bytes[2..]));
}

#[test]
fn only_plain_questions_are_fit() {
    let plain = asked("a.example", TYPE::A);
    let changed = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        Query::read(&bytes)
    };
    let type_at = plain.len() - 4;
    assert!(Query::read(&plain).is_ok());
    assert_eq!(code_of(changed(2, 0x28)), Some(5), "an update");
    assert_eq!(code_of(changed(type_at + 3, 3)), Some(5), "class CHAOS");
    assert_eq!(code_of(changed(type_at + 2, 0x80)), Some(5), "the unicast bit of multicast DNS");
    assert_eq!(code_of(changed(type_at + 1, 252)), Some(5), "a zone transfer");
    assert_eq!(code_of(changed(5, 0)), Some(1), "no question");
    assert_eq!(code_of(changed(5, 2)), Some(1), "two questions promised");
    assert_eq!(code_of(changed(7, 1)), Some(1), "an answer");
    assert_eq!(code_of(changed(9, 1)), Some(1), "an authority");
    assert_eq!(code_of(changed(11, 1)), Some(1), "a record that is not there");
    assert_eq!(changed(2, 0x81), Err(Unfit::Silent), "a reply");
    let mut two = plain.clone();
    two[5] = 2;
    two.extend(&plain[12..]);
    assert_eq!(code_of(Query::read(&two)), Some(1), "two questions");
    let trailing = [&plain[..], b"smuggled"].concat();
    assert_eq!(code_of(Query::read(&trailing)), Some(1), "more than the message");
    for length in 3..plain.len() {
        assert_eq!(code_of(Query::read(&plain[..length])), Some(1), "cut to {length}");
    }
}

#[test]
fn names_that_the_new_id_would_change_are_not_read() {
    // A pointer to the id: what was judged as `a.` would be asked as another name.
    let bytes = [1, b'a', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x00, 0, 1, 0, 1];
    assert!(Packet::parse(&bytes).is_ok(), "a name server may read it");
    assert!(matches!(Query::read(&bytes), Err(Unfit::Reply(reply)) if reply[3] & CODE == 1));
    for length in [64, 0x41, 0x80, 0xc0] {
        let mut bytes = asked("a.example", TYPE::A);
        bytes[HEADER] = length;
        assert_eq!(code_of(Query::read(&bytes)), Some(1), "label of length {length}");
    }
}

#[test]
fn names_have_a_limit() {
    let name = |last: usize| [vec!["a".repeat(63); 3], vec!["b".repeat(last)]].concat().join(".");
    assert!(Query::read(&asked(&name(61), TYPE::A)).is_ok(), "255 bytes on the wire");
    let mut long = asked(&name(61), TYPE::A);
    let at = HEADER + 3 * 64;
    long[at] = 62;
    long.insert(at + 1, b'b');
    assert_eq!(code_of(Query::read(&long)), Some(1), "256 bytes");
}

#[test]
fn the_record_after_the_question_is_an_edns_record() {
    let plain = asked("a.example", TYPE::A);
    let edns = with_edns(plain.clone(), 1232, &[0, 12, 0, 1, 0]);
    assert_eq!(Query::read(&edns).unwrap().payload_max, Some(1232));
    for length in plain.len()..edns.len() {
        assert_eq!(code_of(Query::read(&edns[..length])), Some(1), "cut to {length}");
    }
    let mut other = edns.clone();
    other[plain.len() + 2] = 16;
    assert_eq!(code_of(Query::read(&other)), Some(1), "a text record");
    let mut named = edns;
    named[plain.len()] = 1;
    assert_eq!(code_of(Query::read(&named)), Some(1), "a name that is not the root's");
}

#[test]
fn a_reply_has_the_id_and_the_question() {
    let query_bytes = asked("a.example", TYPE::HTTPS);
    let query = Query::read(&query_bytes).unwrap();
    let mut reply = answered(&query_bytes, Vec::new());
    let type_at = HEADER + "a.example".len() + 2;
    assert!(query.is_answered_by(&reply, 0x1234));
    assert!(!query.is_answered_by(&reply, 0x1235));
    assert!(!query.is_answered_by(&query_bytes, 0x1234), "the query itself");
    reply[HEADER + 1] = b'A';
    assert!(query.is_answered_by(&reply, 0x1234), "the case of a name is free");
    // 65 and 97 are `A` and `a`.
    reply[type_at + 1] = 97;
    assert!(!query.is_answered_by(&reply, 0x1234), "the type is not");
    reply[type_at + 1] = 65;
    reply[HEADER + 1] = b'b';
    assert!(!query.is_answered_by(&reply, 0x1234), "another name");
    reply[HEADER + 1] = b'a';
    reply[5] = 0;
    assert!(!query.is_answered_by(&reply, 0x1234), "no question");
}

#[test]
fn replies_of_our_own_are_replies_to_the_question() {
    let bytes = with_edns(asked("a.Example", TYPE::A), 4096, &[]);
    let reply = Query::read(&bytes).unwrap().reply(Code::Refused);
    let packet = Packet::parse(&reply).unwrap();
    assert_eq!((packet.id(), packet.rcode()), (0x1234, simple_dns::RCODE::Refused));
    assert_eq!(packet.questions[0].qname.to_string(), "a.Example");
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
    assert!(packet.opt().is_some());
    let plain = Query::read(&asked("a.Example", TYPE::A)).unwrap().reply(Code::Refused);
    assert!(Packet::parse(&plain).unwrap().opt().is_none());
}

#[test]
fn datagrams_are_cut_to_what_the_client_takes() {
    let plain = asked("a.example", TYPE::A);
    let many = (0..60).map(|n| record("a.example", 60, a([192, 0, 2, n]))).collect();
    let reply = answered(&plain, many);
    assert!((900..1200).contains(&reply.len()));
    let cut = Query::read(&plain).unwrap().datagram_reply(&reply);
    let packet = Packet::parse(&cut).unwrap();
    assert!(packet.has_flags(PacketFlag::TRUNCATION) && packet.answers.is_empty() && cut.len() <= 512);
    assert!(is_truncated(&cut) && !is_truncated(&reply));
    let roomy = Query::read(&with_edns(plain.clone(), 1232, &[])).unwrap();
    assert_eq!(roomy.datagram_reply(&reply), reply);
    let stingy = Query::read(&with_edns(plain.clone(), 100, &[])).unwrap();
    assert!(is_truncated(&stingy.datagram_reply(&reply)));
    let small = answered(&plain, vec![record("a.example", 60, a([192, 0, 2, 1]))]);
    assert_eq!(stingy.datagram_reply(&small), small, "512 bytes are always taken");
    assert_eq!(Query::read(&plain).unwrap().stream_reply(&reply), reply);
}

#[test]
fn addresses_are_those_of_the_name() {
    let query = asked("a.example", TYPE::A);
    let answers = vec![
        record("A.Example", 60, a([192, 0, 2, 1])),
        record("other.example", 60, a([192, 0, 2, 66])),
        record("a.example", 90, RData::AAAA(AAAA { address: 1 })),
    ];
    assert_eq!(addresses(&query, answers), [("192.0.2.1".to_owned(), 60), ("::1".to_owned(), 90)]);
}

#[test]
fn addresses_are_found_through_aliases_in_any_order() {
    let query = asked("a.example", TYPE::A);
    let answers = vec![
        record("c.cdn.example", 500, a([192, 0, 2, 1])),
        record("b.example", 40, alias("C.cdn.example")),
        record("a.example", 100, alias("b.example")),
        record("stray.example", 500, a([192, 0, 2, 66])),
    ];
    // No longer than any link of the chain.
    assert_eq!(addresses(&query, answers), [("192.0.2.1".to_owned(), 40)]);
}

#[test]
fn aliases_in_a_circle_come_to_an_end() {
    let query = asked("a.example", TYPE::A);
    let answers =
        vec![record("a.example", 1, alias("b.example")), record("b.example", 1, alias("a.example"))];
    assert!(addresses(&query, answers).is_empty());
}

#[test]
fn other_questions_and_failures_give_no_addresses() {
    let answer = || vec![record("a.example", 60, a([192, 0, 2, 1]))];
    assert!(addresses(&asked("a.example", TYPE::TXT), answer()).is_empty());
    let bytes = asked("a.example", TYPE::A);
    let query = Query::read(&bytes).unwrap();
    let mut reply = answered(&bytes, answer());
    assert_eq!(query.addresses(&reply).len(), 1);
    reply[3] |= 3;
    assert!(query.addresses(&reply).is_empty(), "no such name");
}

#[test]
fn only_the_answer_section_gives_addresses() {
    let bytes = asked("a.example", TYPE::A);
    let mut packet = Packet::parse(&bytes).unwrap().into_reply();
    packet.additional_records = vec![record("a.example", 60, a([192, 0, 2, 66]))];
    packet.name_servers = vec![record("a.example", 60, a([192, 0, 2, 66]))];
    let query = Query::read(&bytes).unwrap();
    assert!(query.addresses(&packet.build_bytes_vec().unwrap()).is_empty());
    // What follows the answers does not make them unreadable.
    packet.answers = vec![record("a.example", 60, a([192, 0, 2, 1]))];
    let mut reply = packet.build_bytes_vec().unwrap();
    reply.truncate(reply.len() - 5);
    assert_eq!(query.addresses(&reply).len(), 1);
}

#[test]
fn promises_of_more_records_than_fit_are_not_believed() {
    let bytes = asked("a.example", TYPE::A);
    let mut reply = answered(&bytes, vec![record("a.example", 60, a([192, 0, 2, 1]))]);
    reply[6] = 0xff;
    assert!(Query::read(&bytes).unwrap().addresses(&reply).is_empty());
}

/// Valid queries with some bytes changed, which come further than noise.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![
        Just(asked("files.pythonhosted.org", TYPE::A)),
        Just(with_edns(asked("a.b.example", TYPE::AAAA), 1232, &[0, 10, 0, 2, 1, 2])),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (base, changes, 0..4_usize).prop_map(|(mut bytes, changes, cut)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut);
        bytes
    })
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![damaged(), prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is fit to forward is read as the same question by a reader that knows nothing of this one.
    #[test]
    fn what_is_forwarded_reads_the_same_elsewhere(bytes in any_message(), id: u16) {
        if let Ok(query) = Query::read(&bytes) {
            let sent = query.with_id(id);
            prop_assert_eq!(&sent[2..], &bytes[2..]);
            // It does not know all types, and refuses reserved flags; neither is part of the name.
            let mut known = sent.clone();
            known[3] = 0;
            known[query.question_end - 4..query.question_end - 2].copy_from_slice(&[0, 1]);
            known[11] = 0;
            let packet = Packet::parse(&known[..query.question_end]).unwrap();
            prop_assert_eq!(packet.questions.len(), 1);
            prop_assert_eq!(text(packet.questions[0].qname.as_bytes()), &**query.name());
            prop_assert_eq!(u16::from(packet.questions[0].qclass), CLASS_IN);
            prop_assert_eq!(packet.opcode(), simple_dns::OPCODE::StandardQuery);
            prop_assert!(!packet.has_flags(PacketFlag::RESPONSE));
        }
    }

    /// Nothing that a name server sends stops the resolver.
    #[test]
    fn any_reply_can_be_read(noise in any_message(), records in prop::collection::vec(any::<u8>(), 0..200), count: u8) {
        let bytes = asked("a.example", TYPE::A);
        let query = Query::read(&bytes).unwrap();
        let mut reply = answered(&bytes, Vec::new());
        reply[7] = count;
        reply.extend(records);
        for reply in [noise, reply] {
            query.addresses(&reply);
            query.is_answered_by(&reply, 1);
            prop_assert!(query.datagram_reply(&reply).len() <= 512);
        }
    }
}
