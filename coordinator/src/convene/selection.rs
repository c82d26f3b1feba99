//! Who takes part in a session.

use casemate_wire::{Code, Member, PartyId, Problem};
use futures::future::join_all;

use super::{Coordinator, KeygenOrder};
use crate::account::{Account, Device};
use crate::session::Participant;

impl Coordinator {
    /// The committee of a new key, in the order in which it was given.
    pub(super) fn committee(&self, order: &KeygenOrder) -> Result<Vec<Participant>, Problem> {
        distinct(order.participants.iter().map(|(party, _)| party))?;
        let (given, n) = (order.participants.len(), usize::from(order.threshold.n()));
        if given < n {
            return Err(insufficient(given, n, "keygen needs all parties that will hold a share"));
        }
        if given > n {
            return Err(bad(format!("participants names {given} parties, but threshold_n is {n}")));
        }
        let member = |(index, (party, device)): (u16, &(PartyId, Device))| {
            let identity = self.stage.config.identity(party).ok_or_else(|| not_configured(party))?;
            Ok(Participant::new(party.clone(), index, identity.clone(), Some(device.clone())))
        };
        (0u16..).zip(&order.participants).map(member).collect()
    }

    /// Exactly t holders of the key, in roster order: of those given, the first that can be reached.
    pub(super) async fn signers(&self, account: &Account, given: &[PartyId]) -> Result<Vec<Participant>, Problem> {
        distinct(given.iter())?;
        let roster = &account.certificate.statement.roster;
        let t = usize::from(account.threshold.t());
        let mut candidates = Vec::with_capacity(given.len());
        for party in given {
            let holder = roster.members().iter().find(|member| &member.party_id == party);
            let member = holder.ok_or_else(|| bad(format!("{party} holds no share of account {}", account.id)))?;
            let identity = self.stage.config.identity(party).ok_or_else(|| not_configured(party))?.clone();
            if !self.stage.config.is_same_party(member) {
                let detail = format!(
                    "{party} has another identity in the configuration than in the certificate of account {}; if it moved to \
                     another HSM, list the one there in its former_identities",
                    account.id
                );
                return Err(Problem::new(Code::QuorumMismatch, detail).with("party", party.as_str()));
            }
            // It proves itself by the identity that it has now.
            candidates.push(Member { identity, ..member.clone() });
        }
        if candidates.len() < t {
            return Err(insufficient(candidates.len(), t, "signing needs as many parties as the threshold"));
        }
        if candidates.len() > t {
            let healthy = join_all(candidates.iter().map(|member| self.is_healthy(&member.party_id))).await;
            let (first, last): (Vec<_>, Vec<_>) =
                candidates.into_iter().zip(healthy).partition(|(_, healthy)| *healthy);
            candidates = first.into_iter().chain(last).map(|(member, _)| member).take(t).collect();
        }
        candidates.sort_by_key(|member| member.party_index);
        let signer = |member: Member| Participant::new(member.party_id, member.party_index, member.identity, None);
        Ok(candidates.into_iter().map(signer).collect())
    }

    pub(super) async fn is_healthy(&self, party: &PartyId) -> bool {
        match self.dialer.to(party) {
            Some(connection) => connection.is_healthy().await,
            None => false,
        }
    }
}

pub(super) fn distinct<'a>(parties: impl Iterator<Item = &'a PartyId>) -> Result<(), Problem> {
    let mut seen: Vec<&PartyId> = Vec::new();
    for party in parties {
        if seen.contains(&party) {
            return Err(bad(format!("participants names {party} twice")));
        }
        seen.push(party);
    }
    Ok(())
}

fn insufficient(given: usize, needed: usize, why: &str) -> Problem {
    let detail = format!("insufficient participants: {given} given, {needed} needed; {why}");
    Problem::new(Code::InsufficientParticipants, detail).with("needed", needed)
}

pub(crate) fn not_configured(party: &PartyId) -> Problem {
    bad(format!("{party} is not an appliance that this coordinator knows; see [[appliance]] in its configuration"))
}

pub(super) fn bad(detail: String) -> Problem {
    Problem::new(Code::BadRequest, detail)
}
