//! A captured peer: it has a pinned identity key and signs whatever the test wants. It is named, and harms nobody else.

use casemate_appliance::clients::Role;
use casemate_attest::AuditKey;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Parcel, TestLab};
use casemate_wire::envelope::{Channel, Checkpoint, Handshake, Local, SessionView, SignedHello, To};
use casemate_wire::frame::Frame;
use casemate_wire::{Code, Digest32, IdentityKey, PartyId, Problem};
use futures::StreamExt;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// Rounds as they stand in messages: the phase in the high byte.
const WITNESS: u16 = 0x0101;
const OPENING: u16 = 0x0201;
const FIRST_OF_AUX: u16 = 0x0301;
const FIRST_OF_SIGN: u16 = 0x0801;

/// What the peer does with its good name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misdeed {
    GarbageInTheOpening,
    GarbageInTheProtocol,
    TwoMessagesOfOneNumber,
    TwoHellos,
    SealedWhereAllMustHear,
    EndlessMessagesOfALaterPhase,
    Silence,
}

/// The root of its log, which nobody ever asks about.
const ROOT: Digest32 = Digest32([3; 32]);

fn audit_key(key: &SigningKey) -> AuditKey {
    AuditKey::from_spki(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap()
}

fn note(key: &SigningKey) -> String {
    let checkpoint = casemate_attest::Checkpoint { log: "captured".parse().unwrap(), size: 1, root: ROOT };
    let signature: Signature = key.sign(checkpoint.text().as_bytes());
    checkpoint.signed(&audit_key(key), &signature.to_bytes().into()).unwrap().note().to_owned()
}

/// The peer in one session, driven by the frames that pass the coordinator.
struct Captured {
    key: SigningKey,
    audit: SigningKey,
    party: PartyId,
    misdeed: Misdeed,
    heard: Vec<SignedHello>,
    openings: usize,
    /// The same session keys twice: each signs as if the other had signed nothing.
    channels: Vec<Channel>,
}

impl Captured {
    /// The keys of the two handshakes come from equal seeds, so that they are equal.
    fn handshake(&self, view: SessionView, seed: u64) -> (Handshake, SignedHello) {
        let local = Local {
            party: self.party.clone(),
            checkpoint: Checkpoint { log: "captured".into(), size: 1, root: ROOT },
            witnessed: Vec::new(),
            attest: false,
            clock_skew: Duration::from_secs(30),
            limits: casemate_wire::envelope::Limits::default(),
        };
        let now = jiff::Timestamp::from_millisecond(i64::try_from(self.heard[0].hello.own.time).unwrap()).unwrap();
        let mut handshake = Handshake::begin(view, local, now, &mut StdRng::seed_from_u64(seed)).unwrap();
        let signature: Signature = self.key.sign(handshake.to_sign());
        let hello = handshake.signed(signature.to_bytes().into()).unwrap();
        (handshake, hello)
    }

    /// Sees a frame on its way, and says what else goes out.
    fn sees(&mut self, frame: &Frame) -> Vec<Frame> {
        match frame {
            Frame::Hello(hello) => {
                self.heard.push(hello.clone());
                self.greets()
            }
            Frame::Message(message) if message.content.round == OPENING => {
                self.openings += 1;
                if self.openings == 2 && self.misdeed == Misdeed::GarbageInTheProtocol {
                    return vec![self.signs(0, To::All, FIRST_OF_AUX, b"garbage")];
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Its hello with the first of the others, its first messages with the second.
    fn greets(&mut self) -> Vec<Frame> {
        let view = self.heard[0].hello.view.clone();
        let (_, hello) = self.handshake(view.clone(), 1);
        if self.heard.len() == 1 {
            let mut hellos = vec![Frame::Hello(hello)];
            if self.misdeed == Misdeed::TwoHellos {
                hellos.push(Frame::Hello(self.handshake(view, 2).1));
            }
            return hellos;
        }
        for _ in 0..2 {
            let (mut handshake, _) = self.handshake(view.clone(), 1);
            let now = jiff::Timestamp::now();
            self.heard.iter().for_each(|hello| handshake.accept(hello, now).unwrap());
            self.channels.push(handshake.finish(&mut StdRng::seed_from_u64(3)).unwrap());
        }
        // What an honest party without auxiliary info says first: `{"aux": null}`.
        let opening = b"\xa1\x63aux\xf6";
        let mut said = vec![self.signs(0, To::All, WITNESS, &self.testimony())];
        self.signs(1, To::All, WITNESS, &self.testimony());
        said.extend(match self.misdeed {
            Misdeed::GarbageInTheOpening => vec![self.signs(0, To::All, OPENING, b"garbage")],
            Misdeed::GarbageInTheProtocol => vec![self.signs(0, To::All, OPENING, opening)],
            Misdeed::TwoMessagesOfOneNumber => {
                vec![self.signs(0, To::All, FIRST_OF_AUX, opening), self.signs(1, To::All, FIRST_OF_AUX, b"other")]
            }
            Misdeed::SealedWhereAllMustHear => {
                vec![self.signs(0, To::Party(0), OPENING, opening), self.signs(0, To::Party(1), OPENING, opening)]
            }
            Misdeed::EndlessMessagesOfALaterPhase => {
                (0..600).map(|_| self.signs(0, To::All, FIRST_OF_SIGN, &[7; 4096])).collect()
            }
            Misdeed::TwoHellos | Misdeed::Silence => Vec::new(),
        });
        said
    }

    /// Its log has one leaf and never grows, so it has nothing to prove.
    fn testimony(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Testimony {
            note: String,
            paths: [(); 0],
        }
        let mut body = Vec::new();
        ciborium::into_writer(&Testimony { note: note(&self.audit), paths: [] }, &mut body).unwrap();
        body
    }

    fn signs(&mut self, channel: usize, to: To, round: u16, body: &[u8]) -> Frame {
        Frame::Message(self.channels[channel].seal(to, round, body).unwrap())
    }
}

/// Where a frame of the captured peer goes.
fn addressed(frame: Frame) -> Vec<(usize, Parcel)> {
    match &frame {
        Frame::Message(message) if message.content.to == To::Party(0) => vec![(0, frame.into())],
        Frame::Message(message) if message.content.to == To::Party(1) => vec![(1, frame.into())],
        _ => vec![(0, frame.clone().into()), (1, frame.into())],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_signs_garbage_is_named_and_the_others_go_on() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let key = SigningKey::random(&mut rand::rngs::OsRng);
    let spki = key.verifying_key().to_public_key_der().unwrap();
    let identity = IdentityKey::from_spki(spki.as_bytes()).unwrap();
    let audit = SigningKey::random(&mut rand::rngs::OsRng);
    let (real, real_audit) = (lab.parties[2].identity.to_string(), lab.parties[2].audit.to_string());
    for honest in [0, 1] {
        let pinned = audit_key(&audit).to_string();
        lab.configure(honest, |text| text.replace(&real, &identity.to_string()).replace(&real_audit, &pinned));
        lab.start(honest).await;
        // Its log is another than the real party's, which the others have seen when the lab's key was made.
        let acceptance = json!({"reason": "a test", "checkpoint": note(&audit)});
        let accepted = lab.client(honest, Role::Operator).post("peers/party-3/accept", &acceptance).await;
        assert_eq!(accepted.status, 200, "{accepted}");
    }
    let coordinator = lab.lying_coordinator();
    let blamed = Code::PeerFault;
    let cases = [
        (Misdeed::Silence, Code::Timeout, "no opening message from party-3"),
        (Misdeed::GarbageInTheOpening, blamed, "cannot be decoded"),
        (Misdeed::GarbageInTheProtocol, blamed, "party-3"),
        (Misdeed::TwoMessagesOfOneNumber, blamed, "two different messages"),
        (Misdeed::TwoHellos, blamed, "two different hellos"),
        (Misdeed::SealedWhereAllMustHear, blamed, "party-3"),
        (Misdeed::EndlessMessagesOfALaterPhase, blamed, "ahead of their phase"),
    ];
    let (lab, coordinator, identity, key, audit) = (&lab, &coordinator, &identity, &key, &audit);
    let running = cases.map(|(misdeed, code, says)| async move {
        let mut proposal = coordinator.convener.keygen();
        proposal.invitations.truncate(2);
        let proposal = proposal.telling_all(|invitation| invitation.claims.participants[2].identity = identity.clone());
        let party = lab.parties[2].party_id.clone();
        let (heard, channels) = (Vec::new(), Vec::new());
        let mut captured =
            Captured { key: key.clone(), audit: audit.clone(), party, misdeed, heard, openings: 0, channels };
        let mut held = Vec::new();
        let ends = coordinator.run(&proposal, |_, to, frame| {
            let said = captured.sees(&frame);
            // Both hellos of the captured peer come before the last honest one, while hellos are still awaited.
            let mut parcels: Vec<(usize, Parcel)> = said.into_iter().flat_map(addressed).collect();
            if to < 2 {
                if misdeed == Misdeed::TwoHellos && matches!(frame, Frame::Hello(_)) {
                    held.push((to, Parcel::from(frame)));
                    if held.len() == 2 {
                        parcels.append(&mut held);
                    }
                } else {
                    parcels.insert(0, (to, frame.into()));
                }
            }
            parcels
        });
        let ends = ends.await;
        let told: Vec<&Problem> = ends.iter().map(casemate_softhsm_tests::End::problem).collect();
        assert!(told.iter().any(|problem| is_fault(problem, code, says)), "{misdeed:?}: nobody noticed: {told:?}");
        for problem in told {
            // Who did not notice itself was told by the end of its stream.
            let ended = problem.code == Code::TransportFault && !problem.more.contains_key("party");
            assert!(ended || is_fault(problem, code, says), "{misdeed:?}: {problem} {:?}", problem.more);
        }
    });
    futures::stream::iter(running).buffer_unordered(4).collect::<Vec<()>>().await;

    for honest in [0, 1] {
        let (leaves, report) = lab.audit(honest);
        assert!(report.open_intents.is_empty());
        let faults = leaves.iter().filter_map(|leaf| leaf.outcome.as_ref()?.party.clone());
        let named: Vec<PartyId> = faults.collect();
        assert!(named.len() >= 4, "party {honest} has {named:?} on record");
        assert!(named.iter().all(|party| party.as_str() == "party-3"), "party {honest} blames {named:?}");
    }
    let old = lab.key();
    let ends = coordinator.run_honestly(&coordinator.convener.sign(&old, &[0, 1], &Transfer::allowed(0))).await;
    ends[0].signature();
}

fn is_fault(problem: &Problem, code: Code, says: &str) -> bool {
    let named = problem.more.get("party").is_some_and(|party| party == "party-3");
    problem.code == code && problem.detail.contains(says) && named == (code == Code::PeerFault)
}
