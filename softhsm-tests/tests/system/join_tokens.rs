//! Join tokens that are not what they should be, on real appliances.

use casemate_appliance::lab::Lab;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Convener, Invitation, Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::token::{Claims, TokenAlgorithm, TokenSigner};
use casemate_wire::{Code, Digest32, Member, Problem, SessionType, ShareType};
use rcgen::KeyPair;
use serde_json::{Value, json};

const SIGN: &str = "signing/participate";
const KEYGEN: &str = "keygen/participate";

/// The tokens that a case is about, each with what the claims become.
type Change = fn(&mut Claims, &[Member]);

fn keygen(coordinator: &LyingCoordinator) -> Proposal {
    coordinator.convener.keygen()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_whose_claims_do_not_hold_is_refused_whoever_signed_it() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let members = coordinator.convener.members().to_vec();
    let invalid = Code::InvalidJoinToken;
    let both: Vec<(&str, Code, Change)> = vec![
        ("expired", invalid, |claims, _| {
            claims.iat -= 900;
            claims.nbf -= 900;
            claims.exp = claims.iat + 600;
        }),
        ("expired just beyond the skew", invalid, |claims, _| {
            claims.exp = claims.iat - 31;
            claims.nbf -= 300;
            claims.iat -= 300;
        }),
        ("not valid yet", invalid, |claims, _| claims.nbf += 120),
        ("issued in the future", invalid, |claims, _| {
            claims.iat += 120;
            claims.exp += 120;
        }),
        ("living longer than 15 minutes", invalid, |claims, _| claims.exp = claims.iat + 901),
        ("living for ever", invalid, |claims, _| claims.exp = i64::MAX),
        ("expiring before it is issued", invalid, |claims, _| claims.exp = claims.iat - 1),
        ("of another coordinator", invalid, |claims, _| claims.iss = "somebody".into()),
        ("for another party", invalid, |claims, members| claims.aud = members[2].party_id.clone()),
        ("without a jti", invalid, |claims, _| claims.jti.clear()),
        ("with an endless jti", invalid, |claims, _| claims.jti = "j".repeat(129)),
        ("of another session", invalid, |claims, _| claims.session_id = "another".parse().unwrap()),
        ("1 of 3", invalid, |claims, _| claims.threshold_t = 1),
        ("0 of 0", invalid, |claims, _| (claims.threshold_t, claims.threshold_n) = (0, 0)),
        ("4 of 3", invalid, |claims, _| claims.threshold_t = 4),
        ("17 parties", invalid, |claims, _| claims.threshold_n = 17),
        ("nobody takes part", invalid, |claims, _| claims.participants.clear()),
        ("only this party takes part", invalid, |claims, _| claims.participants.truncate(1)),
        ("this party is missing", invalid, |claims, _| drop(claims.participants.remove(0))),
        ("a party twice", invalid, |claims, _| claims.participants[1] = claims.participants[0].clone()),
        ("an identity twice", invalid, |claims, _| {
            claims.participants[1].identity = claims.participants[0].identity.clone();
        }),
        ("indices out of order", invalid, |claims, _| claims.participants.reverse()),
        ("an unpinned party", Code::QuorumMismatch, |claims, _| {
            claims.participants[1].party_id = "party-9".parse().unwrap();
        }),
        ("a peer under another identity", Code::QuorumMismatch, |claims, _| {
            claims.participants[1].identity = foreign_identity();
        }),
        ("this party under another identity", Code::QuorumMismatch, |claims, _| {
            claims.participants[0].identity = foreign_identity();
        }),
    ];
    let only_sign: Vec<(&str, Code, Change)> = vec![
        ("for a keygen", invalid, |claims, members| {
            claims.session_type = SessionType::Keygen;
            claims.share_type = Some(ShareType::Wallet);
            (claims.public_key, claims.message_hash) = (None, None);
            claims.participants = members.to_vec();
        }),
        ("with another message hash", invalid, |claims, _| claims.message_hash = Some(Digest32([7; 32]))),
        ("without a message hash", invalid, |claims, _| claims.message_hash = None),
        ("with another key", invalid, |claims, _| claims.public_key = Some(other_key())),
        ("without a key", invalid, |claims, _| claims.public_key = None),
        ("with a path that the body has not", invalid, |claims, _| claims.derivation_path = Some("m/0".into())),
        ("with a share type", invalid, |claims, _| claims.share_type = Some(ShareType::Wallet)),
        ("with more parties than sign", invalid, |claims, members| claims.participants = members.to_vec()),
        ("with an index outside the committee", invalid, |claims, _| claims.participants[1].party_index = 3),
        ("under another threshold than the key's", Code::QuorumMismatch, |claims, members| {
            claims.threshold_t = 3;
            claims.participants = members.to_vec();
        }),
        ("of a larger committee than the key's", Code::QuorumMismatch, |claims, _| claims.threshold_n = 4),
        ("with a peer under another index", Code::QuorumMismatch, |claims, _| claims.participants[1].party_index = 2),
    ];
    let only_keygen: Vec<(&str, Code, Change)> = vec![
        ("for a signature", invalid, |claims, _| {
            claims.session_type = SessionType::Sign;
            claims.share_type = None;
            (claims.public_key, claims.message_hash) = (Some(other_key()), Some(Digest32([7; 32])));
            claims.participants.truncate(2);
        }),
        ("with another share type", invalid, |claims, _| claims.share_type = Some(ShareType::Admin)),
        ("without a share type", invalid, |claims, _| claims.share_type = None),
        ("without one of its parties", invalid, |claims, _| drop(claims.participants.pop())),
        ("with a gap in the indices", invalid, |claims, _| claims.participants[2].party_index = 3),
        ("with a message hash", invalid, |claims, _| claims.message_hash = Some(Digest32([7; 32]))),
    ];
    let sign = || coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let signing = both.iter().chain(&only_sign).map(|case| (sign(), case));
    let making = both.iter().chain(&only_keygen).map(|case| (keygen(&coordinator), case));
    for (proposal, (case, code, change)) in signing.chain(making) {
        let altered = proposal.telling(0, |invitation| change(&mut invitation.claims, &members));
        let problem = refused(&lab, &coordinator, &altered).await;
        assert_eq!(problem.code, *code, "{:?} {case}: {problem}", altered.session_type);
    }
    coordinator.run_honestly(&sign()).await[0].signature();
}

/// Asks party-1, which must refuse, record that, and begin nothing.
async fn refused(lab: &TestLab, coordinator: &LyingCoordinator, proposal: &Proposal) -> Problem {
    let size = lab.audit_size(0);
    let body = coordinator.convener.body(&proposal.invitations[0]);
    let problem = coordinator.appliances[0].post(proposal.route(), &body).await.problem();
    let (leaves, report) = lab.audit(0);
    assert_eq!(report.size, size + 1, "exactly the refusal is recorded: {problem}");
    assert_eq!(leaves.last().unwrap().phase, casemate_attest::Phase::Refusal);
    assert!(report.open_intents.is_empty(), "nothing began: {problem}");
    problem
}

fn foreign_identity() -> casemate_wire::IdentityKey {
    casemate_wire::IdentityKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(&KeyPair::generate().unwrap()))
        .unwrap()
}

fn other_key() -> casemate_wire::PublicKey {
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_no_pinned_key_signed_is_refused() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let invitation = sign(&coordinator.convener, &key);
    let token = coordinator.convener.token(&invitation.claims);
    let (head, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let other = sign(&coordinator.convener, &key);
    let other = coordinator.convener.token(&other.claims);
    let other_claims = other.split('.').nth(1).unwrap();
    let unsigned_head = base64url(r#"{"alg":"none"}"#);
    let hmac_head = base64url(r#"{"alg":"HS256"}"#);
    let eddsa_head = base64url(r#"{"alg":"EdDSA"}"#);
    let own_key_head = base64url(r#"{"alg":"ES256","jwk":{}}"#);
    let mut flipped = signature.to_owned();
    let first = if flipped.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(..1, first);
    let cases = [
        ("signed by another key", foreign_token(&lab, &invitation.claims)),
        ("with other claims under the signature", format!("{head}.{other_claims}.{signature}")),
        ("with an altered signature", format!("{head}.{claims}.{flipped}")),
        ("without a signature", format!("{head}.{claims}.")),
        ("that says it needs no signature", format!("{unsigned_head}.{claims}.")),
        ("that asks for another algorithm", format!("{eddsa_head}.{claims}.{signature}")),
        ("that asks for a symmetric algorithm", format!("{hmac_head}.{claims}.{signature}")),
        ("that brings its own key", format!("{own_key_head}.{claims}.{signature}")),
        ("with a part too many", format!("{token}.{signature}")),
        ("with a part too few", format!("{head}.{claims}")),
        ("of one part", "token".into()),
        ("of nothing", String::new()),
        ("that is too long", format!("{token}{}", "A".repeat(17_000))),
        ("with a space", format!("{token} ")),
    ];
    let sessions = lab.sessions(0);
    for (case, token) in cases {
        let mut body = invitation.body.clone();
        body["join_token"] = token.into();
        let problem = coordinator.appliances[0].post(SIGN, &body).await.problem();
        assert_eq!(problem.code, Code::InvalidJoinToken, "{case}: {problem}");
        assert_eq!(lab.sessions(0), sessions, "{case}");
    }
    let mut body = invitation.body.clone();
    body["join_token"] = token.into();
    let answer = coordinator.appliances[0].post(SIGN, &body).await;
    assert_eq!(answer.status, 202, "none of these used up the session or its token: {answer}");
}

fn sign(convener: &Convener, key: &Key) -> Invitation {
    convener.sign(key, &[0, 1], &Transfer::allowed(0)).invitations.swap_remove(0)
}

fn foreign_token(lab: &Lab, claims: &Claims) -> String {
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let signer = TokenSigner::new(lab.coordinator.issuer.into(), TokenAlgorithm::Es256, pem.as_bytes()).unwrap();
    signer.sign(claims).unwrap()
}

fn base64url(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_once_also_after_a_refusal_and_across_a_restart() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let client = &coordinator.appliances[0];
    let first = sign(&coordinator.convener, &key);
    assert_eq!(client.post(SIGN, &coordinator.convener.body(&first)).await.status, 202);
    let denied = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(0)).invitations.swap_remove(0);
    let answer = client.post(SIGN, &coordinator.convener.body(&denied)).await;
    assert_eq!(answer.problem().code, Code::PolicyDenied, "{answer}");

    for used in [&first, &denied] {
        let problem = replay(&coordinator, &key, used).await;
        assert_eq!(problem.code, Code::TokenReplayed, "{problem}");
    }
    lab.kill(0);
    lab.start(0).await;
    for used in [&first, &denied] {
        let problem = replay(&coordinator, &key, used).await;
        assert_eq!(problem.code, Code::TokenReplayed, "after a restart: {problem}");
    }
    let (_, report) = lab.audit(0);
    assert_eq!(report.refusals, 5, "one denied, four replays");
}

/// The same token id in a new session.
async fn replay(coordinator: &LyingCoordinator, key: &Key, used: &Invitation) -> Problem {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(9));
    let again = proposal.telling(0, |invitation| invitation.claims.jti.clone_from(&used.claims.jti));
    let body = coordinator.convener.body(&again.invitations[0]);
    coordinator.appliances[0].post(SIGN, &body).await.problem()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_route_decides_what_a_token_may_be_for() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let client = &coordinator.appliances[0];
    let sign = coordinator.convener.body(&sign(&coordinator.convener, &key));
    let keygen = coordinator.convener.body(&keygen(&coordinator).invitations[0]);
    let as_keygen = json!({
        "session_id": sign["session_id"], "party_id": sign["party_id"], "join_token": sign["join_token"],
        "share_type": "wallet",
    });
    let mut as_sign: Value = sign.clone();
    as_sign["session_id"] = keygen["session_id"].clone();
    as_sign["join_token"] = keygen["join_token"].clone();
    for (route, body) in [(KEYGEN, as_keygen), (SIGN, as_sign)] {
        let problem = client.post(route, &body).await.problem();
        assert_eq!(problem.code, Code::InvalidJoinToken, "{route}: {problem}");
        assert!(problem.detail.contains("session_type"), "{problem}");
    }
}
