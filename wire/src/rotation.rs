//! Rotation: from which shares the new ones are dealt, and what proves that a key has moved on to its next epoch.
//!
//! A session of a rotation has the new committee at positions 0 to n′−1 and after it the dealers that leave. Its parties end
//! with a [`Succession`]: the new epoch's key certificate, which says that every new party holds its share durably, and the
//! endorsement of the old parties that dealt. Whoever holds a pending share of it adopts that share, today or later. Old
//! shares are destroyed only once every new party has signed that it has [`Switched`].

use serde::{Deserialize, Serialize};

use crate::certificate::{CertificateError, IdentitySignature, KeyCertificate};
use crate::ids::{Digest32, IdentityKey, InvalidId, PartyId};
use crate::roster::{Member, Roster, Threshold};

const SWITCHED: &str = "casemate/switched/v1";

/// The latest epoch: what canonical JSON holds exactly, 2^53 − 1.
pub const MAX_EPOCH: u64 = (1 << 53) - 1;

/// Whether the new committee's auxiliary information is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auxiliary {
    /// It is kept where all of the new committee hold the same.
    Keep,
    /// It is made anew: needed to heal a host that was compromised.
    Fresh,
}

/// What a rotation starts from, and what it leads to beside the new committee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The epoch that begins. Above every epoch that any party of the session has taken part in with this key, also
    /// in vain: so of two certified epochs one is always the later.
    pub epoch: u64,
    /// The epoch that is dealt from.
    pub from_epoch: u64,
    /// Its threshold.
    pub from_threshold: Threshold,
    /// Its whole committee.
    pub from_roster: Roster,
    /// Who deals: exactly t of that committee, in its order.
    pub dealers: Vec<PartyId>,
    /// What becomes of the auxiliary information.
    pub auxiliary: Auxiliary,
}

/// One dealer's places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealerPlace {
    /// In the session.
    pub position: u16,
    /// Its share's index in the old committee.
    pub old_index: u16,
}

impl Rotation {
    /// Checks that the numbers fit each other and the session's participants, and finds the dealers' places.
    ///
    /// `committee` is the new threshold; the first n′ of `participants` are the new committee, all others must be dealers.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn places(&self, committee: Threshold, participants: &Roster) -> Result<Vec<DealerPlace>, InvalidId> {
        let bad = |why: String| Err(InvalidId::new("the rotation", why));
        if self.epoch <= self.from_epoch || self.from_epoch == 0 || self.epoch > MAX_EPOCH {
            return bad(format!("epoch {} cannot follow epoch {}", self.epoch, self.from_epoch));
        }
        if !self.from_roster.is_full() || self.from_roster.size() != self.from_threshold.n() {
            return bad("from_roster is not the whole old committee".into());
        }
        if self.dealers.len() != usize::from(self.from_threshold.t()) {
            return bad(format!("it takes exactly {} dealers", self.from_threshold.t()));
        }
        if !participants.is_full() || participants.size() < committee.n() {
            return bad("its participants are not the new committee and then the dealers that leave".into());
        }
        let mut places = Vec::with_capacity(self.dealers.len());
        for dealer in &self.dealers {
            let Some(old_index) = self.from_roster.position(dealer) else {
                return bad(format!("{dealer} is no member of the old committee"));
            };
            let Some(position) = participants.position(dealer) else {
                return bad(format!("{dealer} deals and does not take part"));
            };
            if places.last().is_some_and(|last: &DealerPlace| last.old_index >= old_index) {
                return bad("its dealers are not in the order of the old committee".into());
            }
            places.push(DealerPlace { position, old_index });
        }
        let idle = (committee.n()..participants.size()).find(|leaving| {
            let deals = places.iter().any(|place| place.position == *leaving);
            !deals
        });
        match idle {
            Some(position) => bad(format!("the participant at position {position} neither deals nor receives")),
            None => Ok(places),
        }
    }

    /// The new committee: the first n′ participants.
    ///
    /// # Errors
    /// There are fewer.
    pub fn committee(&self, committee: Threshold, participants: &Roster) -> Result<Roster, InvalidId> {
        let members: Vec<Member> = participants.members().iter().take(usize::from(committee.n())).cloned().collect();
        Roster::try_from(members)
    }
}

/// One old party's signature under the new epoch's key statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endorsement {
    /// Who dealt.
    pub party_id: PartyId,
    /// By its identity key, over [`crate::KeyStatement::to_sign`].
    pub signature: IdentitySignature,
}

/// Proof that a key has moved on to another epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// Every new party's signature, given after its share was durable: the commit certificate.
    pub certificate: KeyCertificate,
    /// The dealers' signatures.
    pub endorsements: Vec<Endorsement>,
}

impl Succession {
    /// Whether `threshold.t()` parties of the old committee stand behind it, each by the identity that `known` takes for its
    /// own under that name.
    ///
    /// # Errors
    /// Says that they are too few.
    pub fn is_endorsed_by(
        &self,
        old: &Roster,
        threshold: Threshold,
        known: impl Fn(&Member) -> Option<IdentityKey>,
    ) -> Result<(), CertificateError> {
        let text = self.certificate.statement.to_sign();
        let stands_behind = |member: &Member| {
            let signed = self.endorsements.iter().find(|one| one.party_id == member.party_id);
            signed.zip(known(member)).is_some_and(|(one, identity)| identity.verifies(&text, &one.signature.0))
        };
        let count = old.members().iter().filter(|member| stands_behind(member)).count();
        if count >= usize::from(threshold.t()) {
            Ok(())
        } else {
            let why = format!("{count} parties of the old committee endorse it, {} are needed", threshold.t());
            Err(CertificateError::Misshapen(why))
        }
    }
}

/// A new party's word that the new epoch is the one that it signs with from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switched {
    /// Who.
    pub party_id: PartyId,
    /// By its identity key, over [`switched_text`].
    pub signature: IdentitySignature,
}

/// What a party signs once it has switched: CBOR of `[domain, party, SHA-256 of the key statement]`.
pub fn switched_text(certificate: &KeyCertificate, party: &PartyId) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let statement = Digest32(Sha256::digest(certificate.statement.to_sign()).into());
    let mut bytes = Vec::new();
    // As for key statements: there is no way to fail, and the empty text verifies nowhere.
    if ciborium::into_writer(&(SWITCHED, party, statement), &mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// Whether every party of the new committee has switched.
///
/// # Errors
/// Names the first that has not, or whose word does not verify.
pub fn all_switched(certificate: &KeyCertificate, switched: &[Switched]) -> Result<(), PartyId> {
    for member in certificate.statement.roster.members() {
        let text = switched_text(certificate, &member.party_id);
        let word = switched.iter().find(|word| word.party_id == member.party_id);
        if !word.is_some_and(|word| member.identity.verifies(&text, &word.signature.0)) {
            return Err(member.party_id.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::KeyStatement;
    use crate::testing::{roster, sign};

    fn names(seeds: &[u8]) -> Vec<PartyId> {
        seeds.iter().map(|seed| format!("party-{seed}").parse().unwrap()).collect()
    }

    fn rotation(dealers: &[u8]) -> Rotation {
        Rotation {
            epoch: 3,
            from_epoch: 1,
            from_threshold: Threshold::new(2, 3).unwrap(),
            from_roster: roster(&[1, 2, 3]),
            dealers: names(dealers),
            auxiliary: Auxiliary::Keep,
        }
    }

    #[test]
    fn dealers_have_a_place_in_both_committees() {
        let three = Threshold::new(2, 3).unwrap();
        let (replaced, place) = (roster(&[4, 2, 1]), |position, old_index| DealerPlace { position, old_index });
        assert_eq!(rotation(&[1, 2]).places(three, &replaced).unwrap(), [place(2, 0), place(1, 1)]);
        let leaving = roster(&[4, 5, 6, 1, 3]);
        assert_eq!(rotation(&[1, 3]).places(three, &leaving).unwrap(), [place(3, 0), place(4, 2)]);
        assert_eq!(rotation(&[1, 3]).committee(three, &leaving).unwrap(), roster(&[4, 5, 6]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let three = Threshold::new(2, 3).unwrap();
        let good = roster(&[1, 2, 3]);
        assert!(rotation(&[1, 2]).places(three, &good).is_ok());
        for dealers in [&[1u8][..], &[2, 1], &[1, 1], &[1, 4], &[1, 2, 3]] {
            assert!(rotation(dealers).places(three, &good).is_err(), "{dealers:?}");
        }
        assert!(rotation(&[1, 2]).places(three, &roster(&[4, 5, 6, 1])).is_err(), "a dealer that takes no part");
        assert!(rotation(&[1, 2]).places(three, &roster(&[4, 1, 2, 3])).is_err(), "one that only looks on");
        assert!(rotation(&[1, 2]).places(Threshold::new(2, 4).unwrap(), &good).is_err());
        let back = Rotation { epoch: 1, ..rotation(&[1, 2]) };
        assert!(back.places(three, &good).is_err());
        let partial = Rotation { from_roster: roster(&[1, 2]), ..rotation(&[1, 2]) };
        assert!(partial.places(three, &good).is_err());
    }

    #[test]
    fn a_succession_counts_only_with_the_old_committee_behind_it_and_all_new_parties_switched() {
        let statement = KeyStatement {
            public_key: "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap(),
            chain_code: [5; 32],
            scheme: "cggmp21-secp256k1".into(),
            threshold_t: 2,
            threshold_n: 2,
            roster: roster(&[4, 5]),
            epoch: 3,
            share_type: crate::ShareType::Wallet,
            label: None,
            confirmation: Digest32([6; 32]),
        };
        let text = statement.to_sign();
        let certificate = KeyCertificate { signatures: vec![sign(4, &text), sign(5, &text)], statement };
        let endorse = |seed: u8| Endorsement { party_id: names(&[seed])[0].clone(), signature: sign(seed, &text) };
        let known = |member: &Member| Some(member.identity.clone());
        let (old, two) = (roster(&[1, 2, 3]), Threshold::new(2, 3).unwrap());
        let succession = |endorsements| Succession { certificate: certificate.clone(), endorsements };
        assert!(succession(vec![endorse(1), endorse(3)]).is_endorsed_by(&old, two, known).is_ok());
        for few in [vec![endorse(1)], vec![endorse(1), endorse(1)], vec![endorse(1), endorse(4)], Vec::new()] {
            assert!(succession(few).is_endorsed_by(&old, two, known).is_err());
        }
        let forged = Endorsement { party_id: names(&[2])[0].clone(), signature: sign(1, &text) };
        assert!(succession(vec![endorse(1), forged]).is_endorsed_by(&old, two, known).is_err());

        let word = |seed: u8, party: u8| {
            let party_id = names(&[party])[0].clone();
            Switched { signature: sign(seed, &switched_text(&certificate, &party_id)), party_id }
        };
        assert_eq!(all_switched(&certificate, &[word(4, 4), word(5, 5)]), Ok(()));
        assert_eq!(all_switched(&certificate, &[word(4, 4)]), Err(names(&[5])[0].clone()));
        assert_eq!(all_switched(&certificate, &[word(4, 4), word(4, 5)]), Err(names(&[5])[0].clone()));
        let other = Switched { signature: word(4, 4).signature, party_id: names(&[5])[0].clone() };
        assert!(all_switched(&certificate, &[word(4, 4), other]).is_err(), "another party's word");
    }
}
