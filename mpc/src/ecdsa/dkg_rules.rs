//! What a peer's key generation message must keep before it is computed with.

use std::borrow::Cow;

use cggmp21::generic_ec::Point;
use cggmp21::keygen::ThresholdMsg;
use sha2::Sha256;

use super::Curve;
use crate::levels::Level;

/// Checks a decoded message in a key generation with threshold `t`. Its encoding is already known to be canonical.
pub(super) fn check<L: Level>(message: &ThresholdMsg<Curve, L, Sha256>, t: u16) -> Result<(), Cow<'static, str>> {
    let ThresholdMsg::Round2Broad(reveal) = message else {
        return Ok(());
    };
    let coefficients = reveal.F.coefs();
    if coefficients.len() != usize::from(t) {
        return Err(Cow::from("the commitment to its polynomial has the wrong degree"));
    }
    if coefficients.iter().any(Point::is_zero) || reveal.sch_commit.0.is_zero() {
        return Err(Cow::from("a commitment is the point at infinity"));
    }
    if reveal.chain_code.is_none() {
        return Err(Cow::from("the contribution to the chain code is missing"));
    }
    Ok(())
}
