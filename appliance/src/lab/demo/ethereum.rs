//! The transactions of the main job, and what becomes of a signature.

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, TxHash, TxKind, U256, keccak256};
use casemate_wire::{Digest32, EcdsaSignature, Intent, PublicKey};
use k256::ecdsa::{RecoveryId, VerifyingKey};
use k256::elliptic_curve::sec1::ToEncodedPoint;

/// Sepolia.
const CHAIN: u64 = 11_155_111;
/// The one receiver in the address book of the starter policy.
pub(super) const TREASURY: Address = Address::repeat_byte(0x35);

/// An unsigned EIP-1559 transfer of ether to the treasury.
#[derive(Debug, Clone)]
pub(super) struct Transfer(TxEip1559);

impl Transfer {
    /// The account's transaction of this number, of so many thousandths of an ether.
    pub(super) fn of_milliether(nonce: u64, amount: u64) -> Self {
        Self(TxEip1559 {
            chain_id: CHAIN,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 30_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(TREASURY),
            value: U256::from(amount) * U256::from(1_000_000_000_000_000_u64),
            ..TxEip1559::default()
        })
    }

    /// The hash that is signed.
    pub(super) fn hash(&self) -> Digest32 {
        Digest32(self.0.signature_hash().0)
    }

    /// The unsigned bytes, as a request carries them.
    pub(super) fn intent(&self) -> Intent {
        let payload = hex::encode(self.0.encoded_for_signing());
        Intent { kind: "ethereum_transaction".into(), payload, input_index: None }
    }

    /// The transaction as it is sent to the network, with the id that it then has.
    pub(super) fn signed(&self, signature: &EcdsaSignature) -> (Vec<u8>, TxHash) {
        let signature = Signature::from_scalars_and_parity(signature.r.into(), signature.s.into(), signature.v == 1);
        let bytes = self.0.clone().into_signed(signature).encoded_2718();
        let id = keccak256(&bytes);
        (bytes, id)
    }

    /// Whose transaction the network takes it for, by the signature alone.
    pub(super) fn sender(&self, signature: &EcdsaSignature) -> Option<Address> {
        let recovery = RecoveryId::from_byte(signature.v)?;
        let scalars = k256::ecdsa::Signature::from_scalars(signature.r, signature.s).ok()?;
        let key = VerifyingKey::recover_from_prehash(&self.hash().0, &scalars, recovery).ok()?;
        address_of(&key.into())
    }
}

/// The Ethereum address of a key.
pub(super) fn address(key: &PublicKey) -> Option<Address> {
    address_of(&k256::PublicKey::from_sec1_bytes(key.as_bytes()).ok()?)
}

fn address_of(key: &k256::PublicKey) -> Option<Address> {
    let point = key.to_encoded_point(false);
    let coordinates = point.as_bytes().get(1..).filter(|bytes| bytes.len() == 64)?;
    Some(Address::from_raw_public_key(coordinates))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloy_consensus::TxEnvelope;
    use alloy_eips::eip2718::Decodable2718;
    use k256::ecdsa::SigningKey;

    fn signed_by(key: &SigningKey, transfer: &Transfer) -> EcdsaSignature {
        let (signature, recovery) = key.sign_prehash_recoverable(&transfer.hash().0).unwrap();
        EcdsaSignature { r: signature.r().to_bytes().into(), s: signature.s().to_bytes().into(), v: recovery.to_byte() }
    }

    #[test]
    fn a_signed_transfer_is_what_the_network_decodes_and_its_sender_is_the_keys_address() {
        let key = SigningKey::from_slice(&[1; 32]).unwrap();
        let public = PublicKey::from_bytes(key.verifying_key().to_encoded_point(true).as_bytes()).unwrap();
        let transfer = Transfer::of_milliether(0, 250);
        let signature = signed_by(&key, &transfer);
        assert_eq!(transfer.sender(&signature), address(&public));
        let (bytes, id) = transfer.signed(&signature);
        let TxEnvelope::Eip1559(decoded) = TxEnvelope::decode_2718(&mut bytes.as_slice()).unwrap() else {
            unreachable!("it is of type 2");
        };
        assert_eq!((decoded.tx(), *decoded.hash()), (&transfer.0, id));
        assert_eq!(decoded.tx().value, U256::from(250_000_000_000_000_000_u64));
    }

    #[test]
    fn another_signature_has_another_sender() {
        let key = SigningKey::from_slice(&[1; 32]).unwrap();
        let transfer = Transfer::of_milliether(0, 250);
        let good = signed_by(&key, &transfer);
        let flipped = EcdsaSignature { v: 1 - good.v, ..good };
        assert_ne!(transfer.sender(&flipped), transfer.sender(&good));
        assert_ne!(Transfer::of_milliether(0, 251).sender(&good), transfer.sender(&good));
    }

    #[test]
    fn the_address_of_a_known_key_is_the_known_one() {
        let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
        let expected = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";
        assert_eq!(address(&generator).unwrap().to_checksum(None), expected);
    }
}
