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
//! | [`detail`] | what is sensitive: salted, kept beside the log, withheld at will |
//! | [`life`] | the states of a share and a KEK, and the changes between them |
//! | [`rewrap`] | what is told of a re-wrapping, before its first row and after its last |
//! | [`line`] | one canonical JSON line (RFC 8785) and its hash |
//! | [`head`] | where a log stands; the only way to make a line |
//! | [`tree`] | the Merkle tree over all leaves (RFC 6962) |
//! | [`proof`] | proofs of inclusion and consistency |
//! | [`checkpoint`] | what the HSM signs of a log (C2SP signed note) |
//! | [`witness`] | whether a peer's log continues what was seen of it |
//! | [`state`] | what every guard says by the log alone, and snapshots of it |
//! | [`standing`] | how a log stands against its anchor at a start |
//! | [`verify`] | the offline verifier |
//! | [`recovery`] | the statement by which the policy quorum lets an appliance go on in a new log |
//! | [`restoration`] | the statement by which the policy quorum lets a backup be restored |
//! | [`reconcile`] | what the logs of all parties say, compared |
//! | [`receipt`] | what a refused caller is given: signed by the key in [`key`] |
//! | [`describe`] | a leaf in plain words |
//! | [`attestation`] | what an appliance says of itself, fresh for a nonce, and what verifies and appraises it |
//!
//! # What the chain alone proves
//! Each leaf holds the hash of the one before, so no line before the last can be altered, dropped, added or moved
//! unnoticed. Whoever holds the file can still cut its end off, or write a wholly new log: only a checkpoint kept elsewhere
//! shows that, so give [`verify::Verifier::against`] all that are known.

pub mod attestation;
pub mod checkpoint;
pub mod describe;
pub mod detail;
pub mod entry;
pub mod head;
pub mod key;
pub mod leaf;
pub mod life;
pub mod line;
pub mod proof;
pub mod receipt;
pub mod reconcile;
pub mod recovery;
pub mod restoration;
pub mod rewrap;
mod rules;
pub mod standing;
pub mod state;
pub mod text;
pub mod tree;
pub mod verify;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
pub use detail::{Detail, DisclosedLeaf, Disclosure};
pub use entry::{Act, Entry, IntentRef, Origin};
pub use head::{AppendError, Appended, Head};
pub use key::AuditKey;
pub use leaf::{
    Approval, Decision, Effect, Guard, GuardChange, Leaf, Op, Outcome, PeerCheckpoint, Phase, Place, Recovery, Tx,
    Verdict,
};
pub use life::{KekState, ShareState, Transition};
pub use line::Line;
pub use proof::{ConsistencyProof, InclusionProof, ProofError};
pub use receipt::{Receipt, ReceiptError, SignedReceipt};
pub use rewrap::{OpenRewrap, Rewrap, Rewrapped};
pub use standing::{Anchored, Facts, Finding, Found, Refusal, Standing, WINDOW};
pub use state::{Snapshot, State};
pub use text::{At, LogId, Text};
pub use verify::{Fault, FaultKind, OpenIntent, Report, Verifier};
pub use witness::{Claim, Doubt};
