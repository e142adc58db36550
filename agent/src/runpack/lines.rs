//! The lines of an entry: one after the other, or in batches that several threads work on.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::archive::Unpacked;
use crate::sign::Digest;

const BUFFER_BYTES: usize = 1 << 16;
/// Large enough that handing a batch over costs nothing, small enough that a few in flight need little memory.
const BATCH_BYTES: usize = 256 << 10;
/// More threads than this wait for the one that unpacks.
const MAX_WORKERS: usize = 8;

/// Hands the lines of an entry, without newlines, to `each`, and returns the entry's digest.
///
/// A line without a newline at the end, or longer than `limit`, is an error: nothing of ours ends so.
pub(super) fn each_line<R: Read>(
    unpacked: Unpacked<R>,
    limit: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<Digest> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, unpacked);
    let mut line = Vec::new();
    while read_line(&mut reader, limit, &mut line)? {
        each(&line[..line.len() - 1]);
        line.clear();
    }
    reader.into_inner().finish()
}

/// Appends a line with its newline; `false` at the end.
fn read_line<R: Read>(reader: &mut BufReader<R>, limit: usize, out: &mut Vec<u8>) -> io::Result<bool> {
    let length = reader.by_ref().take(limit as u64 + 1).read_until(b'\n', out)?;
    if length == 0 || out.ends_with(b"\n") {
        return Ok(length > 0);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "line without end"))
}

/// Some lines that follow each other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The number of the first line, counted from 1.
    pub(super) first: u64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Reads the next batch; empty at the end.
    fn read<R: Read>(first: u64, reader: &mut BufReader<R>, limit: usize) -> io::Result<Self> {
        let mut batch = Self { first, bytes: Vec::with_capacity(BATCH_BYTES + (4 << 10)), ends: Vec::new() };
        while batch.bytes.len() < BATCH_BYTES && read_line(reader, limit, &mut batch.bytes)? {
            batch.ends.push(batch.bytes.len());
        }
        Ok(batch)
    }

    /// Returns the number of lines.
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Yields the lines without newlines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end - 1])
    }
}

type Job<T> = (Batch, Sender<T>);

/// Has `work` done on the lines of an entry by several threads, hands what comes of it to `take` in the order of the
/// lines, and returns the entry's digest. A few batches are in memory at a time.
pub(super) fn each_batch<R: Read, T: Send>(
    unpacked: Unpacked<R>,
    limit: usize,
    work: impl Fn(&Batch) -> T + Sync,
    mut take: impl FnMut(T),
) -> io::Result<Digest> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, unpacked);
    let mut batch = Batch::read(1, &mut reader, limit)?;
    if batch.bytes.len() < BATCH_BYTES {
        // All of it.
        take(work(&batch));
        return reader.into_inner().finish();
    }
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let (jobs, todo) = channel::<Job<T>>();
    let todo = Mutex::new(todo);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| worker(&todo, &work));
        }
        // Dropped on every way out, so that the workers end.
        let jobs = jobs;
        let mut in_flight: VecDeque<Receiver<T>> = VecDeque::new();
        while batch.len() > 0 {
            let first = batch.first + batch.len() as u64;
            let (done, result) = channel();
            jobs.send((batch, done)).map_err(|_gone| worker_died())?;
            in_flight.push_back(result);
            if in_flight.len() > 2 * workers
                && let Some(result) = in_flight.pop_front()
            {
                take(result.recv().map_err(|_gone| worker_died())?);
            }
            batch = Batch::read(first, &mut reader, limit)?;
        }
        for result in in_flight {
            take(result.recv().map_err(|_gone| worker_died())?);
        }
        Ok::<_, io::Error>(())
    })?;
    reader.into_inner().finish()
}

/// The scope hands the panic of a worker on; this is only for the way there.
fn worker_died() -> io::Error {
    io::Error::other("a worker died")
}

fn worker<T>(todo: &Mutex<Receiver<Job<T>>>, work: &impl Fn(&Batch) -> T) {
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((batch, done)) = next else { return };
        // Nobody waits for it only after an error.
        if done.send(work(&batch)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(bytes: &[u8]) -> Unpacked<&[u8]> {
        Unpacked::new(bytes, bytes.len() as u64)
    }

    #[test]
    fn batches_give_the_lines_in_order_and_the_digest() {
        for count in [0_u32, 1, 1000, 200_000] {
            let text: String = (0..count).map(|line| format!("line {line}\n")).collect();
            let mut seen = Vec::new();
            let work = |batch: &Batch| {
                batch.lines().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect::<Vec<_>>()
            };
            let digest = each_batch(unpacked(text.as_bytes()), 64, work, |lines| seen.extend(lines)).unwrap();
            assert_eq!(digest, Digest::sha256(text.as_bytes()));
            assert!(seen.iter().map(String::as_str).eq(text.lines()), "{count}");
        }
    }

    #[test]
    fn batches_know_the_number_of_their_first_line() {
        let text = "x\n".repeat(300_000);
        let mut next = 1;
        each_batch(
            unpacked(text.as_bytes()),
            64,
            |batch| (batch.first, batch.len() as u64),
            |(first, lines)| {
                assert_eq!(first, next);
                next += lines;
            },
        )
        .unwrap();
        assert_eq!(next, 300_001);
    }

    #[test]
    fn a_line_without_end_or_beyond_the_limit_is_an_error_however_late() {
        let long = format!("{}{}\n", "x\n".repeat(200_000), "y".repeat(70));
        for text in [long.as_str(), "x", "x\ny", &long[..long.len() - 8]] {
            assert!(each_batch(unpacked(text.as_bytes()), 64, Batch::len, |_| {}).is_err());
            assert!(each_line(unpacked(text.as_bytes()), 64, |_| {}).is_err());
        }
    }
}
