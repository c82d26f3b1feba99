//! The Merkle tree against numbers and code of other hands: the vectors of transparency-dev/merkle (which
//! certificate-transparency-go uses), the examples of RFC 9162, and the crate `ct-merkle`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::many_single_char_names)]

use casemate_attest::line::leaf_hash;
use casemate_attest::tree::{Frontier, MemoryNodes, NodeId, Nodes, edge, empty_root, node_hash, root_at};
use casemate_attest::{Checkpoint, ConsistencyProof, InclusionProof, ProofError};
use casemate_wire::Digest32;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

/// The leaves of certificate-transparency-go's tests, and the roots of its trees of 0 to 8 of them.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn published_tree() -> MemoryNodes {
    let mut tree = MemoryNodes::default();
    for leaf in LEAVES {
        tree.push(leaf_hash(&hex::decode(leaf).unwrap()));
    }
    tree
}

/// A tree of `size` leaves, each the text of its number; and the same tree by the other crate.
fn both(size: u64) -> (MemoryNodes, MemoryBackedTree<Sha256, String>) {
    let (mut ours, mut theirs) = (MemoryNodes::default(), MemoryBackedTree::new());
    for leaf in 0..size {
        ours.push(leaf_hash(leaf.to_string().as_bytes()));
        theirs.push(leaf.to_string());
    }
    (ours, theirs)
}

fn hashes(bytes: &[u8]) -> Vec<Digest32> {
    bytes.chunks(32).map(|hash| Digest32(hash.try_into().unwrap())).collect()
}

#[test]
fn leaves_and_nodes_hash_as_published() {
    let leaf = "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56";
    assert_eq!(leaf_hash(b"L123456").to_string(), leaf);
    // The published node has children of four bytes; ours have the length of a hash, so the prefix shows by our own words.
    let mut bytes = vec![1];
    bytes.extend_from_slice(&[7; 32]);
    bytes.extend_from_slice(&[9; 32]);
    let by_hand: [u8; 32] = <Sha256 as sha2::Digest>::digest(&bytes).into();
    assert_eq!(node_hash(&Digest32([7; 32]), &Digest32([9; 32])), Digest32(by_hand));
}

#[test]
fn the_published_leaves_have_the_published_roots() {
    let tree = published_tree();
    for (size, root) in (0u64..).zip(ROOTS) {
        assert_eq!(root_at(size, &tree).unwrap().to_string(), root, "{size} leaves");
    }
    assert_eq!(empty_root().to_string(), ROOTS[0]);
}

#[test]
fn every_published_proof_gets_the_published_verdict() {
    let mut held = 0;
    let vectors = include_str!("vectors/transparency-dev-merkle.jsonl");
    for line in vectors.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let name = vector["name"].as_str().unwrap();
        let verdict = published_verdict(name, &vector);
        assert_eq!(verdict, vector["holds"].as_bool().unwrap(), "{name}");
        held += usize::from(verdict);
    }
    assert_eq!((held, vectors.lines().count()), (12, 196));
}

/// Garbage that is no hash is refused when the proof is read.
fn published_verdict(name: &str, vector: &Value) -> bool {
    let roots: Vec<&str> = vector["roots"].as_array().unwrap().iter().map(|root| root.as_str().unwrap()).collect();
    let mut proof = vector["proof"].clone();
    if name.starts_with("inclusion/") {
        let Ok(proof) = serde_json::from_value::<InclusionProof>(proof) else { return false };
        return roots[0].parse().is_ok_and(|root| proof.verify(&root).is_ok());
    }
    proof["from_root"] = roots[0].into();
    proof["to_root"] = roots[1].into();
    // One vector has equal sizes, an empty path and roots that are no hashes, but equal: the published verdict compares
    // bytes of any length, ours takes hashes only.
    if name.ends_with("sizes-are-equal-one-and-proof-is-empty") {
        proof["from_root"] = ROOTS[1].into();
        proof["to_root"] = ROOTS[1].into();
    }
    let Ok(proof) = serde_json::from_value::<ConsistencyProof>(proof) else { return false };
    proof.verify(&proof.from_root, &proof.to_root).is_ok()
}

/// RFC 9162, section 2.1.5: the tree of seven leaves, with the RFC's names for its nodes.
#[test]
fn the_examples_of_rfc_9162_hold() {
    let mut tree = MemoryNodes::default();
    let leaf: Vec<Digest32> = (0u8..7).map(|d| leaf_hash(&[d])).collect();
    for hash in &leaf {
        tree.push(*hash);
    }
    let [a, b, c, d, e, f, j] = leaf[..] else { panic!() };
    let (g, h, i) = (node_hash(&a, &b), node_hash(&c, &d), node_hash(&e, &f));
    let (k, l) = (node_hash(&g, &h), node_hash(&i, &j));
    let inclusion = |seq| InclusionProof::make(seq, 7, &tree).unwrap().path;
    assert_eq!(inclusion(0), [b, h, l]);
    assert_eq!(inclusion(3), [c, g, l]);
    assert_eq!(inclusion(4), [f, j, k]);
    assert_eq!(inclusion(6), [i, k]);
    let consistency = |from| ConsistencyProof::make(from, 7, &tree).unwrap().path;
    assert_eq!(consistency(3), [c, d, g, l]);
    assert_eq!(consistency(4), [l]);
    assert_eq!(consistency(6), [i, j, k]);
}

#[test]
fn every_small_tree_has_the_roots_and_proofs_of_another_implementation() {
    for size in 0..=70 {
        let (ours, theirs) = both(size);
        assert_eq!(ours.frontier().root().0[..], theirs.root().as_bytes()[..], "{size}");
        for seq in 0..size {
            let proof = InclusionProof::make(seq, size, &ours).unwrap();
            let path = theirs.prove_inclusion(usize::try_from(seq).unwrap());
            assert_eq!(proof.path, hashes(path.as_bytes()), "leaf {seq} of {size}");
            proof.verify(&ours.frontier().root()).unwrap();
        }
        for from in 1..size {
            let proof = ConsistencyProof::make(from, size, &ours).unwrap();
            let path = theirs.prove_consistency(usize::try_from(size - from).unwrap());
            assert_eq!(proof.path, hashes(path.as_bytes()), "{from} to {size}");
            proof.verify(&root_at(from, &ours).unwrap(), &ours.frontier().root()).unwrap();
        }
    }
}

/// What a forger may try with a proof that holds: each change must be refused.
#[test]
fn a_proof_with_one_altered_byte_proves_nothing() {
    for size in [1, 2, 3, 7, 8, 13] {
        let (tree, _) = both(size);
        let root = tree.frontier().root();
        for seq in 0..size {
            let proof = InclusionProof::make(seq, size, &tree).unwrap();
            for (place, bit) in (0..=proof.path.len()).flat_map(|place| (0..256).map(move |bit| (place, bit))) {
                let mut forged = proof.clone();
                flip(if place == 0 { &mut forged.leaf } else { &mut forged.path[place - 1] }, bit);
                assert_eq!(forged.verify(&root), Err(ProofError::OtherRoot));
            }
            for other in 0..size {
                assert!(other == seq || InclusionProof { seq: other, ..proof.clone() }.verify(&root).is_err());
            }
            lengths(&proof.path, |path| InclusionProof { path, ..proof.clone() }.verify(&root));
        }
        for from in 1..size {
            let proof = ConsistencyProof::make(from, size, &tree).unwrap();
            let (old, new) = (proof.from_root, proof.to_root);
            for (place, bit) in (0..proof.path.len()).flat_map(|place| (0..256).map(move |bit| (place, bit))) {
                let mut forged = proof.clone();
                flip(&mut forged.path[place], bit);
                assert!(forged.verify(&old, &new).is_err());
            }
            lengths(&proof.path, |path| ConsistencyProof { path, ..proof.clone() }.verify(&old, &new));
            let mut other = old;
            flip(&mut other, 3);
            assert!(ConsistencyProof { from_root: other, ..proof.clone() }.verify(&other, &new).is_err());
            assert_eq!(proof.verify(&other, &new), Err(ProofError::OtherOldRoot));
            assert_eq!(proof.verify(&old, &other), Err(ProofError::OtherRoot));
            // A claimed root that is the forger's own, beside a path that is right.
            assert!(ConsistencyProof { to_root: other, ..proof.clone() }.verify(&old, &other).is_err());
        }
    }
}

fn flip(hash: &mut Digest32, bit: usize) {
    hash.0[bit / 8] ^= 1 << (bit % 8);
}

/// Steps that are missing, doubled or too many.
fn lengths(path: &[Digest32], verify: impl Fn(Vec<Digest32>) -> Result<(), ProofError>) {
    let mut forged: Vec<Vec<Digest32>> = vec![[path, &[Digest32([0; 32])]].concat(), [&[empty_root()], path].concat()];
    if !path.is_empty() {
        forged.extend([path[1..].to_vec(), path[..path.len() - 1].to_vec(), [path, path].concat(), vec![]]);
    }
    forged.push(vec![Digest32([0; 32]); 100_000]);
    for forged in forged {
        assert!(verify(forged).is_err());
    }
}

#[test]
fn a_proof_is_held_against_a_checkpoint_of_its_own_size_and_log() {
    let tree = published_tree();
    let at = |size, log: &str| Checkpoint { log: log.parse().unwrap(), size, root: root_at(size, &tree).unwrap() };
    let inclusion = InclusionProof::make(2, 5, &tree).unwrap();
    assert_eq!(inclusion.holds_in(&at(5, "a")), Ok(()));
    assert_eq!(inclusion.holds_in(&at(6, "a")), Err(ProofError::OtherSize { proof: 5, checkpoint: 6 }));
    let consistency = ConsistencyProof::make(3, 7, &tree).unwrap();
    assert_eq!(consistency.joins(&at(3, "a"), &at(7, "a")), Ok(()));
    assert!(matches!(consistency.joins(&at(3, "a"), &at(7, "b")), Err(ProofError::OtherLog(..))));
    assert!(matches!(consistency.joins(&at(4, "a"), &at(7, "a")), Err(ProofError::OtherSize { .. })));
    assert!(matches!(consistency.joins(&at(3, "a"), &at(8, "a")), Err(ProofError::OtherSize { .. })));
}

/// A root alone fixes no size: this is why a proof is held against a checkpoint and not a root.
#[test]
fn one_path_can_lead_from_two_sizes_to_one_root() {
    let tree = published_tree();
    let proof = InclusionProof::make(0, 7, &tree).unwrap();
    let elsewhere = InclusionProof { size: 8, ..proof.clone() };
    assert_eq!(elsewhere.verify(&root_at(7, &tree).unwrap()), Ok(()));
    let known = Checkpoint { log: "a".parse().unwrap(), size: 7, root: root_at(7, &tree).unwrap() };
    assert!(elsewhere.holds_in(&known).is_err());
}

#[test]
fn what_cannot_be_proven_is_not() {
    let tree = published_tree();
    assert!(InclusionProof::make(5, 5, &tree).is_err());
    assert!(InclusionProof::make(0, 9, &tree).is_err());
    assert!(ConsistencyProof::make(6, 5, &tree).is_err());
    assert!(ConsistencyProof::make(0, 5, &tree).is_err());
    assert!(ConsistencyProof::make(5, 9, &tree).is_err());
    let (from_root, to_root) = (empty_root(), root_at(3, &tree).unwrap());
    let trivial = ConsistencyProof { from: 0, to: 3, from_root, to_root, path: vec![] };
    assert!(matches!(trivial.verify(&from_root, &to_root), Err(ProofError::Numbers(_))));
}

#[test]
fn proofs_have_the_json_form_of_the_format_document() {
    let tree = published_tree();
    let inclusion = serde_json::to_value(InclusionProof::make(1, 2, &tree).unwrap()).unwrap();
    let leaf = leaf_hash(&[0]).to_string();
    assert_eq!(inclusion, json!({"size": 2, "seq": 1, "leaf": leaf, "path": [ROOTS[1]]}));
    let consistency = serde_json::to_value(ConsistencyProof::make(1, 2, &tree).unwrap()).unwrap();
    let wanted = json!({"from": 1, "to": 2, "from_root": ROOTS[1], "to_root": ROOTS[2], "path": [leaf]});
    assert_eq!(consistency, wanted);
    for (field, value) in [("extra", json!(1)), ("path", json!(["AA"])), ("size", json!(-1)), ("leaf", Value::Null)] {
        let mut bad = inclusion.clone();
        bad[field] = value;
        assert!(serde_json::from_value::<InclusionProof>(bad).is_err(), "{field}");
    }
}

#[test]
fn an_edge_that_does_not_fit_its_size_is_not_read() {
    let (tree, _) = both(6);
    let text = serde_json::to_string(tree.frontier()).unwrap();
    assert_eq!(serde_json::from_str::<Frontier>(&text).unwrap(), *tree.frontier());
    assert!(serde_json::from_str::<Frontier>(&text.replace("\"size\":6", "\"size\":7")).is_err());
    assert!(serde_json::from_str::<Frontier>(&text.replace("\"size\":6", "\"size\":4")).is_err());
}

/// Nodes whose hash is their name: proofs in trees that no machine could hold.
struct Endless;
impl Nodes for Endless {
    type Error = std::convert::Infallible;
    fn node(&self, id: NodeId) -> Result<Digest32, Self::Error> {
        Ok(leaf_hash(format!("{} {}", id.level, id.index).as_bytes()))
    }
}

fn proof_of_anything() -> impl Strategy<Value = (u64, u64, Vec<[u8; 32]>)> {
    (any::<u64>(), any::<u64>(), prop::collection::vec(any::<[u8; 32]>(), 0..80))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn larger_trees_agree_with_the_other_implementation(size in 71u64..3000, at in any::<prop::sample::Index>()) {
        let (ours, theirs) = both(size);
        let root = ours.frontier().root();
        prop_assert_eq!(hashes(theirs.root().as_bytes()), vec![root]);
        let place = at.index(usize::try_from(size).unwrap());
        let (seq, from) = (place as u64, place as u64 + 1);
        let inclusion = InclusionProof::make(seq, size, &ours).unwrap();
        let wanted = theirs.prove_inclusion(place);
        prop_assert_eq!(&inclusion.path, &hashes(wanted.as_bytes()));
        prop_assert!(inclusion.verify(&root).is_ok());
        prop_assert!(theirs.root().verify_inclusion(&seq.to_string(), seq, &wanted).is_ok());
        if from < size {
            let consistency = ConsistencyProof::make(from, size, &ours).unwrap();
            let wanted = theirs.prove_consistency(usize::try_from(size - from).unwrap());
            prop_assert_eq!(&consistency.path, &hashes(wanted.as_bytes()));
            prop_assert!(consistency.verify(&root_at(from, &ours).unwrap(), &root).is_ok());
        }
        let loaded = Frontier::load(size, &ours).unwrap();
        prop_assert_eq!(&loaded, ours.frontier());
        prop_assert_eq!(edge(size).len(), size.count_ones() as usize);
    }
}

proptest! {
    #[test]
    fn bytes_from_outside_never_panic((one, other, path) in proof_of_anything(), root in any::<[u8; 32]>()) {
        let path: Vec<Digest32> = path.into_iter().map(Digest32).collect();
        let root = Digest32(root);
        let inclusion = InclusionProof { size: one, seq: other, leaf: root, path: path.clone() };
        prop_assert!(inclusion.verify(&root).is_err() || path.is_empty());
        let consistency = ConsistencyProof { from: one, to: other, from_root: root, to_root: Digest32([0; 32]), path };
        prop_assert!(consistency.verify(&root, &Digest32([0; 32])).is_err());
    }

    #[test]
    fn proofs_hold_in_trees_of_any_size(one in any::<u64>(), other in any::<u64>()) {
        let (small, size) = (one.min(other), one.max(other));
        if small < size {
            let inclusion = InclusionProof::make(small, size, &Endless).unwrap();
            prop_assert!(inclusion.path.len() <= 64);
            // The nodes are not those of a real tree, so the root is what the path leads to: only the lengths are at stake.
            prop_assert_ne!(inclusion.verify(&Digest32([0; 32])), Err(ProofError::Length));
        }
        if small > 0 {
            let proof = ConsistencyProof::make(small, size, &Endless).unwrap();
            prop_assert!(proof.path.len() <= 65);
            prop_assert_ne!(proof.verify(&proof.from_root, &proof.to_root), Err(ProofError::Length));
        }
    }
}
