//! A DEK wrapped under the token's KEK, and what its authentication covers (FORMATS.md, "A share at rest").

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sha2::{Digest, Sha256};

use crate::error::HsmError;

/// Bytes of the AES-GCM IV.
pub(crate) const IV_LEN: usize = 12;
/// Bytes of the AES-GCM tag, which follows the ciphertext in [`WrappedKey::blob`].
pub(crate) const TAG_LEN: usize = 16;
/// `CKM_AES_GCM`.
pub(crate) const CKM_AES_GCM: u64 = 0x1087;

/// How an entry was wrapped. Unwrapping is the same for all; the name records who chose the IV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrapAlgorithm {
    /// AES-256-GCM, 96-bit IV chosen at random by the host, 128-bit tag.
    #[serde(rename = "aes-256-gcm/host-iv")]
    HostIv,
    /// AES-256-GCM, 96-bit IV chosen by the token, 128-bit tag.
    #[serde(rename = "aes-256-gcm/token-iv")]
    TokenIv,
}

impl WrapAlgorithm {
    /// The name in stored entries.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostIv => "aes-256-gcm/host-iv",
            Self::TokenIv => "aes-256-gcm/token-iv",
        }
    }
}

/// A 256-bit key wrapped under one KEK of one token, bound to the context it was wrapped for.
///
/// Stored as CBOR. Nothing in it is secret, and all of it is foreign until [`crate::Hsm::unwrap`] has accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// How it was wrapped.
    pub alg: WrapAlgorithm,
    /// The PKCS#11 mechanism's number, a hint for whoever restores with other tools.
    pub ckm: u64,
    /// `CKA_ID` of the KEK, as text: `kek/<epoch>`.
    pub kek_id: String,
    /// Epoch of the KEK.
    pub kek_epoch: u32,
    /// The IV.
    pub iv: ByteArray<IV_LEN>,
    /// Ciphertext (32 bytes) and tag (16 bytes).
    pub blob: ByteArray<{ 32 + TAG_LEN }>,
}

/// The fields of an entry that its AAD covers; the IV and the blob are authenticated by AES-GCM itself.
pub(crate) struct Binding {
    pub(crate) alg: WrapAlgorithm,
    pub(crate) kek_epoch: u32,
}

impl Binding {
    /// What the entry says about itself, unless it contradicts itself.
    pub(crate) fn of(entry: &WrappedKey) -> Result<Self, HsmError> {
        let binding = Self { alg: entry.alg, kek_epoch: entry.kek_epoch };
        if entry.ckm == CKM_AES_GCM && entry.kek_id == binding.kek_id() { Ok(binding) } else { Err(HsmError::Rejected) }
    }

    pub(crate) fn kek_id(&self) -> String {
        kek_id(self.kek_epoch)
    }

    pub(crate) fn entry(self, iv: [u8; IV_LEN], blob: [u8; 32 + TAG_LEN]) -> WrappedKey {
        WrappedKey {
            alg: self.alg,
            ckm: CKM_AES_GCM,
            kek_id: self.kek_id(),
            kek_epoch: self.kek_epoch,
            iv: ByteArray::new(iv),
            blob: ByteArray::new(blob),
        }
    }

    /// `SHA-256(u64_be(len(context)) ‖ context ‖ CBOR [alg, ckm, kek_id, kek_epoch])`. The CBOR is deterministic
    /// (RFC 8949 §4.2): an array in this order, shortest lengths.
    pub(crate) fn aad(&self, context: &[u8]) -> Result<[u8; 32], HsmError> {
        let mut fields = Vec::new();
        ciborium::into_writer(&(self.alg.name(), CKM_AES_GCM, self.kek_id(), self.kek_epoch), &mut fields)
            .map_err(|_| HsmError::Encoding("the fields of a wrapped key"))?;
        let mut hash = Sha256::new();
        hash.update((context.len() as u64).to_be_bytes());
        hash.update(context);
        hash.update(&fields);
        Ok(hash.finalize().into())
    }
}

/// `CKA_ID` of the KEK of an epoch.
pub(crate) fn kek_id(epoch: u32) -> String {
    format!("kek/{epoch}")
}

/// The epoch in a KEK's `CKA_ID`; `None` for anything that [`kek_id`] would not have written.
pub(crate) fn kek_epoch(id: &[u8]) -> Option<u32> {
    let epoch = std::str::from_utf8(id).ok()?.strip_prefix("kek/")?.parse().ok()?;
    (kek_id(epoch).as_bytes() == id).then_some(epoch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry() -> WrappedKey {
        Binding { alg: WrapAlgorithm::HostIv, kek_epoch: 3 }.entry([1; IV_LEN], [2; 48])
    }

    fn through_cbor(entry: &WrappedKey) -> WrappedKey {
        let mut bytes = Vec::new();
        ciborium::into_writer(entry, &mut bytes).unwrap();
        ciborium::from_reader(bytes.as_slice()).unwrap()
    }

    #[test]
    fn an_entry_survives_cbor() {
        assert_eq!(through_cbor(&entry()), entry());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let mut value = ciborium::Value::serialized(&entry()).unwrap();
        value.as_map_mut().unwrap().push(("extra".into(), 1.into()));
        assert!(value.deserialized::<WrappedKey>().is_err());
    }

    #[test]
    fn a_blob_of_another_length_is_refused() {
        let mut value = ciborium::Value::serialized(&entry()).unwrap();
        for (key, field) in value.as_map_mut().unwrap() {
            if key.as_text() == Some("blob") {
                *field = vec![0_u8; 47].into();
            }
        }
        assert!(value.deserialized::<WrappedKey>().is_err());
    }

    #[test]
    fn the_recorded_name_is_the_authenticated_name() {
        for alg in [WrapAlgorithm::HostIv, WrapAlgorithm::TokenIv] {
            assert_eq!(ciborium::Value::serialized(&alg).unwrap().as_text(), Some(alg.name()));
        }
    }

    #[test]
    fn aad_follows_its_definition() {
        let binding = Binding { alg: WrapAlgorithm::HostIv, kek_epoch: 1 };
        let mut input = 3_u64.to_be_bytes().to_vec();
        input.extend(b"ctx");
        input.extend(b"\x84\x73aes-256-gcm/host-iv\x19\x10\x87\x65kek/1\x01");
        assert_eq!(binding.aad(b"ctx").unwrap(), <[u8; 32]>::from(Sha256::digest(input)));
    }

    #[test]
    fn aad_covers_context_algorithm_and_epoch() {
        let aad = |alg, kek_epoch, context: &[u8]| Binding { alg, kek_epoch }.aad(context).unwrap();
        let base = aad(WrapAlgorithm::HostIv, 1, b"a");
        assert_ne!(base, aad(WrapAlgorithm::TokenIv, 1, b"a"));
        assert_ne!(base, aad(WrapAlgorithm::HostIv, 2, b"a"));
        assert_ne!(base, aad(WrapAlgorithm::HostIv, 1, b"b"));
    }

    #[test]
    fn an_entry_that_contradicts_itself_is_refused() {
        let mut other_id = entry();
        other_id.kek_id = "kek/4".into();
        assert!(Binding::of(&other_id).is_err());
        let mut other_mechanism = entry();
        other_mechanism.ckm += 1;
        assert!(Binding::of(&other_mechanism).is_err());
        assert!(Binding::of(&entry()).is_ok());
    }

    #[test]
    fn only_plain_epochs_name_a_kek() {
        assert_eq!(kek_epoch(b"kek/12"), Some(12));
        for id in ["kek/", "kek/01", "kek/+1", "kek/1 ", "kek/4294967296", "kek", "xkek/1"] {
            assert_eq!(kek_epoch(id.as_bytes()), None, "{id}");
        }
    }
}
