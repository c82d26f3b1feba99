//! Threshold ECDSA on secp256k1 by the `cggmp21` crate, with the checks around it that are this engine's own.
//!
//! | module | what it knows |
//! |---|---|
//! | [`share`] | [`DkgShare`] and [`KeyShare`]: secret, stored and loaded with all checks |
//! | [`signature`] | [`Signature`] with its recovery id, verified before it is reported |
//! | `public` | the public side of a key, checked; points in bytes |
//! | `dkg`, `sign` | the two protocols, run on the engine |
//! | `bridge` | session channels ⇄ the crate's streams; silence, repeats, sizes |
//! | `dkg_rules`, `sign_rules` | what a peer's message must keep before it is computed with |
//! | `blame` | whom the crate's verdict names |

mod blame;
mod bridge;
mod dkg;
mod dkg_rules;
pub(crate) mod public;
pub mod share;
mod sign;
mod sign_rules;
pub mod signature;

use std::marker::PhantomData;

use cggmp21::supported_curves::Secp256k1;

pub use self::share::{DkgShare, KeyShare};
pub use self::signature::Signature;
use crate::engine::{Engine, Session};
use crate::io::{Limits, Wiring};
use crate::levels::{Level, SecurityLevel128};
use crate::scheme::{DkgParams, Scheme, SignParams};

/// The curve of all keys.
pub(crate) type Curve = Secp256k1;

/// CGGMP21 threshold ECDSA on secp256k1 with SLIP-10/BIP-32 derivation of non-hardened children.
///
/// Written `<Cggmp21>::dkg(…)` where nothing else tells the level: the angle brackets pick the real
/// one.
pub struct Cggmp21<L: Level = SecurityLevel128>(PhantomData<L>);

impl<L: Level> Scheme for Cggmp21<L> {
    const ID: &'static str = "cggmp21-secp256k1";
    type DkgShare = DkgShare;
    type KeyShare = KeyShare<L>;
    type Signature = Signature;

    fn dkg(engine: &Engine, params: DkgParams, limits: Limits, wiring: Wiring) -> Session<DkgShare> {
        engine.run(limits.session, move |_| dkg::run::<L>(params, limits, wiring))
    }

    fn sign(engine: &Engine, params: SignParams<KeyShare<L>>, limits: Limits, wiring: Wiring) -> Session<Signature> {
        engine.run(limits.session, move |_| sign::run(params, limits, wiring))
    }
}
