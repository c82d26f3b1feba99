//! What a peer's signing message must keep before it is computed with.
//!
//! Every integer has a place to lie in: an element of a group lies in `1 .. modulus`, and only the responses of the range
//! proofs (`z1`, `z2`, `z3`, `z4` of the paper's Figures 14, 15 and 25) may be negative, within the length that an honest
//! prover can reach. This bounds every exponent and refuses other representatives of the same residue.

use std::borrow::Cow;

use cggmp21::generic_ec::Point;
use cggmp21::key_share::PartyAux;
use cggmp21::paillier_zk::{
    group_element_vs_paillier_encryption_in_range as pi_log, paillier_affine_operation_in_range as pi_aff,
    paillier_encryption_in_range as pi_enc,
};
use cggmp21::signing::msg::{Msg, MsgRound2};
use rug::Integer;
use sha2::Sha256;

use super::Curve;
use crate::levels::Level;

type Verdict = Result<(), Cow<'static, str>>;

/// The rules of one signing session.
pub(super) struct SignRules {
    own: Modulus,
    /// By position in the session, this party's own included.
    parties: Vec<Modulus>,
    lengths: Lengths,
}

/// A Paillier modulus and its square.
#[derive(Clone)]
struct Modulus {
    n: Integer,
    nn: Integer,
}

/// Longest responses of honest provers, in bits without sign.
struct Lengths {
    /// Masks a 256-bit scalar: `2^(ℓ+ε)`.
    scalar: u32,
    /// Masks the additive term of a multiplication: `2^(ℓ'+ε)`.
    addend: u32,
    /// Exponent of the ring-Pedersen `t`: `N̂ · (2^(ℓ+ε) + q · 2^ℓ)`.
    pedersen: u32,
}

impl SignRules {
    /// The rules for the party at `position`, with the auxiliary info of all signers in the session's order.
    pub(super) fn new<L: Level>(position: u16, signers: &[&PartyAux]) -> Option<Self> {
        let parties: Vec<Modulus> =
            signers.iter().map(|aux| Modulus { n: aux.N.clone(), nn: Integer::from(aux.N.square_ref()) }).collect();
        let own = parties.get(usize::from(position))?.clone();
        let bits = |length: usize| u32::try_from(length).ok();
        let scalar = bits(L::ELL + L::EPSILON)? + 1;
        let addend = bits(L::ELL_PRIME + L::EPSILON)? + 1;
        let pedersen = own.n.significant_bits() + scalar + 1;
        Some(Self { own, parties, lengths: Lengths { scalar, addend, pedersen } })
    }

    /// Longest string that a message of this level can hold: an integer modulo N² in hexadecimal.
    pub(super) fn string_cap<L: Level>() -> usize {
        usize::try_from(L::MODULUS_BITS / 2).unwrap_or(usize::MAX).saturating_add(16)
    }

    /// Checks a decoded message from the party at position `from`.
    pub(super) fn check(&self, from: u16, message: &Msg<Curve, Sha256>) -> Verdict {
        let sender = self.parties.get(usize::from(from)).ok_or("the sender is not a signer")?;
        match message {
            Msg::Round1a(message) => {
                group("K", &message.K, &sender.nn)?;
                group("G", &message.G, &sender.nn)
            }
            Msg::Round1b(message) => {
                let (commitment, proof) = &message.psi0;
                self.enc_proof(sender, commitment, proof)
            }
            Msg::Round2(message) => self.multiplication(sender, message),
            Msg::Round3(message) => {
                point("Delta", &message.Delta)?;
                let (commitment, proof) = &message.psi_prime_prime;
                self.log_proof(sender, commitment, proof)
            }
            Msg::Round4(_) | Msg::ReliabilityCheck(_) => Ok(()),
        }
    }

    fn multiplication(&self, sender: &Modulus, message: &MsgRound2<Curve>) -> Verdict {
        point("Gamma", &message.Gamma)?;
        group("D", &message.D, &self.own.nn)?;
        group("F", &message.F, &sender.nn)?;
        group("D^", &message.hat_D, &self.own.nn)?;
        group("F^", &message.hat_F, &sender.nn)?;
        self.aff_proof(sender, &message.psi.0, &message.psi.1)?;
        self.aff_proof(sender, &message.hat_psi.0, &message.hat_psi.1)?;
        self.log_proof(sender, &message.psi_prime.0, &message.psi_prime.1)
    }

    fn enc_proof(&self, sender: &Modulus, commitment: &pi_enc::Commitment, proof: &pi_enc::Proof) -> Verdict {
        group("S", &commitment.s, &self.own.n)?;
        group("A", &commitment.a, &sender.nn)?;
        group("C", &commitment.c, &self.own.n)?;
        signed("z1", &proof.z1, self.lengths.scalar)?;
        group("z2", &proof.z2, &sender.n)?;
        signed("z3", &proof.z3, self.lengths.pedersen)
    }

    fn log_proof(&self, sender: &Modulus, commitment: &pi_log::Commitment<Curve>, proof: &pi_log::Proof) -> Verdict {
        group("S", &commitment.s, &self.own.n)?;
        group("A", &commitment.a, &sender.nn)?;
        point("Y", &commitment.y)?;
        group("D", &commitment.d, &self.own.n)?;
        signed("z1", &proof.z1, self.lengths.scalar)?;
        group("z2", &proof.z2, &sender.n)?;
        signed("z3", &proof.z3, self.lengths.pedersen)
    }

    fn aff_proof(&self, sender: &Modulus, commitment: &pi_aff::Commitment<Curve>, proof: &pi_aff::Proof) -> Verdict {
        group("A", &commitment.a, &self.own.nn)?;
        point("Bx", &commitment.b_x)?;
        group("By", &commitment.b_y, &sender.nn)?;
        group("E", &commitment.e, &self.own.n)?;
        group("S", &commitment.s, &self.own.n)?;
        group("F", &commitment.f, &self.own.n)?;
        group("T", &commitment.t, &self.own.n)?;
        signed("z1", &proof.z1, self.lengths.scalar)?;
        signed("z2", &proof.z2, self.lengths.addend)?;
        signed("z3", &proof.z3, self.lengths.pedersen)?;
        signed("z4", &proof.z4, self.lengths.pedersen)?;
        group("w", &proof.w, &self.own.n)?;
        group("wy", &proof.w_y, &sender.n)
    }
}

fn group(name: &str, value: &Integer, modulus: &Integer) -> Verdict {
    if value.is_positive() && value < modulus {
        return Ok(());
    }
    Err(Cow::from(format!("{name} does not lie in its group")))
}

fn signed(name: &str, value: &Integer, bits: u32) -> Verdict {
    if value.significant_bits() <= bits {
        return Ok(());
    }
    Err(Cow::from(format!("{name} is longer than an honest prover can make it")))
}

fn point(name: &str, value: &Point<Curve>) -> Verdict {
    if value.is_zero() {
        return Err(Cow::from(format!("{name} is the point at infinity")));
    }
    Ok(())
}
