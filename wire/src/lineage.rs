//! Which committee a key's share comes from, and whether a chain of successions leads on from there.
//!
//! A party that missed one rotation is convinced by t parties of its own committee. Two more cases need the way that a key has
//! come: a party that missed several rotations, of whose committees it knows the first only; and two committees that were dealt
//! from the same one, because a coordinator kept the end of the first rotation to itself. In both, whoever is of the earlier epoch
//! gives way: of two certified epochs one is always the later.

use serde::{Deserialize, Serialize};

use crate::certificate::{CertificateError, KeyCertificate};
use crate::ids::{IdentityKey, PublicKey};
use crate::roster::{Member, Roster, Threshold};
use crate::rotation::Succession;

/// The most successions that are told before the newest one. Who missed more is convinced by another way, or withdrawn by hand.
pub const MAX_EARLIER: usize = 32;

/// A committee that holds, or held, a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committee {
    /// The epoch of its shares.
    pub epoch: u64,
    /// How many of them sign.
    pub threshold: Threshold,
    /// All of its members.
    pub roster: Roster,
}

impl Committee {
    /// The committee that a certificate states.
    ///
    /// # Errors
    /// Its threshold is none.
    pub fn of(certificate: &KeyCertificate) -> Result<Self, CertificateError> {
        let statement = &certificate.statement;
        let threshold = Threshold::new(statement.threshold_t, statement.threshold_n)
            .map_err(|error| CertificateError::Misshapen(error.to_string()))?;
        Ok(Self { epoch: statement.epoch, threshold, roster: statement.roster.clone() })
    }
}

/// Whether `path`, from the oldest to the newest, leads from one of `known` to its last succession: each step of it is endorsed by t parties of a known committee, or of one that an earlier succession of the path has led to.
///
/// `signed_as` gives the identity by which a member of a new committee is to be believed, `endorses_as` that of a member of the
/// committee before: another where a party has moved to another HSM since. Successions that do not follow from what is known are passed over: only the last must.
///
/// # Errors
/// Says why the last does not follow.
pub fn leads_on(
    key: &PublicKey,
    known: &[Committee],
    path: &[Succession],
    signed_as: impl Fn(&Member) -> Option<IdentityKey>,
    endorses_as: impl Fn(&Member) -> Option<IdentityKey>,
) -> Result<(), CertificateError> {
    let mut known: Vec<Committee> = known.to_vec();
    let mut outcome = Err(CertificateError::Misshapen("there is no succession".into()));
    for succession in path {
        outcome = follows(key, &known, succession, (&signed_as, &endorses_as));
        if outcome.is_ok() {
            known.push(Committee::of(&succession.certificate)?);
        }
    }
    outcome
}

fn follows(
    key: &PublicKey,
    known: &[Committee],
    succession: &Succession,
    (signed_as, endorses_as): (impl Fn(&Member) -> Option<IdentityKey>, impl Fn(&Member) -> Option<IdentityKey>),
) -> Result<(), CertificateError> {
    let certificate = &succession.certificate;
    if certificate.statement.public_key != *key {
        return Err(CertificateError::Misshapen("it is about another key".into()));
    }
    certificate.verify(signed_as)?;
    let mut outcome =
        Err(CertificateError::Misshapen("no t parties of a committee that is known here endorse it".into()));
    let named = |committee: &&Committee| {
        let named = |member: &&Member| succession.endorsements.iter().any(|one| one.party_id == member.party_id);
        committee.roster.members().iter().filter(named).count() >= usize::from(committee.threshold.t())
    };
    // The latest first: it is most often the one that dealt. Where too few of a committee are named no signature is looked at.
    let before = known.iter().rev().filter(|committee| committee.epoch < certificate.statement.epoch);
    for committee in before.filter(named) {
        outcome = succession.is_endorsed_by(&committee.roster, committee.threshold, &endorses_as);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::ids::Digest32;
    use crate::rotation::Endorsement;
    use crate::testing::{member, roster, sign};
    use crate::{KeyStatement, ShareType};

    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn committee(epoch: u64, seeds: &[u8]) -> Committee {
        let threshold = Threshold::new(2, u16::try_from(seeds.len()).unwrap()).unwrap();
        Committee { epoch, threshold, roster: roster(seeds) }
    }

    /// A succession to a committee of two of these, endorsed by those.
    fn to(epoch: u64, seeds: &[u8], endorsers: &[u8]) -> Succession {
        let committee = roster(seeds);
        let statement = KeyStatement {
            public_key: KEY.parse().unwrap(),
            chain_code: [5; 32],
            scheme: "cggmp21-secp256k1".into(),
            threshold_t: 2,
            threshold_n: committee.size(),
            roster: committee,
            epoch,
            share_type: ShareType::Wallet,
            label: None,
            confirmation: Digest32([6; 32]),
        };
        let text = statement.to_sign();
        let signatures = seeds.iter().map(|seed| sign(*seed, &text)).collect();
        let endorse = |seed: &u8| Endorsement { party_id: member(*seed, 0).party_id, signature: sign(*seed, &text) };
        let endorsements = endorsers.iter().map(endorse).collect();
        Succession { certificate: KeyCertificate { statement, signatures }, endorsements }
    }

    fn convinces(known: &[Committee], path: &[Succession]) -> bool {
        let believed = |member: &Member| Some(member.identity.clone());
        leads_on(&KEY.parse().unwrap(), known, path, believed, believed).is_ok()
    }

    #[test]
    fn who_missed_several_rotations_follows_the_whole_way_and_no_shorter_one() {
        let first = [committee(1, &[1, 2, 3])];
        let (second, third) = (to(2, &[4, 5, 6], &[1, 3]), to(5, &[7, 8, 9], &[4, 6]));
        assert!(convinces(&first, std::slice::from_ref(&second)));
        assert!(convinces(&first, &[second.clone(), third.clone()]));
        assert!(!convinces(&first, std::slice::from_ref(&third)), "its endorsers are strangers");
        assert!(!convinces(&first, &[third.clone(), second.clone()][..1]));
        assert!(!convinces(&first, &[]));
        // What leads nowhere is passed over, and leads nowhere.
        let foreign = to(3, &[10, 11], &[10, 11]);
        assert!(convinces(&first, &[second.clone(), foreign.clone(), third]));
        assert!(!convinces(&first, &[second, foreign]));
    }

    #[test]
    fn of_two_committees_dealt_from_one_the_earlier_gives_way_and_the_later_does_not() {
        let (origin, earlier) = (committee(1, &[1, 2, 3]), committee(2, &[1, 4, 5]));
        let (later, last) = (to(3, &[2, 3, 6], &[1, 2]), to(4, &[2, 7], &[2, 6]));
        assert!(convinces(&[earlier.clone(), origin.clone()], std::slice::from_ref(&later)));
        assert!(convinces(&[earlier.clone(), origin.clone()], &[later.clone(), last.clone()]));
        assert!(!convinces(std::slice::from_ref(&earlier), &[later]), "without knowing where it came from");
        let back = to(2, &[1, 4, 5], &[1, 2]);
        assert!(!convinces(&[committee(3, &[2, 3, 6])], &[back]));
        assert!(!convinces(&[origin], &[last]));
    }

    #[test]
    fn words_of_another_key_of_too_few_or_of_strangers_convince_nobody() {
        let first = [committee(1, &[1, 2, 3])];
        let other: PublicKey = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5".parse().unwrap();
        let good = to(2, &[4, 5], &[1, 2]);
        let believed = |member: &Member| Some(member.identity.clone());
        assert!(leads_on(&other, &first, std::slice::from_ref(&good), believed, believed).is_err());
        assert!(!convinces(&first, &[to(2, &[4, 5], &[1])]));
        assert!(!convinces(&first, &[to(1, &[4, 5], &[1, 2])]), "an epoch that is no later");
        let mut unsigned = good.clone();
        unsigned.certificate.signatures.swap(0, 1);
        assert!(!convinces(&first, &[unsigned]));
        let stranger = member(4, 0).party_id;
        let pinned = |member: &Member| (member.party_id != stranger).then(|| member.identity.clone());
        assert!(leads_on(&KEY.parse().unwrap(), &first, &[good], pinned, pinned).is_err());
    }
}
