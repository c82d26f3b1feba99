//! The reference file, and what an appraiser finds.

use casemate_attest::attestation::{
    Appraisal, Claims, Finding, KekReference, Reference, TokenReference, TpmReference, Verified,
};
use casemate_wire::Digest32;

use super::support::*;

type Change = Box<dyn Fn(&mut Claims)>;

/// Names every claim that a reference can name, as the usual claims have them.
fn reference() -> Reference {
    let claims = claims();
    Reference {
        party: party(),
        attest_key: public(&key(1)),
        binary: vec![Digest32([1; 32]), claims.measurements.binary],
        config: Some(vec![claims.measurements.config]),
        policy: claims.measurements.policy.map(|digest| vec![digest]),
        versions: Some(vec![claims.version]),
        tls_spki: Some(claims.tls_spki),
        audit_log: Some(claims.audit.origin),
        token: Some(TokenReference {
            model: Some(claims.token.model),
            serial: Some(claims.token.serial),
            firmware: Some(vec![claims.token.firmware]),
        }),
        kek: Some(KekReference { min_epoch: 2 }),
        tpm: Some(TpmReference {
            ak: public(&key(5)),
            pcrs: pcrs().into_iter().map(|(index, value)| (index.to_string(), value)).collect(),
        }),
    }
}

fn quoted() -> Claims {
    Claims { quote: Some(quote(&claims().nonces)), ..claims() }
}

fn found(reference: &Reference, claims: &Claims) -> Vec<&'static str> {
    reference.appraise(&verified(claims)).findings().iter().map(|finding| finding.claim).collect()
}

#[test]
fn a_token_that_says_what_it_should_is_affirmed() {
    assert_eq!(reference().appraise(&verified(&quoted())), Appraisal::Affirming);
    let least = Reference::parse(&format!(
        "party = \"party-1\"\nattest_key = \"{}\"\nbinary = [\"{}\"]\n",
        public(&key(1)),
        "b1".repeat(32)
    ));
    assert_eq!(least.unwrap().appraise(&verified(&claims())), Appraisal::Affirming);
}

#[test]
fn every_claim_that_differs_is_found_by_name() {
    let other = Digest32([0; 32]);
    let text = |text: &str| text.parse().unwrap();
    let cases: Vec<(&str, Change)> = vec![
        ("binary", Box::new(move |claims| claims.measurements.binary = other)),
        ("config", Box::new(move |claims| claims.measurements.config = other)),
        ("policy", Box::new(move |claims| claims.measurements.policy = Some(other))),
        ("policy", Box::new(|claims| claims.measurements.policy = None)),
        ("swversion", Box::new(move |claims| claims.version = text("0.1.1"))),
        ("tls_spki", Box::new(move |claims| claims.tls_spki = other)),
        ("audit.origin", Box::new(|claims| claims.audit.origin = "casemate/party-1/1".parse().unwrap())),
        ("token.model", Box::new(move |claims| claims.token.model = text("Luna"))),
        ("token.serial", Box::new(move |claims| claims.token.serial = text("1"))),
        ("token.firmware", Box::new(move |claims| claims.token.firmware = text("2.7"))),
        ("kek.epoch", Box::new(|claims| claims.kek.epoch = 1)),
        ("tpm", Box::new(|claims| claims.quote = None)),
    ];
    for (name, change) in cases {
        let mut claims = quoted();
        change(&mut claims);
        assert_eq!(found(&reference(), &claims), [name]);
    }
}

#[test]
fn a_finding_says_what_was_expected_and_what_was_found() {
    let mut claims = quoted();
    claims.kek.epoch = 1;
    let Appraisal::Contraindicated(findings) = reference().appraise(&verified(&claims)) else { panic!() };
    assert_eq!(findings, [Finding::new("kek.epoch", "at least 2", "1")]);
    assert_eq!(findings[0].to_string(), "kek.epoch: expected at least 2, found 1");
}

#[test]
fn all_differences_are_found_at_once() {
    let mut claims = claims();
    claims.measurements.binary = Digest32([0; 32]);
    claims.kek.epoch = 0;
    assert_eq!(found(&reference(), &claims), ["binary", "kek.epoch", "tpm"]);
}

#[test]
fn another_tpm_and_other_start_ups_are_found() {
    let mut other = reference();
    other.tpm.as_mut().unwrap().ak = public(&key(6));
    assert_eq!(found(&other, &quoted()), ["tpm.ak"]);
    let mut other = reference();
    let pcrs = &mut other.tpm.as_mut().unwrap().pcrs;
    pcrs.insert("7".into(), Digest32([0; 32]));
    pcrs.insert("9".into(), Digest32([0; 32]));
    assert_eq!(found(&other, &quoted()), ["tpm.pcrs", "tpm.pcrs"]);
}

#[test]
fn a_reference_for_another_appliance_affirms_nothing() {
    let token: Verified = verified(&quoted());
    let mut other = reference();
    other.party = "party-2".parse().unwrap();
    other.attest_key = public(&key(2));
    let names: Vec<_> = other.appraise(&token).findings().iter().map(|finding| finding.claim).collect();
    assert_eq!(names, ["attest_key", "party"]);
}

#[test]
fn a_reference_file_comes_back_as_it_was_written() {
    let text = reference().to_toml().unwrap();
    assert_eq!(Reference::parse(&text).unwrap(), reference(), "{text}");
}

#[test]
fn a_reference_that_cannot_mean_what_it_says_is_refused() {
    let good = reference().to_toml().unwrap();
    assert!(Reference::parse(&format!("colour = 1\n{good}")).is_err());
    for empty in ["config", "policy", "versions", "binary"] {
        let line = good.lines().find(|line| line.starts_with(&format!("{empty} = "))).unwrap();
        let error = Reference::parse(&good.replace(line, &format!("{empty} = []"))).unwrap_err();
        assert!(error.to_string().contains("empty list"), "{error}");
    }
    let mut odd = reference();
    odd.tpm.as_mut().unwrap().pcrs.insert("07".into(), Digest32([0; 32]));
    assert!(odd.to_toml().unwrap_err().to_string().contains("no PCR"));
    assert!(Reference::parse(&"#".repeat(70_000)).is_err());
}
