//! The custodians: who opens a backup, and what they find.

use casemate_appliance::backup::{Backup, BackupError, CustodyError, Keyring, Opened, ShareVerdict};
use casemate_attest::ShareState;

use crate::site::{Custody, Site, file};
use crate::support::{Module, on_fresh_store};

fn refused(made: &[u8], ring: &Keyring) -> CustodyError {
    match Opened::by(Backup::read(made).unwrap(), ring) {
        Err(BackupError::Custody(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opens"),
    }
}

#[test]
fn any_of_enough_custodians_find_every_share_complete() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 3, ShareState::Active).await;
        site.add(1, 1, ShareState::Pending).await;
        let custody = Custody::new(2, 3);
        let made = site.back_up(&custody).await;
        site.close().await;
        for people in [&[0, 1][..], &[2, 0], &[1, 2], &[0, 1, 2]] {
            let opened = Opened::by(Backup::read(&made.file).unwrap(), &custody.ring(people)).unwrap();
            assert_eq!(opened.proof().id(), made.id, "it takes the key to make");
            let checked = opened.check(|_| {}).unwrap_or_else(|reports| panic!("{reports:?}"));
            let found: Vec<_> = checked.reports().iter().map(|one| (one.epoch, one.state, &one.verdict)).collect();
            assert_eq!(found.len(), 2);
            assert!(found.contains(&(3, ShareState::Active, &ShareVerdict::Complete)), "{found:?}");
            assert!(found.contains(&(1, ShareState::Pending, &ShareVerdict::Complete)), "{found:?}");
        }
    });
}

#[test]
fn too_few_twice_the_same_and_strangers_are_told_apart() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 1, ShareState::Active).await;
        let (custody, others) = (Custody::new(2, 3), Custody::new(2, 3));
        let made = site.back_up(&custody).await;
        let foreign = site.back_up(&others).await;
        site.close().await;
        let few = refused(&made.file, &custody.ring(&[1]));
        assert!(matches!(&few, CustodyError::TooFew { given: 1, needed: 2, .. }), "{few}");
        assert!(few.to_string().contains("custodian-1") && few.to_string().contains("custodian-2"), "{few}");
        let twice = refused(&made.file, &custody.ring(&[1, 1]));
        assert_eq!(twice, CustodyError::Twice("custodian-1".into()));
        let mut ring = custody.ring(&[0]);
        ring.identity("stranger", &file(&others.people[1])).unwrap();
        let stranger = refused(&made.file, &ring);
        assert!(matches!(&stranger, CustodyError::WrongCustodian { name, .. } if name == "stranger"), "{stranger}");
        let stranger = refused(&foreign.file, &custody.ring(&[0, 1]));
        assert!(matches!(&stranger, CustodyError::WrongCustodian { .. }), "{stranger}");
        let mut ring = Keyring::default();
        for bad in
            ["", "# nothing\n", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "AGE-SECRET-KEY-1"]
        {
            let refused = ring.identity("bad", bad).unwrap_err();
            assert!(matches!(&refused, CustodyError::NotAnIdentity { .. }), "{refused}");
        }
    });
}

#[test]
fn a_piece_that_its_custodian_encrypted_anew_serves_this_backup_alone() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 1, ShareState::Active).await;
        let (custody, ceremony) = (Custody::new(2, 3), Custody::new(2, 2));
        let (made, later) = (site.back_up(&custody).await, site.back_up(&custody).await);
        site.close().await;
        let to = ceremony.people[0].to_public().to_string();
        let piece = |who: usize, of: &[u8]| {
            let backup = Backup::read(of).unwrap();
            let (name, piece) = custody.ring(&[who]).piece_for(&backup, &to).unwrap();
            assert_eq!(name, format!("custodian-{who}"));
            piece
        };
        let ring = |pieces: &[Vec<u8>]| {
            let mut ring = ceremony.ring(&[0]);
            for piece in pieces {
                ring.piece("piece", piece.clone()).unwrap();
            }
            ring
        };
        let both = [piece(0, &made.file), piece(2, &made.file)];
        Opened::by(Backup::read(&made.file).unwrap(), &ring(&both)).unwrap();
        let twice = refused(&made.file, &ring(&[both[0].clone(), piece(0, &made.file)]));
        assert_eq!(twice, CustodyError::Twice("custodian-0".into()));
        let other = refused(&made.file, &ring(&[both[0].clone(), piece(1, &later.file)]));
        assert!(other.to_string().contains("belongs to the backup"), "{other}");
        let mut closed = custody.ring(&[0]);
        closed.piece("piece", both[1].clone()).unwrap();
        let closed = refused(&made.file, &closed);
        assert!(closed.to_string().contains("does not open"), "{closed}");
        let stranger = ceremony.ring(&[0]).piece_for(&Backup::read(&made.file).unwrap(), &to);
        assert!(matches!(stranger, Err(CustodyError::WrongCustodian { .. })));
    });
}
