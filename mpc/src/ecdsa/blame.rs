//! Whom the crate's verdict names.
//!
//! The crate tells its culprits only in the `Debug` text of its errors. The version is pinned, and tests with real faults
//! hold this table to it; a text that is not in the table blames nobody. A failed reliability check is deliberately here
//! without a culprit: it can name honest parties.

use std::fmt::Debug;

use cggmp21::keygen::KeygenError;
use cggmp21::signing::SigningError;

use crate::error::MpcError;

/// Text before a culprit's index, the round of its message, and what is wrong with it.
type Named = (&'static str, u16, &'static str);
/// Text of a failure without culprit, the round in which it shows, and what was seen.
type Nameless = (&'static str, u16, &'static str);

const KEYGEN_NAMED: &[Named] = &[
    ("InvalidDecommitment([AbortBlame { faulty_party: ", 3, "what it revealed is not what it had committed to"),
    ("InvalidDataSize { parties: [", 3, "the commitment to its polynomial has the wrong degree"),
    ("FeldmanVerificationFailed { parties: [", 3, "the share that it dealt does not fit its commitment"),
    ("MissingChainCode([AbortBlame { faulty_party: ", 3, "the contribution to the chain code is missing"),
    ("InvalidSchnorrProof([AbortBlame { faulty_party: ", 4, "its proof of knowledge of its share does not verify"),
];
const KEYGEN_NAMELESS: &[Nameless] = &[("Round1NotReliable", 2, "the parties have received different broadcasts")];

const SIGNING_NAMED: &[Named] = &[
    ("EncProofOfK([(", 1, "its range proof for K does not verify"),
    ("InvalidPsi([(", 3, "a proof about its multiplication does not verify"),
    ("InvalidPsiPrimePrime([(", 4, "its proof for Delta does not verify"),
];
const SIGNING_NAMELESS: &[Nameless] = &[
    ("Round1aNotReliable", 2, "the parties have received different broadcasts"),
    ("MismatchedDelta", 4, "the shares of delta do not add up"),
    ("SignatureInvalid", 5, "the partial signatures do not add up to a valid signature"),
];

/// Translates an error of the crate's key generation.
pub(super) fn keygen(error: &KeygenError) -> MpcError {
    judge(error, KEYGEN_NAMED, KEYGEN_NAMELESS)
}

/// Translates an error of the crate's signing.
pub(super) fn signing(error: &SigningError) -> MpcError {
    judge(error, SIGNING_NAMED, SIGNING_NAMELESS)
}

fn judge(error: &impl Debug, named: &[Named], nameless: &[Nameless]) -> MpcError {
    let text = format!("{error:?}");
    for (before, round, what) in named {
        if let Some(party) = number_after(&text, before) {
            return MpcError::peer(party, *round, *what);
        }
    }
    for (part, round, what) in nameless {
        if text.contains(part) {
            return MpcError::unattributed(*round, *what);
        }
    }
    MpcError::unattributed(0, "the protocol aborted")
}

fn number_after(text: &str, before: &str) -> Option<u16> {
    let (_, rest) = text.split_once(before)?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn the_number_after_a_text_is_read() {
        assert_eq!(number_after("Aborted(InvalidPsi([(12, 3, 4, (None))]))", "InvalidPsi([("), Some(12));
        assert_eq!(number_after("Aborted(InvalidPsi([(x", "InvalidPsi([("), None);
        assert_eq!(number_after("Aborted(MismatchedDelta)", "InvalidPsi([("), None);
        assert_eq!(number_after("parties: [70000]", "parties: ["), None);
    }

    #[test]
    fn an_unknown_text_blames_nobody() {
        assert_eq!(judge(&"something new [(1, 2)]", SIGNING_NAMED, SIGNING_NAMELESS).culprit(), None);
    }
}
