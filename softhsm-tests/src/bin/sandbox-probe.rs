//! Tries from inside the daemon's sandbox what must not be possible, and what must still be.
//!
//! `sandbox-probe tries open|closed CONFIG FORBIDDEN_FILE TCP_ADDRESS LOCAL_SOCKET` goes through the daemon's own steps with a
//! daemon's configuration, or leaves them out, and prints one JSON object: what came of each try.
//!
//! `sandbox-probe without-landlock PROGRAM ARGUMENTS…` runs a program as on a kernel that has no Landlock.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "test code")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use casemate_appliance::config::Config;
use casemate_appliance::sandbox;
use casemate_hsm::{Hsm, KeyPurpose, Secret32};
use casemate_wire::IdentityKey;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["tries", mode, config, forbidden, tcp, local] => tries(mode, config, &Targets { forbidden, tcp, local }),
        ["without-landlock", program, rest @ ..] => without_landlock(program, rest),
        other => panic!("{other:?}"),
    }
}

/// What is tried to be reached.
struct Targets<'a> {
    forbidden: &'a str,
    tcp: &'a str,
    local: &'a str,
}

fn tries(mode: &str, config: &str, targets: &Targets) {
    let config = Config::load(Path::new(config)).unwrap();
    let files = (mode == "closed").then(|| sandbox::close_files(&config).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let hsm = runtime.block_on(Hsm::open(config.hsm.clone())).unwrap();
    // It runs before the calls are limited, and tries after it.
    let (go, wait) = channel();
    let address = targets.tcp.to_owned();
    let earlier = thread::spawn(move || {
        wait.recv().unwrap();
        outcome(TcpStream::connect(address))
    });
    let closed = files.map(|files| files.close_calls(&config).unwrap());

    let mut said: BTreeMap<&str, String> = forbidden(&config, targets);
    go.send(()).unwrap();
    said.insert("connect from an earlier thread", earlier.join().unwrap());
    let address = targets.tcp.to_owned();
    let later = thread::spawn(move || outcome(TcpStream::connect(address)));
    said.insert("connect from a later thread", later.join().unwrap());
    said.extend(allowed(&config));
    said.insert("HSM", runtime.block_on(use_hsm(&hsm)));
    said.insert("sandbox", closed.map_or_else(|| "none".into(), |closed| closed.verdict().to_string()));
    println!("{}", serde_json::to_string(&said).unwrap());
    // Last, since it does not come back where it is possible.
    println!("{}", Command::new("/bin/echo").arg("replaced").exec());
}

fn outcome<T>(result: std::io::Result<T>) -> String {
    result.map_or_else(|error| format!("{:?}", error.kind()), |_| "done".into())
}

fn forbidden(config: &Config, targets: &Targets) -> BTreeMap<&'static str, String> {
    let beside = Path::new(targets.forbidden).with_extension("made");
    let write = |path: &Path| OpenOptions::new().write(true).open(path);
    BTreeMap::from([
        ("read", outcome(fs::read(targets.forbidden))),
        ("list", outcome(fs::read_dir("/etc"))),
        ("make a file", outcome(fs::write(&beside, "here"))),
        ("change the policy", outcome(write(&config.policy.dir.join("entities.json")))),
        ("change a certificate", outcome(write(&config.tls.certificate))),
        ("write its own memory", outcome(write(Path::new("/proc/self/mem")))),
        ("read its environment", outcome(fs::read("/proc/self/environ"))),
        ("connect", outcome(TcpStream::connect(targets.tcp))),
        ("local socket", outcome(UnixStream::connect(targets.local))),
        ("datagram", outcome(UdpSocket::bind("127.0.0.1:0"))),
        ("listen", outcome(TcpListener::bind("127.0.0.1:0"))),
        ("run", outcome(Command::new("/bin/true").status())),
        ("chroot", outcome(rustix::process::chroot("/").map_err(Into::into))),
    ])
}

fn allowed(config: &Config) -> BTreeMap<&'static str, String> {
    let own = config.data_dir.join("probe");
    let replaced = config.policy.dir.parent().unwrap();
    BTreeMap::from([
        ("own file", outcome(fs::write(&own, "here").and_then(|()| fs::remove_file(&own)))),
        ("policy", outcome(fs::read(config.policy.dir.join("entities.json")))),
        ("replaced policy", outcome(fs::read_dir(replaced))),
        ("certificate", outcome(fs::read(&config.tls.certificate))),
        ("PIN", outcome(fs::read(config.hsm.pin.path()))),
    ])
}

/// Signs, and wraps a key and unwraps it: what a session needs of the HSM.
async fn use_hsm(hsm: &Hsm) -> String {
    let identity = IdentityKey::from_spki(&hsm.public_key(KeyPurpose::Identity)).unwrap();
    let signature = hsm.sign(KeyPurpose::Identity, b"inside").await.unwrap();
    let signed = identity.verifies(b"inside", &signature);
    let key = Secret32::random().unwrap();
    let wrapped = hsm.wrap(b"inside", &key).await.unwrap();
    let unwrapped = hsm.unwrap(b"inside", &wrapped).await.unwrap();
    if signed && unwrapped.expose() == key.expose() { "done".into() } else { "wrong".into() }
}

fn without_landlock(program: &str, arguments: &[&str]) {
    let missing = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let machine = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(missing, SeccompAction::Allow, no_such_call, machine).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    panic!("{}", Command::new(program).args(arguments).exec());
}
