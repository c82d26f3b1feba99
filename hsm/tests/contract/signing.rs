//! Signatures verify under the key that the token shows, or are not released.

use std::collections::BTreeSet;

use casemate_hsm::{Hsm, HsmError, KeyPurpose};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;

use crate::support::{Module, on_fresh_store};

#[test]
fn each_pair_signs_under_its_own_public_key_only() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        for signer in KeyPurpose::ALL {
            let signature = hsm.sign(signer, b"message").await.unwrap();
            let signature = Signature::from_slice(&signature).unwrap();
            for other in KeyPurpose::ALL {
                let key = VerifyingKey::from_public_key_der(&hsm.public_key(other)).unwrap();
                assert_eq!(key.verify(b"message", &signature).is_ok(), signer == other);
                assert!(key.verify(b"another message", &signature).is_err());
            }
        }
    });
}

#[test]
fn a_signature_that_does_not_verify_is_not_released() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        store.break_it("bad-signature");
        let error = hsm.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
        assert!(matches!(error, HsmError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("does not verify"), "{error}");
    });
}

#[test]
fn random_bytes_have_the_asked_length_and_differ() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            assert!(seen.insert(hsm.random(32).await.unwrap().to_vec()));
        }
        assert_eq!(hsm.random(0).await.unwrap().len(), 0);
        assert_eq!(hsm.random(Hsm::MAX_RANDOM).await.unwrap().len(), Hsm::MAX_RANDOM);
        let error = hsm.random(Hsm::MAX_RANDOM + 1).await.unwrap_err();
        assert!(matches!(error, HsmError::TooMuchRandom { .. }));
    });
}
