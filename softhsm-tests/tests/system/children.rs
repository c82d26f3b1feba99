//! Children of a key: they sign, policy and log name them, and their addresses are those that `casemate share` shows.

use casemate_appliance::clients::Role;
use casemate_attest::{Phase, Verdict};
use casemate_policy::intent::Signer;
use casemate_softhsm_tests::ethereum::{Transfer, address};
use casemate_softhsm_tests::policy::{publish, replace};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Invitation, Key, TestLab};
use casemate_wire::{Code, PublicKey};
use serde_json::{Value, json};

use super::revoking::live_share;

const PATH: &str = "m/0/7";

/// The child of a key by rust-bitcoin, which the protocol engine does not use.
fn child(key: &Key, path: &[u32]) -> PublicKey {
    let statement = &key.certificate.statement;
    let signer = Signer::derive(&statement.public_key, statement.chain_code, path).unwrap();
    PublicKey::from_bytes(&signer.public_key()).unwrap()
}

fn at(path: &'static str) -> impl Fn(&mut Invitation) {
    move |invitation| {
        invitation.claims.derivation_path = Some(path.into());
        invitation.body["derivation_path"] = path.into();
    }
}

/// A lab whose policy lets nothing but the child at `m/0/7` sign.
async fn with_one_child_allowed() -> (TestLab, Key) {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let rules = r#"@id("sign") permit (principal, action == Mpc::Action::"Sign", resource);
@id("one-child") @reason("only m/0/7 signs") forbid (principal, action == Mpc::Action::"Sign", resource)
unless { context has derivation_path && context.derivation_path == "m/0/7" };
"#;
    let case = |name: &str, context: Value, verdict: &str, policy: &str| {
        json!({
            "name": name,
            "request": {
                "principal": {"name": "coordinator", "roles": ["coordinator"]}, "action": "Sign",
                "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}},
                "effects": [{"kind": "native_transfer", "chain_id": 11_155_111, "asset": "ETH", "amount": "0.1"}],
                "context": context,
            },
            "expect": {"verdict": verdict, "policies": [policy]},
        })
    };
    let cases = [
        case("the child", json!({"derivation_path": PATH}), "allow", "sign"),
        case("another", json!({"derivation_path": "m/0/8"}), "deny", "one-child"),
        case("the key itself", json!({}), "deny", "one-child"),
    ];
    for party in &lab.parties {
        replace(&party.policy_dir, rules, &json!(cases));
        publish(&lab.staff(), &party.policy_dir);
    }
    lab.start_appliances().await;
    let key = lab.key();
    (lab, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_signs_where_policy_allows_its_path_and_the_log_names_it() {
    let (lab, key) = with_one_child_allowed().await;
    let coordinator = lab.lying_coordinator();
    let transfer = Transfer::allowed(0);
    for refused in [coordinator.convener.sign(&key, &[0, 1], &transfer), {
        let other = coordinator.convener.sign(&key, &[0, 1], &transfer);
        other.telling_all(at("m/0/8"))
    }] {
        let problem = coordinator.ask(&refused).await[0].problem();
        assert_eq!((problem.code, &problem.more["policies"]), (Code::PolicyDenied, &json!(["one-child"])));
    }
    let proposal = coordinator.convener.sign(&key, &[0, 1], &transfer).telling_all(at(PATH));
    let signature = coordinator.run_honestly(&proposal).await[0].signature();
    let child = child(&key, &[0, 7]);
    assert!(signature.verifies(&child, &transfer.hash()));
    assert!(!signature.verifies(&key.public_key(), &transfer.hash()));
    assert_eq!(transfer.sender(&signature), address(&child));
    let (leaves, _) = lab.audit(0);
    let intent = leaves.iter().rfind(|leaf| leaf.phase == Phase::Intent).unwrap();
    let tx = intent.tx.as_ref().unwrap();
    assert_eq!((tx.path.as_ref().unwrap().as_str(), tx.child), (PATH, Some(child)));
    let outcome = leaves.iter().rfind(|leaf| leaf.phase == Phase::Outcome).unwrap();
    assert_eq!(outcome.outcome.as_ref().unwrap().result, Verdict::Completed);
}

/// Runs `casemate share` beside party-1 and reads its JSON.
fn share(lab: &TestLab, arguments: &[&str]) -> (i32, Value, String) {
    let words: Vec<&str> = ["share"].iter().chain(arguments).copied().collect();
    let done = lab.program(0, "casemate", &words);
    let said = String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), serde_json::from_slice(&done.stdout).unwrap_or_default(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn share_lists_shows_addresses_verifies_the_key_and_revokes() {
    let (lab, key) = TestLab::keyed().await;
    let id = live_share(&lab, 0, &key).await;
    let text = |path: &std::path::Path| path.display().to_string();
    let config = text(&lab.parties[0].config);
    let offline = ["--config", &config, "--format", "json"];
    let credentials = lab.credentials(Role::Operator);
    let (ca, cert, secret) = (text(&credentials.ca), text(&credentials.certificate), text(&credentials.key));
    let url = lab.parties[0].url.clone();
    let online = ["--url", &url, "--ca", &ca, "--cert", &cert, "--key", &secret, "--format", "json"];
    let with = |words: &[&str], place: &[&str]| share(&lab, &[words, place].concat());

    let (code, listed, said) = with(&["list"], &offline);
    assert_eq!((code, listed["shares"].as_array().unwrap().len()), (0, 1), "{said}");
    let one = &listed["shares"][0];
    assert_eq!((&one["id"], &one["status"], &one["epoch"]), (&json!(id), &json!("active"), &json!(1)));
    assert!(one["last_backup_age_seconds"].is_null() && one["rotated_at"].is_null(), "{one}");
    assert!(one["kek"].as_str().unwrap().starts_with("kek/"), "{one}");
    let (code, called, said) = with(&["list"], &online);
    assert_eq!((code, &called["shares"][0]["id"]), (0, &json!(id)), "{said}");

    let range = ["show", &id, "--addresses", "m/0/6..m/0/8"];
    let (code, shown, said) = with(&range, &offline);
    assert_eq!(code, 0, "{said}");
    let paths: Vec<&Value> = shown["addresses"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert_eq!(paths, ["m", "m/0/6", "m/0/7", "m/0/8"]);
    let (root, at_7) = (&shown["addresses"][0], &shown["addresses"][2]);
    assert_eq!(at_7["public_key"], json!(child(&key, &[0, 7])));
    assert_eq!(at_7["ethereum"], address(&child(&key, &[0, 7])).to_checksum(None));
    assert_eq!(root["ethereum"], address(&key.public_key()).to_checksum(None));
    assert!(at_7["bitcoin"].as_str().unwrap().starts_with("bc1q"), "{at_7}");
    assert_eq!(with(&range, &online).1["addresses"], shown["addresses"]);
    assert_eq!(with(&["show", "nobody"], &offline).0, 2);
    assert_eq!(with(&["show", "nobody"], &online).0, 2);
    assert_eq!(with(&["show", "../policy"], &online).0, 2);

    verifies(&lab, &key, &config);

    let reason = ["--reason", "the host is sold"];
    let (code, act, said) = with(&["revoke", &id, reason[0], reason[1], "--show-act"], &online[..8]);
    assert_eq!(
        (code, &act["action"], &act["parameters"]["reason"]),
        (0, &json!("revoke"), &json!(reason[1])),
        "{said}"
    );
    let (code, _, said) = with(&["revoke", &id, reason[0], reason[1]], &online);
    assert!(code == 2 && said.contains("policy_denied") && said.contains("approvals"), "{said}");
    let mut words = vec!["revoke".to_owned(), id.clone(), reason[0].into(), reason[1].into()];
    for (place, approval) in super::revoking::approvals(&lab, &key, 0, reason[1]).await.iter().enumerate() {
        let file = lab.root.join(format!("approval-{place}.json"));
        std::fs::write(&file, json!(approval).to_string()).unwrap();
        words.extend(["--approval".into(), text(&file)]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (code, revoked, said) = with(&words, &online);
    assert_eq!((code, &revoked["revoked"]), (0, &json!([id])), "{said}");
    let (_, listed, _) = with(&["list"], &offline);
    assert_eq!((&listed["shares"][0]["status"], &listed["shares"][0]["kek"]), (&json!("revoked"), &json!("")));
}

/// The certificate holds by the pins of a configuration, and by a client's own; forged ones do not.
fn verifies(lab: &TestLab, key: &Key, config: &str) {
    let file = lab.root.join("certificate.json");
    let verify = |certificate: &casemate_wire::KeyCertificate, more: &[&str]| {
        std::fs::write(&file, json!(certificate).to_string()).unwrap();
        let path = file.display().to_string();
        let words: Vec<&str> = ["verify-key", &path, "--format", "json"].iter().chain(more).copied().collect();
        share(lab, &words)
    };
    let good = &key.certificate;
    let (code, verdict, said) = verify(good, &["--config", config]);
    assert_eq!((code, &verdict["verified"]), (0, &json!(true)), "{said}");
    let pins: Vec<String> = lab
        .parties
        .iter()
        .map(|party| format!("{}={}", party.party_id, json!(party.identity).as_str().unwrap()))
        .collect();
    let pinned: Vec<&str> = pins.iter().flat_map(|pin| ["--pin", pin.as_str()]).collect();
    assert_eq!(verify(good, &pinned).0, 0);
    assert_eq!(verify(good, &pinned[..4]).0, 1, "nothing is known of the third party");
    let mut altered = good.clone();
    altered.signatures[1].0[7] ^= 1;
    let mut renamed = good.clone();
    renamed.statement.label = Some("other".into());
    let mut fewer = good.clone();
    fewer.signatures.pop();
    for (case, forged) in [("a signature", altered), ("a field", renamed), ("too few", fewer)] {
        let (code, verdict, _) = verify(&forged, &["--config", config]);
        assert_eq!((code, &verdict["verified"]), (1, &json!(false)), "{case}");
    }
    // A stranger in a party's place, who signs well.
    let swapped = [format!("{}={}", lab.parties[0].party_id, json!(lab.parties[1].identity).as_str().unwrap())];
    let (code, verdict, _) = verify(good, &["--config", config, "--pin", &swapped[0]]);
    assert_eq!(code, 1);
    assert!(verdict["problem"].as_str().unwrap().contains("another identity"), "{verdict}");
}
