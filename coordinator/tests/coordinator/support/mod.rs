//! A lab in a temporary folder: CA, certificates, identities, appliances, configuration, coordinator.

pub mod appliance;
pub mod attester;
pub mod client;
pub mod held;
pub mod keys;

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use casemate_coordinator::{Config, Server};
use casemate_wire::token::{PinnedKey, TokenAlgorithm};
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use appliance::Appliance;
use client::{Answer, Caller};
use keys::Keys;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_casemate-coordinator");

/// What a test may change before the coordinator starts.
pub struct Setup {
    pub appliances: u16,
    /// Extra lines for `[limits]`.
    pub limits: String,
    /// Appliances that do not run at first.
    pub down: Vec<u16>,
    /// Appliances whose certificates are from another CA.
    pub strangers: Vec<u16>,
    /// Appliances for whom the coordinator has a reference file.
    pub attested: Vec<u16>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { appliances: 3, limits: String::new(), down: Vec::new(), strangers: Vec::new(), attested: Vec::new() }
    }
}

pub struct Lab {
    pub folder: TempDir,
    pub appliances: Vec<Appliance>,
    pub keys: Arc<Keys>,
}

/// A coordinator that serves inside the test's process.
pub struct Running {
    pub caller: Caller,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Lab {
    pub async fn new(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::new(setup.appliances + 1));
        let ca = new_ca();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        };
        write("ca.pem", &ca.pem());
        let (certificate, key) = leaf(&ca, "coordinator");
        write("coordinator.pem", &certificate);
        write("coordinator.key", &key);
        let token = p256::SecretKey::from_slice(&[77; 32]).unwrap();
        write("token.key", &token.to_pkcs8_pem(LineEnding::LF).unwrap());
        let public = token.public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let mut sections = String::new();
        let mut appliances = Vec::new();
        for index in 0..setup.appliances {
            let pinned = PinnedKey::new("lab".into(), TokenAlgorithm::Es256, public.as_bytes()).unwrap();
            let name = keys::party(index);
            let stranger = setup.strangers.contains(&index).then(new_ca);
            let (certificate, key) = leaf(stranger.as_ref().unwrap_or(&ca), name.as_str());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut appliance = Appliance::new(index, Arc::clone(&keys), pinned, &ca.pem(), &certificate, &key);
            let address = listener.local_addr().unwrap();
            let identity = keys.identity(index);
            writeln!(sections, "[[appliance]]\nparty_id = \"{name}\"\nurl = \"https://{address}\"\n").unwrap();
            writeln!(sections, "server_name = \"{name}\"\nidentity = \"{identity}\"").unwrap();
            if setup.attested.contains(&index) {
                write(&format!("{name}.toml"), &attester::reference(index));
                writeln!(sections, "reference = \"{name}.toml\"").unwrap();
            }
            appliance.address = Some(address);
            if setup.down.contains(&index) {
                drop(listener);
            } else {
                appliance.serve(listener);
            }
            appliances.push(appliance);
        }
        let config = format!(
            "data_dir = \"data\"\n[listen]\naddress = \"127.0.0.1:0\"\n[token]\nissuer = \"lab\"\nalgorithm = \"ES256\"\n\
             key = \"token.key\"\n[appliance_tls]\nca = \"ca.pem\"\ncertificate = \"coordinator.pem\"\n\
             key = \"coordinator.key\"\n[limits]\n{}\n{sections}",
            setup.limits
        );
        write("coordinator.toml", &config);
        Self { folder, appliances, keys }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("coordinator.toml")
    }

    /// Makes an API key with the real program.
    pub fn api_key(&self, name: &str) -> String {
        let output = Command::new(PROGRAM)
            .args(["api-key", "create", "--name", name, "--config"])
            .arg(self.config())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub async fn start(&self) -> Running {
        let config = Config::load(&self.config()).unwrap();
        let server = Server::bind(config).await.unwrap();
        let address: SocketAddr = server.address();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            server.run(async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        let key = self.api_key(&format!("test-{}", uuid::Uuid::new_v4()));
        Running { caller: Caller { address, key }, stop: Some(stop), task }
    }
}

impl Running {
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }

    /// Makes a 2-of-3 key and returns the finished session.
    pub async fn key(&self) -> Value {
        let answer = self.caller.waiting("/api/v1/mpc/keygen", &keygen_body(2, 3)).await;
        assert_eq!(answer.body["status"], "completed", "{}", answer.body);
        answer.body
    }

    pub async fn sign(&self, account: &Value, hash: &str, parties: &[u16]) -> Answer {
        self.caller.waiting("/api/v1/mpc/sign", &sign_body(account, hash, parties)).await
    }
}

pub fn keygen_body(t: u16, n: u16) -> Value {
    let participant = |index| json!({"party_id": keys::party(index), "device_type": "server"});
    json!({
        "threshold_n": n, "threshold_t": t, "label": "treasury", "username": "acme",
        "participants": (0..n).map(participant).collect::<Vec<_>>(),
    })
}

pub fn sign_body(account: &Value, hash: &str, parties: &[u16]) -> Value {
    let participants: Vec<_> = parties.iter().map(|index| json!({"party_id": keys::party(*index)})).collect();
    json!({"account_id": account, "message_hash": hash, "participants": participants})
}

fn new_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, PEM.
fn leaf(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (certificate.pem(), key.serialize_pem())
}
