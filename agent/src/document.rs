//! Reading a document of the contract as strictly as its schema describes it.
//!
//! Serde alone is too kind where a type has defaults for other purposes (a run that a caller describes may leave out
//! what gait fills in), so a [`Document`] checks the bare JSON first: the schema it names, and the fields it must have.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::schema;
use crate::sign::{CanonError, Limits, ParseError, parse_strict};

/// A document is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not JSON that means one thing.
    #[error("not strict JSON")]
    Parse(#[from] ParseError),
    /// Not an object, or one with a value of another type or form.
    #[error("not of the expected shape")]
    Shape(#[source] serde_json::Error),
    /// A required field is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// Another document, or one of another generation.
    #[error("unsupported schema {id} {version}")]
    Schema {
        /// Its `schema_id`.
        id: String,
        /// Its `schema_version`.
        version: String,
    },
    /// A value is empty, or not in its form.
    #[error("{0} is malformed")]
    Malformed(String),
    /// A list is not sorted, or has an element twice.
    #[error("{0} is not sorted and unique")]
    Order(String),
    /// A digest is not that of what it covers.
    #[error("{0} is not the digest of its payload")]
    Digest(String),
    /// Not written in the canonical form that the document must have.
    #[error("not in canonical form")]
    Form,
    /// There is no canonical form to take a digest of.
    #[error("cannot be digested")]
    Canon(#[from] CanonError),
}

impl DocumentError {
    /// Returns the stable code of the mistake.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Parse(error) => error.code(),
            Self::Shape(_) => "wrong_shape",
            Self::Missing(_) => "missing_field",
            Self::Schema { .. } => "wrong_generation",
            Self::Malformed(_) => "malformed_value",
            Self::Order(_) => "order",
            Self::Digest(_) => "digest_mismatch",
            Self::Form => "not_canonical",
            Self::Canon(_) => "not_json",
        }
    }
}

/// A document with a schema.
pub trait Document: DeserializeOwned {
    /// Its `schema_id`.
    const SCHEMA_ID: &'static str;

    /// Top-level fields that must be there although the type has a default for them.
    const REQUIRED: &'static [&'static str] = &[];

    /// Checks what the type cannot say. `object` is the document as it stands, with fields that this version does not
    /// know.
    ///
    /// # Errors
    ///
    /// Says which place is wrong.
    fn check(&self, object: &Value) -> Result<(), DocumentError>;

    /// Checks nested fields that must be there although their types have defaults.
    ///
    /// # Errors
    ///
    /// Says which field is missing.
    fn check_presence(_object: &Value) -> Result<(), DocumentError> {
        Ok(())
    }

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it, and where.
    fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::from_value(parse_strict(bytes, Limits::DOCUMENT)?)
    }

    /// Takes a document that was parsed already.
    ///
    /// # Errors
    ///
    /// As [`Self::from_json`].
    fn from_value(value: Value) -> Result<Self, DocumentError> {
        if !value.is_object() {
            return Err(DocumentError::Shape(serde::de::Error::custom("not an object")));
        }
        require(&value, "", &["schema_id", "schema_version", "created_at", "producer_version"])?;
        require(&value, "", Self::REQUIRED)?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let (id, version) = (text("schema_id"), text("schema_version"));
        if id != Self::SCHEMA_ID || version != schema::VERSION {
            return Err(DocumentError::Schema { id: id.to_owned(), version: version.to_owned() });
        }
        Self::check_presence(&value)?;
        let document = Self::deserialize(&value).map_err(DocumentError::Shape)?;
        document.check(&value)?;
        Ok(document)
    }
}

/// Requires fields of the object at `place`, which is a JSON pointer.
///
/// # Errors
///
/// Names the first that is missing.
pub(crate) fn require(object: &Value, place: &str, fields: &[&str]) -> Result<(), DocumentError> {
    match fields.iter().find(|field| object.get(field).is_none()) {
        Some(field) => Err(DocumentError::Missing(format!("{place}/{field}"))),
        None => Ok(()),
    }
}

/// Requires a text that is not empty.
///
/// # Errors
///
/// Names the place.
pub(crate) fn nonempty(text: &str, place: &str) -> Result<(), DocumentError> {
    if text.is_empty() { Err(DocumentError::Malformed(place.to_owned())) } else { Ok(()) }
}
