//! Starting the lab's processes, and ending those and no others.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::{LabError, file};

/// The longest wait for a process that was told to stop; the coordinator lets running sessions end first.
const STOP_LIMIT: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(20);
/// The longest wait for a new process to have its command line.
const EXEC_LIMIT: Duration = Duration::from_secs(5);

/// One daemon of the lab, as it is started.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) softhsm_conf: Option<PathBuf>,
    pub(super) log: PathBuf,
    pub(super) pid_file: PathBuf,
}

/// A process of the lab that this process has started. It is killed when this is dropped, unless it was
/// [left running](Self::leave).
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Option<Child>,
    pid: u32,
    pid_file: PathBuf,
}

impl Daemon {
    /// Starts it, in a process group of its own: Ctrl-C in the terminal is ours to handle.
    pub(super) fn start(&self) -> Result<Running, LabError> {
        if let Some(pid) = self.pid()? {
            return Err(LabError::Running { name: self.name.clone(), pid });
        }
        if !self.program.is_file() {
            return Err(LabError::NoProgram(self.program.clone()));
        }
        let log = open_log(&self.log)?;
        let errors = log.try_clone().map_err(file("write", &self.log))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).process_group(0);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        if let Some(conf) = &self.softhsm_conf {
            command.env("SOFTHSM2_CONF", conf);
        }
        let child = command.spawn().map_err(file("start", &self.program))?;
        let pid = child.id();
        let mut running = Running { name: self.name.clone(), child: Some(child), pid, pid_file: self.pid_file.clone() };
        fs::write(&self.pid_file, format!("{pid}\n")).map_err(file("write", &self.pid_file))?;
        // For a moment after exec the kernel shows an empty command line, by which nobody could tell whose process it is.
        let deadline = Instant::now() + EXEC_LIMIT;
        while !self.is_process(pid) && running.exit_status().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(running)
    }

    /// Its process id, if the process that the pid file names still is this daemon.
    pub(super) fn pid(&self) -> Result<Option<u32>, LabError> {
        let text = match fs::read_to_string(&self.pid_file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", &self.pid_file)(error)),
        };
        Ok(text.trim().parse().ok().filter(|pid| self.is_process(*pid)))
    }

    /// Tells it to stop, whoever started it. Returns whether it ran.
    pub(super) fn tell_to_stop(&self) -> Result<Option<u32>, LabError> {
        let Some(pid) = self.pid()? else {
            return Ok(None);
        };
        let failed = |error: rustix::io::Errno| LabError::Stop { name: self.name.clone(), pid, why: error.to_string() };
        let handle = match open(pid) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // The handle stays with the process that it was opened for, even if the id is used again.
        if !self.is_process(pid) {
            return Ok(None);
        }
        match pidfd_send_signal(&handle, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(Some(pid)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Waits for the end of a process that was told to stop.
    pub(super) fn wait_stopped(&self, pid: u32) -> Result<(), LabError> {
        let deadline = Instant::now() + STOP_LIMIT;
        while self.is_process(pid) {
            if Instant::now() > deadline {
                let why = format!("it was told to {} s ago; see {}", STOP_LIMIT.as_secs(), self.log.display());
                return Err(LabError::Stop { name: self.name.clone(), pid, why });
            }
            thread::sleep(POLL);
        }
        remove(&self.pid_file);
        Ok(())
    }

    /// Whether a process was started as this daemon, with this configuration. One that has ended is not.
    fn is_process(&self, pid: u32) -> bool {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        let words: Vec<&OsStr> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
        words.contains(&self.program.as_os_str()) && words.contains(&self.config.as_os_str())
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(8);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Running {
    /// Which process it is: a party's name, or `coordinator`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Kills it at once (SIGKILL), as a crash would.
    pub fn kill(mut self) {
        self.kill_now();
    }

    /// Leaves it running after this process has ended.
    pub fn leave(mut self) {
        self.child = None;
    }

    /// Tells it to stop (SIGTERM), and waits for its end.
    ///
    /// # Errors
    /// It does not stop in time; it is then killed.
    pub fn stop(self) -> Result<ExitStatus, LabError> {
        self.tell_to_stop()?;
        self.wait()
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> LabError {
        LabError::Stop { name: self.name.clone(), pid: self.pid, why: why.to_string() }
    }

    fn tell_to_stop(&self) -> Result<(), LabError> {
        // Not waited for yet, so the id is still this child's.
        match open(self.pid).and_then(|handle| pidfd_send_signal(handle, Signal::TERM)) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn wait(mut self) -> Result<ExitStatus, LabError> {
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            let state = match &mut self.child {
                Some(child) => child.try_wait(),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            match state {
                Ok(Some(status)) => {
                    self.child = None;
                    remove(&self.pid_file);
                    return Ok(status);
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => return Err(self.failed(&"it did not stop in time and was killed")),
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn kill_now(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; what counts is that it is gone.
            drop(child.kill());
            drop(child.wait());
            remove(&self.pid_file);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// Stops several at once, and waits for all.
///
/// # Errors
/// The first that did not stop; it was killed, and the others were stopped all the same.
pub fn stop_all(running: Vec<Running>) -> Result<(), LabError> {
    let told: Vec<Result<(), LabError>> = running.iter().map(Running::tell_to_stop).collect();
    let ended: Vec<Result<ExitStatus, LabError>> = running.into_iter().map(Running::wait).collect();
    told.into_iter().collect::<Result<(), _>>()?;
    ended.into_iter().try_for_each(|result| result.map(|_| ()))
}

/// Runs one of our programs to its end, and returns what it printed.
pub(super) fn run<S: AsRef<OsStr>>(
    program: &Path,
    arguments: &[S],
    softhsm_conf: Option<&Path>,
) -> Result<String, LabError> {
    if !program.is_file() {
        return Err(LabError::NoProgram(program.to_owned()));
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(conf) = softhsm_conf {
        command.env("SOFTHSM2_CONF", conf);
    }
    let Output { status, stdout, stderr } = command.output().map_err(file("start", program))?;
    if !status.success() {
        let words = arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned());
        let command = std::iter::once(program.display().to_string()).chain(words).collect::<Vec<_>>().join(" ");
        let output = String::from_utf8_lossy(&[stderr, stdout].concat()).trim().to_owned();
        return Err(LabError::Program { command, status: status.to_string(), output });
    }
    Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
}

fn open(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

fn open_log(path: &Path) -> Result<File, LabError> {
    OpenOptions::new().create(true).append(true).open(path).map_err(file("write", path))
}

/// A pid file that stays behind names a process that is not ours any more, which is checked wherever it is read.
fn remove(pid_file: &Path) {
    drop(fs::remove_file(pid_file));
}

#[cfg(test)]
mod tests;
