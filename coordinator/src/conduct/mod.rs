//! Conducts one session from its first invitation to its durable end.

mod ensemble;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use casemate_wire::frame::Outcome;
use casemate_wire::{Code, Member, PartyId, Problem, SessionType};
use futures::FutureExt;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use crate::account::Account;
use crate::config::Config;
use crate::dial::reported_by;
use crate::metrics::Metrics;
use crate::session::{Event, Purpose, Report, Seat, Session, Status, Tally};
use crate::store::{Store, StoreError};
pub(crate) use ensemble::Player;
use ensemble::{Ensemble, Heard, Progress, Stumble};

/// How long the others may still report once a session cannot go on.
const GRACE: Duration = Duration::from_secs(3);
const RECORD_TRIES: u32 = 3;
const RECORD_PAUSE: Duration = Duration::from_millis(500);

/// What conducting a session needs from the rest of the house.
pub(crate) struct Stage {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Runs a session that has been recorded. Ends once its result is durable and its streams are closed.
///
/// A panic on the way fails this session alone.
pub(crate) async fn conduct(stage: Arc<Stage>, session: Session, seat: Seat, players: Vec<Player>) {
    let mut conductor = Conductor { stage, session, seat };
    let performed = AssertUnwindSafe(conductor.perform(players)).catch_unwind().await;
    if performed.is_err() && !conductor.session.is_over() {
        conductor.finish(Event::Failed(broken())).await;
    }
}

struct Conductor {
    stage: Arc<Stage>,
    session: Session,
    seat: Seat,
}

impl Conductor {
    async fn perform(&mut self, players: Vec<Player>) {
        self.happen(Event::Inviting);
        let limit = self.stage.config.limits.queue;
        let mut ensemble = Ensemble::invite(self.session.id(), players, limit);
        let ending = self.play(&mut ensemble).await;
        self.finish(ending).await;
        ensemble.dismiss(GRACE).await;
    }

    /// Relays until the session is decided. Returns how it ends.
    async fn play(&mut self, ensemble: &mut Ensemble) -> Event {
        let mut tally = Tally::default();
        let mut closing = false;
        let mut curtain = pin!(sleep_until(Instant::now()));
        while tally.len() < ensemble.size() {
            let heard = tokio::select! {
                biased;
                stop = self.seat.stopped() => return stop.into(),
                () = &mut curtain, if closing => break,
                heard = ensemble.next() => heard,
            };
            match heard {
                Heard::Progress(from, progress) => {
                    if let Err(Stumble { position, problem }) = self.progress(ensemble, from, progress) {
                        ensemble.cut_off(position);
                        self.report(&mut tally, ensemble.party(position), position, Err(problem));
                    }
                }
                Heard::Ended(from, outcome) => {
                    self.report(&mut tally, ensemble.party(from), from, outcome);
                }
                Heard::Broken => return Event::Failed(broken()),
            }
            if tally.has_failure() && !closing {
                if !self.may_still_succeed() {
                    break;
                }
                closing = true;
                ensemble.hang_up();
                curtain.as_mut().reset(Instant::now() + GRACE);
            }
        }
        let pinned = |member: &Member| self.stage.config.identity(&member.party_id).cloned();
        match tally.conclude(&self.session, pinned) {
            Ok(finding) => Event::Completed(Box::new(finding)),
            Err(problem) => Event::Failed(problem),
        }
    }

    /// A signature may exist although one party failed; a key needs all.
    fn may_still_succeed(&self) -> bool {
        self.session.session_type() == SessionType::Sign && self.session.status() == Status::InProgress
    }

    fn progress(&mut self, ensemble: &mut Ensemble, from: usize, progress: Progress) -> Result<(), Stumble> {
        match progress {
            Progress::Joined => self.happen(Event::Joined(from)),
            Progress::Attached => self.happen(Event::Attached(from)),
            Progress::Sent(frame) => return ensemble.relay(from, &frame),
        }
        Ok(())
    }

    /// Takes a party's last word; only the first one counts.
    fn report(
        &mut self,
        tally: &mut Tally,
        party: Option<&PartyId>,
        position: usize,
        outcome: Result<Outcome, Problem>,
    ) {
        let Some(party) = party.filter(|party| !tally.has(party)) else {
            return;
        };
        let outcome = match outcome {
            Ok(Outcome::Failed { problem }) => Err(reported_by(problem, party)),
            other => other,
        };
        if let Err(problem) = &outcome {
            tracing::warn!(event = "party_failed", session = %self.session.id(), %party, %problem);
        }
        self.happen(if outcome.is_ok() { Event::Finished(position) } else { Event::Dropped(position) });
        tally.add(Report { party: party.clone(), outcome });
    }

    /// Notes what happened and shows it to those who watch.
    fn happen(&mut self, event: Event) {
        match self.session.apply(event, Timestamp::now()) {
            Ok(()) => self.seat.publish(&self.session),
            Err(error) => {
                tracing::warn!(event = "out_of_order", session = %self.session.id(), %error);
            }
        }
    }

    /// Ends the session: durable first, then visible.
    async fn finish(&mut self, ending: Event) {
        let now = Timestamp::now();
        let mut ended = self.session.clone();
        if let Err(error) = ended.apply(ending, now) {
            let detail = format!("a party reported a result too early: {error}");
            ended = self.failed(Problem::new(Code::ProtocolAborted, detail));
        }
        if let Err(error) = self.record(&ended, now).await {
            tracing::error!(event = "session_not_recorded", session = %ended.id(), %error);
            let detail = "the result could not be recorded; see the coordinator's log";
            ended = self.failed(Problem::new(Code::Internal, detail));
        }
        self.session = ended;
        self.stage.metrics.session_ended(&self.session);
        let (id, kind, status) = (self.session.id(), self.session.session_type(), self.session.status().as_str());
        if let Some(problem) = self.session.error() {
            tracing::warn!(event = "session_ended", session = %id, %kind, status, %problem);
        } else {
            tracing::info!(event = "session_ended", session = %id, %kind, status);
        }
        self.seat.publish(&self.session);
    }

    /// Makes the end durable. A result that exists is worth more than one try.
    async fn record(&self, ended: &Session, now: Timestamp) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let result = self.stage.store.end_session(ended, account(ended, now)).await;
            tries += 1;
            if result.is_ok() || tries >= RECORD_TRIES {
                return result;
            }
            sleep(RECORD_PAUSE).await;
        }
    }

    fn failed(&self, problem: Problem) -> Session {
        let mut session = self.session.clone();
        if let Err(error) = session.apply(Event::Failed(problem), Timestamp::now()) {
            tracing::error!(event = "out_of_order", session = %session.id(), %error);
        }
        session
    }
}

/// The account that a completed keygen opens.
fn account(ended: &Session, now: Timestamp) -> Option<Account> {
    let certificate = ended.finding()?.certificate()?;
    match ended.purpose() {
        Purpose::Keygen(new) => Some(Account::open(new, certificate, ended.threshold(), ended.participants(), now)),
        Purpose::Sign { .. } => None,
    }
}

fn broken() -> Problem {
    Problem::new(Code::Internal, "the coordinator failed while it ran the session; see its log")
}
