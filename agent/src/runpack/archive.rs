//! The container, read strictly: one directory, at the end, that says the same as the headers before the contents.
//!
//! Two readers of a zip can see different files if it has two directories, entries that share bytes, or local headers
//! that disagree with the directory. Such archives are refused before anything is unpacked. Only the container is
//! looked at here; contents are unpacked by the `zip` crate through [`Unpacked`], which holds entries to their size.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use zip::ZipArchive;

use super::reason::{Finding, Reason};
use crate::sign::{Digest, DigestHasher};

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: u64 = 22;
const CENTRAL: &[u8] = b"PK\x01\x02";
const CENTRAL_BYTES: u64 = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: u64 = 30;
/// Flag bit 3: the sizes stand in a descriptor after the contents, which has 12 or 16 bytes.
const DESCRIPTOR: u16 = 1 << 3;
/// Of a directory; 64 entries with names and extra fields need a few KiB.
const MAX_DIRECTORY_BYTES: u64 = 1 << 20;
/// Below this, a high ratio is no attack.
const RATIO_FLOOR_BYTES: u64 = 1 << 20;

/// How large a runpack may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of a document that is read as a whole, such as the manifest.
    pub document: u64,
    /// Bytes of any other entry but those of `stream`.
    pub entry: u64,
    /// Bytes of `intents.jsonl`, `results.jsonl`, `journal.jsonl` and `traces.jsonl`, which are read line by line.
    pub stream: u64,
    /// Bytes of all entries together.
    pub total: u64,
    /// Unpacked bytes per packed byte, for entries over a mebibyte.
    pub ratio: u64,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            entries: 64,
            document: 16 << 20,
            entry: 100 << 20,
            stream: 1 << 30,
            total: 3 << 30,
            ratio: 250,
        }
    }
}

impl ArchiveLimits {
    /// Returns the limit for an entry.
    fn of(&self, name: &str) -> u64 {
        if name.ends_with(".jsonl") { self.stream } else { self.entry }
    }
}

/// One entry as the directory has it.
#[derive(Debug, Clone)]
pub(crate) struct EntryInfo {
    pub(crate) name: String,
    pub(crate) size: u64,
    packed: u64,
    checksum: u32,
    offset: u64,
    flags: u16,
    /// The directory's header and the local one are those that gait writes, byte for byte.
    plain: bool,
}

/// The entries of an archive, in the order of the directory, and what is wrong with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    pub(crate) entries: Vec<EntryInfo>,
    pub(crate) findings: Vec<Finding>,
}

impl Layout {
    /// Returns whether every header is as gait writes it. Only then is every byte outside the contents accounted for.
    pub(crate) fn is_plain(&self) -> bool {
        self.entries.iter().all(|entry| entry.plain)
    }

    /// Returns whether the unpacker sees the same entries as the strict scan.
    pub(crate) fn agrees<R: Read + Seek>(&self, archive: &mut ZipArchive<R>) -> bool {
        archive.len() == self.entries.len()
            && self.entries.iter().enumerate().all(|(at, entry)| {
                archive
                    .by_index_raw(at)
                    .is_ok_and(|it| it.name_raw() == entry.name.as_bytes() && it.size() == entry.size)
            })
    }

    /// Returns whether there is such an entry.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    fn find(&mut self, reason: Reason, place: impl Into<String>) {
        self.findings.push(Finding { reason, place: place.into() });
    }
}

/// The archive cannot be scanned.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The bytes cannot be read.
    Io(io::Error),
    /// It does not even begin like an archive.
    NotAnArchive,
    /// It is an archive with a broken structure.
    Broken(Finding),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn broken<T>(reason: Reason, place: &str) -> Result<T, ScanError> {
    Err(ScanError::Broken(Finding { reason, place: place.to_owned() }))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads the directory and holds it against limits and local headers.
pub(crate) fn scan<R: Read + Seek>(file: &mut R, limits: &ArchiveLimits) -> Result<Layout, ScanError> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut start = [0; 4];
    file.seek(SeekFrom::Start(0))?;
    if length < 4 || file.read_exact(&mut start).is_err() || !start.starts_with(b"PK") {
        return Err(ScanError::NotAnArchive);
    }
    if length < END_BYTES {
        return broken(Reason::TruncatedArchive, "end of the archive");
    }
    let end_at = length - END_BYTES;
    let end = read_at(file, end_at, END_BYTES)?;
    if !end.starts_with(END) {
        return broken(Reason::TruncatedArchive, "end of the archive");
    }
    let (count, size, offset) = (u16_at(&end, 10), u64::from(u32_at(&end, 12)), u64::from(u32_at(&end, 16)));
    let one_disk = end[4..8] == [0; 4] && u16_at(&end, 8) == count;
    if !one_disk || u16_at(&end, 20) != 0 || offset.checked_add(size) != Some(end_at) {
        return broken(Reason::MalformedArchive, "end of the archive");
    }
    if usize::from(count) > limits.entries {
        return broken(Reason::TooManyEntries, &format!("{count} entries"));
    }
    if size > MAX_DIRECTORY_BYTES {
        return broken(Reason::MalformedArchive, "directory");
    }
    let directory = read_at(file, offset, size)?;
    let mut layout = Layout::default();
    let mut rest = &directory[..];
    for _ in 0..count {
        let Some((entry, tail)) = central(rest) else {
            return broken(Reason::MalformedArchive, "directory");
        };
        rest = tail;
        layout.entries.push(entry);
    }
    if !rest.is_empty() {
        return broken(Reason::MalformedArchive, "directory");
    }
    check_names(&mut layout);
    check_sizes(&mut layout, limits);
    check_places(file, &mut layout, offset)?;
    Ok(layout)
}

fn read_at<R: Read + Seek>(file: &mut R, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Splits one header off the directory.
fn central(bytes: &[u8]) -> Option<(EntryInfo, &[u8])> {
    let (header, rest) = bytes.split_at_checked(CENTRAL_BYTES as usize)?;
    if !header.starts_with(CENTRAL) {
        return None;
    }
    let (name, rest) = rest.split_at_checked(usize::from(u16_at(header, 28)))?;
    let (extra, rest) = rest.split_at_checked(usize::from(u16_at(header, 30)))?;
    let (comment, rest) = rest.split_at_checked(usize::from(u16_at(header, 32)))?;
    // Made by Unix, spec 2.0; a plain file of mode 0644.
    let plain = header[4..6] == [20, 3]
        && is_plain_common(&header[6..16])
        && extra.is_empty()
        && comment.is_empty()
        && header[34..38] == [0; 4]
        && u32_at(header, 38) == 0o100_644 << 16;
    let entry = EntryInfo {
        name: std::str::from_utf8(name).ok()?.to_owned(),
        flags: u16_at(header, 8),
        checksum: u32_at(header, 16),
        packed: u64::from(u32_at(header, 20)),
        size: u64::from(u32_at(header, 24)),
        offset: u64::from(u32_at(header, 42)),
        plain,
    };
    Some((entry, rest))
}

/// Version needed, flags, method, time and date as gait writes them.
fn is_plain_common(bytes: &[u8]) -> bool {
    bytes == [20, 0, 0, 0, 8, 0, 0, 0, 33, 0]
}

fn check_names(layout: &mut Layout) {
    let names: Vec<_> = layout.entries.iter().map(|entry| entry.name.clone()).collect();
    let mut seen = BTreeSet::new();
    for name in &names {
        if !is_safe(name) {
            layout.find(Reason::UnsafeEntryName, format!("{name:?}"));
        }
        if !seen.insert(name) {
            layout.find(Reason::DuplicateEntry, name);
        }
    }
    if !names.is_sorted() {
        layout.find(Reason::EntriesOutOfOrder, "directory");
    }
}

fn is_safe(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(plain))
}

fn check_sizes(layout: &mut Layout, limits: &ArchiveLimits) {
    let mut total = 0;
    for entry in layout.entries.clone() {
        total += entry.size;
        if entry.size > limits.of(&entry.name) {
            layout.find(Reason::EntryTooLarge, &*entry.name);
        }
        if entry.size > RATIO_FLOOR_BYTES && entry.size / entry.packed.max(1) > limits.ratio {
            layout.find(Reason::CompressionRatio, &*entry.name);
        }
    }
    if total > limits.total {
        layout.find(Reason::EntryTooLarge, "all entries");
    }
}

/// Checks that headers and contents fill the file up to the directory without gaps or overlaps, in its order.
fn check_places<R: Read + Seek>(file: &mut R, layout: &mut Layout, directory: u64) -> Result<(), ScanError> {
    let mut expected = 0;
    let mut by_offset: Vec<_> = layout.entries.iter_mut().collect();
    by_offset.sort_by_key(|entry| entry.offset);
    for entry in by_offset {
        if entry.offset != expected || entry.offset + LOCAL_BYTES > directory {
            return broken(Reason::MalformedArchive, &entry.name);
        }
        let header = read_at(file, entry.offset, LOCAL_BYTES)?;
        let name = read_at(file, entry.offset + LOCAL_BYTES, u64::from(u16_at(&header, 26)))?;
        let extra = u64::from(u16_at(&header, 28));
        if !header.starts_with(LOCAL) || name != entry.name.as_bytes() {
            return broken(Reason::MalformedArchive, &entry.name);
        }
        expected = entry.offset + LOCAL_BYTES + name.len() as u64 + extra + entry.packed;
        if entry.flags & DESCRIPTOR != 0 {
            expected += descriptor_bytes(file, expected, entry)?;
        } else {
            let local = (u32_at(&header, 14), u64::from(u32_at(&header, 18)), u64::from(u32_at(&header, 22)));
            if local != (entry.checksum, entry.packed, entry.size) {
                return broken(Reason::MalformedArchive, &entry.name);
            }
        }
        entry.plain &= is_plain_common(&header[4..14]) && extra == 0;
    }
    if expected == directory { Ok(()) } else { broken(Reason::MalformedArchive, "directory") }
}

/// The length of the descriptor at `at`: with its optional signature or without.
fn descriptor_bytes<R: Read + Seek>(file: &mut R, at: u64, entry: &EntryInfo) -> Result<u64, ScanError> {
    let bytes = read_at(file, at, 16)?;
    let sizes = |at: usize| (u64::from(u32_at(&bytes, at)), u64::from(u32_at(&bytes, at + 4)));
    if bytes.starts_with(b"PK\x07\x08") && sizes(8) == (entry.packed, entry.size) {
        Ok(16)
    } else if sizes(4) == (entry.packed, entry.size) {
        Ok(12)
    } else {
        broken(Reason::MalformedArchive, &entry.name)
    }
}

/// A reader of an open file with a position of its own, so that several threads read one file.
pub(crate) struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Positioned<'a> {
    pub(crate) const fn new(file: &'a File) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Positioned<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The contents of an entry while they are unpacked: digested, and never longer than the directory says.
pub(crate) struct Unpacked<R> {
    inner: R,
    hasher: DigestHasher,
    left: u64,
}

impl<R: Read> Unpacked<R> {
    pub(crate) fn new(inner: R, size: u64) -> Self {
        Self { inner, hasher: DigestHasher::new(), left: size }
    }

    /// Reads the rest and returns the digest of everything.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "shorter than the directory says"));
        }
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "longer than the directory says"))?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}
