//! A peer's token against what the configuration pins of that peer.

use casemate_attest::attestation::{
    Appraisal, AttestKey, Claims, Expected, Finding, InvalidNonce, Nonce, TokenError, Verified,
};
use casemate_wire::PartyId;
use jiff::Timestamp;

use crate::config::Config;

/// What this appliance thinks of a peer's token.
#[must_use = "a token that was appraised and not acted on is as good as none"]
#[derive(Debug)]
pub enum PeerAppraisal {
    /// Neither attest key nor reference file of this peer is configured: nothing can be said.
    Unknown,
    /// The token is the peer's own and fresh; without a reference file, nothing says what it should hold.
    Genuine(Box<Claims>),
    /// The token is the peer's own and fresh, and all that the reference file names is as it should be.
    Affirming(Box<Claims>),
    /// The token is no answer of this peer to this nonce.
    Refused(TokenError),
    /// The token is the peer's own and fresh, and these claims are not as they should be.
    Contraindicated(Vec<Finding>),
}

impl std::fmt::Display for PeerAppraisal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no attest key and no reference file of it is configured ([[peer]])"),
            Self::Genuine(_) => f.write_str("genuine and fresh; no reference file is configured to compare it with"),
            Self::Affirming(_) => f.write_str("as the reference file says"),
            Self::Refused(error) => error.fmt(f),
            Self::Contraindicated(findings) => {
                let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
        }
    }
}

/// Appraises the token that a peer gave for `nonce`, which this appliance drew, at the time `now`.
///
/// # Errors
/// The nonce itself is none.
///
/// # Security
/// The nonce must be unpredictable and used once, or the token may be an old one.
pub fn appraise(
    config: &Config,
    peer: &PartyId,
    token: &[u8],
    nonce: &[u8],
    now: Timestamp,
) -> Result<PeerAppraisal, InvalidNonce> {
    let nonce = Nonce::new(nonce)?;
    let reference = config.attestation.references.get(peer);
    let pinned = config.peers.iter().find(|known| known.party_id == *peer).and_then(|known| known.attest.as_ref());
    let Some(key): Option<&AttestKey> = reference.map(|reference| &reference.attest_key).or(pinned) else {
        return Ok(PeerAppraisal::Unknown);
    };
    let expected = Expected { party: peer, key, nonce: &nonce, now, skew: config.limits.clock_skew() };
    let verified = match Verified::check(token, &expected) {
        Ok(verified) => verified,
        Err(error) => return Ok(PeerAppraisal::Refused(error)),
    };
    let claims = Box::new(verified.claims().clone());
    Ok(match reference.map(|reference| reference.appraise(&verified)) {
        None => PeerAppraisal::Genuine(claims),
        Some(Appraisal::Affirming) => PeerAppraisal::Affirming(claims),
        Some(Appraisal::Contraindicated(findings)) => PeerAppraisal::Contraindicated(findings),
    })
}
