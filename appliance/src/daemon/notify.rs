//! systemd's notification protocol, sd_notify(3): datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names.
//!
//! The socket is connected at the start, before the daemon forbids itself to connect anywhere. Where there is no such socket,
//! everything here does nothing.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The longest wait for systemd to take a message.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest status, in characters; `systemctl status` shows one line.
const STATUS: usize = 400;

/// Where systemd hears from this process.
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    told: Mutex<Told>,
}

/// What was said already.
#[derive(Default)]
struct Told {
    stage: Stage,
    status: String,
}

/// How far the daemon has come, as systemd knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not said that it is ready.
    #[default]
    Starting,
    /// It has.
    Ready,
    /// It is on its way out.
    Stopping,
}

impl Notifier {
    /// Of this process's environment.
    ///
    /// # Errors
    /// There is a socket's name, and nobody takes messages there.
    pub(super) fn from_env() -> io::Result<Self> {
        let watchdog = watchdog(env::var("WATCHDOG_USEC"), env::var("WATCHDOG_PID"), std::process::id());
        Self::to(env::var_os("NOTIFY_SOCKET"), watchdog)
    }

    /// `name` is a path, or `@` and an abstract name.
    fn to(name: Option<OsString>, watchdog: Option<Duration>) -> io::Result<Self> {
        let connect = |name: OsString| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
                None => SocketAddr::from_pathname(&name)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok::<_, io::Error>(socket)
        };
        let socket = name.filter(|name| !name.is_empty()).map(connect).transpose()?;
        Ok(Self { socket, watchdog, told: Mutex::default() })
    }

    /// Within which time systemd wants to hear that the daemon works, if it does.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// How far the daemon has come.
    pub(super) fn stage(&self) -> Stage {
        self.told().stage
    }

    /// The daemon can do what it is there for. Said once; `status` is for people.
    pub(super) fn ready(&self, status: &str) {
        let mut told = self.told();
        if told.stage == Stage::Starting {
            told.stage = Stage::Ready;
            told.status = one_line(status);
            self.send(&format!("READY=1\nSTATUS={}", told.status));
        }
    }

    /// What `systemctl status` shows; said again only if it has changed.
    pub(super) fn status(&self, status: &str) {
        let mut told = self.told();
        let line = one_line(status);
        if told.stage != Stage::Stopping && told.status != line {
            self.send(&format!("STATUS={line}"));
            told.status = line;
        }
    }

    /// The daemon works. A start that is not over may then take until `longer` from now.
    pub(super) fn alive(&self, longer: Duration) {
        match self.told().stage {
            Stage::Starting => self.send(&format!("WATCHDOG=1\nEXTEND_TIMEOUT_USEC={}", longer.as_micros())),
            Stage::Ready | Stage::Stopping => self.send("WATCHDOG=1"),
        }
    }

    /// The policy is being read anew. Before readiness there is nothing to say: the start goes on.
    pub(super) fn reloading(&self) {
        if self.told().stage == Stage::Ready {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec / 1000);
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    /// The reading is over, whichever policy applies now.
    pub(super) fn reloaded(&self) {
        if self.told().stage == Stage::Ready {
            self.send("READY=1");
        }
    }

    /// The daemon is on its way out. Said once.
    pub(super) fn stopping(&self, status: &str) {
        let mut told = self.told();
        if told.stage != Stage::Stopping {
            told.stage = Stage::Stopping;
            self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lost message shows in systemd's own limits: it acts as if the daemon had said nothing.
    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(event = "systemd_not_told", %error, "systemd does not take a message");
        }
    }
}

/// Errors quote what others wrote, such as file names: no text may look like a further line of the protocol.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS).collect()
}

/// The time of sd_watchdog_enabled(3), unless it is meant for another process.
fn watchdog(micros: Result<String, VarError>, pid: Result<String, VarError>, own: u32) -> Option<Duration> {
    let micros: u64 = micros.ok()?.parse().ok().filter(|micros| *micros > 0)?;
    match pid {
        Ok(pid) if pid.parse() != Ok(own) => None,
        _ => Some(Duration::from_micros(micros)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let size = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer.get(..size).unwrap().to_vec()).unwrap())
    }

    fn pair() -> (Notifier, UnixDatagram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Notifier::to(Some(path.into()), None).unwrap(), socket, folder)
    }

    #[test]
    fn readiness_is_said_once_and_nothing_but_the_end_follows_a_stop() {
        let (notifier, socket, _folder) = pair();
        notifier.reloading();
        notifier.alive(Duration::from_secs(2));
        assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=2000000", "no reload while it starts");
        notifier.ready("fine");
        notifier.ready("fine");
        notifier.status("fine");
        assert_eq!(heard(&socket).unwrap(), "READY=1\nSTATUS=fine");
        assert_eq!(heard(&socket), None);
        notifier.alive(Duration::from_secs(2));
        assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1");
        notifier.stopping("bye");
        notifier.stopping("bye");
        notifier.status("late");
        notifier.ready("late");
        notifier.reloaded();
        assert_eq!(heard(&socket).unwrap(), "STOPPING=1\nSTATUS=bye");
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn a_reload_begins_at_a_moment_and_ends() {
        let (notifier, socket, _folder) = pair();
        notifier.ready("fine");
        assert!(heard(&socket).is_some());
        notifier.reloading();
        let said = heard(&socket).unwrap();
        let micros: u64 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(micros > 0);
        notifier.reloaded();
        assert_eq!(heard(&socket).unwrap(), "READY=1");
    }

    #[test]
    fn no_text_becomes_a_line_of_the_protocol() {
        let (notifier, socket, _folder) = pair();
        notifier.status("policy: cannot read x\nREADY=1\nFDSTORE=1");
        assert_eq!(heard(&socket).unwrap(), "STATUS=policy: cannot read x READY=1 FDSTORE=1");
        notifier.status(&"x".repeat(10_000));
        assert_eq!(heard(&socket).unwrap().len(), "STATUS=".len() + STATUS);
    }

    #[test]
    fn an_abstract_socket_is_found_and_a_missing_one_is_an_error() {
        let name = format!("casemate-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::to(Some(format!("@{name}").into()), None).unwrap();
        notifier.ready("fine");
        assert_eq!(heard(&socket).unwrap(), "READY=1\nSTATUS=fine");
        assert!(Notifier::to(Some("/nonexistent/notify".into()), None).is_err());
        Notifier::to(None, None).unwrap().ready("nobody listens");
    }

    #[test]
    fn the_watchdog_is_of_this_process_alone() {
        let text = |value: &str| Ok(value.to_owned());
        let absent = || Err(VarError::NotPresent);
        assert_eq!(watchdog(text("2500000"), absent(), 7), Some(Duration::from_millis(2500)));
        assert_eq!(watchdog(text("2500000"), text("7"), 7), Some(Duration::from_millis(2500)));
        assert_eq!(watchdog(text("2500000"), text("8"), 7), None);
        for bad in ["0", "", "-1", "soon"] {
            assert_eq!(watchdog(text(bad), absent(), 7), None, "{bad}");
        }
        assert_eq!(watchdog(absent(), absent(), 7), None);
    }
}
