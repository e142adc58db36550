//! Ed25519 keys and signatures over digests, in the contract's file forms.
//!
//! What is signed are the 32 raw bytes of a digest. Verification is strict: the algorithm, the key id and the signed
//! digest that a signature claims must all be the expected ones, and weak keys and malleable signatures are refused.
//! Making key seeds needs randomness and is left to the caller.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};

use super::Digest;

/// The one algorithm of the contract.
const ALGORITHM: &str = "ed25519";

/// The text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not standard base64.
    #[error("key is not standard base64")]
    Encoding,
    /// The wrong number of bytes.
    #[error("key has {found} bytes, expected {expected}")]
    Length {
        /// What was given.
        found: usize,
        /// What a key of this kind has.
        expected: usize,
    },
    /// The public half does not belong to the private one.
    #[error("the two halves of the private key do not belong together")]
    Halves,
    /// Not a point on the curve, or one that makes every signature valid.
    #[error("not a usable ed25519 public key")]
    Point,
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let bytes = STANDARD.decode(text.trim()).or(Err(KeyError::Encoding))?;
    <[u8; N]>::try_from(bytes.as_slice()).or(Err(KeyError::Length { found: bytes.len(), expected: N }))
}

/// A private key. Its bytes are wiped when it is dropped.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    key_id: Digest,
}

impl SigningKey {
    /// Makes the key of a seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self::new(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    fn new(key: ed25519_dalek::SigningKey) -> Self {
        let key_id = Digest::sha256(key.verifying_key().as_bytes());
        Self { key, key_id }
    }

    /// Reads a private key file: base64 of seed and public key, surrounding white space ignored.
    ///
    /// # Errors
    ///
    /// Fails if the text is not such a file.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        let bytes = decode::<64>(text)?;
        let key = ed25519_dalek::SigningKey::from_keypair_bytes(&bytes).or(Err(KeyError::Halves))?;
        Ok(Self::new(key))
    }

    /// Returns the text of a private key file.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        let mut text = STANDARD.encode(self.key.to_keypair_bytes());
        text.push('\n');
        text
    }

    /// Returns the public key.
    #[must_use]
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey { key: self.key.verifying_key(), key_id: self.key_id }
    }

    /// Returns the digest of the public key.
    #[must_use]
    pub const fn key_id(&self) -> Digest {
        self.key_id
    }

    /// Signs a digest.
    #[must_use]
    pub fn sign_digest(&self, digest: &Digest) -> Signature {
        Signature {
            alg: ALGORITHM.to_owned(),
            key_id: self.key_id,
            sig: STANDARD.encode(self.key.sign(digest.as_bytes()).to_bytes()),
            signed_digest: Some(*digest),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyKey {
    key: ed25519_dalek::VerifyingKey,
    key_id: Digest,
}

impl VerifyKey {
    /// Makes the key of its 32 bytes.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a point on the curve, or a point of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).or(Err(KeyError::Point))?;
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(Self { key, key_id: Digest::sha256(bytes) })
    }

    /// Reads a public key file: base64 of 32 bytes, surrounding white space ignored.
    ///
    /// # Errors
    ///
    /// Fails if the text is not such a file.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode::<32>(text)?)
    }

    /// Returns the text of a public key file.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        let mut text = self.to_base64();
        text.push('\n');
        text
    }

    /// Returns the key as base64, the form that documents carry.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.key.as_bytes())
    }

    /// Returns the digest of the key.
    #[must_use]
    pub const fn key_id(&self) -> Digest {
        self.key_id
    }

    /// Checks that `signature` is this key's over `digest`.
    ///
    /// # Errors
    ///
    /// Says what does not fit, the claims of the signature first.
    pub fn verify_digest(&self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        let bytes = self.claimed_bytes(digest, signature)?;
        let inner = ed25519_dalek::Signature::from_bytes(&bytes);
        self.key.verify_strict(digest.as_bytes(), &inner).or(Err(SignatureError::Invalid))
    }

    /// Returns the bytes of a signature whose claims are the expected ones.
    ///
    /// # Errors
    ///
    /// Says which claim does not fit.
    pub(super) fn claimed_bytes(
        &self,
        digest: &Digest,
        signature: &Signature,
    ) -> Result<[u8; 64], SignatureError> {
        if signature.alg != ALGORITHM {
            return Err(SignatureError::Algorithm(signature.alg.clone()));
        }
        if signature.key_id != self.key_id {
            return Err(SignatureError::Key { signer: signature.key_id, expected: self.key_id });
        }
        if signature.signed_digest.is_some_and(|signed| signed != *digest) {
            return Err(SignatureError::Digest);
        }
        let bytes = STANDARD.decode(&signature.sig).or(Err(SignatureError::Encoding))?;
        <[u8; 64]>::try_from(bytes.as_slice()).or(Err(SignatureError::Encoding))
    }

    /// Returns the 32 bytes.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.key.to_bytes()
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A signature as documents carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The algorithm; only `ed25519` is valid.
    pub alg: String,
    /// The digest of the signer's public key.
    pub key_id: Digest,
    /// Base64 of the 64 signature bytes.
    pub sig: String,
    /// The digest that was signed; always written, optional when read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_digest: Option<Digest>,
}

impl Signature {
    /// Writes the fields in canonical order.
    pub(crate) fn write_fields(&self, object: &mut super::ObjectWriter<'_>) {
        object.text("alg", &self.alg);
        object.digest("key_id", &self.key_id);
        object.text("sig", &self.sig);
        if let Some(digest) = &self.signed_digest {
            object.digest("signed_digest", digest);
        }
    }
}

/// A signature does not prove what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not ed25519.
    #[error("unsupported signature algorithm {0:?}")]
    Algorithm(String),
    /// Signed by another key.
    #[error("signed by key {signer}, expected {expected}")]
    Key {
        /// The key id in the signature.
        signer: Digest,
        /// The key id of the key it was checked with.
        expected: Digest,
    },
    /// The signature says it covers another digest.
    #[error("the signed digest is not that of the document")]
    Digest,
    /// Not base64 of 64 bytes.
    #[error("signature is not base64 of 64 bytes")]
    Encoding,
    /// The mathematics say no.
    #[error("invalid signature")]
    Invalid,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> [u8; 32] {
        std::array::from_fn(|at| u8::try_from(at).unwrap())
    }

    #[test]
    fn key_files_and_key_id_equal_the_vectors() {
        let private = include_str!("../../tests/vectors/inputs/key_private.b64");
        let public = include_str!("../../tests/vectors/inputs/key_public.b64");
        let key = SigningKey::from_file_text(private).unwrap();
        assert_eq!(key.to_file_text().trim(), private.trim());
        assert_eq!(SigningKey::from_seed(seed()).to_file_text(), key.to_file_text());
        assert_eq!(key.verify_key().to_file_text().trim(), public.trim());
        assert_eq!(VerifyKey::from_file_text(public).unwrap(), key.verify_key());
        let key_id = "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c";
        assert_eq!(key.key_id().to_string(), key_id);
    }

    /// The guard pack of the vectors is signed by the reference implementation over this digest.
    #[test]
    fn a_signature_of_the_reference_verifies_and_is_reproduced() {
        let expected: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/expected_v17.json")).unwrap();
        let signature: Signature =
            serde_json::from_value(expected["guard_pack"]["signatures"][0].clone()).unwrap();
        let digest = signature.signed_digest.unwrap();
        let key = SigningKey::from_seed(seed());
        assert_eq!(key.verify_key().verify_digest(&digest, &signature), Ok(()));
        assert_eq!(key.sign_digest(&digest), signature);
    }

    #[test]
    fn every_claim_of_a_signature_is_checked() {
        let key = SigningKey::from_seed(seed());
        let public = key.verify_key();
        let digest = Digest::sha256(b"document");
        let good = key.sign_digest(&digest);
        assert_eq!(public.verify_digest(&digest, &good), Ok(()));
        let check = |signature: Signature| public.verify_digest(&digest, &signature);
        let other = SigningKey::from_seed([9; 32]);

        let err = check(Signature { alg: "ED25519".into(), ..good.clone() });
        assert_eq!(err, Err(SignatureError::Algorithm("ED25519".into())));
        let err = check(other.sign_digest(&digest));
        assert_eq!(err, Err(SignatureError::Key { signer: other.key_id(), expected: key.key_id() }));
        let err = check(Signature { signed_digest: Some(Digest::ZERO), ..good.clone() });
        assert_eq!(err, Err(SignatureError::Digest));
        let err = check(Signature { sig: "AAAA".into(), ..good.clone() });
        assert_eq!(err, Err(SignatureError::Encoding));
        let err = check(Signature { sig: other.sign_digest(&digest).sig, ..good.clone() });
        assert_eq!(err, Err(SignatureError::Invalid));
        let err = public.verify_digest(&Digest::ZERO, &Signature { signed_digest: None, ..good });
        assert_eq!(err, Err(SignatureError::Invalid));
    }

    #[test]
    fn bad_key_files_are_refused() {
        let mut halves = SigningKey::from_seed(seed()).key.to_keypair_bytes();
        halves[40] ^= 1;
        let cases = [
            ("not base64!", KeyError::Encoding),
            ("AAAA", KeyError::Length { found: 3, expected: 64 }),
            (&STANDARD.encode(halves), KeyError::Halves),
        ];
        for (text, error) in cases {
            assert_eq!(SigningKey::from_file_text(text).unwrap_err(), error);
        }
        // The neutral element: every signature of it would be valid for some message.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert_eq!(VerifyKey::from_file_text(&STANDARD.encode(weak)), Err(KeyError::Point));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SigningKey::from_seed([7; 32]);
        assert!(!format!("{key:?}").contains("7, 7"));
        assert!(format!("{key:?}").contains(&key.key_id().to_string()));
    }
}
