//! `casemate share list` and `casemate share show`.

use std::error::Error;

use casemate_policy::address::Addresses;
use casemate_policy::intent::Signer;
use casemate_wire::PublicKey;
use casemate_wire::api::ShareView;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::super::audit::plain;
use super::super::since::since;
use super::super::{CommandResult, exit, say};
use super::Format;
use super::reach::{Known, ReachArguments};
use crate::pipeline::parse_path;

/// The most addresses that are shown at a time.
const MAX_ADDRESSES: u32 = 1000;

#[derive(Args)]
pub(in super::super) struct ListArguments {
    #[command(flatten)]
    reach: ReachArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(in super::super) struct ShowArguments {
    /// The share's id.
    #[arg(value_name = "SHARE")]
    share: String,
    /// Addresses of the key's children too: a path, or a range of the last index, as m/0/0..m/0/9.
    #[arg(long, value_name = "PATHS")]
    addresses: Option<String>,
    #[command(flatten)]
    reach: ReachArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A key and where it receives.
#[derive(Serialize)]
struct Place {
    path: String,
    public_key: PublicKey,
    #[serde(flatten)]
    addresses: Addresses,
}

pub(super) fn list(arguments: &ListArguments) -> CommandResult {
    let shares = arguments.reach.all()?;
    if arguments.format == Format::Json {
        let now = Timestamp::now();
        let shares: Vec<_> = shares.iter().map(|share| with_age(share, now)).collect();
        say(json!({"shares": shares}));
        return Ok(exit::OK);
    }
    for share in &shares {
        for line in lines(share, Timestamp::now()) {
            say(line);
        }
        say("");
    }
    say(format!("{} shares", shares.len()));
    Ok(exit::OK)
}

pub(super) fn show(arguments: &ShowArguments) -> CommandResult {
    let Known { view, certificate, chain_code } = arguments.reach.one(&arguments.share)?;
    let places = places(&view.public_key, chain_code, arguments.addresses.as_deref())?;
    if arguments.format == Format::Json {
        let share = with_age(&view, Timestamp::now());
        say(json!({"share": share, "certificate": certificate, "addresses": places}));
        return Ok(exit::OK);
    }
    for line in lines(&view, Timestamp::now()) {
        say(line);
    }
    say(format!("  committee    {}", plain(&names(&view))));
    let signed = certificate.map_or(0, |certificate| certificate.signatures.len());
    say(format!(
        "  certificate  {signed} signatures; `casemate share verify-key` checks them by the pinned identities"
    ));
    for Place { path, public_key, addresses } in &places {
        say(format!("\n  {path}  {public_key}"));
        say(format!("    Ethereum         {}", addresses.ethereum));
        say(format!("    Bitcoin          {}", addresses.bitcoin));
        say(format!("    Bitcoin testnet  {}", addresses.bitcoin_testnet));
    }
    Ok(exit::OK)
}

fn names(view: &ShareView) -> String {
    view.participants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn lines(share: &ShareView, now: Timestamp) -> Vec<String> {
    let since = |time: &str| since(time, now);
    let time = |time: Option<&str>| time.map_or_else(|| "never".to_owned(), since);
    let label = share.label.as_deref().map_or_else(|| "no label".into(), |label| format!("label {label:?}"));
    let kek = if share.kek.is_empty() { "none: it is destroyed" } else { &share.kek };
    vec![
        plain(&share.id),
        format!("  state        {}, epoch {}", plain(&share.status), share.epoch),
        format!("  key          {}", share.public_key),
        format!("  for          {}, {}, {}", share.share_type, plain(&share.threshold), plain(&label)),
        format!("  KEK          {}", plain(kek)),
        format!("  key made     {}", since(&share.key_created_at)),
        format!("  share made   {}", since(&share.created_at)),
        format!("  rotated      {}", time(share.rotated_at.as_deref())),
        format!("  used         {}", time(share.last_used_at.as_deref())),
        format!("  backed up    {}", time(share.last_backup_at.as_deref())),
    ]
}

/// A share with the seconds since its last verified backup, and since its epoch began.
fn with_age(share: &ShareView, now: Timestamp) -> serde_json::Value {
    let seconds = |time: &str| time.parse::<Timestamp>().ok().map(|then| now.duration_since(then).as_secs());
    let mut value = json!(share);
    if let Some(fields) = value.as_object_mut() {
        let backup = share.last_backup_at.as_deref().and_then(seconds);
        fields.insert("last_backup_age_seconds".into(), json!(backup));
        fields.insert("epoch_age_seconds".into(), json!(seconds(&share.created_at)));
    }
    value
}

/// The key itself, then the children that were asked for.
fn places(key: &PublicKey, chain_code: Option<[u8; 32]>, paths: Option<&str>) -> Result<Vec<Place>, Box<dyn Error>> {
    let mut places = vec![Place { path: "m".into(), public_key: *key, addresses: Addresses::of(key)? }];
    let Some(paths) = paths else { return Ok(places) };
    let chain_code =
        chain_code.ok_or("the key's certificate is not complete here, so its chain code is not known; use --config")?;
    for path in range(paths)? {
        let signer = Signer::derive(key, chain_code, &path)?;
        let child = PublicKey::from_bytes(&signer.public_key())?;
        let text = path.iter().fold("m".to_owned(), |text, index| format!("{text}/{index}"));
        places.push(Place { path: text, public_key: child, addresses: Addresses::of(&child)? });
    }
    Ok(places)
}

/// Reads `m/0/7`, or `m/0/0..m/0/9`: both ends count, and only the last index may differ.
fn range(text: &str) -> Result<Vec<Vec<u32>>, String> {
    let Some((from, to)) = text.split_once("..") else {
        return Ok(vec![parse_path(text).map_err(|problem| problem.detail)?]);
    };
    let [from, to] = [from, to].map(|path| parse_path(path).map_err(|problem| problem.detail));
    let (mut from, mut to) = (from?, to?);
    let (first, last) = (from.pop().unwrap_or_default(), to.pop().unwrap_or_default());
    if from != to || first > last || last - first >= MAX_ADDRESSES {
        return Err(format!("{text:?} is no range: write m/0/0..m/0/9, at most {MAX_ADDRESSES} paths at a time"));
    }
    let path = |index: u32| from.iter().copied().chain([index]).collect();
    Ok((first..=last).map(path).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_range_counts_both_ends_and_changes_the_last_index_only() {
        assert_eq!(range("m/0/8..m/0/10").unwrap(), [[0, 8], [0, 9], [0, 10]]);
        assert_eq!(range("m/3").unwrap(), [[3]]);
        assert_eq!(range("m/0/1..m/0/1").unwrap(), [[0, 1]]);
        for bad in ["m/0/1..m/1/2", "m/0/2..m/0/1", "m/0..m/1000", "m/0..", "..m/1", "m/0...m/1", "m/0'..m/1'", ""] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
