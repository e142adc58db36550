//! The vocabulary that artefacts are described with, and its two renderings: JSON Schema and tables for people.

use serde_json::{Map, Value, json};

/// What a value looks like.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Any string.
    Text,
    /// A string with something in it besides white space.
    Name,
    /// One string only.
    Const(&'static str),
    /// One of the words that the types know.
    Words(fn() -> Vec<&'static str>),
    /// SHA-256 in lower-case hex.
    Digest,
    /// SHA-256 in hex of either case, as callers may write it.
    AnyDigest,
    /// SHA-256 in hex, or empty.
    MaybeDigest,
    /// The first 12 bytes of SHA-256 in lower-case hex.
    ShortId,
    /// RFC 3339.
    Time,
    /// A whole number of 64 bits as a decimal string.
    Decimal,
    /// `intent_<n>`.
    IntentId,
    /// `run_…`.
    RunId,
    /// Standard base64.
    Base64,
    /// `true` or `false`.
    Flag,
    /// Any number.
    Number,
    /// A whole number, not negative.
    Count,
    /// Any value.
    Anything,
    /// Any object.
    Object,
    /// An array.
    List(&'static Shape),
    /// An array without equal elements.
    Set(&'static Shape),
    /// An object with any keys.
    Map(&'static Shape),
    /// The value or `null`.
    OrNull(&'static Shape),
    /// An object with these fields.
    Record(&'static Record),
    /// One of several objects that a constant tells apart.
    OneOf(&'static [&'static Record]),
}

/// Whether a field must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
    /// May be there, and readers pass over it: it is recomputed, or known to the envelope only.
    PassedOver,
}

/// A field of a record.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) presence: Presence,
    pub(crate) shape: Shape,
    pub(crate) about: &'static str,
}

pub(crate) const fn required(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, presence: Presence::Required, shape, about }
}

pub(crate) const fn optional(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, presence: Presence::Optional, shape, about }
}

pub(crate) const fn passed_over(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, presence: Presence::PassedOver, shape, about }
}

/// An object with fields.
pub(crate) struct Record {
    /// Whether other fields are allowed besides.
    pub(crate) open: bool,
    pub(crate) fields: &'static [&'static [Field]],
    /// The names of the fields of the Rust type, if it can be asked for them.
    pub(crate) of_type: Option<fn() -> Vec<&'static str>>,
}

impl Record {
    pub(crate) const fn new(fields: &'static [&'static [Field]]) -> Self {
        Self { open: false, fields, of_type: None }
    }

    pub(crate) const fn typed(
        fields: &'static [&'static [Field]],
        of_type: fn() -> Vec<&'static str>,
    ) -> Self {
        Self { open: false, fields, of_type: Some(of_type) }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().copied().flatten()
    }

    pub(crate) fn required(&self) -> Vec<&'static str> {
        self.all().filter(|field| field.presence == Presence::Required).map(|field| field.name).collect()
    }

    pub(crate) fn schema(&self) -> Value {
        let properties: Map<_, _> = self
            .all()
            .map(|field| {
                let mut schema = field.shape.schema();
                schema["description"] = field.about.into();
                (field.name.to_owned(), schema)
            })
            .collect();
        json!({
            "type": "object",
            "required": self.required(),
            "properties": properties,
            "additionalProperties": self.open,
        })
    }

    /// The table for people, and one for each record inside.
    pub(crate) fn tables(&self, title: &str) -> String {
        let mut text = format!("`{title}`\n\n| field | required | form | meaning |\n|---|---|---|---|\n");
        for field in self.all() {
            let needed = if field.presence == Presence::Required { "yes" } else { "" };
            let Field { name, shape, about, .. } = field;
            text.push_str(&format!("| `{name}` | {needed} | {} | {about} |\n", shape.words()));
        }
        if self.open {
            text.push_str("\nOther fields are allowed here.\n");
        }
        for field in self.all() {
            if let Some(record) = field.shape.record() {
                text.push('\n');
                text.push_str(&record.tables(&format!("{title}.{}", field.shape.path(field.name))));
            }
        }
        text
    }
}

const HEX64: &str = "^[a-f0-9]{64}$";
const TIME: &str =
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";

fn sorted(words: fn() -> Vec<&'static str>) -> Vec<&'static str> {
    let mut words = words();
    words.sort_unstable();
    words
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

impl Shape {
    pub(crate) fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Name => pattern(r"\S"),
            Self::Const(text) => json!({"type": "string", "const": text}),
            Self::Words(words) => json!({"type": "string", "enum": sorted(words)}),
            Self::Digest => pattern(HEX64),
            Self::AnyDigest => pattern("^[a-fA-F0-9]{64}$"),
            Self::MaybeDigest => pattern("^([a-fA-F0-9]{64})?$"),
            Self::ShortId => pattern("^[a-f0-9]{24}$"),
            Self::Time => json!({"type": "string", "format": "date-time", "pattern": TIME}),
            Self::Decimal => pattern("^(0|[1-9][0-9]{0,19})$"),
            Self::IntentId => pattern("^intent_[1-9][0-9]{0,19}$"),
            Self::RunId => pattern("^run_[A-Za-z0-9_-]+$"),
            Self::Base64 => pattern("^[A-Za-z0-9+/]+={0,2}$"),
            Self::Flag => json!({"type": "boolean"}),
            Self::Number => json!({"type": "number"}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::Anything => json!({}),
            Self::Object => json!({"type": "object"}),
            Self::List(item) => json!({"type": "array", "items": item.schema()}),
            Self::Set(item) => json!({"type": "array", "items": item.schema(), "uniqueItems": true}),
            Self::Map(item) => json!({"type": "object", "additionalProperties": item.schema()}),
            Self::OrNull(inner) => {
                let mut schema = inner.schema();
                schema["type"] = json!([schema["type"], "null"]);
                schema
            }
            Self::Record(record) => record.schema(),
            Self::OneOf(records) => {
                json!({"oneOf": records.iter().map(|record| record.schema()).collect::<Vec<_>>()})
            }
        }
    }

    pub(crate) fn words(self) -> String {
        match self {
            Self::Text => "string".into(),
            Self::Name => "string, not blank".into(),
            Self::Const(text) => format!("`{text}`"),
            Self::Words(words) => {
                sorted(words).iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            Self::Digest => "64 lower-case hex digits".into(),
            Self::AnyDigest => "64 hex digits".into(),
            Self::MaybeDigest => "64 hex digits, or empty".into(),
            Self::ShortId => "24 lower-case hex digits".into(),
            Self::Time => "RFC 3339 time".into(),
            Self::Decimal => "decimal string".into(),
            Self::IntentId => "`intent_<n>`".into(),
            Self::RunId => "`run_` and letters, digits, `_`, `-`".into(),
            Self::Base64 => "standard base64".into(),
            Self::Flag => "boolean".into(),
            Self::Number => "number".into(),
            Self::Count => "whole number".into(),
            Self::Anything => "any value".into(),
            Self::Object => "object".into(),
            Self::List(item) => format!("list of: {}", item.words()),
            Self::Set(item) => format!("list without repetitions of: {}", item.words()),
            Self::Map(item) => format!("map to: {}", item.words()),
            Self::OrNull(inner) => format!("{}, or null", inner.words()),
            Self::Record(_) => "object, below".into(),
            Self::OneOf(_) => "one of the objects below".into(),
        }
    }

    /// The record inside, if there is one.
    pub(crate) fn record(self) -> Option<&'static Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::List(inner) | Self::Set(inner) | Self::Map(inner) | Self::OrNull(inner) => inner.record(),
            _ => None,
        }
    }

    /// The name of a field with marks for what is around the record in it.
    fn path(self, name: &str) -> String {
        match self {
            Self::List(_) | Self::Set(_) => format!("{name}[]"),
            Self::OrNull(inner) => inner.path(name),
            Self::Map(_) => format!("{name}{{}}"),
            _ => name.to_owned(),
        }
    }
}
