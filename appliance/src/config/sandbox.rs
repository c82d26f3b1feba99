//! The section `[sandbox]`: how strictly the daemon closes itself in, and what its HSM module needs beyond the usual.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The daemon's own sandbox.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// How strictly it is applied.
    pub mode: SandboxMode,
    /// Folders that the HSM module reads and writes, beyond those of SoftHSM.
    pub paths: Vec<PathBuf>,
    /// TCP ports that the HSM module or the TPM is reached on. Without one, no TCP connection can be made.
    pub connect_ports: Vec<u16>,
    /// Whether the HSM module may connect to local (Unix) sockets.
    pub local_sockets: bool,
}

/// How strictly the sandbox is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// All of it, or the daemon does not start.
    #[default]
    Enforce,
    /// What the kernel has; health says what is missing.
    BestEffort,
    /// Nothing is kept from happening: the kernel logs the calls that would be refused, files are not looked at.
    Log,
}

impl Sandbox {
    /// Relative paths are taken from `folder`; an error names the key and what is wrong.
    pub(super) fn check(mut self, folder: &Path) -> Result<Self, (&'static str, String)> {
        for path in &mut self.paths {
            *path = folder.join(&*path);
            if !path.exists() {
                return Err(("sandbox.paths", format!("there is no {}", path.display())));
            }
        }
        if self.connect_ports.contains(&0) {
            return Err(("sandbox.connect_ports", "0 is no port that can be connected to".into()));
        }
        Ok(self)
    }
}
