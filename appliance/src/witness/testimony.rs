//! What a party says of its own log in a session: a signed checkpoint, and a proof for every size that was asked for.

use std::collections::BTreeSet;

use casemate_attest::{ConsistencyProof, SignedCheckpoint};
use casemate_wire::Digest32;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, TreeNodes};

/// What is exchanged after the hellos. Its proofs need no more than a path: both roots are known to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Testimony {
    /// The signed checkpoint: at least as large as the hello's and as all that was asked for.
    pub(crate) note: String,
    /// Proofs that its log begins with earlier ones.
    paths: Vec<Path>,
    /// An attestation over the nonces of all hellos that demand one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub(crate) token: Option<Vec<u8>>,
}

/// The path of a consistency proof to the note's size (RFC 6962, section 2.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Path {
    from: u64,
    /// Hashes of 32 bytes, one after the other.
    #[serde(with = "serde_bytes")]
    steps: Vec<u8>,
}

impl Testimony {
    /// Proves from each of the sizes to the size that was signed; an attestation goes along.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub(crate) fn make(
        store: &Connection,
        signed: &SignedCheckpoint,
        sizes: &BTreeSet<u64>,
        token: Option<Vec<u8>>,
    ) -> Result<Self, StoreError> {
        let to = signed.checkpoint().size;
        let path = |from: &u64| {
            let proof = ConsistencyProof::make(*from, to, &TreeNodes(store));
            let proof = proof.map_err(|e| StoreError::Audit(e.to_string()))?;
            Ok(Path { from: *from, steps: proof.path.iter().flat_map(|hash| hash.0).collect() })
        };
        let paths = sizes.iter().filter(|from| **from < to).map(path).collect::<Result<_, StoreError>>()?;
        Ok(Self { note: signed.note().to_owned(), paths, token })
    }

    /// The path from a size, if the party gave one of whole hashes.
    pub(crate) fn path(&self, from: u64) -> Option<Vec<Digest32>> {
        let path = self.paths.iter().find(|path| path.from == from)?;
        path.steps.chunks(32).map(|hash| hash.try_into().ok().map(Digest32)).collect()
    }
}
