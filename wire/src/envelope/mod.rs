//! The session envelope: party to party, through a coordinator that can neither read nor change it.
//!
//! Sans-IO: callers bring bytes from the stream, the time and randomness. The life of one session is
//!
//! ```text
//! Handshake::begin ─ to_sign ─► HSM identity key ─ signed ─► SignedHello, sent to all
//!                  ─ accept each peer's hello ─► finish ─► Channel ─ seal / open ─► messages
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `view` | what all parties must agree on, each party's audit checkpoint, and what it has seen of the others' |
//! | `hello` | the hello and the bytes that an identity key signs |
//! | `handshake` | checks every hello against the own view and makes the transcript |
//! | `message` | one signed message and where it goes |
//! | `seal` | HPKE (RFC 9180) for bodies that are for one party only |
//! | `channel` | signs, seals, verifies and opens; keeps what peers signed |
//! | `fault` | who is to blame, and who cannot be blamed |
//! | `canonical` | deterministic CBOR (RFC 8949, section 4.2.1) |

mod canonical;
mod channel;
mod fault;
mod handshake;
mod hello;
mod message;
mod seal;
mod view;

pub use channel::{Channel, Evidence, Opened};
pub use fault::{Fault, LocalFault, PeerFault, TransportFault};
pub use handshake::{Handshake, Limits, Local};
pub use hello::{Hello, Introduction, SignedHello};
pub use message::{Content, SignedMessage, To};
pub use view::{Checkpoint, MAX_WITNESSED, SessionView, Witnessed};
