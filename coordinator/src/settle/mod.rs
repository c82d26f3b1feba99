//! What follows a rotation: whoever missed its end hears of it, and old shares go once all have switched.
//!
//! Runs beside the sessions: at the start, after each rotation, when an appliance is back, and from time to time. Nothing here rests on trust in the
//! coordinator: what it carries from party to party is signed by them, and each of them verifies it.

mod discovery;
mod state;
mod telling;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use casemate_wire::api::{SettleAnswer, SettleRequest};
use casemate_wire::{PartyId, Problem};
use futures::future::join_all;
use futures::{TryStreamExt, stream};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::account::AccountId;
use crate::convene::{Coordinator, not_configured};
use crate::store::StoreError;
pub(crate) use discovery::credible;
use state::{Heard, Stuck};
pub(crate) use state::{Settling, Standing};
use telling::{Telling, Unsettled, Volume};

/// How often what could not be settled is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Accounts that are looked after at the same time.
const AT_ONCE: usize = 8;
/// Words are gathered, then all are told; a word that came late needs one more.
const ROUNDS: usize = 3;

/// What the settling task is called for, beside the time.
#[derive(Default)]
pub(crate) struct Bell {
    ring: Notify,
    doubted: Mutex<HashSet<AccountId>>,
}

impl Bell {
    /// A rotation has ended, or an appliance is back: there may be something to settle.
    pub(crate) fn ring(&self) {
        self.ring.notify_one();
    }

    /// A party has refused to sign as the account stands here: its key may have moved on.
    pub(crate) fn doubt(&self, account: AccountId) {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner).insert(account);
        self.ring.notify_one();
    }

    fn take(&self) -> HashSet<AccountId> {
        std::mem::take(&mut *self.doubted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Coordinator {
    /// Settles what is not settled: now, whenever the bell rings, and from time to time.
    pub(crate) async fn settle_all(&self) -> Infallible {
        let telling = Mutex::new(Telling::default());
        let mut tick = interval(AGAIN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stage.bell.ring.notified() => {}
            }
            if let Err(error) = self.settle_pass(&telling).await {
                tracing::error!(event = "store_failed", %error);
            }
        }
    }

    async fn settle_pass(&self, telling: &Mutex<Telling>) -> Result<(), StoreError> {
        let mut doubtful = self.stage.bell.take();
        doubtful.extend(self.stage.store.doubtful().await?);
        // What runs still will ring at its end.
        let doubtful = doubtful.into_iter().filter(|account| !self.table.rotates(*account));
        let asked = stream::iter(doubtful.map(Ok));
        asked.try_for_each_concurrent(AT_ONCE, |account| self.discover(account)).await?;
        let unsettled = stream::iter(self.stage.store.unsettled().await?.into_iter().map(Ok));
        unsettled.try_for_each_concurrent(AT_ONCE, |account| self.settle(account, telling)).await?;
        self.stage.metrics.unsettled(self.stage.store.unsettled().await?.len());
        Ok(())
    }

    /// Tells the parties of one account what is known until none of them goes on.
    async fn settle(&self, account: AccountId, telling: &Mutex<Telling>) -> Result<(), StoreError> {
        let Some(mut settling) = self.stage.store.settling(account).await? else {
            return Ok(());
        };
        let dismissed = settling.dismiss(|party| self.dialer.to(party).is_some());
        for party in &dismissed {
            let advice = "it is configured here no more and is not told; if it comes back, settle with it by hand";
            tracing::warn!(event = "party_dismissed", %account, %party, epoch = settling.epoch(), advice);
        }
        if !dismissed.is_empty() {
            self.stage.store.keep_settling(account, &settling).await?;
        }
        let mut stuck: Vec<(PartyId, Stuck)> = Vec::new();
        for _ in 0..ROUNDS {
            let told = settling.request();
            let asked = settling.due().into_iter().map(|party| self.tell(party, &told));
            let answers = join_all(asked).await;
            stuck.clear();
            let mut onward = false;
            for (party, answer) in answers {
                match settling.hear(&party, &told, &answer) {
                    Heard::Onward => onward = true,
                    Heard::Nothing => {}
                    Heard::Stuck(why) => stuck.push((party, why)),
                }
            }
            if onward {
                self.stage.store.keep_settling(account, &settling).await?;
            }
            if !onward || settling.is_over() {
                break;
            }
        }
        let epoch = settling.epoch();
        let mut telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
        if settling.is_over() {
            telling.settled(account);
            tracing::info!(event = "rotation_settled", %account, epoch);
            return Ok(());
        }
        let state = Unsettled::of(&settling, &stuck);
        let parties = state.parties();
        let why: Vec<String> = stuck.iter().map(|(party, stuck)| format!("{party}: {}", stuck.why)).collect();
        let why = why.join("; ");
        match telling.tell(account, state, Instant::now()) {
            Volume::Warn => tracing::warn!(
                event = "rotation_unsettled",
                %account,
                epoch,
                parties,
                why,
                advice = "old shares are kept until all parties have switched; it is tried again every minute, and told again \
                          when this changes, or in an hour",
            ),
            Volume::Debug => tracing::debug!(event = "rotation_unsettled", %account, epoch, parties, why),
        }
        Ok(())
    }

    async fn tell(&self, party: PartyId, told: &SettleRequest) -> (PartyId, Result<SettleAnswer, Problem>) {
        let answer = match self.dialer.to(&party) {
            Some(connection) => connection.settle(told).await,
            None => Err(not_configured(&party)),
        };
        (party, answer)
    }
}
