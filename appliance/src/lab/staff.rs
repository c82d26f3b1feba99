//! The people of a lab: who signs its policy, and who approves requests. Their keys are ordinary OpenSSH files.
//!
//! ```text
//! staff/<name>, <name>.pub      a key pair of `ssh-ed25519`, usable by ssh-keygen
//! staff/allowed_signers         who may sign policy bundles
//! staff/allowed_approvers       whose approvals policies may count
//! ```

use std::path::{Path, PathBuf};

use casemate_policy::signers::Namespace;
use rand::rngs::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};

use super::error::{LabError, file};
use super::files;

/// Who signs the policy: `name@org`.
pub const SIGNERS: [&str; 3] = ["signer-1@security", "signer-2@security", "signer-3@operations"];
/// How many of them must sign.
pub(super) const QUORUM: &str = "2 of 3";
/// Who approves requests: `name@org`.
pub const APPROVERS: [&str; 3] = ["approver-1@treasury", "approver-2@risk", "approver-3@risk"];

/// The folder of a lab's people.
#[derive(Debug, Clone)]
pub struct Staff(PathBuf);

impl Staff {
    /// Those of the lab in `root`.
    pub(super) fn of(root: &Path) -> Self {
        Self(root.join("staff"))
    }

    /// Makes everybody's key.
    pub(super) fn create(&self) -> Result<(), LabError> {
        files::folder(&self.0)?;
        let signers = self.make_keys(&SIGNERS)?;
        files::public(&self.0.join("allowed_signers"), &signers)?;
        let approvers = self.make_keys(&APPROVERS)?;
        files::public(&self.0.join("allowed_approvers"), &approvers)
    }

    /// The private key of a person, an OpenSSH file.
    pub fn key_file(&self, person: &str) -> PathBuf {
        self.0.join(person)
    }

    /// Signs a bundle's manifest as two of the signers do, in place of the signatures that are there.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn sign_bundle(&self, dir: &Path) -> Result<(), LabError> {
        let [first, second, _] = SIGNERS;
        self.sign_bundle_as(dir, &[first, second])
    }

    /// Signs a bundle's manifest as these people, in place of the signatures that are there.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn sign_bundle_as(&self, dir: &Path, people: &[&str]) -> Result<(), LabError> {
        for entry in std::fs::read_dir(dir).map_err(file("read the folder", dir))? {
            let path = entry.map_err(file("read the folder", dir))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("manifest.toml.sig")) {
                std::fs::remove_file(&path).map_err(file("remove", &path))?;
            }
        }
        let manifest = dir.join("manifest.toml");
        let bytes = std::fs::read(&manifest).map_err(file("read", &manifest))?;
        for person in people {
            let signature = self.sign(person, Namespace::Policy.as_str(), &bytes)?;
            let path = dir.join(format!("manifest.toml.sig-{}", person.replace('@', "-")));
            files::public(&path, &signature)?;
        }
        Ok(())
    }

    /// An SSHSIG signature, as `ssh-keygen -Y sign -n NAMESPACE` makes it.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn sign(&self, person: &str, namespace: &str, bytes: &[u8]) -> Result<String, LabError> {
        let path = self.key_file(person);
        let broken = |error: ssh_key::Error| LabError::Key { path: path.clone(), source: error };
        let key = PrivateKey::read_openssh_file(&path).map_err(broken)?;
        let signature = key.sign(namespace, HashAlg::Sha512, bytes).map_err(broken)?;
        signature.to_pem(LineEnding::LF).map_err(broken)
    }

    fn make_keys(&self, people: &[&str]) -> Result<String, LabError> {
        people.iter().map(|person| self.make_key(person)).collect()
    }

    /// Makes a key pair and gives its line of allowed signers.
    fn make_key(&self, person: &str) -> Result<String, LabError> {
        let path = self.key_file(person);
        let broken = |error: ssh_key::Error| LabError::Key { path: path.clone(), source: error };
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(broken)?;
        key.set_comment(person);
        files::secret(&path, &key.to_openssh(LineEnding::LF).map_err(broken)?)?;
        let public = key.public_key().to_openssh().map_err(broken)?;
        files::public(&path.with_file_name(format!("{person}.pub")), &format!("{public}\n"))?;
        Ok(format!("{person} {public}\n"))
    }
}
