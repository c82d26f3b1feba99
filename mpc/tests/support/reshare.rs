//! Redistributions of keys, over the simulated network.

use std::sync::Arc;

use casemate_mpc::aux::AuxInfo;
use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{Dealer, Engine, ExecutionId, KeyShare, Limits, OldKey, ReshareParams, Resharing};

use super::execution_id;
use super::network::{self, Copy, Run};

/// A share at the reduced level.
pub type Share = Arc<KeyShare<ReducedLevel>>;

/// A redistribution: who deals which share, and the new committee.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Positions and old indices.
    pub dealers: Vec<(u16, u16)>,
    pub new_t: u16,
    pub new_n: u16,
}

impl Plan {
    pub fn new(dealers: &[(u16, u16)], new_t: u16, new_n: u16) -> Self {
        Self { dealers: dealers.to_vec(), new_t, new_n }
    }

    /// A refresh: as many parties as there are `old` shares, the first `t` deal.
    pub fn refresh(old: &[Share]) -> Self {
        let dealers = (0..old[0].t()).map(|index| (index, index)).collect();
        Self { dealers, new_t: old[0].t(), new_n: old[0].n() }
    }

    /// How many parties the session has.
    pub fn parties(&self) -> u16 {
        let leaving = self.dealers.iter().filter(|(position, _)| *position >= self.new_n).count();
        self.new_n + u16::try_from(leaving).expect("few parties")
    }

    /// What the party at `position` brings.
    pub fn params(&self, old: &[Share], position: u16, execution_id: ExecutionId) -> ReshareParams<ReducedLevel> {
        let dealers =
            self.dealers.iter().map(|(position, old_index)| Dealer { position: *position, old_index: *old_index });
        let dealt = self.dealers.iter().find(|(dealer, _)| *dealer == position);
        ReshareParams {
            execution_id,
            position,
            dealers: dealers.collect(),
            old: OldKey::from_share(&old[0], 1),
            new_t: self.new_t,
            new_n: self.new_n,
            share: dealt.map(|(_, index)| Arc::clone(&old[usize::from(*index)])),
        }
    }

    /// Runs it within `limits`.
    pub async fn run_within(
        &self,
        engine: &Engine,
        old: &[Share],
        limits: Limits,
        middle: impl FnMut(Copy) -> Vec<Copy>,
    ) -> Run<Resharing> {
        let execution_id = execution_id();
        let start = |position, wiring| engine.reshare(self.params(old, position, execution_id), limits, wiring);
        network::run(self.parties(), start, middle).await
    }

    /// Runs it.
    pub async fn run(&self, engine: &Engine, old: &[Share], middle: impl FnMut(Copy) -> Vec<Copy>) -> Run<Resharing> {
        self.run_within(engine, old, Limits::reshare(self.parties()), middle).await
    }

    /// Runs it among honest parties, and joins the new shares with the new committee's `aux`.
    pub async fn new_shares(&self, engine: &Engine, old: &[Share], aux: &[AuxInfo<ReducedLevel>]) -> Vec<Share> {
        let outcomes = self.run(engine, old, network::pass).await.all();
        let shares = outcomes.into_iter().filter_map(|outcome| outcome.share);
        let shares: Vec<Share> =
            shares.zip(aux).map(|(share, aux)| Arc::new(KeyShare::from_parts(share, aux).expect("they fit"))).collect();
        assert_eq!(shares.len(), usize::from(self.new_n));
        shares
    }
}
