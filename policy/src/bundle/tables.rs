//! `entities.json`: what policies refer to by name.
//!
//! ```json
//! {
//!   "assets": [
//!     { "chain": "eip155:1", "symbol": "ETH", "decimals": 18 },
//!     { "chain": "eip155:1", "contract": "0xa0b8…eb48", "symbol": "USDC", "decimals": 6 },
//!     { "chain": "eip155:1", "contract": "0xbc4c…f13d", "symbol": "BAYC", "decimals": 0, "standard": "erc721" },
//!     { "chain": "bitcoin", "symbol": "BTC", "decimals": 8 }
//!   ],
//!   "address_books": [
//!     { "name": "treasury", "addresses": [ { "address": "eip155:1:0x3535…3535", "note": "cold storage" } ] }
//!   ],
//!   "key_groups": [
//!     { "name": "hot", "labels": ["hot-1"], "public_keys": ["02…"] }
//!   ],
//!   "calendars": [
//!     { "name": "us-holidays", "days": ["2026-12-25", "2027-01-01"] }
//!   ]
//! }
//! ```
//!
//! Address books become `Mpc::AddressBook` with its `Mpc::Address`es, key groups `Mpc::KeyGroup` with the keys that have one
//! of the labels or are named by public key. An asset without `contract` is the chain's own coin; a token follows the
//! `standard` `erc20` unless its row says `erc721` or `erc1155`. A Bitcoin address is `bitcoin:` and an address of the main
//! network, or the script in hex, which serves every network. `context.time.calendars` holds the names of the calendars in
//! which today stands, in the manifest's time zone; a day is `YYYY-MM-DD`. All parts may be left out, `note`s are for
//! readers, and every name is ASCII, so that no two look alike.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use casemate_wire::PublicKey;
use cedar_policy::{Entity, EntityUid};
use serde::Deserialize;

use super::calendars::{CalendarRow, Calendars};
use super::error::BundleError;
use super::files::ENTITIES;
use crate::amount::MAX_DECIMALS;
use crate::evaluate::uid;
use crate::intent::{Account, Address, AssetRef, Chain, Standard};
use crate::tx::account_id;

/// The tables of a bundle.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) assets: Assets,
    /// Address id → the books that it stands in.
    addresses: BTreeMap<String, BTreeSet<String>>,
    books: BTreeSet<String>,
    groups: BTreeMap<String, Group>,
    pub(crate) calendars: Calendars,
}

/// Which assets are known, by chain and contract.
#[derive(Debug, Default)]
pub(crate) struct Assets(BTreeMap<(Chain, AssetRef), Asset>);

/// A known asset.
#[derive(Debug)]
pub(crate) struct Asset {
    pub(crate) symbol: String,
    pub(crate) decimals: u8,
    pub(crate) standard: Standard,
}

#[derive(Debug)]
struct Group {
    labels: BTreeSet<String>,
    public_keys: BTreeSet<String>,
}

impl Assets {
    pub(crate) fn find(&self, chain: Chain, asset: AssetRef) -> Option<&Asset> {
        self.0.get(&(chain, asset))
    }
}

impl Tables {
    /// Reads `entities.json`; without one, the tables are empty.
    pub(crate) fn parse(bytes: Option<&[u8]>) -> Result<Self, BundleError> {
        let Some(bytes) = bytes else {
            return Ok(Self::default());
        };
        // Serde would take a list for a struct whose fields may all be left out.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(BundleError::file(ENTITIES, "it must be one JSON object"));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| BundleError::json(ENTITIES, &error))?;
        Self::build(file).map_err(|why| BundleError::file(ENTITIES, why))
    }

    fn build(file: File) -> Result<Self, String> {
        let mut tables = Self::default();
        let mut symbols = BTreeSet::new();
        for row in file.assets {
            let (key, asset) = row.check()?;
            if !symbols.insert((key.0, asset.symbol.clone())) {
                return Err(format!("asset `{}` stands twice on one chain", asset.symbol));
            }
            if let Some(other) = tables.assets.0.insert(key, asset) {
                return Err(format!("the contract of asset `{}` stands twice", other.symbol));
            }
        }
        for row in file.address_books {
            check_name("address book", &row.name)?;
            if !tables.books.insert(row.name.clone()) {
                return Err(format!("address book `{}` stands twice", row.name));
            }
            for entry in row.addresses {
                let id = canonical_address(&entry.address)?;
                if !tables.addresses.entry(id).or_default().insert(row.name.clone()) {
                    return Err(format!("{} stands twice in address book `{}`", entry.address, row.name));
                }
            }
        }
        for row in file.key_groups {
            check_name("key group", &row.name)?;
            let public_keys = row.public_keys.iter().map(ToString::to_string).collect();
            let group = Group { labels: row.labels, public_keys };
            if tables.groups.insert(row.name.clone(), group).is_some() {
                return Err(format!("key group `{}` stands twice", row.name));
            }
        }
        tables.calendars = Calendars::build(file.calendars)?;
        Ok(tables)
    }

    /// The address books that an address stands in.
    pub(crate) fn books_of(&self, id: &str) -> impl Iterator<Item = &str> {
        self.addresses.get(id).into_iter().flatten().map(String::as_str)
    }

    /// The entity of an address, in the books that it stands in.
    pub(crate) fn address_entity(&self, id: &str) -> Result<Entity, String> {
        let books = self.addresses.get(id).into_iter().flatten();
        let parents = books.map(|book| uid("AddressBook", book)).collect::<Result<_, _>>()?;
        Ok(Entity::new_no_attrs(uid("Address", id)?, parents))
    }

    /// The groups of a key with this label and public key.
    pub(crate) fn groups_of(
        &self,
        label: Option<&str>,
        public_key: Option<&str>,
    ) -> Result<HashSet<EntityUid>, String> {
        self.group_names(label, public_key).into_iter().map(|name| uid("KeyGroup", name)).collect()
    }

    /// The names of the groups of a key with this label and public key.
    pub(crate) fn group_names(&self, label: Option<&str>, public_key: Option<&str>) -> BTreeSet<&str> {
        self.groups
            .iter()
            .filter(|(_, group)| {
                label.is_some_and(|label| group.labels.contains(label))
                    || public_key.is_some_and(|key| group.public_keys.contains(key))
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Whether policies may name an entity of this type and id.
    pub(super) fn has(&self, type_name: &str, id: &str) -> bool {
        match type_name {
            "Mpc::Address" => self.addresses.contains_key(id),
            "Mpc::AddressBook" => self.books.contains(id),
            "Mpc::KeyGroup" => self.groups.contains_key(id),
            "Mpc::Key" => self.groups.values().any(|group| group.public_keys.contains(id)),
            "Mpc::KeySlot" => id == "new",
            "Mpc::Appliance" => id == "self",
            _ => false,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    assets: Vec<AssetRow>,
    #[serde(default)]
    address_books: Vec<BookRow>,
    #[serde(default)]
    key_groups: Vec<GroupRow>,
    #[serde(default)]
    calendars: Vec<CalendarRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssetRow {
    chain: String,
    #[serde(default)]
    contract: Option<String>,
    symbol: String,
    decimals: u8,
    #[serde(default)]
    standard: Option<Standard>,
}

impl AssetRow {
    fn check(self) -> Result<((Chain, AssetRef), Asset), String> {
        check_name("asset symbol", &self.symbol)?;
        if self.decimals > MAX_DECIMALS {
            return Err(format!("asset `{}` has more than {MAX_DECIMALS} decimals", self.symbol));
        }
        let chain = chain(&self.chain)?;
        let asset = match (&self.contract, chain) {
            (None, _) if self.standard.is_some() => {
                return Err(format!("asset `{}` has a `standard` but no `contract`", self.symbol));
            }
            (None, _) => AssetRef::Native,
            (Some(_), Chain::Bitcoin) => {
                return Err(format!("asset `{}` has a `contract`, but Bitcoin has none", self.symbol));
            }
            (Some(contract), Chain::Ethereum(_)) => AssetRef::Token(address(contract)?),
        };
        let standard = self.standard.unwrap_or_default();
        if standard == Standard::Erc721 && self.decimals != 0 {
            return Err(format!(
                "asset `{}` is erc721, whose tokens cannot be divided: give it 0 decimals",
                self.symbol
            ));
        }
        Ok(((chain, asset), Asset { symbol: self.symbol, decimals: self.decimals, standard }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookRow {
    name: String,
    addresses: Vec<AddressRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressRow {
    address: String,
    #[serde(default, rename = "note")]
    _note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupRow {
    name: String,
    #[serde(default)]
    labels: BTreeSet<String>,
    #[serde(default)]
    public_keys: Vec<PublicKey>,
}

/// Checks the name of something in the tables.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(format!(
            "{what} {name:?} is not a name: use 1 to 64 of A-Z a-z 0-9 . _ -, so that no two look alike"
        ));
    }
    Ok(())
}

fn chain(text: &str) -> Result<Chain, String> {
    if text == "bitcoin" {
        return Ok(Chain::Bitcoin);
    }
    text.strip_prefix("eip155:")
        .and_then(|id| id.parse::<u64>().ok().filter(|parsed| parsed.to_string() == id))
        .filter(|id| *id != 0 && i64::try_from(*id).is_ok())
        .map(Chain::Ethereum)
        .ok_or_else(|| {
            format!("chain {text:?} is not known: write eip155:<chain id>, for example eip155:1, or bitcoin")
        })
}

fn address(text: &str) -> Result<Address, String> {
    let refuse = || format!("{text:?} is not an address: write 0x and 40 lower-case hex digits");
    let digits = text.strip_prefix("0x").ok_or_else(refuse)?;
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(refuse());
    }
    let bytes: [u8; 20] = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(refuse)?;
    Ok(Address::from(bytes))
}

fn canonical_address(text: &str) -> Result<String, String> {
    let (chain_text, account) = text.rsplit_once(':').unwrap_or_default();
    let chain = chain(chain_text)?;
    let account = match chain {
        Chain::Ethereum(_) => Account::Ethereum(address(account)?),
        Chain::Bitcoin => Account::Script(script(account)?),
    };
    Ok(account_id(chain, &account))
}

/// A script in lower-case hex, or an address of Bitcoin's main network. No address is hex: all have other letters.
fn script(text: &str) -> Result<Vec<u8>, String> {
    if let Ok(script) = hex::decode(text)
        && !script.is_empty()
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        return Ok(script);
    }
    let address: bitcoin::Address<_> = text
        .parse()
        .map_err(|error| format!("{text:?} is neither a Bitcoin address nor a script in lower-case hex: {error}"))?;
    let address = address.require_network(bitcoin::Network::Bitcoin).map_err(|_| {
        format!("{text:?} is not an address of Bitcoin's main network: for test networks give the script in hex")
    })?;
    Ok(address.script_pubkey().into_bytes())
}
