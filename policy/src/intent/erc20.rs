//! ERC-20 calls (EIP-20), decoded strictly: exact length, zero padding.

use alloy_primitives::{Address, U256};

/// The selector of `transfer(address,uint256)`.
pub(super) const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];

/// The arguments of `transfer(address,uint256)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) to: Address,
    pub(super) amount: U256,
}

/// Decodes the arguments that follow the selector.
///
/// A contract reads only the low 20 bytes of the address and ignores what follows the amount, so both are refused here:
/// two call data that do the same must not look different.
pub(super) fn transfer_arguments(arguments: &[u8]) -> Result<Transfer, String> {
    let Ok(words) = <&[u8; 64]>::try_from(arguments) else {
        return Err(format!("`transfer` takes 64 bytes of arguments, not {}", arguments.len()));
    };
    let (padded_address, amount) = words.split_at(32);
    let (padding, address) = padded_address.split_at(12);
    if padding.iter().any(|byte| *byte != 0) {
        return Err("the recipient of `transfer` is not padded with zeros".into());
    }
    Ok(Transfer { to: Address::from_slice(address), amount: U256::from_be_slice(amount) })
}
