//! The product's main job on a lab: a key, a signature, a refusal, the same transaction approved, and the evidence of it all.
//!
//! It does what a business service does, over the coordinator's front door, and believes nothing that it can check: the
//! key's certificate against the identities of the lab's tokens, the signature by its recovered sender, the audit logs by
//! the offline verifier, what the appliances say of themselves by their attest keys and a nonce.

mod attest;
mod audit;
mod desk;
mod ethereum;

use std::path::PathBuf;

use alloy_primitives::TxHash;
use casemate_wire::{Code, Digest32, EcdsaSignature, PartyId, PublicKey};
use serde::Serialize;
use serde_json::Value;

use super::error::LabError;
use super::progress::Progress;
use super::staff::APPROVERS;
use super::{Lab, Party};
pub use attest::Attested;
use audit::{Deed, Story};
use desk::Desk;
use ethereum::{TREASURY, Transfer};

/// Steps that [`run`] shows.
pub const STEPS: usize = 8;

/// Thousandths of an ether: within the starter policy's limit, and over it.
const SMALL: u64 = 250;
const LARGE: u64 = 2500;
/// The rule of the starter policy that the large transfer breaks.
const BROKEN_RULE: &str = "per-transfer-limit";

/// Why the main job did not hold.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The lab itself failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A service gave another answer than was needed.
    #[error("{doing} failed: the answer is {status}: {body}")]
    Answer {
        /// What was being done.
        doing: &'static str,
        /// The HTTP status.
        status: u16,
        /// The whole body.
        body: Value,
    },
    /// Something does not hold that must.
    #[error("{doing}: {why}")]
    Wrong {
        /// What was being done.
        doing: &'static str,
        /// What does not hold.
        why: String,
    },
}

/// What came of the main job.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The new key, compressed, hex.
    pub public_key: PublicKey,
    /// Its Ethereum address, with checksum.
    pub address: String,
    /// The coordinator's account for it.
    pub account_id: String,
    /// Parties needed to sign, and parties that hold a share.
    pub threshold: String,
    /// Who signed.
    pub signers: Vec<PartyId>,
    /// The raw signed transaction, `0x…`, as `eth_sendRawTransaction` takes it.
    pub signed_transaction: String,
    /// The id that it has on the network, `0x…`.
    pub transaction_hash: String,
    /// The hash that was signed.
    pub message_hash: Digest32,
    /// The signature.
    pub signature: SignatureParts,
    /// The transaction that policy refused.
    pub refused: Refused,
    /// The same transaction, signed once two people had approved it.
    pub approved: Approved,
    /// What each appliance attested of itself.
    pub attestations: Vec<Attested>,
    /// Exported audit logs, JSON lines.
    pub audit_logs: Vec<PathBuf>,
}

/// A signature in its usual forms.
#[derive(Debug, Clone, Serialize)]
pub struct SignatureParts {
    /// ASN.1 DER, hex.
    pub der: String,
    /// Hex.
    pub r: String,
    /// Hex, low.
    pub s: String,
    /// The recovery id, 0 or 1.
    pub v: u8,
}

/// A refusal.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// The stable code.
    pub code: Code,
    /// The policies that refused.
    pub policies: Vec<String>,
    /// In words.
    pub detail: String,
    /// The hash that was to be signed.
    pub message_hash: Digest32,
}

/// A signature that needed approvals.
#[derive(Debug, Clone, Serialize)]
pub struct Approved {
    /// Who approved.
    pub approvers: Vec<String>,
    /// The hash that was signed.
    pub message_hash: Digest32,
    /// The raw signed transaction, `0x…`.
    pub signed_transaction: String,
}

/// Does the main job on a lab that runs and is healthy.
///
/// # Errors
/// The first step that did not hold.
pub async fn run(lab: &Lab, progress: &mut Progress) -> Result<Outcome, DemoError> {
    let desk = Desk::at(lab)?;
    let n = lab.parties.len();
    let t = n / 2 + 1;

    progress.begin(
        "primes",
        "Each appliance makes its safe primes, once for a committee (usually 10 to 60 s each on a core)",
    );
    desk.wait_for_primes(progress).await?;
    progress.done(&[]);

    progress.begin(
        "keygen",
        &format!("A {t}-of-{n} key: auxiliary information with proofs, then the shares (usually 5 to 30 s)"),
    );
    let key = progress.during(desk.make_key(t)).await?;
    progress.done(&[&format!("public key {}", key.public_key)]);

    progress.begin("certificate", "The key's certificate against the identities in the HSMs, and the shares");
    let address = desk.check_key(&key, t).await?;
    progress.done(&[
        &format!("all {n} identities have signed for it, and each holds an active share"),
        &format!("address {address}"),
    ]);

    let signers: Vec<&Party> = lab.parties.iter().take(t - 1).chain(lab.parties.last()).collect();
    let names: Vec<&str> = signers.iter().map(|party| party.party_id.as_str()).collect();
    let small = Transfer::of_milliether(0, SMALL);
    progress.begin(
        "sign",
        &format!("{} sign a transfer of 0.25 ETH on Sepolia to the treasury {TREASURY}", names.join(" and ")),
    );
    let signature = progress.during(desk.sign(&key, &small, &signers, &[])).await?;
    let parts = SignatureParts::of(&signature).ok_or_else(|| wrong("signing", "the signature has no DER form"))?;
    let (signed_transaction, id) = broadcastable(&small, &signature, &address)?;
    progress.done(&[&format!("signature verified; its sender is {address}"), &signed_transaction]);

    let large = Transfer::of_milliether(1, LARGE);
    progress.begin("refuse", "The same for 2.5 ETH, which is more than the policy allows without approvals");
    let refused = progress.during(desk.be_refused(&key, &large, &signers)).await?;
    progress.done(&[&format!("refused with {} by {}", refused.code, refused.policies.join(", ")), &refused.detail]);

    let [first, second, _] = APPROVERS;
    let approvers = [first, second];
    progress.begin("approve", &format!("The same 2.5 ETH again, approved by {first} and {second} with their SSH keys"));
    let approvals = desk.approvals(&key, &large, &approvers).await?;
    let large_signature = progress.during(desk.sign(&key, &large, &signers, &approvals)).await?;
    let (large_transaction, _) = broadcastable(&large, &large_signature, &address)?;
    progress.done(&["allowed and signed", &large_transaction]);

    progress.begin("attest", "What each appliance says of itself, asked with a fresh nonce and compared with its host");
    let attestations = attest::check(lab).await?;
    let lines: Vec<String> = attestations.iter().map(Attested::line).collect();
    progress.done(&lines.iter().map(String::as_str).collect::<Vec<_>>());

    progress.begin("audit", "The audit logs, exported and verified offline");
    let logs = desk.export_logs()?;
    let story = Story {
        key: &key.public_key,
        signers: &signers,
        small: Deed { transfer: &small, signature: &signature },
        large: Deed { transfer: &large, signature: &large_signature },
        approvers: &approvers,
    };
    let shown = audit::check(&logs, story)?;
    progress.done(&shown.iter().map(String::as_str).collect::<Vec<_>>());

    Ok(Outcome {
        public_key: key.public_key,
        address,
        account_id: key.account_id,
        threshold: format!("{t}-of-{n}"),
        signers: signers.iter().map(|party| party.party_id.clone()).collect(),
        signed_transaction,
        transaction_hash: id.to_string(),
        message_hash: small.hash(),
        signature: parts,
        refused,
        approved: Approved {
            approvers: approvers.map(str::to_owned).to_vec(),
            message_hash: large.hash(),
            signed_transaction: large_transaction,
        },
        attestations,
        audit_logs: logs.into_iter().map(|(_, path)| path).collect(),
    })
}

impl SignatureParts {
    fn of(signature: &EcdsaSignature) -> Option<Self> {
        let EcdsaSignature { r, s, v } = signature;
        Some(Self { der: hex::encode(signature.to_der()?), r: hex::encode(r), s: hex::encode(s), v: *v })
    }
}

/// The transaction as it is sent to the network, if its sender is the key's address.
fn broadcastable(
    transfer: &Transfer,
    signature: &EcdsaSignature,
    address: &str,
) -> Result<(String, TxHash), DemoError> {
    if transfer.sender(signature).map(|sender| sender.to_checksum(None)).as_deref() != Some(address) {
        return Err(wrong("signing", "the signature belongs to another sender"));
    }
    let (raw, id) = transfer.signed(signature);
    Ok((format!("0x{}", hex::encode(raw)), id))
}

fn wrong(doing: &'static str, why: &str) -> DemoError {
    DemoError::Wrong { doing, why: why.to_owned() }
}
