//! The bytes of a PSBT: one unsigned transaction in its canonical encoding, and nothing after the last map.

use bitcoin::Psbt;
use bitcoin::consensus::encode::{VarInt, deserialize_partial, serialize};

/// `psbt` and 0xff (BIP-174).
const MAGIC: &[u8] = b"psbt\xff";
/// The key of the unsigned transaction: its type alone.
const UNSIGNED_TX: &[u8] = &[0x00];
/// The key of the PSBT's version (BIP-370).
const VERSION: &[u8] = &[0xfb];

/// Decodes a PSBT and compares its unsigned transaction, encoded again, with the bytes in it.
pub(super) fn decode(bytes: &[u8]) -> Result<Psbt, String> {
    let broken = |why: &dyn std::fmt::Display| format!("it is not a PSBT version 0 (BIP-174): {why}");
    let maps = bytes.strip_prefix(MAGIC).ok_or_else(|| broken(&"it does not begin with `psbt` and 0xff"))?;
    let global = global_map(maps).ok_or_else(|| broken(&"its first map is cut short"))?;
    if global.iter().any(|(key, value)| *key == VERSION && value.iter().any(|byte| *byte != 0)) {
        return Err(broken(&"it has another version"));
    }

    let mut remaining = bytes;
    let psbt = Psbt::deserialize_from_reader(&mut remaining).map_err(|error| broken(&error))?;
    if !remaining.is_empty() {
        return Err(format!("{} bytes follow the PSBT", remaining.len()));
    }
    let tx = &psbt.unsigned_tx;
    let stated = global.iter().find(|(key, _)| *key == UNSIGNED_TX).map(|(_, value)| *value);
    // Without inputs the encoding would be that of a segwit transaction; such a one spends nothing.
    if tx.input.is_empty() || stated != Some(serialize(tx).as_slice()) {
        return Err("its unsigned transaction is not in its canonical encoding, or has no inputs".into());
    }
    if psbt.inputs.len() != tx.input.len() || psbt.outputs.len() != tx.output.len() {
        return Err(broken(&"it does not have one map for each input and output"));
    }
    Ok(psbt)
}

/// The keys and values of the first map.
fn global_map(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut pairs = Vec::new();
    loop {
        let key = prefixed(&mut bytes)?;
        if key.is_empty() {
            return Some(pairs);
        }
        pairs.push((key, prefixed(&mut bytes)?));
    }
}

/// Takes a byte string with its length before it.
fn prefixed<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (VarInt(length), size) = deserialize_partial::<VarInt>(bytes).ok()?;
    let rest = bytes.get(size..)?;
    let (taken, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}
