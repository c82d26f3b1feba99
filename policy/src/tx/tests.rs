#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use alloy_primitives::{Address, U256, keccak256};
use casemate_wire::Intent;

use super::Tx;
use crate::amount::Decimal;
use crate::bundle::tables::Tables;
use crate::intent::{EffectKind, Signer, Understood, decode_payload};

const TOKEN: Address = Address::repeat_byte(0xaa);
const NFT: Address = Address::repeat_byte(0xbb);
const MULTI: Address = Address::repeat_byte(0xcc);
const UNKNOWN: Address = Address::repeat_byte(0xdd);
const TO: Address = Address::repeat_byte(0x35);

fn tables(assets: &str) -> Result<Tables, String> {
    Tables::parse(Some(format!(r#"{{"assets": [{assets}]}}"#).as_bytes())).map_err(|error| error.to_string())
}

fn table() -> Tables {
    tables(&format!(
        r#"{{"chain": "eip155:1", "symbol": "ETH", "decimals": 18}}, {{"chain": "bitcoin", "symbol": "BTC", "decimals": 8}},
           {{"chain": "eip155:1", "contract": "{TOKEN:#x}", "symbol": "USDX", "decimals": 6}},
           {{"chain": "eip155:1", "contract": "{NFT:#x}", "symbol": "APE", "decimals": 0, "standard": "erc721"}},
           {{"chain": "eip155:1", "contract": "{MULTI:#x}", "symbol": "GAME", "decimals": 0, "standard": "erc1155"}}"#
    ))
    .unwrap()
}

fn signer() -> Signer {
    let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    Signer::alone(&generator.parse().unwrap()).unwrap()
}

fn understood(kind: &str, payload: String) -> Understood {
    let intent = Intent { kind: kind.into(), payload, input_index: None };
    decode_payload(&intent, &signer()).unwrap()
}

fn seen(kind: &str, payload: String) -> Vec<Tx> {
    Tx::all_of(&understood(kind, payload), &table().assets)
}

fn called(contract: Address, signature: &str, words: &[U256], value: u64) -> Vec<Tx> {
    seen("ethereum_transaction", calling(contract, signature, words, value))
}

fn calling(contract: Address, signature: &str, words: &[U256], value: u64) -> String {
    use alloy_consensus::SignableTransaction;
    let words = words.iter().flat_map(U256::to_be_bytes::<32>);
    let tx = alloy_consensus::TxEip1559 {
        chain_id: 1,
        to: contract.into(),
        value: U256::from(value),
        input: keccak256(signature)[..4].iter().copied().chain(words).collect(),
        ..Default::default()
    };
    hex::encode(tx.encoded_for_signing())
}

fn word(address: Address) -> U256 {
    address.into_word().into()
}

#[allow(clippy::unnecessary_wraps)] // it is compared with options
fn id(address: Address) -> Option<String> {
    Some(format!("eip155:1:{address:#x}"))
}

#[test]
fn people_read_whole_units_names_and_address_books() {
    let told = |tx: &Tx| {
        let books = format!(
            r#"{{"address_books": [{{"name": "treasury", "addresses": [{{"address": "eip155:1:{TO:#x}"}}]}}]}}"#
        );
        crate::narrate::sentence(tx, &Tables::parse(Some(books.as_bytes())).unwrap())
    };
    let sent = told(&called(TOKEN, "transfer(address,uint256)", &[word(TO), U256::from(2_500_000)], 0)[0]);
    assert_eq!(sent, format!("send 2.5000 USDX (2500000 base units) to eip155:1:{TO:#x} (address book treasury)"));
    let unlimited = told(&called(TOKEN, "approve(address,uint256)", &[word(UNKNOWN), U256::MAX], 0)[0]);
    assert!(
        unlimited.contains("an unlimited amount of USDX") && unlimited.contains("in no address book"),
        "{unlimited}"
    );
    let unknown = told(&called(UNKNOWN, "transfer(address,uint256)", &[word(TO), U256::from(3)], 0)[0]);
    assert!(unknown.contains("3 base units") && unknown.contains("not known"), "{unknown}");
    assert!(told(&seen("eip191", hex::encode("a\nb"))[0]).contains(r#""a\nb""#));
}

#[test]
fn people_read_which_contract_is_called_where_it_is_not_the_token() {
    let permit2: Address = "0x000000000022d473030f116ddee9f6b43ac78ba3".parse().unwrap();
    let words = [word(UNKNOWN), word(TO), U256::from(2_500_000), word(TOKEN)];
    let told = |contract, signature| {
        let call = understood("ethereum_transaction", calling(contract, signature, &words, 0));
        crate::narrate::sentences(&call, &table()).remove(0)
    };
    let through = told(permit2, "transferFrom(address,address,uint160,address)");
    assert!(through.contains("send 2.5000 USDX"), "{through}");
    assert!(through.contains(&format!("by method transferFrom of the contract eip155:1:{permit2:#x}")), "{through}");
    let direct = crate::narrate::sentences(
        &understood("ethereum_transaction", calling(TOKEN, "transfer(address,uint256)", &words[1..3], 0)),
        &table(),
    );
    assert!(!direct[0].contains("by method"), "{direct:?}");
}

const TRANSFER_FROM: &str = "transferFrom(address,address,uint256)";

#[test]
fn a_transfer_from_is_read_by_the_standard_of_its_contract() {
    let words = [word(UNKNOWN), word(TO), U256::from(2_500_000)];
    let token = &called(TOKEN, TRANSFER_FROM, &words, 0)[0];
    assert_eq!((token.kind, token.asset.as_str(), &token.to), (EffectKind::TokenTransfer, "USDX", &id(TO)));
    assert_eq!((token.amount.to_string().as_str(), token.amount_base.as_str()), ("2.5000", "2500000"));

    let nft = &called(NFT, TRANSFER_FROM, &words, 0)[0];
    assert_eq!((nft.kind, nft.asset.as_str(), &nft.to), (EffectKind::NftTransfer, "APE", &id(TO)));
    assert_eq!((nft.amount.to_string().as_str(), nft.amount_base.as_str()), ("1.0000", "1"));
    assert_eq!(nft.token_id.as_deref(), Some("2500000"));

    for contract in [MULTI, UNKNOWN] {
        let call = &called(contract, TRANSFER_FROM, &words, 0)[0];
        assert_eq!((call.kind, &call.to, &call.contract), (EffectKind::ContractCall, &id(contract), &id(contract)));
        assert_eq!(call.method.as_deref(), Some("transferFrom"));
    }
}

#[test]
fn ether_beside_a_transfer_from_is_counted_once() {
    for contract in [TOKEN, NFT, UNKNOWN] {
        let seen = called(contract, TRANSFER_FROM, &[word(UNKNOWN), word(TO), U256::from(1)], 7);
        let ether: Vec<_> = seen.iter().filter(|tx| tx.asset == "ETH").map(|tx| tx.amount_base.as_str()).collect();
        assert_eq!((seen[0].kind, ether[0]), (EffectKind::NativeTransfer, "7"));
        assert!(ether[1..].iter().all(|amount| *amount == "0"), "{ether:?}");
        assert_eq!(seen[1].outputs_external, 2);
    }
}

#[test]
fn an_approval_of_one_token_is_not_an_amount() {
    let words = [word(TO), U256::from(1_000_000)];
    let approved = |contract| called(contract, "approve(address,uint256)", &words, 0).remove(0);
    let token = approved(TOKEN);
    assert_eq!((token.kind, token.amount.to_string().as_str()), (EffectKind::Allowance, "1.0000"));
    let nft = approved(NFT);
    assert_eq!((nft.kind, nft.amount.to_string().as_str()), (EffectKind::Allowance, "1.0000"));
    assert_eq!((nft.amount_base.as_str(), nft.token_id.as_deref()), ("1", Some("1000000")));
    assert_eq!(approved(MULTI).amount, Decimal::MAX);
    assert_eq!(approved(UNKNOWN).amount, Decimal::MAX);
}

#[test]
fn unlimited_approvals_are_the_largest_amount() {
    let approved = &called(TOKEN, "approve(address,uint256)", &[word(TO), U256::MAX], 0)[0];
    assert_eq!((approved.amount, approved.amount_base.clone()), (Decimal::MAX, U256::MAX.to_string()));
    let operator = &called(NFT, "setApprovalForAll(address,bool)", &[word(TO), U256::ONE], 0)[0];
    assert_eq!((operator.kind, operator.amount, &operator.to), (EffectKind::OperatorApproval, Decimal::MAX, &id(TO)));
    let removed = &called(NFT, "setApprovalForAll(address,bool)", &[word(TO), U256::ZERO], 0)[0];
    assert_eq!(removed.amount, Decimal::ZERO);
}

#[test]
fn a_method_that_the_standard_of_the_asset_does_not_have_gets_the_largest_amount() {
    let sent = &called(NFT, "transfer(address,uint256)", &[word(TO), U256::ONE], 0)[0];
    assert_eq!((sent.kind, sent.amount), (EffectKind::TokenTransfer, Decimal::MAX));
    let words = [word(UNKNOWN), word(TO), U256::ONE];
    let safe = &called(TOKEN, "safeTransferFrom(address,address,uint256)", &words, 0)[0];
    assert_eq!((safe.kind, safe.amount), (EffectKind::NftTransfer, Decimal::MAX));
    let listed = &called(NFT, "safeTransferFrom(address,address,uint256)", &words, 0)[0];
    assert_eq!((listed.asset.as_str(), listed.amount.to_string().as_str()), ("APE", "1.0000"));
}

#[test]
fn a_message_moves_and_costs_nothing() {
    let message = &seen("eip191", hex::encode("hello"))[0];
    assert_eq!((message.kind, message.asset.as_str(), message.chain_id), (EffectKind::Message, "nothing", 0));
    assert_eq!((message.amount, message.fee), (Decimal::ZERO, Decimal::ZERO));
    assert_eq!(message.message.as_deref(), Some("hello"));
}

#[test]
fn typed_data_that_is_not_understood_could_move_anything() {
    let data = r#"{"types": {"EIP712Domain": [{"name": "name", "type": "string"}], "Vote": [{"name": "yes", "type": "bool"}]},
        "primaryType": "Vote", "domain": {"name": "DAO"}, "message": {"yes": true}}"#;
    let typed = &seen("eip712", data.into())[0];
    assert_eq!((typed.kind, typed.asset.as_str(), typed.amount), (EffectKind::TypedData, "anything", Decimal::MAX));
    assert_eq!((typed.fee, typed.chain_id), (Decimal::ZERO, 0));
    let facts = typed.typed_data.as_ref().unwrap();
    assert_eq!((facts.domain_name.as_deref(), facts.primary_type.as_str()), (Some("DAO"), "Vote"));
}

#[test]
fn what_refusals_show_reads_back_as_a_test_case() {
    for tx in
        [seen("eip191", hex::encode("hello")), called(NFT, TRANSFER_FROM, &[word(UNKNOWN), word(TO), U256::from(4)], 7)]
            .concat()
    {
        let text = serde_json::to_string(&tx).unwrap();
        assert_eq!(serde_json::from_str::<Tx>(&text).unwrap(), tx);
    }
}

#[test]
fn assets_that_cannot_be_are_refused() {
    let nft = format!(r#""chain": "eip155:1", "contract": "{NFT:#x}", "symbol": "A""#);
    for (row, why) in [
        (format!(r#"{{{nft}, "decimals": 2, "standard": "erc721"}}"#), "0 decimals"),
        (format!(r#"{{{nft}, "decimals": 0, "standard": "erc404"}}"#), "erc404"),
        (r#"{"chain": "eip155:1", "symbol": "ETH", "decimals": 18, "standard": "erc20"}"#.into(), "no `contract`"),
        (
            format!(r#"{{"chain": "bitcoin", "contract": "{NFT:#x}", "symbol": "A", "decimals": 0}}"#),
            "Bitcoin has none",
        ),
        (r#"{"chain": "dogecoin", "symbol": "D", "decimals": 8}"#.into(), "is not known"),
    ] {
        let error = tables(&row).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn bitcoin_addresses_and_scripts_are_one_entry() {
    let book = |addresses: &[&str]| {
        let rows: Vec<_> = addresses.iter().map(|address| serde_json::json!({ "address": address })).collect();
        let file = serde_json::json!({ "address_books": [{ "name": "cold", "addresses": rows }] });
        Tables::parse(Some(file.to_string().as_bytes())).map_err(|error| error.to_string())
    };
    // BIP-173's example and the script that it gives for it.
    let address = "bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let script = "bitcoin:0014751e76e8199196d454941c45d1b3a323f1433bd6";
    let entity = book(&[address]).unwrap().address_entity(script).unwrap();
    assert!(entity.into_inner().2.len() == 1);
    assert!(book(&[address, script]).unwrap_err().contains("twice"));
    book(&["bitcoin:1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bitcoin:3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"]).unwrap();
    for bad in [
        "bitcoin:",
        "bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
        "bitcoin:tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        "bitcoin:0014751E76E8199196D454941C45D1B3A323F1433BD6",
        "bitcoin:0x00",
    ] {
        assert!(book(&[bad]).is_err(), "{bad}");
    }
}
