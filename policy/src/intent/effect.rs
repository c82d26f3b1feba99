//! Effects: what an intent does, one at a time. Policy judges each of them.

use alloy_primitives::{Address, Selector, U256};

/// What kind of thing an effect is, as policies see it in `context.tx.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// The chain's own coin goes to an address.
    NativeTransfer,
    /// A fungible token goes to an address.
    TokenTransfer,
    /// A token that is not like the others goes to an address: ERC-721, or an id of ERC-1155.
    NftTransfer,
    /// Somebody may take tokens later, up to an amount: `approve`, permits, Permit2.
    Allowance,
    /// Somebody may take every token of a contract: `setApprovalForAll`.
    OperatorApproval,
    /// A contract is called in a way that is not decoded further.
    ContractCall,
    /// A contract is created.
    ContractCreation,
    /// An account gives its behaviour to a contract (EIP-7702).
    AccountDelegation,
    /// Bitcoin goes to a script that is not this key's own.
    BitcoinOutput,
    /// Typed data (EIP-712) that is not understood further: an order, a vote, a login.
    TypedData,
    /// A message for people (EIP-191).
    Message,
}

/// What an effect does to the key's owner. Spend windows count what moves; limits on amounts bind both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nature {
    /// Its amount leaves.
    MovesValue,
    /// Nothing leaves now, but somebody can do something with the signature.
    Empowers,
}

impl EffectKind {
    /// The kind as policies and logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NativeTransfer => "native_transfer",
            Self::TokenTransfer => "token_transfer",
            Self::NftTransfer => "nft_transfer",
            Self::Allowance => "allowance",
            Self::OperatorApproval => "operator_approval",
            Self::ContractCall => "contract_call",
            Self::ContractCreation => "contract_creation",
            Self::AccountDelegation => "account_delegation",
            Self::BitcoinOutput => "bitcoin_output",
            Self::TypedData => "typed_data",
            Self::Message => "message",
        }
    }

    /// Whether the amount of such an effect leaves.
    pub fn nature(self) -> Nature {
        match self {
            Self::NativeTransfer
            | Self::TokenTransfer
            | Self::NftTransfer
            | Self::ContractCall
            | Self::ContractCreation
            | Self::BitcoinOutput => Nature::MovesValue,
            Self::Allowance | Self::OperatorApproval | Self::AccountDelegation | Self::TypedData | Self::Message => {
                Nature::Empowers
            }
        }
    }
}

/// Where an effect takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// An EIP-155 chain id, at most `i64::MAX`. 0 is what names no chain, and so holds on every one: a message, typed data
    /// without `chainId`, an EIP-7702 authorization for all chains.
    Ethereum(u64),
    /// Bitcoin. Scripts do not tell its networks apart, so neither does this.
    Bitcoin,
}

impl Chain {
    /// `ethereum` or `bitcoin`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ethereum(_) => "ethereum",
            Self::Bitcoin => "bitcoin",
        }
    }

    /// The EIP-155 chain id; 0 for Bitcoin.
    pub fn id(self) -> u64 {
        match self {
            Self::Ethereum(id) => id,
            Self::Bitcoin => 0,
        }
    }
}

/// Who receives or is empowered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// An account of Ethereum.
    Ethereum(Address),
    /// The script of a Bitcoin output.
    Script(Vec<u8>),
}

impl Account {
    /// `0x` and the lower-case hex of an address, or the lower-case hex of a script.
    pub fn to_text(&self) -> String {
        match self {
            Self::Ethereum(address) => lower_hex(address),
            Self::Script(script) => hex::encode(script),
        }
    }
}

/// The method of a contract that a call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// One whose arguments were decoded.
    Known(&'static str),
    /// Any other, by its four bytes.
    Selector(Selector),
    /// Call data too short to hold a selector.
    Fallback,
}

impl Method {
    /// The name, `0x` and the selector, or `fallback`.
    pub fn to_text(&self) -> String {
        match self {
            Self::Known(name) => (*name).to_owned(),
            Self::Selector(selector) => selector.to_string(),
            Self::Fallback => "fallback".to_owned(),
        }
    }
}

/// What an amount is an amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AssetRef {
    /// The chain's own coin.
    Native,
    /// A token, by its contract.
    Token(Address),
    /// Whatever the key holds: what typed data or a delegation could move is not known.
    Anything,
    /// Nothing at all: a message.
    Nothing,
}

/// Which interface a token's contract has, by the bundle's asset table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standard {
    /// Fungible tokens (EIP-20).
    #[default]
    Erc20,
    /// One owner for each token id (EIP-721).
    Erc721,
    /// Balances for each token id (EIP-1155).
    Erc1155,
}

/// How far an effect depends on what the asset table says of the token's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It does not.
    Settled,
    /// The call is one of this standard; the amount means nothing if the table names another.
    Of(Standard),
    /// `approve`: the amount of an ERC-20 token, or the id of one ERC-721 token.
    Approve,
    /// `transferFrom`: the amount of an ERC-20 token, or the id of one ERC-721 token, goes to `to`. A contract that the
    /// table does not know stays a contract call.
    TransferFrom {
        /// Who receives.
        to: Address,
        /// Amount or id.
        value: U256,
    },
}

/// The parts of EIP-712 typed data that policies see.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypedData {
    /// `name` of the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// `verifyingContract` of the domain: `0x` and lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifying_contract: Option<String>,
    /// The type of the message.
    pub primary_type: String,
}

/// An output of a Bitcoin transaction that stays with the key, and so is no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnOutput {
    /// Its place among the transaction's outputs, from 0.
    pub index: usize,
    /// In satoshi.
    pub amount: U256,
    /// The script that it pays to.
    pub script: Vec<u8>,
    /// Where the key that can spend it stands below the threshold key, such as `m/1/7`; `m` is that key itself.
    pub path: String,
}

/// One effect, in base units and without names: those come from the bundle's asset table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What it is, as far as that is known without the asset table.
    pub kind: EffectKind,
    /// Where.
    pub chain: Chain,
    /// Who receives or is empowered.
    pub to: Option<Account>,
    /// The contract that is called, or that checks the signature.
    pub contract: Option<Address>,
    /// Its method.
    pub method: Option<Method>,
    /// What leaves, or may be taken.
    pub asset: AssetRef,
    /// How much of it, in base units; the largest number where there is no limit.
    pub amount: U256,
    /// The id of a token that is not like the others.
    pub token_id: Option<U256>,
    /// The most that the whole transaction can cost in fees, in base units of the native coin. Every effect of a
    /// transaction says the same; it is paid once.
    pub fee: U256,
    /// What the asset table has to settle.
    pub reading: Reading,
    /// Of typed data.
    pub typed_data: Option<TypedData>,
    /// The text of a message; `0x` and hex for bytes that are no UTF-8, and for text that begins with `0x`.
    pub message: Option<String>,
}

impl Effect {
    /// An effect in which nothing moves yet; decoders fill in the rest.
    pub(super) fn bare(kind: EffectKind, chain: Chain) -> Self {
        Self {
            kind,
            chain,
            to: None,
            contract: None,
            method: None,
            asset: AssetRef::Native,
            amount: U256::ZERO,
            token_id: None,
            fee: U256::ZERO,
            reading: Reading::Settled,
            typed_data: None,
            message: None,
        }
    }

    /// The contract that is called or checks the signature, where it is not the token's own.
    pub(crate) fn contract_beside_token(&self) -> Option<Address> {
        match self.asset {
            AssetRef::Token(token) => self.contract.filter(|contract| *contract != token),
            AssetRef::Native | AssetRef::Anything | AssetRef::Nothing => None,
        }
    }
}

pub(crate) fn lower_hex(address: &Address) -> String {
    format!("0x{}", hex::encode(address))
}
