//! A peer's log is believed only while it continues what was seen of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use casemate_attest::tree::MemoryNodes;
use casemate_attest::{AuditKey, Checkpoint, CheckpointError, Claim, ConsistencyProof, Doubt, SignedCheckpoint};
use casemate_wire::Digest32;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use proptest::prelude::*;

fn key(seed: u8) -> (SigningKey, AuditKey) {
    let signing = SigningKey::from_slice(&[seed; 32]).unwrap();
    let spki = signing.verifying_key().to_public_key_der().unwrap();
    (signing, AuditKey::from_spki(spki.as_bytes()).unwrap())
}

/// A log's tree: the first `shared` leaves are the same in all, the others are its own.
struct Tree {
    name: &'static str,
    nodes: MemoryNodes,
    roots: Vec<Digest32>,
}

impl Tree {
    fn grow(name: &'static str, own: u8, shared: u64, size: u64) -> Self {
        let mut nodes = MemoryNodes::default();
        let mut roots = vec![nodes.frontier().root()];
        for leaf in 0..size {
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

    fn note(&self, size: u64) -> String {
        signed(self.at(size), 1).note().to_owned()
    }

    fn path(&self, from: u64, to: u64) -> Option<Vec<Digest32>> {
        ConsistencyProof::make(from, to, &self.nodes).ok().map(|proof| proof.path)
    }

    /// What a party that holds `known` makes of this log at `size`, with a hello at `stated`.
    fn shown(&self, known: &[Checkpoint], stated: u64, size: u64) -> Result<SignedCheckpoint, Doubt> {
        let (stated, note) = (self.at(stated), self.note(size));
        Claim { stated: &stated, note: &note }.judge(&key(1).1, known, |from| self.path(from, size))
    }
}

fn signed(checkpoint: Checkpoint, seed: u8) -> SignedCheckpoint {
    let (signing, audit) = key(seed);
    let signature: Signature = signing.sign(checkpoint.text().as_bytes());
    checkpoint.signed(&audit, &signature.to_bytes().into()).unwrap()
}

#[test]
fn a_log_that_only_grew_is_believed() {
    let log = Tree::grow("log", 1, 0, 40);
    for (known, stated, size) in [(1, 1, 1), (5, 5, 5), (5, 5, 9), (7, 9, 13), (9, 7, 16), (32, 33, 40)] {
        let found = log.shown(&[log.at(known)], stated, size).unwrap();
        assert_eq!(found.checkpoint(), &log.at(size));
    }
    log.shown(&[], 3, 7).unwrap();
    log.shown(&[log.at(3), log.at(8)], 6, 17).unwrap();
}

#[test]
fn a_log_that_was_rolled_back_is_not() {
    let log = Tree::grow("log", 1, 20, 40);
    assert_eq!(log.shown(&[log.at(30)], 20, 20), Err(Doubt::Shrunken { known: 30, found: 20 }));
    // It has grown beyond what was seen, on another history.
    let other = Tree::grow("log", 2, 20, 40);
    assert!(matches!(other.shown(&[log.at(30)], 35, 36), Err(Doubt::Forked { from: 30, .. })));
    assert!(matches!(other.shown(&[log.at(30)], 30, 30), Err(Doubt::Forked { from: 30, .. })));
    other.shown(&[log.at(20)], 35, 36).unwrap();
}

#[test]
fn two_notes_of_one_session_side_by_side_bind_the_log_to_both() {
    let (log, fork) = (Tree::grow("log", 1, 20, 40), Tree::grow("log", 2, 20, 40));
    let known = [log.at(25), fork.at(26)];
    for shown in [&log, &fork] {
        assert!(matches!(shown.shown(&known, 30, 31), Err(Doubt::Forked { .. })));
    }
}

#[test]
fn a_hello_binds_the_checkpoint_that_follows_it() {
    let (log, fork) = (Tree::grow("log", 1, 20, 40), Tree::grow("log", 2, 20, 40));
    assert_eq!(log.shown(&[], 20, 19), Err(Doubt::Stale { stated: 20, found: 19 }));
    let (stated, note) = (fork.at(25), log.note(30));
    let judged = Claim { stated: &stated, note: &note }.judge(&key(1).1, &[], |from| log.path(from, 30));
    assert!(matches!(judged, Err(Doubt::Forked { from: 25, .. })));
    let renamed = Checkpoint { log: "other".parse().unwrap(), ..log.at(25) };
    let judged = Claim { stated: &renamed, note: &note }.judge(&key(1).1, &[], |from| log.path(from, 30));
    assert!(matches!(judged, Err(Doubt::Restated { .. })));
}

#[test]
fn another_log_or_another_key_is_not_the_peers() {
    let (log, new) = (Tree::grow("log", 1, 0, 40), Tree::grow("new-log", 1, 0, 40));
    assert!(matches!(new.shown(&[log.at(10)], 20, 20), Err(Doubt::AnotherLog { .. })));
    let stated = log.at(10);
    let foreign = signed(log.at(20), 2);
    let claim = Claim { stated: &stated, note: foreign.note() };
    let judged = claim.judge(&key(1).1, &[], |from| log.path(from, 20));
    assert_eq!(judged, Err(Doubt::Checkpoint(CheckpointError::Unsigned)));
}

#[test]
fn a_proof_for_another_size_or_with_another_step_proves_nothing() {
    let log = Tree::grow("log", 1, 0, 40);
    let (known, stated, note) = (log.at(11), log.at(20), log.note(37));
    let claim = Claim { stated: &stated, note: &note };
    let judge =
        |path: &dyn Fn(u64) -> Option<Vec<Digest32>>| claim.judge(&key(1).1, std::slice::from_ref(&known), path);
    judge(&|from| log.path(from, 37)).unwrap();
    assert_eq!(judge(&|_| None), Err(Doubt::Unproven { from: 11 }));
    assert_eq!(judge(&|from| log.path(from, 37).filter(|_| from == 11)), Err(Doubt::Unproven { from: 20 }));
    for wrong in [|log: &Tree, _| log.path(12, 37), |log: &Tree, from| log.path(from, 36), |_: &Tree, _| Some(vec![])] {
        assert!(matches!(judge(&|from| wrong(&log, from)), Err(Doubt::Forked { .. })));
    }
    let altered = |from| {
        log.path(from, 37).map(|mut path| {
            path[0].0[31] ^= 1;
            path
        })
    };
    assert!(matches!(judge(&altered), Err(Doubt::Forked { .. })));
}

proptest! {
    /// Whatever is known, stated and signed of honest sizes holds; of a fork nothing beyond the shared leaves does.
    #[test]
    fn honest_logs_are_believed_and_forks_never_are(
        shared in 0..60u64, known in 1..60u64, stated in 1..60u64, more in 0..60u64,
    ) {
        let (log, fork) = (Tree::grow("log", 1, shared, 120), Tree::grow("log", 2, shared, 120));
        let size = known.max(stated) + more;
        prop_assert!(log.shown(&[log.at(known)], stated, size).is_ok());
        prop_assert_eq!(fork.shown(&[log.at(known)], stated, size).is_ok(), known <= shared);
    }

    #[test]
    fn nothing_that_a_peer_says_panics(
        note in ".{0,200}", size in any::<u64>(), path in proptest::collection::vec(any::<[u8; 32]>(), 0..70), from in any::<u64>(),
    ) {
        let stated = Checkpoint { log: "log".parse().unwrap(), size, root: Digest32([1; 32]) };
        let known = [Checkpoint { size: from, ..stated.clone() }];
        let judge = |note: &str| {
            Claim { stated: &stated, note }.judge(&key(1).1, &known, |_| Some(path.iter().copied().map(Digest32).collect()))
        };
        prop_assert!(judge(&note).is_err());
        let later = signed(Checkpoint { size: (1 << 53) - 1, ..stated.clone() }, 1);
        let _ = judge(later.note());
    }
}
