//! Records of the ring, as the kernel programs write them (`gait_ebpf::layout::Event`), and the names in them.

use gait_agent::endpoint::Operation;
use gait_ebpf::layout::{Event, event_flags, verdict};

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) event: Event,
    first: Names<'a>,
    second: Names<'a>,
}

/// The names of one path, last one first.
#[derive(Debug, Clone, Copy)]
struct Names<'a> {
    visible: &'a [u8],
    /// Those between what a rule names and the root of the mount that shows a part of it.
    hidden: &'a [u8],
}

/// Reads the fields of a record in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn int(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn names(&mut self, length: u32) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = tail;
        Some(head)
    }
}

impl<'a> Record<'a> {
    /// Reads a record; `None` where it is not one.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let event = Event {
            at: fields.long()?,
            object: fields.long()?,
            second: fields.long()?,
            word: fields.long()?,
            second_word: fields.long()?,
            operations: fields.int()?,
            second_operations: fields.int()?,
            device: fields.int()?,
            tid: fields.int()?,
            tgid: fields.int()?,
            image: fields.int()?,
            identity: fields.int()?,
            identity_depth: fields.int()?,
            second_identity: fields.int()?,
            second_identity_depth: fields.int()?,
            first_bytes: fields.int()?,
            first_hidden: fields.int()?,
            second_bytes: fields.int()?,
            second_hidden: fields.int()?,
            kind: fields.byte()?,
            flags: fields.byte()?,
            verdict: fields.byte()?,
            zero: fields.take()?,
        };
        let mut names =
            |visible, hidden| Some(Names { visible: fields.names(visible)?, hidden: fields.names(hidden)? });
        let first = names(event.first_bytes, event.first_hidden)?;
        let second = names(event.second_bytes, event.second_hidden)?;
        Some(Self { event, first, second })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.event.flags & flag != 0
    }

    /// Returns whether the kernel refused without looking at the tables.
    pub(super) const fn is_never(&self) -> bool {
        self.has(event_flags::NEVER | event_flags::TOO_LONG | event_flags::UNREACHABLE | event_flags::TABLES)
    }

    /// Returns whether the record tells of an object without a path.
    pub(super) const fn is_pathless(&self) -> bool {
        self.has(event_flags::NEVER) && self.event.first_bytes == 0
    }

    /// Returns the path of one of the two objects.
    pub(super) fn path(&self, object: Side) -> Vec<u8> {
        join(Vec::new(), components(self.names(object).visible).collect())
    }

    /// Returns what the kernel knows the object by: the inode, where the object exists.
    pub(super) const fn inode(&self, object: Side) -> u64 {
        match object {
            Side::First => self.event.object,
            Side::Second => self.event.second,
        }
    }

    fn names(&self, object: Side) -> Names<'a> {
        match object {
            Side::First => self.first,
            Side::Second => self.second,
        }
    }

    /// Returns the number of the rule's name for something above the object that the kernel met, where it did.
    pub(super) fn identity(&self, object: Side) -> Option<usize> {
        let (flag, name) = match object {
            Side::First => (event_flags::IDENTITY, self.event.identity),
            Side::Second => (event_flags::SECOND_IDENTITY, self.event.second_identity),
        };
        usize::try_from(name).ok().filter(|_| self.has(flag))
    }

    /// Returns the path by which a rule names the object, where the kernel met what the rule calls `named`.
    pub(super) fn path_below(&self, object: Side, named: &[u8]) -> Vec<u8> {
        let depth = match object {
            Side::First => self.event.identity_depth,
            Side::Second => self.event.second_identity_depth,
        };
        let names = self.names(object);
        let below = components(names.visible).take(usize::try_from(depth).unwrap_or(usize::MAX));
        let start = if named == b"/" { Vec::new() } else { named.to_vec() };
        join(start, below.chain(components(names.hidden)).collect())
    }

    /// Returns what was done, in the order in which a held call would be judged: for each operation on which object, and
    /// what the tables said of it.
    pub(super) fn deeds(&self) -> impl Iterator<Item = Deed> + use<> {
        let on = |object, operations: u32, word: u64| {
            ORDER.iter().filter(move |&&operation| operations & 1 << operation as u8 != 0).map(
                move |&operation| Deed {
                    object,
                    operation,
                    verdict: u8::try_from(word >> (2 * operation as u8) & 3).unwrap_or(verdict::BLOCK),
                },
            )
        };
        let event = &self.event;
        on(Side::First, event.operations, event.word).chain(on(
            Side::Second,
            event.second_operations,
            event.second_word,
        ))
    }
}

/// One of the two objects of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}

/// One operation of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) object: Side,
    pub(super) operation: Operation,
    /// Of `gait_ebpf::layout::verdict`.
    pub(super) verdict: u8,
}

/// Operations on one object in the order in which they are judged: writing before the reading that comes with it.
const ORDER: [Operation; 21] = [
    Operation::Write,
    Operation::Read,
    Operation::List,
    Operation::Create,
    Operation::Truncate,
    Operation::Mkdir,
    Operation::Mknod,
    Operation::Symlink,
    Operation::LinkOld,
    Operation::LinkNew,
    Operation::RenameOld,
    Operation::RenameNew,
    Operation::RenameOver,
    Operation::Unlink,
    Operation::Rmdir,
    Operation::Chmod,
    Operation::Chown,
    Operation::Utime,
    Operation::Setxattr,
    Operation::Exec,
    Operation::MmapExec,
];

fn components(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|&byte| byte == 0).filter(|name| !name.is_empty())
}

/// Joins names, last one first, to what they are below of.
fn join(mut path: Vec<u8>, names: Vec<&[u8]>) -> Vec<u8> {
    for name in names.into_iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// A record as the kernel writes it: field by field at the offsets of the layout.
    fn written(event: &Event, names: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Event>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(Event, at), &event.at.to_ne_bytes());
        put(offset_of!(Event, object), &event.object.to_ne_bytes());
        put(offset_of!(Event, second), &event.second.to_ne_bytes());
        put(offset_of!(Event, word), &event.word.to_ne_bytes());
        put(offset_of!(Event, second_word), &event.second_word.to_ne_bytes());
        put(offset_of!(Event, operations), &event.operations.to_ne_bytes());
        put(offset_of!(Event, second_operations), &event.second_operations.to_ne_bytes());
        put(offset_of!(Event, device), &event.device.to_ne_bytes());
        put(offset_of!(Event, tid), &event.tid.to_ne_bytes());
        put(offset_of!(Event, tgid), &event.tgid.to_ne_bytes());
        put(offset_of!(Event, image), &event.image.to_ne_bytes());
        put(offset_of!(Event, identity), &event.identity.to_ne_bytes());
        put(offset_of!(Event, identity_depth), &event.identity_depth.to_ne_bytes());
        put(offset_of!(Event, second_identity), &event.second_identity.to_ne_bytes());
        put(offset_of!(Event, second_identity_depth), &event.second_identity_depth.to_ne_bytes());
        put(offset_of!(Event, first_bytes), &event.first_bytes.to_ne_bytes());
        put(offset_of!(Event, first_hidden), &event.first_hidden.to_ne_bytes());
        put(offset_of!(Event, second_bytes), &event.second_bytes.to_ne_bytes());
        put(offset_of!(Event, second_hidden), &event.second_hidden.to_ne_bytes());
        put(offset_of!(Event, kind), &[event.kind]);
        put(offset_of!(Event, flags), &[event.flags]);
        put(offset_of!(Event, verdict), &[event.verdict]);
        bytes.extend_from_slice(names);
        bytes
    }

    fn rename() -> (Event, Vec<u8>) {
        let bit = |operation: Operation| 1_u32 << operation as u8;
        let event = Event {
            at: 1,
            object: 2,
            second: 3,
            word: u64::from(verdict::BLOCK) << (2 * Operation::RenameOld as u8),
            second_word: 0,
            operations: bit(Operation::RenameOld),
            second_operations: bit(Operation::RenameNew) | bit(Operation::RenameOver),
            device: 4,
            tid: 5,
            tgid: 6,
            image: 7,
            identity: 8,
            identity_depth: 1,
            second_identity: 9,
            second_identity_depth: 2,
            first_bytes: 4,
            first_hidden: 2,
            second_bytes: 4,
            second_hidden: 0,
            kind: 9,
            flags: event_flags::IDENTITY,
            verdict: verdict::BLOCK,
            zero: [0; 5],
        };
        (event, written(&event, b"b\0a\0h\0c\0a\0"))
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (event, bytes) = rename();
        let record = Record::read(&bytes).unwrap();
        assert_eq!(record.event, event);
        assert_eq!(record.path(Side::First), b"/a/b");
        assert_eq!(record.path(Side::Second), b"/a/c");
        assert_eq!(record.identity(Side::First), Some(8));
        assert_eq!(record.path_below(Side::First, b"/named"), b"/named/h/b");
        assert_eq!(record.path_below(Side::First, b"/"), b"/h/b");
        assert_eq!(record.identity(Side::Second), None);
        assert_eq!(record.path_below(Side::Second, b"/named"), b"/named/a/c");
        let deeds: Vec<_> = record.deeds().map(|deed| (deed.object, deed.operation, deed.verdict)).collect();
        assert_eq!(
            deeds,
            [
                (Side::First, Operation::RenameOld, verdict::BLOCK),
                (Side::Second, Operation::RenameNew, verdict::ALLOW),
                (Side::Second, Operation::RenameOver, verdict::ALLOW),
            ]
        );
    }

    #[test]
    fn a_cut_record_is_none() {
        let (_, bytes) = rename();
        for end in 0..bytes.len() {
            assert!(Record::read(&bytes[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn every_operation_on_a_path_has_its_place_in_the_order() {
        for &operation in Operation::ALL {
            let on_path = operation.target_kind() == gait_agent::endpoint::TargetKind::Path;
            let known = ORDER.contains(&operation) || operation == Operation::UnixConnect;
            assert_eq!(on_path, known, "{operation:?}");
        }
        // The word of a region has room for all of them.
        assert!(Operation::ALL.len() <= 32);
    }

    #[test]
    fn the_root_has_no_names() {
        assert_eq!(join(Vec::new(), components(b"").collect()), b"/");
    }
}
