//! CBOR → claims, strictly: exactly the claims of the profile, each in its one form.

use casemate_wire::Digest32;
use ciborium::Value;
use jiff::Timestamp;

use super::cbor::{self, Bad, Fields, Read, bad, bytes, fixed, only, parsed, text, tuple, unsigned};
use super::claims::{AuditClaim, Claims, KekClaim, Measurements, TokenClaim, Ueid};
use super::encode::{self, claim, coswid};
use super::key::AttestKey;
use super::nonce::{Nonce, Nonces};
use super::quote::Quote;
use super::token::PROFILE;
use crate::text::Text;

/// The claims in a token's payload.
pub(super) fn claims(payload: &[u8]) -> Read<Claims> {
    let mut map = Fields::of("the claims set", cbor::read("the claims set", payload)?)?;
    only("eat_profile", &map.required("eat_profile", claim::PROFILE)?, &PROFILE.into())?;
    only("oemid", &map.required("oemid", claim::OEMID)?, &Value::Bytes(encode::OEMID.to_vec()))?;
    only("swname", &map.required("swname", claim::SWNAME)?, &encode::SOFTWARE.into())?;
    let [version, scheme] = tuple("swversion", map.required("swversion", claim::SWVERSION)?)?;
    only("the scheme of swversion", &scheme, &coswid::SEMVER.into())?;
    let version: Text = parsed("swversion", version)?;
    let ueid: [u8; 33] = fixed("ueid", map.required("ueid", claim::UEID)?)?;
    let Some(ueid) = Ueid::from_bytes(&ueid) else { return bad("ueid", "is not of the kind RAND") };
    let mut private = Fields::of("the private claims", map.required("private claims", claim::PRIVATE)?)?;
    let claims = Claims {
        nonces: nonces(map.required("nonce", claim::NONCE)?)?,
        issued_at: moment("iat", map.required("iat", claim::IAT)?)?,
        expires_at: moment("exp", map.required("exp", claim::EXP)?)?,
        ueid,
        hwmodel: fixed("hwmodel", map.required("hwmodel", claim::HWMODEL)?)?,
        boots: unsigned("bootcount", map.required("bootcount", claim::BOOTCOUNT)?)?,
        measurements: measurements(&version, map.required("measurements", claim::MEASUREMENTS)?)?,
        version,
        party: parsed("party", private.required("party", "party")?)?,
        audit: audit(private.required("audit", "audit")?)?,
        token: token(private.required("token", "token")?)?,
        kek: kek(private.required("kek", "kek")?)?,
        tls_spki: digest("tls_spki", private.required("tls_spki", "tls_spki")?)?,
        quote: private.optional("tpm").map(quote).transpose()?,
    };
    private.end()?;
    map.end()?;
    claims.check().map_err(|error| Bad(error.to_string()))?;
    // Only one form of the same claims is a token: order, lengths, doubles and everything that was not looked at.
    match encode::payload(&claims) {
        Ok(written) if written == payload => Ok(claims),
        _ => bad("the claims set", "is not in deterministic encoding"),
    }
}

fn nonces(value: Value) -> Read<Nonces> {
    let one = |value| Nonce::new(bytes("nonce", value)?).map_err(|error| Bad(error.to_string()));
    let all = match value {
        Value::Array(several) => several.into_iter().map(one).collect::<Read<Vec<_>>>()?,
        single => vec![one(single)?],
    };
    Nonces::new(all).map_err(|error| Bad(error.to_string()))
}

fn moment(what: &str, value: Value) -> Read<Timestamp> {
    let seconds: i64 = unsigned(what, value)?;
    Timestamp::from_second(seconds).or_else(|_| bad(what, "is not a time"))
}

fn digest(what: &str, value: Value) -> Read<Digest32> {
    fixed(what, value).map(Digest32)
}

fn measurements(version: &Text, value: Value) -> Read<Measurements> {
    let [pair] = tuple("measurements", value)?;
    let [format, body] = tuple("measurements", pair)?;
    only("the content format of measurements", &format, &coswid::CONTENT_FORMAT.into())?;
    let tag = cbor::read("the CoSWID of measurements", &bytes("the CoSWID of measurements", body)?)?;
    let mut tag = Fields::of("the CoSWID", tag)?;
    for (name, key, expected) in [
        ("tag-id", coswid::TAG_ID, encode::TAG.into()),
        ("tag-version", coswid::TAG_VERSION, 0.into()),
        ("software-name", coswid::SOFTWARE_NAME, encode::SOFTWARE.into()),
        ("software-version", coswid::SOFTWARE_VERSION, version.as_str().into()),
        ("version-scheme", coswid::VERSION_SCHEME, coswid::SEMVER.into()),
    ] {
        only(name, &tag.required(name, key)?, &expected)?;
    }
    let mut entity = Fields::of("the CoSWID's entity", tag.required("entity", coswid::ENTITY)?)?;
    only("entity-name", &entity.required("entity-name", coswid::ENTITY_NAME)?, &encode::SOFTWARE.into())?;
    only("role", &entity.required("role", coswid::ROLE)?, &coswid::TAG_CREATOR.into())?;
    entity.end()?;
    let mut evidence = Fields::of("the CoSWID's evidence", tag.required("evidence", coswid::EVIDENCE)?)?;
    let files = cbor::array("the evidence's files", evidence.required("file", coswid::FILE)?)?;
    evidence.end()?;
    tag.end()?;
    let mut files = files.into_iter();
    let mut next = |name| files.next().map(|entry| file(name, entry)).transpose();
    let (binary, config, policy) = (next(encode::BINARY)?, next(encode::CONFIG)?, next(encode::POLICY)?);
    match (binary, config, files.next()) {
        (Some(binary), Some(config), None) => Ok(Measurements { binary, config, policy }),
        _ => bad("the evidence", "does not hold program, configuration and at most the policy"),
    }
}

fn file(name: &str, entry: Value) -> Read<Digest32> {
    let mut entry = Fields::of("a measured file", entry)?;
    only("fs-name", &entry.required("fs-name", coswid::FS_NAME)?, &name.into())?;
    let [algorithm, hash] = tuple("hash", entry.required("hash", coswid::HASH)?)?;
    only("the hash algorithm", &algorithm, &coswid::SHA_256.into())?;
    entry.end()?;
    digest("hash", hash)
}

fn audit(value: Value) -> Read<AuditClaim> {
    let [origin, size, root] = tuple("audit", value)?;
    Ok(AuditClaim {
        origin: parsed("the audit log's origin", origin)?,
        size: unsigned("the audit log's size", size)?,
        root: digest("the audit log's root", root)?,
    })
}

fn token(value: Value) -> Read<TokenClaim> {
    let mut map = Fields::of("token", value)?;
    let claim = TokenClaim {
        model: parsed("model", map.required("model", "model")?)?,
        serial: parsed("serial", map.required("serial", "serial")?)?,
        firmware: parsed("firmware", map.required("firmware", "firmware")?)?,
    };
    map.end().map(|()| claim)
}

fn kek(value: Value) -> Read<KekClaim> {
    let mut map = Fields::of("kek", value)?;
    let claim = KekClaim {
        label: parsed("label", map.required("label", "label")?)?,
        epoch: unsigned("epoch", map.required("epoch", "epoch")?)?,
    };
    map.end().map(|()| claim)
}

fn quote(value: Value) -> Read<Quote> {
    let mut map = Fields::of("tpm", value)?;
    let ak = bytes("ak", map.required("ak", "ak")?)?;
    let pcr = |value| {
        let [index, digest] = tuple("a PCR", value)?;
        Ok((unsigned("a PCR's index", index)?, self::digest("a PCR's value", digest)?))
    };
    let pcrs = cbor::array("pcrs", map.required("pcrs", "pcrs")?)?;
    let claim = Quote {
        ak: AttestKey::from_spki(&ak).or_else(|_| bad("ak", "is not a P-256 key"))?,
        attested: bytes("quote", map.required("quote", "quote")?)?,
        signature: fixed("sig", map.required("sig", "sig")?)?,
        pcrs: pcrs.into_iter().map(pcr).collect::<Read<_>>()?,
    };
    map.end().map(|()| claim)
}

/// The media type in the header parameter `typ`.
pub(super) fn media_type(value: Value) -> Read<()> {
    if text("typ", value)? == super::token::MEDIA_TYPE { Ok(()) } else { bad("typ", "is not application/eat+cwt") }
}
