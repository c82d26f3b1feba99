//! Authenticate: the join token, and that it fits this party, the route and the body.

use casemate_wire::token::{self, VerifiedToken};
use casemate_wire::{Code, Problem};
use jiff::Timestamp;

use super::ask::{Ask, Caller};
use super::refused::Refused;
use crate::daemon::Node;
use crate::session::Place;

/// A request whose token was signed by a pinned coordinator, is valid now, and says what the body says.
pub(super) struct Authenticated {
    caller: Caller,
    ask: Ask,
    token: VerifiedToken,
    place: Place,
}

impl Authenticated {
    pub(super) fn ask(&self) -> &Ask {
        &self.ask
    }
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }
    pub(super) fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// Turns the request away; its token is used up.
    pub(super) fn refuse(self, problem: Problem) -> Refused {
        Refused::new(self.caller, self.ask, problem, self.place).using(&self.token)
    }

    pub(super) fn into_session(self) -> (VerifiedToken, Place) {
        (self.token, self.place)
    }
}

/// Checks the token against the pins, the clock, this party, the route and the body.
pub(super) fn authenticate(node: &Node, caller: Caller, ask: Ask, place: Place) -> Result<Authenticated, Refused> {
    let config = &node.config;
    let bad = |detail: String| Problem::new(Code::InvalidJoinToken, detail);
    if ask.party_id() != &config.party {
        let detail = format!("the request is for {}, this is {}", ask.party_id(), config.party);
        return Err(Refused::new(caller, ask, Problem::new(Code::BadRequest, detail), place));
    }
    let now = Timestamp::now().as_second();
    let skew = i64::try_from(config.limits.clock_skew).unwrap_or(0);
    let verified = token::verify(ask.join_token(), &config.coordinator_keys, &config.party, now, skew);
    let token = match verified {
        Ok(token) => token,
        Err(error) => {
            node.metrics.auth_failed("join_token");
            return Err(Refused::new(caller, ask, bad(error.to_string()), place));
        }
    };
    let authenticated = Authenticated { caller, ask, token, place };
    if let Err(claim) = agrees(&authenticated) {
        let detail = format!("the join token and the request differ in {claim}");
        return Err(authenticated.refuse(bad(detail)));
    }
    if let Some(problem) = outdated(node, &authenticated) {
        node.metrics.auth_failed("token_before_recovery");
        return Err(authenticated.refuse(problem));
    }
    match unpinned(node, &authenticated) {
        None => Ok(authenticated),
        Some(problem) => Err(authenticated.refuse(problem)),
    }
}

/// Names the first claim in which token and body differ.
fn agrees(authenticated: &Authenticated) -> Result<(), &'static str> {
    let claims = authenticated.token.claims();
    let same = |holds: bool, claim| if holds { Ok(()) } else { Err(claim) };
    same(&claims.session_id == authenticated.ask.session_id(), "session_id")?;
    same(claims.session_type == authenticated.ask.session_type(), "session_type")?;
    match &authenticated.ask {
        Ask::Keygen(request) => {
            same(claims.share_type == Some(request.share_type), "share_type")?;
            same(claims.label == request.label, "label")
        }
        Ask::Sign(request) => {
            same(claims.public_key == Some(request.key), "public_key")?;
            same(claims.message_hash == Some(request.message_hash), "message_hash")?;
            same(claims.derivation_path == request.derivation_path, "derivation_path")
        }
        Ask::Rotate(request) => same(claims.public_key == Some(request.key), "public_key"),
    }
}

/// A token from before this host's log was begun anew may have been used on record that is lost.
fn outdated(node: &Node, authenticated: &Authenticated) -> Option<Problem> {
    let recovered = node.store.recovered()?;
    let issued = authenticated.token.claims().iat;
    // Issued in the very second, it may be older.
    (issued <= recovered.timestamp().as_second()).then(|| {
        let detail = format!(
            "the join token was issued before this appliance's audit log was begun anew, or a backup restored, at {recovered}; \
             convene the session again under a new id"
        );
        Problem::new(Code::InvalidJoinToken, detail)
    })
}

/// Every participant must be the appliance that is pinned under that name.
fn unpinned(node: &Node, authenticated: &Authenticated) -> Option<Problem> {
    let mismatch = |detail| Some(Problem::new(Code::QuorumMismatch, detail));
    for member in authenticated.token.roster().members() {
        let name = &member.party_id;
        match node.config.identity_of(name, &node.identity) {
            None => {
                return mismatch(format!("{name} is not pinned here; add a [[peer]] for it if it should take part"));
            }
            Some(pinned) if pinned != member.identity => {
                return mismatch(format!("the join token gives {name} another identity than the one pinned here"));
            }
            Some(_) => {}
        }
    }
    None
}
