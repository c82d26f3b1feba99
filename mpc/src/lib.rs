//! The threshold protocol engine: auxiliary information, key generation and signing for threshold ECDSA on secp256k1.
//!
//! No sockets and no disk: a session brings a [`Wiring`] of channels and an [`ExecutionId`], and gets a result or an
//! [`MpcError`] that says who is to blame where that is certain.
//!
//! | module | what it knows |
//! |---|---|
//! | [`io`] | the border: [`Inbound`], [`Outbound`], [`Wiring`], [`Limits`] |
//! | [`error`] | [`MpcError`], [`ExecutionId`] |
//! | [`codec`] | CBOR bodies: caps before decoding, one encoding per value |
//! | [`round_io`] | [`RoundIo`]: rounds, limits and reliable broadcast for protocols written here |
//! | [`engine`] | [`Engine`]: the protocol threads, and [`Session`], a running protocol |
//! | [`compute`] | [`Compute`]: spreads long computations over the cores |
//! | [`levels`] | the security level (and a reduced one for tests) |

pub mod aux;
pub mod codec;
pub mod compute;
pub mod engine;
pub mod error;
pub mod io;
pub mod levels;
mod roll_call;
pub mod primes;
pub mod round_io;

pub use compute::Compute;
pub use engine::{Engine, Session};
pub use error::{ExecutionId, MpcError};
pub use io::{Inbound, Kind, Limits, Outbound, Recipient, Wiring};
pub use round_io::RoundIo;
