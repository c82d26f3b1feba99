//! The result of the protocol: what a committee needs to know of each other's Paillier and ring-Pedersen numbers.

use std::fmt;
use std::marker::PhantomData;

use cggmp21::key_share::{AuxInfo as ValidAuxInfo, DirtyAuxInfo, PartyAux, Validate};
use rug::Integer;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::{Zeroize, Zeroizing};

use super::arith::Secret;
use super::numbers::{PartyNumbers, check_parties, encode_natural, natural};
use super::protocol::OwnNumbers;
use crate::codec::MAX_DEPTH;
use crate::error::MpcError;
use crate::levels::{Level, SecurityLevel128};

/// The version of the stored form.
const VERSION: u8 = 1;
/// How errors name this object.
const OBJECT: &str = "auxiliary info";

/// One committee's auxiliary information as one party holds it: its own primes, and N, s, t of all parties. Made once
/// for a committee and reused for all keys of the same parties at the same positions.
///
/// # Security
/// Holds this party's Paillier primes: whoever reads them opens what peers encrypt to this party in signing. Not `Clone`,
/// printed redacted, primes wiped on drop.
pub struct AuxInfo<L: Level = SecurityLevel128> {
    p: Secret,
    q: Secret,
    parties: Vec<PartyAux>,
    index: u16,
    transcript_digest: [u8; 32],
    level: PhantomData<L>,
}

/// The stored form: CBOR, integers as big-endian byte strings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u8,
    index: u16,
    p: ByteBuf,
    q: ByteBuf,
    parties: Vec<StoredParty>,
    transcript: ByteArray<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredParty {
    modulus: ByteBuf,
    s: ByteBuf,
    t: ByteBuf,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.p.zeroize();
        self.q.zeroize();
    }
}

impl<L: Level> AuxInfo<L> {
    /// Joins a finished run's numbers; `peers` in ascending order.
    pub(crate) fn assemble(
        own: &OwnNumbers,
        index: u16,
        peers: impl Iterator<Item = (Integer, Integer, Integer)>,
        transcript_digest: [u8; 32],
    ) -> Result<Self, MpcError> {
        let mut parties: Vec<PartyAux> = peers.map(|(modulus, s, t)| party_aux(modulus, s, t)).collect();
        let numbers = own.numbers();
        let own_aux = party_aux(numbers.modulus.clone(), numbers.s.clone(), numbers.t.clone());
        parties.insert(usize::from(index).min(parties.len()), own_aux);
        let (p, q) = (Secret(own.primes.p().clone()), Secret(own.primes.q().clone()));
        let info = Self { p, q, parties, index, transcript_digest, level: PhantomData };
        info.check().map_err(MpcError::invalid)?;
        Ok(info)
    }

    /// This party's position in the committee.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The committee's size.
    pub fn n(&self) -> u16 {
        u16::try_from(self.parties.len()).unwrap_or(u16::MAX)
    }

    /// SHA-256 over all that was broadcast in the run. Equal at all parties that hold the same auxiliary info; it is
    /// what their last confirmations sign.
    pub fn transcript_digest(&self) -> [u8; 32] {
        self.transcript_digest
    }

    /// All parties' public numbers, in the committee's order.
    pub fn parties(&self) -> impl ExactSizeIterator<Item = PartyNumbers<'_>> {
        self.parties.iter().map(PartyNumbers::from)
    }

    /// A copy in the form that the signing protocol takes, with its shortcuts for who knows the primes.
    pub(crate) fn validated(&self) -> Result<ValidAuxInfo<L>, MpcError> {
        let mut dirty = DirtyAuxInfo {
            p: self.p.0.clone(),
            q: self.q.0.clone(),
            parties: self.parties.clone(),
            security_level: PhantomData,
        };
        dirty.precompute_crt(self.index).map_err(|why| MpcError::corrupt(OBJECT, why.to_string()))?;
        dirty.validate().map_err(|why| MpcError::corrupt(OBJECT, why.into_error().to_string()))
    }

    /// The stored form. It must be sealed before it rests.
    ///
    /// # Errors
    /// [`MpcError::Internal`], which valid auxiliary info never gives.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, MpcError> {
        let field = |value: &Integer| ByteBuf::from(encode_natural(value));
        Stored {
            v: VERSION,
            index: self.index,
            p: field(&self.p.0),
            q: field(&self.q.0),
            parties: self
                .parties()
                .map(|party| StoredParty { modulus: field(party.modulus), s: field(party.s), t: field(party.t) })
                .collect(),
            transcript: ByteArray::new(self.transcript_digest),
        }
        .encode()
    }

    /// Reads [`Self::to_bytes`] and checks all numbers again.
    ///
    /// # Errors
    /// [`MpcError::Corrupt`] tells what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MpcError> {
        let corrupt = |why: String| MpcError::corrupt(OBJECT, why);
        let stored: Stored = ciborium::de::from_reader_with_recursion_limit(bytes, MAX_DEPTH)
            .map_err(|_| corrupt("it is not the CBOR of such an object".into()))?;
        if stored.v != VERSION {
            return Err(corrupt(format!("its version {} is not known", stored.v)));
        }
        if stored.encode()?.as_slice() != bytes {
            return Err(corrupt("it is not canonically encoded".into()));
        }
        let field = |bytes: &ByteBuf, bits: u32| natural(bytes, bits).map_err(|why| corrupt(why.to_string()));
        let parties = stored
            .parties
            .iter()
            .map(|party| {
                let number = |bytes: &ByteBuf| field(bytes, L::MODULUS_BITS);
                Ok(party_aux(number(&party.modulus)?, number(&party.s)?, number(&party.t)?))
            })
            .collect::<Result<Vec<_>, MpcError>>()?;
        let info = Self {
            p: Secret(field(&stored.p, L::PRIME_BITS)?),
            q: Secret(field(&stored.q, L::PRIME_BITS)?),
            parties,
            index: stored.index,
            transcript_digest: stored.transcript.into_array(),
            level: PhantomData,
        };
        info.check().map_err(corrupt)?;
        Ok(info)
    }

    /// All that can be checked of a whole object: each party's numbers, and that the primes are this party's.
    fn check(&self) -> Result<(), String> {
        if self.parties.len() < 2 || u16::try_from(self.parties.len()).is_err() {
            return Err(format!("it has {} parties", self.parties.len()));
        }
        check_parties::<L>(self.parties()).map_err(|fault| fault.to_string())?;
        let blum = |prime: &Integer| prime.significant_bits() == L::PRIME_BITS && prime.mod_u(4) == 3;
        let product = Secret(Integer::from(&self.p.0 * &self.q.0));
        match self.parties.get(usize::from(self.index)) {
            Some(own) if own.N == product.0 && blum(&self.p.0) && blum(&self.q.0) => Ok(()),
            Some(_) => Err("its primes are not the factors of this party's modulus".into()),
            None => Err(format!("it has no party {}", self.index)),
        }
    }
}

impl Stored {
    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, MpcError> {
        let numbers = self.p.len() * 2 + self.parties.iter().map(|party| party.modulus.len() * 3 + 64).sum::<usize>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(numbers + 256));
        ciborium::into_writer(self, &mut *bytes).map_err(|_| MpcError::Internal { step: "encoding auxiliary info" })?;
        Ok(bytes)
    }
}

fn party_aux(modulus: Integer, s: Integer, t: Integer) -> PartyAux {
    PartyAux { N: modulus, s, t, multiexp: None, crt: None }
}

impl<L: Level> fmt::Debug for AuxInfo<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuxInfo")
            .field("index", &self.index)
            .field("n", &self.parties.len())
            .field("primes", &"redacted")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::fixtures::own;
    use super::*;
    use crate::levels::ReducedLevel;

    type Info = AuxInfo<ReducedLevel>;

    fn info() -> Info {
        let peers = [1, 2].map(|peer| {
            let peer = own(peer);
            (peer.crt.modulus().clone(), peer.s.clone(), peer.t.clone())
        });
        Info::assemble(&own(0), 0, peers.into_iter(), [7; 32]).unwrap()
    }

    /// The stored form after `change`.
    fn stored(change: impl FnOnce(&mut Stored)) -> Vec<u8> {
        let mut stored: Stored = ciborium::from_reader(info().to_bytes().unwrap().as_slice()).unwrap();
        change(&mut stored);
        stored.encode().unwrap().to_vec()
    }

    fn refused(because: &str, change: impl FnOnce(&mut Stored)) {
        let error = Info::from_bytes(&stored(change)).unwrap_err().to_string();
        assert!(error.contains(because), "{error:?} does not say {because:?}");
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let info = info();
        let loaded = Info::from_bytes(&info.to_bytes().unwrap()).unwrap();
        assert_eq!((loaded.index(), loaded.n(), loaded.transcript_digest()), (0, 3, [7; 32]));
        assert_eq!(loaded.to_bytes().unwrap(), info.to_bytes().unwrap());
        assert!(loaded.validated().is_ok());
    }

    #[test]
    fn stored_numbers_are_checked_again() {
        refused("version", |info| info.v = 2);
        refused("no party 3", |info| info.index = 3);
        refused("not the factors", |info| info.index = 1);
        refused("1 parties", |info| info.parties.truncate(1));
        refused("share a factor", |info| {
            let [own, _, other] = &mut info.parties[..] else { return };
            (other.modulus, other.s, other.t) = (own.modulus.clone(), own.s.clone(), own.t.clone());
        });
        refused("s equals t", |info| {
            let s = info.parties[1].s.clone();
            info.parties[1].t = s;
        });
        refused("s or t is", |info| info.parties[2].s = ByteBuf::from([1]));
        refused("even", |info| *info.parties[1].modulus.last_mut().unwrap() ^= 1);
        refused("not the factors", |info| *info.q.last_mut().unwrap() ^= 4);
        refused("not the factors", |info| info.p = ByteBuf::from([1]));
        refused("longer than 384 bits", |info| info.p.push(1));
        refused("canonically", |info| info.parties[0].t = ByteBuf::from([0, 9]));
        refused("longer than 768 bits", |info| info.parties[1].modulus = ByteBuf::from(vec![255; 1 << 16]));
    }

    #[test]
    fn cut_extended_and_foreign_bytes_are_refused() {
        let bytes = info().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(Info::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(Info::from_bytes(&[&bytes[..], &[0]].concat()).is_err(), "a byte more");
        assert!(AuxInfo::<SecurityLevel128>::from_bytes(&bytes).is_err(), "numbers of another level");
    }
}
