//! A keygen whose last confirmation is kept from one party: its share waits, and the key is usable all the same.

use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Invitation, Key, LyingCoordinator, Parcel, TestLab};
use casemate_wire::api::{Page, ShareView};
use casemate_wire::frame::Frame;
use casemate_wire::{Code, KeyCertificate};
use serde_json::json;

/// The phase of the last confirmation, in the high byte of a message's round.
const CONFIRM: u8 = 6;

/// Makes a key of which party-3 does not see party-1's confirmation.
async fn withheld(coordinator: &LyingCoordinator) -> Key {
    let proposal = coordinator.convener.keygen();
    let ends = coordinator.run(&proposal, |from, to, frame| {
        let withheld = matches!(&frame, Frame::Message(message) if message.content.round.to_be_bytes()[0] == CONFIRM);
        if withheld && (from, to) == (0, 2) { vec![(2, Parcel::Close)] } else { vec![(to, frame.into())] }
    });
    let ends = ends.await;
    assert_eq!(ends[2].code(), Code::TransportFault);
    assert_eq!(ends[0].certificate(), ends[1].certificate());
    Key { account_id: String::new(), certificate: ends[0].certificate().clone() }
}

async fn share_of(coordinator: &LyingCoordinator, party: usize, key: &Key) -> ShareView {
    let page: Page<ShareView> = coordinator.appliances[party].read("shares").await;
    page.items.into_iter().find(|share| share.public_key == key.public_key()).unwrap()
}

/// Asks party-3 alone to sign, with this certificate.
async fn asked(coordinator: &LyingCoordinator, key: &Key, certificate: Option<&KeyCertificate>) -> Code {
    let proposal = coordinator.convener.sign(key, &[0, 2], &Transfer::allowed(0));
    let mut body = coordinator.convener.body(&proposal.invitations[1]);
    if let Some(certificate) = certificate {
        body["certificate"] = json!(certificate);
    }
    coordinator.appliances[2].post("signing/participate", &body).await.problem().code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_without_the_last_confirmation_waits_for_the_certificate_and_then_signs() {
    let (mut lab, old) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let key = withheld(&coordinator).await;
    for (party, status) in ["active", "active", "pending"].into_iter().enumerate() {
        assert_eq!(share_of(&coordinator, party, &key).await.status, status);
    }
    let pending = share_of(&coordinator, 2, &key).await;
    let answer = coordinator.appliances[2].get(&format!("shares/{}/certificate", pending.id)).await;
    assert_eq!(answer.problem().code, Code::ShareNotActive);

    assert_eq!(asked(&coordinator, &key, None).await, Code::ShareNotActive, "without a certificate");
    for (case, forged) in forgeries(&key.certificate, &old.certificate, &lab) {
        assert_eq!(asked(&coordinator, &key, Some(&forged)).await, Code::ShareNotActive, "{case}");
        assert_eq!(share_of(&coordinator, 2, &key).await.status, "pending", "{case}");
    }
    lab.kill(2);
    lab.start(2).await;
    assert_eq!(share_of(&coordinator, 2, &key).await.status, "pending", "it outlives a crash");

    let transfer = Transfer::allowed(0);
    let with_certificate = |invitation: &mut Invitation| invitation.body["certificate"] = json!(key.certificate);
    let proposal = coordinator.convener.sign(&key, &[0, 2], &transfer).telling_all(with_certificate);
    let signature = coordinator.run_honestly(&proposal).await[1].signature();
    assert!(signature.verifies(&key.public_key(), &transfer.hash()));
    let adopted = share_of(&coordinator, 2, &key).await;
    assert_eq!((adopted.status.as_str(), adopted.id), ("active", pending.id));
    let (leaves, _) = lab.audit(2);
    let intent = leaves.iter().rfind(|leaf| leaf.phase == casemate_attest::Phase::Intent).unwrap();
    assert!(intent.guards.iter().any(|change| change.guard == casemate_attest::Guard::Share), "{intent:?}");

    let proposal = coordinator.convener.sign(&key, &[1, 2], &Transfer::allowed(1));
    coordinator.run_honestly(&proposal).await[1].signature();
}

/// Certificates that a coordinator could send instead.
fn forgeries(good: &KeyCertificate, other: &KeyCertificate, lab: &TestLab) -> Vec<(&'static str, KeyCertificate)> {
    let changed = |change: fn(&mut KeyCertificate)| {
        let mut certificate = good.clone();
        change(&mut certificate);
        certificate
    };
    let mut own_statement = other.clone();
    own_statement.statement.public_key = good.statement.public_key;
    let mut too_few = good.clone();
    let members = too_few.statement.roster.members()[..2].to_vec();
    too_few.statement.roster = members.try_into().unwrap();
    too_few.statement.threshold_n = 2;
    too_few.signatures.truncate(2);
    assert_eq!(good.statement.roster.members().len(), lab.parties.len());
    vec![
        ("another key's", other.clone()),
        ("another key's signatures", own_statement),
        ("an altered signature", changed(|certificate| certificate.signatures[2].0[5] ^= 1)),
        ("one signature twice", changed(|certificate| certificate.signatures[2] = certificate.signatures[0])),
        ("a signature missing", changed(|certificate| certificate.signatures.truncate(2))),
        ("another threshold", changed(|certificate| certificate.statement.threshold_t = 3)),
        ("another chain code", changed(|certificate| certificate.statement.chain_code[0] ^= 1)),
        ("another epoch", changed(|certificate| certificate.statement.epoch = 2)),
        ("a smaller committee", too_few),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parties_that_have_confirmed_sign_without_the_one_that_has_not() {
    let (lab, _) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let key = withheld(&coordinator).await;
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    coordinator.run_honestly(&proposal).await[0].signature();
}
