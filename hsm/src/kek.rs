//! The life of a KEK: it is made, wraps while its epoch is the highest, and is destroyed when nothing needs it.

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use crate::canary;
use crate::config::HsmConfig;
use crate::error::{Doing, HsmError};
use crate::keys::{self, Keys};
use crate::module::{Lease, Module};
use crate::provision::{log_in_to_write, make_kek};
use crate::session::OpenSession;
use crate::wrapped::kek_id;

/// Makes the KEK of the next epoch, one above the highest. It is checked like all keys at opening, and the canary is run
/// on it; one that fails is removed again. Whoever opens the token from now on wraps under it; a [`crate::Hsm`] that is open
/// goes on with the KEK before until it is opened anew.
///
/// `epoch` is what the caller has recorded; it must be that next one.
///
/// # Errors
/// [`HsmError::KekOutOfTurn`] when it is not; the errors of [`crate::Hsm::open`]. Nothing is changed then.
pub fn new_kek(config: &HsmConfig, epoch: u32) -> Result<(), HsmError> {
    config.check()?;
    let module = Module::load(&config.module)?;
    let lease = module.enter();
    let session = log_in_to_write(&module, &lease, config)?;
    let live = live_epoch(&Keys::find(&session)?)?;
    if live.checked_add(1) != Some(epoch) {
        return Err(HsmError::KekOutOfTurn { asked: kek_id(epoch), current: kek_id(live) });
    }
    let made = make_kek(&session, epoch)?;
    let checked = check(&module, &lease, config, epoch);
    if checked.is_err()
        && let Err(left) = destroy(&session, made)
    {
        tracing::error!(event = "hsm_new_kek_left", kek = kek_id(epoch), %left);
    }
    checked
}

/// As at opening: every key's attributes, then the canary on the new KEK.
fn check(module: &Module, lease: &Lease<'_>, config: &HsmConfig, epoch: u32) -> Result<(), HsmError> {
    let open = OpenSession::log_in(module, lease, config, None)?;
    let outcome = canary::probe_wrapping(&open, config.wrap, epoch).map(drop);
    open.close(lease);
    outcome
}

/// Destroys the KEK of an epoch for good; what is wrapped under it alone can never be opened again.
///
/// # Errors
/// [`HsmError::KekIsCurrent`] for the one that wraps; [`HsmError::NoSuchKek`]; the errors of [`crate::Hsm::open`].
///
/// # Security
/// The caller must have shown that nothing needs it.
pub fn destroy_kek(config: &HsmConfig, epoch: u32) -> Result<(), HsmError> {
    config.check()?;
    let module = Module::load(&config.module)?;
    let lease = module.enter();
    let session = log_in_to_write(&module, &lease, config)?;
    let found = Keys::find(&session)?;
    if live_epoch(&found)? == epoch {
        return Err(HsmError::KekIsCurrent { kek_id: kek_id(epoch) });
    }
    let no_such = || HsmError::NoSuchKek { kek_id: kek_id(epoch) };
    let kek = found.kek(epoch).ok_or_else(no_such)?;
    destroy(&session, kek.handle)?;
    // A token may keep an object that it was told to destroy.
    if keys::kek_epochs(&session)?.contains(&epoch) {
        return Err(HsmError::KeyUnfit { id: kek_id(epoch), problem: "the token did not destroy it".into() });
    }
    Ok(())
}

fn live_epoch(keys: &Keys) -> Result<u32, HsmError> {
    keys.live_epoch().ok_or_else(|| HsmError::KeyMissing { id: kek_id(1) })
}

fn destroy(session: &Session, kek: ObjectHandle) -> Result<(), HsmError> {
    session.destroy_object(kek).doing("destroying a KEK")
}
