//! Which scripts are the signer's own.

use bitcoin::psbt::Output;
use bitcoin::{CompressedPublicKey, Script, ScriptBuf};

use crate::intent::Signer;

/// Whether an output stays with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// It comes back to the signer, to the key that it is a child of, or to another child of that.
    Own,
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
    let own = [signer.key(), signer.parent()].iter().any(|key| Scripts::of(key).has(script));
    let child = || {
        stated.bip32_derivation.iter().any(|(key, (fingerprint, path))| {
            let stated = CompressedPublicKey(*key);
            // Deriving costs the most, so it comes last.
            *fingerprint == signer.fingerprint()
                && Scripts::of(&stated).has(script)
                && signer.child(path.as_ref()) == Some(stated)
        })
    };
    if own || child() { Ownership::Own } else { Ownership::External }
}
