//! Witness: every party shows that its audit log continues what the others had seen of it, and attests itself where policy
//! asks for that, before a share is opened.

use std::sync::Arc;

use casemate_attest::Checkpoint;
use casemate_wire::envelope::Introduction;
use casemate_wire::{Code, PartyId};
use jiff::Timestamp;
use tokio::time::timeout;

use super::decide::Obligation;
use super::join::{Case, Joined};
use super::run::{End, Finished, too_long};
use super::understand::Act;
use crate::attestation::{self, AttestError, PeerAppraisal};
use crate::daemon::Node;
use crate::session::{Failure, Link, Phase, read_body, to_body};
use crate::witness::{Hearing, Question, Seen, Testimony, Unbelieved, judge};

/// A session whose parties have all shown that their logs only grew, and all else that policy's yes depended on. Only
/// [`witness`] makes one; only with it can a share be opened.
pub(super) struct Witnessed {
    pub(super) case: Case,
    pub(super) act: Act,
    pub(super) link: Link,
}

/// Answers for the own log, and judges the peers'.
pub(super) async fn witness(node: &Arc<Node>, joined: Joined) -> Result<Witnessed, Finished> {
    let Joined { mut case, act, mut link, question, obligation } = joined;
    // Also of a session that fails here it is recorded what was seen of the peers whose logs are good.
    let limit = node.config.limits.session_ttl();
    let heard = timeout(limit, hear(node, &mut link, &question, obligation, &mut case.seen)).await;
    match heard.unwrap_or_else(|_| Err(too_long(node))) {
        Ok(()) => Ok(Witnessed { case, act, link }),
        Err(failure) => Err(case.end(Some(link.into_stream()), End::Failed(failure))),
    }
}

async fn hear(
    node: &Node,
    link: &mut Link,
    question: &Question,
    obligation: Obligation,
    seen: &mut Vec<Seen>,
) -> Result<(), Failure> {
    let hellos: Vec<Introduction> = link.channel().introductions().cloned().collect();
    let (testimony, doubted) = answer(node, hellos.clone()).await?;
    let bodies = link.exchange(Phase::Witness, to_body(&testimony)?).await?;
    let own = link.position();
    let nonce = hellos.get(usize::from(own)).map(|hello| hello.nonce).unwrap_or_default();
    let mut refused = None;
    for ((position, body), hello) in (0u16..).zip(&bodies).zip(&hellos).filter(|((position, _), _)| *position != own) {
        let testimony: Testimony = read_body(link.roster(), position, body)?;
        match hear_peer(node, question, obligation, &nonce, hello, &testimony) {
            Ok(good) => seen.push(good),
            // All are heard, so that each refusal is counted and shown; the first ends the session.
            Err(failure) => drop(refused.get_or_insert(failure)),
        }
    }
    refused.or(doubted).map_or(Ok(()), Err)
}

/// What the own log says to all that is asked of it, and what a peer has seen of it that it does not hold.
async fn answer(node: &Node, hellos: Vec<Introduction>) -> Result<(Testimony, Option<Failure>), Failure> {
    let own = node.config.party.clone();
    let demanding = hellos.iter().filter(|hello| hello.attest && hello.party != own);
    let nonces: Vec<Vec<u8>> = demanding.map(|hello| hello.nonce.to_vec()).collect();
    let head = Checkpoint::of(&node.store.audit_head());
    let hearing = node.store.read(move |store| Hearing::of(store, &own, &head, &hellos)).await?;
    node.witnesses.heard(&hearing.seen);
    let (doubted, sizes) = (hearing.doubted(), hearing.sizes);
    let signed = node.checkpoints.at_least(sizes.last().copied().unwrap_or_default()).await?;
    // Of the very place that the checkpoint signs, so that neither can stand for another log than the other.
    let token =
        if nonces.is_empty() { None } else { Some(attestation::token_at(node, &nonces, signed.checkpoint()).await?) };
    let testimony = node.store.read(move |store| Testimony::make(store, &signed, &sizes, token)).await?;
    let doubted = doubted.map(|why| {
        tracing::error!(event = "own_log_doubted", why, "was this appliance restored from an older copy?");
        let advice = "it was restored from an older copy, or that peer is wrong: compare the logs of both";
        Failure::new(Code::PeerLogRefused, format!("{why}; {advice}"))
    });
    Ok((testimony, doubted))
}

/// Judges one peer. Its refusal is shown in health and counted.
fn hear_peer(
    node: &Node,
    question: &Question,
    obligation: Obligation,
    nonce: &[u8],
    hello: &Introduction,
    testimony: &Testimony,
) -> Result<Seen, Failure> {
    let party = &hello.party;
    let unpinned = || Failure::new(Code::Internal, format!("{party} is not pinned here"));
    let peer = node.config.peer(party).ok_or_else(unpinned)?;
    let seen = judge(&node.witnesses, question, &peer.audit, hello, testimony).map_err(|why| match why {
        Unbelieved::Doubt(doubt) => {
            node.metrics.peer_log_refused(party);
            refuse(node, party, Code::PeerLogRefused, doubt.to_string())
        }
        // The peer has done nothing wrong.
        Unbelieved::TooManyAtOnce => Failure::new(Code::Overloaded, format!("{party}: {why}")),
    })?;
    match obligation {
        Obligation::Nothing => Ok(seen),
        Obligation::PeersAttested => attested(node, party, nonce, testimony, seen).map_err(|why| {
            node.metrics.peer_not_attested(party);
            refuse(node, party, Code::PeerNotAttested, why)
        }),
    }
}

/// Whether a peer's token says all that it should, to this session's question and of the log that it has just shown.
fn attested(node: &Node, party: &PartyId, nonce: &[u8], testimony: &Testimony, seen: Seen) -> Result<Seen, String> {
    let token = testimony.token.as_deref().ok_or("it sent no attestation, although policy demands one here")?;
    let appraisal = attestation::appraise(&node.config, party, token, nonce, Timestamp::now());
    match appraisal.map_err(|e| e.to_string())? {
        PeerAppraisal::Affirming(claims) => seen.attested(&claims.audit, crate::digest(token)).ok_or_else(|| {
            "its attestation speaks of another place of its audit log than its checkpoint, or of another log".into()
        }),
        other => Err(other.to_string()),
    }
}

fn refuse(node: &Node, party: &PartyId, code: Code, why: String) -> Failure {
    let detail = match code {
        Code::PeerNotAttested => format!(
            "{party} is not attested as policy demands: {why}. Compare it with its reference file here, with those who run it"
        ),
        _ => format!(
            "the audit log of {party} is refused: {why}. Find out why with those who run it; if its log was begun anew or \
             restored for a good reason, accept its checkpoint (POST peers/{party}/accept)"
        ),
    };
    node.witnesses.refused(party, code, why);
    Failure { party: Some(party.clone()), ..Failure::new(code, detail) }
}

impl From<AttestError> for Failure {
    fn from(error: AttestError) -> Self {
        let code = match &error {
            AttestError::Hsm(_) => Code::HsmUnavailable,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
