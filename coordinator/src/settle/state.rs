//! Which party has switched and which still holds old shares of one account's key, without input or output.

use casemate_wire::api::{SettleAnswer, SettleRequest};
use casemate_wire::rotation::{Switched, all_switched, switched_text};
use casemate_wire::{Code, PartyId, Problem, Succession};

/// What is left to do after a rotation, until no old share is left.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settling {
    succession: Succession,
    /// What led to the epochs before, the oldest first.
    earlier: Vec<Succession>,
    parties: Vec<Standing>,
}

/// Where one party of the old or the new committee stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) party: PartyId,
    /// Its word that it has switched; a party that has left has none to give.
    pub(crate) word: Option<Switched>,
    /// It has been told that all have switched, and holds no old share.
    pub(crate) done: bool,
}

/// What a party's answer changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Heard {
    /// It went on.
    Onward,
    /// Nothing new.
    Nothing,
    /// It cannot settle, or says what is not so.
    Stuck(Stuck),
}

/// Why a party's answer led nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// In one word, the same each time for the same reason: a problem's code, or what kind of lie it is.
    pub(crate) kind: &'static str,
    /// In words, which may differ from time to time.
    pub(crate) why: String,
}

impl Settling {
    pub(crate) fn new(succession: Succession, earlier: Vec<Succession>, parties: Vec<Standing>) -> Self {
        Self { succession, earlier, parties }
    }

    /// The epoch that is settled.
    pub(crate) fn epoch(&self) -> u64 {
        self.succession.certificate.statement.epoch
    }

    pub(crate) fn parties(&self) -> &[Standing] {
        &self.parties
    }

    /// The parties that are to be told what is known now.
    pub(crate) fn due(&self) -> Vec<PartyId> {
        self.parties.iter().filter(|standing| !standing.done).map(|standing| standing.party.clone()).collect()
    }

    /// What they are told: what proves the new epoch, and who has switched so far.
    pub(crate) fn request(&self) -> SettleRequest {
        let switched = self.parties.iter().filter_map(|standing| standing.word.clone()).collect();
        SettleRequest { succession: self.succession.clone(), earlier: self.earlier.clone(), switched }
    }

    /// Takes out who is configured here no more, and has left the committee: operators have put it out of service, and nobody can be
    /// told there.
    pub(crate) fn dismiss(&mut self, reachable: impl Fn(&PartyId) -> bool) -> Vec<PartyId> {
        let roster = &self.succession.certificate.statement.roster;
        let gone = |standing: &&mut Standing| {
            !standing.done && roster.position(&standing.party).is_none() && !reachable(&standing.party)
        };
        let mut dismissed = Vec::new();
        for standing in self.parties.iter_mut().filter(gone) {
            standing.done = true;
            dismissed.push(standing.party.clone());
        }
        dismissed
    }

    /// Takes a party's answer to `told`.
    pub(crate) fn hear(
        &mut self,
        party: &PartyId,
        told: &SettleRequest,
        answer: &Result<SettleAnswer, Problem>,
    ) -> Heard {
        let certificate = &self.succession.certificate;
        let member = certificate.statement.roster.members().iter().find(|member| &member.party_id == party);
        let Some(standing) = self.parties.iter_mut().find(|standing| &standing.party == party) else {
            return Heard::Nothing;
        };
        let told_all = all_switched(certificate, &told.switched).is_ok();
        let answer = match answer {
            // Who has left and holds nothing of the key has nothing to settle.
            Err(problem) if problem.code == Code::ShareNotFound && member.is_none() => {
                standing.done = true;
                return Heard::Onward;
            }
            Err(problem) => return stuck(problem.code.as_str(), problem.to_string()),
            Ok(answer) => answer,
        };
        if answer.party_id != *party {
            return stuck("impostor", format!("{} answered in its place", answer.party_id));
        }
        let before = standing.clone();
        if let Some((word, member)) = answer.switched.as_ref().zip(member) {
            let text = switched_text(certificate, party);
            if word.party_id != *party || !member.identity.verifies(&text, &word.signature.0) {
                return stuck("false_word", "its word that it has switched does not verify".into());
            }
            // Signatures of one text differ from time to time; the first is as good as any.
            standing.word.get_or_insert_with(|| word.clone());
        }
        if member.is_some() && answer.switched.is_none() {
            return stuck("not_switched", "it holds no live share of the new epoch, and will give no word".into());
        }
        standing.done = told_all && answer.old_shares == 0;
        if *standing == before { Heard::Nothing } else { Heard::Onward }
    }

    /// Whether no old share is left anywhere.
    pub(crate) fn is_over(&self) -> bool {
        self.parties.iter().all(|standing| standing.done)
    }
}

fn stuck(kind: &'static str, why: String) -> Heard {
    Heard::Stuck(Stuck { kind, why })
}

#[cfg(test)]
mod tests;
