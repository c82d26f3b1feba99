//! Claims → deterministic CBOR (RFC 8949, section 4.2.1). Every map here is written in the order of its keys' encodings;
//! the decoder refuses anything that this would not write.

use ciborium::Value;

use super::cbor;
use super::claims::{Claims, InvalidClaims, Measurements};
use super::nonce::Nonces;
use super::quote::Quote;
use super::token::PROFILE;

/// Claim numbers of the IANA registry "CBOR Web Token (CWT) Claims": RFC 8392 and RFC 9711.
pub(super) mod claim {
    pub(in super::super) const EXP: i64 = 4;
    pub(in super::super) const IAT: i64 = 6;
    pub(in super::super) const NONCE: i64 = 10;
    pub(in super::super) const UEID: i64 = 256;
    pub(in super::super) const OEMID: i64 = 258;
    pub(in super::super) const HWMODEL: i64 = 259;
    pub(in super::super) const PROFILE: i64 = 265;
    pub(in super::super) const BOOTCOUNT: i64 = 267;
    pub(in super::super) const SWNAME: i64 = 270;
    pub(in super::super) const SWVERSION: i64 = 271;
    pub(in super::super) const MEASUREMENTS: i64 = 273;
    /// Private use (RFC 8392, section 9.1: below -65536): the map of the claims that this profile adds.
    pub(in super::super) const PRIVATE: i64 = -70_000;
}

/// Item numbers of a CoSWID (RFC 9393).
pub(super) mod coswid {
    pub(in super::super) const TAG_ID: i64 = 0;
    pub(in super::super) const SOFTWARE_NAME: i64 = 1;
    pub(in super::super) const ENTITY: i64 = 2;
    pub(in super::super) const EVIDENCE: i64 = 3;
    pub(in super::super) const HASH: i64 = 7;
    pub(in super::super) const TAG_VERSION: i64 = 12;
    pub(in super::super) const SOFTWARE_VERSION: i64 = 13;
    pub(in super::super) const VERSION_SCHEME: i64 = 14;
    pub(in super::super) const FILE: i64 = 17;
    pub(in super::super) const FS_NAME: i64 = 24;
    pub(in super::super) const ENTITY_NAME: i64 = 31;
    pub(in super::super) const ROLE: i64 = 33;
    /// The role of whoever made the tag.
    pub(in super::super) const TAG_CREATOR: i64 = 1;
    /// SHA-256 in the IANA registry "Named Information Hash Algorithm".
    pub(in super::super) const SHA_256: i64 = 1;
    /// The version scheme "semver".
    pub(in super::super) const SEMVER: i64 = 16_384;
    /// The CoAP content format of `application/swid+cbor`.
    pub(in super::super) const CONTENT_FORMAT: i64 = 258;
}

/// The claim `oemid`: 16 bytes that were drawn at random once, for every appliance of this make.
pub(super) const OEMID: [u8; 16] =
    [0xe6, 0x1a, 0x09, 0xe8, 0xa2, 0xac, 0x1f, 0xbe, 0x57, 0x57, 0x41, 0x66, 0x23, 0xb5, 0x22, 0x25];
/// The claim `swname`.
pub(super) const SOFTWARE: &str = "casemated";
/// Names the CoSWID tag; one for all, since each is evidence of one moment inside a signed token.
pub(super) const TAG: &str = "casemate-appliance-measurements";
/// How the measured things are named in it.
pub(super) const BINARY: &str = "casemated";
pub(super) const CONFIG: &str = "casemate.toml";
pub(super) const POLICY: &str = "manifest.toml";

/// The payload of the token.
pub(super) fn payload(claims: &Claims) -> Result<Vec<u8>, InvalidClaims> {
    claims.check()?;
    let failed = |why: String| InvalidClaims::Encoding(why);
    let version = claims.version.as_str();
    let entries = vec![
        (claim::EXP.into(), claims.expires_at.as_second().into()),
        (claim::IAT.into(), claims.issued_at.as_second().into()),
        (claim::NONCE.into(), nonces(&claims.nonces)),
        (claim::UEID.into(), bytes(claims.ueid.as_bytes())),
        (claim::OEMID.into(), bytes(&OEMID)),
        (claim::HWMODEL.into(), bytes(&claims.hwmodel)),
        (claim::PROFILE.into(), PROFILE.into()),
        (claim::BOOTCOUNT.into(), claims.boots.into()),
        (claim::SWNAME.into(), SOFTWARE.into()),
        (claim::SWVERSION.into(), Value::Array(vec![version.into(), coswid::SEMVER.into()])),
        (claim::MEASUREMENTS.into(), measurements(version, &claims.measurements).map_err(failed)?),
        (claim::PRIVATE.into(), private(claims)),
    ];
    cbor::write(&Value::Map(entries)).map_err(failed)
}

/// One nonce stands alone, several in an array (RFC 9711, section 4.1: an array has two or more).
fn nonces(nonces: &Nonces) -> Value {
    match nonces.all() {
        [one] => bytes(one.as_bytes()),
        several => Value::Array(several.iter().map(|nonce| bytes(nonce.as_bytes())).collect()),
    }
}

/// Pairs of CoAP content format and wrapped body (RFC 9711, section 4.2.16): one CoSWID with evidence (RFC 9393).
fn measurements(version: &str, measured: &Measurements) -> Result<Value, String> {
    let file = |name: &str, digest: &[u8; 32]| {
        let hash = Value::Array(vec![coswid::SHA_256.into(), bytes(digest)]);
        Value::Map(vec![(coswid::HASH.into(), hash), (coswid::FS_NAME.into(), name.into())])
    };
    let mut files = vec![file(BINARY, &measured.binary.0), file(CONFIG, &measured.config.0)];
    files.extend(measured.policy.map(|digest| file(POLICY, &digest.0)));
    let entity = vec![(coswid::ENTITY_NAME.into(), SOFTWARE.into()), (coswid::ROLE.into(), coswid::TAG_CREATOR.into())];
    let tag = Value::Map(vec![
        (coswid::TAG_ID.into(), TAG.into()),
        (coswid::SOFTWARE_NAME.into(), SOFTWARE.into()),
        (coswid::ENTITY.into(), Value::Map(entity)),
        (coswid::EVIDENCE.into(), Value::Map(vec![(coswid::FILE.into(), Value::Array(files))])),
        (coswid::TAG_VERSION.into(), 0.into()),
        (coswid::SOFTWARE_VERSION.into(), version.into()),
        (coswid::VERSION_SCHEME.into(), coswid::SEMVER.into()),
    ]);
    let pair = Value::Array(vec![coswid::CONTENT_FORMAT.into(), Value::Bytes(cbor::write(&tag)?)]);
    Ok(Value::Array(vec![pair]))
}

fn private(claims: &Claims) -> Value {
    let text = |text: &dyn std::fmt::Display| Value::Text(text.to_string());
    let kek = vec![("epoch".into(), claims.kek.epoch.into()), ("label".into(), text(&claims.kek.label))];
    let audit = vec![text(&claims.audit.origin), claims.audit.size.into(), bytes(&claims.audit.root.0)];
    let token = vec![
        ("model".into(), text(&claims.token.model)),
        ("serial".into(), text(&claims.token.serial)),
        ("firmware".into(), text(&claims.token.firmware)),
    ];
    let mut entries = vec![("kek".into(), Value::Map(kek))];
    entries.extend(claims.quote.as_ref().map(|found| ("tpm".into(), quote(found))));
    entries.extend([
        ("audit".into(), Value::Array(audit)),
        ("party".into(), text(&claims.party)),
        ("token".into(), Value::Map(token)),
        ("tls_spki".into(), bytes(&claims.tls_spki.0)),
    ]);
    Value::Map(entries)
}

fn quote(quote: &Quote) -> Value {
    let pcr = |(index, value): &(u8, casemate_wire::Digest32)| Value::Array(vec![(*index).into(), bytes(&value.0)]);
    Value::Map(vec![
        ("ak".into(), bytes(quote.ak.spki())),
        ("sig".into(), bytes(&quote.signature)),
        ("pcrs".into(), Value::Array(quote.pcrs.iter().map(pcr).collect())),
        ("quote".into(), bytes(&quote.attested)),
    ])
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}
