//! The keys on the token: found by `CKA_ID`, and fit only if they have exactly the attributes of FORMATS.md, "Keys in
//! the HSM".

use std::collections::BTreeMap;

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use p256::ecdsa::VerifyingKey;
use p256::pkcs8::EncodePublicKey;

use crate::error::{Doing, HsmError};
use crate::facts::Facts;
use crate::wrapped::{kek_epoch, kek_id};

/// DER of the object identifier of P-256 (secp256r1, RFC 5480).
pub(crate) const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// What one of the token's signing keys is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Session hellos and the acknowledgement of a join.
    Identity,
    /// Attestation tokens.
    Attest,
    /// Audit checkpoints.
    Audit,
}

impl KeyPurpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Attest, Self::Audit];

    /// `CKA_ID` of the pair, as text.
    pub fn id(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Attest => "attest",
            Self::Audit => "audit",
        }
    }
}

/// One key as [`crate::Hsm::status`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// `CKA_ID`, as text.
    pub id: String,
    /// Whether the token itself limits the key to its one mechanism (`CKA_ALLOWED_MECHANISMS`). `false` only where
    /// the token does not know this attribute.
    pub mechanism_enforced: bool,
    /// SubjectPublicKeyInfo in DER; `None` for a KEK.
    pub public_key: Option<Vec<u8>>,
}

/// The token's keys, as one session sees them.
pub(crate) struct Keys {
    keks: BTreeMap<u32, Kek>,
    pairs: BTreeMap<KeyPurpose, Pair>,
}

pub(crate) struct Kek {
    pub(crate) handle: ObjectHandle,
    mechanism_enforced: bool,
}

pub(crate) struct Pair {
    pub(crate) private: ObjectHandle,
    pub(crate) public: VerifyingKey,
    mechanism_enforced: bool,
}

impl Keys {
    /// Finds all keys and checks them.
    pub(crate) fn find(session: &Session) -> Result<Self, HsmError> {
        let mut keks = BTreeMap::new();
        for epoch in kek_epochs(session)? {
            keks.insert(epoch, Kek::find(session, epoch)?);
        }
        if keks.is_empty() {
            return Err(HsmError::KeyMissing { id: kek_id(1) });
        }
        let mut pairs = BTreeMap::new();
        for purpose in KeyPurpose::ALL {
            pairs.insert(purpose, Pair::find(session, purpose)?);
        }
        Ok(Self { keks, pairs })
    }

    pub(crate) fn kek(&self, epoch: u32) -> Option<&Kek> {
        self.keks.get(&epoch)
    }

    /// The highest epoch, whose KEK wraps.
    pub(crate) fn live_epoch(&self) -> Option<u32> {
        self.keks.last_key_value().map(|(epoch, _)| *epoch)
    }

    pub(crate) fn pair(&self, purpose: KeyPurpose) -> Result<&Pair, HsmError> {
        self.pairs.get(&purpose).ok_or_else(|| missing(purpose.id()))
    }

    pub(crate) fn status(&self) -> Result<Vec<KeyStatus>, HsmError> {
        let keks = self.keks.iter().map(|(epoch, kek)| {
            Ok(KeyStatus { id: kek_id(*epoch), mechanism_enforced: kek.mechanism_enforced, public_key: None })
        });
        let pairs = self.pairs.iter().map(|(purpose, pair)| {
            Ok(KeyStatus {
                id: purpose.id().to_owned(),
                mechanism_enforced: pair.mechanism_enforced,
                public_key: Some(pair.spki()?),
            })
        });
        keks.chain(pairs).collect()
    }
}

impl Kek {
    fn find(session: &Session, epoch: u32) -> Result<Self, HsmError> {
        let id = kek_id(epoch);
        let objects = KeyObjects::with_id(session, &id)?;
        let handle = objects.only_secret()?;
        let facts = Facts::read(session, handle, &id)?;
        facts.check_kept()?;
        facts.check_kind(KeyType::AES, AttributeType::ValueLen, &Attribute::ValueLen(32.into()))?;
        facts.check_uses(&[AttributeType::Encrypt, AttributeType::Decrypt])?;
        let mechanism_enforced = facts.check_mechanism(MechanismType::AES_GCM)?;
        Ok(Self { handle, mechanism_enforced })
    }
}

impl Pair {
    fn find(session: &Session, purpose: KeyPurpose) -> Result<Self, HsmError> {
        let id = purpose.id();
        let objects = KeyObjects::with_id(session, id)?;
        let (private, public) = objects.only_pair()?;
        let facts = Facts::read(session, private, id)?;
        facts.check_kept()?;
        let curve = Attribute::EcParams(P256_OID.to_vec());
        facts.check_kind(KeyType::EC, AttributeType::EcParams, &curve)?;
        facts.check_uses(&[AttributeType::Sign])?;
        let mechanism_enforced = facts.check_mechanism(MechanismType::ECDSA)?;

        let facts = Facts::read(session, public, id)?;
        facts.check_kind(KeyType::EC, AttributeType::EcParams, &curve)?;
        facts.check_uses(&[AttributeType::Verify])?;
        let public = facts.point()?;
        Ok(Self { private, public, mechanism_enforced })
    }

    /// SubjectPublicKeyInfo in DER.
    pub(crate) fn spki(&self) -> Result<Vec<u8>, HsmError> {
        let der = self.public.to_public_key_der();
        Ok(der.map_err(|_| HsmError::Encoding("a public key"))?.into_vec())
    }
}

/// Which of the names that Casemate uses are taken on the token, by keys of any kind.
pub(crate) fn taken(session: &Session) -> Result<Vec<String>, HsmError> {
    let mut ids: Vec<_> = kek_epochs(session)?.into_iter().map(kek_id).collect();
    for purpose in KeyPurpose::ALL {
        if !KeyObjects::with_id(session, purpose.id())?.is_empty() {
            ids.push(purpose.id().to_owned());
        }
    }
    Ok(ids)
}

/// Epochs of all objects whose `CKA_ID` is that of a KEK, each once.
pub(crate) fn kek_epochs(session: &Session) -> Result<Vec<u32>, HsmError> {
    let mut epochs = Vec::new();
    for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        let wanted = [Attribute::Class(class), Attribute::Token(true)];
        for object in session.find_objects(&wanted).doing("listing the token's keys")? {
            let attributes = session.get_attributes(object, &[AttributeType::Id]);
            for attribute in attributes.doing("reading a key's CKA_ID")? {
                if let Attribute::Id(id) = attribute {
                    epochs.extend(kek_epoch(&id));
                }
            }
        }
    }
    epochs.sort_unstable();
    epochs.dedup();
    Ok(epochs)
}

/// All key objects with one `CKA_ID`.
pub(crate) struct KeyObjects<'a> {
    id: &'a str,
    secret: Vec<ObjectHandle>,
    private: Vec<ObjectHandle>,
    public: Vec<ObjectHandle>,
}

impl<'a> KeyObjects<'a> {
    pub(crate) fn with_id(session: &Session, id: &'a str) -> Result<Self, HsmError> {
        let find = |class| {
            let wanted = [Attribute::Class(class), Attribute::Id(id.as_bytes().to_vec())];
            session.find_objects(&wanted).doing("looking for a key by its CKA_ID")
        };
        Ok(Self {
            id,
            secret: find(ObjectClass::SECRET_KEY)?,
            private: find(ObjectClass::PRIVATE_KEY)?,
            public: find(ObjectClass::PUBLIC_KEY)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.secret.is_empty() && self.private.is_empty() && self.public.is_empty()
    }

    fn only_secret(&self) -> Result<ObjectHandle, HsmError> {
        self.none("private", &self.private)?;
        self.none("public", &self.public)?;
        self.one("secret", &self.secret)
    }

    pub(crate) fn only_pair(&self) -> Result<(ObjectHandle, ObjectHandle), HsmError> {
        self.none("secret", &self.secret)?;
        Ok((self.one("private", &self.private)?, self.one("public", &self.public)?))
    }

    fn one(&self, kind: &'static str, found: &[ObjectHandle]) -> Result<ObjectHandle, HsmError> {
        match found {
            [only] => Ok(*only),
            [] => Err(missing(self.id)),
            several => Err(HsmError::KeyAmbiguous { id: self.id.to_owned(), kind, count: several.len() }),
        }
    }

    fn none(&self, kind: &'static str, found: &[ObjectHandle]) -> Result<(), HsmError> {
        if found.is_empty() {
            return Ok(());
        }
        Err(HsmError::KeyUnfit { id: self.id.to_owned(), problem: format!("a {kind} key has the same CKA_ID") })
    }
}

fn missing(id: &str) -> HsmError {
    HsmError::KeyMissing { id: id.to_owned() }
}
