//! Auxiliary information: every party's Paillier modulus and ring-Pedersen parameters, proved to all others.
//!
//! [`generate`] runs the protocol once for a committee; the [`AuxInfo`] that comes out serves all of the committee's
//! keys.
//!
//! | module | what it knows |
//! |---|---|
//! | [`numbers`] | checks on parties' numbers; integers on the wire |
//! | `protocol` | the rounds |
//! | `prm`, `blum`, `factors` | the proofs Π_prm, Π_mod and Π_fac |
//! | `info` | the result, and its stored form |
//! | `messages` | what travels, and how it is read |
//! | `arith`, `hashing`, `spread` | exponentiation, labelled hashes, long computations in short pieces |

pub(crate) mod arith;
#[cfg(test)]
mod attacks;
mod blum;
mod factors;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod hashing;
mod info;
mod messages;
pub mod numbers;
mod prm;
mod protocol;
mod spread;

pub use info::AuxInfo;
pub use protocol::{AuxSetup, generate};
