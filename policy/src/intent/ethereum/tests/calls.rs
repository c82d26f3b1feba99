//! Calls that are understood: what they show, and what is refused about them.

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256, keccak256};
use proptest::prelude::*;

use super::{account, intent, refusal, signer, understood, unsigned};
use crate::intent::ethereum::calls::{KNOWN, PERMIT2};
use crate::intent::{AssetRef, Effect, EffectKind, Method, Reading, Standard, decode_payload};

const CONTRACT: Address = Address::repeat_byte(0xcc);
const TOKEN: Address = Address::repeat_byte(0x70);
const OWNER: Address = Address::repeat_byte(0x01);
const TO: Address = Address::repeat_byte(0x35);

/// An argument, as one word or as a tail.
enum Arg {
    Word(U256),
    Tail(Vec<u8>),
}

fn number(value: u64) -> Arg {
    Arg::Word(U256::from(value))
}

fn address(value: Address) -> Arg {
    Arg::Word(value.into_word().into())
}

fn numbers(values: &[u64]) -> Arg {
    let words = std::iter::once(u64::try_from(values.len()).unwrap()).chain(values.iter().copied());
    Arg::Tail(words.flat_map(|word| U256::from(word).to_be_bytes::<32>()).collect())
}

fn bytes(value: &[u8]) -> Arg {
    let mut tail = U256::from(value.len()).to_be_bytes::<32>().to_vec();
    tail.extend(value);
    tail.resize(tail.len().next_multiple_of(32), 0);
    Arg::Tail(tail)
}

/// Heads and tails, written by hand so that the decoder is not compared with itself.
fn encode(arguments: Vec<Arg>) -> Vec<u8> {
    let mut offset = arguments.len() * 32;
    let (mut heads, mut tails) = (Vec::new(), Vec::new());
    for argument in arguments {
        match argument {
            Arg::Word(word) => heads.extend(word.to_be_bytes::<32>()),
            Arg::Tail(tail) => {
                heads.extend(U256::from(offset).to_be_bytes::<32>());
                offset += tail.len();
                tails.extend(tail);
            }
        }
    }
    [heads, tails].concat()
}

/// A contract that has this method.
fn home(signature: &str) -> Address {
    let known = KNOWN.iter().find(|known| known.signature == signature);
    known.and_then(|known| known.only_on).unwrap_or(CONTRACT)
}

fn call(signature: &str, arguments: &[u8], value: u64) -> String {
    call_on(home(signature), signature, arguments, value)
}

fn call_on(contract: Address, signature: &str, arguments: &[u8], value: u64) -> String {
    let input = [&keccak256(signature)[..4], arguments].concat();
    let (to, value) = (TxKind::Call(contract), U256::from(value));
    unsigned(&TxEip1559 { chain_id: 1, to, value, input: Bytes::from(input), ..TxEip1559::default() })
}

fn effects(signature: &str, arguments: Vec<Arg>) -> Vec<Effect> {
    understood(&call(signature, &encode(arguments), 0)).effects().cloned().collect()
}

fn one(signature: &str, arguments: Vec<Arg>) -> Effect {
    let mut effects = effects(signature, arguments);
    assert_eq!(effects.len(), 1, "{signature}");
    let effect = effects.remove(0);
    assert_eq!(effect.contract, Some(home(signature)));
    effect
}

#[test]
fn selectors_are_those_of_their_signatures() {
    for known in KNOWN {
        assert_eq!(keccak256(known.signature)[..4], known.selector, "{}", known.signature);
    }
}

#[test]
fn allowances_show_who_may_take_how_much() {
    let permit = |end: Vec<Arg>| [vec![address(OWNER), address(TO)], end].concat_args();
    let signature = || vec![number(27), number(8), number(9)];
    let cases = [
        ("approve(address,uint256)", vec![address(TO), number(7)], 7),
        ("increaseAllowance(address,uint256)", vec![address(TO), number(7)], 7),
        (
            "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
            permit([vec![number(7), number(1)], signature()].concat_args()),
            7,
        ),
        (
            "permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)",
            permit([vec![number(0), number(1), number(0)], signature()].concat_args()),
            0,
        ),
    ];
    for (method, arguments, amount) in cases {
        let effect = one(method, arguments);
        assert_eq!((effect.kind, effect.to.clone()), (EffectKind::Allowance, account(TO)), "{method}");
        assert_eq!((effect.asset, effect.amount), (AssetRef::Token(CONTRACT), U256::from(amount)), "{method}");
    }
    let dai = "permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)";
    let granted = one(dai, permit([vec![number(0), number(1), number(1)], signature()].concat_args()));
    assert_eq!(granted.amount, U256::MAX);
}

trait ConcatArgs {
    fn concat_args(self) -> Vec<Arg>;
}

impl<const N: usize> ConcatArgs for [Vec<Arg>; N] {
    fn concat_args(self) -> Vec<Arg> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn an_unlimited_approval_says_so() {
    let arguments = encode(vec![address(TO), Arg::Word(U256::MAX)]);
    let unlimited = understood(&call("approve(address,uint256)", &arguments, 0));
    assert_eq!(unlimited.effects().next().unwrap().amount, U256::MAX);
    assert!(unlimited.summary().contains("unlimited"), "{}", unlimited.summary());
}

#[test]
fn permit2_names_the_token_besides_the_contract() {
    let all: U256 = (U256::ONE << 160usize) - U256::ONE;
    let approve = |amount| vec![address(TOKEN), address(TO), Arg::Word(amount), number(99)];
    for (amount, shown) in [(U256::from(5), U256::from(5)), (all, U256::MAX)] {
        let effect = one("approve(address,address,uint160,uint48)", approve(amount));
        assert_eq!((effect.kind, effect.asset), (EffectKind::Allowance, AssetRef::Token(TOKEN)));
        assert_eq!((effect.to, effect.amount), (account(TO), shown));
    }
    let details = vec![address(TOKEN), number(5), number(1), number(2)];
    let head = [vec![address(OWNER)], details, vec![address(TO), number(9), Arg::Tail(vec![0; 32])]].concat_args();
    let single = one("permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)", head);
    assert_eq!(
        (single.kind, single.asset, single.amount),
        (EffectKind::Allowance, AssetRef::Token(TOKEN), U256::from(5))
    );
    assert_eq!(single.to, account(TO));

    let two =
        [number(2), address(TOKEN), number(5), number(1), number(2), address(OWNER), number(6), number(1), number(2)];
    let batch = encode([vec![number(96), address(TO), number(9)], two.into_iter().collect()].concat_args());
    let arguments = vec![address(OWNER), Arg::Tail(batch), bytes(&[])];
    let batch = effects("permit(address,((address,uint160,uint48,uint48)[],address,uint256),bytes)", arguments);
    let assets: Vec<_> = batch.iter().map(|effect| (effect.asset, effect.amount)).collect();
    assert_eq!(assets, [(AssetRef::Token(TOKEN), U256::from(5)), (AssetRef::Token(OWNER), U256::from(6))]);

    let arguments = vec![address(OWNER), address(TO), number(5), address(TOKEN)];
    let moved = one("transferFrom(address,address,uint160,address)", arguments);
    assert_eq!((moved.kind, moved.asset, moved.to), (EffectKind::TokenTransfer, AssetRef::Token(TOKEN), account(TO)));
}

#[test]
fn the_methods_of_permit2_mean_nothing_on_another_contract() {
    let signature = "transferFrom(address,address,uint160,address)";
    let arguments = encode(vec![address(OWNER), address(TO), number(5), address(TOKEN)]);
    let decoy = understood(&call_on(CONTRACT, signature, &arguments, 6));
    let effects: Vec<_> = decoy.effects().collect();
    assert_eq!(effects.len(), 1);
    assert_eq!((effects[0].kind, effects[0].asset), (EffectKind::ContractCall, AssetRef::Native));
    assert_eq!((&effects[0].to, effects[0].contract), (&account(CONTRACT), Some(CONTRACT)));
    assert_eq!(
        (effects[0].amount, &effects[0].method),
        (U256::from(6), &Some(Method::Selector([0x36, 0xc7, 0x85, 0x16].into())))
    );
    let all: Vec<_> = KNOWN.iter().filter(|known| known.only_on.is_some()).collect();
    assert_eq!(all.len(), 4);
    for known in all {
        let decoy = understood(&call_on(CONTRACT, known.signature, &[], 0));
        assert_eq!(decoy.effects().next().unwrap().kind, EffectKind::ContractCall, "{}", known.signature);
    }

    let real = understood(&call_on(PERMIT2, signature, &arguments, 0));
    let summary = real.summary();
    assert!(
        summary.contains("by method transferFrom of the contract 0x000000000022d473030f116ddee9f6b43ac78ba3"),
        "{summary}"
    );
    let plain = understood(&call("approve(address,uint256)", &encode(vec![address(TO), number(7)]), 0));
    assert!(!plain.summary().contains("by method"), "{}", plain.summary());
}

#[test]
fn tokens_with_ids_show_receiver_id_and_amount() {
    let from_to = || vec![address(OWNER), address(TO)];
    let cases = [
        ("safeTransferFrom(address,address,uint256)", vec![number(42)], 1),
        ("safeTransferFrom(address,address,uint256,bytes)", vec![number(42), bytes(b"hello")], 1),
        ("safeTransferFrom(address,address,uint256,uint256,bytes)", vec![number(42), number(3), bytes(&[7; 40])], 3),
    ];
    for (method, rest, amount) in cases {
        let effect = one(method, [from_to(), rest].concat_args());
        assert_eq!((effect.kind, effect.to), (EffectKind::NftTransfer, account(TO)), "{method}");
        assert_eq!((effect.token_id, effect.amount), (Some(U256::from(42)), U256::from(amount)), "{method}");
        assert_eq!(effect.asset, AssetRef::Token(CONTRACT));
    }
}

#[test]
fn a_batch_has_an_effect_for_each_id() {
    let batch = "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)";
    let of =
        |ids: &[u64], amounts: &[u64]| vec![address(OWNER), address(TO), numbers(ids), numbers(amounts), bytes(&[])];
    let moved = effects(batch, of(&[1, 2, 3], &[10, 20, 30]));
    let each: Vec<_> = moved.iter().map(|effect| (effect.token_id.unwrap().to(), effect.amount.to())).collect();
    assert_eq!(each, [(1u64, 10u64), (2, 20), (3, 30)]);
    assert!(moved.iter().all(|effect| effect.kind == EffectKind::NftTransfer));
    assert!(refusal(&call(batch, &encode(of(&[1, 2], &[10])), 0)).contains("2 ids but 1 amounts"));
    // An empty batch is a call like any other.
    assert_eq!(one(batch, of(&[], &[])).kind, EffectKind::ContractCall);
}

#[test]
fn operators_are_approved_and_removed() {
    let method = "setApprovalForAll(address,bool)";
    for (flag, amount) in [(1, U256::MAX), (0, U256::ZERO)] {
        let effect = one(method, vec![address(TO), number(flag)]);
        assert_eq!((effect.kind, effect.to, effect.amount), (EffectKind::OperatorApproval, account(TO), amount));
    }
    refusal(&call(method, &encode(vec![address(TO), number(2)]), 0));
}

#[test]
fn a_transfer_from_waits_for_the_asset_table() {
    let effect = one("transferFrom(address,address,uint256)", vec![address(OWNER), address(TO), number(42)]);
    assert_eq!((effect.kind, effect.to, effect.amount), (EffectKind::ContractCall, account(CONTRACT), U256::ZERO));
    assert_eq!(effect.reading, Reading::TransferFrom { to: TO, value: U256::from(42) });
    let sent = one("transfer(address,uint256)", vec![address(TO), number(42)]);
    assert_eq!(sent.reading, Reading::Of(Standard::Erc20));
}

#[test]
fn ether_beside_any_known_call_is_an_effect_of_its_own() {
    let arguments = encode(vec![address(OWNER), address(TO), number(42)]);
    for method in ["transferFrom(address,address,uint256)", "safeTransferFrom(address,address,uint256)"] {
        let decoded = understood(&call(method, &arguments, 6));
        let effects: Vec<_> = decoded.effects().collect();
        assert_eq!(effects.len(), 2, "{method}");
        assert_eq!((effects[0].kind, effects[0].amount), (EffectKind::NativeTransfer, U256::from(6)));
        assert_eq!(effects[0].to, account(CONTRACT));
    }
}

#[test]
fn known_calls_of_another_shape_are_malformed() {
    for known in KNOWN {
        let refused = |arguments: &[u8]| drop(refusal(&call(known.signature, arguments, 0)));
        refused(&[]);
        refused(&[0; 31]);
        refused(&[0xff; 600]);
    }
    let with_data = "safeTransferFrom(address,address,uint256,bytes)";
    let good = encode(vec![address(OWNER), address(TO), number(42), bytes(b"hello")]);
    let change = |position: usize, value: u8| {
        let mut bad = good.clone();
        bad[position] = value;
        refusal(&call(with_data, &bad, 0));
    };
    understood(&call(with_data, &good, 0));
    change(0, 1); // the owner's padding
    change(127, 160); // the offset
    change(159, 4); // the length of the data
    change(good.len() - 1, 1); // the data's padding
    refusal(&call(with_data, &[good.as_slice(), &[0; 32]].concat(), 0));
    refusal(&call(with_data, &good[..good.len() - 1], 0));
    // Numbers wider than their type.
    let wide = Arg::Word(U256::ONE << 160usize);
    let arguments = encode(vec![address(TOKEN), address(TO), wide, number(1)]);
    assert!(refusal(&call("approve(address,address,uint160,uint48)", &arguments, 0)).contains("larger than its type"));
}

proptest! {
    #[test]
    fn any_arguments_of_a_known_call_are_refused_or_in_canonical_form(
        which in 0..KNOWN.len(), arguments in prop::collection::vec(prop::sample::select(vec![0u8, 1, 32, 64, 96, 0xff]), 0..400),
    ) {
        let _ = decode_payload(&intent(&call(KNOWN[which].signature, &arguments, 0)), &signer());
    }

    #[test]
    fn a_changed_byte_of_a_transfer_is_refused_or_changes_what_it_shows(position in 0usize..64, flip in 1u8..=255) {
        let good = encode(vec![address(TO), number(5)]);
        let mut bad = good.clone();
        bad[position] ^= flip;
        let shown = |arguments: &[u8]| decode_payload(&intent(&call("transfer(address,uint256)", arguments, 0)), &signer());
        if let Ok(changed) = shown(&bad) {
            let honest = shown(&good).unwrap();
            prop_assert_ne!(changed.effects().collect::<Vec<_>>(), honest.effects().collect::<Vec<_>>());
        }
    }
}
