//! A key's attributes, and whether they are exactly those that FORMATS.md, "Keys in the HSM", lists.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use p256::ecdsa::VerifyingKey;

use crate::error::{Doing, HsmError};

/// What the token says about one key.
pub(crate) struct Facts<'a> {
    id: &'a str,
    attributes: Vec<Attribute>,
}

impl<'a> Facts<'a> {
    const USES: [AttributeType; 9] = [
        AttributeType::Encrypt,
        AttributeType::Decrypt,
        AttributeType::Sign,
        AttributeType::Verify,
        AttributeType::Wrap,
        AttributeType::Unwrap,
        AttributeType::Derive,
        AttributeType::SignRecover,
        AttributeType::VerifyRecover,
    ];
    const OTHERS: [AttributeType; 14] = [
        AttributeType::KeyType,
        AttributeType::Token,
        AttributeType::Private,
        AttributeType::Local,
        AttributeType::Sensitive,
        AttributeType::AlwaysSensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
        AttributeType::Modifiable,
        AttributeType::AlwaysAuthenticate,
        AttributeType::ValueLen,
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::AllowedMechanisms,
    ];

    pub(crate) fn read(session: &Session, key: ObjectHandle, id: &'a str) -> Result<Self, HsmError> {
        let wanted: Vec<_> = Self::USES.into_iter().chain(Self::OTHERS).collect();
        let attributes = session.get_attributes(key, &wanted).doing("reading a key's attributes")?;
        Ok(Self { id, attributes })
    }

    fn get(&self, wanted: AttributeType) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.attribute_type() == wanted)
    }

    /// A yes-or-no attribute; `None` where the token does not have it for this key.
    fn flag(&self, wanted: AttributeType) -> Option<bool> {
        match self.get(wanted)? {
            Attribute::Token(value)
            | Attribute::Private(value)
            | Attribute::Local(value)
            | Attribute::Sensitive(value)
            | Attribute::AlwaysSensitive(value)
            | Attribute::Extractable(value)
            | Attribute::NeverExtractable(value)
            | Attribute::Modifiable(value)
            | Attribute::AlwaysAuthenticate(value)
            | Attribute::Encrypt(value)
            | Attribute::Decrypt(value)
            | Attribute::Sign(value)
            | Attribute::Verify(value)
            | Attribute::Wrap(value)
            | Attribute::Unwrap(value)
            | Attribute::Derive(value)
            | Attribute::SignRecover(value)
            | Attribute::VerifyRecover(value) => Some(*value),
            _ => None,
        }
    }

    /// The key was made on the token, stays there, and cannot be changed.
    pub(crate) fn check_kept(&self) -> Result<(), HsmError> {
        for (wanted, value) in [
            (AttributeType::Token, true),
            (AttributeType::Private, true),
            (AttributeType::Local, true),
            (AttributeType::Sensitive, true),
            (AttributeType::AlwaysSensitive, true),
            (AttributeType::NeverExtractable, true),
            (AttributeType::Extractable, false),
            (AttributeType::Modifiable, false),
        ] {
            if self.flag(wanted) != Some(value) {
                return Err(self.unfit(format!("{wanted} is not {value}")));
            }
        }
        if self.flag(AttributeType::AlwaysAuthenticate) == Some(true) {
            return Err(self.unfit("it asks for the PIN at every use (CKA_ALWAYS_AUTHENTICATE)"));
        }
        Ok(())
    }

    pub(crate) fn check_type(&self, key_type: KeyType) -> Result<(), HsmError> {
        if self.get(AttributeType::KeyType) != Some(&Attribute::KeyType(key_type)) {
            return Err(self.unfit(format!("its type is not {key_type}")));
        }
        Ok(())
    }

    pub(crate) fn check_kind(
        &self,
        key_type: KeyType,
        parameter: AttributeType,
        value: &Attribute,
    ) -> Result<(), HsmError> {
        self.check_type(key_type)?;
        if self.get(parameter) != Some(value) {
            return Err(self.unfit(format!("{parameter} is not that of AES-256 or P-256")));
        }
        Ok(())
    }

    /// The key may be used for these and for nothing else.
    pub(crate) fn check_uses(&self, uses: &[AttributeType]) -> Result<(), HsmError> {
        for used in Self::USES {
            match (uses.contains(&used), self.flag(used)) {
                (true, Some(true)) | (false, Some(false) | None) => {}
                (true, _) => return Err(self.unfit(format!("{used} is not true"))),
                (false, _) => {
                    return Err(self.unfit(format!("{used} is true beside its one purpose")));
                }
            }
        }
        Ok(())
    }

    /// The token limits the key to one mechanism; `false` where it cannot.
    pub(crate) fn check_mechanism(&self, mechanism: MechanismType) -> Result<bool, HsmError> {
        match self.get(AttributeType::AllowedMechanisms) {
            None => Ok(false),
            Some(Attribute::AllowedMechanisms(allowed)) if *allowed == [mechanism] => Ok(true),
            Some(_) => Err(self.unfit(format!("CKA_ALLOWED_MECHANISMS is not {mechanism} alone"))),
        }
    }

    /// The public point, as most tokens give it (a DER OCTET STRING, as PKCS#11 asks) or as some do (bare).
    pub(crate) fn point(&self) -> Result<VerifyingKey, HsmError> {
        let Some(Attribute::EcPoint(encoded)) = self.get(AttributeType::EcPoint) else {
            return Err(self.unfit("CKA_EC_POINT is missing"));
        };
        let point = match encoded.as_slice() {
            [0x04, 0x41, point @ ..] if point.len() == 65 => point,
            point => point,
        };
        VerifyingKey::from_sec1_bytes(point).map_err(|_| self.unfit("CKA_EC_POINT is not on P-256"))
    }

    fn unfit(&self, problem: impl Into<String>) -> HsmError {
        HsmError::KeyUnfit { id: self.id.to_owned(), problem: problem.into() }
    }
}
