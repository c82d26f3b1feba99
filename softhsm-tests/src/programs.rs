//! The programs under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const PROGRAMS: [&str; 9] = [
    "casemated",
    "casemate",
    "casemate-coordinator",
    "seed-primes",
    "anchor-contract",
    "open-shares",
    "sandbox-probe",
    "casemated-unwiped",
    "secrets-of",
];

/// The folder of the programs, beside the test program's own folder: what cargo built in the same profile.
///
/// They are built, or brought up to date, before the first use in each process, since cargo builds no programs of other
/// packages for a test. `CASEMATE_PROGRAMS` names another folder, whose programs are taken as they are.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("CASEMATE_PROGRAMS") {
            return folder.into();
        }
        let own = std::env::current_exe().unwrap();
        let folder = own.ancestors().find(|path| path.join("deps").is_dir()).unwrap().to_owned();
        build(&folder);
        folder
    })
}

fn build(folder: &Path) {
    let target = folder.parent().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bins", "--target-dir"]).arg(target);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let done = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(done.status.success(), "the programs do not build: {}", String::from_utf8_lossy(&done.stderr));
}

/// Tells one build of the programs from another.
pub(crate) fn fingerprint() -> String {
    let mark = |name: &&str| {
        let found = fs::metadata(folder().join(name)).unwrap();
        let modified = found.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        format!("{name} {} {}", found.len(), modified.as_nanos())
    };
    let marks = PROGRAMS.iter().map(mark).collect::<Vec<_>>().join(";");
    hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(marks)[..8])
}
