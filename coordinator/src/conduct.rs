//! Conducts one session from its first invitation to its durable end.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, PartyId, Problem, SessionId, SessionType};
use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::account::Account;
use crate::config::Config;
use crate::dial::{Connection, FrameStream, Invitation, Queue, Waiting, queue, reported_by};
use crate::metrics::Metrics;
use crate::session::{Event, Forward, Purpose, Report, Router, Seat, Session, Status, Tally};
use crate::store::{Store, StoreError};

/// How long the others may still report once a session cannot go on.
const GRACE: Duration = Duration::from_secs(3);
/// Frames and milestones of one session that wait to be looked at.
const EVENTS: usize = 64;
const RECORD_TRIES: u32 = 3;
const RECORD_PAUSE: Duration = Duration::from_millis(500);

/// What conducting a session needs from the rest of the house.
pub(crate) struct Stage {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
}

/// One party that is asked to take part; its place in the list is its position in the roster.
pub(crate) struct Player {
    pub(crate) party: PartyId,
    pub(crate) connection: Arc<Connection>,
    pub(crate) invitation: Invitation,
}

/// Runs a session that has been recorded. Ends once its result is durable and its streams are closed.
///
/// A panic on the way fails this session alone.
pub(crate) async fn conduct(stage: Arc<Stage>, session: Session, seat: Seat, players: Vec<Player>) {
    let mut conductor = Conductor {
        stage,
        session,
        seat,
    };
    let performed = AssertUnwindSafe(conductor.perform(players))
        .catch_unwind()
        .await;
    if performed.is_err() && !conductor.session.is_over() {
        conductor.finish(Event::Failed(broken())).await;
    }
}

struct Conductor {
    stage: Arc<Stage>,
    session: Session,
    seat: Seat,
}

/// The parties of a session while it runs.
struct Ensemble {
    tasks: JoinSet<(usize, Result<Outcome, Problem>)>,
    events: mpsc::Receiver<(usize, Progress)>,
    router: Router,
    queues: Vec<Queue>,
    parties: Vec<PartyId>,
}

/// What a party does before its last word.
enum Progress {
    Joined,
    Attached,
    Sent(Frame),
}

impl Ensemble {
    fn invite(id: &SessionId, players: Vec<Player>, limit: usize) -> Self {
        let parties: Vec<PartyId> = players.iter().map(|player| player.party.clone()).collect();
        let (report, events) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        let mut queues = Vec::with_capacity(players.len());
        for (position, player) in players.into_iter().enumerate() {
            let (queue, waiting) = queue(limit);
            queues.push(queue);
            let (id, report) = (id.clone(), report.clone());
            tasks.spawn(async move {
                (
                    position,
                    follow(position, player, &id, waiting, &report).await,
                )
            });
        }
        Self {
            tasks,
            events,
            router: Router::new(id.clone(), parties.clone()),
            queues,
            parties,
        }
    }

    /// Passes a frame on.
    fn relay(&mut self, from: usize, frame: Frame) -> Result<(), Stumble> {
        let blame = |position, problem| Stumble { position, problem };
        let Forward { to, frame } = self
            .router
            .route(from, frame)
            .map_err(|problem| blame(from, problem))?;
        for position in to {
            let Some(queue) = self.queues.get(position) else {
                continue;
            };
            if queue.put(frame.clone()).is_err() {
                return Err(blame(position, self.too_slow(position)));
            }
        }
        Ok(())
    }

    fn too_slow(&self, position: usize) -> Problem {
        let party = self
            .parties
            .get(position)
            .map_or("a party", PartyId::as_str);
        let detail = format!("{party} does not take its messages: its queue is full");
        Problem::new(Code::TransportFault, detail).with("party", party)
    }

    /// Ends what is sent to the parties; they take it as the end of the session.
    fn hang_up(&mut self) {
        self.queues.clear();
    }

    /// Lets the parties hear of the end, then cuts off who does not answer.
    async fn dismiss(mut self) {
        self.hang_up();
        self.events.close();
        // Those who do not answer are cut off when the set is dropped.
        let _: Result<(), _> = timeout(GRACE, async {
            while self.tasks.join_next().await.is_some() {}
        })
        .await;
    }
}

/// What ends a party's part in the session.
struct Stumble {
    position: usize,
    problem: Problem,
}

/// Follows one party: asks it, attaches its stream, and reports what it sends up to its last word.
async fn follow(
    position: usize,
    player: Player,
    session: &SessionId,
    waiting: Waiting,
    report: &mpsc::Sender<(usize, Progress)>,
) -> Result<Outcome, Problem> {
    let Player {
        party,
        connection,
        invitation,
    } = player;
    // Nobody listens any more once the session is over; the party is then only led to its end.
    let tell = async |progress| {
        let _: Result<(), _> = report.send((position, progress)).await;
    };
    connection.participate(&invitation).await?;
    tell(Progress::Joined).await;
    let mut stream: FrameStream = connection.attach(session, waiting).await?;
    tell(Progress::Attached).await;
    loop {
        match stream.next().await? {
            Some(Frame::Outcome(outcome)) => return Ok(*outcome),
            Some(frame) => tell(Progress::Sent(frame)).await,
            None => {
                let detail = format!("{party} ended its message stream without an outcome");
                return Err(
                    Problem::new(Code::TransportFault, detail).with("party", party.as_str())
                );
            }
        }
    }
}

impl Conductor {
    async fn perform(&mut self, players: Vec<Player>) {
        self.happen(Event::Inviting);
        let limit = self.stage.config.limits.queue;
        let mut ensemble = Ensemble::invite(self.session.id(), players, limit);
        let ending = self.play(&mut ensemble).await;
        self.finish(ending).await;
        ensemble.dismiss().await;
    }

    /// Relays until the session is decided. Returns how it ends.
    async fn play(&mut self, ensemble: &mut Ensemble) -> Event {
        let mut tally = Tally::default();
        let mut curtain = pin!(sleep_until(Instant::now()));
        let mut closing = false;
        while tally.len() < ensemble.parties.len() {
            let step = tokio::select! {
                biased;
                stop = self.seat.stopped() => return stop.into(),
                () = &mut curtain, if closing => break,
                // Before the tasks' ends: what a party sent is passed on before its last word counts.
                Some((from, progress)) = ensemble.events.recv() => self.progress(ensemble, from, progress),
                Some(ended) = ensemble.tasks.join_next() => match ended {
                    Ok((from, outcome)) => {
                        self.report(&mut tally, ensemble, from, outcome);
                        Ok(())
                    }
                    Err(panic) => {
                        tracing::error!(event = "session_task_failed", session = %self.session.id(), %panic);
                        return Event::Failed(broken());
                    }
                },
            };
            if let Err(Stumble { position, problem }) = step {
                self.report(&mut tally, ensemble, position, Err(problem));
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
        let pinned = |party: &PartyId| self.stage.config.identity(party).cloned();
        match tally.conclude(&self.session, pinned) {
            Ok(finding) => Event::Completed(Box::new(finding)),
            Err(problem) => Event::Failed(problem),
        }
    }

    /// A signature may exist although one party failed; a key needs all.
    fn may_still_succeed(&self) -> bool {
        self.session.session_type() == SessionType::Sign
            && self.session.status() == Status::InProgress
    }

    fn progress(
        &mut self,
        ensemble: &mut Ensemble,
        from: usize,
        progress: Progress,
    ) -> Result<(), Stumble> {
        match progress {
            Progress::Joined => self.happen(Event::Joined(from)),
            Progress::Attached => self.happen(Event::Attached(from)),
            Progress::Sent(frame) => return ensemble.relay(from, frame),
        }
        Ok(())
    }

    fn report(
        &mut self,
        tally: &mut Tally,
        ensemble: &Ensemble,
        from: usize,
        outcome: Result<Outcome, Problem>,
    ) {
        let Some(party) = ensemble.parties.get(from) else {
            return;
        };
        if tally.has(party) {
            return;
        }
        let outcome = match outcome {
            Ok(Outcome::Failed { problem }) => Err(reported_by(problem, party)),
            other => other,
        };
        let event = if outcome.is_ok() {
            Event::Finished(from)
        } else {
            Event::Dropped(from)
        };
        if let Err(problem) = &outcome {
            tracing::warn!(event = "party_failed", session = %self.session.id(), %party, %problem);
        }
        self.happen(event);
        tally.add(Report {
            party: party.clone(),
            outcome,
        });
    }

    /// Notes what happened and shows it to those who watch.
    fn happen(&mut self, event: Event) {
        match self.session.apply(event, Timestamp::now()) {
            Ok(()) => self.seat.publish(&self.session),
            Err(error) => {
                tracing::warn!(event = "out_of_order", session = %self.session.id(), %error)
            }
        }
    }

    /// Ends the session: durable first, then visible.
    async fn finish(&mut self, ending: Event) {
        let now = Timestamp::now();
        let mut ended = self.session.clone();
        if let Err(error) = ended.apply(ending, now) {
            tracing::warn!(event = "out_of_order", session = %self.session.id(), %error);
            ended = self.failed(Problem::new(
                Code::ProtocolAborted,
                "a party reported a result before all took part",
            ));
        }
        if let Err(error) = self.record(&ended, now).await {
            tracing::error!(event = "session_not_recorded", session = %self.session.id(), %error);
            ended = self.failed(Problem::new(
                Code::Internal,
                "the result could not be recorded; see the coordinator's log",
            ));
        }
        self.session = ended;
        self.stage.metrics.session_ended(&self.session);
        let (id, kind, status) = (
            self.session.id(),
            self.session.session_type(),
            self.session.status(),
        );
        match self.session.error() {
            Some(problem) => {
                tracing::warn!(event = "session_ended", session = %id, %kind, status = status.as_str(), %problem)
            }
            None => {
                tracing::info!(event = "session_ended", session = %id, %kind, status = status.as_str())
            }
        }
        self.seat.publish(&self.session);
    }

    /// Makes the end durable. A result that exists is worth more than one try.
    async fn record(&self, ended: &Session, now: Timestamp) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let result = self
                .stage
                .store
                .end_session(ended, account(ended, now))
                .await;
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
        Purpose::Keygen(new) => Some(Account::open(
            new,
            certificate,
            ended.threshold(),
            ended.participants(),
            now,
        )),
        Purpose::Sign { .. } => None,
    }
}

fn broken() -> Problem {
    Problem::new(
        Code::Internal,
        "the coordinator failed while it ran the session; see its log",
    )
}
