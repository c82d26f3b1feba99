//! The Debian packages, packed of programs that stand in for the real ones: what is in them, and that it is always the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Writes what the examples write, so that neither they nor the programs have to be built.
const MANUAL: &str = "#!/bin/sh
set -e
for name in casemated casemate casemate-coordinator; do
    for file in $name.bash $name.fish _$name; do echo $name >\"$1/$file\"; done
done
echo page >\"$1/casemated.8\"
for page in casemate casemate-hsm-init casemate-coordinator casemate-coordinator-api-key; do echo page >\"$1/$page.1\"; done
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Stand-ins for the programs: any program that is linked with libc.
fn programs(folder: &Path) {
    fs::create_dir_all(folder.join("examples")).unwrap();
    for name in ["casemated", "casemate", "casemate-coordinator"] {
        fs::copy("/bin/true", folder.join(name)).unwrap();
    }
    for name in ["manual", "coordinator-manual"] {
        let path = folder.join("examples").join(name);
        fs::write(&path, MANUAL).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
}

fn pack(folder: &Path) -> PathBuf {
    let (programs_at, out) = (folder.join("programs"), folder.join("debs"));
    programs(&programs_at);
    let mut build = Command::new(root().join("packaging/deb/build"));
    build.arg("--programs").arg(&programs_at).arg("--out").arg(&out).args(["--version", "9.8.7"]);
    let done = build.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

fn dpkg_deb(argument: &str, package: &Path) -> String {
    let done = Command::new("dpkg-deb").arg(argument).arg(package).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn packages_belong_to_root_hold_what_they_should_and_are_the_same_each_time() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [pack(folders[0].path()), pack(folders[1].path())];
    for (name, wanted) in [
        (
            "casemate-appliance",
            &["/usr/sbin/casemated", "/system/casemated.socket", "/units/no-network.conf", "/casemated.8.gz"][..],
        ),
        ("casemate-coordinator", &["/usr/sbin/casemate-coordinator", "/casemate-coordinator-api-key.1.gz"]),
        (
            "casemate-policy-tools",
            &["/usr/bin/casemate", "/casemate-hsm-init.1.gz", "/sbom.cdx.json", "/THIRD-PARTY.gz"],
        ),
    ] {
        let file = format!("{name}_9.8.7_amd64.deb");
        let package = first.join(&file);
        assert!(fs::read(&package).unwrap() == fs::read(second.join(&file)).unwrap(), "{file} differs");
        let listing = dpkg_deb("--contents", &package);
        for path in wanted {
            assert!(listing.lines().any(|line| line.ends_with(path)), "{path} should be in {listing}");
        }
        for line in listing.lines() {
            assert!(line.contains(" root/root ") && line.contains("2023-11-14"), "{line}");
            assert!(!line[..10].contains(['s', 't']) && line[8..9] != *"w", "{line}");
            assert!(!line.contains("/etc/") && !line.contains(".wants"), "it enables something: {line}");
        }
        assert!(dpkg_deb("--field", &package).contains("Depends: libc6 (>= 2."), "{name}");
    }
    let tools = dpkg_deb("--contents", &first.join("casemate-policy-tools_9.8.7_amd64.deb"));
    assert!(!tools.contains("coordinator"), "{tools}");
}

#[test]
fn the_bill_of_materials_names_gmp_and_its_terms_and_nothing_of_the_tests() {
    let folder = tempfile::tempdir().unwrap();
    let metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let at = |name: &str| folder.path().join(name);
    fs::write(at("metadata.json"), metadata.stdout).unwrap();
    let mut bill = Command::new("python3");
    bill.arg(root().join("packaging/deb/bill")).arg(at("metadata.json"));
    bill.args(["--crate", "casemate-appliance", "--version", "9.8.7", "--sbom"]).arg(at("sbom"));
    bill.arg("--copyright").arg(at("copyright")).arg("--licences").arg(at("licences"));
    let done = bill.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let sbom: Value = serde_json::from_slice(&fs::read(at("sbom")).unwrap()).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let named = |name: &str| sbom["components"].as_array().unwrap().iter().find(|part| part["name"] == name);
    for test_only in ["proptest", "tempfile", "clap_mangen", "ct-merkle"] {
        assert!(named(test_only).is_none(), "{test_only} is in no program");
    }
    let gmp = named("gmp").unwrap();
    assert_eq!(
        (&gmp["licenses"][0]["license"]["id"], &gmp["scope"]),
        (&"LGPL-3.0-or-later".into(), &"required".into())
    );
    assert!(gmp["version"].as_str().unwrap().starts_with("6."), "{gmp}");
    assert!(named("sqlite").unwrap()["version"].as_str().unwrap().starts_with("3."));
    assert_eq!(named("rustls").unwrap()["hashes"][0]["content"].as_str().unwrap().len(), 64);
    assert_eq!(named("cc").unwrap()["scope"], "excluded", "it builds, and is not linked");

    let copyright = fs::read_to_string(at("copyright")).unwrap();
    for part in ["rug ", "gmp-mpfr-sys ", "GMP 6.", "/usr/share/common-licenses/LGPL-3"] {
        assert!(copyright.contains(part), "{part:?} should stand in: {copyright}");
    }
    let texts = fs::read_to_string(at("licences")).unwrap();
    assert!(
        texts.contains("GNU LESSER GENERAL PUBLIC LICENSE") && texts.contains("rustls "),
        "licence texts are missing"
    );
}
