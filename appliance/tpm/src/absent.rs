//! What stands in for tpm2-tss in a build without it.

use casemate_attest::attestation::Quote;

use crate::TpmError;

pub(crate) fn check_name(_: &str) -> Result<(), TpmError> {
    Err(TpmError::NotBuilt)
}

pub(crate) fn quote(_: &str, _: &[u8], _: &[u8; 32]) -> Result<Quote, TpmError> {
    Err(TpmError::NotBuilt)
}
