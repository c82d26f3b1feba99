//! The Merkle tree over all leaves of a log (RFC 6962, section 2.1; RFC 9162, section 2.1).
//!
//! A node is named by its level and its place in that level. Only nodes whose leaves are all there ("complete" ones) are
//! ever kept: they never change. Whatever a root or a proof needs is made of them.

use casemate_wire::Digest32;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A complete node: the root of the `2^level` leaves from `index · 2^level` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Its height above the leaves, which are at 0.
    pub level: u8,
    /// Its place in its level, from 0.
    pub index: u64,
}

/// Where complete nodes are kept.
pub trait Nodes {
    /// Why a node cannot be read.
    type Error;
    /// A complete node's hash.
    ///
    /// # Errors
    /// That it is not there, or cannot be read.
    fn node(&self, id: NodeId) -> Result<Digest32, Self::Error>;
}

/// The hash of the empty tree: SHA-256 of nothing.
pub fn empty_root() -> Digest32 {
    Digest32(Sha256::digest([]).into())
}

/// `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Digest32, right: &Digest32) -> Digest32 {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left.0);
    hash.update(right.0);
    Digest32(hash.finalize().into())
}

/// The right edge of a tree: all that is needed to append to it and to know its root. At most 64 hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Edge", into = "Edge")]
pub struct Frontier {
    size: u64,
    /// The largest complete nodes, from the left: one for each bit that is set in `size`.
    nodes: Vec<Digest32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edge {
    size: u64,
    nodes: Vec<Digest32>,
}

impl TryFrom<Edge> for Frontier {
    type Error = String;
    fn try_from(edge: Edge) -> Result<Self, String> {
        let wanted = edge.size.count_ones() as usize;
        if edge.nodes.len() == wanted {
            return Ok(Self { size: edge.size, nodes: edge.nodes });
        }
        Err(format!("a tree of {} leaves has {wanted} nodes at its edge, not {}", edge.size, edge.nodes.len()))
    }
}
impl From<Frontier> for Edge {
    fn from(Frontier { size, nodes }: Frontier) -> Self {
        Self { size, nodes }
    }
}

impl Frontier {
    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root: the tree head's hash.
    pub fn root(&self) -> Digest32 {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return empty_root() };
        nodes.fold(*last, |right, left| node_hash(left, &right))
    }

    /// Adds a leaf by its hash, and gives every node that is complete from now on, the leaf itself first.
    pub fn push(&mut self, leaf: Digest32) -> Vec<(NodeId, Digest32)> {
        let index = self.size;
        let mut id = NodeId { level: 0, index };
        let mut hash = leaf;
        let mut made = vec![(id, hash)];
        // Each set bit at the low end is a complete node that now has its right sibling.
        for _ in 0..index.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                hash = node_hash(&left, &hash);
                id = NodeId { level: id.level.saturating_add(1), index: id.index >> 1 };
                made.push((id, hash));
            }
        }
        self.nodes.push(hash);
        self.size = index.saturating_add(1);
        made
    }

    /// The edge of a tree of `size` leaves, from its kept nodes.
    ///
    /// # Errors
    /// A node is not there.
    pub fn load<N: Nodes>(size: u64, nodes: &N) -> Result<Self, N::Error> {
        let edge: Result<_, _> = edge(size).into_iter().map(|id| nodes.node(id)).collect();
        Ok(Self { size, nodes: edge? })
    }
}

/// The complete nodes at the right edge of a tree of `size` leaves, from the left.
pub fn edge(size: u64) -> Vec<NodeId> {
    let levels = (0..64u8).rev().filter(|level| size >> level & 1 == 1);
    levels.map(|level| NodeId { level, index: ((size >> level) ^ 1) }).collect()
}

/// The root of the first `size` leaves of a tree that may have more.
///
/// # Errors
/// A node is not there.
pub fn root_at<N: Nodes>(size: u64, nodes: &N) -> Result<Digest32, N::Error> {
    Ok(Frontier::load(size, nodes)?.root())
}

/// The root of the leaves `from..to` of one subtree of RFC 6962's recursion: `from` is a multiple of the smallest power of
/// two that holds them.
fn range<N: Nodes>(from: u64, to: u64, nodes: &N) -> Result<Digest32, N::Error> {
    let count = to.saturating_sub(from);
    let mut hash = None;
    // From the right: the smaller complete nodes come last.
    for piece in edge(count).into_iter().rev() {
        let start = from.saturating_add(piece.index << piece.level);
        let left = nodes.node(NodeId { level: piece.level, index: start >> piece.level })?;
        hash = Some(match hash {
            None => left,
            Some(right) => node_hash(&left, &right),
        });
    }
    Ok(hash.unwrap_or_else(empty_root))
}

/// The largest power of two below `count`, for a count of at least 2.
fn split(count: u64) -> u64 {
    1 << (63 - count.saturating_sub(1).leading_zeros().min(63))
}

/// The audit path of leaf `seq` in the tree of the first `size` leaves (RFC 6962, section 2.1.1), from the leaf up.
///
/// # Errors
/// A node is not there. `seq` must be below `size`.
pub(crate) fn inclusion_path<N: Nodes>(seq: u64, size: u64, nodes: &N) -> Result<Vec<Digest32>, N::Error> {
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while to.saturating_sub(from) > 1 {
        let middle = from + split(to - from);
        if seq < middle {
            path.push(range(middle, to, nodes)?);
            to = middle;
        } else {
            path.push(range(from, middle, nodes)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The consistency path from the first `old` leaves to the first `new` ones (RFC 6962, section 2.1.2). Empty for equal
/// sizes.
///
/// # Errors
/// A node is not there. `old` must be at least 1 and not above `new`.
pub(crate) fn consistency_path<N: Nodes>(old: u64, new: u64, nodes: &N) -> Result<Vec<Digest32>, N::Error> {
    if old == new {
        return Ok(Vec::new());
    }
    let (mut from, mut to) = (0, new);
    let mut path = Vec::new();
    // Whether the old tree, as far as it goes, is still a whole subtree that the verifier knows.
    let mut known = true;
    while old < to {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(range(middle, to, nodes)?);
            to = middle;
        } else {
            path.push(range(from, middle, nodes)?);
            from = middle;
            known = false;
        }
    }
    if !known {
        path.push(range(from, to, nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// All complete nodes in memory: for offline tools, at two hashes a leaf.
#[derive(Debug, Clone, Default)]
pub struct MemoryNodes {
    levels: Vec<Vec<Digest32>>,
    frontier: Frontier,
}

/// A tree in memory has no such node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has no complete node {index} at level {level}")]
pub struct NoSuchNode {
    level: u8,
    index: u64,
}

impl MemoryNodes {
    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Digest32) {
        for (id, hash) in self.frontier.push(leaf) {
            let level = usize::from(id.level);
            if self.levels.len() <= level {
                self.levels.resize_with(level + 1, Vec::new);
            }
            if let Some(level) = self.levels.get_mut(level) {
                level.push(hash);
            }
        }
    }

    /// The right edge.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }
}

impl Nodes for MemoryNodes {
    type Error = NoSuchNode;
    fn node(&self, id: NodeId) -> Result<Digest32, NoSuchNode> {
        let NodeId { level, index } = id;
        let found = self.levels.get(usize::from(level)).and_then(|level| level.get(usize::try_from(index).ok()?));
        found.copied().ok_or(NoSuchNode { level, index })
    }
}
