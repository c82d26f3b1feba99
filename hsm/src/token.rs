//! Finding the one token that the operator named.

use cryptoki::context::Pkcs11;
use cryptoki::slot::{Slot, TokenInfo};

use crate::config::TokenSelector;
use crate::error::{Doing, HsmError};

/// What the token says about itself (`CK_TOKEN_INFO`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDescription {
    /// Label, without the padding.
    pub label: String,
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Firmware version, `major.minor`.
    pub firmware: String,
    /// Hardware version, `major.minor`.
    pub hardware: String,
}

impl TokenDescription {
    fn of(info: &TokenInfo) -> Self {
        let (firmware, hardware) = (info.firmware_version(), info.hardware_version());
        Self {
            label: info.label().to_owned(),
            serial: info.serial_number().to_owned(),
            model: info.model().to_owned(),
            manufacturer: info.manufacturer_id().to_owned(),
            firmware: format!("{}.{}", firmware.major(), firmware.minor()),
            hardware: format!("{}.{}", hardware.major(), hardware.minor()),
        }
    }

    /// Whether it is a folder of files that SoftHSM keeps.
    pub(crate) fn is_softhsm(&self) -> bool {
        self.model.starts_with("SoftHSM")
    }

    fn matches(&self, selector: &TokenSelector) -> bool {
        match selector {
            TokenSelector::Label(label) => self.label == *label,
            TokenSelector::Serial(serial) => self.serial == *serial,
        }
    }
}

/// Finds the token; exactly one may match.
pub(crate) fn find(pkcs11: &Pkcs11, selector: &TokenSelector) -> Result<(Slot, TokenDescription), HsmError> {
    let all = initialized(pkcs11)?;
    let mut matching: Vec<_> = all.iter().filter(|(_, token)| token.matches(selector)).collect();
    match (matching.pop(), matching.is_empty()) {
        (Some(found), true) => Ok(found.clone()),
        (None, _) => Err(HsmError::NoToken { selector: selector.clone(), present: list(&all) }),
        (Some(last), false) => {
            matching.push(last);
            let serials: Vec<_> = matching.iter().map(|(_, token)| token.serial.as_str()).collect();
            Err(HsmError::SeveralTokens { selector: selector.clone(), serials: serials.join(", ") })
        }
    }
}

/// All initialised tokens of the module. A slot whose token does not answer counts as empty.
pub(crate) fn initialized(pkcs11: &Pkcs11) -> Result<Vec<(Slot, TokenDescription)>, HsmError> {
    let slots = pkcs11.get_slots_with_token().doing("listing the tokens")?;
    let tokens = slots.into_iter().filter_map(|slot| {
        let info = pkcs11.get_token_info(slot).ok()?;
        info.token_initialized().then(|| (slot, TokenDescription::of(&info)))
    });
    Ok(tokens.collect())
}

fn list(tokens: &[(Slot, TokenDescription)]) -> String {
    if tokens.is_empty() {
        return "none".into();
    }
    let names: Vec<_> =
        tokens.iter().map(|(_, token)| format!("{:?} (serial {})", token.label, token.serial)).collect();
    names.join(", ")
}
