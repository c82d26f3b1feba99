//! Attestations that the configuration demands before a session.

use casemate_coordinator::Config;
use serde_json::{Value, json};

use crate::support::attester::Attesting;
use crate::support::{Lab, Running, Setup, keygen_body};

const KEYGEN: &str = "/api/v1/mpc/keygen";
const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn set(lab: &Lab, index: usize, how: Attesting) {
    lab.appliances[index].inside.attester.lock().unwrap().how = how;
}

fn asked(lab: &Lab, index: usize) -> usize {
    lab.appliances[index].inside.attester.lock().unwrap().asked
}

async fn refused(coordinator: &Running) -> Value {
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await;
    assert_eq!((answer.status, &answer.body["status"]), (502, &502.into()), "{}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_with_a_reference_attests_before_every_session_and_the_others_are_not_asked() {
    let lab = Lab::new(Setup { attested: vec![1], ..Setup::default() }).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let signed = coordinator.sign(&key["account_id"], HASH, &[0, 1]).await;
    assert_eq!(signed.body["status"], "completed", "{}", signed.body);
    let signed = coordinator.sign(&key["account_id"], HASH, &[0, 2]).await;
    assert_eq!(signed.body["status"], "completed", "{}", signed.body);
    assert_eq!((asked(&lab, 0), asked(&lab, 1), asked(&lab, 2)), (0, 2, 0));
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_take_part_while_one_party_does_not_attest_what_it_should() {
    let lab = Lab::new(Setup { attested: vec![0, 1, 2], ..Setup::default() }).await;
    let coordinator = lab.start().await;
    coordinator.key().await;
    let sessions = || lab.appliances.iter().map(|a| a.inside.requests.lock().unwrap().len()).collect::<Vec<_>>();
    let before = sessions();
    for (how, code, why) in [
        (Attesting::OtherBinary, "attestation_failed", "binary: expected 0101"),
        (Attesting::Again, "attestation_failed", "another question"),
        (Attesting::OtherKey, "attestation_failed", "fingerprint"),
        (Attesting::Garbage(100), "attestation_failed", "not an attestation token"),
        (Attesting::Garbage(20_000), "party_unreachable", "asked for its attestation"),
        (Attesting::Refuse, "hsm_unavailable", "away"),
    ] {
        set(&lab, 1, how.clone());
        let body = refused_with(&coordinator, code).await;
        assert_eq!(body["party"], "party-1", "{body}");
        assert!(body["detail"].as_str().unwrap().contains(why), "{how:?}: {body}");
    }
    set(&lab, 1, Attesting::OtherBinary);
    let body = refused(&coordinator).await;
    let finding = json!({"claim": "binary", "expected": "01".repeat(32), "found": "02".repeat(32)});
    assert_eq!(body["findings"], json!([finding]));
    assert_eq!(sessions(), before);
    set(&lab, 1, Attesting::Honest);
    coordinator.key().await;
    coordinator.stop().await;
}

async fn refused_with(coordinator: &Running, code: &str) -> Value {
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await;
    assert!(answer.status >= 500, "{}", answer.body);
    assert_eq!(answer.body["code"], code, "{}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_of_another_party_or_none_at_all_is_refused_with_the_configuration() {
    let lab = Lab::new(Setup { attested: vec![0], ..Setup::default() }).await;
    let file = lab.folder.path().join("party-0.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    assert!(Config::load(&lab.config()).is_ok());
    let why = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Config::load(&lab.config()).err().unwrap().to_string()
    };
    assert!(why(&good.replace("party-0", "party-1")).contains("it is of party-1, not of party-0"));
    assert!(why("party = 1").contains("appliance.reference"));
    std::fs::remove_file(&file).unwrap();
    assert!(Config::load(&lab.config()).is_err());
}
