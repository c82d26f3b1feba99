//! The parties of a running session: a task and a queue for each, and the way from one to the other.

use std::sync::Arc;
use std::time::Duration;

use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, PartyId, Problem, SessionId};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::dial::{Connection, Invitation, Queue, Waiting, queue};
use crate::session::{Forward, Router};

/// Frames and milestones of one session that wait to be looked at.
const EVENTS: usize = 64;

/// One party that is asked to take part; its place in the list is its position in the roster.
pub(crate) struct Player {
    pub(crate) party: PartyId,
    pub(crate) connection: Arc<Connection>,
    pub(crate) invitation: Invitation,
}

/// The parties of a session while it runs.
pub(super) struct Ensemble {
    parties: Vec<PartyId>,
    router: Router,
    queues: Vec<Queue>,
    events: mpsc::Receiver<(usize, Progress)>,
    tasks: JoinSet<(usize, Result<Outcome, Problem>)>,
    handles: Vec<AbortHandle>,
}

/// What comes from the party at this position.
pub(super) enum Heard {
    /// It goes on.
    Progress(usize, Progress),
    /// Its last word.
    Ended(usize, Result<Outcome, Problem>),
    /// A task of ours panicked.
    Broken,
}

/// What a party does before its last word.
pub(super) enum Progress {
    /// It accepted its token.
    Joined,
    /// Its message stream stands.
    Attached,
    /// It sent something for the others.
    Sent(Frame),
}

/// Why the party at this position cannot go on.
pub(super) struct Stumble {
    pub(super) position: usize,
    pub(super) problem: Problem,
}

impl Ensemble {
    /// Asks all parties at once. `limit` bytes may wait for each.
    pub(super) fn invite(session: &SessionId, players: Vec<Player>, limit: usize) -> Self {
        let parties: Vec<PartyId> = players.iter().map(|player| player.party.clone()).collect();
        let (report, events) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        let mut handles = Vec::with_capacity(players.len());
        let mut queues = Vec::with_capacity(players.len());
        for (position, player) in players.into_iter().enumerate() {
            let (queue, waiting) = queue(limit);
            queues.push(queue);
            let session = session.clone();
            let teller = Teller { position, report: report.clone() };
            let task = tasks.spawn(async move { (position, follow(player, &session, waiting, &teller).await) });
            handles.push(task);
        }
        let router = Router::new(session.clone(), parties.clone());
        Self { parties, router, queues, events, tasks, handles }
    }

    /// How many take part.
    pub(super) fn size(&self) -> usize {
        self.parties.len()
    }

    /// The party at a position.
    pub(super) fn party(&self, position: usize) -> Option<&PartyId> {
        self.parties.get(position)
    }

    /// What comes next from any party. What a party sent comes before its last word. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                biased;
                Some((from, progress)) = self.events.recv() => return Heard::Progress(from, progress),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok((from, outcome)) => return Heard::Ended(from, outcome),
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => return Heard::Broken,
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Passes a frame on to whom it is for.
    ///
    /// # Errors
    /// The sender misbehaves, or a recipient takes its messages too slowly.
    pub(super) fn relay(&mut self, from: usize, frame: &Frame) -> Result<(), Stumble> {
        let routed = self.router.route(from, frame);
        let Forward { to, frame } = routed.map_err(|problem| Stumble { position: from, problem })?;
        for position in to {
            // There is none any more once the session is ending.
            let Some(queue) = self.queues.get(position) else {
                continue;
            };
            if queue.put(frame.clone()).is_err() {
                return Err(Stumble { position, problem: self.too_slow(position) });
            }
        }
        Ok(())
    }

    fn too_slow(&self, position: usize) -> Problem {
        let party = self.party(position).map_or("a party", PartyId::as_str);
        let detail = format!("{party} does not take its messages: its queue is full");
        Problem::new(Code::TransportFault, detail).with("party", party)
    }

    /// Resets the stream of a party that does not play by the rules, so that it takes nothing from other sessions.
    pub(super) fn cut_off(&self, position: usize) {
        if let Some(task) = self.handles.get(position) {
            task.abort();
        }
    }

    /// Ends what is sent to the parties; they take it as the end of the session.
    pub(super) fn hang_up(&mut self) {
        self.queues.clear();
    }

    /// Lets the parties hear of the end, then cuts off who has not answered after `grace`.
    pub(super) async fn dismiss(mut self, grace: Duration) {
        self.hang_up();
        self.events.close();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // Dropping the set cuts off the rest.
        let _: Result<(), _> = timeout(grace, all).await;
    }
}

/// Tells what one party does.
struct Teller {
    position: usize,
    report: mpsc::Sender<(usize, Progress)>,
}

impl Teller {
    async fn tell(&self, progress: Progress) {
        // Nobody listens any more once the session is over; the party is then only led to its end.
        let _: Result<(), _> = self.report.send((self.position, progress)).await;
    }
}

/// Follows one party: asks it, attaches its stream, and tells what it sends up to its last word.
async fn follow(player: Player, session: &SessionId, waiting: Waiting, teller: &Teller) -> Result<Outcome, Problem> {
    let Player { party, connection, invitation } = player;
    connection.participate(&invitation).await?;
    teller.tell(Progress::Joined).await;
    let mut stream = connection.attach(session, waiting).await?;
    teller.tell(Progress::Attached).await;
    while let Some(frame) = stream.next().await? {
        match frame {
            Frame::Outcome(outcome) => return Ok(*outcome),
            other => teller.tell(Progress::Sent(other)).await,
        }
    }
    let detail = format!("{party} ended its message stream without an outcome");
    Err(Problem::new(Code::TransportFault, detail).with("party", party.as_str()))
}
