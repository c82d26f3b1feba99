//! Reading the PIN (OPERATIONS.md, "The PIN"): from a file or a systemd credential, never from an argument or the
//! environment.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cryptoki::types::AuthPin;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open};
use rustix::process::geteuid;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

/// The longest PIN, in bytes.
const MAX_PIN: usize = 255;

/// Where the PIN is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinSource {
    path: PathBuf,
    kind: PinKind,
}

/// What kind of file holds the PIN, which decides the permissions it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// A systemd credential. systemd shows it with mode 0440; no bit of 0337 may be set.
    Credential,
    /// A plain file: no bit of 0177 may be set, so 0600 or 0400.
    File,
}

impl PinKind {
    fn forbidden_bits(self) -> u32 {
        match self {
            Self::Credential => 0o337,
            Self::File => 0o177,
        }
    }
}

impl PinSource {
    /// A plain file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: PinKind::File }
    }

    /// A systemd credential, by its full path below `$CREDENTIALS_DIRECTORY`.
    pub fn credential(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: PinKind::Credential }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the PIN.
    ///
    /// The file is opened without following a symbolic link; it must be a regular file, owned by root or by this
    /// process' user, closed to others, and hold exactly one printable line (a newline at its end is fine).
    ///
    /// # Errors
    /// [`PinError`], which names the file and what to do.
    pub fn read(&self) -> Result<Pin, PinError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = open(&self.path, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::LOOP => self.error(PinProblem::NotRegular),
            other => self.error(PinProblem::Unreadable(other.into())),
        })?;
        let stat = fstat(&opened).map_err(|errno| self.error(PinProblem::Unreadable(errno.into())))?;
        self.check(&stat, geteuid().as_raw())?;

        // One buffer of the full size, since a growing one would leave copies of the PIN behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PIN + 2));
        let mut limited = File::from(opened).take(MAX_PIN as u64 + 2);
        limited.read_to_end(&mut bytes).map_err(|error| self.error(PinProblem::Unreadable(error)))?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        Pin::parse(line).map_err(|problem| self.error(problem))
    }

    fn check(&self, stat: &Stat, user: u32) -> Result<(), PinError> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.error(PinProblem::NotRegular));
        }
        if stat.st_uid != 0 && stat.st_uid != user {
            return Err(self.error(PinProblem::Owner(stat.st_uid)));
        }
        let mode = stat.st_mode & 0o7777;
        if mode & self.kind.forbidden_bits() != 0 {
            return Err(self.error(PinProblem::Permissions(mode)));
        }
        Ok(())
    }

    fn error(&self, problem: PinProblem) -> PinError {
        PinError { path: self.path.clone(), kind: self.kind, problem }
    }
}

/// A PIN: wiped on drop, printed as redacted.
pub struct Pin(AuthPin);

impl Pin {
    /// Takes a PIN that was asked for at a terminal; `None` unless it is one printable line of 1 to 255 bytes.
    pub fn new(line: &str) -> Option<Self> {
        Self::parse(line.as_bytes()).ok()
    }

    pub(crate) fn expose(&self) -> &AuthPin {
        &self.0
    }

    /// Bytes of the PIN.
    pub(crate) fn len(&self) -> usize {
        self.0.expose_secret().len()
    }

    fn parse(line: &[u8]) -> Result<Self, PinProblem> {
        if line.is_empty() {
            return Err(PinProblem::Empty);
        }
        if line.len() > MAX_PIN {
            return Err(PinProblem::TooLong);
        }
        match std::str::from_utf8(line) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(Self(AuthPin::from(text))),
            _ => Err(PinProblem::NotOneLine),
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin([REDACTED])")
    }
}

/// Why the PIN could not be read. It names the file and what to do, and holds nothing of the PIN.
#[derive(Debug)]
pub struct PinError {
    path: PathBuf,
    kind: PinKind,
    problem: PinProblem,
}

#[derive(Debug)]
enum PinProblem {
    Unreadable(std::io::Error),
    NotRegular,
    Owner(u32),
    Permissions(u32),
    Empty,
    TooLong,
    NotOneLine,
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "reading the PIN from {path}: ")?;
        match &self.problem {
            PinProblem::Unreadable(error) => write!(f, "{error}; check [hsm] pin_credential and the file's owner"),
            PinProblem::NotRegular => {
                write!(f, "it is not a regular file (links are not followed); name the file itself")
            }
            PinProblem::Owner(owner) => {
                write!(f, "it belongs to user {owner}; run `chown root {path}` or give it to the service's user")
            }
            PinProblem::Permissions(mode) => {
                let wanted = match self.kind {
                    PinKind::Credential => "0440",
                    PinKind::File => "600",
                };
                write!(f, "its mode {mode:04o} opens it to others; run `chmod {wanted} {path}`")
            }
            PinProblem::Empty => write!(f, "it is empty; write the PIN into it as one line"),
            PinProblem::TooLong => write!(f, "it holds more than {MAX_PIN} bytes; write the PIN alone into it"),
            PinProblem::NotOneLine => {
                write!(f, "it is not one printable line; write the PIN alone into it, with at most one newline")
            }
        }
    }
}

impl std::error::Error for PinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            PinProblem::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}
