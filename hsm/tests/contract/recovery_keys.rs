//! A recovery HSM opens what a host sealed for it, for its own record, and nothing that somebody else made.

use casemate_hsm::{Hsm, HsmError, KeyPurpose, RecoveryEntry, RecoveryHsm, Secret32, init_keys, init_recovery};
use casemate_wire::{IdentityKey, RecoveryKey};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectClass};

use crate::raw::Raw;
use crate::support::{Module, Store, on_fresh_store};

struct Hosts {
    hsm: Hsm,
    identity: IdentityKey,
    recovery: RecoveryHsm,
}

impl Hosts {
    async fn of(store: &Store) -> Self {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let identity = IdentityKey::from_spki(&hsm.public_key(KeyPurpose::Identity)).unwrap();
        store.token("recovery");
        let config = store.config("recovery");
        let key = init_recovery(&config).unwrap();
        let recovery = RecoveryHsm::open(&config).unwrap();
        assert_eq!(*recovery.public_key(), key);
        Self { hsm, identity, recovery }
    }

    async fn seal(&self, context: &[u8], key: &Secret32) -> RecoveryEntry {
        self.hsm.wrap_for_recovery(self.recovery.public_key(), context, key).await.unwrap()
    }

    fn open(&self, context: &[u8], entry: &RecoveryEntry) -> Result<Secret32, HsmError> {
        self.recovery.unwrap(context, entry, &self.identity)
    }
}

#[test]
fn a_recovery_hsm_opens_what_a_host_sealed_for_it() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hosts = Hosts::of(&store).await;
        let key = Secret32::random().unwrap();
        let entry = hosts.seal(b"share 1", &key).await;
        assert_eq!(hosts.open(b"share 1", &entry).unwrap().expose(), key.expose());
        assert!(entry.is_for(hosts.recovery.public_key()) && entry.is_signed_by(&hosts.identity, b"share 1"));
    });
}

#[test]
fn an_entry_that_was_moved_altered_or_forged_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hosts = Hosts::of(&store).await;
        let entry = hosts.seal(b"share 1", &Secret32::random().unwrap()).await;
        assert!(matches!(hosts.open(b"share 2", &entry), Err(HsmError::RecoveryNotSigned)));
        let changes: [fn(&mut RecoveryEntry); 3] = [|e| e.blob[7] ^= 1, |e| e.signature[7] ^= 1, |e| e.ckm += 1];
        for change in changes {
            let mut altered = entry.clone();
            change(&mut altered);
            assert!(matches!(hosts.open(b"share 1", &altered), Err(HsmError::RecoveryNotSigned)));
        }
        let mut other = entry.clone();
        other.key[0] ^= 1;
        assert!(matches!(hosts.open(b"share 1", &other), Err(HsmError::OtherRecoveryKey { .. })));
        // Anybody can encrypt to a public key: here another host does, which the recovering one does not know.
        store.token("stranger");
        init_keys(&store.config("stranger")).unwrap();
        let stranger = Hsm::open(store.config("stranger")).await.unwrap();
        let key = Secret32::random().unwrap();
        let forged = stranger.wrap_for_recovery(hosts.recovery.public_key(), b"share 1", &key).await.unwrap();
        assert!(matches!(hosts.open(b"share 1", &forged), Err(HsmError::RecoveryNotSigned)));
    });
}

#[test]
fn a_second_recovery_key_is_not_made_and_a_token_without_one_is_named() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("recovery");
        let config = store.config("recovery");
        assert!(matches!(RecoveryHsm::open(&config), Err(HsmError::NoRecoveryKey)));
        let key = init_recovery(&config).unwrap();
        assert!(matches!(init_recovery(&config), Err(HsmError::KeysExist { .. })));
        assert_eq!(*RecoveryHsm::open(&config).unwrap().public_key(), key);
    });
}

#[test]
fn the_recovery_key_never_leaves_its_token() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("recovery");
        init_recovery(&store.config("recovery")).unwrap();
        let raw = Raw::log_in(&store, "recovery");
        let [key] = raw.find(ObjectClass::PRIVATE_KEY, "recovery")[..] else { panic!("not one") };
        for wanted in [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Modifiable(false)] {
            assert_eq!(raw.session().get_attributes(key, &[wanted.attribute_type()]).unwrap(), [wanted]);
        }
        // One purpose: it does not even sign.
        assert!(raw.session().sign(&Mechanism::RsaPkcs, key, &[0; 32]).is_err());
    });
}

#[test]
fn a_recovery_key_that_may_do_more_or_is_smaller_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        for (label, bits, signs) in [("signs", 3072_u64, true), ("small", 2048, false)] {
            store.token(label);
            let raw = Raw::log_in(&store, label);
            let public = [
                Attribute::Id("recovery".into()),
                Attribute::Token(true),
                Attribute::ModulusBits(bits.into()),
                Attribute::PublicExponent(RecoveryKey::EXPONENT.to_vec()),
                Attribute::Encrypt(true),
            ];
            let private = [
                Attribute::Id("recovery".into()),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Modifiable(false),
                Attribute::Decrypt(true),
                Attribute::Sign(signs),
                Attribute::SignRecover(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
                Attribute::AllowedMechanisms(vec![MechanismType::RSA_PKCS_OAEP]),
            ];
            raw.session().generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).unwrap();
            let refused = RecoveryHsm::open(&store.config(label)).err().unwrap();
            assert!(matches!(refused, HsmError::KeyUnfit { .. }), "{label}: {refused}");
        }
    });
}

#[test]
fn the_key_that_is_encrypted_to_does_not_stay_on_the_host_s_token() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        store.token("recovery");
        let key = init_recovery(&store.config("recovery")).unwrap();
        let hsm = Hsm::open(config).await.unwrap();
        // A token that kept the imported key would run full: none is left behind.
        for _ in 0..3 {
            hsm.wrap_for_recovery(&key, b"share", &Secret32::random().unwrap()).await.unwrap();
        }
        let wanted = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Modulus(key.modulus().to_vec())];
        assert!(Raw::log_in(&store, "vault").session().find_objects(&wanted).unwrap().is_empty());
    });
}
