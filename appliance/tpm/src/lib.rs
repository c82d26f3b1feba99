//! Quotes of a TPM 2.0, bound to attestation tokens. The only user of tpm2-tss.
//!
//! Built without the feature `tss`, which needs the system's libtss2, it refuses every TPM with advice. What verifies a
//! quote is in `casemate_attest::attestation`, in plain Rust, and always built.

#[cfg(not(feature = "tss"))]
#[path = "absent.rs"]
mod tss;
#[cfg(feature = "tss")]
mod tss;

use std::path::Path;

use casemate_attest::attestation::{AttestKey, Nonces, Quote, QuoteError, qualifying_data};

/// PCRs that a PC's TPM has.
const PCRS: u8 = 24;

/// A TPM and the PCRs of its SHA-256 bank that are quoted.
#[derive(Debug, Clone)]
pub struct Tpm {
    tcti: String,
    pcrs: Vec<u8>,
}

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// This build cannot talk to a TPM.
    #[error(
        "this build has no TPM support; build casemated with `--features tpm` (it needs libtss2), or leave attestation.tpm out"
    )]
    NotBuilt,
    /// The TPM's name is none that tpm2-tss knows.
    #[error("{0:?} names no TPM; write device:/dev/tpmrm0, swtpm:host=…,port=…, mssim:… or tabrmd:…")]
    Name(String),
    /// The PCRs cannot be quoted.
    #[error("the list of PCRs is not valid: name 1 to 24 different ones from 0 to 23")]
    Pcrs,
    /// The TPM refuses, or cannot be reached.
    #[error("the TPM cannot {doing}: {why}; is it there, and may this user open it (group tss)?")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What tpm2-tss says.
        why: String,
    },
    /// What it gave does not verify.
    #[error("the TPM gave a quote that does not verify: {0}")]
    Quote(#[from] QuoteError),
}

impl Tpm {
    /// A TPM by its TCTI name, for example `device:/dev/tpmrm0`, and the PCRs to quote. Nothing is opened yet.
    ///
    /// # Errors
    /// This build has no TPM support, or the values make no sense.
    pub fn new(tcti: &str, pcrs: &[u8]) -> Result<Self, TpmError> {
        let mut sorted = pcrs.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.is_empty() || sorted.len() != pcrs.len() || sorted.iter().any(|index| *index >= PCRS) {
            return Err(TpmError::Pcrs);
        }
        tss::check_name(tcti)?;
        Ok(Self { tcti: tcti.to_owned(), pcrs: sorted })
    }

    /// The device file that it is reached by, if it is reached by one.
    pub fn device(&self) -> Option<&Path> {
        self.tcti.strip_prefix("device:").map(Path::new)
    }

    /// Has the TPM sign its PCRs for one token: the one with these nonces, by the owner of `key`. Blocks for as long as
    /// the TPM takes, up to some seconds.
    ///
    /// # Errors
    /// The TPM fails, or what it gives does not verify.
    pub fn quote(&self, nonces: &Nonces, key: &AttestKey) -> Result<Quote, TpmError> {
        let quote = self.take(nonces, key)?;
        match quote.verify(nonces, key) {
            Ok(_) => Ok(quote),
            // A PCR was extended between the quote and the reading of the values.
            Err(QuoteError::OtherValues) => {
                let quote = self.take(nonces, key)?;
                quote.verify(nonces, key)?;
                Ok(quote)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take(&self, nonces: &Nonces, key: &AttestKey) -> Result<Quote, TpmError> {
        tss::quote(&self.tcti, &self.pcrs, &qualifying_data(nonces, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_that_no_pc_has_are_refused() {
        for bad in [&[] as &[u8], &[24], &[1, 1]] {
            assert!(matches!(Tpm::new("device:/dev/tpmrm0", bad), Err(TpmError::Pcrs)), "{bad:?}");
        }
    }

    #[cfg(not(feature = "tss"))]
    #[test]
    fn a_build_without_tpm_support_says_what_to_do() {
        let error = Tpm::new("device:/dev/tpmrm0", &[0]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("--features tpm")));
    }

    #[cfg(feature = "tss")]
    #[test]
    fn a_name_that_is_no_tpm_is_refused() {
        assert!(matches!(Tpm::new("/dev/tpmrm0", &[0]), Err(TpmError::Name(_))));
    }
}
