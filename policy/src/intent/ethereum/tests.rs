#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, Bytes, TxKind, U256, hex::FromHex, keccak256};
use casemate_wire::{Code, Intent};
use proptest::prelude::*;

use crate::intent::{Account, AssetRef, Chain, EffectKind, IntentError, Method, Understood};
use crate::intent::{Signer, decode, decode_payload, understand};

use super::calls::KNOWN;

mod calls;
mod types;

/// Mainnet transaction 0x0ec0b6a2df4d87424e5f6ad2a654e27aaeb7dac20ae9e8385cc09087ad532ee0 without its signature.
const SET_APPROVAL: &str = "02f86d0142843b9aca008504a817c80082ad62946069a6c32cf691f5982febae4faf8a6f3ab2f0f680b844\
    a22cb4650000000000000000000000005eee75727d804a2b13038928d36f8b188945a57a\
    0000000000000000000000000000000000000000000000000000000000000000c0";
const SET_APPROVAL_HASH: &str = "0d5688ac3897124635b6cf1bc0e29d6dfebceebdc10a54d74f2ef8b56535b682";
/// Mainnet transaction 0xce4dc6d7a7549a98ee3b071b67e970879ff51b5b95d1c340bacd80fa1e1aab31 without its signature.
const SELECTOR_ONLY: &str =
    "02ec0102843b9aca0085029e7822d68298f094d9e1459a7a482635700cbc20bbaf52d495ab9c9680841b55ba3ac0";
/// One ether from nonce 9; made, like the two after it, with eth-account 0.14.
const ETHER: &str =
    "02f00109843b9aca008504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080c0";
const ETHER_HASH: &str = "577f072b4be21dbe73cdd90f32675d67d2fdfefdecfbc579f52025caf096400a";
/// 1.5 USDC.
const TOKEN: &str = "02f86d010a843b9aca008504a817c80082fde894a0b86991c6218b36c1d19d4a2e9eb0ce3606eb4880b844a9059cbb\
    0000000000000000000000003535353535353535353535353535353535353535\
    000000000000000000000000000000000000000000000000000000000016e360c0";
const TOKEN_HASH: &str = "5f876ecab3b5d2394c75453f1192bf7fd641016ca55c9b5b5d8461e24dd71227";
/// 1.5 USDC, and 5 wei for the token's contract.
const BOTH: &str = "02f86d010a843b9aca008504a817c80082fde894a0b86991c6218b36c1d19d4a2e9eb0ce3606eb4805b844a9059cbb\
    0000000000000000000000003535353535353535353535353535353535353535\
    000000000000000000000000000000000000000000000000000000000016e360c0";

const USDC: &str = "a0b86991c6218b36c1d19d4a2e9eb0ce3606eb48";

fn intent(payload: &str) -> Intent {
    Intent { kind: "ethereum_transaction".into(), payload: payload.into(), input_index: None }
}

fn signer() -> Signer {
    let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    Signer::alone(&generator.parse().unwrap()).unwrap()
}

#[allow(clippy::unnecessary_wraps)] // it is compared with options
fn account(address: Address) -> Option<Account> {
    Some(Account::Ethereum(address))
}

fn hash(text: &str) -> [u8; 32] {
    <[u8; 32]>::from_hex(text).unwrap()
}

fn understood(payload: &str) -> Understood {
    decode_payload(&intent(payload), &signer()).unwrap()
}

fn unsigned(tx: &TxEip1559) -> String {
    hex::encode(tx.encoded_for_signing())
}

fn transfer_call(arguments: &[u8]) -> TxEip1559 {
    TxEip1559 {
        chain_id: 1,
        to: TxKind::Call(Address::from_hex(USDC).unwrap()),
        input: Bytes::from([&[0xa9, 0x05, 0x9c, 0xbb], arguments].concat()),
        ..TxEip1559::default()
    }
}

fn refusal(payload: &str) -> String {
    let error = decode_payload(&intent(payload), &signer()).unwrap_err();
    assert_eq!(error.code(), Code::BadRequest, "{error}");
    error.to_string()
}

#[test]
fn published_transactions_hash_to_what_their_senders_signed() {
    let senders = [
        (
            SET_APPROVAL,
            "840cfc572845f5786e702984c2a582528cad4b49b2a10b9db1be7fca90058565",
            "25e7109ceb98168d95b09b18bbf6b685130e0562f233877d492b94eee0c5b6d1",
            "dd6b8b3dc6b7ad97db52f08a275ff4483e024cea",
        ),
        (
            SELECTOR_ONLY,
            "c199674fcb29f353693dd779c017823b954b3c69dffa3cd6b2a6ff7888798039",
            "28ca912de909e7e6cdef9cdcaf24c54dd8c1032946dfa1d85c206b32a9064fe8",
            "001e2b7de757ba469a57bf6b23d982458a07efce",
        ),
    ];
    for (payload, r, s, sender) in senders {
        let signature = k256::ecdsa::Signature::from_scalars(hash(r), hash(s)).unwrap();
        let key = k256::ecdsa::VerifyingKey::recover_from_prehash(
            &understood(payload).digest().0,
            &signature,
            k256::ecdsa::RecoveryId::from_byte(0).unwrap(),
        )
        .unwrap();
        let point = key.to_encoded_point(false);
        assert_eq!(hex::encode(&keccak256(&point.as_bytes()[1..])[12..]), sender);
    }
    assert!(decode(&intent(SET_APPROVAL), &hash(SET_APPROVAL_HASH), &signer()).is_ok());
}

#[test]
fn a_plain_transfer_is_one_effect() {
    let understood = decode(&intent(ETHER), &hash(ETHER_HASH), &signer()).unwrap();
    let effects: Vec<_> = understood.effects().collect();
    assert_eq!(effects.len(), 1);
    assert_eq!(effects[0].kind, EffectKind::NativeTransfer);
    assert_eq!(effects[0].amount, U256::from(10).pow(U256::from(18)));
    assert_eq!(effects[0].fee, U256::from(21_000u64 * 20_000_000_000));
    assert_eq!(effects[0].to, account(Address::repeat_byte(0x35)));
    assert_eq!((effects[0].contract, &effects[0].method), (None, &None));
}

#[test]
fn a_token_transfer_shows_its_recipient_and_contract() {
    let understood = decode(&intent(TOKEN), &hash(TOKEN_HASH), &signer()).unwrap();
    let effects: Vec<_> = understood.effects().collect();
    let usdc = Address::from_hex(USDC).unwrap();
    assert_eq!(effects.len(), 1);
    assert_eq!(effects[0].kind, EffectKind::TokenTransfer);
    assert_eq!(effects[0].amount, U256::from(1_500_000));
    assert_eq!(effects[0].asset, AssetRef::Token(usdc));
    assert_eq!(effects[0].contract, Some(usdc));
    assert_eq!(effects[0].to, account(Address::repeat_byte(0x35)));
    assert_eq!(effects[0].method, Some(Method::Known("transfer")));
}

#[test]
fn a_call_that_moves_ether_and_tokens_has_two_effects() {
    let understood = understood(BOTH);
    let effects: Vec<_> = understood.effects().collect();
    let usdc = Address::from_hex(USDC).unwrap();
    assert_eq!(effects.len(), 2);
    assert_eq!(
        (effects[0].kind, effects[0].amount, effects[0].to.clone()),
        (EffectKind::NativeTransfer, U256::from(5), account(usdc))
    );
    assert_eq!(
        (effects[1].kind, effects[1].amount, effects[1].to.clone()),
        (EffectKind::TokenTransfer, U256::from(1_500_000), account(Address::repeat_byte(0x35)))
    );
}

#[test]
fn unknown_call_data_is_a_contract_call_with_its_selector_and_value() {
    let call = understood(SELECTOR_ONLY);
    let effect = call.effects().next().unwrap();
    assert_eq!(effect.kind, EffectKind::ContractCall);
    assert_eq!(effect.method.as_ref().unwrap().to_text(), "0x1b55ba3a");
    assert_eq!(effect.to, effect.contract.map(Account::Ethereum));

    let short = TxEip1559 { input: Bytes::from(vec![0xa9, 0x05, 0x9c]), value: U256::from(7), ..transfer_call(&[]) };
    let short = understood(&unsigned(&short));
    let effect = short.effects().next().unwrap();
    assert_eq!((effect.kind, effect.amount), (EffectKind::ContractCall, U256::from(7)));
    assert_eq!(effect.method, Some(Method::Fallback));
}

#[test]
fn a_contract_creation_is_not_a_transfer_to_the_zero_address() {
    let creation = TxEip1559 { to: TxKind::Create, value: U256::from(3), ..transfer_call(&[0; 64]) };
    let creation = understood(&unsigned(&creation));
    let effect = creation.effects().next().unwrap();
    assert_eq!((effect.kind, effect.to.clone()), (EffectKind::ContractCreation, None));
    assert_eq!(effect.amount, U256::from(3));

    let burn = TxEip1559 { chain_id: 1, to: TxKind::Call(Address::ZERO), ..TxEip1559::default() };
    let burn = understood(&unsigned(&burn));
    let effect = burn.effects().next().unwrap();
    assert_eq!((effect.kind, effect.to.clone()), (EffectKind::NativeTransfer, account(Address::ZERO)));
}

#[test]
fn an_intent_for_another_hash_is_a_mismatch() {
    let error = decode(&intent(ETHER), &hash(TOKEN_HASH), &signer()).unwrap_err();
    assert_eq!(error.code(), Code::IntentMismatch);
    assert!(matches!(error, IntentError::Mismatch { .. }));
}

#[test]
fn bytes_after_or_missing_from_a_transaction_are_refused() {
    assert!(refusal(&format!("{ETHER}00")).contains("follow"));
    for end in (0..ETHER.len()).step_by(2) {
        refusal(&ETHER[..end]);
    }
}

#[test]
fn a_signed_transaction_is_not_a_preimage() {
    refusal(
        "02f86f0102843b9aca0085029e7822d68298f094d9e1459a7a482635700cbc20bbaf52d495ab9c9680841b55ba3ac080\
         a0c199674fcb29f353693dd779c017823b954b3c69dffa3cd6b2a6ff7888798039\
         a028ca912de909e7e6cdef9cdcaf24c54dd8c1032946dfa1d85c206b32a9064fe8",
    );
}

#[test]
fn rlp_that_is_not_canonical_is_refused() {
    // Nonce 9 with a leading zero, as a long string, and the list with a longer header than it needs.
    refusal(&ETHER.replacen("02f00109", "02f201820009", 1));
    refusal(&ETHER.replacen("02f00109", "02f1018109", 1));
    refusal(&ETHER.replacen("02f0", "02f830", 1));
}

#[test]
fn a_transaction_for_every_chain_or_an_impossible_one_is_refused() {
    let on = |chain_id| unsigned(&TxEip1559 { chain_id, ..transfer_call(&[0; 64]) });
    assert!(refusal(&on(0)).contains("chain id"));
    assert!(refusal(&on(u64::MAX)).contains("chain id"));
}

#[test]
fn a_recipient_of_the_wrong_length_is_refused() {
    refusal(&ETHER.replacen("02f0", "02ef", 1).replacen(
        &format!("94{}", "35".repeat(20)),
        &format!("93{}", "35".repeat(19)),
        1,
    ));
}

#[test]
fn misshapen_transfers_are_refused_as_malformed() {
    let mut dirty = [0; 64];
    for (length, arguments) in [(0, &dirty[..0]), (63, &dirty[..63])] {
        let why = refusal(&unsigned(&transfer_call(arguments)));
        assert!(why.contains(&format!("not {length}")), "{why}");
    }
    refusal(&unsigned(&transfer_call(&[0; 65])));
    for position in 0..12 {
        dirty[position] = 1;
        assert!(refusal(&unsigned(&transfer_call(&dirty))).contains("padded"));
        dirty[position] = 0;
    }
    assert!(decode_payload(&intent(&unsigned(&transfer_call(&dirty))), &signer()).is_ok());
}

#[test]
fn other_transaction_types_and_payloads_are_refused() {
    for payload in ["", "0x", "00", "01c0", "03c0", "04c0", "f86c", "zz", "0", "02", "02c0"] {
        refusal(payload);
    }
    refusal(&"00".repeat(crate::intent::MAX_PAYLOAD));
    let indexed = Intent { input_index: Some(0), ..intent(ETHER) };
    assert_eq!(decode_payload(&indexed, &signer()).unwrap_err().code(), Code::BadRequest);
}

#[test]
fn unknown_types_are_refused_and_raw_is_blind() {
    let of = |kind: &str, payload: &str| Intent { kind: kind.into(), ..intent(payload) };
    let hash = hash(ETHER_HASH);
    let unknown = understand(Some(&of("ethereum", ETHER)), &hash, &signer()).unwrap_err();
    assert_eq!(unknown.code(), Code::BadRequest);
    assert_eq!(understand(None, &hash, &signer()), Ok(None));
    assert_eq!(understand(Some(&of("raw", "")), &hash, &signer()), Ok(None));
    assert!(understand(Some(&of("raw", "00")), &hash, &signer()).is_err());
    assert_eq!(decode(&of("raw", ""), &hash, &signer()).unwrap_err().code(), Code::BlindSigningDenied);
    assert!(understand(Some(&intent(ETHER)), &hash, &signer()).unwrap().is_some());
}

#[test]
fn the_description_holds_every_decoded_field() {
    let described = understood(BOTH).describe();
    assert_eq!(described["chain_id"], 1);
    assert_eq!(described["nonce"], 10);
    assert_eq!(described["to"], format!("0x{USDC}"));
    assert_eq!(described["value"], "5");
    assert_eq!(described["fee"], "1300000000000000");
    assert_eq!(described["effects"][1]["kind"], "token_transfer");
    assert_eq!(described["effects"][1]["to"], format!("0x{}", "35".repeat(20)));
    assert_eq!(described["effects"][1]["amount"], "1500000");

    let huge = TxEip1559 { nonce: u64::MAX, ..transfer_call(&[0; 64]) };
    assert_eq!(understood(&unsigned(&huge)).describe()["nonce"], u64::MAX.to_string());
}

#[test]
fn the_summary_names_amounts_and_receivers() {
    let summary = understood(BOTH).summary();
    for part in [&format!("send 5 wei to 0x{USDC}"), "1500000 base units", &"35".repeat(20), "1300000000000000 wei"] {
        assert!(summary.contains(part), "{summary}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_crash_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300), typed: bool) {
        let prefix = if typed { "02" } else { "" };
        let _ = decode_payload(&intent(&format!("{prefix}{}", hex::encode(bytes))), &signer());
    }

    #[test]
    fn a_changed_byte_is_refused_or_changes_the_hash(position in 0usize..112, flip in 1u8..=255) {
        let mut bytes = hex::decode(TOKEN).unwrap();
        let position = position % bytes.len();
        bytes[position] ^= flip;
        prop_assert!(decode(&intent(&hex::encode(bytes)), &hash(TOKEN_HASH), &signer()).is_err());
    }

    #[test]
    fn every_transaction_decodes_to_its_own_fields(
        chain_id in 1u64..=i64::MAX.unsigned_abs(), nonce: u64, gas_limit: u64, max_fee_per_gas: u128,
        value: [u8; 32], to: [u8; 20], input in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        prop_assume!(KNOWN.iter().all(|known| !input.starts_with(&known.selector)));
        let value = U256::from_be_bytes(value);
        let tx = TxEip1559 {
            chain_id, nonce, gas_limit, max_fee_per_gas, value,
            to: TxKind::Call(to.into()), input: input.into(), ..TxEip1559::default()
        };
        let decoded = decode(&intent(&unsigned(&tx)), &tx.signature_hash().0, &signer()).unwrap();
        let effect = decoded.effects().next().unwrap();
        prop_assert_eq!(effect.amount, value);
        prop_assert_eq!(&effect.to, &account(to.into()));
        prop_assert_eq!(effect.chain, Chain::Ethereum(chain_id));
        prop_assert_eq!(effect.fee, U256::from(gas_limit) * U256::from(max_fee_per_gas));
    }
}
