//! The threshold protocol engine: auxiliary information, key generation, signing and redistribution of shares for
//! threshold ECDSA on secp256k1.
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
//! | [`scheme`] | [`Scheme`]: the border to a signature scheme; [`DkgParams`], [`SignParams`] |
//! | [`ecdsa`] | [`Cggmp21`]: threshold ECDSA; [`DkgShare`], [`KeyShare`], [`Signature`] |
//! | [`aux`] | the auxiliary-information protocol and the checks on the parties' numbers |
//! | [`primes`] | safe primes for it |
//! | [`reshare`] | redistribution of a key's shares: refresh, other committee, other threshold |
//! | [`gmp_wipe`] | wipes what GMP and Rust free; the only `unsafe` code |
//! | [`cpu`] | the CPU baseline of the GMP build |
//! | [`levels`] | the security level (and a reduced one for tests) |
//!
//! A daemon calls [`cpu::check_baseline`] and [`gmp_wipe::install`] first and starts one [`Engine`]. A committee runs
//! [`Engine::aux_info`] once; each key then takes [`Scheme::dkg`] and [`KeyShare::from_parts`], each signature
//! [`Scheme::sign`]. [`Engine::reshare`] gives a key new shares, for the same committee or another. What ends a session
//! before its result is an [`MpcError`]; results of key generation, auxiliary info and redistribution count only once all
//! parties have confirmed the session's transcript, which is the caller's part.

pub mod aux;
pub mod codec;
pub mod compute;
pub mod cpu;
pub mod ecdsa;
pub mod engine;
pub mod error;
pub mod gmp_wipe;
pub mod io;
pub mod levels;
pub mod primes;
pub mod reshare;
mod roll_call;
pub mod round_io;
pub mod scheme;

pub use compute::Compute;
pub use ecdsa::{Cggmp21, DkgShare, KeyShare, Signature};
pub use engine::{Engine, Session};
pub use error::{ExecutionId, MpcError};
pub use io::{Inbound, Kind, Limits, Outbound, Recipient, Wiring};
pub use reshare::{Dealer, OldKey, ReshareParams, Resharing};
pub use round_io::RoundIo;
pub use scheme::{DkgParams, Scheme, SignParams};
