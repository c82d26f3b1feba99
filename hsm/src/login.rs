//! Logging in, with a memory for refused PINs: a token that locks takes its keys with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use casemate_wire::stack;
use cryptoki::context::Pkcs11;
use cryptoki::error::RvError;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use rand_core::{OsRng, RngCore};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use crate::error::{Doing, HsmError};
use crate::pin::{Pin, PinSource};

/// PINs refused in this process, by module and token serial. Its lock also lets only one thread log in at a time, so
/// that many threads with a wrong PIN make one attempt and not many.
static REFUSED: Mutex<BTreeMap<(PathBuf, String), Fingerprint>> = Mutex::new(BTreeMap::new());

/// Who asks for the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The operator opened the HSM: a PIN other than the refused one may be tried.
    Configured,
    /// A session is reopened in the background: after a refusal nothing is tried at all.
    Background,
}

/// Where to log in.
pub(crate) struct Target<'a> {
    pub(crate) module: &'a Path,
    pub(crate) pkcs11: &'a Pkcs11,
    pub(crate) slot: Slot,
    pub(crate) serial: &'a str,
}

/// Logs the user in, unless the application is logged in already (PKCS#11 logs in applications, not sessions).
pub(crate) fn log_in(
    session: &Session,
    target: &Target<'_>,
    source: &PinSource,
    occasion: Occasion,
) -> Result<(), HsmError> {
    // The PIN goes through the module's frames, too.
    stack::wiped(|| log_in_once(session, target, source, occasion))
}

fn log_in_once(session: &Session, target: &Target<'_>, source: &PinSource, occasion: Occasion) -> Result<(), HsmError> {
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if is_logged_in(session)? {
        return Ok(());
    }
    let serial = || target.serial.to_owned();
    let key = (target.module.to_owned(), serial());
    if occasion == Occasion::Background && refused.contains_key(&key) {
        return Err(HsmError::PinRefused { serial: serial() });
    }

    let info = target.pkcs11.get_token_info(target.slot).doing("reading the token's PIN flags")?;
    if !info.user_pin_initialized() {
        return Err(HsmError::PinNotSet { serial: serial() });
    }
    if info.user_pin_locked() {
        return Err(HsmError::PinLocked { serial: serial() });
    }
    if info.user_pin_final_try() {
        return Err(HsmError::PinFinalTry { serial: serial() });
    }

    let pin = source.read()?;
    if refused.get(&key).is_some_and(|fingerprint| fingerprint.is_of(&pin)) {
        return Err(HsmError::PinRefused { serial: serial() });
    }
    match session.login(UserType::User, Some(pin.expose())).doing("logging in") {
        Ok(()) => {
            refused.remove(&key);
            Ok(())
        }
        Err(HsmError::Call { doing, source }) => match source.code() {
            Some(RvError::UserAlreadyLoggedIn) => Ok(()),
            Some(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired) => {
                tracing::error!(event = "hsm_pin_refused", serial = target.serial, error = %source);
                refused.insert(key, Fingerprint::of(&pin)?);
                Err(HsmError::PinRefused { serial: serial() })
            }
            Some(RvError::PinLocked) => Err(HsmError::PinLocked { serial: serial() }),
            _ => Err(HsmError::Call { doing, source }),
        },
        Err(other) => Err(other),
    }
}

fn is_logged_in(session: &Session) -> Result<bool, HsmError> {
    let info = session.get_session_info().doing("reading the session's state")?;
    Ok(matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser))
}

/// Recognises a PIN without holding it.
struct Fingerprint {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl Fingerprint {
    fn of(pin: &Pin) -> Result<Self, HsmError> {
        let mut salt = [0; 16];
        OsRng.try_fill_bytes(&mut salt).map_err(|_| HsmError::NoRandomness)?;
        Ok(Self { salt, hash: Self::hash(&salt, pin) })
    }

    fn is_of(&self, pin: &Pin) -> bool {
        Self::hash(&self.salt, pin) == self.hash
    }

    fn hash(salt: &[u8; 16], pin: &Pin) -> [u8; 32] {
        let hash = Sha256::new().chain_update(salt).chain_update(pin.expose().expose_secret());
        hash.finalize().into()
    }
}
