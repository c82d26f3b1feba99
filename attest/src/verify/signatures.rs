//! Every signature that a log records verifies under the key and over the digest of its intent.
//!
//! Where a child key signs, the intent names it and its path. That it is the key's child shows only to who holds the key's
//! chain code, which stands in the key's certificate.

use std::collections::HashMap;

use casemate_wire::{PublicKey, SessionId};
use serde::Serialize;

use super::FaultKind;
use crate::leaf::{Leaf, Op, Phase, Tx};

/// Derives child keys, for whoever holds certificates of keys.
pub trait ChildKeys {
    /// The child of `key` at a path as the intent has it (`m/0/7`), or `None` where the key's chain code is not known.
    ///
    /// # Errors
    /// Why that path leads to no key.
    fn child(&self, key: &PublicKey, path: &str) -> Result<Option<PublicKey>, String>;
}

/// Knows no chain code.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoChildKeys;
impl ChildKeys for NoChildKeys {
    fn child(&self, _: &PublicKey, _: &str) -> Result<Option<PublicKey>, String> {
        Ok(None)
    }
}

/// The signatures of a log, all of which verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Signatures {
    /// They verify under the key or child key, and over the digest, of their intent.
    pub verified: u64,
    /// Of these, by child keys that are proven to be children of their key.
    pub by_proven_children: u64,
    /// Of these, by keys that the intents call children; the certificate of the key would show it.
    pub by_claimed_children: u64,
    /// Not judged: their intent is not among these lines.
    pub without_intent: u64,
}

/// What a session was to sign.
struct Asked {
    key: PublicKey,
    tx: Tx,
}

#[derive(Default)]
pub(super) struct Checks {
    asked: HashMap<SessionId, Asked>,
    pub(super) found: Signatures,
}

impl Checks {
    pub(super) fn take(&mut self, leaf: &Leaf, children: &impl ChildKeys) -> Result<(), (FaultKind, String)> {
        let Some(session) = leaf.session.as_ref().filter(|_| leaf.op == Op::Sign) else { return Ok(()) };
        if let (Phase::Intent, Some(key), Some(tx)) = (leaf.phase, leaf.key, &leaf.tx) {
            self.asked.insert(session.clone(), Asked { key, tx: tx.clone() });
        }
        if leaf.phase != Phase::Outcome {
            return Ok(());
        }
        let asked = self.asked.remove(session);
        let Some(signature) = leaf.outcome.as_ref().and_then(|outcome| outcome.signature) else { return Ok(()) };
        let Some(Asked { key, tx }) = asked else {
            // Only lines that rest on a snapshot can end what they do not begin.
            self.found.without_intent += 1;
            return Ok(());
        };
        let signer = self.signer(key, &tx, children)?;
        if !signature.verifies(&signer, &tx.digest) {
            let what = format!("its signature does not verify under {signer} over the digest of its intent");
            return Err((FaultKind::Signature, what));
        }
        self.found.verified += 1;
        Ok(())
    }

    /// The key that must have signed.
    fn signer(&mut self, key: PublicKey, tx: &Tx, children: &impl ChildKeys) -> Result<PublicKey, (FaultKind, String)> {
        let wrong = |what: String| Err((FaultKind::Signature, what));
        let (child, path) = match (tx.child, &tx.path) {
            (None, None) => return Ok(key),
            (Some(child), Some(path)) => (child, path),
            _ => return wrong("its intent names a child key or a path without the other".into()),
        };
        match children.child(&key, path.as_str()) {
            Ok(Some(derived)) if derived == child => self.found.by_proven_children += 1,
            Ok(Some(derived)) => {
                return wrong(format!("the child of {key} at {path} is {derived}, not {child} as its intent says"));
            }
            Ok(None) => self.found.by_claimed_children += 1,
            Err(why) => return wrong(format!("the path {path} of its key leads nowhere: {why}")),
        }
        Ok(child)
    }
}
