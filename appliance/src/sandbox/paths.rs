//! The files that the daemon can reach, and why.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use super::SandboxError;
use crate::config::Config;

/// A path, and what may be done with what is below it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) path: PathBuf,
    pub(super) reach: Reach,
    pub(super) need: Need,
}

/// What may be done with a file, or with what is below a folder. Nothing may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Files are read, whose names are known.
    Files,
    /// Files are read and folders listed.
    Tree,
    /// A device is read and written.
    Device,
    /// Files and folders are made, changed and removed.
    Own,
}

/// Whether the daemon starts without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// It does not.
    Always,
    /// It does.
    IfThere,
}

/// Public parts of the system that libraries read: further libraries, OpenSSL's settings, time zones, randomness, and
/// how many processors this service may use.
const SYSTEM: [(&str, Reach); 16] = [
    ("/usr/lib", Reach::Tree),
    ("/usr/lib32", Reach::Tree),
    ("/usr/lib64", Reach::Tree),
    ("/lib", Reach::Tree),
    ("/lib64", Reach::Tree),
    ("/etc/ld.so.cache", Reach::Files),
    ("/etc/ssl/openssl.cnf", Reach::Files),
    ("/etc/crypto-policies", Reach::Tree),
    ("/usr/share/zoneinfo", Reach::Tree),
    ("/etc/localtime", Reach::Files),
    ("/dev/urandom", Reach::Files),
    ("/dev/null", Reach::Device),
    ("/proc/self/cgroup", Reach::Files),
    ("/proc/self/mountinfo", Reach::Files),
    ("/sys/fs/cgroup", Reach::Tree),
    ("/sys/devices/system/cpu/online", Reach::Files),
];

/// Everything that a daemon with this configuration reaches after its start. The data folder is made if it is not there,
/// as the store would do.
pub(super) fn grants(config: &Config) -> Result<BTreeSet<Grant>, SandboxError> {
    let mut all: BTreeSet<Grant> =
        SYSTEM.map(|(path, reach)| Grant { path: path.into(), reach, need: Need::IfThere }).into();
    let mut add = |path: &Path, reach, need| all.insert(Grant { path: path.into(), reach, need });

    make_folder(&config.data_dir)?;
    add(&config.data_dir, Reach::Own, Need::Always);
    // Its digest stands in attestations.
    add(Path::new("/proc/self/exe"), Reach::Files, Need::Always);
    // Read anew while it runs, and often replaced by moving another file or folder to the same name, which is not the one
    // that a rule on it would know.
    for path in places(&config.policy.dir) {
        add(&path, Reach::Tree, Need::IfThere);
    }
    let tls = &config.tls;
    let replaced = [&tls.ca, &tls.certificate, &tls.key].into_iter().chain(&tls.crl).map(PathBuf::as_path);
    for path in replaced.chain([config.hsm.pin.path()]).flat_map(places) {
        add(&path, Reach::Files, Need::IfThere);
    }
    for path in places(&config.hsm.module) {
        add(&path, Reach::Tree, Need::IfThere);
    }
    for (path, reach) in softhsm(&config.hsm.module) {
        add(&path, reach, Need::IfThere);
    }
    for path in &config.sandbox.paths {
        add(path, Reach::Own, Need::Always);
    }
    if let Some(device) = config.attestation.tpm.as_ref().and_then(|tpm| tpm.device()) {
        add(device, Reach::Device, Need::Always);
    }
    if let Some(settings) = std::env::var_os("OPENSSL_CONF") {
        add(Path::new(&settings), Reach::Files, Need::IfThere);
    }
    Ok(all)
}

fn make_folder(path: &Path) -> Result<(), SandboxError> {
    let made = if path.exists() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o700).create(path) };
    made.map_err(|error| SandboxError::Path { path: path.into(), why: error.to_string() })
}

/// A path itself, and the folder that it is in, also where it is a link to elsewhere. A folder at the top of the file
/// system (`/`, `/etc`, `/tmp`) is everybody's, and never granted for the sake of what is in it.
fn places(path: &Path) -> Vec<PathBuf> {
    let target = fs::canonicalize(path).ok();
    let folder = path.parent().and_then(|folder| {
        // An empty parent is the current folder.
        fs::canonicalize(if folder == Path::new("") { Path::new(".") } else { folder }).ok()
    });
    let target_folder = target.as_deref().and_then(Path::parent).map(Path::to_owned);
    let own = |folder: &PathBuf| folder.components().filter(|part| matches!(part, Component::Normal(_))).count() > 1;
    [folder, target_folder].into_iter().flatten().filter(own).chain(target).collect()
}

/// SoftHSM's settings and its tokens, found as SoftHSM finds them.
fn softhsm(module: &Path) -> Vec<(PathBuf, Reach)> {
    let is_softhsm = module.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("libsofthsm"));
    if !is_softhsm {
        return Vec::new();
    }
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/softhsm2/softhsm2.conf"));
    let settings = match std::env::var_os("SOFTHSM2_CONF") {
        Some(path) => PathBuf::from(path),
        None => own.filter(|path| path.exists()).unwrap_or_else(|| "/etc/softhsm/softhsm2.conf".into()),
    };
    let tokens = fs::read_to_string(&settings).ok().and_then(|text| token_folder(&text));
    let tokens = tokens.map(|path| (path, Reach::Own));
    [(settings, Reach::Files)].into_iter().chain(tokens).collect()
}

/// `directories.tokendir` of `softhsm2.conf`.
fn token_folder(text: &str) -> Option<PathBuf> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let (_, value) =
        lines.filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "directories.tokendir")?;
    Some(value.trim().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_may_be_replaced_is_granted_with_its_folder_but_never_a_folder_at_the_top() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (tls, away) = (root.join("tls"), root.join("away"));
        fs::create_dir(&tls).unwrap();
        fs::create_dir(&away).unwrap();
        fs::write(away.join("1.pem"), "").unwrap();
        std::os::unix::fs::symlink("../away/1.pem", tls.join("server.pem")).unwrap();
        assert_eq!(places(&tls.join("server.pem")), [tls, away.clone(), away.join("1.pem")]);
        assert_eq!(places(Path::new("/etc/hostname")), [PathBuf::from("/etc/hostname")]);
        assert_eq!(places(Path::new("/dev")), [PathBuf::from("/dev")]);
    }

    #[test]
    fn softhsms_token_folder_is_read_from_its_settings() {
        let text = "# directories.tokendir = /not/this\nobjectstore.backend = file\n directories.tokendir = /var/tokens # here\n";
        assert_eq!(token_folder(text), Some("/var/tokens".into()));
        assert_eq!(token_folder("log.level = ERROR\n"), None);
        assert_eq!(softhsm(Path::new("/opt/vendor/libcrystoki.so")), []);
    }
}
