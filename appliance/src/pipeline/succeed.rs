//! Understand, for rotations: whether this party deals, receives or both, and whether the key stands where the token says.

use std::sync::Arc;

use casemate_attest::life::ShareState;
use casemate_policy::{KeyFacts, SlotFacts};
use casemate_wire::rotation::{Auxiliary, DealerPlace, Rotation};
use casemate_wire::token::VerifiedToken;
use casemate_wire::{Code, Member, Problem, PublicKey, Roster};
use jiff::Timestamp;

use super::ask::unavailable;
use super::share::ShareHeader;
use crate::daemon::Node;
use crate::sealing;
use crate::store::{CommitteeRow, ShareRow, count_primes, newest_epoch};

/// How many epochs a rotation may pass over, for attempts that came to nothing elsewhere: nobody can use all of them up.
const LEAP: u64 = 1_000;

/// A rotation that is asked for.
#[derive(Clone)]
pub(super) struct RotateAct {
    pub(super) key: PublicKey,
    pub(super) rotation: Rotation,
    /// Who deals, by place.
    pub(super) dealers: Vec<DealerPlace>,
    /// The new committee.
    pub(super) committee: Roster,
    /// The own share of the epoch that is dealt from; a party that joins has none.
    pub(super) held: Option<Held>,
    /// The own share of an earlier epoch, at a party that missed rotations: it takes part as one that joins.
    pub(super) stale: Option<Held>,
    /// What the token says of a key that this party does not know; its dealers must prove it.
    pub(super) claimed: SlotFacts,
}

/// A share of the old epoch.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) share: ShareRow,
    pub(super) header: ShareHeader,
}

impl RotateAct {
    /// The live share that lies here, of whatever epoch.
    pub(super) fn live(&self) -> Option<&Held> {
        self.held.as_ref().or(self.stale.as_ref())
    }

    /// What policy sees of the key. Of a share that is held here it is the authenticated header; a party that joins has only
    /// the token's word, which the dealers must prove before anything comes of it.
    pub(super) fn facts(&self, now: Timestamp) -> KeyFacts {
        match (&self.held, &self.stale) {
            (Some(held), _) => held.header.facts(now),
            // What the key is split into now only its dealers know; the rest is known here.
            (None, Some(stale)) => KeyFacts { slot: self.claimed.clone(), ..stale.header.facts(now) },
            (None, None) => KeyFacts { public_key: self.key, slot: self.claimed.clone(), age_days: 0, restored: false },
        }
    }
}

/// Finds the own part in a rotation, and whether everything that is known here agrees with the token.
pub(super) async fn rotation(node: &Arc<Node>, token: &VerifiedToken) -> Result<RotateAct, Problem> {
    let claims = token.claims();
    let missing = || Problem::new(Code::InvalidJoinToken, "it says too little for a rotation");
    let (key, kind) = claims.public_key.zip(claims.share_type).ok_or_else(missing)?;
    let rotation = claims.rotation.clone().ok_or_else(missing)?;
    let unfit = |e: casemate_wire::ids::InvalidId| Problem::new(Code::InvalidJoinToken, e.to_string());
    let dealers = rotation.places(token.threshold(), token.roster()).map_err(unfit)?;
    let committee = rotation.committee(token.threshold(), token.roster()).map_err(unfit)?;
    let claimed = SlotFacts {
        kind,
        threshold_t: rotation.from_threshold.t(),
        threshold_n: rotation.from_threshold.n(),
        label: claims.label.clone(),
    };
    let known = node.store.read(move |store| Ok((newest_epoch(store, &key)?, ShareRow::all_of_key(store, &key)?)));
    let (newest, shares) = known.await.map_err(|e| unavailable(&e))?;
    if newest >= rotation.epoch {
        let detail = format!(
            "this party has taken part in bringing the key to epoch {newest}; a rotation must lead to a later one than {}",
            rotation.epoch
        );
        return Err(Problem::new(Code::EpochTaken, detail).with("epoch", newest));
    }
    // The token's own word counts only where nothing is known.
    let base = if newest == 0 { rotation.from_epoch } else { newest };
    if rotation.epoch > base.saturating_add(LEAP) {
        let detail = format!("epoch {} is out of all reach: this party knows of epoch {newest}", rotation.epoch);
        return Err(Problem::new(Code::InvalidJoinToken, detail).with("epoch", newest));
    }
    let held = shares.into_iter().find(|share| matches!(share.status, ShareState::Active | ShareState::Restored));
    let live = held.map(|share| held_here(node, share, &rotation, &claimed)).transpose()?;
    let (stale, held) = match live {
        Some(live) if live.header.key.epoch < rotation.from_epoch => (Some(live), None),
        live => (None, live),
    };
    let act = RotateAct { key, rotation, dealers, committee, held, stale, claimed };
    check_dealers(node, token, &act)?;
    if let Some(problem) = unready(node, token, &act).await? {
        return Err(problem);
    }
    Ok(act)
}

/// The own share must be the one that the token would have dealt from. A party that still has one of an earlier epoch takes part as
/// one that joins, if the key is the same: what it has signs nothing with those who have moved on, and the new share supersedes it.
fn held_here(node: &Node, share: ShareRow, rotation: &Rotation, claimed: &SlotFacts) -> Result<Held, Problem> {
    let header: ShareHeader = sealing::header("share", share.material.header())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let stale = header.key.epoch < rotation.from_epoch;
    let difference = [
        ("epoch", header.key.epoch > rotation.from_epoch),
        ("threshold", !stale && header.key.threshold != rotation.from_threshold),
        ("committee", !stale && header.key.roster != rotation.from_roster),
        ("share type", header.share_type != claimed.kind),
        ("label", header.label != claimed.label),
        ("party", header.party_id != node.config.party),
    ]
    .into_iter()
    .find_map(|(name, differs)| differs.then_some(name));
    match difference {
        None => Ok(Held { share, header }),
        Some(name) => {
            let detail = format!("the key has another {name} here than the one that the join token would rotate from");
            Err(Problem::new(Code::QuorumMismatch, detail).with("epoch", header.key.epoch))
        }
    }
}

/// Every dealer must be the old party that it deals for, and this one must hold a share if it deals.
fn check_dealers(node: &Node, token: &VerifiedToken, act: &RotateAct) -> Result<(), Problem> {
    for place in &act.dealers {
        let places = token.roster().member(place.position).zip(act.rotation.from_roster.member(place.old_index));
        let same = |(now, then): (&Member, &Member)| node.config.is_same_party(now, then, &node.identity);
        if !places.is_some_and(same) {
            let name = places.map(|(now, _)| now.party_id.to_string()).unwrap_or_default();
            let detail = format!(
                "{name} has another identity now than in the committee that is dealt from; if it moved to another HSM, list its \
                 former identity here, else let another party deal"
            );
            return Err(Problem::new(Code::QuorumMismatch, detail));
        }
    }
    if act.rotation.dealers.contains(&node.config.party) && act.held.is_none() {
        let detail = format!("this party is to deal and holds no share of key {}", act.key);
        return Err(Problem::new(Code::ShareNotFound, detail));
    }
    Ok(())
}

/// Why this party could not make the auxiliary information that may be needed.
async fn unready(node: &Node, token: &VerifiedToken, act: &RotateAct) -> Result<Option<Problem>, Problem> {
    let receives = act.committee.position(&node.config.party).is_some();
    let (roster, keep) = (act.committee.digest(), act.rotation.auxiliary == Auxiliary::Keep);
    let ready = node
        .store
        .read(move |store| Ok((keep && CommitteeRow::find(store, &roster)?.is_some()) || count_primes(store)? > 0));
    if !receives || ready.await.map_err(|e| unavailable(&e))? {
        return Ok(None);
    }
    let detail = format!(
        "no safe primes are ready yet for the new committee of session {}; they are being made, try again in a minute",
        token.claims().session_id
    );
    Ok(Some(Problem::new(Code::NotReady, detail).with("retry_after", 30)))
}
