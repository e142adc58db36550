//! Canonical JSON, digests, keys and signatures: everything that makes a document provable.
//!
//! Every signed or digested document of this crate goes through this module, and only through it.

mod canon;
mod digest;
mod key;

pub(crate) use canon::write_string;
pub use canon::{CanonError, Limits, ParseError, canonical, digest_of, parse_strict};
pub use digest::{Digest, DigestHasher, InvalidDigest};
pub use key::{KeyError, Signature, SignatureError, SigningKey, VerifyKey};
