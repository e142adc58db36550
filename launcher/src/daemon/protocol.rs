//! What a guard and the daemon say to each other: one request, one reply, each one packet of a `SOCK_SEQPACKET` socket.
//!
//! A packet is at most [`PACKET_MAX`] bytes, little-endian: the version, the kind, and the fields of the kind with nothing
//! behind them. Whatever is not exactly that is malformed, and ends the connection. A new version may change anything but
//! the first four bytes and the form of [`Reply::Refused`], which an older guard must be able to show.

use gait_ebpf::layout::{Counters, Grant, verdict};

use super::refused;
use crate::backend::ebpf::Refused;

/// Version of everything on this page.
pub(crate) const VERSION: u32 = 1;
/// The longest packet.
pub(crate) const PACKET_MAX: usize = 4096;
/// The longest text in a refusal, in bytes.
const TEXT_MAX: usize = 1024;

/// What a guard asks for. The order is `Open`, `Seed`, then any number of `Grant` and `Counters`, then `Close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Make a session. Its tables come with it, as a sealed file in memory.
    Open(Shape),
    /// Put a process under its control. The process comes with it, as a pidfd.
    Seed,
    /// Answer a held action.
    Grant {
        /// The thread that waits.
        tid: u32,
        /// The answer.
        grant: Grant,
    },
    /// Tell what no event tells.
    Counters,
    /// End the session.
    Close,
}

/// What the tables of a session are like: the file holds so many cells, words and places, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// [`gait_ebpf::layout::VERSION`] that the tables were made for.
    pub(crate) layout: u32,
    /// [`gait_ebpf::layout::session_flags`]; whether the session lives is the daemon's to say.
    pub(crate) flags: u32,
    /// Start of the name automaton.
    pub(crate) names: u32,
    /// Start of the path automaton, for objects.
    pub(crate) paths: u32,
    /// Start of the path automaton, for images.
    pub(crate) images: u32,
    /// Classes of images.
    pub(crate) image_classes: u32,
    /// How many cells there are.
    pub(crate) cells: u32,
    /// How many words there are.
    pub(crate) words: u32,
    /// How many named places there are.
    pub(crate) places: u32,
}

impl Shape {
    const fn fields(&self) -> [u32; 9] {
        let Self { layout, flags, names, paths, images, image_classes, cells, words, places } = *self;
        [layout, flags, names, paths, images, image_classes, cells, words, places]
    }
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The session exists. Its ring comes with it.
    Opened {
        /// How many bytes it has room for.
        ring_bytes: u32,
    },
    /// It is done.
    Done,
    /// What no event tells.
    Counters(Counters),
    /// It could not be done; the session goes on.
    Failed(Refused),
    /// The daemon says no, and the connection ends with that.
    Refused(Refused),
}

/// Why a packet cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Another version.
    #[error("the other side speaks version {0} of the protocol, this one version {VERSION}")]
    Version(u32),
    /// Not in its form.
    #[error("a message is not in its form")]
    Form,
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        let remedy = match malformed {
            Malformed::Version(_) => {
                "use one version of gait for both, and restart gait-agent after an upgrade"
            }
            Malformed::Form => "this is a mistake of the program that connected",
        };
        refused(malformed.to_string(), remedy)
    }
}

/// Puts a packet together.
struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u32) -> Self {
        Self(Vec::with_capacity(128)).u32(VERSION).u32(kind)
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Writes as much of a text as may be sent.
    fn text(self, text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(TEXT_MAX)];
        let mut written = self.u32(u32::try_from(text.len()).unwrap_or(0));
        written.0.extend_from_slice(text.as_bytes());
        written
    }
}

/// Takes a packet apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads version and kind.
    fn new(packet: &'a [u8]) -> Result<(Self, u32), Malformed> {
        let mut reader = Self(packet);
        match reader.u32()? {
            VERSION => {}
            other => return Err(Malformed::Version(other)),
        }
        let kind = reader.u32()?;
        Ok((reader, kind))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed::Form)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed::Form)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::try_from(self.u32()?).ok().filter(|length| *length <= TEXT_MAX);
        let (bytes, rest) =
            length.and_then(|length| self.0.split_at_checked(length)).ok_or(Malformed::Form)?;
        self.0 = rest;
        Ok(std::str::from_utf8(bytes).map_err(|_error| Malformed::Form)?.to_owned())
    }

    fn end<T>(self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed::Form) }
    }
}

const OPEN: u32 = 1;
const SEED: u32 = 2;
const GRANT: u32 = 3;
const COUNTERS: u32 = 4;
const CLOSE: u32 = 5;

impl Request {
    /// Writes the packet.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open(shape) => shape.fields().into_iter().fold(Writer::new(OPEN), Writer::u32).0,
            Self::Seed => Writer::new(SEED).0,
            Self::Grant { tid, grant } => {
                Writer::new(GRANT)
                    .u32(*tid)
                    .u32(grant.verdict)
                    .u32(grant.operations)
                    .u64(grant.object)
                    .u64(grant.second)
                    .u64(grant.until)
                    .0
            }
            Self::Counters => Writer::new(COUNTERS).0,
            Self::Close => Writer::new(CLOSE).0,
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// It is of another version, or anything but one request.
    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, kind) = Reader::new(packet)?;
        let request = match kind {
            OPEN => {
                let mut fields = [0; 9];
                for field in &mut fields {
                    *field = reader.u32()?;
                }
                let [layout, flags, names, paths, images, image_classes, cells, words, places] = fields;
                Self::Open(Shape { layout, flags, names, paths, images, image_classes, cells, words, places })
            }
            SEED => Self::Seed,
            GRANT => {
                let tid = reader.u32()?;
                let answer = reader.u32()?;
                if ![verdict::ALLOW, verdict::BLOCK].map(u32::from).contains(&answer) {
                    return Err(Malformed::Form);
                }
                let operations = reader.u32()?;
                let (object, second, until) = (reader.u64()?, reader.u64()?, reader.u64()?);
                Self::Grant { tid, grant: Grant { object, second, until, operations, verdict: answer } }
            }
            COUNTERS => Self::Counters,
            CLOSE => Self::Close,
            _ => return Err(Malformed::Form),
        };
        reader.end(request)
    }
}

const OPENED: u32 = 1;
const DONE: u32 = 2;
const COUNTED: u32 = 3;
const FAILED: u32 = 4;
const REFUSED: u32 = 5;

impl Reply {
    /// Writes the packet.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Opened { ring_bytes } => Writer::new(OPENED).u32(*ring_bytes).0,
            Self::Done => Writer::new(DONE).0,
            Self::Counters(Counters { lost, forks_refused, members, images }) => {
                Writer::new(COUNTED).u64(*lost).u64(*forks_refused).u64(*members).u64(*images).0
            }
            Self::Failed(Refused { what, remedy }) => Writer::new(FAILED).text(what).text(remedy).0,
            Self::Refused(Refused { what, remedy }) => Writer::new(REFUSED).text(what).text(remedy).0,
        }
    }

    /// Reads a packet. A refusal is read from any version, so that its reason can be shown.
    ///
    /// # Errors
    /// It is of another version, or anything but one reply.
    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(packet);
        let version = reader.u32()?;
        let kind = reader.u32()?;
        if version != VERSION && kind != REFUSED {
            return Err(Malformed::Version(version));
        }
        let reply = match kind {
            OPENED => Self::Opened { ring_bytes: reader.u32()? },
            DONE => Self::Done,
            COUNTED => Self::Counters(Counters {
                lost: reader.u64()?,
                forks_refused: reader.u64()?,
                members: reader.u64()?,
                images: reader.u64()?,
            }),
            FAILED => Self::Failed(Refused { what: reader.text()?, remedy: reader.text()? }),
            REFUSED => Self::Refused(Refused { what: reader.text()?, remedy: reader.text()? }),
            _ => return Err(Malformed::Form),
        };
        reader.end(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let shape = Shape {
            layout: 1,
            flags: 2,
            names: 3,
            paths: 4,
            images: 5,
            image_classes: 6,
            cells: 7,
            words: 8,
            places: 9,
        };
        let grant = Grant { object: u64::MAX, second: 2, until: 3, operations: 4, verdict: 3 };
        vec![
            Request::Open(shape),
            Request::Seed,
            Request::Grant { tid: 77, grant },
            Request::Counters,
            Request::Close,
        ]
    }

    fn replies() -> Vec<Reply> {
        vec![
            Reply::Opened { ring_bytes: 1 << 24 },
            Reply::Done,
            Reply::Counters(Counters { lost: 1, forks_refused: 2, members: u64::MAX, images: 4 }),
            Reply::Failed(refused("full", "wait")),
            Reply::Refused(refused("what é", "")),
        ]
    }

    /// Every shorter and longer form of a packet, and every other version.
    fn spoiled(packet: &[u8]) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = (0..packet.len()).map(|length| packet[..length].to_vec()).collect();
        all.push([packet, b"\0"].concat());
        all
    }

    #[test]
    fn every_request_is_read_as_it_was_written_and_in_no_other_form() {
        for request in requests() {
            let packet = request.encode();
            assert_eq!(Request::decode(&packet), Ok(request));
            assert!(packet.len() <= PACKET_MAX);
            for other in spoiled(&packet) {
                assert_eq!(Request::decode(&other), Err(Malformed::Form), "{request:?} {other:?}");
            }
            let mut newer = packet.clone();
            newer[0] += 1;
            assert_eq!(Request::decode(&newer), Err(Malformed::Version(VERSION + 1)));
            let mut unknown = packet;
            unknown[4] = 99;
            assert_eq!(Request::decode(&unknown), Err(Malformed::Form));
        }
    }

    #[test]
    fn every_reply_is_read_as_it_was_written_and_in_no_other_form() {
        for reply in replies() {
            let packet = reply.encode();
            assert_eq!(Reply::decode(&packet), Ok(reply.clone()));
            for other in spoiled(&packet) {
                assert_eq!(Reply::decode(&other), Err(Malformed::Form), "{reply:?} {other:?}");
            }
            let mut newer = packet;
            newer[0] += 1;
            match reply {
                Reply::Refused(_) => assert_eq!(Reply::decode(&newer), Ok(reply)),
                _ => assert_eq!(Reply::decode(&newer), Err(Malformed::Version(VERSION + 1))),
            }
        }
    }

    #[test]
    fn an_answer_is_allow_or_block_and_nothing_else() {
        for answer in 0..8 {
            let grant = Grant { object: 0, second: 0, until: 0, operations: 0, verdict: answer };
            let read = Request::decode(&Request::Grant { tid: 1, grant }.encode());
            assert_eq!(read.is_ok(), answer == 0 || answer == 3, "{answer}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_letter_and_fits() {
        let long = "é".repeat(4000);
        let packet = Reply::Refused(refused(long.clone(), long.as_str())).encode();
        assert!(packet.len() <= PACKET_MAX, "{}", packet.len());
        let Ok(Reply::Refused(read)) = Reply::decode(&packet) else { panic!("a refusal") };
        assert!(long.starts_with(&read.what) && read.what.len() == TEXT_MAX);
    }
}
