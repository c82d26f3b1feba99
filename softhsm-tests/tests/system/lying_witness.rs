//! A captured peer with its pinned identity and audit keys that lies about its audit log: it is named, before anything is
//! done with it, and what was known of it stays.

use std::time::Duration;

use casemate_appliance::clients::Role;
use casemate_attest::tree::MemoryNodes;
use casemate_attest::{AuditKey, Checkpoint, ConsistencyProof, Leaf, Phase};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{End, LyingCoordinator, Parcel, TestLab};
use casemate_wire::envelope::{Checkpoint as Stated, Handshake, Limits, Local, SignedHello, To, Witnessed};
use casemate_wire::frame::Frame;
use casemate_wire::{Code, Digest32, IdentityKey, PartyId, Problem};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rand::rngs::OsRng;
use serde::Serialize;
use serde_json::{Value, json};

const WITNESS: u16 = 0x0101;
const OPENING: u16 = 0x0201;

/// What the others know of its log at the beginning.
const KNOWN: u64 = 10;

fn spki(key: &SigningKey) -> Vec<u8> {
    key.verifying_key().to_public_key_der().unwrap().into_vec()
}

fn note_by(key: &SigningKey, checkpoint: Checkpoint) -> String {
    let signature: Signature = key.sign(checkpoint.text().as_bytes());
    let key = AuditKey::from_spki(&spki(key)).unwrap();
    checkpoint.signed(&key, &signature.to_bytes().into()).unwrap().note().to_owned()
}

/// Its log's tree: logs share their first leaves, the others are each one's own.
struct Log {
    name: &'static str,
    nodes: MemoryNodes,
    roots: Vec<Digest32>,
}

impl Log {
    fn new(name: &'static str, own: u8, shared: u64) -> Self {
        let mut nodes = MemoryNodes::default();
        let mut roots = vec![nodes.frontier().root()];
        for leaf in 0..64 {
            let mut hash = [if leaf < shared { 0 } else { own }; 32];
            hash[..8].copy_from_slice(&leaf.to_be_bytes());
            nodes.push(Digest32(hash));
            roots.push(nodes.frontier().root());
        }
        Self { name, nodes, roots }
    }

    fn at(&self, size: u64) -> Checkpoint {
        let root = self.roots[usize::try_from(size).unwrap()];
        Checkpoint { log: self.name.parse().unwrap(), size, root }
    }

    fn path(&self, from: u64, to: u64) -> Path {
        let proof = ConsistencyProof::make(from, to, &self.nodes).unwrap();
        Path { from, steps: proof.path.iter().flat_map(|hash| hash.0).collect() }
    }
}

#[derive(Serialize, Clone)]
struct Path {
    from: u64,
    #[serde(serialize_with = "as_bytes")]
    steps: Vec<u8>,
}

fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

#[derive(Serialize, Clone)]
struct Testimony {
    note: String,
    paths: Vec<Path>,
}

/// All that it says of logs in one session.
struct Story {
    name: &'static str,
    stated: Checkpoint,
    testimony: Testimony,
    /// What it says that it has seen of the first party's log: beyond its size, or with another root.
    seen: Option<u64>,
    garbage: bool,
    code: Code,
    says: &'static str,
}

struct Captured<'a> {
    identity: &'a SigningKey,
    party: PartyId,
    story: &'a Story,
    heard: Vec<SignedHello>,
    handshake: Option<Handshake>,
}

impl Captured<'_> {
    /// Sees a hello on its way: answers the first with its own, the second with what it says of its log.
    fn sees(&mut self, frame: &Frame) -> Vec<Frame> {
        let Frame::Hello(hello) = frame else { return Vec::new() };
        self.heard.push(hello.clone());
        match self.heard.len() {
            1 => vec![self.greets()],
            _ => self.testifies(),
        }
    }

    fn greets(&mut self) -> Frame {
        let first = &self.heard[0].hello;
        let witnessed = self.story.seen.map(|size| Witnessed {
            party: first.own.party.clone(),
            checkpoint: Stated { size, root: Digest32([9; 32]), ..first.own.checkpoint.clone() },
        });
        let Checkpoint { log, size, root } = self.story.stated.clone();
        let local = Local {
            party: self.party.clone(),
            checkpoint: Stated { log: log.to_string(), size, root },
            witnessed: witnessed.into_iter().collect(),
            attest: false,
            clock_skew: Duration::from_secs(30),
            limits: Limits::default(),
        };
        let mut handshake = Handshake::begin(first.view.clone(), local, jiff::Timestamp::now(), &mut OsRng).unwrap();
        let signature: Signature = self.identity.sign(handshake.to_sign());
        let hello = handshake.signed(signature.to_bytes().into()).unwrap();
        self.handshake = Some(handshake);
        Frame::Hello(hello)
    }

    fn testifies(&mut self) -> Vec<Frame> {
        let mut handshake = self.handshake.take().unwrap();
        self.heard.iter().for_each(|hello| handshake.accept(hello, jiff::Timestamp::now()).unwrap());
        let mut channel = handshake.finish(&mut OsRng).unwrap();
        let mut body = Vec::new();
        ciborium::into_writer(&self.story.testimony, &mut body).unwrap();
        if self.story.garbage {
            body.truncate(20);
        }
        // Whoever believes it goes on to the opening, which then ends the session.
        [(WITNESS, &body[..]), (OPENING, b"garbage")]
            .map(|(round, body)| Frame::Message(channel.seal(To::All, round, body).unwrap()))
            .into()
    }
}

struct Scene<'a> {
    lab: &'a TestLab,
    coordinator: &'a LyingCoordinator,
    identity: &'a SigningKey,
}

impl Scene<'_> {
    async fn plays(&self, story: &Story) {
        let mut proposal = self.coordinator.convener.keygen();
        proposal.invitations.truncate(2);
        let pinned = IdentityKey::from_spki(&spki(self.identity)).unwrap();
        let proposal = proposal.telling_all(|invitation| invitation.claims.participants[2].identity = pinned.clone());
        let party = self.lab.parties[2].party_id.clone();
        let mut captured = Captured { identity: self.identity, party, story, heard: Vec::new(), handshake: None };
        let ends = self.coordinator.run(&proposal, |_, to, frame| {
            let said =
                captured.sees(&frame).into_iter().flat_map(|frame| [(0, frame.clone().into()), (1, frame.into())]);
            let own = (to < 2).then(|| (to, Parcel::from(frame)));
            own.into_iter().chain(said).collect()
        });
        let ends = ends.await;
        let told: Vec<&Problem> = ends.iter().map(End::problem).collect();
        let Story { name, code, says, .. } = story;
        let fits = |problem: &&&Problem| problem.code == *code && problem.detail.contains(says);
        let count = told.iter().filter(fits).count();
        assert!(count >= 1, "{name}: {told:?}");
        for problem in told.iter().filter(fits) {
            let named = problem.more.get("party").is_some_and(|party| party == "party-3");
            assert_eq!(named, story.seen.is_none(), "{name}: {problem:?}");
        }
        // Another was told by the end of its stream, or by the garbage that follows.
        let mut others = told.iter().filter(|problem| !fits(problem));
        assert!(
            others.all(|problem| matches!(problem.code, Code::TransportFault | Code::PeerFault)),
            "{name}: {told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_about_a_log_names_the_liar_and_changes_nothing() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let [identity, audit, other] = [(); 3].map(|()| SigningKey::random(&mut OsRng));
    let (log, fork, anew) = (Log::new("captured", 1, 5), Log::new("captured", 2, 5), Log::new("anew", 1, 5));
    for honest in [0, 1] {
        let (pinned, key) =
            (IdentityKey::from_spki(&spki(&identity)).unwrap(), AuditKey::from_spki(&spki(&audit)).unwrap());
        let (real, real_key) = (lab.parties[2].identity.to_string(), lab.parties[2].audit.to_string());
        lab.configure(honest, |text| text.replace(&real, &pinned.to_string()).replace(&real_key, &key.to_string()));
        lab.start(honest).await;
        // In the place of the real party's log, which they have seen when the lab's key was made.
        let acceptance = json!({"reason": "a test", "checkpoint": note_by(&audit, log.at(KNOWN))});
        let accepted = lab.client(honest, Role::Operator).post("peers/party-3/accept", &acceptance).await;
        assert_eq!(accepted.status, 200, "{accepted}");
    }
    let coordinator = lab.lying_coordinator();
    let scene = Scene { lab: &lab, coordinator: &coordinator, identity: &identity };

    let truth = |size: u64, known: u64| Story {
        name: "the truth",
        stated: log.at(size),
        testimony: Testimony { note: note_by(&audit, log.at(size)), paths: vec![log.path(known, size)] },
        seen: None,
        garbage: false,
        code: Code::PeerFault,
        says: "a signed message of party-3 is faulty: it cannot be decoded",
    };
    let lie = |name: &'static str, stated: Checkpoint, note: String, paths: Vec<Path>, says: &'static str| Story {
        name,
        stated,
        testimony: Testimony { note, paths },
        code: Code::PeerLogRefused,
        says,
        ..truth(20, KNOWN)
    };
    let note = |checkpoint: Checkpoint| note_by(&audit, checkpoint);
    let (to_20, forked) = (vec![log.path(KNOWN, 20)], "it was forked or rewritten");
    let mut altered = to_20.clone();
    altered[0].steps[40] ^= 1;
    let mut torn = to_20.clone();
    torn[0].steps.pop();
    let lies = [
        lie("rolled back", log.at(8), note(log.at(8)), vec![], "it was rolled back"),
        lie("forked", fork.at(20), note(fork.at(20)), vec![fork.path(KNOWN, 20)], forked),
        lie("forked at the same size", fork.at(KNOWN), note(fork.at(KNOWN)), vec![], forked),
        lie("signed by another key", log.at(20), note_by(&other, log.at(20)), to_20.clone(), "known audit key"),
        lie("another log", anew.at(20), note(anew.at(20)), vec![anew.path(KNOWN, 20)], "begun another log"),
        lie(
            "another log than the hello's",
            anew.at(20),
            note(log.at(20)),
            to_20.clone(),
            "its hello speaks of the log",
        ),
        lie("an old note", log.at(20), note(log.at(KNOWN)), vec![], "an old checkpoint was shown again"),
        lie("a hello above the note", log.at(30), note(log.at(20)), to_20.clone(), "its hello speaks of 30"),
        lie("a hello of a fork", fork.at(15), note(log.at(20)), vec![to_20[0].clone(), log.path(15, 20)], forked),
        lie("no proof", log.at(20), note(log.at(20)), vec![], "it gave no proof"),
        lie("an altered proof", log.at(20), note(log.at(20)), altered, forked),
        lie("a torn proof", log.at(20), note(log.at(20)), torn, "it gave no proof"),
        lie("a proof to another size", log.at(20), note(log.at(20)), vec![log.path(KNOWN, 19)], forked),
        lie("no note", log.at(20), String::new(), vec![], "its checkpoint cannot be used"),
    ];
    for story in &lies {
        scene.plays(story).await;
    }
    let outcomes = |index: usize| {
        let outcomes = lab.audit(index).0.into_iter().filter(|leaf| leaf.phase == Phase::Outcome);
        outcomes.collect::<Vec<Leaf>>().split_off(1)
    };
    for honest in [0, 1] {
        let outcomes = outcomes(honest);
        let by: Vec<_> = outcomes.iter().filter_map(|leaf| leaf.outcome.as_ref()?.party.clone()).collect();
        assert!(by.len() >= 10 && by.iter().all(|party| party.as_str() == "party-3"), "party {honest}: {by:?}");
        let seen = outcomes.iter().flat_map(|leaf| &leaf.peers);
        assert!(seen.clone().all(|peer| peer.party.as_str() != "party-3") && seen.count() > 10, "party {honest}");
        let shown: Value = lab.client(honest, Role::Auditor).read("peers").await;
        let of_it = shown["peers"].as_array().unwrap().iter().find(|peer| peer["party"] == "party-3").unwrap();
        assert_eq!(of_it["checkpoint"]["size"], KNOWN, "{of_it}");
        assert_eq!(of_it["refused"]["code"], "peer_log_refused", "{of_it}");
    }
    scene.plays(&truth(20, KNOWN)).await;
    for honest in [0, 1] {
        let shown: Value = lab.client(honest, Role::Monitor).read("health").await;
        assert_eq!(shown["checks"]["peers"]["ok"], true, "{shown}");
    }
    // Its own log is good in these; what it says of another's is not, or cannot be read.
    let seen = |name, seen, says| Story { name, seen: Some(seen), code: Code::PeerLogRefused, says, ..truth(20, 20) };
    scene.plays(&seen("seen too much", 1 << 50, "leaves of this appliance's log, which has")).await;
    scene.plays(&seen("seen another history", 2, "another history of this appliance's log")).await;
    let mut shown = Vec::new();
    for honest in [0, 1] {
        let health: Value = lab.client(honest, Role::Monitor).read("health").await;
        shown.push(health["checks"]["peers"].to_string());
    }
    assert!(shown.iter().any(|peers| peers.contains("own log is doubted since")), "{shown:?}");
    scene.plays(&Story { name: "garbage", garbage: true, ..truth(20, 20) }).await;
    let rolled_back = lie("rolled back by one", log.at(19), note(log.at(19)), vec![], "it was rolled back");
    scene.plays(&rolled_back).await;
}
