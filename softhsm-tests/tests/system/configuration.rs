//! Configurations that a daemon must not start with: `--check-config` names what is wrong with each.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::template::Kind;

/// Runs `casemated --check-config` on a text that stands beside the party's own configuration.
fn check(lab: &TestLab, text: &str) -> Result<(), String> {
    let path = lab.parties[0].folder.join("checked.toml");
    fs::write(&path, text).unwrap();
    let done = lab.program(0, "casemated", &["--config", path.to_str().unwrap(), "--check-config"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    match done.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(said),
        other => panic!("it ended with {other:?}: {said}"),
    }
}

#[tokio::test]
async fn a_configuration_with_a_mistake_is_refused_by_the_mistakes_name() {
    let lab = TestLab::new(Kind::Empty).await;
    let party = &lab.parties[0];
    let good = fs::read_to_string(&party.config).unwrap();
    check(&lab, &good).unwrap();
    let replaced = |old: &str, new: &str| {
        assert!(good.contains(old), "{old:?} is not in\n{good}");
        good.replacen(old, new, 1)
    };
    let with = |section: &str| format!("{good}\n{section}\n");
    let other = &lab.parties[1];
    let own_audit = party.audit.to_string();
    let peer = |name: &str, identity: &str| {
        format!("[[peer]]\nparty_id = \"{name}\"\nidentity = \"{identity}\"\naudit = \"{own_audit}\"")
    };
    let identity = other.identity.to_string();
    let audit = format!("audit = \"{}\"", other.audit);
    let third = lab.parties[2].audit.to_string();
    let key = "[[coordinator_key]]\nissuer = \"lab-coordinator\"\nalgorithm = \"ES256\"\npublic_key = \"../coordinator/token.pub.pem\"";
    let ca = "ca = \"../ca/ca.pem\"";
    let cases = [
        ("an unknown key", replaced("[party]", "[party]\ncolour = \"red\""), "colour"),
        ("an unknown section", with("[colour]\nred = 1"), "colour"),
        (
            "an unknown key of a client",
            with("[[client]]\nname = \"x\"\nsan = \"x\"\nroles = [\"monitor\"]\nage = 3"),
            "age",
        ),
        ("an unknown role", with("[[client]]\nname = \"x\"\nsan = \"x\"\nroles = [\"king\"]"), "king"),
        ("a client without a role", with("[[client]]\nname = \"x\"\nsan = \"x\"\nroles = []"), "no role"),
        ("a client that nothing matches", with("[[client]]\nname = \"x\"\nroles = [\"monitor\"]"), "spki_sha256"),
        ("a client twice", with("[[client]]\nname = \"operator\"\nsan = \"x\"\nroles = [\"monitor\"]"), "operator"),
        (
            "two clients of one name",
            with("[[client]]\nname = \"x\"\nsan = \"operator.lab\"\nroles = [\"monitor\"]"),
            "operator",
        ),
        ("a missing key", replaced("address = ", "# address = "), "address"),
        ("no TOML", "party = [".into(), "checked.toml"),
        ("a bad address", replaced("127.0.0.1:", "localhost:"), "address"),
        ("a missing CA", replaced(ca, "ca = \"nowhere.pem\""), "nowhere.pem"),
        ("a CA that is none", replaced(ca, "ca = \"pin\""), "the client CA"),
        ("another server's key", replaced("key = \"tls/server.key\"", "key = \"../party-2/tls/server.key\""), "TLS"),
        ("a missing module", replaced("module = \"", "module = \"/nowhere"), "hsm.module"),
        ("a missing PIN", replaced("pin_file = \"pin\"", "pin_file = \"nopin\""), "nopin"),
        ("no PIN at all", replaced("pin_file = \"pin\"", ""), "pin_file"),
        (
            "two ways to the PIN",
            replaced("pin_file = \"pin\"", "pin_file = \"pin\"\npin_credential = \"pin\""),
            "pin_file",
        ),
        ("two tokens", replaced("[hsm]", "[hsm]\nserial = \"1\""), "token_label"),
        ("this party as its own peer", with(&peer("party-1", &identity)), "party-1"),
        ("a peer twice", with(&peer("party-2", &party.identity.to_string())), "party-2"),
        ("two peers with one identity", with(&peer("party-9", &identity)), "same identity"),
        ("a peer's identity that is no key", with(&peer("party-9", "00ff")), "identity"),
        ("an audit key that is no key", replaced(&audit, "audit = \"00ff\""), "audit key"),
        ("an identity key as audit key", replaced(&audit, &format!("audit = \"{identity}\"")), "an identity key"),
        ("two peers with one audit key", replaced(&third, &other.audit.to_string()), "same audit key"),
        ("a peer without an audit key", replaced(&audit, ""), "audit"),
        ("a peer without a good name", with(&peer("../x", &identity)), "party"),
        ("two coordinators of one issuer", with(key), "lab-coordinator"),
        ("an algorithm that does not fit the key", replaced("\"ES256\"", "\"EdDSA\""), "coordinator_key"),
        ("an unknown algorithm", replaced("\"ES256\"", "\"HS256\""), "HS256"),
        ("a missing token key", replaced("../coordinator/token.pub.pem", "none.pem"), "none.pem"),
        (
            "an address and a socket of systemd's",
            replaced("[listen]\n", "[listen]\nsocket = \"systemd\"\n"),
            "exactly one",
        ),
        ("too many sessions", with("[limits]\nsessions = 1000000"), "limits.sessions"),
        ("a skew of an hour", with("[limits]\nclock_skew = 3600"), "limits.clock_skew"),
        ("no primes at all", replaced("prime_pool = 1", "prime_pool = 0"), "mpc.prime_pool"),
        ("checkpoints too seldom", with("[audit]\ncheckpoint_interval = 60000"), "audit.checkpoint_interval"),
        ("a negative limit", with("[limits]\nattach = -1"), "attach"),
    ];
    for (case, text, named) in &cases {
        let said = check(&lab, text).expect_err(case);
        assert!(said.contains(named), "{case}: {named:?} should stand in: {said}");
    }
    let missing = lab.program(0, "casemated", &["--config", "/nowhere/casemate.toml", "--check-config"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/casemate.toml"));
}

#[tokio::test]
async fn a_pin_that_others_could_read_is_not_used() {
    let lab = TestLab::new(Kind::Empty).await;
    let party = &lab.parties[0];
    let good = fs::read_to_string(&party.config).unwrap();
    let pin = fs::read(&party.pin_file).unwrap();
    let secret = String::from_utf8(pin.clone()).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660, 0o700, 0o666] {
        fs::set_permissions(&party.pin_file, Permissions::from_mode(mode)).unwrap();
        let said = check(&lab, &good).expect_err("readable by others");
        assert!(said.contains("pin") && said.contains(&format!("{mode:o}")), "{mode:o}: {said}");
        assert!(!said.contains(secret.trim()), "{said}");
    }
    fs::set_permissions(&party.pin_file, Permissions::from_mode(0o600)).unwrap();
    check(&lab, &good).unwrap();

    let elsewhere = party.folder.join("elsewhere");
    fs::rename(&party.pin_file, &elsewhere).unwrap();
    symlink(&elsewhere, &party.pin_file).unwrap();
    check(&lab, &good).expect_err("a link");
    fs::remove_file(&party.pin_file).unwrap();
    for (case, text) in
        [("two lines", "1234\n5678\n"), ("nothing", ""), ("an empty line", "\n"), ("no text", "\u{1}\u{2}34")]
    {
        fs::write(&party.pin_file, text).unwrap();
        fs::set_permissions(&party.pin_file, Permissions::from_mode(0o600)).unwrap();
        check(&lab, &good).expect_err(case);
    }
}
