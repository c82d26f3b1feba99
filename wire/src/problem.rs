//! Problem details (RFC 9457, `application/problem+json`) with the product's stable codes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The media type of a problem body.
pub const CONTENT_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// The stable codes of the HTTP contracts. Scripts may rely on them; texts beside them may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it stands in the `code` field.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// A short title, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not what the route takes.
    BadRequest = "bad_request", 400, "The request is not valid";
    /// No key or certificate that is known here.
    Unauthenticated = "unauthenticated", 401, "The caller is not known here";
    /// The caller has no role for this route.
    ForbiddenRole = "forbidden_role", 403, "The caller has no role for this";
    /// No such route.
    NotFound = "not_found", 404, "There is nothing at this address";
    /// The route exists, but not for this method.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here";
    /// The body is larger than allowed.
    PayloadTooLarge = "payload_too_large", 413, "The body is too large";
    /// The join token is altered, expired, foreign, or disagrees with the request.
    InvalidJoinToken = "invalid_join_token", 403, "The join token is not valid";
    /// The join token was used before.
    TokenReplayed = "token_replayed", 403, "The join token was used before";
    /// No such session here.
    SessionNotFound = "session_not_found", 404, "Session not found";
    /// The session exists with other contents, or its stream is taken.
    SessionConflict = "session_conflict", 409, "The session exists with other contents";
    /// The session ran out of time.
    SessionExpired = "session_expired", 410, "The session has expired";
    /// No such account.
    AccountNotFound = "account_not_found", 404, "Account not found";
    /// Fewer participants than the threshold.
    InsufficientParticipants = "insufficient_participants", 400, "Insufficient participants";
    /// No such share here.
    ShareNotFound = "share_not_found", 404, "Share not found";
    /// The share is pending, rotated or revoked.
    ShareNotActive = "share_not_active", 409, "The share is not active";
    /// The key has come to that epoch, or to a later one, with this party; the problem's `epoch` says which.
    EpochTaken = "epoch_taken", 409, "The epoch is taken";
    /// Policy refuses.
    PolicyDenied = "policy_denied", 403, "Refused by policy";
    /// A policy bundle that was to be loaded is not valid, or not signed as it must be.
    PolicyRefused = "policy_refused", 422, "The policy bundle is refused";
    /// The intent does not hash to the message hash.
    IntentMismatch = "intent_mismatch", 422, "The intent is not what would be signed";
    /// There is no intent that could be decoded.
    BlindSigningDenied = "blind_signing_denied", 403, "Signing without a decoded intent is refused";
    /// Participants or threshold disagree with the key.
    QuorumMismatch = "quorum_mismatch", 409, "The participants do not fit the key";
    /// A peer's own signed message is faulty.
    PeerFault = "peer_fault", 502, "A peer misbehaved";
    /// A peer's audit log does not continue what this appliance has seen of it.
    PeerLogRefused = "peer_log_refused", 502, "A peer's audit log is refused";
    /// Policy asks for attested peers, and one did not attest itself well.
    PeerNotAttested = "peer_not_attested", 502, "A peer is not attested";
    /// A message was damaged, lost or misdirected on its way.
    TransportFault = "transport_fault", 502, "Messages were not delivered as sent";
    /// A party or the session took too long.
    Timeout = "timeout", 504, "The session took too long";
    /// The process stopped while the session ran.
    Interrupted = "interrupted", 500, "The session was interrupted by a restart";
    /// The protocol ended without a result and without a culprit.
    ProtocolAborted = "protocol_aborted", 502, "The protocol was aborted";
    /// The HSM does not answer.
    HsmUnavailable = "hsm_unavailable", 503, "The HSM is not available";
    /// The audit log cannot be written.
    AuditUnavailable = "audit_unavailable", 503, "The audit log is not available";
    /// The audit log does not stand as the HSM has anchored it: nothing is signed before a signed recovery.
    EvidenceRefused = "evidence_refused", 503, "The audit evidence is refused";
    /// Primes or aux info are not made yet.
    NotReady = "not_ready", 503, "The appliance is still preparing";
    /// Wall clock and boot clock disagree.
    ClockUntrusted = "clock_untrusted", 503, "The appliance's clock cannot be trusted";
    /// An appliance cannot be reached by the coordinator.
    PartyUnreachable = "party_unreachable", 502, "A party cannot be reached";
    /// An appliance does not attest what the coordinator's reference says.
    AttestationFailed = "attestation_failed", 502, "A party's attestation is not as it should be";
    /// Too much at once.
    Overloaded = "overloaded", 503, "Too many requests at once";
    /// Something that should not happen did.
    Internal = "internal", 500, "Internal error";
    /// The body's media type is not the one that the route takes.
    UnsupportedMediaType = "unsupported_media_type", 415, "The media type is not supported";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One problem, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: the `code` field is the discriminator.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was being done, why it failed, what to try.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// Further members, such as `policies`, `observed`, `party`, `round`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Problem {
    /// A problem with its detail text.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".into(),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code,
            more: Map::new(),
        }
    }

    /// Adds a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.into(), value.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn codes_are_their_texts_on_the_wire() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn further_members_stand_beside_the_standard_ones() {
        let problem = Problem::new(Code::PeerFault, "it sent garbage").with("party", "party-2");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["party"], "party-2");
        assert_eq!(json["code"], "peer_fault");
        assert_eq!(json["status"], 502);
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }
}
