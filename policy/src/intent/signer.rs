//! The key that signs, as far as a decoder must know it: which Bitcoin inputs it can spend, and which outputs are its own.

use bitcoin::bip32::{ChainCode, ChildNumber, Fingerprint, Xpub};
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use bitcoin::{CompressedPublicKey, NetworkKind};
use casemate_wire::PublicKey;

use super::IntentError;

/// The longest derivation path that is followed.
const MAX_PATH: usize = 10;

/// The public key that signs, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    key: CompressedPublicKey,
    parent: CompressedPublicKey,
    /// From the parent to the key.
    path: Vec<ChildNumber>,
    /// Of the parent; without one, children are unknown.
    chain_code: Option<[u8; 32]>,
}

impl Signer {
    /// The child of a threshold key at a path of non-hardened indices, or the key itself for an empty path. BIP-32's
    /// public derivation, which SLIP-10 shares on secp256k1.
    ///
    /// # Errors
    /// [`IntentError::Signer`]: the path has a hardened index, is too long, or has no child.
    pub fn derive(parent: &PublicKey, chain_code: [u8; 32], path: &[u32]) -> Result<Self, IntentError> {
        let parent = compressed(parent)?;
        let path: Vec<ChildNumber> = path
            .iter()
            .map(|index| ChildNumber::from_normal_idx(*index))
            .collect::<Result<_, _>>()
            .map_err(|error| IntentError::Signer(error.to_string()))?;
        let key = child(parent, chain_code, &path).map_err(IntentError::Signer)?;
        Ok(Self { key, parent, path, chain_code: Some(chain_code) })
    }

    /// A key of which no children are known.
    ///
    /// # Errors
    /// [`IntentError::Signer`]: the key is not a point of the curve.
    pub fn alone(key: &PublicKey) -> Result<Self, IntentError> {
        let key = compressed(key)?;
        Ok(Self { key, parent: key, path: Vec::new(), chain_code: None })
    }

    /// The key that signs, SEC1 compressed.
    pub fn public_key(&self) -> [u8; 33] {
        self.key.to_bytes()
    }

    /// The key that signs.
    pub(super) fn key(&self) -> CompressedPublicKey {
        self.key
    }

    /// The threshold key that it is a child of, or the same key.
    pub(super) fn parent(&self) -> CompressedPublicKey {
        self.parent
    }

    /// The path from the parent to the key; empty where they are the same.
    pub(super) fn path(&self) -> &[ChildNumber] {
        &self.path
    }

    /// The first four bytes of the parent's identifier, by which a PSBT names it (BIP-174, BIP-32).
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let [a, b, c, d, ..] = *AsRef::<[u8; 20]>::as_ref(&self.parent.pubkey_hash());
        Fingerprint::from([a, b, c, d])
    }

    /// The child of the parent at a path; `None` where there is none, or its chain code is not known.
    pub(super) fn child(&self, path: &[ChildNumber]) -> Option<CompressedPublicKey> {
        child(self.parent, self.chain_code?, path).ok()
    }
}

fn compressed(key: &PublicKey) -> Result<CompressedPublicKey, IntentError> {
    CompressedPublicKey::from_slice(key.as_bytes()).map_err(|error| IntentError::Signer(error.to_string()))
}

fn child(
    parent: CompressedPublicKey,
    chain_code: [u8; 32],
    path: &[ChildNumber],
) -> Result<CompressedPublicKey, String> {
    if path.len() > MAX_PATH {
        return Err(format!("a derivation path has at most {MAX_PATH} steps, not {}", path.len()));
    }
    let root = Xpub {
        network: NetworkKind::Main,
        depth: 0,
        parent_fingerprint: Fingerprint::default(),
        child_number: ChildNumber::Normal { index: 0 },
        public_key: parent.0,
        chain_code: ChainCode::from(chain_code),
    };
    let curve: Secp256k1<VerifyOnly> = Secp256k1::verification_only();
    let child = root.derive_pub(&curve, &path).map_err(|error| error.to_string())?;
    Ok(CompressedPublicKey(child.public_key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// BIP-32's second test vector: the master key, and its child at m/0.
    const MASTER: &str = "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7";
    const CHAIN_CODE: &str = "60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689";
    const CHILD: &str = "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea";

    fn derive(path: &[u32]) -> Result<Signer, IntentError> {
        let chain_code = hex::decode(CHAIN_CODE).unwrap().try_into().unwrap();
        Signer::derive(&MASTER.parse().unwrap(), chain_code, path)
    }

    #[test]
    fn children_are_those_of_bip_32() {
        let signer = derive(&[0]).unwrap();
        assert_eq!(signer.key().to_string(), CHILD);
        assert_eq!(signer.parent().to_string(), MASTER);
        assert_eq!(signer.fingerprint().to_string(), "bd16bee5");
        assert_eq!(signer.child(&[]).unwrap().to_string(), MASTER);
        assert_eq!(derive(&[]).unwrap().key().to_string(), MASTER);
    }

    #[test]
    fn hardened_and_endless_paths_have_no_child() {
        assert!(derive(&[1 << 31]).is_err());
        assert!(derive(&[0; 11]).is_err());
        let signer = derive(&[]).unwrap();
        assert_eq!(signer.child(&[ChildNumber::Hardened { index: 0 }]), None);
        assert_eq!(Signer::alone(&MASTER.parse().unwrap()).unwrap().child(&[]), None);
    }
}
