//! One effect as policies see it in `context.tx`: with the names and units of the bundle's asset table.

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

use crate::amount::Decimal;
use crate::bundle::tables::{Asset, Assets};
use crate::intent::{
    Account, Address, AssetRef, Chain, Effect, EffectKind, Method, Reading, Standard, TypedData, Understood,
};

/// `context.tx`. The serialized form is what refusals show as observed, and what test cases give under `effects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tx {
    pub(crate) kind: EffectKind,
    #[serde(default = "ethereum")]
    pub(crate) chain: String,
    /// 0 for Bitcoin, and for what holds on every chain of Ethereum.
    #[serde(default)]
    pub(crate) chain_id: i64,
    /// Who receives or is empowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// The contract that is called, or that checks typed data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contract: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// A symbol of the asset table, else the chain and contract; `anything` and `nothing` where no asset is named.
    pub(crate) asset: String,
    pub(crate) amount: Decimal,
    #[serde(default)]
    pub(crate) amount_base: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_id: Option<String>,
    #[serde(default = "zero")]
    pub(crate) fee: Decimal,
    #[serde(default = "one")]
    pub(crate) outputs_external: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) typed_data: Option<TypedData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

impl Tx {
    /// Names every effect of an intent.
    pub(crate) fn all_of(understood: &Understood, assets: &Assets) -> Vec<Self> {
        let external = i64::try_from(understood.outputs_external()).unwrap_or(i64::MAX);
        understood.effects().map(|effect| Self::resolve(effect, external, assets)).collect()
    }

    /// Names an effect. An asset that the table does not know gets the largest amount, so that limits refuse it.
    fn resolve(effect: &Effect, outputs_external: i64, assets: &Assets) -> Self {
        let chain = effect.chain;
        let settled = Settled::of(effect, assets);
        let native = assets.find(chain, AssetRef::Native);
        Self {
            kind: settled.kind,
            chain: chain.as_str().into(),
            chain_id: i64::try_from(chain.id()).unwrap_or(i64::MAX),
            to: settled.to.as_ref().map(|account| account_id(chain, account)),
            contract: effect.contract.map(|address| account_id(chain, &Account::Ethereum(address))),
            method: effect.method.as_ref().map(Method::to_text),
            asset: assets
                .find(chain, settled.asset)
                .map_or_else(|| asset_id(chain, settled.asset), |known| known.symbol.clone()),
            amount: settled.whole,
            amount_base: settled.amount.to_string(),
            token_id: settled.token_id.map(|id| id.to_string()),
            // Nothing is nothing in any unit; what signs no transaction pays no fee.
            fee: if effect.fee.is_zero() { Decimal::ZERO } else { whole_units(native, effect.fee) },
            outputs_external,
            typed_data: effect.typed_data.clone(),
            message: effect.message.clone(),
        }
    }
}

/// An effect after the asset table has said which standard the token's contract follows.
pub(crate) struct Settled {
    pub(crate) kind: EffectKind,
    to: Option<Account>,
    pub(crate) asset: AssetRef,
    amount: U256,
    token_id: Option<U256>,
    whole: Decimal,
}

impl Settled {
    /// The amount that spend windows count, in base units: the largest if the asset is known but this amount of it is not.
    pub(crate) fn charged(&self, chain: Chain, assets: &Assets) -> U256 {
        let known = assets.find(chain, self.asset).is_some();
        if known && self.whole == Decimal::MAX { U256::MAX } else { self.amount }
    }

    pub(crate) fn of(effect: &Effect, assets: &Assets) -> Self {
        let contract = effect.contract.map_or(AssetRef::Nothing, AssetRef::Token);
        let as_it_stands = Self {
            kind: effect.kind,
            to: effect.to.clone(),
            asset: effect.asset,
            amount: effect.amount,
            token_id: effect.token_id,
            whole: match effect.asset {
                AssetRef::Nothing => Decimal::ZERO,
                AssetRef::Anything if effect.amount.is_zero() => Decimal::ZERO,
                AssetRef::Anything => Decimal::MAX,
                asset => whole_units(assets.find(effect.chain, asset), effect.amount),
            },
        };
        let one_token = |kind, to, known, id| Self {
            kind,
            to,
            asset: contract,
            amount: U256::ONE,
            token_id: Some(id),
            whole: whole_units(Some(known), U256::ONE),
        };
        let known = assets.find(effect.chain, contract);
        match (effect.reading, known.map(|asset| (asset, asset.standard))) {
            (Reading::TransferFrom { to, value }, Some((asset, Standard::Erc20))) => Self {
                kind: EffectKind::TokenTransfer,
                to: Some(Account::Ethereum(to)),
                asset: contract,
                amount: value,
                token_id: None,
                whole: whole_units(Some(asset), value),
            },
            (Reading::TransferFrom { to, value }, Some((asset, Standard::Erc721))) => {
                one_token(EffectKind::NftTransfer, Some(Account::Ethereum(to)), asset, value)
            }
            (Reading::Approve, Some((asset, Standard::Erc721))) => {
                one_token(effect.kind, effect.to.clone(), asset, effect.amount)
            }
            (Reading::Approve, Some((_, Standard::Erc1155))) => Self { whole: Decimal::MAX, ..as_it_stands },
            (Reading::Of(standard), _) => {
                let listed = assets.find(effect.chain, effect.asset).map(|asset| asset.standard);
                match listed {
                    Some(listed) if listed != standard => Self { whole: Decimal::MAX, ..as_it_stands },
                    Some(_) | None => as_it_stands,
                }
            }
            (Reading::Settled | Reading::Approve | Reading::TransferFrom { .. }, _) => as_it_stands,
        }
    }
}

fn whole_units(asset: Option<&Asset>, base: U256) -> Decimal {
    asset.map_or(Decimal::MAX, |known| Decimal::from_base_units(base, known.decimals))
}

/// The id of an `Mpc::Address`: `eip155:<chain id>:<0x, lower-case hex>`, or `bitcoin:<script in lower-case hex>`.
pub(crate) fn account_id(chain: Chain, account: &Account) -> String {
    match chain {
        Chain::Ethereum(id) => format!("eip155:{id}:{}", account.to_text()),
        Chain::Bitcoin => format!("bitcoin:{}", account.to_text()),
    }
}

/// An asset's id, whatever the asset table calls it.
pub(crate) fn asset_id(chain: Chain, asset: AssetRef) -> String {
    let chain = match chain {
        Chain::Ethereum(id) => format!("eip155:{id}"),
        Chain::Bitcoin => "bitcoin".into(),
    };
    match asset {
        AssetRef::Native => format!("{chain}/native"),
        AssetRef::Token(contract) => format!("{chain}/{}", address_text(contract)),
        AssetRef::Anything => "anything".into(),
        AssetRef::Nothing => "nothing".into(),
    }
}

fn address_text(address: Address) -> String {
    Account::Ethereum(address).to_text()
}

fn ethereum() -> String {
    "ethereum".into()
}

fn zero() -> Decimal {
    Decimal::ZERO
}

fn one() -> i64 {
    1
}

#[cfg(test)]
mod tests;
