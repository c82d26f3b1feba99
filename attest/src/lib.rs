//! Evidence: the audit log of one appliance, made so that it stands up without trusting whoever runs the host.
//!
//! Pure: callers bring the time and keep the lines; nothing here reads a clock or a disk. Deterministic: the same
//! entries make the same bytes.
//!
//! ```text
//! Entry::intent ─► Head::append ─► Line (stored and hashed as it is) + the next Head
//! Entry::outcome(IntentRef) ──┘        lines ─► Verifier ─► Report | Fault (names the first bad line)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`text`] | bounded words, log names and times, each valid by construction |
//! | [`leaf`] | the fields of one leaf |
//! | [`entry`] | what may be said: one constructor for each phase |
//! | [`line`] | one canonical JSON line (RFC 8785) and its hash |
//! | [`head`] | where a log stands; the only way to make a line |
//! | [`verify`] | the offline verifier |
//! | [`receipt`] | what a refused caller is given: signed by the key in [`key`] |
//! | [`describe`] | a leaf in plain words |
//! | [`attestation`] | what an appliance says of itself, fresh for a nonce, and what verifies and appraises it |
//!
//! # What the chain alone proves
//! Each leaf holds the hash of the one before, so no line before the last can be altered, dropped, added or moved
//! unnoticed. Whoever holds the file can still cut its end off, or write a wholly new log: only a head kept elsewhere
//! shows that, so give [`verify::Verifier::against`] the newest one known.

pub mod attestation;
pub mod describe;
pub mod entry;
pub mod head;
pub mod key;
pub mod leaf;
pub mod line;
pub mod receipt;
mod rules;
pub mod text;
pub mod verify;

pub use entry::{Act, Entry, IntentRef, Origin};
pub use head::{AppendError, Head};
pub use key::AuditKey;
pub use leaf::{Approval, Decision, Effect, Guard, GuardChange, Leaf, Op, Outcome, PeerCheckpoint, Phase, Tx, Verdict};
pub use line::Line;
pub use receipt::{Receipt, ReceiptError, SignedReceipt};
pub use text::{At, LogId, Text};
pub use verify::{Fault, FaultKind, OpenIntent, Report, Verifier};
