//! Keys and signatures of the real `ssh-keygen`, FIDO keys by a provider in software.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

pub const POLICY: &str = "casemate-policy";
pub const APPROVAL: &str = "casemate-approval";

/// A private key in a folder of its own.
pub struct Key {
    dir: TempDir,
}

impl Key {
    /// For example `ed25519`, `ecdsa` (P-256), `ecdsa-384`, `ed25519-sk`, `ecdsa-sk`.
    pub fn new(kind: &str) -> Self {
        Self::with(kind, &[])
    }

    pub fn with(kind: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (kind, bits) = kind.strip_suffix("-384").map_or((kind, "256"), |kind| (kind, "384"));
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-N", "", "-C", "a comment", "-f"]).arg(dir.path().join("key"));
        if kind == "ecdsa" {
            command.args(["-b", bits]);
        }
        if kind.ends_with("-sk") {
            command.arg("-w").arg(provider());
        }
        run(command.args(options), b"");
        Self { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    /// The `.pub` file's line.
    pub fn public(&self) -> String {
        fs::read_to_string(self.path().with_extension("pub")).unwrap().trim().to_owned()
    }

    /// A line of `allowed_signers`.
    pub fn line(&self, before: &str) -> String {
        format!("{before} {}\n", self.public())
    }

    pub fn sign(&self, namespace: &str, message: &[u8]) -> String {
        self.sign_with(namespace, message, &[])
    }

    pub fn sign_with(&self, namespace: &str, message: &[u8], options: &[&str]) -> String {
        let mut command = Command::new("ssh-keygen");
        command.args(["-Y", "sign", "-n", namespace, "-f"]).arg(self.path()).args(options);
        command.env("SSH_SK_PROVIDER", provider());
        String::from_utf8(run(&mut command, message)).unwrap()
    }
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The provider of FIDO keys in software, built once for each test process.
pub fn provider() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sk_provider.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-o"]).arg(dir.path().join("provider.so")).args([source, "-l:libcrypto.so.3"]);
        run(&mut gcc, b"");
        let path = dir.path().join("provider.so");
        (dir, path)
    });
    path
}
