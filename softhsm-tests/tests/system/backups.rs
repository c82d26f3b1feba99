//! A host that is destroyed, token and all: its shares come back on another token from a backup, and the key goes on signing.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use casemate_appliance::clients::Role;
use casemate_appliance::lab::SIGNERS;
use casemate_attest::{Guard, Op, Phase};
use casemate_policy::approval::{Act, Nonce, Statement};
use casemate_policy::signers::Namespace;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{publish, replace};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::api::Approval;
use casemate_wire::{Code, IdentityKey};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const RULES: &str = r#"@id("sign") permit (principal, action == Mpc::Action::"Sign", resource);
@id("back-up") permit (principal, action == Mpc::Action::"Backup", resource);
@id("ceremony") @reason("a backup needs two people") forbid (principal, action == Mpc::Action::"Backup", resource)
unless { context.approvals.count >= 2 };
"#;
const PEOPLE: [&str; 2] = ["approver-1@treasury", "approver-2@risk"];

/// A running lab whose signed bundles name three custodians; two of them open a backup. Gives their identity files.
async fn with_custodians() -> (TestLab, Vec<PathBuf>) {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let (mut table, mut files) = (String::new(), Vec::new());
    for number in 0..3 {
        let identity = age::x25519::Identity::generate();
        writeln!(table, "[[custodian]]\nname = \"custodian-{number}\"\nage = \"{}\"", identity.to_public()).unwrap();
        let file = lab.root.join(format!("identity-{number}"));
        fs::write(&file, identity.to_string().expose_secret()).unwrap();
        files.push(file);
    }
    table += "[backup]\nthreshold = 2\n";
    let case = |name: &str, action: &str, resource: Value, verdict: &str, policy: &str, count: usize| {
        let names = &["anna@acme", "bert@warden"][..count];
        let mut request = json!({
            "principal": {"name": "operator", "roles": ["operator"]}, "action": action, "resource": resource,
            "context": {"approvals": {"count": count, "distinct_orgs": count, "names": names}},
        });
        if action == "Sign" {
            let effect = json!({"kind": "native_transfer", "chain_id": 11_155_111, "asset": "ETH", "amount": "1.0"});
            request["effects"] = json!([effect]);
        }
        json!({"name": name, "request": request, "expect": {"verdict": verdict, "policies": [policy]}})
    };
    let key = json!({"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}});
    let cases = json!([
        case("any", "Sign", key, "allow", "sign", 0),
        case("alone", "Backup", json!({"appliance": {}}), "deny", "ceremony", 0),
        case("two", "Backup", json!({"appliance": {}}), "allow", "back-up", 2),
    ]);
    for party in &lab.parties {
        replace(&party.policy_dir, RULES, &cases);
        fs::write(party.policy_dir.join("recipients.toml"), &table).unwrap();
        publish(&lab.staff(), &party.policy_dir);
    }
    lab.start_appliances().await;
    (lab, files)
}

/// `casemate …` at party-1; its exit code, result and complaint.
fn casemate(lab: &TestLab, arguments: &[&str]) -> (i32, Vec<u8>, String) {
    let done = lab.program(0, "casemate", arguments);
    (done.status.code().unwrap(), done.stdout, String::from_utf8(done.stderr).unwrap())
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

/// How an operator's tool calls party-1.
fn call(lab: &TestLab) -> Vec<String> {
    let credentials = lab.credentials(Role::Operator);
    let url = format!("https://{}", lab.parties[0].address);
    let files = [("--ca", credentials.ca), ("--cert", credentials.certificate), ("--key", credentials.key)];
    let files = files.into_iter().flat_map(|(flag, path)| [flag.to_owned(), text(&path).to_owned()]);
    ["--url".to_owned(), url].into_iter().chain(files).collect()
}

fn backup(lab: &TestLab, arguments: &[&str], calling: bool) -> (i32, Value, String) {
    let call = if calling { call(lab) } else { Vec::new() };
    let mut all = vec!["backup"];
    all.extend(arguments);
    all.extend(call.iter().map(String::as_str));
    let (code, out, why) = casemate(lab, &all);
    (code, serde_json::from_slice(&out).unwrap_or(Value::Null), why)
}

/// Two people's approvals of the act that the appliance names, in files.
async fn approvals(lab: &TestLab) -> Vec<String> {
    let (code, act, why) = backup(lab, &["create", "--show-act"], true);
    assert_eq!(code, 0, "{why}");
    let act: Act = serde_json::from_value(act).unwrap();
    assert!(matches!(&act, Act::Backup { parameters } if parameters.recipients.len() == 3), "{act:?}");
    let policy: Value = lab.client(0, Role::Auditor).read("policy").await;
    let statement = Statement {
        act,
        bundle: serde_json::from_value(policy["digest"].clone()).unwrap(),
        expires: Timestamp::now() + SignedDuration::from_hours(1),
        nonce: Nonce::from_bytes(rand::random()),
    };
    let statement = statement.to_text().unwrap();
    let file = |person: &str| {
        let signature = lab.staff().sign(person, Namespace::Approval.as_str(), statement.as_bytes()).unwrap();
        let path = lab.root.join(format!("approval-{}", rand::random::<u32>()));
        let approval = Approval::new(statement.clone(), signature).unwrap();
        fs::write(&path, serde_json::to_vec(&approval).unwrap()).unwrap();
        text(&path).to_owned()
    };
    PEOPLE.iter().map(|person| file(person)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_as_policy_allows_and_counts_once_its_custodians_have_opened_it() {
    let (lab, identities) = with_custodians().await;
    let out = lab.root.join("backup");
    let create = |out: &PathBuf, approvals: &[String]| {
        let mut arguments = vec!["create", "--format", "json", "--out", text(out)];
        arguments.extend(approvals.iter().flat_map(|file| ["--approval", file.as_str()]));
        backup(&lab, &arguments, true)
    };
    let (code, _, why) = create(&out, &[]);
    assert!(code == 2 && why.contains("policy_denied") && why.contains("receipt"), "{why}");
    assert!(!out.exists(), "what was not made leaves no file");
    let approvals = approvals(&lab).await;
    let (code, made, why) = create(&out, &approvals);
    assert_eq!((code, &made["shares"], &made["threshold"]), (0, &json!(1), &json!(2)), "{why}");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, why) = create(&out, &approvals);
    assert!(code == 2 && why.contains("never written over"), "{why}");
    let (code, _, why) = create(&lab.root.join("second"), &approvals);
    assert!(code == 2 && why.contains("used before"), "{why}");
    let coordinator = lab.client(0, Role::Coordinator);
    assert_eq!(coordinator.post("backups", &json!({})).await.status, 403);
    let operator = lab.client(0, Role::Operator);
    assert_eq!(operator.post("backups", &json!({"recipients": []})).await.status, 400, "no flag names recipients");

    let listed = operator.get("backups").await.value();
    assert_eq!(listed["backups"][0]["stage"], "made", "{listed}");
    let (code, _, why) = backup(&lab, &["verify", text(&out), "--identity", text(&identities[1])], false);
    assert!(code == 2 && why.contains("1 of 2 needed pieces"), "{why}");
    let both = ["--identity", text(&identities[2]), "--identity", text(&identities[0])];
    let (code, verified, why) = backup(&lab, &[&["verify", text(&out), "--format", "json"], &both[..]].concat(), false);
    assert_eq!((code, &verified["complete"]), (0, &json!(true)), "{why}");
    let guess = "00".repeat(32);
    let (code, _, why) = backup(&lab, &["record", text(&out), "--proof", &guess], true);
    assert!(code == 2 && why.contains("bad_request"), "{why}");
    let proof = verified["proof"].as_str().unwrap();
    let (code, _, why) = backup(&lab, &["record", text(&out), "--proof", proof], true);
    assert_eq!(code, 0, "{why}");
    let listed = operator.get("backups").await.value();
    assert_eq!(listed["backups"][0]["stage"], "verified", "{listed}");

    let (leaves, _) = lab.audit(0);
    let told: Vec<_> = leaves.iter().filter(|leaf| leaf.op == Op::Backup).collect();
    assert_eq!(told[0].phase, Phase::Refusal);
    let names: Vec<&str> = told[1].approvals.iter().map(|approval| approval.name.as_str()).collect();
    assert_eq!(names, PEOPLE);
    let stages = told.iter().flat_map(|leaf| &leaf.guards).filter(|change| change.guard == Guard::Backup);
    let stages: Vec<String> = stages.map(|change| change.to.as_ref().unwrap().to_string()).collect();
    let digest = made["digest"].as_str().unwrap();
    assert_eq!(stages, [format!("made {digest}"), format!("verified {digest}")]);
}

/// Takes party-1's host away, and sets another one up in its place: another token, another log.
fn replace_host(lab: &TestLab) {
    let party = &lab.parties[0];
    for folder in [&party.data_dir, &party.folder.join("tokens")] {
        fs::remove_dir_all(folder).unwrap();
        fs::DirBuilder::new().mode(0o700).create(folder).unwrap();
    }
    let config = text(&party.config);
    let so_pin = party.folder.join("so-pin");
    let init = ["hsm", "init", "--config", config, "--create-token", "--so-pin-file", text(&so_pin)];
    let (code, _, why) = casemate(lab, &init);
    assert_eq!(code, 0, "{why}");
    let (code, _, why) = casemate(lab, &["audit", "init", "--config", config]);
    assert_eq!(code, 0, "{why}");
}

fn proposal(coordinator: &LyingCoordinator, key: &Key, nonce: u64, identity: &IdentityKey) -> Proposal {
    coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(nonce)).telling_all(|invitation| {
        invitation.claims.participants[0].identity = identity.clone();
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shares_of_a_destroyed_host_come_back_on_another_token_and_sign() {
    let (mut lab, identities) = with_custodians().await;
    let (coordinator, key) = (lab.lying_coordinator(), lab.key());
    let out = lab.root.join("backup");
    let approvals = approvals(&lab).await;
    let create = ["create", "--out", text(&out), "--approval", &approvals[0], "--approval", &approvals[1]];
    let (code, _, why) = backup(&lab, &create, true);
    assert_eq!(code, 0, "{why}");
    // One custodian comes in person, another sends a piece to the ceremony.
    let ceremony = age::x25519::Identity::generate();
    let (own, piece) = (lab.root.join("ceremony"), lab.root.join("piece"));
    fs::write(&own, ceremony.to_string().expose_secret()).unwrap();
    let to = ceremony.to_public().to_string();
    let send = ["piece", text(&out), "--identity", text(&identities[1]), "--to", &to, "--out", text(&piece)];
    let (code, _, why) = backup(&lab, &send, false);
    assert_eq!(code, 0, "{why}");
    let early = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    lab.stop_all();
    replace_host(&lab);

    let config = text(&lab.parties[0].config).to_owned();
    let people = ["--identity", text(&identities[0]), "--identity", text(&own), "--piece", text(&piece)];
    let restore = [&["backup", "restore", text(&out), "--config", &config], &people[..]].concat();
    let (code, statement, told) = casemate(&lab, &[&restore[..], &["--show-statement"]].concat());
    assert!(code == 0 && told.contains("it would bring back") && told.contains("casemate-recovery"), "{told}");
    let path = lab.root.join("statement.json");
    fs::write(&path, &statement).unwrap();
    let sign = |person: &str| {
        let path = lab.root.join(format!("{person}.sig"));
        fs::write(&path, lab.staff().sign(person, Namespace::Recovery.as_str(), &statement).unwrap()).unwrap();
        text(&path).to_owned()
    };
    let (first, second) = (sign(SIGNERS[0]), sign(SIGNERS[2]));
    let with = |signatures: &[&str]| {
        let mut all = restore.clone();
        all.extend(["--statement", text(&path), "--format", "json"]);
        all.extend(signatures.iter().flat_map(|file| ["--signature", *file]));
        casemate(&lab, &all)
    };
    let (code, _, why) = with(&[&first]);
    assert!(code == 2 && why.contains("1 of 2 needed people"), "{why}");
    let (code, done, why) = with(&[&first, &second]);
    assert_eq!(code, 0, "{why}");
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["restored"]["shares"].as_array().unwrap().len(), 1, "{done}");
    let (code, _, why) = with(&[&first, &second]);
    assert!(code == 2 && why.contains("restored here before"), "{why}");

    // What the command tells people to write into the configurations.
    let old = lab.parties[0].identity.to_string();
    assert_eq!(done["former_identities"], json!([old]));
    let (identity, audit) = (done["identity"].as_str().unwrap(), done["audit"].as_str().unwrap());
    lab.configure(0, |text| text.replace("[party]\n", &format!("[party]\nformer_identities = [\"{old}\"]\n")));
    let audit_before = lab.parties[0].audit.to_string();
    for peer in [1, 2] {
        lab.configure(peer, |text| {
            let pinned = format!("identity = \"{identity}\"\nformer_identities = [\"{old}\"]");
            text.replace(&format!("identity = \"{old}\""), &pinned).replace(&audit_before, audit)
        });
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    lab.start_appliances().await;
    let body = coordinator.convener.body(&early.invitations[0]);
    let refused = coordinator.appliances[0].post(early.route(), &body).await.problem();
    assert_eq!(refused.code, Code::InvalidJoinToken, "{refused}");
    assert!(refused.detail.contains("a backup restored"), "{refused}");
    let identity: IdentityKey = identity.parse().unwrap();
    let ends = coordinator.run_honestly(&proposal(&coordinator, &key, 1, &identity)).await;
    assert_eq!(ends[1].code(), Code::PeerLogRefused, "the peer knew another log");
    let note = lab.client(0, Role::Auditor).get("audit/checkpoint").await;
    let note = String::from_utf8(note.body.to_vec()).unwrap();
    let acceptance = json!({"reason": "restored from a backup on a new host", "checkpoint": note});
    let accepted = lab.client(1, Role::Operator).post("peers/party-1/accept", &acceptance).await;
    assert_eq!(accepted.status, 200, "{accepted}");
    let ends = coordinator.run_honestly(&proposal(&coordinator, &key, 2, &identity)).await;
    assert!(ends[0].signature().verifies(&key.public_key(), &Transfer::allowed(2).hash()));
}
