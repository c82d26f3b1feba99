//! The verdict on a token, and what it rests on.

use std::fmt;

use serde::Serialize;

/// What an appraiser says of a genuine, fresh token, in the words of the IETF's "attestation results for secure
/// interactions" (draft-ietf-rats-ar4si).
#[must_use = "a token that was appraised and not acted on is as good as none"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appraisal {
    /// Every claim that the reference names is as it should be.
    Affirming,
    /// These are not; there is at least one.
    Contraindicated(Vec<Finding>),
}

/// One claim that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The claim.
    pub claim: &'static str,
    /// What the reference allows.
    pub expected: String,
    /// What the token says.
    pub found: String,
}

impl Finding {
    /// A finding from anything that can be shown.
    pub fn new(claim: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { claim, expected: expected.to_string(), found: found.to_string() }
    }
}

impl Appraisal {
    /// The verdict that these findings make.
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Affirming } else { Self::Contraindicated(findings) }
    }

    /// One line for each finding; none where there is nothing to say against.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Affirming => &[],
            Self::Contraindicated(findings) => findings,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.claim, self.expected, self.found)
    }
}
