//! A daemon that is started as systemd starts it: with a notification socket and, if wanted, an inherited listening socket.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::TestLab;
use crate::programs;

/// The longest wait for what must come; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// `casemated` of one party under a systemd that the test plays. It is killed when this is dropped.
pub struct Service {
    child: Child,
    socket: UnixDatagram,
    log: PathBuf,
    /// Everything that was heard so far.
    pub heard: Vec<String>,
}

/// How the daemon is started.
#[derive(Default)]
pub struct Unit<'a> {
    /// `WatchdogSec=`.
    pub watchdog: Option<Duration>,
    /// What stands at descriptor 3.
    pub inherited: Option<Stdio>,
    /// Where `faulty_module.c` looks for its faults.
    pub faults: Option<&'a Path>,
}

impl Service {
    /// Starts a party's daemon.
    pub fn start(lab: &TestLab, index: usize, unit: Unit<'_>) -> Self {
        let party = &lab.parties[index];
        let path = party.folder.join("notify");
        drop(fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let log = party.folder.join("service.log");
        let output = File::create(&log).unwrap();
        // The shell puts the socket where systemd puts it, and knows its own process id, which the daemon then has.
        let mut command = Command::new("/bin/sh");
        let hand_over = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" --config \"$1\"";
        let plainly = "exec </dev/null; exec \"$0\" --config \"$1\"";
        command.arg("-c").arg(if unit.inherited.is_some() { hand_over } else { plainly });
        command.arg(programs::folder().join("casemated")).arg(&party.config);
        command.env("SOFTHSM2_CONF", &party.softhsm_conf).env("NOTIFY_SOCKET", &path).process_group(0);
        if unit.inherited.is_some() {
            command.env("LISTEN_FDS", "1");
        }
        if let Some(watchdog) = unit.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        if let Some(faults) = unit.faults {
            command.env("CASEMATE_FAULTS", faults);
        }
        command.stdin(unit.inherited.unwrap_or_else(Stdio::null));
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Self { child: command.spawn().unwrap(), socket, log, heard: Vec::new() }
    }

    /// Listens for this long.
    pub fn listen(&mut self, time: Duration) -> &[String] {
        let (before, until) = (self.heard.len(), Instant::now() + time);
        while Instant::now() < until {
            self.hear();
        }
        &self.heard[before..]
    }

    /// Waits for a message that holds all these parts; it may not have been heard before.
    pub fn wait_for(&mut self, parts: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            if let Some(message) = self.hear()
                && parts.iter().all(|part| message.contains(part))
            {
                return message;
            }
            assert!(begun.elapsed() < PATIENCE, "{parts:?} never came, but {:?}\n{}", self.heard, self.log());
        }
    }

    fn hear(&mut self) -> Option<String> {
        let mut buffer = [0; 4096];
        let size = self.socket.recv(&mut buffer).ok()?;
        let message = String::from_utf8(buffer[..size].to_vec()).unwrap();
        self.heard.push(message.clone());
        Some(message)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            self.hear();
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A listening socket as systemd would make it, on the party's address; the configuration asks for systemd's.
pub fn listening(lab: &TestLab, index: usize) -> Stdio {
    let address = lab.parties[index].address;
    lab.configure(index, |text| text.replace(&format!("address = \"{address}\""), "socket = \"systemd\""));
    std::os::fd::OwnedFd::from(TcpListener::bind(address).unwrap()).into()
}

/// Puts the module with faults in the place of SoftHSM; the folder in which they are switched on.
pub fn faulty_module(lab: &TestLab, index: usize) -> PathBuf {
    const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
    let folder = &lab.parties[index].folder;
    let (module, faults) = (folder.join("faulty.so"), folder.join("faults"));
    fs::create_dir(&faults).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hsm/tests/support/faulty_module.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-O1", "-o"]).arg(&module);
    compiler.arg(format!("-DREAL_MODULE=\"{SOFTHSM}\"")).arg(source).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    lab.configure(index, |text| {
        let lines = text.lines().map(|line| match line.strip_prefix("module = ") {
            Some(_) => format!("module = \"{}\"\ntimeout = 1\n", module.display()),
            None => format!("{line}\n"),
        });
        // The sandbox knows SoftHSM by its file name alone, and so not that this one has its tokens in files.
        lines.chain([format!("\n[sandbox]\npaths = [\"{}\"]\n", folder.join("tokens").display())]).collect()
    });
    faults
}
