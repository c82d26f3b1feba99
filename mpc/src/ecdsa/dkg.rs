//! Key generation.

use cggmp21::keygen::ThresholdMsg;
use rand::rngs::OsRng;
use sha2::Sha256;

use super::bridge::Seat;
use super::share::DkgShare;
use super::{Curve, blame, bridge, dkg_rules};
use crate::error::MpcError;
use crate::io::{Kind, Limits, Wiring};
use crate::levels::Level;
use crate::roll_call::Slot;
use crate::scheme::DkgParams;

/// The longest string in a message: an uncompressed point, or a nonce in hexadecimal.
const STRING_CAP: usize = 256;

type Msg<L> = ThresholdMsg<Curve, L, Sha256>;

impl<L: Level> bridge::Message for Msg<L> {
    const PLAN: &'static [Slot] =
        &[(1, Kind::Broadcast), (2, Kind::Broadcast), (3, Kind::Broadcast), (3, Kind::Direct), (4, Kind::Broadcast)];

    fn slot(&self) -> Slot {
        match self {
            Self::Round1(_) => (1, Kind::Broadcast),
            Self::ReliabilityCheck(_) => (2, Kind::Broadcast),
            Self::Round2Broad(_) => (3, Kind::Broadcast),
            Self::Round2Uni(_) => (3, Kind::Direct),
            Self::Round3(_) => (4, Kind::Broadcast),
        }
    }
}

/// Runs key generation for one party.
pub(super) async fn run<L: Level>(params: DkgParams, limits: Limits, wiring: Wiring) -> Result<DkgShare, MpcError> {
    let DkgParams { execution_id, position, t, n } = params;
    if t < 2 || t > n || position >= n {
        return Err(MpcError::invalid(format!("position {position} in a {t}-of-{n} key generation")));
    }
    let protocol = |party: bridge::Party<Msg<L>>| async move {
        cggmp21::keygen::<Curve>(cggmp21::ExecutionId::new(execution_id.as_bytes()), position, n)
            .set_threshold(t)
            .set_security_level::<L>()
            .hd_wallet(true)
            .enforce_reliable_broadcast(true)
            .start(&mut OsRng, party)
            .await
    };
    let rule = Box::new(move |_, message: &Msg<L>| dkg_rules::check(message, t));
    let seat = Seat { me: position, parties: n, limits, string_cap: STRING_CAP, wiring };
    let share = bridge::run(seat, rule, protocol, blame::keygen).await?;
    DkgShare::from_protocol(share, position, t, n)
}
