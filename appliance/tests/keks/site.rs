//! A data folder with sealed rows, and its real HSM.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use casemate_appliance::metrics::HsmMetrics;
use casemate_appliance::primes;
use casemate_appliance::sealing::{open, seal};
use casemate_appliance::store::{EntriesRow, HsmAnchor, SealedColumns, Store, Urgency, audit_lines};
use casemate_appliance::vault::Vault;
use casemate_attest::{Entry, Guard, GuardChange, Leaf, Op, Rewrap, Text, Verifier};
use casemate_hsm::{Hsm, HsmConfig};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// An appliance at rest, opened.
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    pub(crate) hsm: Vault,
    pub(crate) store: Store,
}

pub(crate) async fn vault(config: HsmConfig) -> Vault {
    Vault::new(Hsm::open(config).await.unwrap(), HsmMetrics::default())
}

impl Site {
    /// A new log in this folder.
    pub(crate) async fn begin(folder: &Path, config: HsmConfig) -> Self {
        let folder = folder.join("data");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        let hsm = vault(config.clone()).await;
        let (path, mut anchor) = (folder.clone(), HsmAnchor::new(hsm.clone(), Handle::current()));
        let log = "casemate/party-1/test".parse().unwrap();
        spawn_blocking(move || Store::create(&path, &log, &mut anchor).unwrap()).await.unwrap();
        hsm.shutdown().await.unwrap();
        Self::open(folder, config).await
    }

    pub(crate) async fn open(folder: PathBuf, config: HsmConfig) -> Self {
        let hsm = vault(config).await;
        let (path, anchor) = (folder.clone(), HsmAnchor::new(hsm.clone(), Handle::current()));
        let store = spawn_blocking(move || Store::open(&path, Box::new(anchor)).unwrap()).await.unwrap();
        assert!(store.quarantine().is_none(), "{}", store.quarantine().unwrap());
        Self { folder, hsm, store }
    }

    /// Every leaf of the log, which an auditor finds good.
    pub(crate) async fn leaves(&self) -> Vec<Leaf> {
        let lines = self.store.read(|store| audit_lines(store, 0, u64::MAX)).await.unwrap();
        let mut verifier = Verifier::new();
        let leaves = lines.iter().map(|line| verifier.feed(line.as_bytes()).unwrap()).collect();
        verifier.finish().unwrap();
        leaves
    }

    /// What the log tells of re-wrapping, with the place of each leaf.
    pub(crate) async fn rewraps(&self) -> Vec<(u64, Rewrap)> {
        self.leaves().await.into_iter().filter_map(|leaf| Some((leaf.seq, leaf.rewrap?))).collect()
    }

    pub(crate) async fn close(self) -> PathBuf {
        let store = self.store.clone();
        spawn_blocking(move || store.close()).await.unwrap();
        self.hsm.shutdown().await.unwrap();
        self.folder
    }

    /// Seals a share, whose secret is its id.
    pub(crate) async fn add_share(&self, id: &str) {
        let sealed = seal(&self.hsm, &("share", id), id.as_bytes()).await.unwrap();
        let id = id.to_owned();
        let put = self.store.write(Urgency::Act, move |transaction| {
            let sql =
                "INSERT INTO shares (id, public_key, epoch, session_id, share_type, status, header, deks, nonce, body,
                       statement, created_at) VALUES (?1, 'k', 1, 's', 'wallet', 'pending', ?2, ?3, ?4, ?5, '{}', 't')";
            let row = (&id, &sealed.header, &sealed.deks, sealed.nonce, &sealed.body);
            transaction.sql().execute(sql, row).unwrap();
            let change = GuardChange { guard: Guard::Share, id: Text::fitted(&id), to: Some(Text::fitted("pending")) };
            transaction.append(Entry::admin(Op::Share).guarding(vec![change])).map(|_| ())
        });
        put.await.unwrap();
    }

    /// Seals a committee's info, whose secret is its roster. The log is told nothing of it, so it must not be opened again.
    pub(crate) async fn add_committee(&self, roster: &str) {
        let sealed = seal(&self.hsm, &("committee", roster), roster.as_bytes()).await.unwrap();
        let roster = roster.to_owned();
        let put = self.store.write(Urgency::Act, move |transaction| {
            let sql = "INSERT INTO committees (roster, aux_digest, header, deks, nonce, body)
                       VALUES (?1, 'd', ?2, ?3, ?4, ?5)";
            let row = (&roster, &sealed.header, &sealed.deks, sealed.nonce, &sealed.body);
            transaction.sql().execute(sql, row).unwrap();
            Ok(())
        });
        put.await.unwrap();
    }

    pub(crate) async fn add_primes(&self) {
        primes::add(&self.hsm, &self.store, &Zeroizing::new(b"primes".to_vec())).await.unwrap();
    }

    /// Every row's columns, by table and key.
    pub(crate) async fn rows(&self) -> Vec<(EntriesRow, SealedColumns)> {
        self.store.read(|connection| Ok(columns(connection))).await.unwrap()
    }

    /// Every row must open on this HSM, to what was sealed.
    pub(crate) async fn all_open(&self, on: &Vault) {
        for (row, sealed) in self.rows().await {
            let plain = open(on, "row", &sealed).await.unwrap_or_else(|error| panic!("{}: {error}", row.id));
            let expected = if row.table.as_str() == "primes" { "primes" } else { &row.id };
            assert_eq!(*plain, expected.as_bytes());
        }
    }

    /// The names of the KEKs in each row's entries.
    pub(crate) async fn keks(&self) -> Vec<Vec<String>> {
        let rows = self.rows().await;
        rows.iter().map(|(row, _)| entries(row).keks().map(|entry| entry.kek_id.clone()).collect()).collect()
    }
}

/// Every row's columns in a database.
pub(crate) fn columns(connection: &rusqlite::Connection) -> Vec<(EntriesRow, SealedColumns)> {
    let rows = EntriesRow::after(connection, None, usize::MAX).unwrap();
    let sealed = |row: EntriesRow| {
        let key = if row.table.as_str() == "committees" { "roster" } else { "id" };
        let sql = format!("SELECT nonce, body FROM {} WHERE {key} = ?1", row.table.as_str());
        let (nonce, body) = connection.query_row(&sql, [&row.id], |found| Ok((found.get(0)?, found.get(1)?))).unwrap();
        let sealed = SealedColumns { header: row.header.clone(), deks: row.deks.clone(), nonce, body };
        (row, sealed)
    };
    rows.into_iter().map(sealed).collect()
}

pub(crate) fn entries(row: &EntriesRow) -> casemate_appliance::entries::DekEntries {
    casemate_appliance::entries::DekEntries::read(&row.deks).unwrap()
}
