//! Invites the parties of a session: one join token each.

use std::collections::BTreeMap;

use casemate_wire::token::{Claims, MAX_LIFETIME, TokenError, TokenSigner};
use casemate_wire::{Digest32, PartyId, PublicKey, Rotation, ShareType};
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
    let subject = Subject::of(session.purpose());
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
            share_type: subject.share_type,
            label: subject.label.clone(),
            public_key: subject.public_key,
            message_hash: subject.message_hash,
            derivation_path: subject.derivation_path.clone(),
            rotation: subject.rotation.clone(),
        };
        Ok((party.clone(), signer.sign(&claims)?))
    };
    members.iter().map(|member| token(&member.party_id)).collect()
}

/// The claims that only some kinds of session have.
#[derive(Default)]
struct Subject {
    share_type: Option<ShareType>,
    label: Option<String>,
    public_key: Option<PublicKey>,
    message_hash: Option<Digest32>,
    derivation_path: Option<String>,
    rotation: Option<Rotation>,
}

impl Subject {
    fn of(purpose: &Purpose) -> Self {
        match purpose {
            Purpose::Keygen(new) => {
                Self { share_type: Some(new.share_type), label: new.label.clone(), ..Self::default() }
            }
            Purpose::Sign { public_key, message_hash, child, .. } => Self {
                public_key: Some(*public_key),
                message_hash: Some(*message_hash),
                derivation_path: child.as_ref().map(|child| child.path.to_string()),
                ..Self::default()
            },
            Purpose::Rotate(new) => Self {
                share_type: Some(new.from.share_type),
                label: new.from.label.clone(),
                public_key: Some(new.from.public_key),
                rotation: Some(new.rotation.clone()),
                ..Self::default()
            },
        }
    }
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
        for session in [testing::keygen(), testing::sign(), testing::rotate()] {
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
