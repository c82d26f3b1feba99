//! What the parties send each other, and how it is read: counts and the length of every integer are checked before a
//! number is made of any.

use rug::Integer;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::numbers::{BadInteger, PartyNumbers, encode_natural, encode_signed, natural, signed};
use super::{blum, factors, prm};
use crate::levels::Level;

/// Round 1, to all: a hash that fixes the sender's [`RevealMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitMessage {
    pub(crate) commitment: ByteArray<32>,
}

/// Round 3, to all: the sender's public numbers, the proof that s is a power of t, and its randomness.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevealMessage {
    modulus: ByteBuf,
    s: ByteBuf,
    t: ByteBuf,
    commitments: Vec<ByteBuf>,
    responses: Vec<ByteBuf>,
    pub(crate) rho: ByteArray<32>,
    salt: ByteArray<32>,
}

/// Round 5, to all: the proof that the sender's modulus is well-formed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlumMessage {
    w: ByteBuf,
    points: Vec<PointMessage>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PointMessage {
    x: ByteBuf,
    a: bool,
    b: bool,
    z: ByteBuf,
}

/// Round 5, to one: the proof to this party that the sender's modulus has no small factor.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FactorsMessage {
    p: ByteBuf,
    q: ByteBuf,
    a: ByteBuf,
    b: ByteBuf,
    t: ByteBuf,
    sigma: ByteBuf,
    z1: ByteBuf,
    z2: ByteBuf,
    w1: ByteBuf,
    w2: ByteBuf,
    v: ByteBuf,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Integer(#[from] BadInteger),
    #[error("a proof has {found} elements where {required} are required")]
    Count { found: usize, required: usize },
}

/// A read [`RevealMessage`]; its numbers are not checked yet.
pub(crate) struct Reveal {
    pub(crate) modulus: Integer,
    pub(crate) s: Integer,
    pub(crate) t: Integer,
    pub(crate) proof: prm::Proof,
}

impl Reveal {
    pub(crate) fn numbers(&self) -> PartyNumbers<'_> {
        PartyNumbers { modulus: &self.modulus, s: &self.s, t: &self.t }
    }
}

impl RevealMessage {
    pub(crate) fn new(numbers: PartyNumbers<'_>, proof: &prm::Proof, rho: [u8; 32], salt: [u8; 32]) -> Self {
        Self {
            modulus: unsigned_field(numbers.modulus),
            s: unsigned_field(numbers.s),
            t: unsigned_field(numbers.t),
            commitments: proof.commitments.iter().map(unsigned_field).collect(),
            responses: proof.responses.iter().map(unsigned_field).collect(),
            rho: ByteArray::new(rho),
            salt: ByteArray::new(salt),
        }
    }

    pub(crate) fn read<L: Level>(&self) -> Result<Reveal, Unreadable> {
        let field = |bytes: &ByteBuf| natural(bytes, L::MODULUS_BITS);
        let list = |items: &[ByteBuf]| {
            counted(items.len(), prm::REPETITIONS)?;
            items.iter().map(|item| Ok(field(item)?)).collect::<Result<Vec<_>, Unreadable>>()
        };
        Ok(Reveal {
            modulus: field(&self.modulus)?,
            s: field(&self.s)?,
            t: field(&self.t)?,
            proof: prm::Proof { commitments: list(&self.commitments)?, responses: list(&self.responses)? },
        })
    }
}

impl BlumMessage {
    pub(crate) fn new(proof: &blum::Proof) -> Self {
        let point = |point: &blum::ProofPoint| PointMessage {
            x: unsigned_field(&point.x),
            a: point.a,
            b: point.b,
            z: unsigned_field(&point.z),
        };
        Self { w: unsigned_field(&proof.w), points: proof.points.iter().map(point).collect() }
    }

    pub(crate) fn read<L: Level>(&self) -> Result<blum::Proof, Unreadable> {
        let field = |bytes: &ByteBuf| natural(bytes, L::MODULUS_BITS);
        counted(self.points.len(), blum::REPETITIONS)?;
        let point = |point: &PointMessage| {
            Ok(blum::ProofPoint { x: field(&point.x)?, a: point.a, b: point.b, z: field(&point.z)? })
        };
        Ok(blum::Proof {
            w: field(&self.w)?,
            points: self.points.iter().map(point).collect::<Result<_, Unreadable>>()?,
        })
    }
}

impl FactorsMessage {
    pub(crate) fn new(proof: &factors::Proof) -> Self {
        let (first, response) = (&proof.commitment, &proof.response);
        Self {
            p: unsigned_field(&first.p),
            q: unsigned_field(&first.q),
            a: unsigned_field(&first.a),
            b: unsigned_field(&first.b),
            t: unsigned_field(&first.t),
            sigma: signed_field(&first.sigma),
            z1: signed_field(&response.z1),
            z2: signed_field(&response.z2),
            w1: signed_field(&response.w1),
            w2: signed_field(&response.w2),
            v: signed_field(&response.v),
        }
    }

    pub(crate) fn read<L: Level>(&self) -> Result<factors::Proof, Unreadable> {
        let bits = FactorsBits::of::<L>();
        let element = |bytes: &ByteBuf| natural(bytes, L::MODULUS_BITS);
        Ok(factors::Proof {
            commitment: factors::Commitment {
                p: element(&self.p)?,
                q: element(&self.q)?,
                a: element(&self.a)?,
                b: element(&self.b)?,
                t: element(&self.t)?,
                sigma: signed(&self.sigma, bits.sigma)?,
            },
            response: factors::Response {
                z1: signed(&self.z1, bits.z)?,
                z2: signed(&self.z2, bits.z)?,
                w1: signed(&self.w1, bits.w)?,
                w2: signed(&self.w2, bits.w)?,
                v: signed(&self.v, bits.v)?,
            },
        })
    }
}

/// The longest that an honest prover's signed integers in Π_fac get, from the ranges in figure 28.
struct FactorsBits {
    sigma: u32,
    z: u32,
    w: u32,
    v: u32,
}

impl FactorsBits {
    fn of<L: Level>() -> Self {
        let parameter = |bits: usize| u32::try_from(bits).unwrap_or(u32::MAX / 4);
        let (ell, epsilon) = (parameter(L::ELL), parameter(L::EPSILON));
        let masked = ell + epsilon.max(L::q().significant_bits());
        Self {
            sigma: ell + 2 * L::MODULUS_BITS + 1,
            z: ell + epsilon + L::MODULUS_BITS / 2 + 1,
            w: masked + L::MODULUS_BITS + 2,
            v: masked + 2 * L::MODULUS_BITS + 2,
        }
    }
}

fn counted(found: usize, required: usize) -> Result<(), Unreadable> {
    if found == required { Ok(()) } else { Err(Unreadable::Count { found, required }) }
}

fn unsigned_field(value: &Integer) -> ByteBuf {
    ByteBuf::from(encode_natural(value))
}

fn signed_field(value: &Integer) -> ByteBuf {
    ByteBuf::from(encode_signed(value))
}
