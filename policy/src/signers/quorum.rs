//! How many people must sign a bundle.

use std::fmt;
use std::str::FromStr;

use super::Namespace;
use super::allowed::AllowedSigners;

/// The most people of one quorum: as many as a bundle may have signatures.
const MAX_PEOPLE: u16 = 32;

/// `2 of 3`: how many distinct people must sign, of how many who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quorum {
    needed: u16,
    of: u16,
}

/// Why a text is no quorum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the quorum {text:?} is refused: write `2 of 3`, with at least 1, and at most {MAX_PEOPLE} people in all")]
pub struct InvalidQuorum {
    text: String,
}

impl Quorum {
    /// How many distinct people must sign; at least 1.
    pub fn needed(self) -> u16 {
        self.needed
    }

    /// How many people may sign; at least [`Quorum::needed`].
    pub fn of(self) -> u16 {
        self.of
    }
}

impl FromStr for Quorum {
    type Err = InvalidQuorum;

    fn from_str(text: &str) -> Result<Self, InvalidQuorum> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
        text.split_once(" of ")
            .and_then(|(needed, of)| Some(Self { needed: number(needed)?, of: number(of)? }))
            .filter(|quorum| (1..=quorum.of).contains(&quorum.needed) && quorum.of <= MAX_PEOPLE)
            .ok_or_else(|| InvalidQuorum { text: text.chars().take(32).collect() })
    }
}

impl TryFrom<String> for Quorum {
    type Error = InvalidQuorum;

    fn try_from(text: String) -> Result<Self, InvalidQuorum> {
        text.parse()
    }
}

impl From<Quorum> for String {
    fn from(quorum: Quorum) -> Self {
        quorum.to_string()
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.needed, self.of)
    }
}

/// Who may sign bundles, and how many of them must: what the appliance's configuration says, checked for agreement.
#[derive(Debug, Clone)]
pub struct TrustAnchors {
    signers: AllowedSigners,
    quorum: Quorum,
}

/// Why signers and quorum do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the quorum is {quorum}, but allowed_signers names {people} people who may sign `casemate-policy`: change one of the two, \
     so that nobody joins or leaves unseen"
)]
pub struct InvalidAnchors {
    quorum: Quorum,
    people: usize,
}

impl TrustAnchors {
    /// Joins signers and quorum.
    ///
    /// # Errors
    /// The quorum's total must be the number of distinct people who have a key for bundles, valid by now or not.
    pub fn new(signers: AllowedSigners, quorum: Quorum) -> Result<Self, InvalidAnchors> {
        let people = signers.principals(Namespace::Policy).len();
        if people != usize::from(quorum.of) {
            return Err(InvalidAnchors { quorum, people });
        }
        Ok(Self { signers, quorum })
    }

    /// Who may sign.
    pub fn signers(&self) -> &AllowedSigners {
        &self.signers
    }

    /// How many must.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }
}
