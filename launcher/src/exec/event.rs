//! The message that carries one judged action from the supervisor to the guard.
//!
//! Both are the same binary across a fork, so the form is private and native-endian; nothing is stored in it.

use std::net::{IpAddr, Ipv6Addr};

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;

/// What somebody answered to an approval question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Approval {
    /// No question was asked.
    None,
    /// Allowed this once.
    Once,
    /// Allowed for the session, by an answer to this or an earlier question.
    Session,
    /// Refused.
    Refused,
    /// There was nobody to ask.
    Unavailable,
    /// Nobody answered in time.
    TimedOut,
}

impl Approval {
    const ALL: [Self; 6] =
        [Self::None, Self::Once, Self::Session, Self::Refused, Self::Unavailable, Self::TimedOut];

    /// Reads the byte that stands for an answer; anything unknown is a refusal.
    pub(crate) fn from_byte(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or(Self::Refused)
    }

    /// Returns whether the action may go on.
    pub(crate) const fn grants(self) -> bool {
        matches!(self, Self::Once | Self::Session)
    }
}

/// One judged action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Wall clock, nanoseconds since 1970.
    pub(crate) at_ns: u64,
    /// The calling thread.
    pub(crate) tid: u32,
    /// The gate's decision, as `Decision::to_u64`.
    pub(crate) decision: u64,
    /// Whether the verdict was carried out; not so in a simulation.
    pub(crate) enforced: bool,
    /// Whether the object did not exist: an attempt that is recorded and not told.
    pub(crate) absent: bool,
    pub(crate) approval: Approval,
    pub(crate) action: Action<'a>,
}

const FLAG_ENFORCED: u8 = 1;
const FLAG_ARGV: u8 = 2;
const FLAG_NAME: u8 = 4;
const FLAG_ADDRESS: u8 = 8;
const FLAG_ABSENT: u8 = 16;

impl<'a> Event<'a> {
    /// Writes the message into `out`, which is cleared first.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let (kind, text, host) = match self.action.object {
            Object::Path(path) => (0u8, path, None),
            Object::Host(host) => (1, host.name.unwrap_or("").as_bytes(), Some(host)),
            Object::Other(text) => (2, text.as_bytes(), None),
        };
        let mut flags = if self.enforced { FLAG_ENFORCED } else { 0 };
        flags |= if self.absent { FLAG_ABSENT } else { 0 };
        flags |= if self.action.argv.is_some() { FLAG_ARGV } else { 0 };
        flags |= if host.is_some_and(|h| h.name.is_some()) { FLAG_NAME } else { 0 };
        flags |= if host.is_some_and(|h| h.address.is_some()) { FLAG_ADDRESS } else { 0 };
        out.extend_from_slice(&self.at_ns.to_ne_bytes());
        out.extend_from_slice(&self.decision.to_ne_bytes());
        out.extend_from_slice(&self.tid.to_ne_bytes());
        out.extend_from_slice(&[self.action.operation as u8, self.approval as u8, kind, flags]);
        if let Some(host) = host {
            let (v6, octets) = match host.address {
                Some(IpAddr::V4(v4)) => (false, v4.to_ipv6_mapped().octets()),
                Some(IpAddr::V6(v6)) => (true, v6.octets()),
                None => (true, [0; 16]),
            };
            out.push(u8::from(v6));
            out.extend_from_slice(&octets);
            out.extend_from_slice(&host.port.to_ne_bytes());
        }
        for field in [text, self.action.image, self.action.argv.unwrap_or(b"")] {
            out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_ne_bytes());
            out.extend_from_slice(field);
        }
    }

    /// Reads a message; `None` where it is not one.
    pub(crate) fn decode(message: &'a [u8]) -> Option<Self> {
        let mut rest = message;
        let at_ns = u64::from_ne_bytes(*take(&mut rest)?);
        let decision = u64::from_ne_bytes(*take(&mut rest)?);
        let tid = u32::from_ne_bytes(*take(&mut rest)?);
        let [operation, approval, kind, flags] = *take::<4>(&mut rest)?;
        let operation = *Operation::ALL.get(usize::from(operation))?;
        let approval = *Approval::ALL.get(usize::from(approval))?;
        let peer = if kind == 1 {
            let [v6] = *take::<1>(&mut rest)?;
            let address = Ipv6Addr::from(*take::<16>(&mut rest)?);
            let address = if v6 == 0 { IpAddr::V4(address.to_ipv4_mapped()?) } else { IpAddr::V6(address) };
            Some((address, u16::from_ne_bytes(*take(&mut rest)?)))
        } else {
            None
        };
        let (text, image, argv) = (field(&mut rest)?, field(&mut rest)?, field(&mut rest)?);
        let object = match (kind, peer) {
            (0, _) => Object::Path(text),
            (1, Some((address, port))) => Object::Host(Host {
                name: if flags & FLAG_NAME != 0 { Some(std::str::from_utf8(text).ok()?) } else { None },
                address: (flags & FLAG_ADDRESS != 0).then_some(address),
                port,
            }),
            _ => Object::Other(std::str::from_utf8(text).ok()?),
        };
        let argv = (flags & FLAG_ARGV != 0).then_some(argv);
        let action = Action { operation, object, image, argv };
        let (enforced, absent) = (flags & FLAG_ENFORCED != 0, flags & FLAG_ABSENT != 0);
        Some(Self { at_ns, tid, decision, enforced, absent, approval, action })
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_ne_bytes(*take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_survives_the_way() {
        let host = |name, address: Option<&str>| {
            Object::Host(Host { name, address: address.map(|a| a.parse().unwrap()), port: 443 })
        };
        let objects = [
            Object::Path(b"/a/\xff"),
            host(Some("example.com"), Some("1.2.3.4")),
            host(None, Some("fe80::1")),
            host(Some("q.example"), None),
            Object::Other("unix:@x"),
        ];
        for object in objects {
            for argv in [None, Some(&b"a\0b\0"[..])] {
                for &operation in Operation::ALL {
                    let action = Action { operation, object, image: b"/bin/x", argv };
                    let event = Event {
                        at_ns: 7,
                        tid: 9,
                        decision: 11,
                        enforced: true,
                        absent: true,
                        approval: Approval::Once,
                        action,
                    };
                    let mut message = Vec::new();
                    event.encode(&mut message);
                    assert_eq!(Event::decode(&message), Some(event));
                }
            }
        }
    }

    #[test]
    fn cut_messages_are_refused() {
        let action =
            Action { operation: Operation::Read, object: Object::Path(b"/x"), image: b"/i", argv: None };
        let event = Event {
            at_ns: 1,
            tid: 1,
            decision: 1,
            enforced: true,
            absent: true,
            approval: Approval::None,
            action,
        };
        let mut message = Vec::new();
        event.encode(&mut message);
        for end in 0..message.len() {
            assert_eq!(Event::decode(&message[..end]), None);
        }
    }
}
