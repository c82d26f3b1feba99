//! Two hosts of one party, its shares, its custodians and its policy's signers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use casemate_appliance::backup::{Backup, BundleName, Checked, Keyring, Made, Mandate, Opened, Source, make};
use casemate_appliance::metrics::HsmMetrics;
use casemate_appliance::pipeline::{ShareHeader, SharedKey};
use casemate_appliance::primes;
use casemate_appliance::sealing::seal;
use casemate_appliance::store::{HsmAnchor, Material, ShareRow, Store, StoreError, Transaction, Urgency};
use casemate_appliance::vault::Vault;
use casemate_attest::restoration::Statement;
use casemate_attest::{At, AuditKey, Checkpoint, Entry, Guard, GuardChange, Op, ShareState, SignedCheckpoint, Text};
use casemate_hsm::{Hsm, HsmConfig, KeyPurpose};
use casemate_mpc::KeyShare;
use casemate_policy::bundle::{Recipients, seal as seal_bundle};
use casemate_policy::signers::{AllowedSigners, GivenSignature, Namespace, Quorum};
use casemate_policy::{Bundle, Client, TrustAnchors};
use casemate_wire::certificate::IdentitySignature;
use casemate_wire::{
    Digest32, IdentityKey, KeyCertificate, KeyStatement, Member, PartyId, PublicKey, Roster, ShareType, Threshold,
};
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rand::rngs::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// Shares of index 0 of three 2-of-3 keys that were made for these tests: hex of their stored form.
const SHARES: &str = include_str!("shares.json");

pub(crate) const PARTY: &str = "party-1";

pub(crate) fn party() -> PartyId {
    PARTY.parse().unwrap()
}

/// A real share in the clear.
pub(crate) fn plain(which: usize) -> Zeroizing<Vec<u8>> {
    let all: Vec<String> = serde_json::from_str(SHARES).unwrap();
    Zeroizing::new(hex::decode(&all[which]).unwrap())
}

/// An appliance at rest, opened.
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    pub(crate) hsm: Vault,
    pub(crate) store: Store,
}

impl Site {
    /// A new log in a folder of this name, and a token for it.
    pub(crate) async fn begin(folder: &Path, name: &str, config: HsmConfig) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        let hsm = Vault::new(Hsm::open(config.clone()).await.unwrap(), HsmMetrics::default());
        let (path, mut anchor) = (folder.clone(), HsmAnchor::new(hsm.clone(), Handle::current()));
        let log = format!("casemate/party-1/{name}").parse().unwrap();
        spawn_blocking(move || Store::create(&path, &log, &mut anchor).unwrap()).await.unwrap();
        hsm.shutdown().await.unwrap();
        Self::open(folder, config).await
    }

    pub(crate) async fn open(folder: PathBuf, config: HsmConfig) -> Self {
        let hsm = Vault::new(Hsm::open(config).await.unwrap(), HsmMetrics::default());
        let (path, anchor) = (folder.clone(), HsmAnchor::new(hsm.clone(), Handle::current()));
        let store = spawn_blocking(move || Store::open(&path, Box::new(anchor)).unwrap()).await.unwrap();
        assert!(store.quarantine().is_none(), "{}", store.quarantine().unwrap());
        Self { folder, hsm, store }
    }

    pub(crate) async fn close(self) -> PathBuf {
        let store = self.store.clone();
        spawn_blocking(move || store.close()).await.unwrap();
        self.hsm.shutdown().await.unwrap();
        self.folder
    }

    pub(crate) fn identity(&self) -> IdentityKey {
        IdentityKey::from_spki(&self.hsm.public_key(KeyPurpose::Identity)).unwrap()
    }

    /// Stores a share as a keygen or rotation leaves it, in this state.
    pub(crate) async fn add(&self, which: usize, epoch: u64, state: ShareState) -> ShareRow {
        let row = row(&self.hsm, which, epoch).await;
        self.put(row, state).await
    }

    /// Stores this share, brought into this state.
    pub(crate) async fn put(&self, row: ShareRow, state: ShareState) -> ShareRow {
        let stored = row.clone();
        self.store
            .write(Urgency::Act, move |transaction| {
                let made = stored.insert(transaction)?;
                transaction.append(Entry::admin(Op::Share).guarding(vec![made]))?;
                if state != ShareState::Pending {
                    let certificate = stored.certificate.as_ref().unwrap();
                    let changes = ShareRow::confirm(transaction, &stored.id, certificate, &[])?;
                    transaction.append(Entry::admin(Op::Share).guarding(changes))?;
                }
                Ok(())
            })
            .await
            .unwrap();
        if let Some(change) = [ShareState::Rotated, ShareState::Revoked].into_iter().find(|other| *other == state) {
            self.shift(&row.id, change).await;
        }
        row
    }

    /// Makes a pending share active, as the end of its rotation would.
    pub(crate) async fn confirm(&self, row: &ShareRow) -> Result<(), StoreError> {
        let row = row.clone();
        self.store
            .write(Urgency::Act, move |transaction| {
                let changes = ShareRow::confirm(transaction, &row.id, row.certificate.as_ref().unwrap(), &[])?;
                transaction.append(Entry::admin(Op::Share).guarding(changes)).map(|_| ())
            })
            .await
    }

    /// Takes what is before an epoch of a key out of use; how many shares that were.
    pub(crate) async fn supersede(&self, row: &ShareRow, epoch: u64) -> usize {
        let key = row.public_key;
        let changes = self.store.write(Urgency::Act, move |transaction| ShareRow::supersede(transaction, &key, epoch));
        changes.await.unwrap().len()
    }

    async fn shift(&self, id: &str, to: ShareState) {
        let (id, op) = (id.to_owned(), if to == ShareState::Revoked { Op::Revoke } else { Op::Share });
        self.store
            .write(Urgency::Act, move |transaction: &mut Transaction<'_>| {
                let change = casemate_attest::Transition::between(Some(ShareState::Active), to).unwrap();
                let change = ShareRow::shift(transaction, &id, change)?;
                let origin =
                    casemate_attest::Origin { req: Text::fitted("r"), actor: Text::fitted("op"), session: None };
                let entry = Entry::admin(op).guarding(vec![change]);
                transaction.append(if op == Op::Revoke { entry.asked_by(origin) } else { entry })
            })
            .await
            .unwrap();
    }

    pub(crate) async fn add_primes(&self) {
        primes::add(&self.hsm, &self.store, &Zeroizing::new(b"primes".to_vec())).await.unwrap();
    }

    /// All rows of shares, by id.
    pub(crate) async fn shares(&self) -> Vec<ShareRow> {
        let mut rows = self.store.read(|store| Ok(ShareRow::page(store, None, None, 1, 100)?.0)).await.unwrap();
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        rows
    }

    /// A checkpoint of the log as it stands.
    pub(crate) async fn checkpoint(&self) -> SignedCheckpoint {
        let key = AuditKey::from_spki(&self.hsm.public_key(KeyPurpose::Audit)).unwrap();
        let next = Checkpoint::of(&self.store.audit_head());
        let signature = self.hsm.sign(KeyPurpose::Audit, next.text().as_bytes()).await.unwrap();
        next.signed(&key, &signature).unwrap()
    }

    /// A backup of all that has a body.
    pub(crate) async fn back_up(&self, custody: &Custody) -> Made {
        make(&self.hsm, self.source(&custody.recipients, &self.checkpoint().await).await).await.unwrap()
    }

    pub(crate) async fn source<'a>(&self, recipients: &'a Recipients, checkpoint: &'a SignedCheckpoint) -> Source<'a> {
        Source {
            party: party(),
            identity: self.identity(),
            checkpoint,
            bundle: BundleName { version: 7, digest: Digest32([7; 32]) },
            recipients,
            rows: self.store.read(ShareRow::held).await.unwrap(),
        }
    }
}

/// A share of party-1 with a certificate by identities that exist for it alone.
pub(crate) async fn row(hsm: &Vault, which: usize, epoch: u64) -> ShareRow {
    row_of(hsm, &plain(which), epoch, &format!("key-{which}")).await
}

/// The same for any such share.
pub(crate) async fn row_of(hsm: &Vault, plain: &[u8], epoch: u64, label: &str) -> ShareRow {
    let share: KeyShare = KeyShare::from_bytes(plain).unwrap();
    let keys: Vec<SigningKey> = (0..3).map(|_| SigningKey::random(&mut OsRng)).collect();
    let members = keys.iter().zip(0..).map(|(key, index): (&SigningKey, u16)| Member {
        party_id: format!("party-{}", index + 1).parse().unwrap(),
        party_index: index,
        identity: IdentityKey::from_spki(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap(),
    });
    let roster = Roster::try_from(members.collect::<Vec<_>>()).unwrap();
    let public_key: PublicKey = hex::encode(share.public_key()).parse().unwrap();
    let label = Some(label.to_owned());
    let statement = KeyStatement {
        public_key,
        chain_code: share.chain_code(),
        scheme: "cggmp21-secp256k1".into(),
        threshold_t: 2,
        threshold_n: 3,
        roster: roster.clone(),
        epoch,
        share_type: ShareType::Wallet,
        label: label.clone(),
        confirmation: Digest32([3; 32]),
    };
    let sign = |key: &SigningKey| {
        let signature: Signature = key.sign(&statement.to_sign());
        IdentitySignature(signature.to_bytes().into())
    };
    let certificate = KeyCertificate { signatures: keys.iter().map(sign).collect(), statement: statement.clone() };
    let threshold = Threshold::new(2, 3).unwrap();
    let scheme = statement.scheme.clone();
    let header = ShareHeader {
        version: ShareHeader::VERSION,
        share_id: uuid::Uuid::new_v4().to_string(),
        party_id: party(),
        key: SharedKey { public_key, scheme, threshold, epoch, roster },
        share_type: ShareType::Wallet,
        label,
        created: 1_700_000_000,
        restored: false,
        joined: None,
        dealt_from: None,
    };
    ShareRow {
        id: header.share_id.clone(),
        public_key,
        session_id: "s-1".parse().unwrap(),
        share_type: ShareType::Wallet,
        status: ShareState::Pending,
        material: Material::Held(seal(hsm, &header, plain).await.unwrap()),
        statement,
        certificate: Some(certificate),
        endorsements: Vec::new(),
        created_at: "2026-11-21T12:00:00Z".into(),
        last_used_at: None,
    }
}

/// Custodians with their identities, as a signed bundle names them.
pub(crate) struct Custody {
    pub(crate) recipients: Recipients,
    pub(crate) people: Vec<Identity>,
}

impl Custody {
    /// `threshold` of `count`, named `custodian-0` and so on.
    pub(crate) fn new(threshold: u8, count: usize) -> Self {
        let people: Vec<Identity> = (0..count).map(|_| Identity::generate()).collect();
        let rows = people.iter().enumerate().map(|(number, identity)| {
            format!("[[custodian]]\nname = \"custodian-{number}\"\nage = \"{}\"\n", identity.to_public())
        });
        let table = rows.collect::<String>() + &format!("[backup]\nthreshold = {threshold}\n");
        Self { recipients: recipients(&table), people }
    }

    /// The identities of these people.
    pub(crate) fn ring(&self, people: &[usize]) -> Keyring {
        let mut ring = Keyring::default();
        for number in people {
            ring.identity(&format!("identity-{number}"), &file(&self.people[*number])).unwrap();
        }
        ring
    }

    /// What enough of them open.
    pub(crate) fn open(&self, made: &[u8]) -> Opened {
        let needed: Vec<usize> = (0..usize::from(self.recipients.threshold().unwrap())).collect();
        Opened::by(Backup::read(made).unwrap(), &self.ring(&needed)).unwrap()
    }

    pub(crate) fn check(&self, made: &[u8]) -> Checked {
        self.open(made).check(|_| {}).unwrap_or_else(|reports| panic!("{reports:?}"))
    }
}

/// What a bundle with this `recipients.toml` names.
fn recipients(table: &str) -> Recipients {
    let dir = tempfile::tempdir().unwrap();
    let case = r#"[{"name": "allowed", "expect": {"verdict": "allow", "policies": ["all"]}, "request": {
        "principal": {"name": "op", "roles": ["operator"]}, "action": "Backup", "resource": {"appliance": {}}}}]"#;
    fs::create_dir(dir.path().join("tests")).unwrap();
    for (name, text) in [
        ("all.cedar", r#"@id("all") permit (principal, action, resource);"#),
        ("tests/all.json", case),
        ("recipients.toml", table),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    seal_bundle(dir.path(), Timestamp::now()).unwrap();
    let clients = [Client { name: "op".into(), roles: ["operator".to_owned()].into(), org: String::new() }];
    Bundle::load(dir.path(), &clients).unwrap().recipients().clone()
}

/// An identity file.
pub(crate) fn file(identity: &Identity) -> String {
    format!("# created: today\n# public key: {}\n{}\n", identity.to_public(), identity.to_string().expose_secret())
}

/// Signers of policies: two of three are a quorum.
pub(crate) struct Signers {
    pub(crate) anchors: TrustAnchors,
    keys: Vec<PrivateKey>,
}

impl Signers {
    pub(crate) fn new() -> Self {
        let key = || PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
        let keys: Vec<PrivateKey> = (0..3).map(|_| key()).collect();
        let line = |(number, key): (usize, &PrivateKey)| {
            let public = key.public_key().to_openssh().unwrap();
            format!("signer-{number}@security namespaces=\"casemate-policy,casemate-recovery\" {public}\n")
        };
        let text: String = keys.iter().enumerate().map(line).collect();
        let allowed = AllowedSigners::parse(&text).unwrap();
        let quorum: Quorum = "2 of 3".parse().unwrap();
        Self { anchors: TrustAnchors::new(allowed, quorum).unwrap(), keys }
    }

    pub(crate) fn signature(&self, who: usize, text: &[u8]) -> GivenSignature {
        let signature = self.keys[who].sign(Namespace::Recovery.as_str(), HashAlg::Sha512, text).unwrap();
        let armored = signature.to_pem(LineEnding::LF).unwrap().into_bytes();
        GivenSignature { name: format!("signature-{who}"), armored }
    }

    /// A quorum's leave for this statement.
    pub(crate) fn mandate(&self, statement: &Statement) -> Mandate {
        let text = statement.to_text().unwrap().into_bytes();
        let signatures = vec![self.signature(0, &text), self.signature(2, &text)];
        Mandate::of(text, signatures, &self.anchors, Timestamp::now()).unwrap()
    }
}

/// A statement's times: now, and an hour on.
pub(crate) fn an_hour() -> (At, At) {
    let now = Timestamp::now();
    (At::new(now).unwrap(), At::new(now + SignedDuration::from_hours(1)).unwrap())
}

pub(crate) fn backup_guard(change: &GuardChange) -> Option<&str> {
    (change.guard == Guard::Backup).then(|| change.to.as_ref().unwrap().as_str())
}
