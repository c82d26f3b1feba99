//! Random histories with crashes and outages over the real store: what must hold of the log holds after each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use casemate_appliance::store::{Store, StoreError, Transaction, Urgency};
use casemate_attest::{Checkpoint, Entry, Guard, Line, Outcome, Phase, Refusal, Verdict, Verifier};
use proptest::prelude::*;
use tempfile::TempDir;

use super::site::{MemoryAnchor, Mood, Site, change, intend, intent_at, lines, run, signature, text};

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// A session with a fresh token; whether its end is written, too.
    Session {
        ends: bool,
    },
    /// A token that was used before is shown again.
    Replay(prop::sample::Index),
    /// A checkpoint is signed.
    Sign,
    Outage(Mood),
    Back,
    /// The host dies while nothing is being written.
    Crash,
    /// The host dies between the next commit and its anchor.
    CrashBetween,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|ends| Step::Session { ends }),
        2 => any::<prop::sample::Index>().prop_map(Step::Replay),
        2 => Just(Step::Sign),
        1 => Just(Step::Outage(Mood::Refuses)),
        1 => Just(Step::Outage(Mood::LosesAnswers)),
        2 => Just(Step::Back),
        1 => Just(Step::Crash),
        1 => Just(Step::CrashBetween),
        1 => Just(Step::Restart),
    ]
}

/// What the rest of the world knows of the appliance.
#[derive(Default)]
struct World {
    sessions: u64,
    /// Tokens that were accepted or may have been.
    tokens: Vec<String>,
    /// Results that went out, by session.
    released: BTreeMap<String, u8>,
    signed: Vec<Checkpoint>,
}

/// A host that may die: then it goes on from what lay on its disk.
struct Host {
    site: Site,
    store: Store,
    died: Arc<Mutex<Option<TempDir>>>,
}

fn copy_folder(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::set_permissions(to.path(), fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        // What only lives in memory that is shared between processes dies with them.
        if !name.to_str().unwrap().ends_with("-shm") {
            fs::copy(entry.path(), to.path().join(name)).unwrap();
        }
    }
    to
}

impl Host {
    fn start(site: Site) -> Self {
        site.anchor.fresh();
        let store = site.open();
        assert!(["equal", "catch_up"].contains(&store.verdict()), "{}", store.verdict());
        Self { site, store, died: Arc::default() }
    }

    /// Ends every session that has none, as a start does.
    async fn interrupt(&self) {
        loop {
            let open = self
                .store
                .read(|c| {
                    let one = "SELECT session_id, intent FROM sessions WHERE status = 'accepted' LIMIT 1";
                    Ok(c.query_row(one, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).ok())
                })
                .await
                .unwrap();
            let Some((session, intent)) = open else { return };
            let end = move |t: &mut Transaction<'_>| {
                let outcome = Outcome::failed(text("interrupted"), text("a crash"));
                end(t, &session, u64::try_from(intent).unwrap(), outcome, "failed")
            };
            self.store.write(Urgency::Record, end).await.unwrap();
        }
    }

    async fn restarted(self) -> Self {
        let Self { site, store, .. } = self;
        store.close();
        drop(store);
        let host = Self::start(site);
        host.interrupt().await;
        host
    }

    /// Goes on with what lay on the disk, in the moment of its death or now.
    async fn crashed(self) -> Self {
        let Self { site, store, died } = self;
        let folder = died.lock().unwrap().take().unwrap_or_else(|| copy_folder(site.path()));
        let anchor: MemoryAnchor = site.anchor.clone();
        let stood = anchor.standing();
        // What the dying process still does reaches neither disk nor HSM.
        store.close();
        drop(store);
        anchor.replace(stood);
        let host = Self::start(Site { folder, anchor });
        host.interrupt().await;
        host
    }

    fn is_dead(&self) -> bool {
        self.died.lock().unwrap().is_some()
    }
}

fn end(t: &mut Transaction<'_>, session: &str, seq: u64, outcome: Outcome, status: &str) -> Result<(), StoreError> {
    let changed = run(
        t,
        &format!("UPDATE sessions SET status = '{status}' WHERE session_id = '{session}' AND status = 'accepted'"),
    )?;
    assert_eq!(changed, 1, "{session} has ended already");
    let entry = Entry::outcome(intent_at(t, seq), outcome).guarding(vec![change(Guard::Session, session, status)]);
    t.append(entry).map(|_| ())
}

impl World {
    async fn session(&mut self, host: &Host, ends: bool) {
        self.sessions += 1;
        let session = format!("s-{}", self.sessions);
        let mark = u8::try_from(self.sessions % 250).unwrap() + 1;
        self.tokens.push(session.clone());
        let name = session.clone();
        let Ok(seq) = host.store.write(Urgency::Record, move |t| intend(t, &name, Vec::new())).await else { return };
        if !ends {
            return;
        }
        let name = session.clone();
        let ended = host
            .store
            .write(Urgency::Record, move |t| end(t, &name, seq, Outcome::signed(signature(mark)), "completed"))
            .await;
        if ended.is_ok() {
            self.released.insert(session, mark);
        }
    }

    async fn replay(&mut self, host: &Host, which: prop::sample::Index) {
        if self.tokens.is_empty() {
            return;
        }
        let session = which.get(&self.tokens).clone();
        let again = session.clone();
        // Only a token whose use never became durable counts still; then it is used now.
        let result = host.store.write(Urgency::Record, move |t| intend(t, &again, Vec::new())).await;
        if result.is_ok() {
            assert!(!self.released.contains_key(&session), "the token of {session} was taken twice");
        }
    }

    async fn is_whole(&self, host: &Host) {
        let lines = lines(&host.store).await;
        let mut verifier = Verifier::new();
        for checkpoint in &self.signed {
            verifier = verifier.against(checkpoint.clone()).unwrap();
        }
        for line in &lines {
            verifier.feed(line.as_bytes()).unwrap();
        }
        // The signed ones are of the anchored log; the store may hold one unanchored group more.
        let report = verifier.finish().unwrap();
        let distinct: BTreeSet<u64> = self.signed.iter().map(|checkpoint| checkpoint.size).collect();
        assert_eq!(report.checkpoints, distinct.len() as u64);
        let leaves: Vec<_> = lines.iter().map(|line| Line::read(line.as_bytes()).unwrap().leaf().clone()).collect();
        let mut used = BTreeSet::new();
        for change in leaves.iter().flat_map(|leaf| &leaf.guards).filter(|change| change.guard == Guard::Token) {
            assert!(used.insert(change.id.clone()), "{} was used twice", change.id);
        }
        for (session, mark) in &self.released {
            let of = |phase: Phase| {
                leaves
                    .iter()
                    .find(|leaf| leaf.phase == phase && leaf.session.as_ref().is_some_and(|s| s.as_str() == session))
            };
            let (intent, outcome) = (of(Phase::Intent).unwrap(), of(Phase::Outcome).unwrap());
            assert!(intent.seq < outcome.seq);
            let outcome = outcome.outcome.as_ref().unwrap();
            assert_eq!((outcome.result, outcome.signature), (Verdict::Completed, Some(signature(*mark))), "{session}");
        }
    }
}

async fn run_history(steps: Vec<Step>) {
    let mut host = Host::start(Site::begun());
    let mut world = World::default();
    for step in steps {
        match step {
            Step::Session { ends } => world.session(&host, ends).await,
            Step::Replay(which) => world.replay(&host, which).await,
            Step::Sign => world.signed.push(Checkpoint::of(&host.store.audit_head())),
            Step::Outage(mood) => host.site.anchor.mood(mood),
            Step::Back => host.site.anchor.mood(Mood::Works),
            Step::Crash => host = host.crashed().await,
            Step::CrashBetween => {
                let (died, folder) = (host.died.clone(), host.site.path().to_owned());
                let anchor = host.site.anchor.clone();
                host.site.anchor.mood(Mood::Works);
                host.site.anchor.between(move || {
                    *died.lock().unwrap() = Some(copy_folder(&folder));
                    // Nothing more comes out of this process.
                    anchor.mood(Mood::Refuses);
                });
            }
            Step::Restart => host = host.restarted().await,
        }
        if host.is_dead() {
            host = host.crashed().await;
        }
    }
    host = host.restarted().await;
    world.is_whole(&host).await;
    let end = host.site.anchor.standing().unwrap();
    assert_eq!((end.size, end.root), (host.store.audit_head().size(), host.store.audit_head().root()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_released_result_is_without_its_leaves_and_all_checkpoints_agree(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run_history(steps));
    }
}

#[tokio::test]
async fn a_history_that_goes_on_from_an_older_disk_contradicts_what_was_signed() {
    let host = Host::start(Site::begun());
    let mut world = World::default();
    world.session(&host, true).await;
    let old = copy_folder(host.site.path());
    world.session(&host, true).await;
    world.signed.push(Checkpoint::of(&host.store.audit_head()));
    let anchor = host.site.anchor.clone();
    drop(host);
    let restored = Site { folder: old, anchor };
    assert_eq!(restored.refused().0, Refusal::Rollback);
}
