//! Bundles that enough people signed: the only kind that a daemon takes.
//!
//! Each `manifest.toml.sig*` is one SSHSIG signature over the bytes of `manifest.toml`, in the namespace `casemate-policy`.
//! They are checked before anything of the bundle is parsed. Then the manifest must follow on the newest bundle that this
//! host ever loaded: a higher version, `previous` naming that very bundle. The same bundle again is always taken, so that a
//! daemon can start twice. A host that never loaded one takes any version and any `previous`: it has nothing to compare
//! with, and the quorum alone vouches.

use std::collections::BTreeSet;
use std::path::Path;

use casemate_wire::Digest32;
use jiff::Timestamp;

use super::files::Files;
use super::manifest::{Manifest, sha256};
use super::{Bundle, BundleError};
use crate::request::{Client, Request};
use crate::signers::{Namespace, Principal, Quorum, SignatureError, TrustAnchors, verify};
use crate::verdict::Verdict;

/// The newest bundle that this host ever loaded. It is kept where no restart loses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Its version.
    pub version: u64,
    /// Its digest.
    pub digest: Digest32,
}

/// Why a bundle is not trusted, whatever stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Too few people signed.
    #[error("{} of {needed} needed people have signed it{}{}", signed.len(), named(signed), listed(ignored))]
    Quorum {
        /// How many must sign.
        needed: u16,
        /// Who did.
        signed: BTreeSet<Principal>,
        /// The signatures that do not count.
        ignored: Vec<IgnoredSignature>,
    },
    /// Not above the newest version.
    #[error(
        "its version is {version}, but version {} was loaded here already: seal it again with a higher version, and sign it",
        newest.version
    )]
    Version {
        /// The manifest's.
        version: u64,
        /// What was loaded.
        newest: Newest,
    },
    /// It was made from another bundle than the newest.
    #[error(
        "it follows on {}, but the newest bundle loaded here is version {} with digest {}: make it from that one",
        previous.map_or_else(|| "no bundle".to_owned(), |digest| digest.to_string()), newest.version, newest.digest
    )]
    Previous {
        /// The manifest's `previous`.
        previous: Option<Digest32>,
        /// What was loaded.
        newest: Newest,
    },
    /// Too early.
    #[error("it comes into force at {0}: load it again then")]
    NotYetInForce(Timestamp),
}

/// A signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct IgnoredSignature {
    /// The file's name.
    pub file: String,
    /// Why not.
    pub why: SignatureError,
}

fn named(signed: &BTreeSet<Principal>) -> String {
    if signed.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = signed.iter().map(Principal::as_str).collect();
    format!(" ({})", names.join(", "))
}

fn listed(ignored: &[IgnoredSignature]) -> String {
    if ignored.is_empty() {
        return "; `casemate policy sign` adds a signature".into();
    }
    ignored.iter().fold(String::new(), |text, signature| text + "; " + &signature.to_string())
}

/// A valid bundle that enough people signed, and that follows on the newest one. Only [`Bundle::load_signed`] makes one.
#[derive(Debug)]
pub struct SignedBundle {
    bundle: Bundle,
    signers: BTreeSet<Principal>,
    ignored: Vec<IgnoredSignature>,
}

impl SignedBundle {
    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Who signed it: at least as many as the quorum asks for.
    pub fn signers(&self) -> &BTreeSet<Principal> {
        &self.signers
    }

    /// The signatures beside it that did not count.
    pub fn ignored(&self) -> &[IgnoredSignature] {
        &self.ignored
    }

    /// What is to be kept as the newest bundle once this one is active.
    pub fn as_newest(&self) -> Newest {
        Newest { version: self.bundle.version(), digest: self.bundle.digest() }
    }

    /// Decides a request, as [`Bundle::decide`] does.
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        self.bundle.decide(request)
    }
}

impl Bundle {
    /// Reads a bundle for use: signatures first, then that it follows on `newest`, then everything that [`Bundle::load`]
    /// checks. `newest` is nothing only on a host that never loaded a bundle.
    ///
    /// # Errors
    /// [`BundleError::Trust`] if it is not signed by enough people or does not follow on the newest, otherwise as
    /// [`Bundle::load`].
    ///
    /// # Security
    /// Keys must be valid at `now`, not only when they signed, as nothing proves when that was: a key that was taken out of
    /// `allowed_signers`, or has expired, ends the bundles that need it. The caller must make [`SignedBundle::as_newest`]
    /// durable before the bundle decides anything.
    pub fn load_signed(
        dir: &Path,
        clients: &[Client],
        anchors: &TrustAnchors,
        newest: Option<Newest>,
        now: Timestamp,
    ) -> Result<SignedBundle, BundleError> {
        let files = Files::read(dir)?;
        let Some(manifest_bytes) = files.manifest() else {
            return Err(Manifest::missing());
        };
        let (signed, ignored) = look_at_signatures(&files, manifest_bytes, anchors, now);
        let needed = anchors.quorum().needed();
        if signed.len() < usize::from(needed) {
            return Err(TrustError::Quorum { needed, signed, ignored }.into());
        }
        let manifest = Manifest::parse(manifest_bytes)?;
        check_order(&manifest, sha256(manifest_bytes), newest)?;
        if manifest.not_before > now {
            return Err(TrustError::NotYetInForce(manifest.not_before).into());
        }
        let bundle = Self::assemble(&files, clients)?;
        Ok(SignedBundle { bundle, signers: signed, ignored })
    }
}

/// Who signed, and the signatures that do not count.
type Signatures = (BTreeSet<Principal>, Vec<IgnoredSignature>);

fn look_at_signatures(files: &Files, manifest: &[u8], anchors: &TrustAnchors, now: Timestamp) -> Signatures {
    let mut signed = BTreeSet::new();
    let mut ignored = Vec::new();
    for (file, armored) in files.signatures() {
        match verify(armored, manifest, Namespace::Policy, anchors.signers(), now) {
            Ok(key) => {
                signed.insert(key.principal().clone());
            }
            Err(why) => ignored.push(IgnoredSignature { file: file.to_owned(), why }),
        }
    }
    (signed, ignored)
}

fn check_order(manifest: &Manifest, digest: Digest32, newest: Option<Newest>) -> Result<(), TrustError> {
    let Some(newest) = newest.filter(|newest| newest.digest != digest) else {
        return Ok(());
    };
    if manifest.version <= newest.version {
        return Err(TrustError::Version { version: manifest.version, newest });
    }
    if manifest.previous.0 != Some(newest.digest) {
        return Err(TrustError::Previous { previous: manifest.previous.0, newest });
    }
    Ok(())
}

/// Who signed a bundle, for tools that only look: nothing is parsed, and no quorum asked for.
///
/// # Errors
/// [`BundleError`] if the folder cannot be read as a bundle or has no manifest.
pub fn signatures(dir: &Path, anchors: &TrustAnchors, now: Timestamp) -> Result<SignatureReport, BundleError> {
    let files = Files::read(dir)?;
    let manifest = files.manifest().ok_or_else(Manifest::missing)?;
    let (signers, ignored) = look_at_signatures(&files, manifest, anchors, now);
    Ok(SignatureReport { signers, ignored, quorum: anchors.quorum() })
}

/// What [`signatures`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureReport {
    /// Who signed.
    pub signers: BTreeSet<Principal>,
    /// The signatures that do not count.
    pub ignored: Vec<IgnoredSignature>,
    /// What is asked for.
    pub quorum: Quorum,
}

/// A manifest that fits the files beside it, to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToBeSigned {
    /// The bytes of `manifest.toml`, which are what is signed.
    pub manifest: Vec<u8>,
    /// Their SHA-256: the bundle's digest.
    pub digest: Digest32,
    /// The manifest's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// When it comes into force.
    pub not_before: Timestamp,
    /// The bundle that it follows on.
    pub previous: Option<Digest32>,
}

/// Reads what `casemate policy sign` signs, and checks the hashes of all files against it, so that nobody signs a manifest of
/// other files than those in front of them. Policies and tests are not judged: `casemate policy check` does that.
///
/// # Errors
/// [`BundleError`] if the folder is no sealed bundle.
pub fn to_be_signed(dir: &Path) -> Result<ToBeSigned, BundleError> {
    let files = Files::read(dir)?;
    let (manifest, digest) = Manifest::of(&files)?;
    Ok(ToBeSigned {
        manifest: files.manifest().unwrap_or_default().to_vec(),
        digest,
        name: manifest.name,
        version: manifest.version,
        not_before: manifest.not_before,
        previous: manifest.previous.0,
    })
}
