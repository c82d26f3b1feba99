//! The systemd units: understood by systemd, and as closed as they are said to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd")
}

/// The shipped units in a folder of their own, with these of the shipped drop-ins for the daemon.
fn units(drop_ins: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for unit in ["casemated.service", "casemated.socket", "casemate-coordinator.service"] {
        fs::copy(shipped().join(unit), folder.path().join(unit)).unwrap();
    }
    let own = folder.path().join("casemated.service.d");
    fs::create_dir(&own).unwrap();
    for name in drop_ins {
        fs::copy(shipped().join("casemated.service.d").join(name), own.join(name)).unwrap();
    }
    folder
}

fn analyze(arguments: &[&str], folder: &Path) -> Output {
    Command::new("systemd-analyze").args(arguments).current_dir(folder).output().unwrap()
}

/// The exposure of a unit, in tenths, is at most this.
fn exposed_at_most(tenths: u32, unit: &str, drop_ins: &[&str]) {
    let folder = units(drop_ins);
    let threshold = format!("--threshold={tenths}");
    let unit = format!("./{unit}");
    let done = analyze(&["security", "--no-pager", "--offline=yes", &threshold, &unit], folder.path());
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let breaches: Vec<&str> = said.lines().filter(|line| !line.starts_with('✓')).collect();
    assert!(
        done.status.success(),
        "{unit} with {drop_ins:?}: {breaches:#?}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_daemons_unit_scores_at_most_one() {
    exposed_at_most(10, "casemated.service", &[]);
}

#[test]
fn without_a_network_it_scores_at_most_0_3() {
    exposed_at_most(3, "casemated.service", &["no-network.conf"]);
}

#[test]
fn no_drop_in_but_that_for_a_device_opens_more_than_it_says() {
    exposed_at_most(10, "casemated.service", &["softhsm.conf"]);
    exposed_at_most(3, "casemated.service", &["no-network.conf", "softhsm.conf", "plain-pin.conf"]);
    exposed_at_most(11, "casemated.service", &["hsm-network.conf"]);
    exposed_at_most(12, "casemated.service", &["hsm-device.conf"]);
}

#[test]
fn the_coordinators_unit_scores_at_most_one_and_a_half() {
    exposed_at_most(15, "casemate-coordinator.service", &[]);
}

#[test]
fn systemd_understands_every_line_of_every_unit() {
    let names: Vec<String> = fs::read_dir(shipped().join("casemated.service.d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names.iter().map(String::as_str).map(Some).chain([None]) {
        let folder = units(name.as_slice());
        // Not installed here: systemd wants programs that are there.
        for unit in ["casemated.service", "casemate-coordinator.service"] {
            let path = folder.path().join(unit);
            let text = fs::read_to_string(&path).unwrap();
            let text = text
                .replace("/usr/sbin/casemated ", "/bin/true ")
                .replace("/usr/sbin/casemate-coordinator ", "/bin/true ");
            fs::write(path, text).unwrap();
        }
        let all = ["./casemated.service", "./casemated.socket", "./casemate-coordinator.service"];
        let done = analyze(&[&["verify", "--man=no", "--recursive-errors=no"][..], &all].concat(), folder.path());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let own: Vec<&str> = said.lines().filter(|line| line.contains("casemate")).collect();
        assert!(done.status.success() && own.is_empty(), "{name:?}: {said}");
    }
}

#[test]
fn sysusers_and_tmpfiles_make_the_users_and_folders_with_their_modes() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let at = format!("--root={}", root.path().display());
    for (program, name) in [
        ("systemd-sysusers", "casemate-appliance.sysusers"),
        ("systemd-sysusers", "casemate-coordinator.sysusers"),
        ("systemd-tmpfiles", "casemate-appliance.tmpfiles"),
        ("systemd-tmpfiles", "casemate-coordinator.tmpfiles"),
    ] {
        let mut command = Command::new(program);
        if program == "systemd-tmpfiles" {
            command.arg("--create");
        }
        let done = command.arg(&at).arg(shipped().join(name)).output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    for user in ["casemate", "casemate-coordinator"] {
        let line = users.lines().find(|line| line.starts_with(&format!("{user}:"))).expect(user);
        assert!(line.ends_with("/usr/sbin/nologin"), "nobody logs in as it: {line}");
    }
    for (folder, mode) in [
        ("var/lib/casemate", 0o700),
        ("etc/casemate", 0o750),
        ("etc/casemate/tls", 0o750),
        ("etc/casemate/policy", 0o750),
        ("var/lib/casemate-coordinator", 0o700),
        ("etc/casemate-coordinator", 0o750),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let found = fs::metadata(root.path().join(folder)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{folder}: {found:o}");
    }
}
