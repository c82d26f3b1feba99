#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::session::testing::{HASH, certificate, identity, keygen, party, pinned, public_key, sign, signature};
use casemate_wire::KeyStatement;

fn tally(reports: impl IntoIterator<Item = (u16, Outcome)>) -> Tally {
    let mut tally = Tally::default();
    for (index, outcome) in reports {
        tally.add(Report { party: party(index), outcome: Ok(outcome) });
    }
    tally
}

fn key(edit: impl FnOnce(&mut KeyStatement)) -> Outcome {
    let certificate = certificate(4, edit);
    Outcome::Keygen { public_key: certificate.statement.public_key, certificate }
}

fn signed(seed: u8, hash: Digest32) -> Outcome {
    Outcome::Sign { signature: signature(seed, hash) }
}

fn failed(code: Code) -> Outcome {
    Outcome::Failed { problem: Problem::new(code, "no") }
}

#[test]
fn a_key_counts_when_all_parties_report_it() {
    let all = tally((0..3).map(|index| (index, key(|_| ()))));
    let finding = all.conclude(&keygen(), pinned).unwrap();
    assert_eq!(finding.certificate().unwrap().statement.public_key, public_key(4));
    let two = tally((0..2).map(|index| (index, key(|_| ()))));
    let problem = two.conclude(&keygen(), pinned).unwrap_err();
    assert_eq!(problem.more["parties"], serde_json::json!(["party-2"]));
}

#[test]
fn a_key_that_differs_at_one_party_is_not_passed_on() {
    let certificate = certificate(6, |_| ());
    let other = Outcome::Keygen { public_key: public_key(6), certificate };
    let split = tally([(0, key(|_| ())), (1, key(|_| ())), (2, other)]);
    let problem = split.conclude(&keygen(), pinned).unwrap_err();
    assert_eq!(problem.code, Code::ProtocolAborted);
    let other_chain = tally([(0, key(|_| ())), (1, key(|s| s.chain_code = [6; 32])), (2, key(|_| ()))]);
    assert_eq!(other_chain.conclude(&keygen(), pinned).unwrap_err().code, Code::ProtocolAborted);
}

#[test]
fn a_certificate_that_does_not_hold_for_this_session_names_its_reporter() {
    let mut forged = certificate(4, |_| ());
    if let Some(signature) = forged.signatures.get_mut(2) {
        signature.0[9] ^= 1;
    }
    let forged = Outcome::Keygen { public_key: public_key(4), certificate: forged };
    let other_key = Outcome::Keygen { public_key: public_key(5), certificate: certificate(4, |_| ()) };
    let lower_threshold = key(|s| s.threshold_t = 3);
    let later_epoch = key(|s| s.epoch = 2);
    let other_label = key(|s| s.label = Some("hot".into()));
    let other_type = key(|s| s.share_type = casemate_wire::ShareType::Admin);
    for bad in [forged, other_key, lower_threshold, later_epoch, other_label, other_type, signed(9, HASH)] {
        let reports = tally([(0, key(|_| ())), (1, bad), (2, key(|_| ()))]);
        let problem = reports.conclude(&keygen(), pinned).unwrap_err();
        assert_eq!(problem.code, Code::PeerFault, "{problem}");
        assert_eq!(problem.more["party"], "party-1", "{problem}");
    }
}

#[test]
fn a_certificate_by_identities_other_than_the_pinned_ones_is_refused() {
    let all = tally((0..3).map(|index| (index, key(|_| ()))));
    let swapped = |member: &Member| {
        if member.party_id == party(1) { Some(identity(7)) } else { pinned(member) }
    };
    assert!(all.conclude(&keygen(), swapped).is_err());
    assert!(all.conclude(&keygen(), |_| None).is_err());
}

#[test]
fn the_first_failure_is_the_one_that_is_passed_on() {
    let reports = [(2, failed(Code::PolicyDenied)), (0, failed(Code::TransportFault)), (1, key(|_| ()))];
    let problem = tally(reports).conclude(&keygen(), pinned).unwrap_err();
    assert_eq!(problem.code, Code::PolicyDenied);
    let reports = [(2, failed(Code::PeerFault)), (0, failed(Code::TransportFault))];
    let problem = tally(reports).conclude(&sign(), pinned).unwrap_err();
    assert_eq!(problem.code, Code::PeerFault);
}

#[test]
fn a_signature_counts_where_it_verifies_even_if_another_party_broke_off() {
    let reports = tally([(0, failed(Code::TransportFault)), (2, signed(9, HASH))]);
    let finding = reports.conclude(&sign(), pinned).unwrap();
    assert_eq!(finding.signature(), Some(&signature(9, HASH)));
}

#[test]
fn a_signature_by_another_key_or_over_another_hash_is_not_passed_on() {
    for bad in [signed(8, HASH), signed(9, Digest32([8; 32])), key(|_| ())] {
        let problem = tally([(2, bad.clone())]).conclude(&sign(), pinned).unwrap_err();
        assert_eq!((problem.code, &problem.more["party"]), (Code::PeerFault, &"party-2".into()));
        // Nor does it hide the signature that another party reports, in whichever order they come.
        for reports in [[(0, signed(9, HASH)), (2, bad.clone())], [(2, bad.clone()), (0, signed(9, HASH))]] {
            let finding = tally(reports).conclude(&sign(), pinned).unwrap();
            assert_eq!(finding.signature(), Some(&signature(9, HASH)));
        }
    }
}

#[test]
fn nothing_is_concluded_from_silence() {
    let problem = Tally::default().conclude(&sign(), pinned).unwrap_err();
    assert_eq!(problem.more["parties"], serde_json::json!(["party-0", "party-2"]));
}
