//! Effects in words for approvers: whole units, symbols, and the address books that a receiver stands in.

use alloy_primitives::U256;

use crate::amount::Decimal;
use crate::bundle::tables::Tables;
use crate::intent::{Account, AssetRef, Chain, Effect, EffectKind, OwnOutput, Understood};
use crate::tx::{Tx, account_id, asset_id};

/// A sentence for each effect and each output that comes back, and one for the fee.
pub(crate) fn sentences(understood: &Understood, tables: &Tables) -> Vec<String> {
    let effects = Tx::all_of(understood, &tables.assets);
    let fee = effects.first().and_then(fee);
    let each = effects.iter().zip(understood.effects());
    let effects = each.map(|(tx, effect)| sentence(tx, tables) + &through(effect, tables));
    effects.chain(understood.own_outputs().iter().map(|own| kept(own, tables))).chain(fee).collect()
}

/// Change, which approvers see but policies do not judge.
fn kept(own: &OwnOutput, tables: &Tables) -> String {
    let OwnOutput { index, amount, path, .. } = own;
    let amount = match tables.assets.find(Chain::Bitcoin, AssetRef::Native) {
        Some(known) => {
            let whole = Decimal::from_base_units(*amount, known.decimals);
            format!("{whole} {} ({amount} base units)", known.symbol)
        }
        None => format!("{amount} base units of {}", asset_id(Chain::Bitcoin, AssetRef::Native)),
    };
    format!("keep {amount} at {path} of this key (output {index})")
}

/// The contract that is called, where it is not that of the token.
fn through(effect: &Effect, tables: &Tables) -> String {
    let Some(contract) = effect.contract_beside_token() else { return String::new() };
    let contract = with_books(&account_id(effect.chain, &Account::Ethereum(contract)), tables);
    match &effect.method {
        Some(method) => format!(", by method {} of the contract {contract}", method.to_text()),
        None => format!(", by typed data for the contract {contract}"),
    }
}

/// One sentence for an effect.
pub(crate) fn sentence(tx: &Tx, tables: &Tables) -> String {
    let place = |id: &Option<String>| id.as_ref().map_or_else(|| "nobody".to_owned(), |id| with_books(id, tables));
    let (to, contract) = (place(&tx.to), place(&tx.contract));
    let amount = amount(tx);
    let id = tx.token_id.as_ref().map(|id| format!(", token id {id},")).unwrap_or_default();
    let typed = tx.typed_data.as_ref();
    match tx.kind {
        EffectKind::NativeTransfer | EffectKind::TokenTransfer | EffectKind::NftTransfer => {
            format!("send {amount}{id} to {to}")
        }
        EffectKind::BitcoinOutput if tx.to.is_none() => "pay to nobody but this key".into(),
        EffectKind::BitcoinOutput => format!("send {amount} to {to}"),
        EffectKind::Allowance => format!("allow {to} to take {amount}{id} at any time"),
        EffectKind::OperatorApproval if tx.amount == Decimal::ZERO => {
            format!("no longer let {to} take any {} of this account", tx.asset)
        }
        EffectKind::OperatorApproval => format!("let {to} take every {} of this account at any time", tx.asset),
        EffectKind::ContractCall => {
            let method = tx.method.as_deref().unwrap_or("unknown");
            format!("call method {method} of the contract {contract} with {amount}; what it does is not known")
        }
        EffectKind::ContractCreation => format!("create a contract with {amount}"),
        EffectKind::AccountDelegation if tx.amount == Decimal::ZERO => "take an account's delegation back".into(),
        EffectKind::AccountDelegation => {
            let chain = if tx.chain_id == 0 { "every chain".into() } else { format!("chain {}", tx.chain_id) };
            format!("let the code of {to} act as an account on {chain}, with all that it holds")
        }
        EffectKind::TypedData => {
            let primary = typed.map(|data| data.primary_type.as_str()).unwrap_or_default();
            let domain = typed.and_then(|data| data.domain_name.as_deref()).unwrap_or_default();
            format!(
                "sign typed data `{primary}` for {domain:?} of the contract {contract}; what it can do is not known"
            )
        }
        EffectKind::Message => format!("sign the message {:?}", tx.message.as_deref().unwrap_or_default()),
    }
}

/// The fee of a transaction, which all of its effects state; `None` where nothing is paid.
fn fee(tx: &Tx) -> Option<String> {
    match tx.fee {
        Decimal::ZERO => None,
        Decimal::MAX => Some("pay a fee in a coin that the asset table does not know".into()),
        fee => Some(format!("pay at most {fee} of the chain's own coin in fees")),
    }
}

fn amount(tx: &Tx) -> String {
    let (asset, base) = (&tx.asset, &tx.amount_base);
    match tx.amount {
        _ if *base == U256::MAX.to_string() => format!("an unlimited amount of {asset}"),
        Decimal::MAX => format!("{base} base units of {asset}, whose value is not known,"),
        whole => format!("{whole} {asset} ({base} base units)"),
    }
}

fn with_books(id: &str, tables: &Tables) -> String {
    let books: Vec<&str> = tables.books_of(id).collect();
    if books.is_empty() {
        format!("{id} (in no address book)")
    } else {
        format!("{id} (address book {})", books.join(", "))
    }
}
