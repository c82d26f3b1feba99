//! The path from a threshold key to one of its child keys, as it stands in requests, tokens and logs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidId;

/// The longest path, in steps.
pub const MAX_STEPS: usize = 10;

/// `m/0/7`: one to [`MAX_STEPS`] non-hardened BIP-32 child indices, each written in one way only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DerivationPath(Vec<u32>);

impl DerivationPath {
    /// The child indices from the threshold key on, each below 2³¹.
    pub fn indices(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for DerivationPath {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = || {
            let why = "it must look like m/0/7: at most 10 non-hardened indices below 2147483648";
            InvalidId::new("the derivation path", why)
        };
        let indices = text.strip_prefix("m/").ok_or_else(bad)?;
        let canonical = |part: &str| {
            let index: u32 = part.parse().ok()?;
            (index < 1 << 31 && index.to_string() == part).then_some(index)
        };
        let path: Vec<u32> = indices.split('/').map(canonical).collect::<Option<_>>().ok_or_else(bad)?;
        if path.len() > MAX_STEPS { Err(bad()) } else { Ok(Self(path)) }
    }
}

impl fmt::Display for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|index| write!(f, "/{index}"))
    }
}

impl TryFrom<String> for DerivationPath {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<DerivationPath> for String {
    fn from(path: DerivationPath) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plain_paths_of_child_indices_are_read_and_they_stay_as_they_were_written() {
        let path: DerivationPath = "m/0/7/2147483647".parse().unwrap();
        assert_eq!(path.indices(), [0, 7, 2_147_483_647]);
        assert_eq!(path.to_string(), "m/0/7/2147483647");
        for bad in ["", "m", "m/", "0/1", "m/0'", "m/2147483648", "m/-1", "m/01", "m/+1", "m/0//1", "m/a"] {
            assert!(bad.parse::<DerivationPath>().is_err(), "{bad}");
        }
        assert!("m/0/0/0/0/0/0/0/0/0/0/0".parse::<DerivationPath>().is_err());
        assert!(serde_json::from_str::<DerivationPath>("\"m/0'\"").is_err());
    }
}
