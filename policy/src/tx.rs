//! One effect as policies see it in `context.tx`: with the names and units of the bundle's asset table.

use serde::{Deserialize, Serialize};

use crate::amount::Decimal;
use crate::bundle::tables::Assets;
use crate::intent::{Address, AssetRef, Effect, EffectKind, Understood};

/// `context.tx`. The serialized form is what refusals show as observed, and what test cases give under `effects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tx {
    pub(crate) kind: EffectKind,
    #[serde(default = "ethereum")]
    pub(crate) chain: String,
    pub(crate) chain_id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contract: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    pub(crate) asset: String,
    pub(crate) amount: Decimal,
    #[serde(default)]
    pub(crate) amount_base: String,
    #[serde(default = "zero")]
    pub(crate) fee: Decimal,
    #[serde(default = "one")]
    pub(crate) outputs_external: i64,
}

impl Tx {
    /// Names every effect of an intent.
    pub(crate) fn all_of(understood: &Understood, assets: &Assets) -> Vec<Self> {
        let count = understood.effects().count();
        understood.effects().map(|effect| Self::resolve(effect, count, assets)).collect()
    }

    /// Names an effect. An asset that the table does not know gets the largest amount, so that limits refuse it.
    fn resolve(effect: &Effect, effects_in_all: usize, assets: &Assets) -> Self {
        let chain_id = effect.chain_id;
        let in_whole_units = |asset: AssetRef, base| {
            assets.find(chain_id, asset).map_or(Decimal::MAX, |known| Decimal::from_base_units(base, known.decimals))
        };
        Self {
            kind: effect.kind,
            chain: ethereum(),
            chain_id: i64::try_from(chain_id).unwrap_or(i64::MAX),
            to: effect.to.map(|address| account_id(chain_id, address)),
            contract: effect.contract.map(|address| account_id(chain_id, address)),
            method: effect.method.as_ref().map(crate::intent::Method::to_text),
            asset: assets
                .find(chain_id, effect.asset)
                .map_or_else(|| unknown_asset(chain_id, effect.asset), |known| known.symbol.clone()),
            amount: in_whole_units(effect.asset, effect.amount),
            amount_base: effect.amount.to_string(),
            fee: in_whole_units(AssetRef::Native, effect.fee),
            outputs_external: i64::try_from(effects_in_all).unwrap_or(i64::MAX),
        }
    }
}

/// The id of an `Mpc::Address`: `eip155:<chain id>:<0x, lower-case hex>`.
pub(crate) fn account_id(chain_id: u64, address: Address) -> String {
    format!("eip155:{chain_id}:0x{}", hex::encode(address))
}

fn unknown_asset(chain_id: u64, asset: AssetRef) -> String {
    match asset {
        AssetRef::Native => format!("eip155:{chain_id}/native"),
        AssetRef::Token(contract) => format!("eip155:{chain_id}/0x{}", hex::encode(contract)),
    }
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
