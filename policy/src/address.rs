//! Addresses of a key, for people to compare with what a wallet shows.

use alloy_primitives::Address as EthereumAddress;
use bitcoin::{Address, CompressedPublicKey, KnownHrp};
use casemate_wire::PublicKey;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use serde::Serialize;

/// Where a key receives: on Ethereum and its kin, and on Bitcoin as P2WPKH (BIP-141, BIP-173).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// With its checksum (EIP-55).
    pub ethereum: String,
    /// On Bitcoin's main network.
    pub bitcoin: String,
    /// On its test networks.
    pub bitcoin_testnet: String,
}

/// A public key that is no point of the curve has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the public key has no address: {0}")]
pub struct NoAddress(String);

impl Addresses {
    /// The addresses of this very key. Those of its children: derive the child first ([`crate::intent::Signer::derive`]).
    ///
    /// # Errors
    /// The key is no point of the curve.
    pub fn of(key: &PublicKey) -> Result<Self, NoAddress> {
        let none = |why: &dyn std::fmt::Display| NoAddress(why.to_string());
        let point = k256::PublicKey::from_sec1_bytes(key.as_bytes()).map_err(|e| none(&e))?;
        let uncompressed = point.to_encoded_point(false);
        let (_, coordinates) = uncompressed.as_bytes().split_first().ok_or_else(|| none(&"it has no coordinates"))?;
        let compressed = CompressedPublicKey::from_slice(key.as_bytes()).map_err(|e| none(&e))?;
        Ok(Self {
            ethereum: EthereumAddress::from_raw_public_key(coordinates).to_checksum(None),
            bitcoin: Address::p2wpkh(&compressed, KnownHrp::Mainnet).to_string(),
            bitcoin_testnet: Address::p2wpkh(&compressed, KnownHrp::Testnets).to_string(),
        })
    }
}
