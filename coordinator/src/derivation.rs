//! Child keys: what a signature at a derivation path must verify under (BIP-32, public derivation; SLIP-10 shares it on
//! secp256k1).

use casemate_wire::{DerivationPath, KeyStatement, PublicKey};
use hmac::{Hmac, Mac};
use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use k256::{ProjectivePoint, Scalar};
use serde::{Deserialize, Serialize};
use sha2::Sha512;

/// A child key and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Child {
    pub(crate) path: DerivationPath,
    pub(crate) public_key: PublicKey,
}

impl Child {
    /// The child of a threshold key at a path.
    ///
    /// `None` where an index on the way has no child, of which there is one in 2¹²⁷.
    pub(crate) fn of(key: &KeyStatement, path: DerivationPath) -> Option<Self> {
        let mut at = (key.public_key, key.chain_code);
        for index in path.indices() {
            at = step(&at.0, &at.1, *index)?;
        }
        Some(Self { public_key: at.0, path })
    }
}

/// `CKDpub` of BIP-32: the child of a key and chain code at a non-hardened index.
fn step(parent: &PublicKey, chain_code: &[u8; 32], index: u32) -> Option<(PublicKey, [u8; 32])> {
    let mut mac = Hmac::<Sha512>::new_from_slice(chain_code).ok()?;
    mac.update(parent.as_bytes());
    mac.update(&index.to_be_bytes());
    let digest: [u8; 64] = mac.finalize().into_bytes().into();
    let (tweak, chain_code) = digest.split_first_chunk::<32>()?;
    let tweak: Option<Scalar> = Scalar::from_repr((*tweak).into()).into();
    let parent = k256::PublicKey::from_sec1_bytes(parent.as_bytes()).ok()?;
    let child = ProjectivePoint::GENERATOR * tweak? + parent.to_projective();
    let child = k256::PublicKey::from_affine(child.to_affine()).ok()?;
    let child = PublicKey::from_bytes(child.to_encoded_point(true).as_bytes()).ok()?;
    Some((child, chain_code.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::session::testing::certificate;

    fn child(key: &str, chain_code: &str, path: &str) -> String {
        let chain_code = hex::decode(chain_code).unwrap().try_into().unwrap();
        let key = certificate(4, |s| (s.public_key, s.chain_code) = (key.parse().unwrap(), chain_code));
        Child::of(&key.statement, path.parse().unwrap()).unwrap().public_key.to_string()
    }

    #[test]
    fn children_are_those_of_the_vectors_of_bip_32() {
        // Test vector 2: m → m/0. The vectors' other non-hardened steps start at hardened children.
        let master = "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7";
        let code = "60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689";
        let first = "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea";
        assert_eq!(child(master, code, "m/0"), first);
        // Test vector 1: m/0' → m/0'/1.
        let parent = "035a784662a4a20a65bf6aab9ae98a6c068a81c52e4b032c0fb5400c706cfccc56";
        let code = "47fdacbd0f1097043b78c63c20c34ef4ed9a111d980047ad16282c7ae6236141";
        let second = "03501e454bf00751f24b1b489aa925215d66af2234e3891c3b21a52bedb3cd711c";
        assert_eq!(child(parent, code, "m/1"), second);
        // Test vector 1: m/0'/1/2' → m/0'/1/2'/2 → m/0'/1/2'/2/1000000000, two steps at once.
        let parent = "0357bfe1e341d01c69fe5654309956cbea516822fba8a601743a012a7896ee8dc2";
        let code = "04466b9cc8e161e966409ca52986c584f07e9dc81f735db683c3ff6ec7b1503f";
        let last = "022a471424da5e657499d1ff51cb43c47481a03b1e77f951fe64cec9f5a48f7011";
        assert_eq!(child(parent, code, "m/2/1000000000"), last);
    }
}
