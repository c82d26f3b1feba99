//! Witness: every party shows that its audit log continues what the others had seen of it, before a share is opened.

use std::sync::Arc;

use casemate_attest::Checkpoint;
use casemate_wire::Code;
use casemate_wire::envelope::Introduction;

use super::join::{Case, Joined};
use super::run::{End, Finished};
use super::understand::Act;
use crate::daemon::Node;
use crate::session::{Failure, Link, Phase, read_body, to_body};
use crate::witness::{Hearing, Question, Testimony, Verdict};

/// A session whose parties have all shown that their logs only grew. Only [`witness`] makes one; only with it can a share be
/// opened.
pub(super) struct Witnessed {
    pub(super) case: Case,
    pub(super) act: Act,
    pub(super) link: Link,
}

/// Answers for the own log, and judges the peers'.
pub(super) async fn witness(node: &Arc<Node>, joined: Joined) -> Result<Witnessed, Finished> {
    let Joined { mut case, act, mut link, question } = joined;
    let heard = match hear(node, &mut link, &question).await {
        Ok(Heard { verdict, doubted }) => {
            let refused = refusal(node, &verdict).or(doubted);
            case.seen = verdict.seen;
            refused.map_or(Ok(()), Err)
        }
        Err(failure) => Err(failure),
    };
    match heard {
        Ok(()) => Ok(Witnessed { case, act, link }),
        Err(failure) => Err(case.end(Some(link.into_stream()), End::Failed(failure))),
    }
}

struct Heard {
    verdict: Verdict,
    /// A peer has seen of the own log what it does not hold.
    doubted: Option<Failure>,
}

async fn hear(node: &Node, link: &mut Link, question: &Question) -> Result<Heard, Failure> {
    let hellos: Vec<Introduction> = link.channel().introductions().cloned().collect();
    let (testimony, doubted) = answer(node, hellos.clone()).await?;
    let bodies = link.exchange(Phase::Witness, to_body(&testimony)?).await?;
    let mut verdict = Verdict::default();
    for ((position, body), hello) in (0u16..).zip(&bodies).zip(&hellos) {
        if position == link.position() {
            continue;
        }
        let testimony: Testimony = read_body(link.roster(), position, body)?;
        let unpinned = || Failure::new(Code::Internal, format!("{} is not pinned here", hello.party));
        let peer = node.config.peer(&hello.party).ok_or_else(unpinned)?;
        verdict.judge(&node.witnesses, question, &peer.audit, hello, &testimony);
    }
    Ok(Heard { verdict, doubted })
}

/// What the own log says to all that is asked of it.
async fn answer(node: &Node, hellos: Vec<Introduction>) -> Result<(Testimony, Option<Failure>), Failure> {
    let (own, head) = (node.config.party.clone(), Checkpoint::of(&node.store.audit_head()));
    let hearing = node.store.read(move |store| Hearing::of(store, &own, &head, &hellos)).await?;
    let Hearing { sizes, doubted } = hearing;
    let signed = node.checkpoints.at_least(sizes.last().copied().unwrap_or_default()).await?;
    let testimony = node.store.read(move |store| Testimony::make(store, &signed, &sizes)).await?;
    let doubted = doubted.map(|why| {
        tracing::error!(event = "own_log_doubted", why, "was this appliance restored from an older copy?");
        let advice = "it was restored from an older copy, or that peer is wrong: compare the logs of both";
        Failure::new(Code::PeerLogRefused, format!("{why}; {advice}"))
    });
    Ok((testimony, doubted))
}

/// Counts the peers that are refused, and names the first.
fn refusal(node: &Node, verdict: &Verdict) -> Option<Failure> {
    for (party, _) in &verdict.refused {
        node.metrics.peer_log_refused(party);
    }
    let (party, doubt) = verdict.refused.first()?;
    let detail = format!(
        "the audit log of {party} is refused: {doubt}. Find out why with those who run it; if its log was begun anew or \
         restored for a good reason, accept its checkpoint (POST peers/{party}/accept)"
    );
    Some(Failure { party: Some(party.clone()), ..Failure::new(Code::PeerLogRefused, detail) })
}
