//! People and their SSH keys: who may sign a policy bundle, and who may approve a request.
//!
//! | module | what it holds |
//! |---|---|
//! | `allowed` | OpenSSH's `allowed_signers` files: [`AllowedSigners`], the people in them: [`Principal`] |
//! | `sshsig` | one SSHSIG signature, checked: [`verify`] |
//! | `quorum` | `2 of 3`: [`Quorum`], and [`TrustAnchors`], without which no bundle loads in the daemon |
//! | `recovery` | the quorum's signatures by which an appliance goes on in a new audit log: [`Endorsed`] |
//!
//! # Security
//! People are counted, not keys: several keys of one principal count once, and no key may stand under two names. A
//! signature is only good in the [`Namespace`] that it was made for, so an approval is never a signature of a bundle.

mod allowed;
mod quorum;
mod recovery;
mod sshsig;

pub use allowed::{AllowedKey, AllowedSigners, AllowedSignersError, InvalidPrincipal, MAX_ALLOWED_SIGNERS, Principal};
pub use quorum::{InvalidAnchors, InvalidQuorum, Quorum, TrustAnchors};
pub use recovery::{Endorsed, GivenSignature, NotCounted, NotEndorsed};
pub use sshsig::{MAX_SIGNATURE, SignatureError, fingerprint_of_signer, verify};

/// What a signature is for, as `ssh-keygen -Y sign -n` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// `casemate-policy`: the manifest of a policy bundle.
    Policy,
    /// `casemate-approval`: an approval statement.
    Approval,
    /// `casemate-recovery`: the statement by which an appliance goes on in a new audit log.
    Recovery,
}

impl Namespace {
    /// The name inside signatures and `allowed_signers` files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "casemate-policy",
            Self::Approval => "casemate-approval",
            Self::Recovery => "casemate-recovery",
        }
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
