//! Understand: what is asked of which key, and what the intent means.

use std::sync::Arc;

use casemate_attest::life::ShareState;
use casemate_policy::intent::{self, Signer};
use casemate_policy::{IntentError, Resource, SlotFacts};
use casemate_wire::api::SigningRequest;
use casemate_wire::token::VerifiedToken;
use casemate_wire::{Code, Digest32, KeyCertificate, Problem, PublicKey};
use jiff::Timestamp;

use super::ask::{Ask, unavailable};
use super::authenticate::Authenticated;
use super::refused::Refused;
use super::share::ShareHeader;
use super::succeed::{RotateAct, rotation};
use crate::daemon::Node;
use crate::sealing;
use crate::store::{CommitteeRow, ShareRow, count_primes};

/// A request whose meaning is known: the key, the derivation path, and the decoded intent.
pub(super) struct Understood {
    authenticated: Authenticated,
    act: Act,
}

/// What would be done.
pub(super) enum Act {
    Keygen { slot: SlotFacts },
    Sign(Box<SignAct>),
    Rotate(Box<RotateAct>),
}

/// A signature that is asked for.
pub(super) struct SignAct {
    pub(super) share: ShareRow,
    pub(super) header: ShareHeader,
    /// By which a pending share becomes active, in the transaction of the intent.
    pub(super) adopt: Option<KeyCertificate>,
    /// Non-hardened child indices.
    pub(super) path: Option<Vec<u32>>,
    /// The child's public key, where a path is given.
    pub(super) child: Option<PublicKey>,
    /// The 32 bytes that would be signed.
    pub(super) digest: Digest32,
    /// `None` is a request to sign blindly.
    pub(super) intent: Option<intent::Understood>,
}

impl Understood {
    pub(super) fn authenticated(&self) -> &Authenticated {
        &self.authenticated
    }
    pub(super) fn act(&self) -> &Act {
        &self.act
    }
    pub(super) fn into_parts(self) -> (Authenticated, Act) {
        (self.authenticated, self.act)
    }

    /// What policy is asked about.
    pub(super) fn resource(&self) -> Resource {
        match &self.act {
            Act::Keygen { slot } => Resource::KeySlot(slot.clone()),
            Act::Sign(act) => Resource::Key(act.header.facts(Timestamp::now())),
            Act::Rotate(act) => Resource::Key(act.facts(Timestamp::now())),
        }
    }
}

/// Finds the key and decodes the intent; nothing is decided yet.
pub(super) async fn understand(node: &Arc<Node>, authenticated: Authenticated) -> Result<Understood, Refused> {
    let act = match authenticated.ask().clone() {
        Ask::Keygen(request) => keygen(node, authenticated.token(), request.label).await,
        Ask::Sign(request) => signing(node, authenticated.token(), *request).await,
        Ask::Rotate(_) => rotation(node, authenticated.token()).await.map(|act| Act::Rotate(Box::new(act))),
    };
    match act {
        Ok(act) => Ok(Understood { authenticated, act }),
        Err(problem) => Err(authenticated.refuse(problem)),
    }
}

async fn keygen(node: &Node, token: &VerifiedToken, label: Option<String>) -> Result<Act, Problem> {
    if label.as_ref().is_some_and(|label| label.is_empty() || label.len() > 64 || !label.is_ascii()) {
        return Err(Problem::new(Code::BadRequest, "a label has 1 to 64 ASCII characters"));
    }
    let roster = token.roster().digest();
    let ready =
        node.store.read(move |store| Ok(CommitteeRow::find(store, &roster)?.is_some() || count_primes(store)? > 0));
    if !ready.await.map_err(|e| unavailable(&e))? {
        let detail = "no safe primes are ready yet for a new committee; they are being made, try again in a minute";
        return Err(Problem::new(Code::NotReady, detail).with("retry_after", 30));
    }
    let kind = token.claims().share_type.ok_or_else(|| Problem::new(Code::InvalidJoinToken, "it has no share type"))?;
    let threshold = token.threshold();
    Ok(Act::Keygen { slot: SlotFacts { kind, threshold_t: threshold.t(), threshold_n: threshold.n(), label } })
}

async fn signing(node: &Node, token: &VerifiedToken, request: SigningRequest) -> Result<Act, Problem> {
    let key = request.key;
    let shares = node.store.read(move |store| ShareRow::all_of_key(store, &key)).await.map_err(|e| unavailable(&e))?;
    let (share, adopt) = usable(node, key, &shares, request.certificate)?;
    let header: ShareHeader = sealing::header("share", share.material.header())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    if !header.is_stated_by(&share.statement) {
        return Err(Problem::new(
            Code::Internal,
            "the stored share does not belong to its statement; restore the store",
        ));
    }
    fits(node, token, &header)?;
    let path = request.derivation_path.as_deref().map(parse_path).transpose()?;
    let unintelligible = |error: IntentError| Problem::new(error.code(), error.to_string());
    let signer =
        Signer::derive(&header.key.public_key, share.statement.chain_code, path.as_deref().unwrap_or_default())
            .map_err(unintelligible)?;
    let child = path.as_ref().map(|_| PublicKey::from_bytes(&signer.public_key())).transpose();
    let child = child.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let (digest, intent) = (request.message_hash, request.intent);
    // Decoding takes as long as the requester wants it to, within its bounds: not on the network threads.
    let decoding = tokio::task::spawn_blocking(move || intent::understand(intent.as_ref(), &digest.0, &signer));
    let decoded = decoding.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let intent = decoded.map_err(unintelligible)?;
    Ok(Act::Sign(Box::new(SignAct { share, header, adopt, path, child, digest, intent })))
}

/// An active share may sign, and one that was restored where policy lets it; a pending one too, with the certificate that all
/// parties signed. A pending share of a later epoch, with its certificate, comes before the active one.
fn usable(
    node: &Node,
    key: PublicKey,
    shares: &[ShareRow],
    certificate: Option<KeyCertificate>,
) -> Result<(ShareRow, Option<KeyCertificate>), Problem> {
    let live = |share: &ShareRow| matches!(share.status, ShareState::Active | ShareState::Restored);
    let signs_at = shares.iter().find(|share| live(share)).map_or(0, |share| share.statement.epoch);
    let newest = shares.first().map(|share| share.status);
    let not_active = |status: &str, why: &str| {
        let detail = format!("the share of key {key} is {status}: {why}");
        Err(Problem::new(Code::ShareNotActive, detail))
    };
    let offered = certificate.filter(|offered| offered.statement.epoch > signs_at);
    let pending = |offered: &KeyCertificate| {
        let adopts = |share: &&ShareRow| share.status == ShareState::Pending && share.statement == offered.statement;
        shares.iter().find(adopts).cloned()
    };
    if let Some((offered, share)) = offered.as_ref().and_then(|offered| Some((offered, pending(offered)?))) {
        return match offered.verify(|member| node.config.known_member(member, &node.identity)) {
            Ok(()) => Ok((share, Some(offered.clone()))),
            Err(error) => not_active("pending", &error.to_string()),
        };
    }
    if let Some(share) = shares.iter().find(|share| live(share)) {
        return Ok((share.clone(), None));
    }
    match newest {
        None => Err(Problem::new(Code::ShareNotFound, format!("there is no share of key {key} here"))),
        Some(ShareState::Pending) if offered.is_some() => {
            not_active("pending", "the certificate sent with the request is about another key")
        }
        Some(ShareState::Pending) => {
            not_active("pending", "not every party's confirmation was seen; send the key certificate with the request")
        }
        Some(status) => not_active(status.as_str(), "it can sign no more"),
    }
}

/// The signers must be members of the key's committee, under their own indices and identities.
fn fits(node: &Node, token: &VerifiedToken, header: &ShareHeader) -> Result<(), Problem> {
    let mismatch = |detail| Err(Problem::new(Code::QuorumMismatch, detail));
    if token.threshold() != header.key.threshold {
        return mismatch(format!("the key is {}, the join token says {}", header.key.threshold, token.threshold()));
    }
    for signer in token.roster().members() {
        let member = header.key.roster.member(signer.party_index);
        if !member.is_some_and(|member| node.config.is_same_party(signer, member, &node.identity)) {
            let (name, index) = (&signer.party_id, signer.party_index);
            return mismatch(format!("{name} is not party {index} of this key's committee"));
        }
    }
    Ok(())
}

/// Reads `m/0/7`: non-hardened BIP-32 child indices.
///
/// # Errors
/// `bad_request` says how a path looks.
pub(crate) fn parse_path(text: &str) -> Result<Vec<u32>, Problem> {
    let bad = || {
        let detail = "the derivation path must look like m/0/7: at most 10 non-hardened indices below 2147483648";
        Problem::new(Code::BadRequest, detail)
    };
    let indices = text.strip_prefix("m/").ok_or_else(bad)?;
    let canonical = |part: &str| {
        let index: u32 = part.parse().ok()?;
        (index < 1 << 31 && index.to_string() == part).then_some(index)
    };
    let path: Vec<u32> = indices.split('/').map(canonical).collect::<Option<_>>().ok_or_else(bad)?;
    if path.len() > 10 { Err(bad()) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plain_paths_of_child_indices_are_read() {
        assert_eq!(parse_path("m/0/7/2147483647").unwrap(), [0, 7, 2_147_483_647]);
        for bad in ["", "m", "m/", "0/1", "m/0'", "m/2147483648", "m/-1", "m/01", "m/+1", "m/0//1", "m/a"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
        assert!(parse_path("m/0/0/0/0/0/0/0/0/0/0/0").is_err());
    }
}
