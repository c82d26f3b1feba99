//! Signatures that are known outside the logs: JSON lines, or signed Ethereum transactions.

use std::error::Error;
use std::path::Path;

use alloy_consensus::TxEnvelope;
use alloy_eips::eip2718::Decodable2718;
use casemate_attest::reconcile::Released;
use casemate_wire::{Digest32, EcdsaSignature, PublicKey};
use k256::ecdsa::{RecoveryId, VerifyingKey};

use super::source::read_text;

/// The longest list that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// JSON lines `{"public_key", "message_hash", "signature": {"r", "s", "v"}}`.
pub(super) fn signatures(path: &Path) -> Result<Vec<Released>, Box<dyn Error>> {
    each(path, "signature", |line| {
        let form =
            r#"one a line: {"public_key": hex, "message_hash": hex, "signature": {"r": hex, "s": hex, "v": 0 or 1}}"#;
        serde_json::from_str(line).map_err(|e| format!("{e}; give {form}"))
    })
}

/// Signed raw transactions in hex, one a line, as `eth_sendRawTransaction` takes them.
pub(super) fn transactions(path: &Path) -> Result<Vec<Released>, Box<dyn Error>> {
    each(path, "signed transaction", |line| {
        let digits = line.trim_matches('"');
        let bytes = hex::decode(digits.strip_prefix("0x").unwrap_or(digits)).map_err(|e| e.to_string())?;
        transaction(&bytes)
    })
}

fn each(
    path: &Path,
    what: &str,
    read: impl Fn(&str) -> Result<Released, String>,
) -> Result<Vec<Released>, Box<dyn Error>> {
    let text = read_text(&format!("the list of {what}s"), path, MAX_FILE)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(place, line)| {
        read(line.trim()).map_err(|why| format!("line {} of {} is no {what}: {why}", place + 1, path.display()).into())
    });
    read.collect()
}

/// The signature of a transaction, with the key that it recovers to.
fn transaction(bytes: &[u8]) -> Result<Released, String> {
    let mut rest = bytes;
    let envelope =
        TxEnvelope::decode_2718(&mut rest).map_err(|e| format!("{e}; give the raw bytes with their signature"))?;
    if !rest.is_empty() {
        return Err("something stands after its end".into());
    }
    let message_hash = Digest32(envelope.signature_hash().0);
    let given = envelope.signature();
    let (r, s) = (given.r().to_be_bytes(), given.s().to_be_bytes());
    let unfit = |_| "its signature is none".to_owned();
    let scalars = k256::ecdsa::Signature::from_scalars(r, s).map_err(unfit)?;
    let recovery = RecoveryId::new(given.v(), false);
    let key = VerifyingKey::recover_from_prehash(&message_hash.0, &scalars, recovery).map_err(unfit)?;
    let point = key.to_encoded_point(true);
    let public_key = PublicKey::from_bytes(point.as_bytes()).map_err(|e| e.to_string())?;
    Ok(Released { public_key, message_hash, signature: EcdsaSignature { r, s, v: u8::from(given.v()) } })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// EIP-155's own example: its signing hash, and the address of the key 0x46…46.
    #[test]
    fn the_published_transaction_of_eip_155_is_read() {
        let raw = "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83";
        let released = transaction(&hex::decode(raw).unwrap()).unwrap();
        assert_eq!(
            released.message_hash.to_string(),
            "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53"
        );
        let signer = k256::ecdsa::SigningKey::from_slice(&[0x46; 32]).unwrap();
        let point = signer.verifying_key().to_encoded_point(true);
        assert_eq!(released.public_key.as_bytes()[..], *point.as_bytes());
        assert!(released.signature.verifies(&released.public_key, &released.message_hash));
    }

    #[test]
    fn what_is_no_signed_transaction_is_refused() {
        for bad in ["", "00", "02", "c0", "f86c09"] {
            assert!(transaction(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
