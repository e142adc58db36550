//! Many signatures of one key: the same answers as [`VerifyKey::verify_digest`], several times faster.
//!
//! A signature (R, s) over a message holds if `s·B − h·A`, encoded, is R byte by byte, with B the base point, A the key
//! and h the hash of R, A and the message (RFC 8032 §5.1.7, without the cofactor, as `verify_strict` of
//! ed25519-dalek does it). Checking one signature computes that by 256 doublings. B and A are the same for all
//! signatures of a runpack, so here their multiples are tabled once, and each check is a sum of some fifty table
//! entries. Nothing is random and nothing is combined over signatures, as batch verification would: every single
//! signature is held to the same equation, so exactly those are accepted that `verify_strict` accepts.
//!
//! The caller of [`BulkVerifier`] asks [`VerifyKey::verify_digest`] about whatever is refused here, to learn why.

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use sha2::{Digest as _, Sha512};

use super::Digest;
use super::key::{Signature, VerifyKey};

/// Bits of a scalar that one table serves; the tables of both points take 4 MiB.
const WINDOW: usize = 10;
/// Scalars are below 2^253, and a signed digit may carry.
const WINDOWS: usize = 254_usize.div_ceil(WINDOW);
/// Digits are signed, so a table has half of them.
const ENTRIES: usize = 1 << (WINDOW - 1);

/// The multiples of a point: `1..=ENTRIES` times `2^(WINDOW·i)` times the point, for each window i.
struct Multiples(Vec<EdwardsPoint>);

impl Multiples {
    fn of(point: EdwardsPoint) -> Self {
        let mut table = Vec::with_capacity(WINDOWS * ENTRIES);
        let mut base = point;
        for _ in 0..WINDOWS {
            let mut multiple = base;
            for _ in 0..ENTRIES {
                table.push(multiple);
                multiple += base;
            }
            // The last entry is half of the next window's base.
            base = table[table.len() - 1];
            base += base;
        }
        Self(table)
    }

    /// Adds the digit's multiple of a window to `sum`.
    fn add(&self, window: usize, digit: i16, sum: &mut EdwardsPoint) {
        let entry = |magnitude: i16| &self.0[window * ENTRIES + usize::from(magnitude.unsigned_abs()) - 1];
        match digit {
            0 => {}
            1.. => *sum += entry(digit),
            _ => *sum -= entry(digit),
        }
    }
}

/// The scalar in signed digits, the lowest first: each is in `-ENTRIES..=ENTRIES`.
fn digits(scalar: &Scalar) -> [i16; WINDOWS] {
    const RADIX: i16 = 1 << WINDOW;
    let bytes = scalar.as_bytes();
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| i16::from(byte >> (at % 8) & 1));
    let mut carry = 0;
    std::array::from_fn(|window| {
        let mut digit = carry;
        for at in 0..WINDOW {
            digit += bit(window * WINDOW + at) << at;
        }
        carry = i16::from(digit > RADIX / 2);
        digit - carry * RADIX
    })
}

/// Checks signatures of one key.
pub(crate) struct BulkVerifier {
    key: VerifyKey,
    key_bytes: [u8; 32],
    base: Multiples,
    /// Of the negated key.
    negated: Multiples,
}

impl BulkVerifier {
    /// Tables the multiples; worth it from some hundred signatures on. `None` if the key is not a point.
    pub(crate) fn new(key: &VerifyKey) -> Option<Self> {
        let key_bytes = key.to_bytes();
        let point = CompressedEdwardsY(key_bytes).decompress()?;
        Some(Self {
            key: *key,
            key_bytes,
            base: Multiples::of(ED25519_BASEPOINT_POINT),
            negated: Multiples::of(-point),
        })
    }

    /// Says of each signature whether it holds over its digest.
    pub(crate) fn verify(&self, signed: &[(Digest, &Signature)]) -> Vec<bool> {
        let claims: Vec<_> = signed.iter().map(|(digest, signature)| self.claim(digest, signature)).collect();
        let mut sums = vec![EdwardsPoint::identity(); claims.iter().flatten().count()];
        // Window by window, not signature by signature: the part of the tables in use fits the cache.
        for window in 0..WINDOWS {
            for (table, scalar) in [(&self.base, 0), (&self.negated, 1)] {
                for (claim, sum) in claims.iter().flatten().zip(&mut sums) {
                    table.add(window, claim.scalars[scalar][window], sum);
                }
            }
        }
        // One inversion for all encodings.
        let encoded = EdwardsPoint::compress_batch_alloc(&sums);
        let mut sums = sums.iter().zip(&encoded);
        let mut holds = |claim: &Claim| {
            sums.next().is_some_and(|(sum, encoded)| encoded.0 == claim.r && !sum.is_small_order())
        };
        claims.iter().map(|claim| claim.as_ref().is_some_and(&mut holds)).collect()
    }

    /// Takes a signature apart; `None` if it cannot hold.
    fn claim(&self, digest: &Digest, signature: &Signature) -> Option<Claim> {
        let bytes = self.key.claimed_bytes(digest, signature).ok()?;
        let (r, s) = bytes.split_first_chunk::<32>()?;
        let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?;
        let hash = Sha512::new().chain_update(r).chain_update(self.key_bytes).chain_update(digest.as_bytes());
        let h = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        Some(Claim { r: *r, scalars: [digits(&s), digits(&h)] })
    }
}

/// A signature taken apart: the point that it claims to come to, and the scalars of the base point and the negated key.
struct Claim {
    r: [u8; 32],
    scalars: [[i16; WINDOWS]; 2],
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;

    use super::*;
    use crate::sign::SigningKey;

    /// The order of the group minus one.
    fn largest() -> Scalar {
        -Scalar::ONE
    }

    fn both(bulk: &BulkVerifier, key: &VerifyKey, digest: Digest, signature: &Signature) -> bool {
        let one = key.verify_digest(&digest, signature).is_ok();
        assert_eq!(bulk.verify(&[(digest, signature)]), [one], "{signature:?}");
        one
    }

    fn with_bytes(key: &VerifyKey, digest: Digest, bytes: &[u8]) -> Signature {
        Signature {
            alg: "ed25519".into(),
            key_id: key.key_id(),
            sig: STANDARD.encode(bytes),
            signed_digest: Some(digest),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn products_are_those_of_the_library(bytes in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
            let (scalar, point) = (Scalar::from_bytes_mod_order(bytes), EdwardsPoint::mul_base(&Scalar::from_bytes_mod_order(other)));
            for point in [point, point + EIGHT_TORSION[1]] {
                let table = Multiples::of(point);
                for scalar in [scalar, Scalar::ZERO, Scalar::ONE, largest()] {
                    let mut sum = EdwardsPoint::identity();
                    for (window, digit) in digits(&scalar).into_iter().enumerate() {
                        table.add(window, digit, &mut sum);
                    }
                    prop_assert_eq!(sum, point * scalar);
                }
            }
        }

    }

    proptest! {
        #[test]
        fn any_bytes_get_the_same_answer(bytes in any::<[u8; 64]>(), at in 0_usize..512) {
            static BULK: LazyLock<(SigningKey, BulkVerifier)> = LazyLock::new(|| {
                let signer = SigningKey::from_seed([9; 32]);
                let bulk = BulkVerifier::new(&signer.verify_key()).unwrap();
                (signer, bulk)
            });
            let (signer, bulk) = &*BULK;
            let key = signer.verify_key();
            let digest = Digest::sha256(&bytes);
            prop_assert!(!both(bulk, &key, digest, &with_bytes(&key, digest, &bytes)));
            let good = signer.sign_digest(&digest);
            prop_assert!(both(bulk, &key, digest, &good));
            let mut changed = STANDARD.decode(&good.sig).unwrap();
            changed[at / 8] ^= 1 << (at % 8);
            prop_assert!(!both(bulk, &key, digest, &with_bytes(&key, digest, &changed)));
        }
    }

    /// Signatures and keys made to divide verifiers: points of small order, points with a part of small order, and
    /// scalars beyond the order of the group.
    #[test]
    fn crafted_signatures_get_the_same_answer() {
        let secret = Scalar::from_bytes_mod_order([5; 32]);
        let (mut held, mut refused) = (0, 0);
        for torsion in EIGHT_TORSION {
            let point = EdwardsPoint::mul_base(&secret) + torsion;
            let key = VerifyKey::from_bytes(&point.compress().to_bytes()).unwrap();
            let bulk = BulkVerifier::new(&key).unwrap();
            for number in 0..8_u8 {
                let digest = Digest::sha256(&[number]);
                for (nonce, r_torsion) in
                    EIGHT_TORSION.iter().flat_map(|part| [(Scalar::from(77_u8), part), (Scalar::ZERO, part)])
                {
                    let r = (EdwardsPoint::mul_base(&nonce) + r_torsion).compress().to_bytes();
                    let mut negated = r;
                    negated[31] ^= 0x80;
                    for r in [r, negated] {
                        let hash = Sha512::new().chain_update(r).chain_update(key.to_bytes());
                        let h = Scalar::from_bytes_mod_order_wide(
                            &hash.chain_update(digest.as_bytes()).finalize().into(),
                        );
                        let s = nonce + h * secret;
                        // s itself, and s plus the order of the group.
                        for s in [s.to_bytes(), beyond(s)] {
                            let signature = with_bytes(&key, digest, &[r, s].concat());
                            if both(&bulk, &key, digest, &signature) { held += 1 } else { refused += 1 }
                        }
                    }
                }
            }
        }
        // Some have to hold, or the test proves little.
        assert!(held > 50 && refused > 500, "{held} {refused}");
    }

    fn beyond(s: Scalar) -> [u8; 32] {
        let order = largest().to_bytes();
        let mut carry = 1;
        let sum = s.to_bytes();
        std::array::from_fn(|at| {
            let total = u16::from(sum[at]) + u16::from(order[at]) + carry;
            carry = total >> 8;
            total.to_le_bytes()[0]
        })
    }

    #[test]
    fn claims_that_do_not_fit_are_refused() {
        let signer = SigningKey::from_seed([3; 32]);
        let bulk = BulkVerifier::new(&signer.verify_key()).unwrap();
        let digest = Digest::sha256(b"x");
        let good = signer.sign_digest(&digest);
        let other = SigningKey::from_seed([4; 32]).sign_digest(&digest);
        let cases = [
            good.clone(),
            Signature { alg: "rsa".into(), ..good.clone() },
            Signature { signed_digest: Some(Digest::ZERO), ..good.clone() },
            Signature { signed_digest: None, ..good.clone() },
            Signature { sig: "!".into(), ..good.clone() },
            Signature { sig: good.sig[4..].into(), ..good.clone() },
            Signature { key_id: Digest::ZERO, ..good.clone() },
            other,
        ];
        let signed: Vec<_> = cases.iter().map(|signature| (digest, signature)).collect();
        let want: Vec<_> =
            cases.iter().map(|one| signer.verify_key().verify_digest(&digest, one).is_ok()).collect();
        assert_eq!(want, [true, false, false, true, false, false, false, false]);
        assert_eq!(bulk.verify(&signed), want);
        assert!(bulk.verify(&[]).is_empty());
    }
}
