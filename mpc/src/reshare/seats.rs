//! Who deals, who receives, who leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use cggmp21::generic_ec::SecretScalar;

use super::old_key::OldKey;
use super::polynomial::lagrange_at_zero;
use crate::aux::hashing::LabelledHash;
use crate::ecdsa::{Curve, KeyShare};
use crate::error::{ExecutionId, MpcError};
use crate::levels::{Level, SecurityLevel128};

/// An old party that deals its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dealer {
    /// Its position in the session.
    pub position: u16,
    /// The index of its old share.
    pub old_index: u16,
}

/// What a party brings to a redistribution.
///
/// The session's parties are the new committee at positions `0..new_n` (a party's position is its new share's index), then
/// the dealers that leave.
pub struct ReshareParams<L: Level = SecurityLevel128> {
    /// The run's execution id, never used before.
    pub execution_id: ExecutionId,
    /// This party's position in the session.
    pub position: u16,
    /// Exactly `t` old parties, by strictly ascending old index.
    pub dealers: Vec<Dealer>,
    /// The key's public facts, authenticated.
    pub old: OldKey,
    /// How many of the new shares will sign together: `2 ≤ new_t ≤ new_n`.
    pub new_t: u16,
    /// How many new shares there will be.
    pub new_n: u16,
    /// A dealer's old share; `None` at everybody else.
    pub share: Option<Arc<KeyShare<L>>>,
}

/// Checked public inputs of a run, as one party sees them.
pub(super) struct Seats {
    pub(super) execution_id: ExecutionId,
    pub(super) me: u16,
    pub(super) dealers: Vec<Dealer>,
    pub(super) old: OldKey,
    pub(super) new_t: u16,
    pub(super) new_n: u16,
    parties: u16,
    /// SHA-256 over all that the parties must agree on before they begin, the execution id included.
    pub(super) inputs: [u8; 32],
}

impl Seats {
    /// Checks what a party brings; gives the seats and, at a dealer, the secret that it deals: λᵢ·xᵢ.
    ///
    /// # Errors
    /// [`MpcError::Invalid`] with what does not fit together.
    pub(super) fn take<L: Level>(params: ReshareParams<L>) -> Result<(Self, Option<SecretScalar<Curve>>), MpcError> {
        let ReshareParams { execution_id, position, dealers, old, new_t, new_n, share } = params;
        let seats = Self::new(execution_id, position, dealers, old, new_t, new_n)?;
        let secret = match (seats.dealer(position), share) {
            (None, None) => None,
            (None, Some(_)) => return Err(MpcError::invalid("a share at a party that does not deal")),
            (Some(_), None) => return Err(MpcError::invalid("a dealer without its share")),
            (Some(dealer), Some(share)) => {
                if share.index() != dealer.old_index || !seats.old.is_of(&share) {
                    let what = format!("this party's share is not share {} of the key to be dealt", dealer.old_index);
                    return Err(MpcError::invalid(what));
                }
                let x: &SecretScalar<Curve> = share.secret().as_ref();
                Some(seats.dealt_secret(dealer, x)?)
            }
        };
        Ok((seats, secret))
    }

    /// Checks the public inputs.
    pub(super) fn new(
        execution_id: ExecutionId,
        me: u16,
        dealers: Vec<Dealer>,
        old: OldKey,
        new_t: u16,
        new_n: u16,
    ) -> Result<Self, MpcError> {
        if new_t < 2 || new_t > new_n {
            return Err(MpcError::invalid(format!("new shares {new_t}-of-{new_n}")));
        }
        if dealers.len() != usize::from(old.t()) {
            return Err(MpcError::invalid(format!("{} dealers for a key that takes {}", dealers.len(), old.t())));
        }
        if !dealers.is_sorted_by(|a, b| a.old_index < b.old_index)
            || dealers.iter().any(|dealer| dealer.old_index >= old.n())
        {
            let what = format!("dealers' old indices must be different, ascending and below {}", old.n());
            return Err(MpcError::invalid(what));
        }
        let leaving = dealers.iter().filter(|dealer| dealer.position >= new_n).count();
        let parties = u16::try_from(usize::from(new_n).saturating_add(leaving))
            .map_err(|_| MpcError::invalid("too many parties"))?;
        let positions: BTreeSet<u16> = dealers.iter().map(|dealer| dealer.position).collect();
        if positions.len() != dealers.len() || positions.iter().any(|position| *position >= parties) {
            return Err(MpcError::invalid(format!(
                "dealers must have positions of their own; those that leave follow the new committee of {new_n}"
            )));
        }
        if me >= parties {
            return Err(MpcError::invalid(format!("position {me} in a redistribution among {parties} parties")));
        }
        let mut hash = LabelledHash::new("casemate/reshare/inputs/v1")
            .bytes(execution_id.as_bytes())
            .bytes(&old.to_bytes()?)
            .party(new_t)
            .party(new_n);
        for dealer in &dealers {
            hash = hash.party(dealer.position).party(dealer.old_index);
        }
        Ok(Self { execution_id, me, dealers, old, new_t, new_n, parties, inputs: hash.finish() })
    }

    /// How many parties the session has.
    pub(super) fn parties(&self) -> u16 {
        self.parties
    }

    /// The dealer at `position`, if one sits there.
    pub(super) fn dealer(&self, position: u16) -> Option<Dealer> {
        self.dealers.iter().find(|dealer| dealer.position == position).copied()
    }

    /// Whether the party at `position` gets a new share.
    pub(super) fn receives(&self, position: u16) -> bool {
        position < self.new_n
    }

    /// What a dealer deals of its old share `x`: λᵢ·x.
    pub(super) fn dealt_secret(
        &self,
        dealer: Dealer,
        x: &SecretScalar<Curve>,
    ) -> Result<SecretScalar<Curve>, MpcError> {
        let lambda = self.lambda(dealer)?;
        Ok(SecretScalar::new(&mut (lambda * x)))
    }

    /// A dealer's Lagrange coefficient at zero among all dealers.
    pub(super) fn lambda(&self, dealer: Dealer) -> Result<cggmp21::generic_ec::Scalar<Curve>, MpcError> {
        lagrange_at_zero(dealer.old_index, self.dealers.iter().map(|dealer| dealer.old_index))
            .ok_or(MpcError::Internal { step: "interpolating between the dealers" })
    }
}
