//! Bitcoin transactions (BIP-174).

use super::{Signer, Understood};

pub(super) fn decode(_text: &str, _input_index: Option<u32>, _signer: &Signer) -> Result<Understood, String> {
    Err("Bitcoin transactions are not decoded yet".into())
}
