//! Canonical objects of a fixed shape, written without a general canonicaliser.
//!
//! The caller gives the keys in canonical order; debug builds check it, and every document written this way has a
//! test that holds it equal to [`super::canonical`].

use super::canon::write_string;
use super::{CanonError, Digest, canonical};

/// One value of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    /// A string.
    Text(&'a str),
    /// An integer, written as a decimal string because canonical numbers are doubles.
    Count(u64),
    /// A digest.
    Digest(&'a Digest),
    /// A truth value.
    Flag(bool),
    /// Strings.
    Texts(&'a [String]),
    /// Text that is canonical JSON already.
    Canonical(&'a [u8]),
}

/// An object being written.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    last: &'static str,
}

impl<'a> ObjectWriter<'a> {
    /// Opens the object.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, last: "" }
    }

    fn key(&mut self, key: &'static str) {
        debug_assert!(self.last < key, "{key} after {}", self.last);
        if !self.last.is_empty() {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.last = key;
    }

    /// Writes one field.
    pub(crate) fn field(&mut self, key: &'static str, value: Field<'_>) {
        self.key(key);
        let out = &mut *self.out;
        match value {
            Field::Text(text) => write_string(out, text),
            Field::Count(count) => write_decimal(out, count),
            Field::Digest(digest) => {
                out.push(b'"');
                digest.write_hex(out);
                out.push(b'"');
            }
            Field::Flag(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
            Field::Texts(texts) => {
                out.push(b'[');
                for (at, text) in texts.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_string(out, text);
                }
                out.push(b']');
            }
            Field::Canonical(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Writes a string field.
    pub(crate) fn text(&mut self, key: &'static str, text: &str) {
        self.field(key, Field::Text(text));
    }

    /// Writes a digest field.
    pub(crate) fn digest(&mut self, key: &'static str, digest: &Digest) {
        self.field(key, Field::Digest(digest));
    }

    /// Writes a field that holds an object.
    pub(crate) fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.key(key);
        let mut inner = ObjectWriter::new(self.out);
        fill(&mut inner);
        inner.finish();
    }

    /// Writes a field of a shape that is not fixed.
    pub(crate) fn value(
        &mut self,
        key: &'static str,
        value: &impl serde::Serialize,
    ) -> Result<(), CanonError> {
        let bytes = canonical(value)?;
        self.field(key, Field::Canonical(&bytes));
        Ok(())
    }

    /// Returns how many bytes are written, those before the object included.
    pub(crate) fn written(&self) -> usize {
        self.out.len()
    }

    /// Closes the object.
    pub(crate) fn finish(self) {
        self.out.push(b'}');
    }
}

fn write_decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = value;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(b'"');
    out.extend_from_slice(&digits[start..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_strings() {
        for value in [0, 9, 10, 9_007_199_254_740_993, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(&mut out, value);
            assert_eq!(out, format!("\"{value}\"").into_bytes());
        }
    }

    #[test]
    #[should_panic(expected = "a after b")]
    fn keys_out_of_order_are_caught() {
        let mut out = Vec::new();
        let mut object = ObjectWriter::new(&mut out);
        object.text("b", "");
        object.text("a", "");
    }
}
