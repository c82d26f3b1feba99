//! Which scripts are the signer's own.

use bitcoin::bip32::ChildNumber;
use bitcoin::psbt::Output;
use bitcoin::{CompressedPublicKey, Script, ScriptBuf};

use crate::intent::Signer;

/// The most steps, and the first index too large, of a path at which change is looked for. A payment to any path can be
/// spent by this key, but money at one that nobody would think of is lost to its owner, and could be held to ransom by whoever
/// knows the path.
const MAX_STEPS: usize = 3;
const INDEX_END: u32 = 1 << 20;

/// Whether an output stays with the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership {
    /// It comes back to the signer, to the key that it is a child of, or to another child of that: the one at this path.
    Own(String),
    /// Anything else.
    External,
}

/// The scripts that one key alone can spend by one ECDSA signature.
pub(super) struct Scripts {
    pub(super) p2pkh: ScriptBuf,
    pub(super) p2wpkh: ScriptBuf,
    pub(super) p2sh_p2wpkh: ScriptBuf,
}

impl Scripts {
    pub(super) fn of(key: &CompressedPublicKey) -> Self {
        let p2wpkh = ScriptBuf::new_p2wpkh(&key.wpubkey_hash());
        Self {
            p2pkh: ScriptBuf::new_p2pkh(&key.pubkey_hash()),
            p2sh_p2wpkh: ScriptBuf::new_p2sh(&p2wpkh.script_hash()),
            p2wpkh,
        }
    }

    fn has(&self, script: &Script) -> bool {
        [&self.p2pkh, &self.p2wpkh, &self.p2sh_p2wpkh].into_iter().any(|own| own.as_script() == script)
    }
}

/// What the PSBT states about an output is believed only where deriving the key leads to the very script.
pub(super) fn ownership(script: &Script, stated: &Output, signer: &Signer) -> Ownership {
    if Scripts::of(&signer.key()).has(script) {
        return Ownership::Own(text(signer.path()));
    }
    if Scripts::of(&signer.parent()).has(script) {
        return Ownership::Own(text(&[]));
    }
    let child = stated.bip32_derivation.iter().find(|(key, (fingerprint, path))| {
        let stated = CompressedPublicKey(**key);
        // Deriving costs the most, so it comes last.
        *fingerprint == signer.fingerprint()
            && is_usual(path.as_ref())
            && Scripts::of(&stated).has(script)
            && signer.child(path.as_ref()) == Some(stated)
    });
    child.map_or(Ownership::External, |(_, (_, path))| Ownership::Own(text(path.as_ref())))
}

/// Whether somebody who searches for the key's money would come to this path.
fn is_usual(path: &[ChildNumber]) -> bool {
    let usual = |step: &ChildNumber| matches!(step, ChildNumber::Normal { index } if *index < INDEX_END);
    path.len() <= MAX_STEPS && path.iter().all(usual)
}

/// `m/1/7`.
fn text(path: &[ChildNumber]) -> String {
    std::iter::once("m".to_owned()).chain(path.iter().map(|step| format!("/{step}"))).collect()
}
