//! Bitcoin transactions: one input of a PSBT version 0 (BIP-174), signed for all inputs and outputs.
//!
//! Every input must bring the whole transaction that it spends, since a signature over a stated amount alone has cost
//! people their fees. An output is change only if its script is the signer's own, its parent's, or that of a child whose path
//! the PSBT states, at which somebody would look, and which is derived here; every other output is external.

use std::collections::BTreeSet;

use alloy_primitives::U256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::Hash;
use bitcoin::psbt::{Input, PsbtSighashType};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Transaction, TxOut};
use casemate_wire::Digest32;
use serde_json::{Value, json};

use super::effect::{Account, Chain, Effect, EffectKind, OwnOutput};
use super::{Signer, Understood, words};

mod frame;
mod own;

/// Decodes the base64 of a PSBT and computes the hash that input `input_index` is signed over.
pub(super) fn decode(payload: &str, input_index: Option<u32>, signer: &Signer) -> Result<Understood, String> {
    let bytes = STANDARD.decode(payload).map_err(|error| format!("the payload is not base64: {error}"))?;
    let psbt = frame::decode(&bytes)?;
    let index = input_index.ok_or("`input_index` is missing: say which input is to be signed")?;
    let index = usize::try_from(index).map_err(|error| error.to_string())?;

    let spent = spent_outputs(&psbt)?;
    let fee = fee(&spent, &psbt.unsigned_tx)?;
    let (Some(input), Some(output)) = (psbt.inputs.get(index), spent.get(index)) else {
        return Err(format!("there is no input {index}: the transaction has {}", spent.len()));
    };
    let digest = sighash(&psbt.unsigned_tx, index, input, output, signer)?;

    let (effects, own_outputs) = effects(&psbt, signer, fee);
    let external = effects.iter().filter(|effect| effect.to.is_some()).count();
    let mut effects = effects.into_iter();
    let first = effects.next().ok_or("the transaction has no outputs")?;
    let description = describe(&psbt.unsigned_tx, index, output, fee, &own_outputs);
    let preamble = format!("On Bitcoin, with input {index} of {}", spent.len());
    let understood = Understood::new(digest, (first, effects.collect()), description, preamble);
    // People, explorers and nodes write the id in reversed byte order.
    let mut id = psbt.unsigned_tx.compute_txid().to_byte_array();
    id.reverse();
    Ok(Understood { transaction_id: Digest32(id), outputs_external: external, own_outputs, ..understood })
}

/// The output that each input spends, out of the whole transaction that made it.
fn spent_outputs(psbt: &Psbt) -> Result<Vec<TxOut>, String> {
    let mut seen: BTreeSet<OutPoint> = BTreeSet::new();
    let mut spent = Vec::with_capacity(psbt.inputs.len());
    for (index, (input, stated)) in psbt.unsigned_tx.input.iter().zip(&psbt.inputs).enumerate() {
        let point = input.previous_output;
        if !seen.insert(point) {
            return Err(format!("input {index} spends {point}, which another input spends too"));
        }
        let previous = stated.non_witness_utxo.as_ref().ok_or_else(|| {
            format!("input {index} has no `non_witness_utxo`: add the whole transaction that it spends, for segwit inputs too")
        })?;
        if previous.compute_txid() != point.txid {
            return Err(format!("the `non_witness_utxo` of input {index} is not the transaction {}", point.txid));
        }
        let output = usize::try_from(point.vout)
            .ok()
            .and_then(|at| previous.output.get(at))
            .ok_or_else(|| format!("the transaction that input {index} spends has no output {}", point.vout))?;
        if stated.witness_utxo.as_ref().is_some_and(|witness| witness != output) {
            return Err(format!("the `witness_utxo` of input {index} is not the output that it spends"));
        }
        if stated.sighash_type.is_some_and(|kind| kind != PsbtSighashType::from(EcdsaSighashType::All)) {
            return Err(format!("input {index} asks for another signature hash type: only SIGHASH_ALL is signed"));
        }
        spent.push(output.clone());
    }
    Ok(spent)
}

/// What the inputs have and the outputs do not.
fn fee(spent: &[TxOut], tx: &Transaction) -> Result<Amount, String> {
    let sum = |outputs: &[TxOut]| {
        outputs
            .iter()
            .try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value))
            .filter(|sum| *sum <= Amount::MAX_MONEY)
            .ok_or_else(|| "its amounts add up to more than all bitcoin".to_owned())
    };
    let (paid, received) = (sum(spent)?, sum(&tx.output)?);
    paid.checked_sub(received).ok_or_else(|| format!("its outputs have {received}, but its inputs only {paid}"))
}

/// BIP-143 for P2WPKH, bare or in P2SH, and the original hash for P2PKH. The output must be the signer's.
fn sighash(tx: &Transaction, index: usize, input: &Input, output: &TxOut, signer: &Signer) -> Result<Digest32, String> {
    let script = &output.script_pubkey;
    if script.is_p2tr() {
        return Err(format!(
            "input {index} is taproot, which takes Schnorr signatures; this key makes ECDSA signatures"
        ));
    }
    let scripts = own::Scripts::of(&signer.key());
    let no_hash = |error: &dyn std::fmt::Display| format!("the hash of input {index} cannot be computed: {error}");
    if *script == scripts.p2pkh {
        if input.redeem_script.is_some() || input.witness_script.is_some() {
            return Err(format!("input {index} pays to a public key hash, but the PSBT gives it a script"));
        }
        let all = EcdsaSighashType::All.to_u32();
        let hash = SighashCache::new(tx).legacy_signature_hash(index, script, all).map_err(|error| no_hash(&error))?;
        return Ok(Digest32(hash.to_byte_array()));
    }
    let redeem: Option<&ScriptBuf> = (*script == scripts.p2sh_p2wpkh).then_some(&scripts.p2wpkh);
    if redeem.is_none() && *script != scripts.p2wpkh {
        return Err(format!(
            "input {index} is not one that this key can spend: its script is {}, and this key's are P2WPKH, P2SH-P2WPKH \
             and P2PKH; check the derivation path",
            hex::encode(script.as_bytes())
        ));
    }
    if input.redeem_script.is_some() && input.redeem_script.as_ref() != redeem || input.witness_script.is_some() {
        return Err(format!("the script that the PSBT gives input {index} is not the one that it pays to"));
    }
    let hash = SighashCache::new(tx)
        .p2wpkh_signature_hash(index, &scripts.p2wpkh, output.value, EcdsaSighashType::All)
        .map_err(|error| no_hash(&error))?;
    Ok(Digest32(hash.to_byte_array()))
}

/// One effect for each external output, and what comes back. A transaction without any external output still pays its fee,
/// so it has one effect that goes to nobody.
fn effects(psbt: &Psbt, signer: &Signer, fee: Amount) -> (Vec<Effect>, Vec<OwnOutput>) {
    let bare = Effect { fee: satoshi(fee), ..Effect::bare(EffectKind::BitcoinOutput, Chain::Bitcoin) };
    let (mut external, mut own) = (Vec::new(), Vec::new());
    for (index, (output, stated)) in psbt.unsigned_tx.output.iter().zip(&psbt.outputs).enumerate() {
        let (script, amount) = (output.script_pubkey.to_bytes(), satoshi(output.value));
        match own::ownership(&output.script_pubkey, stated, signer) {
            own::Ownership::Own(path) => own.push(OwnOutput { index, amount, script, path }),
            own::Ownership::External => {
                external.push(Effect { to: Some(Account::Script(script)), amount, ..bare.clone() });
            }
        }
    }
    if external.is_empty() {
        external.push(bare);
    }
    (external, own)
}

fn satoshi(amount: Amount) -> U256 {
    U256::from(amount.to_sat())
}

fn describe(tx: &Transaction, index: usize, output: &TxOut, fee: Amount, own: &[OwnOutput]) -> Value {
    let own = own.iter().map(|own| {
        json!({
            "output": own.index,
            "amount": own.amount.to_string(),
            "script": hex::encode(&own.script),
            "path": own.path,
        })
    });
    json!({
        "type": "bitcoin_psbt",
        "txid": tx.compute_txid().to_string(),
        "input_index": index,
        "input_amount": output.value.to_sat().to_string(),
        "input_script": hex::encode(output.script_pubkey.as_bytes()),
        "inputs": tx.input.len(),
        "outputs": tx.output.len(),
        "own_outputs": own.collect::<Vec<_>>(),
        "lock_time": words::number(tx.lock_time.to_consensus_u32().into()),
        "fee": fee.to_sat().to_string(),
    })
}

#[cfg(test)]
mod tests;
