//! Where shares are read: in a data folder, also of a running daemon, or at an appliance that is called.

use std::error::Error;
use std::path::PathBuf;

use casemate_wire::KeyCertificate;
use casemate_wire::api::{BASE_PATH, Page, ShareView};
use clap::Args;

use super::super::audit::plain;
use super::super::call::{CallArguments, get};
use crate::config::Config;
use crate::lab::Service;
use crate::shares::view;
use crate::store::{LastBackups, ShareRow, open_read_only};

/// Shares that are asked for at a time; the most that an appliance gives.
const PAGE: u32 = 200;

type Failure = Box<dyn Error>;

/// Which appliance.
#[derive(Args)]
pub(super) struct ReachArguments {
    /// The configuration that names the data folder, which is read as it is; the daemon may run.
    #[arg(long, value_name = "FILE", conflicts_with = "url", required_unless_present = "url")]
    config: Option<PathBuf>,
    #[command(flatten)]
    call: CallArguments,
}

/// What is known of one share.
pub(super) struct Known {
    pub(super) view: ShareView,
    /// What it proves about its key: the parties' signatures, if all are there.
    pub(super) certificate: Option<KeyCertificate>,
    /// The key's chain code, from which its children are derived.
    pub(super) chain_code: Option<[u8; 32]>,
}

impl ReachArguments {
    /// All shares, the newest first.
    pub(super) fn all(&self) -> Result<Vec<ShareView>, Failure> {
        let Some(config) = &self.config else { return listed(&self.call.service()?) };
        let store = open_read_only(&Config::load(config)?.data_dir)?;
        let mut views = Vec::new();
        for page in 1.. {
            let (rows, _) = ShareRow::page(&store, None, None, page, PAGE)?;
            if rows.is_empty() {
                break;
            }
            let backups = LastBackups::of(&store, &rows)?;
            for row in &rows {
                views.push(view(row, &backups)?);
            }
        }
        Ok(views)
    }

    /// One share by its id.
    pub(super) fn one(&self, id: &str) -> Result<Known, Failure> {
        let Some(config) = &self.config else { return called(&self.call.service()?, id) };
        let data_dir = Config::load(config)?.data_dir;
        let store = open_read_only(&data_dir)?;
        let row = ShareRow::find(&store, id)?.ok_or_else(|| {
            format!("there is no share {} in {}; `share list` shows all", plain(id), data_dir.display())
        })?;
        let backups = LastBackups::of(&store, std::slice::from_ref(&row))?;
        let chain_code = Some(row.statement.chain_code);
        Ok(Known { view: view(&row, &backups)?, certificate: row.certificate, chain_code })
    }
}

fn listed(service: &Service) -> Result<Vec<ShareView>, Failure> {
    let mut views = Vec::new();
    for page in 1u32.. {
        let path = format!("{BASE_PATH}/shares?page={page}&limit={PAGE}");
        let mut answer: Page<ShareView> = get(service, &path)?;
        let last = answer.items.len() < usize::try_from(PAGE)?;
        views.append(&mut answer.items);
        if last {
            break;
        }
    }
    Ok(views)
}

fn called(service: &Service, id: &str) -> Result<Known, Failure> {
    let view = shown(service, id)?;
    let certificate: Option<KeyCertificate> = get(service, &format!("{BASE_PATH}/shares/{id}/certificate")).ok();
    let chain_code = certificate.as_ref().map(|certificate| certificate.statement.chain_code);
    Ok(Known { view, certificate, chain_code })
}

/// A share as the appliance shows it.
pub(super) fn shown(service: &Service, id: &str) -> Result<ShareView, Failure> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(format!("{:?} is no share's id; `share list` shows them", plain(id)).into());
    }
    get(service, &format!("{BASE_PATH}/shares/{id}"))
}
