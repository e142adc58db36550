//! Canonical JSON, digests, keys and signatures: everything that makes a document provable.
//!
//! Every signed or digested document of this crate goes through this module, and only through it.

mod bulk;
mod canon;
mod digest;
mod key;
mod object;

pub(crate) use bulk::BulkVerifier;
pub(crate) use canon::digest_of_tree;
pub use canon::{CanonError, Limits, ParseError, canonical, digest_of, parse_strict};
pub(crate) use digest::write_hex;
pub use digest::{Digest, DigestHasher, InvalidDigest};
pub use key::{KeyError, Signature, SignatureError, SigningKey, VerifyKey};
pub(crate) use object::{Field, ObjectWriter};
