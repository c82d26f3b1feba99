//! Secrets at rest on a real SoftHSM token: what was altered, swapped or used once cannot be opened.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, dead_code)]

#[path = "../../hsm/tests/support/mod.rs"]
mod support;

use casemate_appliance::metrics::HsmMetrics;
use casemate_appliance::sealing::{header, open, seal};
use casemate_appliance::store::SealedColumns;
use casemate_appliance::vault::Vault;
use casemate_hsm::Hsm;
use support::{Module, Store, on_fresh_store};

const SECRET: &[u8] = b"a share in the clear, for this test only";

async fn vault(store: &Store) -> Vault {
    let config = store.provisioned("token");
    Vault::new(Hsm::open(config).await.unwrap(), HsmMetrics::default())
}

#[test]
fn what_was_sealed_is_opened_again_and_its_header_stays_readable() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let vault = vault(&store).await;
        let sealed = seal(&vault, &("share", 7), SECRET).await.unwrap();
        assert_eq!(*open(&vault, "share", &sealed).await.unwrap(), SECRET);
        assert_eq!(header::<(String, u8)>("share", &sealed.header).unwrap(), ("share".to_owned(), 7));
        vault.shutdown().await.unwrap();
    });
}

#[test]
fn the_secret_is_in_no_column() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let vault = vault(&store).await;
        let SealedColumns { header, deks, nonce, body } = seal(&vault, &"header", SECRET).await.unwrap();
        for column in [header, deks, nonce.to_vec(), body] {
            assert!(!column.windows(8).any(|window| SECRET.windows(8).any(|part| part == window)));
        }
        vault.shutdown().await.unwrap();
    });
}

#[test]
fn any_altered_byte_makes_it_unreadable() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let vault = vault(&store).await;
        let sealed = seal(&vault, &("share", 7), SECRET).await.unwrap();
        let columns: [fn(&mut SealedColumns) -> &mut [u8]; 4] =
            [|s| &mut s.header, |s| &mut s.deks, |s| &mut s.nonce, |s| &mut s.body];
        for (number, column) in columns.into_iter().enumerate() {
            let length = column(&mut sealed.clone()).len();
            for place in 0..length {
                let mut altered = sealed.clone();
                column(&mut altered)[place] ^= 1;
                assert!(open(&vault, "share", &altered).await.is_err(), "column {number}, byte {place}");
            }
        }
        vault.shutdown().await.unwrap();
    });
}

#[test]
fn columns_of_two_objects_do_not_mix() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let vault = vault(&store).await;
        let one = seal(&vault, &"one", SECRET).await.unwrap();
        let two = seal(&vault, &"two", SECRET).await.unwrap();
        let mixed = [
            SealedColumns { header: two.header.clone(), ..one.clone() },
            SealedColumns { deks: two.deks.clone(), ..one.clone() },
            SealedColumns { nonce: two.nonce, ..one.clone() },
            SealedColumns { body: two.body.clone(), ..one.clone() },
        ];
        for sealed in mixed {
            assert!(open(&vault, "share", &sealed).await.is_err());
        }
        vault.shutdown().await.unwrap();
    });
}
