//! Every transaction type, by published transactions and by attacks.

use alloy_consensus::transaction::RlpEcdsaDecodableTx;
use alloy_consensus::{SignableTransaction, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use proptest::prelude::*;

use super::{account, hash, intent, refusal, signer, understood};
use crate::intent::{AssetRef, Chain, EffectKind, decode, decode_payload};

/// The example of EIP-155.
const EIP155: &str = "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080";
const EIP155_HASH: &str = "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53";
/// Mainnet transaction 0x280cde7cdefe4b188750e76c888f13bd05ce9a4d7767730feefe8a0e50ca6fc4, signed.
const LEGACY: &str = "f9015482078b8505d21dba0083022ef1947a250d5630b4cf539739df2c5dacb4c659f2488d880c46549a521b13d8b8e4\
    7ff36ab50000000000000000000000000000000000000000000066ab5a608bd00a23f2fe0000000000000000000000000000000000000000000000\
    00000000000000008000000000000000000000000048c04ed5691981c42154c6167398f95e8f38a7ff000000000000000000000000000000000000\
    00000000000000000000632ceac70000000000000000000000000000000000000000000000000000000000000002000000000000000000000000c0\
    2aaa39b223fe8d0a0e5c4f27ead9083c756cc20000000000000000000000006c6ee5e31d828de241282b9606c8e98ea48526e225a0c9077369501641\
    a92ef7399ff81c21639ed4fd8fc69cb793cfa1dbfab342e10aa0615facb2f1bcf3274a354cfe384a38d0cc008a11c2dd23a69111bc6930ba27a8";
/// Sepolia transaction 0x9a22ccb0029bc8b0ddd073be1a1d923b7ae2b2ea52100bae0db4424f9107e9c0, signed, without its type.
const BLOBS: &str = "f9011d83aa36a7820fa28477359400852e90edd0008252089411e9ca82a3a762b4b5bd264d4173a242e7a770648080c08504\
    a817c800f8a5a0012ec3d6f66766bedb002a190126b3549fce0047de0d4c25cffce0dc1c57921aa00152d8e24762ff22b1cfd9f8c0683786a7ca63\
    ba49973818b3d1e9512cd2cec4a0013b98c6c83e066d5b14af2b85199e3d4fc7d1e778dd53130d180f5077e2d1c7a001148b495d6e859114e670ca\
    54fb6e2657f0cbae5b08063605093a4b3dc9f8f1a0011ac212f13c5dff2b2c6b600a79635103d6f580a4221079951181b25c7e654901a0c8de4cce\
    d43169f9aa3d36506363b2d2c44f6c49fc1fd91ea114c86f3757077ea01e11fdd0d1934eda0492606ee0bb80a7bf8f35cc5f86ec60fe5031ba48bf\
    d544";
/// Sepolia transaction 0xab41e0e5bd3cc0415b441b57c3d9ec2d0547c9f34859e4136e5042ae7f7e20ea, signed, without its type.
const DELEGATIONS: &str = "f9036883aa36a70183603cb884193dca90830391b494c122f8378c32ba5acd599ec43fe6f6e264c1\
    abae80b90184a6d0ad6100000000000000000000000000000000000000000000000000000000000000200000000000000000000000000000\
    0000000000000000000000000000000000020000000000000000000000000000000000000000000000000000000000000040000000000000\
    00000000000000000000000000000000000000000000000000c0000000000000000000000000000000000000000000000000000000000000\
    0060000000000000000000000000cb98643b8786950f0461f3b0edf99d88f274574d00000000000000000000000000000000000000000000\
    000000038d7ea4c6800000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000060000000000000000000000000d2135cfb216b74109775236e36d4b433f1df507b000000000000\
    00000000000000000000000000000000000000071afd498d0000000000000000000000000000000000000000000000000000000000000000\
    0000f8b7f85994de0b295669a9fd93d5f28d9ec85e40f4cb697baef842a00000000000000000000000000000000000000000000000000000\
    000000000003a00000000000000000000000000000000000000000000000000000000000000007d694c122f8378c32ba5acd599ec43fe6f6\
    e264c1abaec0d694cb98643b8786950f0461f3b0edf99d88f274574dc0d694d2135cfb216b74109775236e36d4b433f1df507bc0d69400d6\
    27057cd4ba50f9c6bde33eee3ef1183df885c0f8bbf85d83aa36a79400d627057cd4ba50f9c6bde33eee3ef1183df8850201a01003c672e4\
    70c801843fcdedcd6b0f4b5de35e878c3d3c0dd936003129adcf0ba04ba06410153cda14be60e336a8db39596ac0c5ef31b0aae70ab32352\
    7b48a3d6f85a019400d627057cd4ba50f9c6bde33eee3ef1183df8850180a0f927b261e29065e03948c4ace50b4c559c2fc8606b37ed8b6d\
    d74c6485fc5b6fa06b93cff0d9d30d2c9c4e1307ed10531d33fd9d0a276969512a0bc84100a043af01a0768999a42a29b8659a00b19928f1\
    fa176e0bde5a2d38a24988efbef0ab576a42a07aea2fd7cf85d5484ad71feb2cbdfd3f5403a85665b45eca294cc06e83ccf2b6";

/// Takes the signature off a published transaction. Whoever recovers from what is left sent it.
fn unsigned<T: RlpEcdsaDecodableTx + SignableTransaction<Signature>>(signed: &str) -> (T, String, Signature) {
    let bytes = hex::decode(signed).unwrap();
    let (tx, signature) = T::rlp_decode_with_signature(&mut bytes.as_slice()).unwrap();
    let payload = hex::encode(tx.encoded_for_signing());
    (tx, payload, signature)
}

fn sender(payload: &str, signature: &Signature) -> String {
    let digest = understood(payload).digest();
    let (r, s) = (signature.r().to_be_bytes::<32>(), signature.s().to_be_bytes::<32>());
    let signature_of = k256::ecdsa::Signature::from_scalars(r, s).unwrap();
    let recovery = k256::ecdsa::RecoveryId::new(signature.v(), false);
    let key = k256::ecdsa::VerifyingKey::recover_from_prehash(&digest.0, &signature_of, recovery).unwrap();
    hex::encode(&keccak256(&key.to_encoded_point(false).as_bytes()[1..])[12..])
}

fn payload(tx: &impl SignableTransaction<Signature>) -> String {
    hex::encode(tx.encoded_for_signing())
}

fn kinds(payload: &str) -> Vec<EffectKind> {
    understood(payload).effects().map(|effect| effect.kind).collect()
}

fn authorization(chain_id: u64, delegate: Address) -> SignedAuthorization {
    let inner = Authorization { chain_id: U256::from(chain_id), address: delegate, nonce: 4 };
    SignedAuthorization::new_unchecked(inner, 0, U256::ONE, U256::ONE)
}

fn delegating(authorizations: Vec<SignedAuthorization>) -> TxEip7702 {
    TxEip7702 {
        chain_id: 1,
        gas_limit: 3,
        max_fee_per_gas: 5,
        authorization_list: authorizations,
        ..Default::default()
    }
}

#[test]
fn the_example_of_eip_155_has_its_hash() {
    let decoded = decode(&intent(EIP155), &hash(EIP155_HASH), &signer()).unwrap();
    let effect = decoded.effects().next().unwrap();
    assert_eq!((effect.kind, effect.chain), (EffectKind::NativeTransfer, Chain::Ethereum(1)));
    assert_eq!(effect.amount, U256::from(10).pow(U256::from(18)));
    assert_eq!(effect.fee, U256::from(21_000u64 * 20_000_000_000));
    assert_eq!(decoded.describe()["tx_type"], 0);
}

/// go-ethereum's `TestEIP2718TransactionSigHash` and the transaction that it is about.
#[test]
fn a_transaction_with_an_access_list_has_its_published_hash() {
    let tx = TxEip2930 {
        chain_id: 1,
        nonce: 3,
        gas_price: 1,
        gas_limit: 25_000,
        to: "b94f5374fce5edbc8e2a8697c15331677e6ebf0b".parse::<Address>().unwrap().into(),
        value: U256::from(10),
        input: vec![0x55, 0x44].into(),
        ..Default::default()
    };
    let decoded = understood(&payload(&tx));
    assert_eq!(decoded.digest().to_string(), "49b486f0ec0a60dfbbca2d30cb07c9e8ffb2a2ff41f29a1ab6737475f6ff69f3");
    assert_eq!(decoded.effects().next().unwrap().fee, U256::from(25_000));
}

#[test]
fn published_transactions_of_other_types_hash_to_what_their_senders_signed() {
    let (_, legacy, signature) = unsigned::<TxLegacy>(LEGACY);
    assert_eq!(sender(&legacy, &signature), "a12e1462d0ced572f396f58b6e2d03894cd7c8a4");
    let (_, blobs, signature) = unsigned::<TxEip4844>(BLOBS);
    assert_eq!(sender(&blobs, &signature), "a83c816d4f9b2783761a22ba6fadb0eb0606d7b2");
    let (_, delegations, signature) = unsigned::<TxEip7702>(DELEGATIONS);
    assert_eq!(sender(&delegations, &signature), "c122f8378c32ba5acd599ec43fe6f6e264c1abae");
    assert_eq!(
        kinds(&delegations),
        [EffectKind::ContractCall, EffectKind::AccountDelegation, EffectKind::AccountDelegation]
    );
}

#[test]
fn blobs_are_paid_for_too() {
    let (tx, blobs, _) = unsigned::<TxEip4844>(BLOBS);
    let blob_gas = 5 * 131_072 * tx.max_fee_per_blob_gas;
    let expected = U256::from(21_000 * tx.max_fee_per_gas + blob_gas);
    assert_eq!(understood(&blobs).effects().next().unwrap().fee, expected);
    assert_eq!(understood(&blobs).describe()["blobs"], 5);

    let without = TxEip4844 { blob_versioned_hashes: Vec::new(), ..tx.clone() };
    assert!(refusal(&payload(&without)).contains("blob"));
    let other = TxEip4844 { blob_versioned_hashes: vec![B256::ZERO], ..tx };
    assert!(refusal(&payload(&other)).contains("0x01"));
}

#[test]
fn each_authorization_is_a_delegation_on_the_chain_that_it_names() {
    let delegate = Address::repeat_byte(0xde);
    let list = vec![authorization(1, delegate), authorization(0, delegate), authorization(7, Address::ZERO)];
    let decoded = understood(&payload(&delegating(list)));
    let effects: Vec<_> = decoded.effects().collect();
    assert_eq!(effects.len(), 4);
    assert_eq!(effects[0].kind, EffectKind::NativeTransfer);
    for (effect, chain_id) in effects[1..].iter().zip([1, 0, 7]) {
        assert_eq!((effect.kind, effect.chain), (EffectKind::AccountDelegation, Chain::Ethereum(chain_id)));
        assert_eq!((effect.asset, effect.fee), (AssetRef::Anything, U256::from(15)));
    }
    assert_eq!((effects[1].to.clone(), effects[1].amount), (account(delegate), U256::MAX));
    assert_eq!((effects[3].to.clone(), effects[3].amount), (account(Address::ZERO), U256::ZERO));
    let summary = decoded.summary();
    assert!(summary.contains("on every chain") && summary.contains("back"), "{summary}");
    assert_eq!(decoded.describe()["effects"][2]["chain_id"], "0");
}

#[test]
fn a_delegating_transaction_without_or_with_impossible_authorizations_is_refused() {
    assert!(refusal(&payload(&delegating(Vec::new()))).contains("authorization"));
    let huge = delegating(vec![authorization(u64::MAX, Address::ZERO)]);
    assert!(refusal(&payload(&huge)).contains("chain id"));
}

#[test]
fn the_preimage_of_an_authorization_is_not_a_transaction() {
    let mut preimage = vec![0x05];
    let inner = Authorization { chain_id: U256::from(1), address: Address::repeat_byte(0xde), nonce: 0 };
    alloy_rlp::Encodable::encode(&inner, &mut preimage);
    assert_eq!(keccak256(&preimage), inner.signature_hash());
    assert!(refusal(&hex::encode(preimage)).contains("EIP-7702 authorization"));
}

#[test]
fn a_legacy_transaction_without_chain_id_or_with_a_signature_is_refused() {
    let bare = EIP155.replacen("ec", "e9", 1).replace("80018080", "80");
    assert!(refusal(&bare).contains("chain id is missing"));
    let zero = EIP155.replace("80018080", "80808080");
    assert!(refusal(&zero).contains("chain id is missing"));
    assert!(refusal(LEGACY).contains("signed already"));
    for last in ["80010180", "80018001", "80010000"] {
        assert!(refusal(&EIP155.replace("80018080", last)).contains("not empty"), "{last}");
    }
    for (fields, first) in [("800180", "eb"), ("8001808080", "ed")] {
        assert!(refusal(&EIP155.replacen("ec", first, 1).replace("80018080", fields)).contains("9 fields"));
    }
}

#[test]
fn signed_cut_and_prolonged_transactions_of_every_type_are_refused() {
    refusal(&format!("03{BLOBS}"));
    refusal(&format!("04{DELEGATIONS}"));
    let (_, legacy, _) = unsigned::<TxLegacy>(LEGACY);
    let (_, blobs, _) = unsigned::<TxEip4844>(BLOBS);
    let (_, delegations, _) = unsigned::<TxEip7702>(DELEGATIONS);
    let list = payload(&TxEip2930 { chain_id: 1, ..Default::default() });
    for whole in [&legacy, &blobs, &delegations, &list] {
        assert!(decode_payload(&intent(whole), &signer()).is_ok());
        assert!(refusal(&format!("{whole}00")).contains("follow"));
        for end in (0..whole.len()).step_by(2) {
            refusal(&whole[..end]);
        }
    }
}

proptest! {
    #[test]
    fn a_changed_byte_of_any_type_is_refused_or_changes_the_hash(
        which in 0usize..3, position: prop::sample::Index, flip in 1u8..=255,
    ) {
        let payload = match which {
            0 => EIP155.to_owned(),
            1 => unsigned::<TxEip4844>(BLOBS).1,
            _ => unsigned::<TxEip7702>(DELEGATIONS).1,
        };
        let mut bytes = hex::decode(&payload).unwrap();
        let position = position.index(bytes.len());
        bytes[position] ^= flip;
        if let Ok(changed) = decode_payload(&intent(&hex::encode(bytes)), &signer()) {
            prop_assert_ne!(changed.digest(), understood(&payload).digest());
        }
    }

    #[test]
    fn random_bytes_after_any_type_never_crash(kind in 0u8..=0xff, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_payload(&intent(&format!("{kind:02x}{}", hex::encode(bytes))), &signer());
    }
}
