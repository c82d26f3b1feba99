//! Amounts: exact u256 inside, Cedar's decimal (four places, i64) at the edge.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

/// Digits after the point in a Cedar decimal.
const PLACES: u8 = 4;
/// The most decimals an asset may have: 10^77 is the largest power of ten in a u256.
pub(crate) const MAX_DECIMALS: u8 = 77;

/// A Cedar decimal that is not negative: ten-thousandths of a whole unit. Its serialized form is its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Decimal(i64);

impl Decimal {
    /// The largest decimal: what an amount is taken for when it cannot be known or does not fit.
    pub(crate) const MAX: Self = Self(i64::MAX);
    /// Nothing.
    pub(crate) const ZERO: Self = Self(0);

    /// Whole units of an asset with `decimals` decimals: rounded up, and the maximum when it does not fit.
    ///
    /// Rounding up and saturating both err towards refusal, since limits are upper bounds.
    pub(crate) fn from_base_units(base: U256, decimals: u8) -> Self {
        let ten_thousandths = if decimals <= PLACES {
            power_of_ten(PLACES - decimals).and_then(|factor| base.checked_mul(factor))
        } else {
            power_of_ten(decimals - PLACES).map(|divisor| base.div_ceil(divisor))
        };
        ten_thousandths.and_then(|value| i64::try_from(value).ok()).map_or(Self::MAX, Self)
    }

    /// The sum, or the largest decimal.
    pub(crate) fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

fn power_of_ten(exponent: u8) -> Option<U256> {
    U256::from(10).checked_pow(U256::from(exponent))
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}", self.0 / 10_000, self.0 % 10_000)
    }
}

impl FromStr for Decimal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not an amount: write digits with at most four after the point");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > usize::from(PLACES) {
            return Err(refuse());
        }
        format!("{whole}{fraction:0<4}").parse().map(Self).map_err(|_| refuse())
    }
}

impl TryFrom<String> for Decimal {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Decimal> for String {
    fn from(value: Decimal) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn whole(base: U256, decimals: u8) -> String {
        Decimal::from_base_units(base, decimals).to_string()
    }

    #[test]
    fn amounts_are_rounded_up_to_four_places() {
        let ether = U256::from(10).pow(U256::from(18));
        assert_eq!(whole(ether, 18), "1.0000");
        assert_eq!(whole(ether + U256::from(1), 18), "1.0001");
        assert_eq!(whole(U256::from(1), 18), "0.0001");
        assert_eq!(whole(U256::ZERO, 18), "0.0000");
        assert_eq!(whole(U256::from(1_500_000), 6), "1.5000");
        assert_eq!(whole(U256::from(15), 1), "1.5000");
        assert_eq!(whole(U256::from(7), 0), "7.0000");
    }

    #[test]
    fn amounts_that_do_not_fit_are_the_maximum() {
        for decimals in 0..=40 {
            assert_eq!(Decimal::from_base_units(U256::MAX, decimals), Decimal::MAX, "{decimals}");
        }
        assert_eq!(Decimal::MAX.to_string(), "922337203685477.5807");
        assert_eq!(whole(U256::from(i64::MAX), 4), "922337203685477.5807");
        assert_eq!(whole(U256::from(i64::MAX) + U256::from(1), 4), "922337203685477.5807");
        assert_eq!(whole(U256::MAX, 77), "1.1580");
    }

    #[test]
    fn text_that_is_not_an_amount_is_refused() {
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1.00001", "1e3", "１", "922337203685477.5808"] {
            assert!(bad.parse::<Decimal>().is_err(), "{bad}");
        }
        assert_eq!("1.5".parse::<Decimal>().unwrap().to_string(), "1.5000");
        assert_eq!("12".parse::<Decimal>().unwrap().to_string(), "12.0000");
    }

    proptest! {
        #[test]
        fn an_amount_never_shrinks_and_grows_by_less_than_one_place(base: u128, decimals in 0u8..=30) {
            let Decimal(value) = Decimal::from_base_units(U256::from(base), decimals);
            prop_assume!(value != i64::MAX);
            // value / 10^4 >= base / 10^decimals, compared without division.
            let ten = U256::from(10);
            let shown = U256::from(value) * ten.pow(U256::from(decimals));
            let exact = U256::from(base) * ten.pow(U256::from(4));
            prop_assert!(shown >= exact);
            prop_assert!(shown - exact < ten.pow(U256::from(decimals)).max(U256::from(1)));
        }
    }
}
