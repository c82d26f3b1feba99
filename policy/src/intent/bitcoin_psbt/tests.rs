#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use alloy_primitives::U256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath};
use bitcoin::consensus::deserialize;
use bitcoin::opcodes::all::OP_PUSHBYTES_1;
use bitcoin::psbt::{Input, PsbtSighashType};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use casemate_wire::{Code, Intent};
use proptest::prelude::*;
use serde_json::json;

use super::own::Scripts;
use super::sighash;
use crate::bundle::tables::Tables;
use crate::intent::{Account, Effect, EffectKind, IntentError, Signer, Understood, decode_payload};

/// BIP-32's second test vector: the master key.
const PARENT: &str = "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7";
const CHAIN_CODE: &str = "60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689";
/// BIP-174: the first of its valid PSBTs, with one P2PKH input and its whole previous transaction.
const BIP174_P2PKH: &str = "cHNidP8BAHUCAAAAASaBcTce3/KF6Tet7qSze3gADAVmy7OtZGQXE8pCFxv2AAAAAAD+////AtPf9QUAAAAAGXapFNDFmQPFusKGh2DpD9UhpGZap2UgiKwA4fUFAAAAABepFDVF5uM7gyxHBQ8k0+65PJwDlIvHh7MuEwAAAQD9pQEBAAAAAAECiaPHHqtNIOA3G7ukzGmPopXJRjr6Ljl/hTPMti+VZ+UBAAAAFxYAFL4Y0VKpsBIDna89p95PUzSe7LmF/////4b4qkOnHf8USIk6UwpyN+9rRgi7st0tAXHmOuxqSJC0AQAAABcWABT+Pp7xp0XpdNkCxDVZQ6vLNL1TU/////8CAMLrCwAAAAAZdqkUhc/xCX/Z4Ai7NK9wnGIZeziXikiIrHL++E4sAAAAF6kUM5cluiHv1irHU6m80GfWx6ajnQWHAkcwRAIgJxK+IuAnDzlPVoMR3HyppolwuAJf3TskAinwf4pfOiQCIAGLONfc0xTnNMkna9b7QPZzMlvEuhRMyADS8vAtsnZcASED0uFWdJQbrUqZY3LLh+GFbTZSYG2YVi/jnF6efkE/IQUCSDBFAiEA0SuFLYXc2WHS9fSrZgZU327tzHlMDDPOXMMJ/7X85Y0CIGczio4OFyXBl/saiK9Z9R5E5CVbIBZ8hoQDHAXR8lkqASECI7cr7vCWXRC+B3jv7NYfysb3mk6haTkzgHNEZPhPKrMAAAAAAAAA";
/// BIP-174: two inputs, the first signed already, neither with a `non_witness_utxo`.
const BIP174_WITHOUT_UTXO: &str = "cHNidP8BAKACAAAAAqsJSaCMWvfEm4IS9Bfi8Vqz9cM9zxU4IagTn4d6W3vkAAAAAAD+////qwlJoIxa98SbghL0F+LxWrP1wz3PFTghqBOfh3pbe+QBAAAAAP7///8CYDvqCwAAAAAZdqkUdopAu9dAy+gdmI5x3ipNXHE5ax2IrI4kAAAAAAAAGXapFG9GILVT+glechue4O/p+gOcykWXiKwAAAAAAAEHakcwRAIgR1lmF5fAGwNrJZKJSGhiGDR9iYZLcZ4ff89X0eURZYcCIFMJ6r9Wqk2Ikf/REf3xM286KdqGbX+EhtdVRs7tr5MZASEDXNxh/HupccC1AaZGoqg7ECy0OIEhfKaC3Ibi1z+ogpIAAQEgAOH1BQAAAAAXqRQ1RebjO4MsRwUPJNPuuTycA5SLx4cBBBYAFIXRNTfy4mVAWjTbr6nj3aAfuCMIAAAA";

fn signer(path: &[u32]) -> Signer {
    let chain_code = hex::decode(CHAIN_CODE).unwrap().try_into().unwrap();
    Signer::derive(&PARENT.parse().unwrap(), chain_code, path).unwrap()
}

fn own() -> Scripts {
    Scripts::of(&signer(&[]).key())
}

fn stranger() -> ScriptBuf {
    ScriptBuf::from_hex("0014d0c59903c5bac2868760e90fd521a4665aa76520").unwrap()
}

fn paying(script: &ScriptBuf, satoshi: u64) -> TxOut {
    TxOut { value: Amount::from_sat(satoshi), script_pubkey: script.clone() }
}

fn tx(inputs: Vec<OutPoint>, output: Vec<TxOut>) -> Transaction {
    let input = inputs.into_iter().map(|previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    });
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: input.collect(), output }
}

/// A PSBT that spends these outputs, each of its own transaction.
fn psbt(spends: &[TxOut], outputs: Vec<TxOut>) -> Psbt {
    let previous: Vec<Transaction> = (0u32..)
        .zip(spends)
        .map(|(at, output)| {
            tx(vec![OutPoint { vout: at, ..OutPoint::null() }], vec![paying(&stranger(), 1), output.clone()])
        })
        .collect();
    let points = previous.iter().map(|tx| OutPoint { txid: tx.compute_txid(), vout: 1 }).collect();
    let mut psbt = Psbt::from_unsigned_tx(tx(points, outputs)).unwrap();
    for (input, tx) in psbt.inputs.iter_mut().zip(previous) {
        input.non_witness_utxo = Some(tx);
    }
    psbt
}

/// 100,000 satoshi of the signer: 60,000 to a stranger, 39,000 back, 1,000 in fees.
fn usual() -> Psbt {
    psbt(&[paying(&own().p2wpkh, 100_000)], vec![paying(&stranger(), 60_000), paying(&own().p2wpkh, 39_000)])
}

fn intent(bytes: &[u8], input_index: Option<u32>) -> Intent {
    Intent { kind: "bitcoin_psbt".into(), payload: STANDARD.encode(bytes), input_index }
}

fn decode_by(psbt: &Psbt, index: u32, signer: &Signer) -> Result<Understood, IntentError> {
    decode_payload(&intent(&psbt.serialize(), Some(index)), signer)
}

fn decode(psbt: &Psbt) -> Understood {
    decode_by(psbt, 0, &signer(&[])).unwrap()
}

fn refusal(psbt: &Psbt) -> String {
    refused(decode_by(psbt, 0, &signer(&[])))
}

fn refused(result: Result<Understood, IntentError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::BadRequest, "{error}");
    error.to_string()
}

fn receivers(understood: &Understood) -> Vec<(Option<Account>, U256)> {
    understood.effects().map(|effect| (effect.to.clone(), effect.amount)).collect()
}

#[test]
fn the_hashes_are_those_of_bip_143() {
    let hash =
        |unsigned: &str, index: usize, key: &str, satoshi: u64, script: &dyn Fn(Scripts) -> ScriptBuf, redeem: bool| {
            let tx: Transaction = deserialize(&hex::decode(unsigned).unwrap()).unwrap();
            let signer = Signer::alone(&key.parse().unwrap()).unwrap();
            let scripts = Scripts::of(&signer.key());
            let input = Input { redeem_script: redeem.then(|| scripts.p2wpkh.clone()), ..Input::default() };
            sighash(&tx, index, &input, &paying(&script(scripts), satoshi), &signer).unwrap().to_string()
        };
    assert_eq!(
        hash(
            "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffffef51e1b804cc89d1\
             82d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb206000000001976a9148280b37df378db99\
             f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac11000000",
            1,
            "025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357",
            600_000_000,
            &|scripts| scripts.p2wpkh,
            false,
        ),
        "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"
    );
    assert_eq!(
        hash(
            "0100000001db6b1b20aa0fd7b23880be2ecbd4a98130974cf4748fb66092ac4d3ceb1a54770100000000feffffff02b8b4eb0b000000\
             001976a914a457b684d7f0d539a46a45bbc043f35b59d0d96388ac0008af2f000000001976a914fd270b1ee6abcaea97fea7ad0402e8\
             bd8ad6d77c88ac92040000",
            0,
            "03ad1d8e89212f0b92c74d23bb710c00662ad1470198ac48c43f7d6f93a2a26873",
            1_000_000_000,
            &|scripts| scripts.p2sh_p2wpkh,
            true,
        ),
        "64f3b0f4dd2bb3aa1ce8566d220cc74dda9df97d8490cc81d89d735c92e59fb6"
    );
}

#[test]
fn each_kind_of_input_hashes_as_the_reference_does() {
    let own = own();
    for (script, index) in [(&own.p2wpkh, 0u32), (&own.p2sh_p2wpkh, 1), (&own.p2pkh, 0)] {
        let spends = [paying(script, 50_000), paying(script, 60_000)];
        let psbt = psbt(&spends, vec![paying(&stranger(), 100_000)]);
        let at = usize::try_from(index).unwrap();
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        let expected = if script.is_p2pkh() {
            hex::encode(cache.legacy_signature_hash(at, script, 1).unwrap())
        } else {
            hex::encode(cache.p2wpkh_signature_hash(at, &own.p2wpkh, spends[at].value, EcdsaSighashType::All).unwrap())
        };
        let understood = decode_by(&psbt, index, &signer(&[])).unwrap();
        assert_eq!(understood.digest().to_string(), expected);
        assert_eq!(understood.transaction_id().to_string(), psbt.unsigned_tx.compute_txid().to_string());
    }
}

#[test]
fn the_psbts_of_bip_174_are_judged_by_whose_they_are() {
    let of = |text: &str| STANDARD.decode(text).unwrap();
    let by = |bytes: &[u8]| refused(decode_payload(&intent(bytes, Some(0)), &signer(&[])));
    // It is complete, but its input belongs to another key.
    assert!(by(&of(BIP174_P2PKH)).contains("not one that this key can spend"));
    assert!(by(&of(BIP174_WITHOUT_UTXO)).contains("non_witness_utxo"));
}

#[test]
fn outputs_are_external_and_change_is_not() {
    let understood = decode(&usual());
    let to_stranger = (Some(Account::Script(stranger().into_bytes())), U256::from(60_000));
    assert_eq!(receivers(&understood), [to_stranger]);
    assert_eq!(understood.outputs_external(), 1);
    let effect: &Effect = understood.effects().next().unwrap();
    assert_eq!((effect.kind, effect.fee), (EffectKind::BitcoinOutput, U256::from(1000)));
    assert!(understood.summary().contains("60000 satoshi"), "{}", understood.summary());
    assert_eq!(understood.describe()["fee"], "1000");
}

#[test]
fn an_output_that_only_carries_data_is_external() {
    let data = ScriptBuf::new_op_return([OP_PUSHBYTES_1.to_u8()]);
    let psbt = psbt(&[paying(&own().p2wpkh, 100_000)], vec![paying(&data, 0), paying(&own().p2pkh, 99_000)]);
    assert_eq!(receivers(&decode(&psbt)), [(Some(Account::Script(data.into_bytes())), U256::ZERO)]);
}

#[test]
fn a_transaction_to_oneself_still_has_an_effect_with_its_fee() {
    let own = own();
    let psbt = psbt(&[paying(&own.p2wpkh, 100_000)], vec![paying(&own.p2sh_p2wpkh, 20_000)]);
    let understood = decode(&psbt);
    assert_eq!(receivers(&understood), [(None, U256::ZERO)]);
    assert_eq!(understood.outputs_external(), 0);
    assert_eq!(understood.effects().next().unwrap().fee, U256::from(80_000));
}

#[test]
fn a_child_is_own_only_at_the_path_that_leads_to_it() {
    let child_signer = signer(&[1, 7]);
    let child = child_signer.key();
    let path: DerivationPath = vec![ChildNumber::from(1), ChildNumber::from(7)].into();
    let with = |key, fingerprint, path: DerivationPath| {
        let change = paying(&Scripts::of(&child).p2wpkh, 39_000);
        let mut psbt = psbt(&[paying(&own().p2wpkh, 100_000)], vec![paying(&stranger(), 60_000), change]);
        psbt.outputs[1].bip32_derivation.insert(key, (fingerprint, path));
        decode(&psbt).outputs_external()
    };
    let root = signer(&[]);
    let wrong: DerivationPath = vec![ChildNumber::from(1), ChildNumber::from(8)].into();
    let hardened: DerivationPath = vec![ChildNumber::from(1 << 31)].into();
    assert_eq!(with(child.0, root.fingerprint(), path.clone()), 1);
    assert_eq!(with(child.0, root.fingerprint(), wrong), 2);
    assert_eq!(with(child.0, root.fingerprint(), hardened), 2);
    assert_eq!(with(child.0, [0; 4].into(), path.clone()), 2);
    assert_eq!(with(root.key().0, root.fingerprint(), path), 2);

    // Without a statement a child is a stranger, unless it is the one that signs; the parent is own to its children.
    let scripts = Scripts::of(&child);
    let psbt = psbt(&[paying(&scripts.p2wpkh, 100_000)], vec![paying(&scripts.p2wpkh, 1), paying(&own().p2wpkh, 1)]);
    assert_eq!(decode_by(&psbt, 0, &child_signer).unwrap().outputs_external(), 0);
    refusal(&psbt);
}

#[test]
fn change_where_nobody_would_look_is_external() {
    let change_at = |path: &[u32]| {
        let child = signer(path);
        let change = paying(&Scripts::of(&child.key()).p2wpkh, 39_000);
        let mut psbt = psbt(&[paying(&own().p2wpkh, 100_000)], vec![paying(&stranger(), 60_000), change]);
        let path: DerivationPath = path.iter().map(|index| ChildNumber::from(*index)).collect::<Vec<_>>().into();
        psbt.outputs[1].bip32_derivation.insert(child.key().0, (child.fingerprint(), path));
        let understood = decode(&psbt);
        assert_eq!(understood.own_outputs().len() + understood.outputs_external(), 2);
        understood.outputs_external()
    };
    for usual in [&[0][..], &[1, 7], &[84, 0, (1 << 20) - 1]] {
        assert_eq!(change_at(usual), 1, "{usual:?}");
    }
    for hidden in [&[1 << 20][..], &[0x7fff_ffff], &[0, 1_234_567_890], &[1 << 20, 0, 0], &[0, 0, 0, 0]] {
        assert_eq!(change_at(hidden), 2, "{hidden:?}");
    }
}

#[test]
fn change_is_shown_with_its_path_and_amount() {
    let (signing, other) = (signer(&[1, 7]), signer(&[2]));
    let script = |signer: &Signer| Scripts::of(&signer.key()).p2wpkh;
    let outputs = vec![
        paying(&script(&signing), 10_000),
        paying(&stranger(), 60_000),
        paying(&own().p2pkh, 20_000),
        paying(&script(&other), 5_000),
    ];
    let mut psbt = psbt(&[paying(&script(&signing), 100_000)], outputs);
    psbt.outputs[3].bip32_derivation.insert(other.key().0, (other.fingerprint(), vec![ChildNumber::from(2)].into()));
    let understood = decode_by(&psbt, 0, &signing).unwrap();
    assert_eq!(understood.outputs_external(), 1);
    let entry = |output: usize, amount: &str, script: &ScriptBuf, path: &str| json!({ "output": output, "amount": amount, "script": hex::encode(script.as_bytes()), "path": path });
    let expected = json!([
        entry(0, "10000", &script(&signing), "m/1/7"),
        entry(2, "20000", &own().p2pkh, "m"),
        entry(3, "5000", &script(&other), "m/2"),
    ]);
    assert_eq!(understood.describe()["own_outputs"], expected);
    let summary = understood.summary();
    for part in ["keep 10000 satoshi at m/1/7", "keep 20000 satoshi at m of", "keep 5000 satoshi at m/2"] {
        assert!(summary.contains(part), "{summary}");
    }

    let books = r#"{"assets": [{"chain": "bitcoin", "symbol": "BTC", "decimals": 8}]}"#;
    let told = crate::narrate::sentences(&understood, &Tables::parse(Some(books.as_bytes())).unwrap()).join("\n");
    assert!(told.contains("keep 0.0001 BTC (10000 base units) at m/1/7 of this key (output 0)"), "{told}");
    let unknown = crate::narrate::sentences(&understood, &Tables::parse(None).unwrap()).join("\n");
    assert!(unknown.contains("keep 5000 base units of bitcoin/native at m/2"), "{unknown}");
}

#[test]
fn the_key_of_another_output_does_not_make_it_own() {
    let child = signer(&[3]);
    let mut psbt = usual();
    let path: DerivationPath = vec![ChildNumber::from(3)].into();
    psbt.outputs[0].bip32_derivation.insert(child.key().0, (child.fingerprint(), path));
    assert_eq!(decode(&psbt).outputs_external(), 1);
}

#[test]
fn every_input_must_bring_the_transaction_that_it_spends() {
    let own = own();
    let two = || psbt(&[paying(&own.p2wpkh, 10), paying(&own.p2wpkh, 20)], vec![paying(&stranger(), 5)]);
    let mut without = two();
    let previous = without.inputs[1].non_witness_utxo.take().unwrap();
    without.inputs[1].witness_utxo = Some(previous.output[1].clone());
    assert!(refusal(&without).contains("no `non_witness_utxo`"));

    let mut other = two();
    other.inputs[1].non_witness_utxo = other.inputs[0].non_witness_utxo.clone();
    assert!(refusal(&other).contains("is not the transaction"));

    let mut lie = two();
    lie.inputs[1].witness_utxo = Some(paying(&own.p2wpkh, 2_000));
    assert!(refusal(&lie).contains("`witness_utxo`"));

    let mut beyond = two();
    beyond.unsigned_tx.input[1].previous_output.vout = 2;
    assert!(refusal(&beyond).contains("no output 2"));

    let mut twice = two();
    twice.unsigned_tx.input[1].previous_output = twice.unsigned_tx.input[0].previous_output;
    assert!(refusal(&twice).contains("another input spends"));
}

#[test]
fn a_signature_hash_type_other_than_all_is_refused() {
    let accepted = PsbtSighashType::from(EcdsaSighashType::All);
    for value in [0u32, 1, 2, 3, 0x81, 0x82, 0x83, 0x101] {
        let mut psbt = usual();
        psbt.inputs[0].sighash_type = Some(PsbtSighashType::from_u32(value));
        let result = decode_by(&psbt, 0, &signer(&[]));
        assert_eq!(result.is_ok(), PsbtSighashType::from_u32(value) == accepted, "{value}");
    }
}

#[test]
fn inputs_that_this_key_cannot_spend_by_ecdsa_are_refused() {
    let taproot = ScriptBuf::from_hex(&format!("5120{}", "79".repeat(32))).unwrap();
    let why = refusal(&psbt(&[paying(&taproot, 10)], vec![paying(&stranger(), 5)]));
    assert!(why.contains("Schnorr"), "{why}");
    for script in [stranger(), ScriptBuf::new(), ScriptBuf::from_hex(&format!("0020{}", "11".repeat(32))).unwrap()] {
        refusal(&psbt(&[paying(&script, 10)], vec![paying(&stranger(), 5)]));
    }
    let mut redeem = usual();
    redeem.inputs[0].redeem_script = Some(stranger());
    refusal(&redeem);
    let mut witness = usual();
    witness.inputs[0].witness_script = Some(stranger());
    refusal(&witness);
}

#[test]
fn an_input_that_is_not_there_or_not_named_is_refused() {
    let psbt = usual();
    assert!(refused(decode_by(&psbt, 1, &signer(&[]))).contains("no input 1"));
    let unnamed = decode_payload(&intent(&psbt.serialize(), None), &signer(&[]));
    assert!(refused(unnamed).contains("input_index"));
}

#[test]
fn amounts_that_do_not_add_up_are_refused() {
    let own = own();
    let more = psbt(&[paying(&own.p2wpkh, 10)], vec![paying(&stranger(), 11)]);
    assert!(refusal(&more).contains("its outputs have"));
    let overflow = psbt(&[paying(&own.p2wpkh, 10)], vec![paying(&stranger(), u64::MAX), paying(&stranger(), 2)]);
    assert!(refusal(&overflow).contains("more than all bitcoin"));
    let minted = psbt(&[paying(&own.p2wpkh, u64::MAX), paying(&own.p2wpkh, 2)], vec![paying(&stranger(), 2)]);
    assert!(refusal(&minted).contains("more than all bitcoin"));
}

#[test]
fn bytes_around_a_psbt_are_refused() {
    let bytes = usual().serialize();
    let by = |bytes: &[u8]| refused(decode_payload(&intent(bytes, Some(0)), &signer(&[])));
    assert!(by(&[bytes.as_slice(), &[0]].concat()).contains("follow"));
    for end in 0..bytes.len() {
        by(&bytes[..end]);
    }
    for payload in ["", "not base64!", "cHNidP8=", "cHNidP8A"] {
        let intent = Intent { payload: payload.into(), ..intent(&[], Some(0)) };
        refused(decode_payload(&intent, &signer(&[])));
    }
    // PSBT version 2 (BIP-370) has no unsigned transaction.
    let mut second = usual();
    second.version = 2;
    by(&second.serialize());
    // No inputs at all.
    by(&psbt(&[], vec![paying(&stranger(), 1)]).serialize());
}

proptest! {
    #[test]
    fn random_bytes_never_crash_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
        let bytes = if magic { [b"psbt\xff".as_slice(), &bytes].concat() } else { bytes };
        let _ = decode_payload(&intent(&bytes, Some(0)), &signer(&[]));
    }

    #[test]
    fn a_changed_byte_of_the_transaction_is_refused_or_changes_the_hash(position in 0usize..119, flip in 1u8..=255) {
        let psbt = usual();
        let honest = decode(&psbt).digest();
        let mut bytes = psbt.serialize();
        // Magic, the key of the unsigned transaction, and its length come first.
        bytes[8 + position % 113] ^= flip;
        if let Ok(understood) = decode_payload(&intent(&bytes, Some(0)), &signer(&[])) {
            prop_assert_ne!(understood.digest(), honest);
        }
    }

    #[test]
    fn a_changed_byte_never_crashes_nor_hides_an_output(position: prop::sample::Index, flip in 1u8..=255) {
        let psbt = usual();
        let mut bytes = psbt.serialize();
        let position = position.index(bytes.len());
        bytes[position] ^= flip;
        if let Ok(understood) = decode_payload(&intent(&bytes, Some(0)), &signer(&[]))
            && understood.digest() == decode(&psbt).digest()
        {
            prop_assert_eq!(receivers(&understood), receivers(&decode(&psbt)));
        }
    }
}
