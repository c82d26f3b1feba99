//! Child keys of a threshold key, held against BIP-32's public derivation written out anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use k256::{ProjectivePoint, PublicKey, Scalar};
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use casemate_mpc::Engine;
use support::committee::{make_key, reduced_aux};

/// RFC 2104 over SHA-512, for keys of 32 bytes.
fn hmac(key: &[u8; 32], text: &[u8]) -> [u8; 64] {
    let pad = |byte: u8| -> Vec<u8> {
        let mut block = vec![byte; 128];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha512::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha512::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// CKDpub of BIP-32, step by step.
fn derive(key: [u8; 33], chain_code: [u8; 32], path: &[u32]) -> [u8; 33] {
    let (mut key, mut chain_code) = (key, chain_code);
    for index in path {
        let digest = hmac(&chain_code, &[&key[..], &index.to_be_bytes()].concat());
        let (left, right) = digest.split_at(32);
        let tweak = Scalar::from_repr(*k256::FieldBytes::from_slice(left)).unwrap();
        let parent = PublicKey::from_sec1_bytes(&key).unwrap().to_projective();
        let child = (parent + ProjectivePoint::GENERATOR * tweak).to_affine();
        key = child.to_encoded_point(true).as_bytes().try_into().unwrap();
        chain_code = right.try_into().unwrap();
    }
    key
}

/// BIP-32's second test vector, from its master key to m/0: the yardstick itself.
#[test]
fn the_derivation_written_here_is_that_of_bip_32() {
    let bytes = |text: &str| hex::decode(text).unwrap();
    let master = bytes("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7").try_into().unwrap();
    let code = bytes("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689").try_into().unwrap();
    let child = "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea";
    assert_eq!(hex::encode(derive(master, code, &[0])), child);
}

#[tokio::test]
async fn every_share_derives_the_children_that_bip_32_says() {
    let engine = Engine::start(Some(2)).unwrap();
    let shares = make_key(&engine, 2, &reduced_aux(3)).await;
    let (key, code) = (shares[0].public_key(), shares[0].chain_code());
    assert!(shares.iter().all(|share| (share.public_key(), share.chain_code()) == (key, code)));
    let paths = prop::collection::vec(0u32..1 << 31, 0..=10);
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&paths, |path| {
            let expected = derive(key, code, &path);
            for share in &shares {
                prop_assert_eq!(share.child_public_key(&path).unwrap(), expected);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(shares[0].child_public_key(&[0, (1 << 31) - 1]).unwrap(), derive(key, code, &[0, (1 << 31) - 1]));
}
