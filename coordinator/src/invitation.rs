//! Invites the parties of a session: one join token each.

use std::collections::BTreeMap;

use casemate_wire::PartyId;
use casemate_wire::token::{Claims, MAX_LIFETIME, TokenError, TokenSigner};
use jiff::Timestamp;
use uuid::Uuid;

use crate::session::{Purpose, Session};

/// Join tokens by party, as the front door shows them and as the appliances are presented with them.
pub(crate) type JoinTokens = BTreeMap<PartyId, String>;

/// Signs a join token for each participant. It lives as long as the session, 15 minutes at most.
///
/// # Errors
/// The key could not sign.
pub(crate) fn join_tokens(signer: &TokenSigner, session: &Session, now: Timestamp) -> Result<JoinTokens, TokenError> {
    let issued = now.as_second();
    let expires = session.expires_at().as_second().min(issued.saturating_add(MAX_LIFETIME));
    let threshold = session.threshold();
    let (new, public_key, message_hash) = match session.purpose() {
        Purpose::Keygen(new) => (Some(new), None, None),
        Purpose::Sign { public_key, message_hash, .. } => (None, Some(*public_key), Some(*message_hash)),
    };
    let members: Vec<_> = session.participants().iter().map(|p| p.member.clone()).collect();
    let token = |party: &PartyId| {
        let claims = Claims {
            iss: signer.issuer().to_owned(),
            aud: party.clone(),
            jti: Uuid::new_v4().to_string(),
            iat: issued,
            nbf: issued,
            exp: expires,
            session_id: session.id().clone(),
            session_type: session.session_type(),
            threshold_t: threshold.t(),
            threshold_n: threshold.n(),
            participants: members.clone(),
            share_type: new.map(|new| new.share_type),
            label: new.and_then(|new| new.label.clone()),
            public_key,
            message_hash,
            derivation_path: None,
            rotation: None,
        };
        Ok((party.clone(), signer.sign(&claims)?))
    };
    members.iter().map(|member| token(&member.party_id)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::session::testing;
    use casemate_wire::token::{PinnedKey, TokenAlgorithm, verify};
    use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};

    fn keys() -> (TokenSigner, PinnedKey) {
        let key = p256::SecretKey::from_slice(&[3; 32]).unwrap();
        let secret = key.to_pkcs8_pem(LineEnding::LF).unwrap();
        let public = key.public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let es256 = TokenAlgorithm::Es256;
        let signer = TokenSigner::new("c".into(), es256, secret.as_bytes()).unwrap();
        (signer, PinnedKey::new("c".into(), es256, public.as_bytes()).unwrap())
    }

    #[test]
    fn every_participant_gets_a_token_that_its_appliance_accepts() {
        let (signer, pinned) = keys();
        for session in [testing::keygen(), testing::sign()] {
            let now = session.created_at();
            let tokens = join_tokens(&signer, &session, now).unwrap();
            assert_eq!(tokens.len(), session.participants().len());
            let mut ids = Vec::new();
            for (party, token) in &tokens {
                let pinned = std::slice::from_ref(&pinned);
                let token = verify(token, pinned, party, now.as_second(), 0).unwrap();
                assert_eq!(&token.claims().session_id, session.id());
                assert_eq!(token.claims().session_type, session.session_type());
                ids.push(token.claims().jti.clone());
            }
            ids.dedup();
            assert_eq!(ids.len(), tokens.len());
        }
    }

    #[test]
    fn a_token_never_outlives_fifteen_minutes_or_its_session() {
        let (signer, pinned) = keys();
        let short = testing::keygen();
        let now = short.created_at();
        let long = testing::keygen_that_expires(now + jiff::SignedDuration::from_hours(1));
        for (session, lifetime) in [(short, 600), (long, 900)] {
            let tokens = join_tokens(&signer, &session, now).unwrap();
            let (party, token) = tokens.first_key_value().unwrap();
            let pinned = std::slice::from_ref(&pinned);
            let token = verify(token, pinned, party, now.as_second(), 0).unwrap();
            assert_eq!(token.claims().exp - token.claims().iat, lifetime);
        }
    }
}
