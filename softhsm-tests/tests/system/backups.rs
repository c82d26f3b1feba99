//! A host that is destroyed, token and all: its shares come back on another token from a backup, and the key goes on signing.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use casemate_appliance::clients::Role;
use casemate_attest::{Guard, Op, Phase};
use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{publish, replace};
use casemate_softhsm_tests::template::Kind;
use casemate_wire::Code;
use serde_json::{Value, json};

use super::recovery::signatures;

const RULES: &str = r#"@id("sign") permit (principal, action == Mpc::Action::"Sign", resource);
@id("rotate") permit (principal, action == Mpc::Action::"Rotate", resource);
@id("back-up") permit (principal, action == Mpc::Action::"Backup", resource);
@id("ceremony") @reason("a backup needs two people") forbid (principal, action == Mpc::Action::"Backup", resource)
unless { context.approvals.count >= 2 };
"#;
const PEOPLE: [&str; 2] = ["approver-1@treasury", "approver-2@risk"];

/// A custodian who has made an identity of their own: their entry of `recipients.toml`, and the identity's file.
pub(super) fn custodian(lab: &TestLab, number: usize) -> (String, PathBuf) {
    let identity = age::x25519::Identity::generate();
    let file = lab.root.join(format!("identity-{number}"));
    fs::write(&file, identity.to_string().expose_secret()).unwrap();
    (format!("[[custodian]]\nname = \"custodian-{number}\"\nage = \"{}\"\n", identity.to_public()), file)
}

/// `recipients.toml` with these custodians, two of whom open a backup.
pub(super) fn recipients(custodians: &[String]) -> String {
    custodians.concat() + "[backup]\nthreshold = 2\n"
}

/// Custodians: their entries of `recipients.toml`, and their identities' files.
pub(super) type Custodians = (Vec<String>, Vec<PathBuf>);

/// A running lab whose signed bundles name three custodians; two of them open a backup.
pub(super) async fn with_custodians() -> (TestLab, Custodians) {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let custodians: Custodians = (0..3).map(|number| custodian(&lab, number)).unzip();
    let table = recipients(&custodians.0);
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
    (lab, custodians)
}

/// `casemate …` at party-1; its exit code, result and complaint.
pub(super) fn casemate(lab: &TestLab, arguments: &[&str]) -> (i32, Vec<u8>, String) {
    let done = lab.program(0, "casemate", arguments);
    (done.status.code().unwrap(), done.stdout, String::from_utf8(done.stderr).unwrap())
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How an operator's tool calls party-1.
pub(super) fn call(lab: &TestLab) -> Vec<String> {
    let credentials = lab.credentials(Role::Operator);
    let url = format!("https://{}", lab.parties[0].address);
    let files = [("--ca", credentials.ca), ("--cert", credentials.certificate), ("--key", credentials.key)];
    let files = files.into_iter().flat_map(|(flag, path)| [flag.to_owned(), text(&path).to_owned()]);
    ["--url".to_owned(), url].into_iter().chain(files).collect()
}

/// `casemate backup …` at party-1, or as an operator who calls it; its exit code, result and complaint.
pub(super) fn backup(lab: &TestLab, arguments: &[&str], calling: bool) -> (i32, Value, String) {
    let call = if calling { call(lab) } else { Vec::new() };
    let mut all = vec!["backup"];
    all.extend(arguments);
    all.extend(call.iter().map(String::as_str));
    let (code, out, why) = casemate(lab, &all);
    (code, serde_json::from_slice(&out).unwrap_or(Value::Null), why)
}

/// The act that the appliance says people must approve for a backup.
pub(super) fn act(lab: &TestLab) -> Value {
    let (code, act, why) = backup(lab, &["create", "--show-act"], true);
    assert_eq!(code, 0, "{why}");
    act
}

/// Two people's approvals of an act, in files, under the bundle that lies in party-1's folder.
pub(super) fn approved(lab: &TestLab, act: &Value) -> Vec<String> {
    let fresh = |what: &str| lab.root.join(format!("{what}-{}.json", rand::random::<u32>()));
    let (shown, bundle) = (fresh("act"), &lab.parties[0].policy_dir);
    fs::write(&shown, act.to_string()).unwrap();
    let approve = |person: &&str| {
        let (key, output) = (lab.staff().key_file(person), fresh("approval"));
        let files = ["--bundle", text(bundle), "--ssh-key", text(&key), "--output", text(&output)];
        let (code, _, why) = casemate(lab, &[&["approve", text(&shown), "--yes"], &files[..]].concat());
        assert_eq!(code, 0, "{why}");
        text(&output).to_owned()
    };
    PEOPLE.iter().map(approve).collect()
}

/// Has party-1 make a backup with these approvals.
pub(super) fn create(lab: &TestLab, out: &Path, approvals: &[String]) -> (i32, Value, String) {
    let mut arguments = vec!["create", "--format", "json", "--out", text(out)];
    arguments.extend(approvals.iter().flat_map(|file| ["--approval", file.as_str()]));
    backup(lab, &arguments, true)
}

/// A backup with all that policy asks for; its file.
pub(super) fn made(lab: &TestLab, name: &str) -> PathBuf {
    let out = lab.root.join(name);
    let (code, _, why) = create(lab, &out, &approved(lab, &act(lab)));
    assert_eq!(code, 0, "{why}");
    out
}

/// These custodians look whether a backup is complete.
pub(super) fn verify(lab: &TestLab, file: &Path, identities: &[&Path]) -> (i32, Value, String) {
    let mut arguments = vec!["verify", text(file), "--format", "json"];
    arguments.extend(identities.iter().flat_map(|identity| ["--identity", text(identity)]));
    backup(lab, &arguments, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_as_policy_allows_and_counts_once_its_custodians_have_opened_it() {
    let (lab, (_, identities)) = with_custodians().await;
    let out = lab.root.join("backup");
    let (code, _, why) = create(&lab, &out, &[]);
    assert!(code == 2 && why.contains("policy_denied") && why.contains("receipt"), "{why}");
    assert!(!out.exists(), "what was not made leaves no file");
    let act = act(&lab);
    assert_eq!(act["parameters"]["recipients"].as_array().unwrap().len(), 3, "{act}");
    let approvals = approved(&lab, &act);
    let (code, made, why) = create(&lab, &out, &approvals);
    assert_eq!((code, &made["shares"], &made["threshold"]), (0, &json!(1), &json!(2)), "{why}");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, why) = create(&lab, &out, &approvals);
    assert!(code == 2 && why.contains("never written over"), "{why}");
    let (code, _, why) = create(&lab, &lab.root.join("second"), &approvals);
    assert!(code == 2 && why.contains("used before"), "{why}");
    let coordinator = lab.client(0, Role::Coordinator);
    assert_eq!(coordinator.post("backups", &json!({})).await.status, 403);
    let operator = lab.client(0, Role::Operator);
    assert_eq!(operator.post("backups", &json!({"recipients": []})).await.status, 400, "no flag names recipients");

    let listed = operator.get("backups").await.value();
    assert_eq!(listed["backups"][0]["stage"], "made", "{listed}");
    let (code, _, why) = verify(&lab, &out, &[&identities[1]]);
    assert!(code == 2 && why.contains("1 of 2 needed pieces"), "{why}");
    let (code, verified, why) = verify(&lab, &out, &[&identities[2], &identities[0]]);
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
pub(super) fn replace_host(lab: &TestLab) {
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

/// `casemate backup restore` at party-1: this file, opened by these people.
pub(super) fn restore(lab: &TestLab, file: &Path, people: &[&str], more: &[&str]) -> (i32, Vec<u8>, String) {
    let config = text(&lab.parties[0].config);
    casemate(lab, &[&["backup", "restore", text(file), "--config", config], people, more].concat())
}

/// Has the statement of a restore shown, and signed; the arguments that say so, with one signature and with two.
pub(super) fn mandate(lab: &TestLab, file: &Path, people: &[&str]) -> [Vec<String>; 2] {
    let (code, statement, told) = restore(lab, file, people, &["--show-statement"]);
    assert!(code == 0 && told.contains("it would bring back") && told.contains("casemate-recovery"), "{told}");
    let path = lab.root.join("restore.json");
    fs::write(&path, &statement).unwrap();
    let statement = signatures(lab, &statement).map(|file| ["--signature".to_owned(), file]);
    let with = |signed: &[[String; 2]]| {
        let first = ["--statement", text(&path), "--format", "json"].map(str::to_owned);
        first.into_iter().chain(signed.concat()).collect()
    };
    [with(&statement[..1]), with(&statement)]
}

/// Writes what a restore printed into all configurations, and starts the appliances.
pub(super) async fn as_printed(lab: &mut TestLab, done: &Value) {
    assert_eq!(done["former_identities"], json!([lab.parties[0].identity]));
    let key = |name: &str| done[name].as_str().unwrap();
    lab.moved_to(0, key("identity").parse().unwrap(), key("audit").parse().unwrap());
    // Tokens of the second in which it was restored are from before.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    lab.start_appliances().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shares_of_a_destroyed_host_come_back_on_another_token_and_sign() {
    let (mut lab, (_, identities)) = with_custodians().await;
    let (coordinator, key) = (lab.lying_coordinator(), lab.key());
    let out = made(&lab, "backup");
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

    let people = ["--identity", text(&identities[0]), "--identity", text(&own), "--piece", text(&piece)];
    let [alone, both] = mandate(&lab, &out, &people);
    let with = |signed: &[String]| restore(&lab, &out, &people, &signed.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, _, why) = with(&alone);
    assert!(code == 2 && why.contains("1 of 2 needed people"), "{why}");
    let (code, done, why) = with(&both);
    assert_eq!(code, 0, "{why}");
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["restored"]["shares"].as_array().unwrap().len(), 1, "{done}");
    let (code, _, why) = with(&both);
    assert!(code == 2 && why.contains("restored here before"), "{why}");

    as_printed(&mut lab, &done).await;
    let body = coordinator.convener.body(&early.invitations[0]);
    let refused = coordinator.appliances[0].post(early.route(), &body).await.problem();
    assert_eq!(refused.code, Code::InvalidJoinToken, "{refused}");
    assert!(refused.detail.contains("a backup restored"), "{refused}");
    let coordinator = lab.lying_coordinator();
    let signing = |nonce| coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(nonce));
    let ends = coordinator.run_honestly(&signing(1)).await;
    assert_eq!(ends[1].code(), Code::PeerLogRefused, "the peer knew another log");
    lab.accept_log(0, &[1], "restored from a backup on a new host").await;
    let ends = coordinator.run_honestly(&signing(2)).await;
    assert!(ends[0].signature().verifies(&key.public_key(), &Transfer::allowed(2).hash()));
}
