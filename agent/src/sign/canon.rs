//! RFC 8785 canonical JSON, and the strict parse that comes before it.
//!
//! Limits: canonical numbers are doubles, so kernel 64-bit integers must be decimal strings in every document that is
//! digested. Documents from outside are parsed with [`parse_strict`], because `serde_json` keeps the last of two
//! equal keys and a digest over such a document would cover only half of what a reader may see.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, de};
use serde_json::{Map, Number, Value};

use super::{Digest, DigestHasher};

/// The value has no canonical form.
#[derive(Debug, thiserror::Error)]
#[error("no canonical JSON form")]
pub struct CanonError(#[source] serde_json::Error);

/// Returns the canonical bytes of a value.
///
/// # Errors
///
/// Fails for a value that is not JSON: a map with keys other than strings, or a number that is not finite.
pub fn canonical(value: &impl Serialize) -> Result<Vec<u8>, CanonError> {
    serde_json_canonicalizer::to_vec(value).map_err(CanonError)
}

/// Returns the digest of the canonical bytes of a value.
///
/// # Errors
///
/// As [`canonical`].
pub fn digest_of(value: &impl Serialize) -> Result<Digest, CanonError> {
    let mut hasher = DigestHasher::new();
    serde_json_canonicalizer::to_writer(value, &mut hasher).map_err(CanonError)?;
    Ok(hasher.finish())
}

/// Returns the digest of the canonical bytes of a tree, faster than [`digest_of`] where its numbers are small whole
/// ones and its keys ASCII, as they are in a policy.
///
/// # Errors
///
/// As [`canonical`].
pub(crate) fn digest_of_tree(tree: &serde_json::Value) -> Result<Digest, CanonError> {
    let mut out = Vec::with_capacity(1 << 14);
    if write_plain(&mut out, tree) { Ok(Digest::sha256(&out)) } else { digest_of(tree) }
}

/// Appends a value in its canonical form and returns true, or returns false where that takes more than copying.
fn write_plain(out: &mut Vec<u8>, value: &serde_json::Value) -> bool {
    use serde_json::Value;

    /// Whole numbers below are written as they are.
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Number(number) => match number.as_i64().filter(|number| number.unsigned_abs() < EXACT) {
            Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
            None => return false,
        },
        Value::String(text) => write_string(out, text),
        Value::Array(list) => {
            out.push(b'[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                if !write_plain(out, item) {
                    return false;
                }
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // Only of ASCII is the order of bytes surely that of UTF-16.
            if !map.keys().is_sorted() || !map.keys().all(|key| key.is_ascii()) {
                return false;
            }
            out.push(b'{');
            for (at, (key, item)) in map.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(out, key);
                out.push(b':');
                if !write_plain(out, item) {
                    return false;
                }
            }
            out.push(b'}');
        }
    }
    true
}

/// Appends a string in its canonical form, quotes included.
///
/// For the documents of the hot path whose shape is fixed; property tests hold it equal to [`canonical`].
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                super::digest::write_hex(&[byte], out);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// What a document from outside may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The greatest length in bytes.
    pub bytes: usize,
    /// The deepest nesting of arrays and objects; a scalar has depth 0. More than 127 is refused whatever it says.
    pub depth: usize,
}

impl Limits {
    /// For one document that a person or a tool hands in: 8 MiB, 64 levels.
    pub const DOCUMENT: Self = Self { bytes: 8 << 20, depth: 64 };
    /// For one line of a JSONL file: 1 MiB, 32 levels.
    pub const LINE: Self = Self { bytes: 1 << 20, depth: 32 };
}

/// The bytes are not a JSON document that may be trusted to mean one thing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Longer than the limit.
    #[error("document of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON.
    #[error("invalid JSON")]
    Invalid(#[source] serde_json::Error),
    /// A key twice in one object.
    #[error("invalid JSON")]
    DuplicateKey(#[source] serde_json::Error),
    /// Nested more deeply than the limit.
    #[error("invalid JSON")]
    TooDeep(#[source] serde_json::Error),
}

impl ParseError {
    /// Returns the stable code of the mistake.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Invalid(_) => "not_json",
            Self::DuplicateKey(_) => "duplicate_key",
            Self::TooDeep(_) => "too_deep",
        }
    }
}

/// What `Strict` found that plain JSON may have.
#[derive(Debug, Clone, Copy)]
enum Flaw {
    DuplicateKey,
    Depth,
}

/// Parses a document, refusing duplicate keys, deep nesting, great size and anything after the value.
///
/// # Errors
///
/// Says which of these was found; positions are line and column.
pub fn parse_strict(bytes: &[u8], limits: Limits) -> Result<Value, ParseError> {
    if bytes.len() > limits.bytes {
        return Err(ParseError::TooLarge { bytes: bytes.len(), limit: limits.bytes });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let flaw = Cell::new(None);
    let strict = Strict { depth: limits.depth, flaw: &flaw };
    let value = strict.deserialize(&mut deserializer).map_err(|error| match flaw.get() {
        None => ParseError::Invalid(error),
        Some(Flaw::DuplicateKey) => ParseError::DuplicateKey(error),
        Some(Flaw::Depth) => ParseError::TooDeep(error),
    })?;
    deserializer.end().map_err(ParseError::Invalid)?;
    Ok(value)
}

/// Builds a `Value` with at most `depth` further levels. Errors of serde are text, so the kind is kept beside them.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    flaw: &'a Cell<Option<Flaw>>,
}

impl Strict<'_> {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        let Some(depth) = self.depth.checked_sub(1) else {
            self.flaw.set(Some(Flaw::Depth));
            return Err(E::custom("nested too deeply"));
        };
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                self.flaw.set(Some(Flaw::DuplicateKey));
                return Err(de::Error::custom(format_args!("duplicate key {key:?}")));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(bytes: &[u8], limits: Limits) -> String {
        match parse_strict(bytes, limits).unwrap_err() {
            ParseError::Invalid(source) | ParseError::DuplicateKey(source) | ParseError::TooDeep(source) => {
                source.to_string()
            }
            other @ ParseError::TooLarge { .. } => other.to_string(),
        }
    }

    #[test]
    fn numbers_keys_and_strings_take_the_canonical_form() {
        let text = r#"{"f":1E2,"e":4.50,"m":-0.0,"big":12345678901234567890,"x":1e21,"t":1e-7,"u":0.000001,
            "\ufb33":5,"\ud83d\ude02":4,"s":"\u00e9\u0001<>&\u2028\u007f/"}"#;
        let value = parse_strict(text.as_bytes(), Limits::DOCUMENT).unwrap();
        let want = "{\"big\":12345678901234567000,\"e\":4.5,\"f\":100,\"m\":0,\"s\":\"é\\u0001<>&\u{2028}\u{7f}/\",\
            \"t\":1e-7,\"u\":0.000001,\"x\":1e+21,\"😂\":4,\"\u{fb33}\":5}";
        assert_eq!(String::from_utf8(canonical(&value).unwrap()).unwrap(), want);
        assert_eq!(digest_of(&value).unwrap(), Digest::sha256(want.as_bytes()));
    }

    /// Without exact parsing, these doubles come out one unit in the last place off and the digest with them.
    #[test]
    fn doubles_are_parsed_exactly() {
        for text in ["1.7976931348623157e308", "5e-324", "0.1", "9007199254740993", "2.2250738585072011e-308"]
        {
            let value = parse_strict(text.as_bytes(), Limits::LINE).unwrap();
            let exact: f64 = text.parse().unwrap();
            assert_eq!(value.as_f64(), Some(exact), "{text}");
        }
    }

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"\u0061":3}]}"#] {
            assert!(message(text.as_bytes(), Limits::LINE).contains("duplicate key \"a\""), "{text}");
        }
        assert!(parse_strict(br#"{"a":{"a":1}}"#, Limits::LINE).is_ok());
    }

    #[test]
    fn each_mistake_has_its_code() {
        let limits = Limits { bytes: 20, depth: 2 };
        let deep = [b'['; 20];
        let cases: [(&[u8], &str); 8] = [
            (b"[[[1]]]", "too_deep"),
            (&deep, "too_deep"),
            (br#"{"a":1,"a":2}"#, "duplicate_key"),
            (br#"[{"a":1,"\u0061":1}]"#, "duplicate_key"),
            (b"NaN", "not_json"),
            (b"[[1]", "not_json"),
            (b"\xff", "not_json"),
            (b"[1,2,3,4,5,6,7,8,9,10]", "too_large"),
        ];
        for (bytes, code) in cases {
            assert_eq!(parse_strict(bytes, limits).unwrap_err().code(), code, "{bytes:?}");
        }
    }

    #[test]
    fn size_depth_and_trailing_bytes_are_refused() {
        let limits = Limits { bytes: 10, depth: 2 };
        assert_eq!(parse_strict(b"[[1]]", limits).unwrap(), json!([[1]]));
        assert!(message(b"[[[1]]]", limits).contains("nested too deeply"));
        assert!(message(b"[[{}]]", limits).contains("nested too deeply"));
        assert!(message(b"[1,2,3,4,5]", limits).contains("exceeds the limit of 10"));
        for bad in [&b"1 2"[..], b"{}x", b"", b"nan", b"\"\\ud800\"", b"\"\xff\"", b"1e999"] {
            assert!(parse_strict(bad, limits).is_err(), "{bad:?}");
        }
        let deep = [b'['].repeat(100_000);
        assert!(parse_strict(&deep, Limits { bytes: usize::MAX, depth: usize::MAX }).is_err());
    }

    /// Any JSON, nested a little, with keys and strings that need escapes.
    fn json() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            (-3_i64..1000).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
        ];
        let text = "[a-c\"\\\\\n\u{e9}\u{20ac}\u{1f600}\u{fb33}]{0,6}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            text.prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(text, inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn strict_parsing_sees_what_serde_json_sees(value in json()) {
            for bytes in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
                prop_assert_eq!(&parse_strict(&bytes, Limits::DOCUMENT).unwrap(), &value);
            }
        }

        #[test]
        fn strict_parsing_accepts_nothing_that_serde_json_refuses(text in "[\\[\\]{}:,\"a01.e+\\- \\\\ntrufls]{0,12}") {
            let strict = parse_strict(text.as_bytes(), Limits::DOCUMENT);
            match serde_json::from_str::<Value>(&text) {
                Ok(value) => if let Ok(strict) = strict { prop_assert_eq!(strict, value) },
                Err(_) => prop_assert!(strict.is_err()),
            }
        }

        #[test]
        fn canonical_form_is_a_fixed_point(value in json()) {
            let once = canonical(&value).unwrap();
            let parsed = parse_strict(&once, Limits::DOCUMENT).unwrap();
            prop_assert_eq!(canonical(&parsed).unwrap(), once);
        }

        #[test]
        fn digest_of_tree_is_that_of_the_canonical_form(value in json()) {
            prop_assert_eq!(digest_of_tree(&value).unwrap(), digest_of(&value).unwrap());
            let mut out = Vec::new();
            if write_plain(&mut out, &value) {
                prop_assert_eq!(out, canonical(&value).unwrap());
            }
        }

        #[test]
        fn write_string_is_canonical(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(out, canonical(&text).unwrap());
        }

        #[test]
        fn write_string_escapes_controls(bytes in prop::collection::vec(0u8..0x80, 0..40)) {
            let text = String::from_utf8(bytes).unwrap();
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(out, canonical(&text).unwrap());
        }
    }
}
