//! What can go wrong with the HSM, and what it means for the session, the token and the PIN.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cryptoki::error::{Error as Cryptoki, RvError};

use crate::config::TokenSelector;
use crate::pin::PinError;

/// Why an HSM could not be opened or a call to it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HsmError {
    /// The configuration holds an unusable value.
    #[error("[hsm] configuration: {0}")]
    Config(&'static str),
    /// The PKCS#11 module could not be loaded or initialised.
    #[error("loading the PKCS#11 module {}: {source}; check [hsm] module and that its package is installed", path.display())]
    Module {
        /// Path of the module.
        path: PathBuf,
        /// What the loader or the module said.
        source: TokenError,
    },
    /// No token matches the selector.
    #[error(
        "no token with {selector}; the module shows: {present}; check [hsm] token_label or serial, or run `casemate hsm init`"
    )]
    NoToken {
        /// What was looked for.
        selector: TokenSelector,
        /// Labels and serials that were there.
        present: String,
    },
    /// More than one token matches the selector.
    #[error("more than one token with {selector} (serials {serials}); select it by [hsm] serial")]
    SeveralTokens {
        /// What was looked for.
        selector: TokenSelector,
        /// Serials of the matching tokens.
        serials: String,
    },
    /// The PIN could not be read.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The token refused the PIN, now or earlier in this process. It is not tried again.
    #[error(
        "token {serial} refused the PIN; it is not tried again, so that the token does not lock; put the right PIN in place and start anew"
    )]
    PinRefused {
        /// Serial of the token.
        serial: String,
    },
    /// One more wrong PIN would lock the token, so none was tried.
    #[error(
        "token {serial} says that one more wrong PIN locks it, so none was tried; log in once by hand with the right PIN (`pkcs11-tool --login --test`), then start anew"
    )]
    PinFinalTry {
        /// Serial of the token.
        serial: String,
    },
    /// The user PIN is locked.
    #[error("the user PIN of token {serial} is locked; the security officer must set a new one")]
    PinLocked {
        /// Serial of the token.
        serial: String,
    },
    /// The token has no user PIN yet.
    #[error("token {serial} has no user PIN; run `casemate hsm init`")]
    PinNotSet {
        /// Serial of the token.
        serial: String,
    },
    /// A key is not on the token.
    #[error("key {id:?} is not on the token; run `casemate hsm init`")]
    KeyMissing {
        /// `CKA_ID` of the key.
        id: String,
    },
    /// More than one key has the same `CKA_ID`.
    #[error("{count} {kind} keys have the CKA_ID {id:?}, exactly one may; remove the one that is not yours")]
    KeyAmbiguous {
        /// `CKA_ID` of the keys.
        id: String,
        /// Kind of object.
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A key does not have the attributes that it must have.
    #[error("key {id:?} must not be used: {problem}; make new keys on a fresh token with `casemate hsm init`")]
    KeyUnfit {
        /// `CKA_ID` of the key.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The token failed a trial of its own keys.
    #[error("the token failed its canary: {problem}; do not use it before its maker explains this")]
    Canary {
        /// What went wrong.
        problem: String,
    },
    /// The token wraps in none of the supported ways.
    #[error(
        "the token offers no usable wrapping ({tried}); Casemate needs AES-GCM (CKM_AES_GCM, 96-bit IV, 128-bit tag) with the host's or the token's own IV; set [hsm] wrap to what the token supports or use another one"
    )]
    WrapUnsupported {
        /// What was tried, and what the token said.
        tried: String,
    },
    /// After a reload the token holds other keys than before.
    #[error("the token came back with other keys than before ({id:?}); if this is meant, restart")]
    KeysChanged {
        /// `CKA_ID` of the first key that differs.
        id: String,
    },
    /// After a reload the selector finds another token than before.
    #[error("another token came back (serial {is}, it was {was}); if this is meant, restart")]
    TokenChanged {
        /// Serial of the token that was opened.
        was: String,
        /// Serial of the token that is there now.
        is: String,
    },
    /// All threads are at work and the queue is full.
    #[error("the HSM queue is full; try again shortly")]
    Busy,
    /// The call did not end within its limit. Its result, if it comes, is dropped and wiped.
    #[error("the HSM did not answer within {} ms; try again", limit.as_millis())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The token is not there at present. It is looked for in the background.
    #[error("the HSM is unavailable since {} s: {reason}; it is reloaded as soon as it is back", age(since))]
    Unavailable {
        /// Since when.
        since: SystemTime,
        /// Why.
        reason: String,
    },
    /// The HSM was shut down.
    #[error("the HSM was shut down")]
    Closed,
    /// Some threads did not end in time; they are stuck inside the module.
    #[error("{stuck} HSM threads did not end within {} ms; they are stuck inside the module", limit.as_millis())]
    ThreadsStuck {
        /// How many.
        stuck: usize,
        /// How long was waited.
        limit: Duration,
    },
    /// A thread could not be started, or ended without an answer.
    #[error("an HSM thread {0}")]
    Thread(&'static str),
    /// The entry was wrapped under a KEK that is not on the token.
    #[error("the entry is wrapped under {kek_id:?} (epoch {kek_epoch}), which is not on this token")]
    UnknownKek {
        /// The entry's KEK id.
        kek_id: String,
        /// The entry's KEK epoch.
        kek_epoch: u32,
    },
    /// The entry does not open: it was altered, or belongs to another context or another KEK.
    #[error("the wrapped key does not open: it was altered, or belongs to another record or another KEK")]
    Rejected,
    /// A signature that the token made does not verify.
    #[error("the token made a signature with {id:?} that does not verify; it was not released")]
    BadSignature {
        /// `CKA_ID` of the key.
        id: &'static str,
    },
    /// More random bytes were asked for than one call gives.
    #[error("{asked} random bytes asked for; one call gives at most {limit}")]
    TooMuchRandom {
        /// Bytes asked for.
        asked: usize,
        /// Bytes one call gives.
        limit: usize,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    NoRandomness,
    /// A value could not be encoded.
    #[error("encoding {0}")]
    Encoding(&'static str),
    /// A token with this label exists already.
    #[error("a token with the label {label:?} exists already (serial {serial}); nothing was changed")]
    TokenExists {
        /// The label.
        label: String,
        /// Serial of the token that has it.
        serial: String,
    },
    /// No slot can take a new token.
    #[error("the module has no free slot for a new token; initialise it with the vendor's tool")]
    NoFreeSlot,
    /// A PIN for a new token has a length that the module does not take.
    #[error("the module takes PINs of {shortest} to {longest} bytes; nothing was changed")]
    PinLength {
        /// Bytes of the shortest PIN.
        shortest: usize,
        /// Bytes of the longest PIN.
        longest: usize,
    },
    /// Keys exist already.
    #[error("the token holds already {}; nothing was changed", ids.join(", "))]
    KeysExist {
        /// Their `CKA_ID`s.
        ids: Vec<String>,
    },
    /// The KEK that was to be made is not the one of the next epoch.
    #[error(
        "making {asked:?}: the token wraps under {current:?}, and the next one is of the epoch above it; nothing was changed"
    )]
    KekOutOfTurn {
        /// `CKA_ID` of the KEK that was to be made.
        asked: String,
        /// `CKA_ID` of the KEK that wraps.
        current: String,
    },
    /// The KEK that was to be destroyed is the one that wraps.
    #[error(
        "{kek_id:?} wraps now, so it is not destroyed; make the next one with `casemate hsm new-kek`, and re-wrap, first"
    )]
    KekIsCurrent {
        /// Its `CKA_ID`.
        kek_id: String,
    },
    /// The token has no KEK of this epoch.
    #[error("there is no {kek_id:?} on the token; `casemate hsm status` lists those that are there")]
    NoSuchKek {
        /// The `CKA_ID` that was looked for.
        kek_id: String,
    },
    /// The token has no recovery key.
    #[error("there is no recovery key on this token; `casemate hsm init-recovery` makes one")]
    NoRecoveryKey,
    /// A recovery entry is not signed by the host that is said to have sealed it.
    #[error(
        "the recovery entry is not signed by the identity that was named; it was altered, or another host sealed it"
    )]
    RecoveryNotSigned,
    /// The entry is for another recovery key.
    #[error("the entry is for the recovery key {wanted}, this token has {there}")]
    OtherRecoveryKey {
        /// Fingerprint of the key that the entry is for.
        wanted: String,
        /// Fingerprint of the token's key.
        there: String,
    },
    /// A log name that an anchor does not take.
    #[error("an anchor names its log with 1 to 128 visible ASCII characters")]
    AnchorLogName,
    /// An object that claims to be an audit anchor is none.
    #[error(
        "reading the audit anchor {id:?} on the token: {problem}; somebody else has written it, or the token is failing; only a signed recovery replaces it"
    )]
    AnchorDamaged {
        /// Its `CKA_LABEL`, escaped and cut where it is foreign.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two audit anchors of the same size differ, so that none of them counts.
    #[error(
        "the token holds two different audit anchors of size {size}; two histories were anchored, and only a signed recovery settles which one counts"
    )]
    AnchorsContradict {
        /// Their size, in leaves.
        size: u64,
    },
    /// The log is shorter than the one that was anchored.
    #[error(
        "anchoring the audit log at size {asked}: the token holds an anchor of size {standing}; the log was rolled back, and only a signed recovery goes on"
    )]
    AnchorWouldShrink {
        /// Leaves that the standing anchor covers.
        standing: u64,
        /// Leaves that the new one would cover.
        asked: u64,
    },
    /// The log has another root at the size that was anchored.
    #[error(
        "anchoring the audit log at size {size}: the token holds an anchor of this size with another root; the log was forked, and only a signed recovery goes on"
    )]
    AnchorForks {
        /// Leaves that both cover.
        size: u64,
    },
    /// The token holds another anchor than the one that the caller put last.
    #[error(
        "anchoring the audit log: {} was put last by this appliance, but the token holds {}; another copy of this appliance anchors on this token, or the token was restored meanwhile; stop all copies and find out which log the peers know (docs/runbook.md, anchor_conflict)",
        sized(*.expected), sized(*.standing)
    )]
    AnchorConflict {
        /// Leaves that the anchor covers that was put last; `None` if none was.
        expected: Option<u64>,
        /// Leaves that the anchor covers that stands in its place; `None` if there is none.
        standing: Option<u64>,
    },
    /// The token anchors another log.
    #[error(
        "anchoring the audit log {asked:?}: the token holds the anchor of {standing:?}; give each appliance its own token, or recover with signatures"
    )]
    AnchorOfAnotherLog {
        /// Name of the log that is anchored.
        standing: String,
        /// Name of the log that was to be anchored.
        asked: String,
    },
    /// The token does not take the object in which the anchor is kept.
    #[error(
        "writing the audit anchor: the token does not take private data objects (CKO_DATA): {source}; use a token that does"
    )]
    AnchorUnsupported {
        /// What the module said.
        source: TokenError,
    },
    /// The token has given a handle of this session to another object.
    #[error("{doing}: the object's handle stands for another one now; try again")]
    HandleStale {
        /// What was being done.
        doing: &'static str,
    },
    /// A PKCS#11 call failed.
    #[error("{doing}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the module said.
        source: TokenError,
    },
}

/// What the PKCS#11 module or its loader said.
#[derive(Debug)]
pub struct TokenError(pub(crate) Cryptoki);

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cryptoki::Pkcs11(code, function) => write!(f, "C_{function:?} returned {code:?}"),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for TokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// What a failure says about the session and the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request itself was at fault; session and token are fine.
    Request,
    /// The session, its login or its object handles are gone: open a new one.
    Session,
    /// The token or the module is gone or broken: reload.
    Token,
}

impl HsmError {
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Call { source, .. } => source.fault(),
            // Handles that the token has given to other keys meanwhile would look like this.
            Self::BadSignature { .. } | Self::HandleStale { .. } => Fault::Session,
            Self::Module { .. }
            | Self::NoToken { .. }
            | Self::SeveralTokens { .. }
            | Self::Pin(_)
            | Self::PinRefused { .. }
            | Self::PinFinalTry { .. }
            | Self::PinLocked { .. }
            | Self::PinNotSet { .. }
            | Self::KeyMissing { .. }
            | Self::KeyAmbiguous { .. }
            | Self::KeyUnfit { .. }
            | Self::KeysChanged { .. }
            | Self::TokenChanged { .. }
            | Self::Canary { .. } => Fault::Token,
            _ => Fault::Request,
        }
    }

    /// Whether the module only said that something went wrong (`CKR_GENERAL_ERROR`).
    pub(crate) fn is_unexplained(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.code() == Some(RvError::GeneralError))
    }

    /// Whether no login may be tried again by itself.
    pub fn is_pin_refusal(&self) -> bool {
        matches!(self, Self::PinRefused { .. } | Self::PinFinalTry { .. } | Self::PinLocked { .. })
    }
}

impl TokenError {
    pub(crate) fn code(&self) -> Option<RvError> {
        match &self.0 {
            Cryptoki::Pkcs11(code, _) => Some(*code),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        match self.code() {
            Some(
                RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::OperationActive
                | RvError::OperationNotInitialized,
            ) => Fault::Session,
            Some(
                RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::HostMemory
                | RvError::DeviceError
                | RvError::DeviceMemory
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::SessionCount
                | RvError::CryptokiNotInitialized
                | RvError::FipsSelfTestFailed
                | RvError::VendorDefined(_)
                | RvError::UnknownErrorCode(_),
            ) => Fault::Token,
            _ => Fault::Request,
        }
    }
}

/// Names the PKCS#11 step that failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, HsmError>;
}

impl<T> Doing<T> for Result<T, Cryptoki> {
    fn doing(self, doing: &'static str) -> Result<T, HsmError> {
        self.map_err(|error| HsmError::Call { doing, source: TokenError(error) })
    }
}

fn sized(anchor: Option<u64>) -> String {
    anchor.map_or_else(|| "no anchor".to_owned(), |size| format!("an anchor of size {size}"))
}

fn age(since: &SystemTime) -> u64 {
    since.elapsed().unwrap_or_default().as_secs()
}
