//! Who takes part in a session, in which order, and how many are needed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Digest32, IdentityKey, InvalidId, PartyId};

/// The largest committee: keeps frames, memory and running time bounded.
pub const MAX_PARTIES: usize = 16;

/// `t` parties out of `n` are needed to sign; `2 <= t <= n <= 16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct Threshold {
    t: u16,
    n: u16,
}

impl TryFrom<(u16, u16)> for Threshold {
    type Error = InvalidId;
    fn try_from((t, n): (u16, u16)) -> Result<Self, InvalidId> {
        Self::new(t, n)
    }
}

impl From<Threshold> for (u16, u16) {
    fn from(threshold: Threshold) -> Self {
        (threshold.t, threshold.n)
    }
}

impl Threshold {
    /// Takes "t of n".
    ///
    /// # Errors
    /// Says which bound is broken.
    pub fn new(t: u16, n: u16) -> Result<Self, InvalidId> {
        let bad = |why: String| InvalidId::new("the threshold", why);
        if t < 2 {
            return Err(bad(format!("{t} of {n} would let one party sign alone; t must be at least 2")));
        }
        if t > n {
            return Err(bad(format!("{t} of {n} could never sign; t must be at most n")));
        }
        if usize::from(n) > MAX_PARTIES {
            return Err(bad(format!("n is {n}; at most {MAX_PARTIES} parties are supported")));
        }
        Ok(Self { t, n })
    }

    /// Parties needed to sign.
    pub fn t(self) -> u16 {
        self.t
    }

    /// Parties that hold a share.
    pub fn n(self) -> u16 {
        self.n
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-of-{}", self.t, self.n)
    }
}

/// One party of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub party_id: PartyId,
    /// Its index at keygen (0-based), which its share belongs to.
    pub party_index: u16,
    /// The identity key that it must prove in its hello.
    pub identity: IdentityKey,
}

/// The parties of one session, ordered by index; names, indices and identities are distinct.
///
/// A party's *position* is its place in this list; for keygen it equals the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Member>", into = "Vec<Member>")]
pub struct Roster(Vec<Member>);

impl TryFrom<Vec<Member>> for Roster {
    type Error = InvalidId;

    fn try_from(members: Vec<Member>) -> Result<Self, InvalidId> {
        let bad = |why: String| InvalidId::new("the list of participants", why);
        if members.len() < 2 || members.len() > MAX_PARTIES {
            return Err(bad(format!("it names {} parties; 2 to {MAX_PARTIES} are supported", members.len())));
        }
        for (place, member) in members.iter().enumerate() {
            for earlier in members.iter().take(place) {
                if earlier.party_id == member.party_id {
                    return Err(bad(format!("{} is named twice", member.party_id)));
                }
                if earlier.identity == member.identity {
                    return Err(bad(format!("{} and {} share an identity", earlier.party_id, member.party_id)));
                }
                if earlier.party_index >= member.party_index {
                    return Err(bad("indices must rise from one party to the next".into()));
                }
            }
        }
        Ok(Self(members))
    }
}

impl From<Roster> for Vec<Member> {
    fn from(roster: Roster) -> Self {
        roster.0
    }
}

impl Roster {
    /// The members in order.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// How many there are, as the protocols count (at most [`MAX_PARTIES`]).
    pub fn size(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }

    /// The member at a position.
    pub fn member(&self, position: u16) -> Option<&Member> {
        self.0.get(usize::from(position))
    }

    /// The position of a party.
    pub fn position(&self, party: &PartyId) -> Option<u16> {
        let place = self.0.iter().position(|member| &member.party_id == party)?;
        u16::try_from(place).ok()
    }

    /// Keygen indices of the members, in order.
    pub fn indices(&self) -> Vec<u16> {
        self.0.iter().map(|member| member.party_index).collect()
    }

    /// Whether the indices are 0, 1, … n−1, as a full committee's are.
    pub fn is_full(&self) -> bool {
        self.0.iter().zip(0u16..).all(|(member, index)| member.party_index == index)
    }

    /// SHA-256 over the ordered members (names, indices, identities): names a committee.
    pub fn digest(&self) -> Digest32 {
        let mut hash = Sha256::new();
        hash.update(b"casemate/roster/v1");
        for member in &self.0 {
            let name = member.party_id.as_str().as_bytes();
            hash.update([u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            hash.update(name);
            hash.update(member.party_index.to_be_bytes());
            hash.update(member.identity.fingerprint().0);
        }
        Digest32(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use p256::pkcs8::EncodePublicKey;

    fn member(name: &str, index: u16, seed: u8) -> Member {
        let key = p256::SecretKey::from_slice(&[seed; 32]).unwrap().public_key();
        let spki = key.to_public_key_der().unwrap();
        Member {
            party_id: name.parse().unwrap(),
            party_index: index,
            identity: IdentityKey::from_spki(spki.as_bytes()).unwrap(),
        }
    }

    #[test]
    fn thresholds_outside_the_bounds_are_refused() {
        for (t, n) in [(0, 3), (1, 3), (4, 3), (2, 17), (2, 1)] {
            assert!(Threshold::new(t, n).is_err(), "{t} of {n}");
        }
        assert_eq!(Threshold::new(2, 3).unwrap().to_string(), "2-of-3");
    }

    #[test]
    fn rosters_with_repeats_or_disorder_are_refused() {
        let good = vec![member("a", 0, 1), member("b", 2, 2)];
        assert!(Roster::try_from(good).is_ok());
        for bad in [
            vec![member("a", 0, 1)],
            vec![member("a", 0, 1), member("a", 1, 2)],
            vec![member("a", 0, 1), member("b", 1, 1)],
            vec![member("a", 1, 1), member("b", 0, 2)],
            vec![member("a", 1, 1), member("b", 1, 2)],
        ] {
            assert!(Roster::try_from(bad).is_err());
        }
    }

    #[test]
    fn the_digest_names_every_part_of_a_member() {
        let of = |members: Vec<Member>| Roster::try_from(members).unwrap().digest();
        let base = of(vec![member("a", 0, 1), member("b", 1, 2)]);
        assert_ne!(base, of(vec![member("a", 0, 1), member("c", 1, 2)]));
        assert_ne!(base, of(vec![member("a", 0, 1), member("b", 2, 2)]));
        assert_ne!(base, of(vec![member("a", 0, 1), member("b", 1, 3)]));
    }
}
