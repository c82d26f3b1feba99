//! Signatures by the real `ssh-keygen`, so that agents, passphrases and FIDO keys work as their owners know them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use casemate_policy::signers::{Namespace, fingerprint_of_signer};

/// A signature that was just made.
pub(super) struct Signature {
    /// `-----BEGIN SSH SIGNATURE-----` and so on.
    pub(super) armored: String,
    /// `SHA256:…` of the key.
    pub(super) fingerprint: String,
}

/// Has `ssh-keygen -Y sign` sign `message`, and checks what it made. `key` is a private key, or the `.pub` file of one that an
/// agent holds. Passphrases and PINs are asked for on the terminal by ssh-keygen itself.
///
/// # Errors
/// Says that ssh-keygen is missing or failed, or that its signature would not count.
pub(super) fn sign(key: &Path, namespace: Namespace, message: &[u8]) -> Result<Signature, String> {
    if !key.is_file() {
        return Err(format!(
            "there is no key {}; give the private key, or the .pub file of one in an agent",
            key.display()
        ));
    }
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace.as_str(), "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("could not start ssh-keygen: {error}; install OpenSSH 8.2 or later"))?;
    // A pipe that ssh-keygen closes early shows in its exit code.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(message));
    let ended = child.wait_with_output().map_err(|error| format!("could not wait for ssh-keygen: {error}"))?;
    if !ended.status.success() {
        return Err(format!("ssh-keygen could not sign with {}; it says above why", key.display()));
    }
    written.map_err(|error| format!("could not give ssh-keygen what to sign: {error}"))?;
    let fingerprint = fingerprint_of_signer(&ended.stdout, message, namespace)
        .map_err(|why| format!("the signature by {} would not count: {why}", key.display()))?;
    let armored = String::from_utf8(ended.stdout).map_err(|_| "ssh-keygen wrote something that is not text")?;
    Ok(Signature { armored, fingerprint })
}
