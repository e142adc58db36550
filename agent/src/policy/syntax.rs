//! From YAML text to a tree that remembers where everything stands.
//!
//! The only place that knows the YAML parser. Nothing is judged here: keys given twice, unknown keys and values of
//! the wrong kind are left to `decode`, which can name all of them at once. Only text that is not YAML stops here.

use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Spanned};

/// How deep lists and mappings may stand in each other; a policy needs six.
const MAX_DEPTH: usize = 32;

/// How many values a policy may hold. Aliases count each time that they are used.
const MAX_NODES: usize = 500_000;

/// Where a value stands in its file. Lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) width: u32,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        Self {
            line: narrow(location.line()),
            column: narrow(location.column()),
            width: narrow(location.span().len()),
        }
    }
}

/// One value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

/// A value of YAML.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// Names the kind of value for an error message.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A key of a mapping and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) at: Place,
    pub(crate) text: String,
}

/// The text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Place,
    pub(crate) message: String,
}

/// Parses one YAML document. Empty text is `Null`.
///
/// # Errors
///
/// Fails if the text is not YAML, holds more than one document, or is nested or repeated beyond reason.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.trim().is_empty() {
        return Ok(Node { at: Place { line: 1, column: 1, width: 0 }, value: Value::Null });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::Error,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(spanned) => Ok(spanned.into()),
        Err(error) => {
            let at = error.location().map_or(Place { line: 1, column: 1, width: 0 }, Place::from);
            let full = error.to_string();
            // The place is printed by our own renderer.
            let message = match full.rfind(" at line ") {
                Some(cut) => full[..cut].to_owned(),
                None => full,
            };
            Err(SyntaxError { at, message: message.lines().next().unwrap_or("not YAML").to_owned() })
        }
    }
}

/// Reads a YAML document as JSON, wherever it stands; `None` if it is not YAML.
pub(crate) fn yaml_to_json(text: &str) -> Option<serde_json::Value> {
    fn json(node: Node) -> serde_json::Value {
        match node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => flag.into(),
            Value::Int(number) => number.into(),
            Value::Float(number) => number.into(),
            Value::Text(text) => text.into(),
            Value::List(list) => list.into_iter().map(json).collect(),
            Value::Map(map) => map.into_iter().map(|(key, node)| (key.text, json(node))).collect(),
        }
    }
    parse(text).ok().map(json)
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { at: spanned.referenced.into(), value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Int)
            .map_err(|_too_large| E::custom(format!("the number {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Value>>()? {
            let value = map.next_value::<Spanned<Value>>()?;
            let text = match key.value {
                Value::Text(text) => text,
                Value::Int(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                other => return Err(A::Error::custom(format!("a key cannot be {}", other.kind()))),
            };
            entries.push((Key { at: key.referenced.into(), text }, value.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_has_its_place() {
        let root = parse("a: 1\nb:\n  - x\n  - {c: true}\n").unwrap();
        let Value::Map(entries) = root.value else { panic!("no mapping") };
        assert_eq!(entries[0].0.at, Place { line: 1, column: 1, width: 1 });
        let Value::List(list) = &entries[1].1.value else { panic!("no list") };
        assert_eq!(list[0].at, Place { line: 3, column: 5, width: 1 });
        assert_eq!(list[0].value, Value::Text("x".into()));
        let Value::Map(inner) = &list[1].value else { panic!("no mapping") };
        assert_eq!((inner[0].0.at.line, inner[0].0.at.column), (4, 6));
    }

    #[test]
    fn a_key_given_twice_is_kept_twice() {
        let Value::Map(entries) = parse("a: 1\na: 2\n").unwrap().value else { panic!("no mapping") };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn text_that_is_not_yaml_has_a_place() {
        let error = parse("a: [1, 2\nb: }").unwrap_err();
        assert!(error.at.line >= 1 && !error.message.contains(" at line "), "{error:?}");
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let last = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{last}"); 9].join(", ")));
        }
        parse(&bomb).unwrap_err();
        parse(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_text_is_a_tree_or_an_error(text in "[\\PC\\n\\t]{0,80}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.message.is_empty());
            }
        }

        #[test]
        fn any_punctuation_is_a_tree_or_an_error(text in "[-:{}\\[\\],&*!|>'\"%@`#?<a1 \\n]{0,60}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
