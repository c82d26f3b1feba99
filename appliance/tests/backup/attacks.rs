//! What somebody does who has the file and may change it, with one custodian's help or none.

use casemate_appliance::backup::{Backup, BackupError, FormatError, Opened, ShareVerdict};
use casemate_appliance::store::ShareRow;
use casemate_attest::ShareState;
use ciborium::Value;
use sha2::{Digest, Sha256};

use crate::site::{Custody, Site};
use crate::support::{Module, on_fresh_store};

#[test]
fn a_file_with_any_flipped_or_missing_byte_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 1, ShareState::Active).await;
        let custody = Custody::new(2, 2);
        let made = site.back_up(&custody).await;
        site.close().await;
        for place in 0..made.file.len() {
            let mut damaged = made.file.clone();
            damaged[place] ^= 1 << (place % 8);
            let opened = Backup::read(&damaged).map_err(BackupError::from);
            assert!(opened.and_then(|backup| Opened::by(backup, &custody.ring(&[0, 1]))).is_err(), "byte {place}");
        }
        for length in [0, 1, 40, made.file.len() / 2, made.file.len() - 1] {
            assert!(Backup::read(&made.file[..length]).is_err(), "{length} bytes");
        }
        assert!(Backup::read(&[made.file.as_slice(), &[0]].concat()).is_err());
        let mut damaged = made.file.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        assert!(matches!(Backup::read(&damaged), Err(FormatError::Damaged(_))), "it says that it is damage");
    });
}

/// What is done to a body.
type Forgery = Box<dyn Fn(&mut Value)>;

/// Changes the body and makes the checksum fit, as somebody without the key can.
fn altered(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut whole: Value = ciborium::from_reader(file).unwrap();
    let mut body: Value = ciborium::from_reader(field(&mut whole, "body").as_bytes().unwrap().as_slice()).unwrap();
    change(&mut body);
    let mut bytes = Vec::new();
    ciborium::into_writer(&body, &mut bytes).unwrap();
    *field(&mut whole, "checksum") = Value::Bytes(Sha256::digest(&bytes).to_vec());
    *field(&mut whole, "body") = Value::Bytes(bytes);
    let mut file = Vec::new();
    ciborium::into_writer(&whole, &mut file).unwrap();
    file
}

fn field<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    let fields = value.as_map_mut().unwrap();
    fields.iter_mut().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).unwrap()
}

#[test]
fn a_body_that_was_changed_with_a_fitting_checksum_is_refused_by_its_seal() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 1, ShareState::Active).await;
        site.add(1, 1, ShareState::Pending).await;
        let custody = Custody::new(2, 3);
        let (made, other) = (site.back_up(&custody).await, site.back_up(&custody).await);
        site.close().await;
        let shares = |file: &[u8]| {
            let mut all = None;
            altered(file, |body| all = Some(field(body, "shares").clone()));
            all.unwrap()
        };
        let foreign = shares(&other.file);
        let changes: [(&str, Forgery); 6] = [
            ("a share is left out", Box::new(|body| drop(field(body, "shares").as_array_mut().unwrap().pop()))),
            ("shares change places", Box::new(|body| field(body, "shares").as_array_mut().unwrap().reverse())),
            ("a share of another backup", Box::new(move |body| *field(body, "shares") = foreign.clone())),
            (
                "a pending share is said to be active",
                Box::new(|body| {
                    for share in field(body, "shares").as_array_mut().unwrap() {
                        *field(field(share, "known"), "state") = Value::Text("active".into());
                    }
                }),
            ),
            ("another party", Box::new(|body| *field(field(body, "head"), "party") = Value::Text("party-2".into()))),
            ("one piece is enough", Box::new(|body| *field(field(body, "head"), "threshold") = 1.into())),
        ];
        for (what, change) in changes {
            let file = altered(&made.file, change);
            let backup = Backup::read(&file).unwrap();
            let opened = Opened::by(backup, &custody.ring(&[0, 1]));
            match opened {
                // With less than it takes no key comes out at all.
                Err(BackupError::Format(FormatError::Altered(_)) | BackupError::Custody(_)) => {}
                Err(error) => panic!("{what}: {error}"),
                Ok(_) => panic!("{what}: it opens"),
            }
        }
    });
}

/// What is changed in a row, and the words by which it is found.
type Change = (&'static str, fn(&mut ShareRow));

#[test]
fn a_share_that_is_not_what_is_said_of_it_makes_the_backup_incomplete() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        site.add(0, 1, ShareState::Active).await;
        let custody = Custody::new(2, 2);
        let checkpoint = site.checkpoint().await;
        let changes: [Change; 4] = [
            ("statement differ", |row| row.statement.epoch = 9),
            ("certificate", |row| row.certificate = None),
            ("signature of party-2", |row| row.certificate.as_mut().unwrap().signatures.swap(1, 2)),
            ("another statement", |row| row.certificate.as_mut().unwrap().statement.epoch = 9),
        ];
        for (what, change) in changes {
            let mut source = site.source(&custody.recipients, &checkpoint).await;
            change(&mut source.rows[0]);
            let made = casemate_appliance::backup::make(&site.hsm, source).await.unwrap();
            let Err(reports) = custody.open(&made.file).check(|_| {}) else { panic!("{what}") };
            let ShareVerdict::Incomplete(why) = &reports[0].verdict else { panic!("{what}") };
            assert!(why.contains(what), "{what}: {why}");
        }
        site.close().await;
    });
}

proptest::proptest! {
    #[test]
    fn foreign_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000),
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..500),
    ) {
        assert!(Backup::read(&bytes).is_err());
        // A good frame around a foreign body.
        let field = |name: &str, bytes: &[u8]| (Value::Text(name.into()), Value::Bytes(bytes.to_vec()));
        let framed = Value::Map(vec![
            (Value::Text("format".into()), Value::Text("casemate/backup/v1".into())),
            field("body", &body),
            field("checksum", &Sha256::digest(&body)),
            field("nonce", &[0; 12]),
            field("seal", &[0; 16]),
        ]);
        let mut file = Vec::new();
        ciborium::into_writer(&framed, &mut file).unwrap();
        assert!(matches!(Backup::read(&file), Err(FormatError::NotABackup(_))));
    }
}
