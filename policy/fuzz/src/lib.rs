//! One function for each decoder of intents, and for each parser of what people sign: bytes in, and a panic if a promise is
//! broken.
//!
//! `cargo test -p casemate-policy-fuzz` runs them over seeds and a few thousand mutations. To go on for longer, with a
//! nightly compiler and cargo-fuzz:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir policy/fuzz --features libfuzzer ethereum -- -max_total_time=600
//! ```
//!
//! The targets are `ethereum`, `eip191`, `eip712`, `bitcoin_psbt`, `allowed_signers`, `sshsig` and `approval_statement`.

#![allow(clippy::panic)] // a broken promise must stop the fuzzer

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use casemate_policy::approval::Statement;
use casemate_policy::intent::{Signer, decode};
use casemate_policy::signers::{Namespace, SignatureError, verify};
use casemate_policy::{AllowedSigners, IntentError};
use casemate_wire::{Digest32, Intent, PublicKey};
use jiff::Timestamp;

/// The master key of BIP-32's second test vector.
const PARENT: &str = "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7";
/// Any chain code will do.
const CHAIN_CODE: [u8; 32] = [0x60; 32];

/// Whose signatures [`sshsig`] takes. The private keys are gone.
pub const SIGNERS: &str = "\
alice@acme ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDMF8wnFP6N9DyK2pawFNpdhqGpK5zU3vC1gzzRo79Cw
bob@globex namespaces=\"casemate-approval\" ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBO+aOtc+9ZJrygxHak3DjDlC936VxJrGgBBZs3LLN0kQ+5g7xA61nDPbpsGnXgd1qRgjqOe6DSeL6okHdYiuyrI=
";
/// What they signed, in the namespace of approvals.
const SIGNED: &[u8] = b"message";

/// What a decoder made of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It understood it.
    Decoded,
    /// It refused it.
    Refused,
}

/// An unsigned Ethereum transaction.
pub fn ethereum(bytes: &[u8]) -> Outcome {
    check("ethereum_transaction", hex::encode(bytes), None)
}

/// The bytes of a message.
pub fn eip191(bytes: &[u8]) -> Outcome {
    check("eip191", hex::encode(bytes), None)
}

/// The text of typed data. Bytes that are no text cannot arrive at the decoder.
pub fn eip712(bytes: &[u8]) -> Outcome {
    std::str::from_utf8(bytes).map_or(Outcome::Refused, |text| check("eip712", text.to_owned(), None))
}

/// The index of an input, and a PSBT.
pub fn bitcoin_psbt(bytes: &[u8]) -> Outcome {
    bytes
        .split_first()
        .map_or(Outcome::Refused, |(index, psbt)| check("bitcoin_psbt", STANDARD.encode(psbt), Some(u32::from(*index))))
}

/// The text of an `allowed_signers` file. Every person in it has a name and an organisation, and a use that names somebody
/// has a key of theirs.
pub fn allowed_signers(bytes: &[u8]) -> Outcome {
    let parsed = std::str::from_utf8(bytes).map(AllowedSigners::parse);
    let Ok(Ok(signers)) = parsed else { return Outcome::Refused };
    for key in signers.keys() {
        let principal = key.principal();
        assert_eq!(principal.as_str().parse().as_ref(), Ok(principal), "a principal is read in two ways");
        assert!(principal.as_str().ends_with(&format!("@{}", principal.org())), "{principal}: whose organisation?");
    }
    for namespace in [Namespace::Policy, Namespace::Approval] {
        let named = |person| signers.keys().any(|key| key.principal() == person);
        assert!(signers.principals(namespace).into_iter().all(named), "{namespace}: a person without a key");
    }
    Outcome::Decoded
}

/// An armored signature. One that is taken is of the message and in the namespace that it was made for, and no other.
pub fn sshsig(bytes: &[u8]) -> Outcome {
    let signers = match AllowedSigners::parse(SIGNERS) {
        Ok(signers) => signers,
        Err(error) => panic!("the signers of the fuzz targets are refused: {error}"),
    };
    let now = Timestamp::UNIX_EPOCH;
    if verify(bytes, SIGNED, Namespace::Approval, &signers, now).is_err() {
        return Outcome::Refused;
    }
    let other = verify(bytes, b"another message", Namespace::Approval, &signers, now);
    assert!(matches!(other, Err(SignatureError::Wrong)), "it signs two messages");
    let other = verify(bytes, SIGNED, Namespace::Policy, &signers, now);
    assert!(matches!(other, Err(SignatureError::Namespace { .. })), "it serves two uses");
    Outcome::Decoded
}

/// The text of an approval statement. What is read can be written and told to people, and reads the same again.
pub fn approval_statement(bytes: &[u8]) -> Outcome {
    let parsed = std::str::from_utf8(bytes).map(Statement::parse);
    let Ok(Ok(statement)) = parsed else { return Outcome::Refused };
    let again = statement.to_text().and_then(|text| Statement::parse(&text));
    assert_eq!(again.as_ref(), Ok(&statement), "a statement is written as another");
    assert!(!statement.act.summary().is_empty(), "there is nothing to show");
    Outcome::Decoded
}

/// The key that all targets sign with.
///
/// # Panics
/// Never: the key is a constant.
pub fn signer() -> Signer {
    let parent: Result<PublicKey, _> = PARENT.parse();
    match parent.map_err(|error| error.to_string()).map(|parent| Signer::derive(&parent, CHAIN_CODE, &[])) {
        Ok(Ok(signer)) => signer,
        other => panic!("the key of the fuzz targets is not one: {other:?}"),
    }
}

/// What is decoded hashes to one digest, has an effect, and can be told to people and to the audit log; for any other
/// digest it is refused.
fn check(kind: &str, payload: String, input_index: Option<u32>) -> Outcome {
    let intent = Intent { kind: kind.to_owned(), payload, input_index };
    let signer = signer();
    let computed = match decode(&intent, &[0; 32], &signer) {
        Err(IntentError::Mismatch { computed, asked }) => {
            assert_eq!(asked, Digest32([0; 32]));
            computed
        }
        Err(_) => return Outcome::Refused,
        Ok(_) => panic!("{kind}: it hashes to zero"),
    };
    match decode(&intent, &computed.0, &signer) {
        Ok(understood) => {
            assert_eq!(understood.digest(), computed, "{kind}");
            assert!(understood.effects().next().is_some(), "{kind}: no effect");
            assert!(understood.outputs_external() <= understood.effects().count(), "{kind}: too few effects");
            assert!(!understood.summary().is_empty(), "{kind}");
            assert!(understood.describe().is_object(), "{kind}");
            Outcome::Decoded
        }
        Err(error) => panic!("{kind}: decoding twice gives two answers: {error}"),
    }
}
