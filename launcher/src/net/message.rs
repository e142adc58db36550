//! DNS messages: what the resolver must understand of a query and of its reply.
//!
//! A query is forwarded byte for byte, so what was judged must be what the name server reads. Its header, question and
//! EDNS record are therefore read here, strictly: one question, a name without compression (a pointer could lead into
//! the id, which changes on the way), nothing else in the message. Replies come from outside; of these only the answer
//! section is taken apart, by `simple-dns`, and only where it can hold addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Packet};

/// The largest message: its length is 16 bits over TCP.
pub(super) const MESSAGE_MAX: usize = 65_535;
/// The largest datagram of IPv4.
const DATAGRAM_MAX: usize = 65_507;
/// The largest reply over UDP to a client that does not say what it can take (RFC 1035, 4.2.1).
const PAYLOAD_MIN: u16 = 512;
/// Length of the header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Length of a name on the wire (RFC 1035, 3.1).
const NAME_MAX: usize = 255;
/// Length of a label; longer lengths are compression pointers and reserved forms.
const LABEL_MAX: u8 = 63;
/// The shortest record: the root's name, type, class, TTL and an empty content.
const RECORD_MIN: usize = 11;
/// The longest chain of aliases followed; resolvers give up around here, too.
const ALIASES_MAX: usize = 16;

/// In the third byte of the header: a reply.
const RESPONSE: u8 = 0x80;
/// In the third byte of the header: the kind of query; 0 is a plain one.
const OPCODE: u8 = 0x78;
/// In the third byte of the header: the reply was cut.
const TRUNCATED: u8 = 0x02;
/// In the third byte of the header: recursion is wanted.
const RECURSION: u8 = 0x01;
/// In the fourth byte of the header: recursion is on offer.
const RECURSION_OFFERED: u8 = 0x80;

/// In the fourth byte of the header: what the reply says about the query as a whole.
const CODE: u8 = 0x0f;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// The EDNS record of our own replies: the root's name, `OPT`, 1232 bytes, no flags, no options.
const OWN_OPT: [u8; RECORD_MIN] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// What a reply says about the query as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    Format = 1,
    ServerFailure = 2,
    Refused = 5,
}

/// The message is not a query to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It gets no reply: it is too short to have an id, or is itself a reply, and answering those can go on forever.
    Silent,
    /// It gets this reply.
    Reply(Vec<u8>),
}

/// A query with one question of the internet class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    bytes: Vec<u8>,
    name: Arc<str>,
    /// Where the question ends; it begins behind the header.
    question_end: usize,
    kind: u16,
    /// The largest UDP reply its EDNS record allows.
    payload_max: Option<u16>,
}

impl Query {
    /// Reads a message of the workload.
    ///
    /// # Errors
    ///
    /// Fails with the reply to give if it is anything but one plain question.
    pub(super) fn read(bytes: &[u8]) -> Result<Query, Unfit> {
        let (Some(id), Some(flags)) = (u16_at(bytes, 0), bytes.get(2).copied()) else {
            return Err(Unfit::Silent);
        };
        if flags & RESPONSE != 0 {
            return Err(Unfit::Silent);
        }
        let unfit = |code| Err(Unfit::Reply(own_reply(id, flags, code, &[], false)));
        if flags & OPCODE != 0 {
            return unfit(Code::Refused);
        }
        let Some(query) = Query::parse(bytes) else { return unfit(Code::Format) };
        let class = u16_at(bytes, query.question_end - 2);
        // A zone transfer is a stream of replies, and no stub resolver's business.
        if class != Some(CLASS_IN) || matches!(query.kind, TYPE_IXFR | TYPE_AXFR) {
            return Err(Unfit::Reply(query.reply(Code::Refused)));
        }
        Ok(query)
    }

    /// Reads one question and at most an EDNS record, to the last byte.
    fn parse(bytes: &[u8]) -> Option<Query> {
        let counts = [u16_at(bytes, 4)?, u16_at(bytes, 6)?, u16_at(bytes, 8)?, u16_at(bytes, 10)?];
        let additional = match counts {
            [1, 0, 0, additional @ 0..=1] => additional,
            _ => return None,
        };
        if bytes.len() > MESSAGE_MAX {
            return None;
        }
        let (name, name_end) = plain_name(bytes)?;
        let kind = u16_at(bytes, name_end)?;
        let question_end = name_end + 4;
        let rest = bytes.get(question_end..)?;
        let payload_max = if additional == 1 { Some(edns_payload(rest)?) } else { None };
        if additional == 0 && !rest.is_empty() {
            return None;
        }
        Some(Query { bytes: bytes.to_vec(), name: name.into(), question_end, kind, payload_max })
    }

    /// The queried name: lower-case, without trailing dot; `.` for the root. Bytes that no host name has are `\DDD`,
    /// so that a dot always stands between labels.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The message to send on under an id.
    pub(super) fn with_id(&self, id: u16) -> Vec<u8> {
        renumbered(&self.bytes, id)
    }

    /// Whether a message is a reply to this query under an id.
    pub(super) fn is_answered_by(&self, reply: &[u8], id: u16) -> bool {
        // The name's case is the server's choice. Type and class are numbers, whose bytes may be those of letters.
        let name_end = self.question_end - 4;
        let same = |from, to, fold: bool| match (self.bytes.get(from..to), reply.get(from..to)) {
            (Some(asked), Some(told)) if fold => asked.eq_ignore_ascii_case(told),
            (Some(asked), Some(told)) => asked == told,
            _ => false,
        };
        u16_at(reply, 0) == Some(id)
            && reply.get(2).is_some_and(|flags| flags & (RESPONSE | OPCODE) == RESPONSE)
            && u16_at(reply, 4) == Some(1)
            && same(HEADER, name_end, true)
            && same(name_end, self.question_end, false)
    }

    /// A reply of our own, without records.
    pub(super) fn reply(&self, code: Code) -> Vec<u8> {
        let id = u16_at(&self.bytes, 0).unwrap_or_default();
        let flags = self.bytes.get(2).copied().unwrap_or_default();
        let question = self.bytes.get(HEADER..self.question_end).unwrap_or_default();
        own_reply(id, flags, code, question, self.payload_max.is_some())
    }

    /// A name server's reply as the client gets it over a stream.
    pub(super) fn stream_reply(&self, reply: &[u8]) -> Vec<u8> {
        renumbered(reply, u16_at(&self.bytes, 0).unwrap_or_default())
    }

    /// A name server's reply as the client gets it in a datagram: cut to the question if it is larger than the client
    /// can take.
    pub(super) fn datagram_reply(&self, reply: &[u8]) -> Vec<u8> {
        let limit = usize::from(self.payload_max.unwrap_or(PAYLOAD_MIN).max(PAYLOAD_MIN));
        if reply.len() <= limit.min(DATAGRAM_MAX) {
            return self.stream_reply(reply);
        }
        let mut cut = self.reply(Code::NoError);
        if let ([_, _, flags, code, ..], Some(told)) = (cut.as_mut_slice(), reply.get(3)) {
            *flags |= TRUNCATED;
            *code |= told & CODE;
        }
        cut
    }

    /// The addresses that a reply to this query gives to its name, each with its time to live in seconds.
    ///
    /// Only the answer section counts, and in it only what the name or one of its aliases owns. An answer that cannot
    /// be read gives none.
    pub(super) fn addresses(&self, reply: &[u8]) -> Vec<(IpAddr, u32)> {
        if !matches!(self.kind, TYPE_A | TYPE_AAAA | TYPE_ANY) {
            return Vec::new();
        }
        answer_addresses(reply, &self.name).unwrap_or_default()
    }
}

/// Whether a reply says that it was cut to fit a datagram.
pub(super) fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Whether a reply says that this server could not or would not answer, so that another may.
pub(super) fn is_failure(reply: &[u8]) -> bool {
    /// The server does not know this kind of query.
    const NOT_IMPLEMENTED: u8 = 4;
    let code = reply.get(3).map(|code| code & CODE);
    [Code::ServerFailure as u8, NOT_IMPLEMENTED, Code::Refused as u8].map(Some).contains(&code)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn renumbered(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    message
}

/// A reply without records to a query with an id and flags.
fn own_reply(id: u16, flags: u8, code: Code, question: &[u8], edns: bool) -> Vec<u8> {
    let mut reply = Vec::with_capacity(HEADER + question.len() + OWN_OPT.len());
    reply.extend(id.to_be_bytes());
    reply.extend([RESPONSE | (flags & (OPCODE | RECURSION)), RECURSION_OFFERED | code as u8]);
    reply.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, u8::from(edns)]);
    reply.extend(question);
    if edns {
        reply.extend(OWN_OPT);
    }
    reply
}

/// Reads the name behind the header, and where it ends; compression and reserved forms are not a name here.
fn plain_name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER;
    let mut labels = Vec::new();
    loop {
        let length = *bytes.get(at)?;
        at += 1;
        if length == 0 {
            break;
        }
        let end = at + usize::from(length);
        if length > LABEL_MAX || end - HEADER >= NAME_MAX {
            return None;
        }
        labels.push(bytes.get(at..end)?);
        at = end;
    }
    Some((text(labels.into_iter()), at))
}

/// A name as text, in the one form that names have beyond this module.
fn text<'a>(labels: impl Iterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for label in labels {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            match byte.to_ascii_lowercase() {
                byte @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => text.push(char::from(byte)),
                byte => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// The payload size of an EDNS record that is all of `bytes` (RFC 6891, 6.1.2).
fn edns_payload(bytes: &[u8]) -> Option<u16> {
    let length = usize::from(u16_at(bytes, 9)?);
    let is_opt = bytes.first() == Some(&0) && u16_at(bytes, 1) == Some(TYPE_OPT);
    (is_opt && bytes.len() == RECORD_MIN + length).then(|| u16_at(bytes, 3))?
}

/// The addresses in the answer section that belong to a name, directly or through its aliases.
fn answer_addresses(reply: &[u8], name: &str) -> Option<Vec<(IpAddr, u32)>> {
    if reply.get(3)? & CODE != Code::NoError as u8 {
        return None;
    }
    // The parser makes room for as many records as the header promises.
    if usize::from(u16_at(reply, 6)?) * RECORD_MIN > reply.len() {
        return None;
    }
    // Without the other sections: what is not asked for is not to make an answer unreadable.
    let mut message = reply.to_vec();
    message.get_mut(8..HEADER)?.fill(0);
    let packet = Packet::parse(&message).ok()?;
    let records: Vec<_> = packet
        .answers
        .iter()
        .filter(|record| record.class == CLASS::IN)
        .map(|record| (text(record.name.as_bytes()), record))
        .collect();

    let mut found = Vec::new();
    let mut owner = name.to_owned();
    let mut chain_ttl = u32::MAX;
    for _ in 0..ALIASES_MAX {
        let mut alias = None;
        for (_, record) in records.iter().filter(|(name, _)| *name == owner) {
            let ttl = record.ttl.min(chain_ttl);
            match &record.rdata {
                RData::A(a) => found.push((IpAddr::V4(Ipv4Addr::from(a.address)), ttl)),
                RData::AAAA(aaaa) => found.push((IpAddr::V6(Ipv6Addr::from(aaaa.address)), ttl)),
                RData::CNAME(target) => alias = Some((text(target.as_bytes()), ttl)),
                _ => {}
            }
        }
        match alias {
            Some((target, ttl)) => (owner, chain_ttl) = (target, ttl),
            None => break,
        }
    }
    Some(found)
}

#[cfg(any(test, fuzzing))]
#[expect(clippy::panic, reason = "a body of a fuzz target fails by panicking")]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
