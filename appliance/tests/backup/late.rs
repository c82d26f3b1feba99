//! Epochs that end in another order than they began in.

use casemate_appliance::store::StoreError;
use casemate_attest::ShareState;

use super::site::Site;
use crate::support::{Module, on_fresh_store};

#[test]
fn a_rotation_that_ends_late_takes_no_later_share_back() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 1, ShareState::Active).await;
        let second = site.add(0, 2, ShareState::Pending).await;
        let third = site.add(0, 3, ShareState::Pending).await;
        site.confirm(&third).await.unwrap();
        assert!(matches!(site.confirm(&second).await, Err(StoreError::Outdated(_))));
        assert_eq!(site.supersede(&third, 3).await, 0, "a party that left epoch 2 keeps what is later");
        let mut states: Vec<(u64, ShareState)> =
            site.shares().await.iter().map(|row| (row.statement.epoch, row.status)).collect();
        states.sort_unstable();
        assert_eq!(states, [(1, ShareState::Rotated), (2, ShareState::Pending), (3, ShareState::Active)]);
        site.confirm(&third).await.unwrap();
    });
}
