//! Peers as witnesses: whoever shows another history than before is refused, until an operator accepts it.

use std::fs;
use std::path::Path;
use std::process::Command;

use casemate_appliance::clients::Role;
use casemate_attest::{Guard, Leaf, Op, Phase};
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{publish, replace};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{End, Key, LyingCoordinator, TestLab};
use casemate_wire::{Code, Digest32, Problem};
use serde_json::{Value, json};

/// Has these two sign.
async fn sign(coordinator: &LyingCoordinator, key: &Key, signers: [usize; 2], nonce: u64) -> Vec<End> {
    coordinator.run_honestly(&coordinator.convener.sign(key, &signers, &Transfer::allowed(nonce))).await
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Takes both of what an appliance keeps its state in, or puts both back.
fn keep(lab: &TestLab, index: usize, kept: &Path) {
    let party = &lab.parties[index];
    fs::create_dir_all(kept).unwrap();
    copy(&party.data_dir, &kept.join("data"));
    copy(&party.folder.join("tokens"), &kept.join("tokens"));
}

fn restore(lab: &TestLab, index: usize, kept: &Path) {
    let party = &lab.parties[index];
    for (name, place) in [("data", party.data_dir.clone()), ("tokens", party.folder.join("tokens"))] {
        fs::remove_dir_all(&place).unwrap();
        copy(&kept.join(name), &place);
    }
}

async fn health(lab: &TestLab, index: usize) -> Value {
    lab.client(index, Role::Monitor).read("health").await
}

async fn metrics(lab: &TestLab, index: usize) -> String {
    let answer = lab.client(index, Role::Monitor).get("/metrics").await;
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The checkpoint that a party serves.
async fn note(lab: &TestLab, index: usize) -> String {
    let answer = lab.client(index, Role::Auditor).get("audit/checkpoint").await;
    assert_eq!(answer.status, 200, "{answer}");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn outcomes(lab: &TestLab, index: usize) -> Vec<Leaf> {
    lab.audit(index).0.into_iter().filter(|leaf| leaf.phase == Phase::Outcome).collect()
}

fn refused(problem: &Problem, says: &str) {
    assert_eq!(problem.code, Code::PeerLogRefused, "{problem}");
    assert_eq!(problem.more["party"], "party-3", "{problem}");
    assert!(problem.detail.contains(says), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_was_rolled_back_with_its_token_is_refused_until_an_operator_accepts_it() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    sign(&coordinator, &key, [0, 2], 0).await[0].signature();
    assert_eq!(lab.stop(2).code(), Some(0));
    let kept = lab.root.join("kept");
    keep(&lab, 2, &kept);
    lab.start(2).await;
    for nonce in 1..4 {
        sign(&coordinator, &key, [0, 2], nonce).await[0].signature();
    }
    sign(&coordinator, &key, [1, 2], 4).await[0].signature();
    let last = outcomes(&lab, 0).pop().unwrap();
    assert_eq!(last.peers.len(), 1, "what was seen of the peer stands in the outcome");

    // Database and token of one moment: nothing on that host can tell.
    lab.stop(2);
    restore(&lab, 2, &kept);
    lab.start(2).await;
    assert_eq!(health(&lab, 2).await["status"], "ok");
    let ends = sign(&coordinator, &key, [0, 2], 5).await;
    refused(ends[0].problem(), "it was rolled back");
    let own = ends[1].problem();
    assert!(own.detail.contains("party-1 has seen") && !own.more.contains_key("party"), "{own}");
    let outcome = outcomes(&lab, 0).pop().unwrap();
    let recorded = outcome.outcome.unwrap();
    assert_eq!(recorded.code.unwrap().as_str(), "peer_log_refused");
    assert_eq!(recorded.party.unwrap().as_str(), "party-3");
    assert!(outcome.peers.is_empty(), "what was refused is not witnessed");
    assert!(metrics(&lab, 0).await.contains("mpc_peer_log_refused_total{party=\"party-3\"} 1"));
    let shown = health(&lab, 0).await;
    assert_eq!((&shown["status"], &shown["checks"]["peers"]["ok"]), (&"degraded".into(), &false.into()), "{shown}");
    let detail = shown["checks"]["peers"]["detail"].as_str().unwrap();
    assert!(detail.contains("party-3 is refused since 20") && detail.contains("rolled back"), "{detail}");

    // Its log grows beyond what was seen, on another history.
    for nonce in 6..11 {
        refused(sign(&coordinator, &key, [0, 2], nonce).await[0].problem(), "");
    }
    refused(sign(&coordinator, &key, [0, 2], 11).await[0].problem(), "it gave no proof");
    sign(&coordinator, &key, [0, 1], 12).await[0].signature();

    let since = |shown: &Value| shown["peers"][1]["refused"]["since"].clone();
    let before: Value = lab.client(0, Role::Auditor).read("peers").await;
    lab.stop(0);
    lab.start(0).await;
    let after: Value = lab.client(0, Role::Operator).read("peers").await;
    assert_eq!(
        (&after["peers"][1]["party"], health(&lab, 0).await["status"].as_str()),
        (&"party-3".into(), Some("degraded"))
    );
    assert!(since(&before).is_string() && since(&after).is_string(), "{before} {after}");

    acceptance_is_an_audited_act_of_an_operator(&lab).await;
    let ends = sign(&coordinator, &key, [0, 2], 13).await;
    assert_eq!(ends[0].signature(), ends[1].signature());
    assert_eq!(health(&lab, 0).await["status"], "ok");
    // party-2's operator has not looked yet.
    refused(sign(&coordinator, &key, [1, 2], 14).await[0].problem(), "");
    // What an operator accepted is what the log says, also after a start.
    lab.stop(0);
    lab.start(0).await;
    assert_eq!(health(&lab, 0).await["status"], "ok");
    sign(&coordinator, &key, [0, 2], 15).await[0].signature();
}

/// At party-1, for party-3.
async fn acceptance_is_an_audited_act_of_an_operator(lab: &TestLab) {
    let good = note(lab, 2).await;
    let operator = lab.client(0, Role::Operator);
    let path = "peers/party-3/accept";
    let body = |reason: &str, note: &str| json!({"reason": reason, "checkpoint": note});
    for role in [Role::Auditor, Role::Coordinator, Role::Monitor] {
        assert_eq!(lab.client(0, role).post(path, &body("x", &good)).await.problem().code, Code::ForbiddenRole);
    }
    let changed = good.replacen('\n', "\n1", 1);
    let unreasonable = body(" ", &good);
    let long = body(&"x".repeat(2000), &good);
    for bad in [&unreasonable, &long, &body("x", &note(lab, 1).await), &body("x", &changed), &body("x", "")] {
        assert_eq!(operator.post(path, bad).await.problem().code, Code::BadRequest, "{bad}");
    }
    for nobody in ["peers/party-9/accept", "peers/party-1/accept", "peers/..x/accept"] {
        assert_eq!(operator.post(nobody, &body("x", &good)).await.problem().code, Code::NotFound);
    }
    let answer = operator.post(path, &body("restored from Tuesday's backup, ticket 7", &good)).await;
    assert_eq!(answer.status, 200, "{answer}");
    let leaf = lab.audit(0).0.into_iter().rfind(|leaf| leaf.op == Op::Peer).unwrap();
    assert_eq!((leaf.phase, leaf.actor.unwrap().as_str()), (Phase::Admin, "operator"));
    assert_eq!((leaf.guards[0].guard, leaf.guards[0].id.as_str()), (Guard::Peer, "party-3"));
    let details = lab.client(0, Role::Auditor).get("audit/details?limit=1000").await;
    let details = String::from_utf8(details.body.to_vec()).unwrap();
    assert!(leaf.detail.is_some() && details.contains("Tuesday's backup"), "why is kept beside the leaf");
    let shown: Value = lab.client(0, Role::Auditor).read("peers").await;
    assert_eq!((&shown["peers"][1]["note"], shown["peers"][1].get("refused")), (&good.into(), None), "{shown}");
}

/// What `casemate attest reference` writes on the host of a party, pinned at another.
fn pin_reference(lab: &TestLab, at: usize, of: usize, change: impl FnOnce(String) -> String) {
    let file = lab.root.join(format!("reference-{of}-at-{at}.toml"));
    let config = lab.parties[of].config.display().to_string();
    let done =
        lab.program(of, "casemate", &["attest", "reference", "--config", &config, "--output", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    let audit = format!("audit = \"{}\"", lab.parties[of].audit);
    lab.configure(at, |text| text.replace(&audit, &format!("{audit}\nreference = \"{}\"", file.display())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_can_demand_that_peers_attest_themselves() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let rules = r#"@id("sign") permit (principal, action == Mpc::Action::"Sign", resource);
@id("attested") forbid (principal, action == Mpc::Action::"Sign", resource) unless { context.peers_attested };
"#;
    let case = |attested: bool, verdict: &str, policy: &str| {
        json!({
            "name": verdict,
            "request": {
                "principal": {"name": "coordinator", "roles": ["coordinator"]}, "action": "Sign",
                "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}},
                "effects": [{"kind": "native_transfer", "chain_id": 11_155_111, "asset": "ETH", "amount": "0.1"}],
                "context": {"peers_attested": attested},
            },
            "expect": {"verdict": verdict, "policies": [policy]},
        })
    };
    // party-1 demands it; the others sign without.
    replace(&lab.parties[0].policy_dir, rules, &json!([case(true, "allow", "sign"), case(false, "deny", "attested")]));
    publish(&lab.staff(), &lab.parties[0].policy_dir);
    pin_reference(&lab, 0, 1, |text| text);
    let other_build = |text: String| {
        let mut reference = casemate_attest::attestation::Reference::parse(&text).unwrap();
        reference.binary = vec![Digest32([7; 32])];
        reference.to_toml().unwrap()
    };
    pin_reference(&lab, 0, 2, other_build);
    lab.start_appliances().await;
    let (coordinator, key) = (lab.lying_coordinator(), lab.key());
    let ends = sign(&coordinator, &key, [0, 1], 0).await;
    assert_eq!(ends[0].signature(), ends[1].signature());
    let attested = |index: usize| outcomes(&lab, index).pop().unwrap().peers[0].attested;
    assert!(attested(0).is_some(), "the token's digest stands in the outcome");
    assert_eq!(attested(1), None, "party-2 asked for none");

    let ends = sign(&coordinator, &key, [0, 2], 1).await;
    let problem = ends[0].problem();
    assert_eq!((problem.code, &problem.more["party"]), (Code::PeerNotAttested, &"party-3".into()), "{problem}");
    assert!(problem.detail.contains("binary"), "{problem}");
    assert!(metrics(&lab, 0).await.contains("mpc_peer_not_attested_total{party=\"party-3\"} 1"));
    assert!(health(&lab, 0).await["checks"]["peers"]["detail"].as_str().unwrap().contains("peer_not_attested"));
    let leaf = outcomes(&lab, 0).pop().unwrap();
    assert_eq!(leaf.outcome.unwrap().code.unwrap().as_str(), "peer_not_attested");

    // Without a reference there is nothing to compare a token with.
    lab.stop(0);
    lab.configure(0, |text| text.lines().filter(|line| !line.starts_with("reference")).collect::<Vec<_>>().join("\n"));
    lab.start(0).await;
    let ends = sign(&coordinator, &key, [0, 1], 2).await;
    assert_eq!(ends[0].code(), Code::PeerNotAttested, "{}", ends[0].problem());
    sign(&coordinator, &key, [1, 2], 3).await[0].signature();
}
