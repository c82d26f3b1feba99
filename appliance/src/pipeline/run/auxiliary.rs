//! A committee's auxiliary info: loaded where all its parties hold the same, made anew otherwise.

use std::sync::Arc;

use casemate_mpc::Limits;
use casemate_mpc::aux::{AuxInfo, AuxSetup};
use casemate_wire::{Code, Digest32, PartyId, Roster};
use serde::{Deserialize, Serialize};

use super::internal;
use crate::daemon::Node;
use crate::primes;
use crate::sealing;
use crate::session::{Failure, Link, Phase};
use crate::store::CommitteeRow;

/// What stands readable, and authenticated, beside sealed auxiliary info.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitteeHeader {
    version: u16,
    roster: Digest32,
    aux_digest: Digest32,
    party_id: PartyId,
}

/// A committee's auxiliary info, ready to be joined with shares.
pub(super) struct Auxiliary {
    pub(super) info: AuxInfo,
    /// Over its public part; all parties hold the same.
    pub(super) digest: Digest32,
    /// What is to be stored, if it was made in this session.
    pub(super) made: Option<CommitteeRow>,
}

/// What this party holds of a committee.
pub(super) async fn known(node: &Node, committee: &Roster) -> Result<Option<CommitteeRow>, Failure> {
    let roster = committee.digest();
    Ok(node.store.read(move |store| CommitteeRow::find(store, &roster)).await?)
}

/// Opens stored info; header, row and contents must all speak of the same committee and the same run.
pub(super) async fn load(node: &Node, row: &CommitteeRow) -> Result<Auxiliary, Failure> {
    let header: CommitteeHeader = sealing::header("auxiliary info", &row.sealed.header)
        .map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
    let plain = sealing::open(&node.hsm, "auxiliary info", &row.sealed).await?;
    let loaded = node.engine.compute().run(move || AuxInfo::from_bytes(&plain)).await;
    let info: AuxInfo = loaded.and_then(|aux| aux).map_err(|e| internal(&e))?;
    let whole = header.roster == row.roster
        && header.party_id == node.config.party
        && header.aux_digest == row.aux_digest
        && info.transcript_digest() == row.aux_digest.0;
    if whole {
        Ok(Auxiliary { info, digest: row.aux_digest, made: None })
    } else {
        Err(Failure::new(Code::Internal, "the stored auxiliary info is another committee's; restore the store"))
    }
}

/// Makes it with the committee, which sits at the session's first positions.
pub(super) async fn make(node: &Arc<Node>, link: &mut Link, committee: &Roster) -> Result<Auxiliary, Failure> {
    let primes = primes::take(node).await?;
    let parties = committee.size();
    let setup = AuxSetup { execution_id: link.execution_id(Phase::Aux), index: link.position(), parties, primes };
    let info: AuxInfo = link
        .drive(Phase::Aux, Limits::aux(parties), |wiring, limits| node.engine.aux_info(setup, limits, wiring))
        .await?;
    let digest = Digest32(info.transcript_digest());
    let roster = committee.digest();
    let header = CommitteeHeader { version: 1, roster, aux_digest: digest, party_id: node.config.party.clone() };
    let plain = info.to_bytes().map_err(|e| internal(&e))?;
    let sealed = sealing::seal(&node.hsm, &header, &plain).await?;
    Ok(Auxiliary { info, digest, made: Some(CommitteeRow { roster, aux_digest: digest, sealed }) })
}
