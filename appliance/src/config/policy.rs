//! The sections `[policy]` and `[approvals]`: where the policy lies, and whose signatures count.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use casemate_policy::signers::MAX_ALLOWED_SIGNERS;
use casemate_policy::{AllowedSigners, Quorum, TrustAnchors};
use serde::Deserialize;

/// Where the policy bundle lies, and who may sign it.
#[derive(Debug)]
pub struct Policy {
    /// The bundle's folder.
    pub dir: PathBuf,
    /// Whose signatures it needs.
    pub anchors: TrustAnchors,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicySection {
    dir: PathBuf,
    allowed_signers: PathBuf,
    quorum: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalsSection {
    allowed_approvers: Option<PathBuf>,
}

impl PolicySection {
    /// Reads the signers' file; an error names the key and what is wrong.
    pub(super) fn check(self, folder: &Path) -> Result<Policy, (&'static str, String)> {
        let signers = read(&folder.join(self.allowed_signers)).map_err(|why| ("policy.allowed_signers", why))?;
        let quorum: Quorum = self.quorum.parse().map_err(|error| ("policy.quorum", format!("{error}")))?;
        let anchors = TrustAnchors::new(signers, quorum).map_err(|error| ("policy.quorum", error.to_string()))?;
        Ok(Policy { dir: folder.join(self.dir), anchors })
    }
}

impl ApprovalsSection {
    /// Who may approve; nobody without a file.
    pub(super) fn check(self, folder: &Path) -> Result<AllowedSigners, (&'static str, String)> {
        match self.allowed_approvers {
            None => Ok(AllowedSigners::default()),
            Some(path) => read(&folder.join(path)).map_err(|why| ("approvals.allowed_approvers", why)),
        }
    }
}

fn read(path: &Path) -> Result<AllowedSigners, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    // One byte more than may be shows that a file is too long, even one that grows or does not say its length.
    let bound = u64::try_from(MAX_ALLOWED_SIGNERS).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() > MAX_ALLOWED_SIGNERS {
        return Err(format!("{} has more than {MAX_ALLOWED_SIGNERS} bytes", path.display()));
    }
    let text = String::from_utf8(bytes).map_err(|error| format!("{} is not text: {error}", path.display()))?;
    AllowedSigners::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}
