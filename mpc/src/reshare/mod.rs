//! Redistribution: a key's shares are dealt anew, to the same committee (refresh) or to another one, with the same or
//! another threshold. The key, its chain code and so its whole HD tree stay the same.
//!
//! Verifiable redistribution after Desmedt and Jajodia ("Redistributing secret shares to new access structures", 1997)
//! with the checks of Wong, Wang and Wing ("Verifiable secret redistribution for archive systems", 2002): each of `t` old
//! parties deals λᵢ·xᵢ by a random polynomial, the constants are held against the old public shares, and the sum of what
//! a receiver gets is its new share. Around it stand hash commitments, proofs of knowledge and echoes, as in the other
//! protocols here.
//!
//! | module | what it knows |
//! |---|---|
//! | `old_key` | [`OldKey`]: the public facts of the key that all start from |
//! | `seats` | [`ReshareParams`], checked: who deals, who receives, who leaves |
//! | `protocol` | the rounds |
//! | `dealing` | what one dealer makes, and how a receiver judges it |
//! | `polynomial` | secret polynomials, Feldman commitments, Lagrange coefficients |
//! | `schnorr` | proofs of knowledge of a discrete logarithm |
//! | `messages` | what travels |

#[cfg(test)]
mod attacks;
mod dealing;
mod messages;
mod old_key;
mod polynomial;
mod protocol;
mod schnorr;
mod seats;

use std::fmt;

pub use self::old_key::OldKey;
pub use self::protocol::redistribute;
pub use self::seats::{Dealer, ReshareParams};
use crate::ecdsa::DkgShare;

/// What a redistribution leaves at one party.
///
/// # Security
/// Nothing of it may become active before all new parties have confirmed, by signatures, that they hold the same
/// `transcript_digest`: the last round's messages can be kept from one party while the others finish. Old shares are
/// destroyed only after that. Until fewer than `t` of them are left anywhere, `t` old shares still sign, those of parties
/// that left included.
pub struct Resharing {
    /// The new share, at a party of the new committee; its index is the party's position. `None` at a party that leaves.
    pub share: Option<DkgShare>,
    /// The public keys of all new shares by index, compressed.
    pub public_shares: Vec<[u8; 33]>,
    /// SHA-256 over all that was broadcast in the run. Equal at all parties that hold the same outcome.
    pub transcript_digest: [u8; 32],
}

impl fmt::Debug for Resharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resharing")
            .field("share", &self.share)
            .field("transcript_digest", &hex::encode(self.transcript_digest))
            .finish_non_exhaustive()
    }
}
