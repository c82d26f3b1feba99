//! Signing.

use cggmp21::generic_ec::Scalar;
use cggmp21::key_share::PartyAux;
use cggmp21::signing::msg::Msg;
use cggmp21::{DataToSign, SigningError};
use rand::rngs::OsRng;
use sha2::Sha256;

use super::bridge::Seat;
use super::share::{KeyShare, child_path};
use super::sign_rules::SignRules;
use super::signature::Signature;
use super::{Curve, blame, bridge};
use crate::error::MpcError;
use crate::io::{Kind, Limits, Wiring};
use crate::levels::Level;
use crate::roll_call::Slot;
use crate::scheme::SignParams;

impl bridge::Message for Msg<Curve, Sha256> {
    const PLAN: &'static [Slot] = &[
        (1, Kind::Broadcast),
        (1, Kind::Direct),
        (2, Kind::Broadcast),
        (3, Kind::Direct),
        (4, Kind::Direct),
        (5, Kind::Broadcast),
    ];

    fn slot(&self) -> Slot {
        match self {
            Self::Round1a(_) => (1, Kind::Broadcast),
            Self::Round1b(_) => (1, Kind::Direct),
            Self::ReliabilityCheck(_) => (2, Kind::Broadcast),
            Self::Round2(_) => (3, Kind::Direct),
            Self::Round3(_) => (4, Kind::Direct),
            Self::Round4(_) => (5, Kind::Broadcast),
        }
    }
}

/// Runs signing for one party.
pub(super) async fn run<L: Level>(
    params: SignParams<KeyShare<L>>,
    limits: Limits,
    wiring: Wiring,
) -> Result<Signature, MpcError> {
    check_signers(&params)?;
    let SignParams { execution_id, position, parties_at_keygen, share, digest, derivation_path } = params;
    let public_key = match &derivation_path {
        Some(path) => share.child_public_key(path)?,
        None => share.public_key(),
    };
    let path = derivation_path.as_deref().map(child_path).transpose()?;

    let signers: Vec<&PartyAux> =
        parties_at_keygen.iter().filter_map(|index| share.inner().aux.parties.get(usize::from(*index))).collect();
    let rules = SignRules::new::<L>(position, &signers).ok_or(MpcError::Internal { step: "the signing rules" })?;
    let rule = Box::new(move |from, message: &Msg<Curve, Sha256>| rules.check(from, message));

    let parties = u16::try_from(parties_at_keygen.len()).map_err(|_| MpcError::invalid("too many signers"))?;
    let message = DataToSign::from_scalar(Scalar::from_be_bytes_mod_order(digest));
    let protocol = |party: bridge::Party<Msg<Curve, Sha256>>| async {
        let id = cggmp21::ExecutionId::new(execution_id.as_bytes());
        let mut signing = cggmp21::signing(id, position, &parties_at_keygen, share.inner());
        if let Some(path) = path {
            signing = signing.set_derivation_path(path).map_err(|_| Failure::Path)?;
        }
        signing.enforce_reliable_broadcast(true).sign(&mut OsRng, party, message).await.map_err(Failure::Protocol)
    };
    let blame = |failure: &Failure| match failure {
        Failure::Path => MpcError::invalid("the derivation path cannot be used with this key"),
        Failure::Protocol(error) => blame::signing(error),
    };
    let seat = Seat { me: position, parties, limits, string_cap: SignRules::string_cap::<L>(), wiring };
    let signature = bridge::run(seat, rule, protocol, blame).await?;
    let mut r = [0; 32];
    let mut s = [0; 32];
    r.copy_from_slice(&signature.r.to_be_bytes());
    s.copy_from_slice(&signature.s.to_be_bytes());
    Signature::verified(r, s, &public_key, &digest)
}

enum Failure {
    Path,
    Protocol(SigningError),
}

/// Checks that exactly `t` different shares sign, in ascending order, and that this party's is where it says.
fn check_signers<L: Level>(params: &SignParams<KeyShare<L>>) -> Result<(), MpcError> {
    let SignParams { position, parties_at_keygen, share, .. } = params;
    let (t, n) = (share.t(), share.n());
    if parties_at_keygen.len() != usize::from(t) {
        return Err(MpcError::invalid(format!("{} signers for a key that takes {t}", parties_at_keygen.len())));
    }
    if !parties_at_keygen.is_sorted_by(|a, b| a < b) || parties_at_keygen.iter().any(|index| *index >= n) {
        return Err(MpcError::invalid(format!("signer indices must be different, ascending and below {n}")));
    }
    if parties_at_keygen.get(usize::from(*position)) != Some(&share.index()) {
        return Err(MpcError::invalid(format!("this party's share is not the one at position {position}")));
    }
    Ok(())
}
