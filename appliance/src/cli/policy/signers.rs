//! Who may sign a bundle, or a recovery.

use std::path::PathBuf;

use casemate_policy::{AllowedSigners, Quorum, TrustAnchors};
use clap::Args;

/// Whose signatures count; as an appliance's configuration states it.
#[derive(Args, Default)]
pub(in super::super) struct SignerArguments {
    /// Those who may sign, in OpenSSH's allowed_signers format.
    #[arg(long, value_name = "FILE", requires = "quorum")]
    allowed_signers: Option<PathBuf>,
    /// How many of them must, as "2 of 3".
    #[arg(long, value_name = "QUORUM", requires = "allowed_signers")]
    quorum: Option<Quorum>,
}

impl SignerArguments {
    /// The signers and their quorum, if they were given.
    ///
    /// # Errors
    /// Says what is wrong with the file, by line, or that the quorum does not fit it.
    pub(in super::super) fn anchors(&self) -> Result<Option<TrustAnchors>, String> {
        let (Some(path), Some(quorum)) = (&self.allowed_signers, self.quorum) else {
            return Ok(None);
        };
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
        let signers = AllowedSigners::parse(&text).map_err(|e| format!("{shown}: {e}"))?;
        TrustAnchors::new(signers, quorum).map(Some).map_err(|e| format!("{shown}: {e}"))
    }
}
