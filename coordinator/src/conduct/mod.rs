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

use crate::account::{Account, Advance, Device};
use crate::config::Config;
use crate::dial::reported_by;
use crate::metrics::Metrics;
use crate::session::{Event, Finding, Purpose, Report, Seat, Session, Status, Tally};
use crate::settle::Bell;
use crate::store::{Effect, Store, StoreError};
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
    /// Calls the task that settles rotations.
    pub(crate) bell: Arc<Bell>,
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
    let Conductor { stage, session, seat } = conductor;
    drop(seat);
    // Until now what is unclear about its account was left alone.
    if matches!(session.purpose(), Purpose::Rotate(_)) {
        stage.bell.ring();
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
                stop = self.seat.stopped() => return match self.conclude(&tally) {
                    // What exists is told even if somebody has not come to his end.
                    Ok(finding) => Event::Completed(Box::new(finding)),
                    Err(_) => stop.into(),
                },
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
                // A rotation may be over at one party, whose stream then breaks, and need a last message at another.
                if self.session.session_type() != SessionType::Rotate {
                    ensemble.hang_up();
                }
                curtain.as_mut().reset(Instant::now() + GRACE);
            }
        }
        match self.conclude(&tally) {
            Ok(finding) => Event::Completed(Box::new(finding)),
            Err(problem) => Event::Failed(problem),
        }
    }

    fn conclude(&self, tally: &Tally) -> Result<Finding, Problem> {
        tally.conclude(&self.session, |member: &Member| self.stage.config.known_member(member))
    }

    /// A signature may exist although one party failed, and a key may have moved on; a new key needs all.
    fn may_still_succeed(&self) -> bool {
        self.session.session_type() != SessionType::Keygen && self.session.status() == Status::InProgress
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
        let began = self.session.status() == Status::InProgress;
        let mut ended = self.session.clone();
        if let Err(error) = ended.apply(ending, now) {
            let detail = format!("a party reported a result too early: {error}");
            ended = self.failed(Problem::new(Code::ProtocolAborted, detail));
        }
        if let Err(error) = self.record(&ended, began, now).await {
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
        self.call_settling();
        self.seat.publish(&self.session);
    }

    /// What follows a rotation is done beside the sessions.
    fn call_settling(&self) {
        match self.session.purpose() {
            Purpose::Rotate(_) => self.stage.bell.ring(),
            Purpose::Sign { account_id, .. } => {
                // The key may have moved on in a rotation whose end was not seen here.
                if self.session.error().is_some_and(|problem| problem.code == Code::QuorumMismatch) {
                    self.stage.bell.doubt(*account_id);
                }
            }
            Purpose::Keygen(_) => {}
        }
    }

    /// Makes the end durable. A result that exists is worth more than one try.
    async fn record(&self, ended: &Session, began: bool, now: Timestamp) -> Result<(), StoreError> {
        let effect = effect(ended, now);
        let mut tries = 0;
        loop {
            let result = self.stage.store.end_session(ended, began, effect.as_ref()).await;
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

/// What a completed session does to an account: a key opens one, a rotation takes it to another epoch.
fn effect(ended: &Session, now: Timestamp) -> Option<Effect> {
    let finding = ended.finding()?;
    match ended.purpose() {
        Purpose::Keygen(new) => {
            let account = Account::open(new, finding.certificate()?, ended.threshold(), ended.participants(), now);
            Some(Effect::Open(Box::new(account)))
        }
        Purpose::Rotate(new) => {
            let device = |party: &PartyId| -> Option<Device> {
                ended.participants().iter().find(|p| &p.member.party_id == party)?.device.clone()
            };
            let advance = Advance::new(new.account_id, finding.succession()?.clone(), device);
            Some(Effect::Advance(Box::new(advance)))
        }
        Purpose::Sign { .. } => None,
    }
}

fn broken() -> Problem {
    Problem::new(Code::Internal, "the coordinator failed while it ran the session; see its log")
}
