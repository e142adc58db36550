//! Mutations of seeds without a fuzzer: the same for the same number, so that a failure can be repeated.

/// Bytes and words that parsers of this project give a meaning to.
const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-0",
    b"1e999",
    b"18446744073709551616",
    b"NaN",
    b"../",
    b"**",
    b"{a,b}",
    b"${x}",
    b"[!",
    b"*a",
    b"&a ",
    b"<<: ",
    b"- ",
    b"!!binary ",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xc0\x0c",
    b"intent_1",
    b"0001-01-01T00:00:00Z",
    b"2026-02-30T25:61:61Z",
];

/// A small generator of numbers (xorshift64*); not for secrets.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Starts at a number.
    #[must_use]
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, or 0 if there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        match u64::try_from(end) {
            Ok(end) if end > 0 => usize::try_from((self.next() >> 11) % end).unwrap_or_default(),
            _ => 0,
        }
    }
}

/// Returns a mutation of a seed: one to four changes, some of them taken from another seed.
#[must_use]
pub(crate) fn mutate(seed: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        change(&mut bytes, other, dice);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    let end = (at + 1 + dice.below(24)).min(bytes.len());
    match dice.below(10) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = u8::try_from(dice.below(256)).unwrap_or_default(),
        2 if !bytes.is_empty() => drop(bytes.drain(at..end)),
        3 => bytes.truncate(at),
        4 => {
            let copy = bytes[at.min(bytes.len())..end].to_vec();
            let times = 1 + dice.below(3);
            bytes.splice(at..at, copy.repeat(times));
        }
        5 => {
            let from = dice.below(other.len());
            let to = (from + dice.below(64)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        6 => {
            let from = dice.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => {
            let word = WORDS[dice.below(WORDS.len())];
            bytes.splice(at..end.min(at + word.len()), word.iter().copied());
        }
        8 => {
            let word = WORDS[dice.below(WORDS.len())].repeat(1 << dice.below(9));
            bytes.splice(at..at, word);
        }
        _ => {
            let word = WORDS[dice.below(WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
    }
}
