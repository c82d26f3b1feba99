//! Three parties and what their appliances would have written.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_attest::tree::{MemoryNodes, Nodes};
use casemate_attest::{
    Act, Appended, AuditKey, Checkpoint, Decision, Detail, DisclosedLeaf, Disclosure, Effect, Entry, Guard,
    GuardChange, Head, IntentRef, Line, Op, Origin, Outcome, PeerCheckpoint, Snapshot, Tx, Verifier,
};
use casemate_wire::{Digest32, EcdsaSignature, PublicKey, Threshold};
use jiff::{SignedDuration, Timestamp};
use k256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer;
use p256::pkcs8::EncodePublicKey;
use serde_json::json;

pub(crate) struct Party {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
    pub(crate) head: Head,
    pub(crate) nodes: MemoryNodes,
    pub(crate) details: Vec<DisclosedLeaf>,
    pub(crate) notes: Vec<String>,
    /// What its lines rest on once so many of them were pruned.
    pub(crate) rests_on: Option<String>,
    pruned: u64,
    audit: p256::ecdsa::SigningKey,
}

impl Party {
    pub(crate) fn new(number: u8) -> Self {
        let name = format!("party-{number}");
        let log = format!("casemate/{name}/{number}");
        Self::begun(number, &log, Entry::genesis(), None)
    }

    /// With another first leaf, and what that rests on.
    pub(crate) fn begun(number: u8, log: &str, genesis: Entry, rests_on: Option<String>) -> Self {
        let name = format!("party-{number}");
        let Appended { line, head, .. } = Head::genesis(log.parse().unwrap(), genesis, time(0)).unwrap();
        let mut nodes = MemoryNodes::default();
        nodes.push(line.hash());
        let audit = p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap();
        let mut party =
            Self { name, lines: vec![line], head, nodes, details: vec![], notes: vec![], rests_on, pruned: 0, audit };
        party.add(Entry::boot());
        party
    }

    pub(crate) fn key(&self) -> AuditKey {
        AuditKey::from_spki(self.audit.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap()
    }

    pub(crate) fn add(&mut self, entry: Entry) -> Option<IntentRef> {
        let disclosure = entry.disclosure().cloned();
        let at = time(i64::try_from(self.lines.len()).unwrap());
        let Appended { line, head, .. } = self.head.append(entry, at).unwrap();
        if let Some(disclosure) = disclosure {
            self.details.push(DisclosedLeaf { seq: line.leaf().seq, disclosure });
        }
        let intent = line.intent();
        self.nodes.push(line.hash());
        self.lines.push(line);
        self.head = head;
        intent
    }

    /// What `casemate audit prune` leaves: the lines from here on, and a snapshot that the first of them names.
    pub(crate) fn prune(&mut self) {
        let mut verifier = Verifier::new();
        for line in &self.lines {
            verifier.feed(line.as_str().as_bytes()).unwrap();
        }
        let text = verifier.snapshot().unwrap().to_text().unwrap();
        self.pruned = self.head.size();
        self.add(Entry::admin(Op::Prune).guarding(vec![Snapshot::guard(&text)]));
        self.rests_on = Some(text);
    }

    /// Signs where the log stands.
    pub(crate) fn note(&mut self) -> String {
        let checkpoint = Checkpoint::of(&self.head);
        let signature: p256::ecdsa::Signature = self.audit.sign(checkpoint.text().as_bytes());
        let signed = checkpoint.signed(&self.key(), &signature.to_bytes().into()).unwrap();
        self.notes.push(signed.note().to_owned());
        signed.note().to_owned()
    }

    /// What a hello of it says.
    pub(crate) fn seen(&self) -> PeerCheckpoint {
        PeerCheckpoint {
            party: self.name.parse().unwrap(),
            log: self.head.log().clone(),
            size: self.head.size(),
            root: self.head.root(),
            attested: None,
        }
    }

    pub(crate) fn intend(&mut self, act: Act, session: &str) -> IntentRef {
        self.intend_under(act, session, 0xb0)
    }

    pub(crate) fn intend_under(&mut self, act: Act, session: &str, bundle: u8) -> IntentRef {
        let decision = Decision {
            effect: Effect::Allow,
            policies: vec!["small-transfers".parse().unwrap()],
            bundle: Some(Digest32([bundle; 32])),
        };
        let signs = matches!(act, Act::Sign { .. });
        let used = GuardChange { guard: Guard::Token, id: session.parse().unwrap(), to: Some("used".parse().unwrap()) };
        let entry = Entry::intent(act, origin(session), decision).guarding(vec![used]);
        let salt = [u8::try_from(self.lines.len()).unwrap(); 32];
        let detail = Detail { decoded: Some(json!({"to": "0x35", "value": "100"})), reason: None };
        self.add(if signs { entry.disclosing(Disclosure { salt, detail }) } else { entry }).unwrap()
    }

    pub(crate) fn refuse(&mut self, session: &str) {
        let salt = [u8::try_from(self.lines.len()).unwrap(); 32];
        let detail = Detail { decoded: None, reason: Some("over the limit of 1 ETH".into()) };
        let refusal = Entry::refusal(Op::Sign, origin(session), "policy_denied".parse().unwrap());
        self.add(refusal.disclosing(Disclosure { salt, detail }));
    }

    pub(crate) fn log_text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Writes it as an export would lie there.
    pub(crate) fn export(&self, under: &Path) -> PathBuf {
        let folder = under.join(&self.name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("log.jsonl"), self.log_text()).unwrap();
        let details = self.details.iter().map(|detail| serde_json::to_string(detail).unwrap() + "\n");
        fs::write(folder.join("details.jsonl"), details.collect::<String>()).unwrap();
        let notes = self.notes.iter().map(|note| json!({"size": 0, "note": note}).to_string() + "\n");
        fs::write(folder.join("checkpoints.jsonl"), notes.collect::<String>()).unwrap();
        folder
    }

    /// Writes it as a daemon's database would hold it.
    pub(crate) fn database(&self, under: &Path) -> PathBuf {
        let folder = under.join(format!("{}-data", self.name));
        fs::create_dir_all(&folder).unwrap();
        let db = rusqlite::Connection::open(folder.join("casemate.db")).unwrap();
        db.execute_batch(
            "CREATE TABLE leaves (seq INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT;
             CREATE TABLE tree (node INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
             CREATE TABLE details (seq INTEGER PRIMARY KEY, salt BLOB NOT NULL, detail TEXT NOT NULL) STRICT;
             CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL, at TEXT NOT NULL) STRICT;
             CREATE TABLE snapshot (only_row INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;",
        )
        .unwrap();
        for (seq, line) in self.lines.iter().enumerate() {
            db.execute("INSERT INTO leaves VALUES (?1, ?2)", (i64::try_from(seq).unwrap(), line.as_str())).unwrap();
        }
        for level in 0..40u8 {
            for index in 0.. {
                let Ok(hash) = self.nodes.node(casemate_attest::tree::NodeId { level, index }) else { break };
                let number = (i64::from(level) << 56) | i64::try_from(index).unwrap();
                db.execute("INSERT INTO tree VALUES (?1, ?2)", (number, hash.0)).unwrap();
            }
        }
        for DisclosedLeaf { seq, disclosure: Disclosure { salt, detail } } in &self.details {
            let row = (i64::try_from(*seq).unwrap(), salt, serde_json::to_string(detail).unwrap());
            db.execute("INSERT INTO details VALUES (?1, ?2, ?3)", row).unwrap();
        }
        if let Some(rests_on) = &self.rests_on {
            db.execute("INSERT INTO snapshot VALUES (1, ?1)", [rests_on]).unwrap();
            db.execute("DELETE FROM leaves WHERE seq < ?1", [i64::try_from(self.pruned).unwrap()]).unwrap();
            db.execute("DELETE FROM details WHERE seq < ?1", [i64::try_from(self.pruned).unwrap()]).unwrap();
        }
        for (number, note) in self.notes.iter().enumerate() {
            let row = (i64::try_from(number).unwrap(), note, "now");
            db.execute("INSERT INTO checkpoints VALUES (?1, ?2, ?3)", row).unwrap();
        }
        folder
    }
}

/// Parties 1 to 3, 2 of which sign.
pub(crate) struct Committee {
    pub(crate) parties: Vec<Party>,
    pub(crate) signer: SigningKey,
}

impl Committee {
    /// With a key.
    pub(crate) fn new() -> Self {
        let mut committee = Self::without_a_key();
        let intents: Vec<_> = committee.parties.iter_mut().map(|party| party.intend(Act::Keygen, "k-1")).collect();
        for (number, intent) in intents.into_iter().enumerate() {
            let threshold = Threshold::new(2, 3).unwrap();
            let entry =
                Entry::key_made(intent, committee.key(), threshold).witnessing(committee.peers_of(number, &[0, 1, 2]));
            committee.parties[number].add(entry);
        }
        committee
    }

    pub(crate) fn without_a_key() -> Self {
        let signer = SigningKey::from_slice(&[9; 32]).unwrap();
        Self { parties: (1..=3).map(Party::new).collect(), signer }
    }

    pub(crate) fn key(&self) -> PublicKey {
        public(&self.signer)
    }

    pub(crate) fn peers_of(&self, own: usize, all: &[usize]) -> Vec<PeerCheckpoint> {
        all.iter().filter(|other| **other != own).map(|other| self.parties[*other].seen()).collect()
    }

    pub(crate) fn act(&self, digest: Digest32) -> Act {
        Act::Sign { key: self.key(), tx: Tx::of(digest) }
    }

    /// A session in which these sign.
    pub(crate) fn sign(&mut self, session: &str, digest: Digest32, who: &[usize]) -> EcdsaSignature {
        let act = self.act(digest);
        let signature = signature(&self.signer, &digest);
        self.complete(session, &act, signature, who);
        signature
    }

    pub(crate) fn complete(&mut self, session: &str, act: &Act, signature: EcdsaSignature, who: &[usize]) {
        let intents: Vec<_> = who.iter().map(|number| self.parties[*number].intend(act.clone(), session)).collect();
        for (number, intent) in who.iter().zip(intents) {
            let entry = Entry::outcome(intent, Outcome::signed(signature)).witnessing(self.peers_of(*number, who));
            self.parties[*number].add(entry);
        }
    }

    /// A rotation that each of these completes with what is said of it.
    pub(crate) fn rotate(&mut self, session: &str, ends: &[(usize, u64, Threshold)]) {
        let who: Vec<usize> = ends.iter().map(|(number, ..)| *number).collect();
        let act = Act::Rotate { key: self.key() };
        let intents: Vec<_> = who.iter().map(|number| self.parties[*number].intend(act.clone(), session)).collect();
        for ((number, epoch, threshold), intent) in ends.iter().zip(intents) {
            let entry = Entry::rotated(intent, *threshold, *epoch).witnessing(self.peers_of(*number, &who));
            self.parties[*number].add(entry);
        }
    }

    /// What an auditor is given: `--party` for each, with the checkpoints that lie beside the logs.
    pub(crate) fn exported(&mut self, under: &Path) -> Vec<String> {
        let mut words = Vec::new();
        for party in &mut self.parties {
            party.note();
            let folder = party.export(under);
            words.extend(["--party".into(), format!("{}={}={}", party.name, party.key(), folder.display())]);
        }
        words
    }
}

pub(crate) fn public(signer: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(signer.verifying_key().to_encoded_point(true).as_bytes()).unwrap()
}

pub(crate) fn signature(signer: &SigningKey, digest: &Digest32) -> EcdsaSignature {
    let (signature, recovery) = signer.sign_prehash_recoverable(&digest.0).unwrap();
    let (r, s) = signature.split_bytes();
    EcdsaSignature { r: r.into(), s: s.into(), v: recovery.to_byte() }
}

pub(crate) fn digest(number: u8) -> Digest32 {
    Digest32([number; 32])
}

pub(crate) fn time(step: i64) -> Timestamp {
    let start: Timestamp = "2026-11-20T12:30:00.123Z".parse().unwrap();
    start + SignedDuration::from_secs(step)
}

pub(crate) fn origin(session: &str) -> Origin {
    Origin {
        req: format!("req-{session}").parse().unwrap(),
        actor: "coordinator-1".parse().unwrap(),
        session: Some(session.parse().unwrap()),
    }
}

/// Failed, for a reason that nobody is to blame for.
pub(crate) fn failed() -> Outcome {
    Outcome::failed("timeout".parse().unwrap(), "a party was silent".parse().unwrap())
}
