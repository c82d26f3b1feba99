//! The public side of a threshold key: the checks on it that the crate's own validation leaves open, and points in bytes.

use cggmp21::generic_ec::serde::CurveName;
use cggmp21::generic_ec::{NonZero, Point, Scalar};
use cggmp21::key_share::{DirtyKeyInfo, Validate, VssSetup};

use super::Curve;

/// A point that is not the identity.
pub(crate) type PublicPoint = NonZero<Point<Curve>>;

/// Joins the public side of a key whose shares lie at the evaluation points `1..=n`.
///
/// # Errors
/// What does not hold: `2 ≤ t ≤ n`, and the public shares interpolate to the public key at threshold `t` and not below.
pub(crate) fn key_info(
    public_key: PublicPoint,
    chain_code: [u8; 32],
    t: u16,
    public_shares: Vec<PublicPoint>,
) -> Result<DirtyKeyInfo<Curve>, String> {
    let n = u16::try_from(public_shares.len()).map_err(|_| "it has too many shares".to_owned())?;
    let points = (1..=n).filter_map(|point| NonZero::from_scalar(Scalar::from(point))).collect();
    let info = DirtyKeyInfo {
        curve: CurveName::new(),
        shared_public_key: public_key,
        public_shares,
        vss_setup: Some(VssSetup { min_signers: t, I: points }),
        chain_code: Some(chain_code),
    };
    info.is_valid().map_err(|error| error.to_string())?;
    check(&info)?;
    Ok(info)
}

/// What the crate's own validation leaves open: evaluation points `1..=n`, a chain code, and a threshold that is not
/// larger than the key's.
pub(super) fn check(info: &DirtyKeyInfo<Curve>) -> Result<(), &'static str> {
    let setup = info.vss_setup.as_ref().ok_or("it is not a threshold share")?;
    let n = u16::try_from(info.public_shares.len()).map_err(|_| "it has too many shares")?;
    let points = (1..=n).map(|point| NonZero::from_scalar(Scalar::<Curve>::from(point)));
    if !setup.I.iter().map(|point| Some(*point)).eq(points) {
        return Err("the shares' evaluation points are not 1..=n");
    }
    if info.chain_code.is_none() {
        return Err("it has no chain code");
    }
    // The public shares fit every threshold from the true one on, so they must not fit the next smaller one. Below two,
    // which the crate does not judge, that is where every share is the key itself.
    let mut smaller = info.clone();
    if let Some(setup) = &mut smaller.vss_setup {
        setup.min_signers = setup.min_signers.saturating_sub(1);
    }
    let constant = info.public_shares.iter().all(|share| *share == info.shared_public_key);
    if constant || smaller.is_valid().is_ok() {
        return Err("its threshold is larger than the key's");
    }
    Ok(())
}

/// The one encoding of a point: compressed, SEC 1.
pub(crate) fn compressed(point: &Point<Curve>) -> [u8; 33] {
    let mut bytes = [0; 33];
    let encoded = point.to_bytes(true);
    // The identity alone is shorter; it stays all zeros, which is no point's encoding.
    if encoded.len() == bytes.len() {
        bytes.copy_from_slice(encoded.as_bytes());
    }
    bytes
}

/// Reads what [`compressed`] writes. `None` for the identity, and for every other encoding: SEC 1 has a "compact" one of
/// the same length.
pub(crate) fn read_point(bytes: &[u8; 33]) -> Option<PublicPoint> {
    let point = NonZero::from_point(Point::from_bytes(bytes).ok()?)?;
    (compressed(&point) == *bytes).then_some(point)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_point_has_one_encoding_only() {
        let point = Point::<Curve>::generator() * Scalar::from(7u16);
        let bytes = compressed(&point);
        assert_eq!(read_point(&bytes).unwrap(), point);
        for tag in (0..=u8::MAX).filter(|tag| *tag != 2 && *tag != 3) {
            let mut other = bytes;
            *other.first_mut().unwrap() = tag;
            assert!(read_point(&other).is_none(), "tag {tag}");
        }
        assert!(read_point(&compressed(&Point::zero())).is_none());
        let mut beyond_the_field = [0xFF; 33];
        *beyond_the_field.first_mut().unwrap() = 2;
        assert!(read_point(&beyond_the_field).is_none());
    }

    #[test]
    fn shares_that_are_all_the_key_itself_are_no_threshold_key() {
        let key = NonZero::from_point(Point::<Curve>::generator() * Scalar::from(7u16)).unwrap();
        assert!(key_info(key, [1; 32], 2, vec![key; 3]).unwrap_err().contains("larger than the key's"));
    }
}
