//! Ethereum transactions as clients make them (EIP-1559), and what becomes of them when they are signed.

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256};
use casemate_wire::{Digest32, EcdsaSignature, Intent, PublicKey};
use k256::ecdsa::{RecoveryId, VerifyingKey};
use k256::elliptic_curve::sec1::ToEncodedPoint;

/// Sepolia.
pub const CHAIN: u64 = 11_155_111;
/// The one receiver in the lab policy's address book.
pub const TREASURY: Address = Address::repeat_byte(0x35);
/// A tenth of what the lab's policy allows in one transfer, in wei.
pub const SMALL: u128 = 100_000_000_000_000_000;

/// An unsigned transfer of ether.
#[derive(Debug, Clone)]
pub struct Transfer {
    tx: TxEip1559,
}

impl Transfer {
    /// To the treasury, within the policy's limits; each nonce makes another transaction.
    pub fn allowed(nonce: u64) -> Self {
        Self::of(nonce, SMALL, TREASURY)
    }

    /// Over the policy's limit for one transfer.
    pub fn over_the_limit(nonce: u64) -> Self {
        Self::of(nonce, 20 * SMALL, TREASURY)
    }

    /// Any transfer.
    pub fn of(nonce: u64, wei: u128, to: Address) -> Self {
        let tx = TxEip1559 {
            chain_id: CHAIN,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 30_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(to),
            value: U256::from(wei),
            ..TxEip1559::default()
        };
        Self { tx }
    }

    /// The same transaction with call data.
    #[must_use]
    pub fn calling(mut self, data: impl Into<Bytes>) -> Self {
        self.tx.input = data.into();
        self
    }

    /// The same transaction on another chain.
    #[must_use]
    pub fn on_chain(mut self, chain_id: u64) -> Self {
        self.tx.chain_id = chain_id;
        self
    }

    /// The same transaction at another gas price, in wei.
    #[must_use]
    pub fn paying(mut self, max_fee_per_gas: u128) -> Self {
        self.tx.max_fee_per_gas = max_fee_per_gas;
        self
    }

    /// The unsigned bytes: `0x02 ‖ rlp(…)`.
    pub fn unsigned(&self) -> Vec<u8> {
        self.tx.encoded_for_signing()
    }

    /// What is signed.
    pub fn hash(&self) -> Digest32 {
        Digest32(self.tx.signature_hash().0)
    }

    /// As it goes into a request.
    pub fn intent(&self) -> Intent {
        Intent { kind: "ethereum_transaction".into(), payload: hex::encode(self.unsigned()), input_index: None }
    }

    /// The signed transaction as it is sent to the network.
    pub fn signed(&self, signature: &EcdsaSignature) -> Vec<u8> {
        let signature = Signature::from_scalars_and_parity(signature.r.into(), signature.s.into(), signature.v == 1);
        self.tx.clone().into_signed(signature).encoded_2718()
    }

    /// Whose transaction the network takes it for, by the signature alone.
    pub fn sender(&self, signature: &EcdsaSignature) -> Address {
        let recovery = RecoveryId::from_byte(signature.v).unwrap();
        let scalars = k256::ecdsa::Signature::from_scalars(signature.r, signature.s).unwrap();
        let key = VerifyingKey::recover_from_prehash(&self.hash().0, &scalars, recovery).unwrap();
        Address::from_raw_public_key(&key.to_encoded_point(false).as_bytes()[1..])
    }
}

/// The address of a key.
pub fn address(key: &PublicKey) -> Address {
    let key = k256::PublicKey::from_sec1_bytes(key.as_bytes()).unwrap();
    Address::from_raw_public_key(&key.to_encoded_point(false).as_bytes()[1..])
}
