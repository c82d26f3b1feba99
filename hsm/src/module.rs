//! The PKCS#11 module: loaded and initialised once per process, whoever uses it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Cryptoki, RvError};

use crate::error::{HsmError, TokenError};

/// Modules of this process by path. An entry stays after its last user, since unloading a PKCS#11 library is not safe
/// with all vendors (some leave threads or exit handlers behind).
static LOADED: Mutex<BTreeMap<PathBuf, Arc<Loaded>>> = Mutex::new(BTreeMap::new());

/// One user's hold on a module. The module is finalised when the last one is dropped.
pub(crate) struct Module {
    path: PathBuf,
    loaded: Arc<Loaded>,
}

struct Loaded {
    pkcs11: Pkcs11,
    /// Held for reading by every call, for writing while the module is initialised anew.
    epoch: RwLock<Epoch>,
    users: Mutex<usize>,
}

#[derive(Clone, Copy)]
struct Epoch {
    /// Rises with every initialisation; session handles of an earlier number must not be used, not even closed.
    number: u64,
    /// Whether this process' initialisation is ours to undo.
    ours: bool,
}

impl Loaded {
    /// The module with no call inside it, if that is so right now.
    fn quiet(&self) -> Option<RwLockWriteGuard<'_, Epoch>> {
        match self.epoch.try_write() {
            Ok(epoch) => Some(epoch),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Permission to call the module; it is not initialised anew meanwhile.
pub(crate) struct Lease<'a> {
    pkcs11: &'a Pkcs11,
    epoch: RwLockReadGuard<'a, Epoch>,
}

impl Module {
    /// Loads the module, or joins its other users.
    pub(crate) fn load(path: &Path) -> Result<Self, HsmError> {
        let failed = |error| HsmError::Module { path: path.to_owned(), source: TokenError(error) };
        let mut all = guard(&LOADED);
        let loaded = match all.get(path) {
            Some(loaded) => Arc::clone(loaded),
            None => Arc::new(Loaded {
                pkcs11: Pkcs11::new(path).map_err(failed)?,
                epoch: RwLock::new(Epoch { number: 0, ours: false }),
                users: Mutex::new(0),
            }),
        };
        let mut users = guard(&loaded.users);
        // Without the lock, a call of a past user is stuck inside and kept the module from being finalised.
        if *users == 0
            && let Some(mut epoch) = loaded.quiet()
        {
            initialize(&loaded.pkcs11, &mut epoch).map_err(failed)?;
        }
        *users += 1;
        drop(users);
        all.insert(path.to_owned(), Arc::clone(&loaded));
        Ok(Self { path: path.to_owned(), loaded })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Enters the module for a few calls.
    pub(crate) fn enter(&self) -> Lease<'_> {
        let epoch = self.loaded.epoch.read().unwrap_or_else(PoisonError::into_inner);
        Lease { pkcs11: &self.loaded.pkcs11, epoch }
    }

    /// Finalises and initialises the module anew, which many modules need to see a token again. Every session of
    /// every user is void after this.
    ///
    /// Returns `false`, with nothing done, while a call is inside the module (finalising under it is undefined) or
    /// when somebody else initialised the module.
    pub(crate) fn restart(&self) -> Result<bool, HsmError> {
        let Some(mut epoch) = self.loaded.quiet() else {
            return Ok(false);
        };
        if !epoch.ours {
            return Ok(false);
        }
        // A module that lost its device may refuse to finalise; initialising decides.
        let finalized = self.loaded.pkcs11.clone().finalize();
        initialize(&self.loaded.pkcs11, &mut epoch).map_err(|error| HsmError::Module {
            path: self.path.clone(),
            source: TokenError(finalized.err().unwrap_or(error)),
        })?;
        Ok(true)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // The lock on all modules keeps a new user from initialising between the count and the finalising.
        let _all = guard(&LOADED);
        let mut users = guard(&self.loaded.users);
        *users -= 1;
        if *users > 0 {
            return;
        }
        let Some(mut epoch) = self.loaded.quiet() else {
            return;
        };
        if epoch.ours {
            epoch.ours = false;
            if let Err(error) = self.loaded.pkcs11.clone().finalize() {
                tracing::warn!(event = "hsm_finalize_failed", error = %TokenError(error));
            }
        }
    }
}

impl Lease<'_> {
    pub(crate) fn pkcs11(&self) -> &Pkcs11 {
        self.pkcs11
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.number
    }
}

fn initialize(pkcs11: &Pkcs11, epoch: &mut Epoch) -> Result<(), Cryptoki> {
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => epoch.ours = true,
        Err(Cryptoki::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(error),
    }
    epoch.number += 1;
    Ok(())
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
