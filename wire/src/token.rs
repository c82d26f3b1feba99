//! The join token: a compact JWS (RFC 7515) by which a coordinator convenes a session.
//!
//! It proves who convened the session and with whom. It never authorizes a signature: policy does.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest32, PartyId, PublicKey, SessionId, SessionType, ShareType};
use crate::roster::{Member, Roster, Threshold};
use crate::rotation::Rotation;

/// The longest lifetime (`exp` − `iat`) that is accepted, in seconds.
pub const MAX_LIFETIME: i64 = 15 * 60;
/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// What a token claims. Fields that its session type does not use are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The coordinator that convened the session.
    pub iss: String,
    /// The party that it is for.
    pub aud: PartyId,
    /// Names this token; used once.
    pub jti: String,
    /// Issued at, Unix seconds.
    pub iat: i64,
    /// Not before, Unix seconds.
    pub nbf: i64,
    /// Expires at, Unix seconds.
    pub exp: i64,
    /// The session.
    pub session_id: SessionId,
    /// What the session is for.
    pub session_type: SessionType,
    /// Parties needed to sign.
    pub threshold_t: u16,
    /// Parties that hold, or will hold, a share.
    pub threshold_n: u16,
    /// Who takes part: all n for keygen, exactly t for signing; for a rotation the new committee, then dealers that leave.
    pub participants: Vec<Member>,
    /// Keygen and rotation: what the key is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_type: Option<ShareType>,
    /// Keygen and rotation: the key's label, by which policy may put it into groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Signing and rotation: which key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// Signing: what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<Digest32>,
    /// Signing: with which child key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation_path: Option<String>,
    /// Rotation: from which shares, to which epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// The two algorithms that a coordinator key may use; fixed for each pinned key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// ECDSA P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl From<TokenAlgorithm> for Algorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::Es256 => Self::ES256,
            TokenAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// Why a token is not accepted. The texts name no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a compact JWS of the expected form.
    #[error("the join token is malformed: {0}")]
    Malformed(String),
    /// No pinned key has this issuer.
    #[error("the join token is issued by {0:?}, for which no coordinator key is pinned here")]
    UnknownIssuer(String),
    /// The header asks for another algorithm than the pinned key's.
    #[error("the join token's algorithm is not the one of the pinned key")]
    WrongAlgorithm,
    /// The signature does not verify.
    #[error("the join token's signature does not verify against the pinned coordinator key")]
    BadSignature,
    /// A time claim fails.
    #[error("the join token {0}")]
    Time(&'static str),
    /// A claim disagrees with the request or with this party.
    #[error("the join token's {claim} does not fit: {why}")]
    Claim {
        /// The claim's name.
        claim: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A key file could not be read as a key.
    #[error("the coordinator key could not be read: {0}")]
    Key(String),
}

/// Signs tokens: the coordinator's side.
pub struct TokenSigner {
    issuer: String,
    algorithm: TokenAlgorithm,
    key: EncodingKey,
}

impl TokenSigner {
    /// Takes a PKCS#8 PEM private key.
    ///
    /// # Errors
    /// Says that the key is not one for this algorithm.
    pub fn new(issuer: String, algorithm: TokenAlgorithm, pem: &[u8]) -> Result<Self, TokenError> {
        let key = match algorithm {
            TokenAlgorithm::Es256 => EncodingKey::from_ec_pem(pem),
            TokenAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(Self { issuer, algorithm, key })
    }

    /// What stands in `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs the claims as they are.
    ///
    /// # Errors
    /// Says that the key could not sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        jsonwebtoken::encode(&Header::new(self.algorithm.into()), claims, &self.key)
            .map_err(|e| TokenError::Key(e.to_string()))
    }
}

/// One coordinator's public key, as pinned in an appliance's config.
pub struct PinnedKey {
    issuer: String,
    algorithm: TokenAlgorithm,
    key: DecodingKey,
}

impl PinnedKey {
    /// Takes a SubjectPublicKeyInfo PEM.
    ///
    /// # Errors
    /// Says that the key is not one for this algorithm.
    pub fn new(issuer: String, algorithm: TokenAlgorithm, pem: &[u8]) -> Result<Self, TokenError> {
        let key = match algorithm {
            TokenAlgorithm::Es256 => DecodingKey::from_ec_pem(pem),
            TokenAlgorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(Self { issuer, algorithm, key })
    }

    /// The `iss` that this key answers for.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Claims whose signature, times, audience and inner consistency hold. Whether they fit the request and the pins is
/// the appliance's next question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    claims: Claims,
    roster: Roster,
    threshold: Threshold,
}

impl VerifiedToken {
    /// The claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
    /// The participants as a valid roster.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }
    /// t and n.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: Option<String>,
}

/// Verifies a token for `audience` at `now` (Unix seconds), allowing `skew` seconds of clock difference.
///
/// Checks signature, algorithm, times, lifetime, audience, and that the claims are consistent in themselves.
///
/// # Errors
/// Names the first check that fails.
pub fn verify(
    token: &str,
    pinned: &[PinnedKey],
    audience: &PartyId,
    now: i64,
    skew: i64,
) -> Result<VerifiedToken, TokenError> {
    let malformed = |why: &str| TokenError::Malformed(why.into());
    if token.len() > MAX_TOKEN {
        return Err(malformed("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("it has no three parts"))?;
    let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("it has no three parts"))?;
    let header: StrictHeader = part(header, "header")?;
    let claims: Claims = part(payload, "payload")?;
    let key = pinned
        .iter()
        .find(|key| key.issuer == claims.iss)
        .ok_or_else(|| TokenError::UnknownIssuer(claims.iss.chars().take(64).collect()))?;
    let algorithm: Algorithm = key.algorithm.into();
    let expected = match key.algorithm {
        TokenAlgorithm::Es256 => "ES256",
        TokenAlgorithm::EdDsa => "EdDSA",
    };
    if header.alg != expected || header.typ.is_some_and(|typ| typ != "JWT") {
        return Err(TokenError::WrongAlgorithm);
    }
    match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err(TokenError::BadSignature),
    }
    check_times(&claims, now, skew)?;
    check_claims(claims, audience)
}

fn part<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, TokenError> {
    let bytes =
        URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed(format!("its {what} is not base64url")))?;
    serde_json::from_slice(&bytes).map_err(|e| TokenError::Malformed(format!("its {what}: {e}")))
}

fn check_times(claims: &Claims, now: i64, skew: i64) -> Result<(), TokenError> {
    let late = now.saturating_add(skew);
    let early = now.saturating_sub(skew);
    if claims.iat > late {
        return Err(TokenError::Time("was issued in the future; compare the clocks"));
    }
    if claims.nbf > late {
        return Err(TokenError::Time("is not valid yet; compare the clocks"));
    }
    if claims.exp <= early {
        return Err(TokenError::Time("has expired; convene the session again"));
    }
    if claims.exp <= claims.iat || claims.exp <= claims.nbf {
        return Err(TokenError::Time("expires before it is valid"));
    }
    if claims.exp.saturating_sub(claims.iat) > MAX_LIFETIME {
        return Err(TokenError::Time("lives longer than 15 minutes"));
    }
    Ok(())
}

fn check_claims(claims: Claims, audience: &PartyId) -> Result<VerifiedToken, TokenError> {
    let wrong = |claim: &'static str, why: String| TokenError::Claim { claim, why };
    if &claims.aud != audience {
        return Err(wrong("aud", format!("it is for {}, this is {audience}", claims.aud)));
    }
    // It stands in the audit log as it is: two tokens must not look alike there.
    let plain = claims.jti.bytes().all(|byte| byte.is_ascii_graphic());
    if claims.jti.is_empty() || claims.jti.len() > 128 || !plain {
        return Err(wrong("jti", "it must have 1 to 128 printable ASCII characters, without spaces".into()));
    }
    let threshold =
        Threshold::new(claims.threshold_t, claims.threshold_n).map_err(|e| wrong("threshold", e.to_string()))?;
    let roster = Roster::try_from(claims.participants.clone()).map_err(|e| wrong("participants", e.to_string()))?;
    if roster.position(audience).is_none() {
        return Err(wrong("participants", format!("{audience} is not among them")));
    }
    match claims.session_type {
        SessionType::Keygen => {
            if !roster.is_full() || roster.size() != threshold.n() {
                return Err(wrong(
                    "participants",
                    format!("keygen needs all {} parties, indices from 0", threshold.n()),
                ));
            }
            if claims.share_type.is_none() {
                return Err(wrong("share_type", "keygen needs one".into()));
            }
            if claims.public_key.is_some() || claims.message_hash.is_some() || claims.derivation_path.is_some() {
                return Err(wrong("session_type", "keygen takes no key, message hash or path".into()));
            }
        }
        SessionType::Sign => {
            if roster.size() != threshold.t() {
                return Err(wrong("participants", format!("signing needs exactly {} parties", threshold.t())));
            }
            if roster.indices().iter().any(|index| *index >= threshold.n()) {
                return Err(wrong("participants", "an index lies outside the committee".into()));
            }
            if claims.public_key.is_none() || claims.message_hash.is_none() {
                return Err(wrong("session_type", "signing needs a key and a message hash".into()));
            }
            if claims.share_type.is_some() || claims.label.is_some() {
                return Err(wrong("share_type", "signing takes neither share type nor label".into()));
            }
        }
        SessionType::Rotate => {
            if claims.public_key.is_none() || claims.share_type.is_none() {
                return Err(wrong("session_type", "a rotation needs the key and what it is for".into()));
            }
            if claims.message_hash.is_some() || claims.derivation_path.is_some() {
                return Err(wrong("session_type", "a rotation takes neither message hash nor path".into()));
            }
            let rotation = claims.rotation.as_ref().ok_or_else(|| wrong("rotation", "a rotation needs one".into()))?;
            rotation.places(threshold, &roster).map_err(|e| wrong("rotation", e.to_string()))?;
        }
    }
    if claims.rotation.is_some() && claims.session_type != SessionType::Rotate {
        return Err(wrong("rotation", "only a rotation takes one".into()));
    }
    Ok(VerifiedToken { claims, roster, threshold })
}
