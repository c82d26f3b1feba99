//! The business service of the main job.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use casemate_policy::approval::{Act, Nonce, SignParameters, Statement};
use casemate_policy::signers::Namespace;
use casemate_wire::api::Approval;
use casemate_wire::{Code, Digest32, EcdsaSignature, KeyCertificate, Member, Problem, PublicKey};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ethereum::{Transfer, address};
use super::{BROKEN_RULE, DemoError, Refused, wrong};
use crate::clients::Role;
use crate::lab::error::{LabError, file};
use crate::lab::progress::Progress;
use crate::lab::{Answer, Lab, Party, Service};

/// The longest wait for the primes of all parties; they are usually there after a minute.
const PRIMES_LIMIT: Duration = Duration::from_secs(1800);
/// The longest wait for a session.
const SESSION_LIMIT: Duration = Duration::from_secs(570);

/// A business service at its desk: it knows the lab's identities and holds an API key.
pub(super) struct Desk<'a> {
    lab: &'a Lab,
    front_door: Service,
}

/// A new key, as the coordinator reports it.
#[derive(Deserialize)]
pub(super) struct NewKey {
    pub(super) account_id: String,
    pub(super) public_key: PublicKey,
    address: String,
    certificate: KeyCertificate,
}

/// The outcome of a session to sign.
#[derive(Deserialize)]
struct Signed {
    public_key: PublicKey,
    signature: String,
    #[serde(flatten)]
    parts: EcdsaSignature,
}

/// The outcome of a session that failed.
#[derive(Deserialize)]
struct Failed {
    error: Problem,
}

impl<'a> Desk<'a> {
    pub(super) fn at(lab: &'a Lab) -> Result<Self, LabError> {
        Ok(Self { lab, front_door: lab.front_door()? })
    }

    pub(super) async fn wait_for_primes(&self, progress: &mut Progress) -> Result<(), DemoError> {
        let doing = "waiting for safe primes";
        let deadline = tokio::time::Instant::now() + PRIMES_LIMIT;
        loop {
            let mut ready = 0;
            for party in &self.lab.parties {
                let health = self.ask(party, Role::Monitor, "/health").await?;
                let primes = health.get("primes_ready").and_then(Value::as_u64);
                ready += usize::from(primes.is_some_and(|primes| primes > 0));
            }
            progress.detail(&format!("{ready} of {} appliances are ready", self.lab.parties.len()));
            if ready == self.lab.parties.len() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(wrong(doing, "they take far too long; is the machine busy?"));
            }
            progress.during(tokio::time::sleep(Duration::from_secs(1))).await;
        }
    }

    pub(super) async fn make_key(&self, t: usize) -> Result<NewKey, DemoError> {
        let participant = |party: &Party| json!({"party_id": party.party_id, "device_type": "appliance"});
        let participants: Vec<Value> = self.lab.parties.iter().map(participant).collect();
        let order = json!({
            "threshold_t": t, "threshold_n": participants.len(), "participants": participants, "share_type": "wallet",
        });
        let doing = "making the key";
        let answer = self.order(doing, "/api/v1/mpc/keygen", &order).await?;
        parsed(doing, answer, "completed")
    }

    /// Believes neither key nor address of the coordinator, but what all identities have signed.
    pub(super) async fn check_key(&self, key: &NewKey, t: usize) -> Result<String, DemoError> {
        let doing = "checking the key";
        let statement = &key.certificate.statement;
        let pinned = |member: &Member| self.lab.party(&member.party_id).map(|party| party.identity.clone());
        key.certificate.verify(pinned).map_err(|e| wrong(doing, &e.to_string()))?;
        if statement.public_key != key.public_key {
            return Err(wrong(doing, "the certificate is for another key than the coordinator says"));
        }
        let threshold = (usize::from(statement.threshold_t), usize::from(statement.threshold_n));
        if threshold != (t, self.lab.parties.len()) {
            return Err(wrong(doing, "the certificate states another threshold than was asked for"));
        }
        let address = address(&key.public_key).map(|address| address.to_checksum(None));
        if address.as_ref() != Some(&key.address) {
            return Err(wrong(doing, "the coordinator shows another address than the key's"));
        }
        for party in &self.lab.parties {
            let shares = self.ask(party, Role::Auditor, "/shares?status=active&limit=200").await?;
            let items = shares.get("items").and_then(Value::as_array).into_iter().flatten();
            let wanted = key.public_key.to_string();
            if !items.into_iter().any(|share| share.get("public_key").is_some_and(|held| *held == wanted)) {
                return Err(wrong(doing, &format!("{} has no active share of it", party.party_id)));
            }
        }
        Ok(key.address.clone())
    }

    pub(super) async fn sign(
        &self,
        key: &NewKey,
        transfer: &Transfer,
        by: &[&Party],
        approvals: &[Approval],
    ) -> Result<EcdsaSignature, DemoError> {
        let doing = "signing";
        let order = sign_order(key, transfer, by, approvals);
        let answer = self.order(doing, "/api/v1/mpc/sign", &order).await?;
        let signed: Signed = parsed(doing, answer, "completed")?;
        if signed.public_key != key.public_key || !signed.parts.verifies(&key.public_key, &transfer.hash()) {
            return Err(wrong(doing, "the signature does not verify under the key"));
        }
        if signed.parts.to_der().map(hex::encode) != Some(signed.signature) {
            return Err(wrong(doing, "the DER signature is another one than r and s"));
        }
        Ok(signed.parts)
    }

    pub(super) async fn be_refused(
        &self,
        key: &NewKey,
        transfer: &Transfer,
        by: &[&Party],
    ) -> Result<Refused, DemoError> {
        let doing = "asking for what policy refuses";
        let answer = self.order(doing, "/api/v1/mpc/sign", &sign_order(key, transfer, by, &[])).await?;
        let Failed { error } = parsed(doing, answer, "failed")?;
        let names = error.more.get("policies").and_then(Value::as_array).into_iter().flatten();
        let policies: Vec<String> = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        if error.code != Code::PolicyDenied || !policies.iter().any(|policy| policy == BROKEN_RULE) {
            return Err(wrong(doing, &format!("it failed for another reason: {error}")));
        }
        Ok(Refused { code: error.code, policies, detail: error.detail, message_hash: transfer.hash() })
    }

    /// What each of these people signs, having looked at the transfer.
    pub(super) async fn approvals(
        &self,
        key: &NewKey,
        transfer: &Transfer,
        people: &[&str],
    ) -> Result<Vec<Approval>, DemoError> {
        let doing = "approving";
        let first = self.lab.parties.first().ok_or_else(|| wrong(doing, "the lab has no appliance"))?;
        // Approvals are given under one policy, which everybody can read.
        let policy = self.ask(first, Role::Auditor, "/policy").await?;
        let bundle = policy.get("digest").and_then(|digest| serde_json::from_value(digest.clone()).ok());
        let bundle: Digest32 = bundle.ok_or_else(|| wrong(doing, "the appliance does not say its policy's digest"))?;
        let parameters = SignParameters { message_hash: transfer.hash(), derivation_path: None };
        let act = Act::Sign { key: key.public_key, parameters };
        let expires = Timestamp::now().saturating_add(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MAX);
        let approve = |person: &&str| {
            let nonce = Nonce::from_bytes(rand::random());
            let statement = Statement { act: act.clone(), bundle, expires, nonce };
            let text = statement.to_text().map_err(|error| wrong(doing, &error.to_string()))?;
            let signature = self.lab.staff().sign(person, Namespace::Approval.as_str(), text.as_bytes())?;
            Approval::new(text, signature).map_err(|error| wrong(doing, &error.to_string()))
        };
        people.iter().map(approve).collect()
    }

    /// Exports each party's log beside the lab's other files, with the operator's own command.
    pub(super) fn export_logs(&self) -> Result<Vec<(&'a Party, PathBuf)>, DemoError> {
        let folder = self.lab.root.join("audit");
        fs::create_dir_all(&folder).map_err(file("make the folder", &folder))?;
        let export = |party: &'a Party| {
            let Party { party_id, data_dir, .. } = party;
            let path = folder.join(party_id.as_str());
            // An earlier run's; an export makes its folder itself.
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(file("remove", &path))?;
            }
            let words: [&OsStr; 5] =
                ["audit".as_ref(), "export".as_ref(), data_dir.as_ref(), "--output".as_ref(), path.as_ref()];
            self.lab.casemate(party, &words)?;
            Ok((party, path.join("log.jsonl")))
        };
        self.lab.parties.iter().map(export).collect()
    }

    /// Places an order and waits for its outcome.
    async fn order(&self, doing: &'static str, path: &str, order: &Value) -> Result<Value, DemoError> {
        let Answer { status, body } =
            self.front_door.post(path, order, Some(SESSION_LIMIT)).await.map_err(LabError::from)?;
        if status == 201 { Ok(body) } else { Err(DemoError::Answer { doing, status, body }) }
    }

    /// Reads from an appliance over mutual TLS.
    async fn ask(&self, party: &Party, role: Role, path: &str) -> Result<Value, DemoError> {
        let path = format!("{}{path}", casemate_wire::api::BASE_PATH);
        let answer = self.lab.appliance(party, role)?.get(&path).await.map_err(LabError::from)?;
        match answer {
            Answer { status: 200, body } => Ok(body),
            Answer { status, body } => Err(DemoError::Answer { doing: "asking an appliance", status, body }),
        }
    }
}

fn sign_order(key: &NewKey, transfer: &Transfer, by: &[&Party], approvals: &[Approval]) -> Value {
    let participants: Vec<Value> = by.iter().map(|party| json!({"party_id": party.party_id})).collect();
    json!({
        "account_id": key.account_id,
        "message_hash": transfer.hash(),
        "intent": transfer.intent(),
        "participants": participants,
        "approvals": approvals,
    })
}

/// What the coordinator reports of a session that must have ended in this state.
fn parsed<T: DeserializeOwned>(doing: &'static str, mut body: Value, status: &str) -> Result<T, DemoError> {
    if let Some(fields) = body.as_object_mut() {
        // Only the session's creator sees them; they belong into no error message.
        fields.remove("join_tokens");
    }
    if body.get("status").is_none_or(|actual| actual != status) {
        return Err(match serde_json::from_value(body.clone()) {
            Ok(Failed { error }) => wrong(doing, &error.to_string()),
            Err(_) => DemoError::Answer { doing, status: 201, body },
        });
    }
    serde_json::from_value(body).map_err(|e| wrong(doing, &format!("the coordinator's answer lacks something: {e}")))
}
