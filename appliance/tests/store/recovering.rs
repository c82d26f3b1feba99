//! A new log in the place of one that must not be continued: by the quorum's signatures, for one situation, and whole
//! wherever it is cut off.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use casemate_appliance::store::{
    AnewError, Mandate, MandateError, Recovered, Stopped, Store, StoreError, Urgency, audit_snapshot,
};
use casemate_attest::recovery::{Statement, StatementError};
use casemate_attest::{At, Entry, Guard, Leaf, Op, Refusal, Snapshot, Verifier};
use casemate_policy::signers::{GivenSignature, Namespace};
use casemate_policy::{AllowedSigners, TrustAnchors};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};

use super::site::{Mood, Site, change, intend, lines, note, text};
use super::tables::{BY_HAND, busy};

/// Three signers, of whom two must sign.
struct People(Vec<PrivateKey>);

impl People {
    fn new() -> Self {
        Self((0..3).map(|_| PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap()).collect())
    }

    fn anchors(&self) -> TrustAnchors {
        let line = |(number, key): (usize, &PrivateKey)| {
            format!("signer-{number}@security {}\n", key.public_key().to_openssh().unwrap())
        };
        let file: String = self.0.iter().enumerate().map(line).collect();
        TrustAnchors::new(AllowedSigners::parse(&file).unwrap(), "2 of 3".parse().unwrap()).unwrap()
    }

    fn signature(&self, person: usize, text: &[u8]) -> GivenSignature {
        let signed = self.0[person].sign(Namespace::Recovery.as_str(), HashAlg::Sha512, text).unwrap();
        GivenSignature { name: format!("sig-{person}"), armored: signed.to_pem(LineEnding::LF).unwrap().into_bytes() }
    }

    fn mandate(&self, statement: &Statement) -> Mandate {
        let text = statement.to_text().unwrap().into_bytes();
        let signatures = vec![self.signature(0, &text), self.signature(2, &text)];
        Mandate::of(text, signatures, &self.anchors(), Timestamp::now()).unwrap()
    }
}

fn at(from_now: SignedDuration) -> At {
    At::new(Timestamp::now() + from_now).unwrap()
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn stopped(site: &Site) -> Stopped {
    Stopped::open(site.path(), Box::new(site.anchor.clone())).unwrap()
}

fn propose(site: &Site, restored: bool) -> Result<Statement, AnewError> {
    let log = "casemate/party-1/anew".parse().unwrap();
    let created = at(SignedDuration::ZERO);
    let proposal = stopped(site).propose(&"party-1".parse().unwrap(), restored, log, created, at(HOUR))?;
    Ok(proposal.statement)
}

fn recover(site: &Site, mandate: &Mandate) -> Result<Recovered, AnewError> {
    stopped(site).recover(&"party-1".parse().unwrap(), mandate, Timestamp::now())
}

/// A store whose database is older than its anchor.
async fn rolled_back() -> Site {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    drop(store);
    let older = site.copy();
    let store = site.open();
    store.write(Urgency::Act, |t| intend(t, "s-lost", Vec::new()).map(|_| ())).await.unwrap();
    drop(store);
    site.restore(&older);
    assert_eq!(site.refused().0, Refusal::Rollback);
    site
}

/// The verdict of the next two starts, with a change between them.
async fn goes_on(site: &Site) {
    for _restart in 0..2 {
        let store = site.open();
        assert_eq!(store.verdict(), "equal");
        assert!(store.recovered().is_some());
        store.write(Urgency::Record, |t| t.append(note())).await.unwrap();
        store.close();
    }
}

/// The folder of the one archived log.
fn archive(site: &Site) -> PathBuf {
    let mut folders = std::fs::read_dir(site.path().join("archive")).unwrap().map(|folder| folder.unwrap().path());
    let folder = folders.next().unwrap();
    assert!(folders.next().is_none());
    folder
}

fn archived_lines(site: &Site) -> Vec<String> {
    std::fs::read_to_string(archive(site).join("log.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
}

async fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.read(move |c| Ok(c.query_row(&sql, [], |row| row.get(0)).unwrap())).await.unwrap()
}

#[tokio::test]
async fn a_store_that_was_rolled_back_goes_on_in_a_new_log_that_the_quorum_signed_for() {
    let site = rolled_back().await;
    let people = People::new();
    let statement = propose(&site, false).unwrap();
    let mandate = people.mandate(&statement);
    let before = At::new(Timestamp::now()).unwrap();
    let Recovered::Begun(place) = recover(&site, &mandate).unwrap() else { panic!("it was begun before") };
    assert_eq!((place.log.as_str(), place.size), ("casemate/party-1/anew", 1));
    assert_eq!(site.anchor.standing(), Some(place));
    goes_on(&site).await;
    let store = site.open();
    assert!(store.recovered().unwrap() >= before);
    let genesis: Leaf = serde_json::from_str(&lines(&store).await[0]).unwrap();
    let recovery = genesis.recovery.unwrap();
    assert_eq!((recovery.anchored, recovery.found), (statement.anchored.clone(), statement.found.clone()));
    assert_eq!((recovery.verdict, recovery.statement), (text("rollback"), mandate.digest()));
    let signers: Vec<&str> = genesis.approvals.iter().map(|approval| approval.name.as_str()).collect();
    assert_eq!(signers, ["signer-0@security", "signer-2@security"]);
    // What must not be used again is gone; what must not be forgotten is there.
    for (table, rows) in [("primes", 0), ("spend", 0), ("shares", 1), ("approvals", 1), ("policy", 1), ("peers", 1)] {
        assert_eq!(count(&store, table).await, rows, "{table}");
    }
    assert_eq!(count(&store, "tokens").await, 3);
}

#[tokio::test]
async fn the_old_log_lies_in_the_archive_as_it_was_with_the_statement_and_its_signatures() {
    let site = rolled_back().await;
    let store = site.try_open().unwrap();
    let old = lines(&store).await;
    store.close();
    drop(store);
    let statement = propose(&site, false).unwrap();
    let mandate = People::new().mandate(&statement);
    recover(&site, &mandate).unwrap();
    assert_eq!(archived_lines(&site), old);
    let mut verifier = Verifier::new();
    for line in &old {
        verifier.feed(line.as_bytes()).unwrap();
    }
    let report = verifier.finish().unwrap();
    let found = statement.found.unwrap();
    assert_eq!((report.log, report.size, report.root), (found.log, found.size, found.root));
    assert_eq!(std::fs::read(archive(&site).join("recovery.json")).unwrap(), mandate.text());
    assert_eq!(std::fs::read(archive(&site).join("recovery.json.sig-1")).unwrap(), mandate.signatures()[1].armored);
    // The details can still be shown to belong to their leaves.
    let details = std::fs::read_to_string(archive(&site).join("details.jsonl")).unwrap();
    let details: Vec<casemate_attest::DisclosedLeaf> =
        details.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(details.len(), 1);
    for disclosed in details {
        let leaf: Leaf = serde_json::from_str(&old[usize::try_from(disclosed.seq).unwrap()]).unwrap();
        assert_eq!(leaf.detail, Some(disclosed.disclosure.commitment().unwrap()));
    }
}

#[tokio::test]
async fn the_quorum_signs_for_the_very_state_that_the_new_log_rests_on() {
    let site = rolled_back().await;
    let statement = propose(&site, false).unwrap();
    recover(&site, &People::new().mandate(&statement)).unwrap();
    let store = site.open();
    let snapshot = store.read(audit_snapshot).await.unwrap().unwrap();
    assert_eq!(Snapshot::digest(&snapshot), statement.tables);
    let genesis: Leaf = serde_json::from_str(&lines(&store).await[0]).unwrap();
    assert_eq!(genesis.guards, [Snapshot::guard(&snapshot)]);
}

#[tokio::test]
async fn a_recovery_that_is_cut_off_after_the_commit_is_ended_by_the_same_call_and_done_once() {
    for mood in [Mood::Refuses, Mood::LosesAnswers] {
        let site = rolled_back().await;
        let mandate = People::new().mandate(&propose(&site, false).unwrap());
        site.anchor.mood(mood);
        let cut_off = recover(&site, &mandate).unwrap_err();
        assert!(matches!(cut_off, AnewError::Store(StoreError::Anchor(_))), "{cut_off}");
        site.anchor.mood(Mood::Works);
        if mood == Mood::Refuses {
            assert_eq!(site.refused().0, Refusal::OtherLog, "until then nothing acts");
            assert!(matches!(recover(&site, &mandate).unwrap(), Recovered::Finished(_)));
        }
        goes_on(&site).await;
        let recovered = site.open().recovered();
        assert!(matches!(recover(&site, &mandate).unwrap(), Recovered::Before(_)));
        assert_eq!(site.open().recovered(), recovered, "a repeat changes nothing");
    }
}

#[tokio::test]
async fn a_recovery_that_is_cut_off_in_its_archive_is_done_again() {
    let site = rolled_back().await;
    let mandate = People::new().mandate(&propose(&site, false).unwrap());
    recover(&site, &mandate).unwrap();
    let files_of_one = files(&archive(&site));
    assert!(files_of_one.len() >= 6, "{files_of_one:?}");
    // Each prefix of the files is what a crash may leave, with half of the next one under its other name.
    for left in 0..files_of_one.len() {
        let site = rolled_back().await;
        let mandate = People::new().mandate(&propose(&site, false).unwrap());
        let before = site.copy();
        let anchored = site.anchor.standing();
        recover(&site, &mandate).unwrap();
        for (number, path) in files(&archive(&site)).iter().enumerate().skip(left) {
            if number == left {
                let mut half = path.clone().into_os_string();
                half.push(".new");
                std::fs::write(half, "half").unwrap();
            }
            std::fs::remove_file(path).unwrap();
        }
        site.restore(&before);
        site.anchor.replace(anchored);
        assert!(matches!(recover(&site, &mandate).unwrap(), Recovered::Begun(_)));
        goes_on(&site).await;
    }
}

#[tokio::test]
async fn a_new_log_without_its_anchor_that_was_changed_meanwhile_gets_none() {
    for sql in [
        "UPDATE shares SET status = 'rotated'",
        "INSERT INTO tokens (issuer, jti, exp) VALUES ('i', 'foreign', 4000000000)",
        "UPDATE snapshot SET text = replace(text, 'active', 'revoked')",
    ] {
        let site = rolled_back().await;
        let mandate = People::new().mandate(&propose(&site, false).unwrap());
        site.anchor.mood(Mood::Refuses);
        assert!(recover(&site, &mandate).is_err());
        site.anchor.mood(Mood::Works);
        let anchored = site.anchor.standing();
        assert_eq!(site.by_hand(sql), 1, "{sql}");
        let refused = recover(&site, &mandate).unwrap_err();
        assert!(matches!(refused, AnewError::Changed(_)), "{sql}: {refused}");
        assert_eq!(site.anchor.standing(), anchored, "{sql}");
    }
}

/// A store whose recovery was cut off between its commit and its anchor, and the mandate for it.
async fn cut_off() -> (Site, Mandate) {
    let site = rolled_back().await;
    let mandate = People::new().mandate(&propose(&site, false).unwrap());
    site.anchor.mood(Mood::Refuses);
    assert!(recover(&site, &mandate).is_err());
    site.anchor.mood(Mood::Works);
    (site, mandate)
}

#[tokio::test]
async fn a_recovery_that_was_cut_off_is_ended_in_its_statements_time_only_and_by_its_own_party() {
    let (site, mandate) = cut_off().await;
    let anchored = site.anchor.standing();
    for shift in [HOUR * 2, HOUR * -2] {
        let late = stopped(&site).recover(&"party-1".parse().unwrap(), &mandate, Timestamp::now() + shift).unwrap_err();
        assert!(matches!(late, AnewError::Statement(StatementError::Time { .. })), "{late}");
    }
    let other = stopped(&site).recover(&"party-2".parse().unwrap(), &mandate, Timestamp::now()).unwrap_err();
    assert!(matches!(other, AnewError::Changed(_)), "{other}");
    assert_eq!(site.anchor.standing(), anchored);
    assert!(matches!(recover(&site, &mandate).unwrap(), Recovered::Finished(_)));
    // What is done stays done, whenever it is asked for again.
    let later = stopped(&site).recover(&"party-1".parse().unwrap(), &mandate, Timestamp::now() + HOUR * 2).unwrap();
    assert!(matches!(later, Recovered::Before(_)));
}

#[tokio::test]
async fn a_recovery_that_was_cut_off_is_not_ended_over_anchors_that_contradict_each_other_otherwise() {
    let (site, mandate) = cut_off().await;
    site.anchor.spoil("two different anchors of size 9");
    let refused = recover(&site, &mandate).unwrap_err();
    assert!(matches!(&refused, AnewError::Changed(why) if why.contains("size 9")), "{refused}");
    // The old anchor had the size of the new one: half of the replacement looks so.
    let site = Site::begun();
    site.anchor.replace(
        site.anchor.standing().map(|place| casemate_attest::Place { root: casemate_wire::Digest32([7; 32]), ..place }),
    );
    let mandate = People::new().mandate(&propose(&site, false).unwrap());
    site.anchor.mood(Mood::Refuses);
    assert!(recover(&site, &mandate).is_err());
    site.anchor.mood(Mood::Works);
    site.anchor.spoil("two different anchors of size 1");
    assert!(matches!(recover(&site, &mandate).unwrap(), Recovered::Finished(_)));
    goes_on(&site).await;
}

#[tokio::test]
async fn a_statement_serves_in_its_situation_only() {
    let site = rolled_back().await;
    let people = People::new();
    let mandate = people.mandate(&propose(&site, false).unwrap());
    let field = |site: &Site, mandate: &Mandate| match recover(site, mandate) {
        Err(AnewError::Statement(StatementError::Situation { field, .. })) => field,
        other => panic!("{other:?}"),
    };
    let before = site.copy();
    assert_eq!(site.by_hand("UPDATE shares SET last_used_at = 'now'"), 1, "what guards nothing may change");
    site.restore(&before);
    // Another anchor, other tables, another end of the log.
    let anchored = site.anchor.standing();
    site.anchor.replace(anchored.clone().map(|place| casemate_attest::Place { size: place.size + 1, ..place }));
    assert_eq!(field(&site, &mandate), "anchored");
    site.anchor.replace(anchored);
    assert_eq!(site.by_hand("INSERT INTO tokens (issuer, jti, exp) VALUES ('i', 'foreign', 4000000000)"), 1);
    assert_eq!(field(&site, &mandate), "tables");
    site.restore(&before);
    assert_eq!(site.by_hand("DELETE FROM leaves WHERE seq = (SELECT max(seq) FROM leaves)"), 1);
    assert_eq!(field(&site, &mandate), "found");
    site.restore(&before);
    // Another party; a time before and after.
    let other = stopped(&site).recover(&"party-2".parse().unwrap(), &mandate, Timestamp::now()).unwrap_err();
    assert!(matches!(other, AnewError::Statement(StatementError::Situation { field: "party", .. })), "{other}");
    for shift in [HOUR * 2, HOUR * -2] {
        let late = stopped(&site).recover(&"party-1".parse().unwrap(), &mandate, Timestamp::now() + shift).unwrap_err();
        assert!(matches!(late, AnewError::Statement(StatementError::Time { .. })), "{late}");
    }
    assert_eq!(site.copy(), before, "nothing was changed");
    assert!(!site.path().join("archive").exists());
    // It is good all the same, and once.
    recover(&site, &mandate).unwrap();
    let after = site.copy();
    site.restore(&before);
    let again = recover(&site, &mandate).unwrap_err();
    assert!(matches!(again, AnewError::Statement(StatementError::Situation { .. })), "{again}");
    site.restore(&after);
    goes_on(&site).await;
}

#[test]
fn without_the_quorum_there_is_no_mandate() {
    let (people, strangers) = (People::new(), People::new());
    let text = br#"{"anchored":{"log":"a","root":"0000000000000000000000000000000000000000000000000000000000000000","size":2},"created":"2026-11-21T12:00:00.000Z","domain":"casemate/audit-recovery/v1","expires":"2026-11-21T13:00:00.000Z","log":"b","party":"party-1","tables":"0000000000000000000000000000000000000000000000000000000000000000","verdict":"rollback"}
"#;
    let of = |signatures| Mandate::of(text.to_vec(), signatures, &people.anchors(), Timestamp::now());
    for signatures in [
        vec![],
        vec![people.signature(0, text)],
        vec![people.signature(0, text), people.signature(0, text)],
        vec![people.signature(0, text), strangers.signature(1, text)],
        vec![people.signature(0, text), people.signature(1, b"another")],
    ] {
        assert!(matches!(of(signatures), Err(MandateError::NotEndorsed(_))));
    }
    of(vec![people.signature(1, text), people.signature(0, text)]).unwrap();
    let other = Mandate::of(b"{}".to_vec(), Vec::new(), &people.anchors(), Timestamp::now());
    assert!(matches!(other, Err(MandateError::Statement(_))));
}

#[tokio::test]
async fn a_log_that_stands_as_it_must_is_replaced_only_where_people_know_of_a_restore() {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    drop(store);
    assert!(matches!(propose(&site, false), Err(AnewError::Sound)));
    let statement = propose(&site, true).unwrap();
    assert_eq!(statement.verdict.as_str(), "restored");
    let people = People::new();
    recover(&site, &people.mandate(&statement)).unwrap();
    goes_on(&site).await;
    let rolled_back = rolled_back().await;
    assert!(matches!(propose(&rolled_back, true), Err(AnewError::Unsound("rollback"))));
    std::fs::remove_file(rolled_back.database()).unwrap();
    let none = Stopped::open(rolled_back.path(), Box::new(rolled_back.anchor.clone())).err().unwrap();
    assert!(matches!(none, AnewError::NoDatabase(_)), "{none}");
}

#[tokio::test]
async fn rows_that_were_changed_by_hand_go_back_to_what_the_log_says() {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    drop(store);
    drop(site.open());
    let (good, anchored) = (site.copy(), site.anchor.standing());
    let people = People::new();
    for (sql, _) in BY_HAND {
        assert_ne!(site.by_hand(sql), 0, "{sql}");
        let statement = propose(&site, false).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(statement.verdict.as_str(), "tables_differ", "{sql}");
        recover(&site, &people.mandate(&statement)).unwrap_or_else(|error| panic!("{sql}: {error}"));
        goes_on(&site).await;
        let store = site.open();
        let column = |sql: &'static str| {
            let read = store.read(move |c| Ok(c.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap()));
            async { read.await.unwrap() }
        };
        let statuses = column("SELECT group_concat(id || ' ' || status ORDER BY id) FROM shares").await;
        let expected = match sql {
            "DELETE FROM shares" => None,
            _ if sql.contains("share-0") => Some("share-0 revoked,share-1 active"),
            _ => Some("share-1 active"),
        };
        assert_eq!(statuses.as_deref(), expected, "{sql}");
        let policy = column("SELECT version || ' ' || substr(digest, 1, 2) FROM policy").await;
        assert_eq!(policy.as_deref(), Some("3 b0"), "{sql}");
        let peers = column("SELECT group_concat(party || ' ' || size || ' ' || log) FROM peers").await;
        assert_eq!(peers.as_deref(), Some("party-2 12 log/p2"), "{sql}");
        let used = column("SELECT group_concat(substr(statement, 1, 4)) FROM approvals").await.unwrap();
        assert!(used.contains("0505"), "{sql}: {used}");
        store.close();
        drop(store);
        std::fs::remove_dir_all(site.path().join("archive")).unwrap();
        site.restore(&good);
        site.anchor.replace(anchored.clone());
    }
}

#[tokio::test]
async fn sessions_in_flight_have_failed_and_their_ids_stay_used() {
    let site = Site::begun();
    let store = site.open();
    store.write(Urgency::Act, |t| intend(t, "s-1", Vec::new()).map(|_| ())).await.unwrap();
    store.close();
    drop(store);
    recover(&site, &People::new().mandate(&propose(&site, true).unwrap())).unwrap();
    goes_on(&site).await;
    let store = site.open();
    let row = store.read(|c| {
        Ok(c.query_row("SELECT status || ' ' || error FROM sessions", [], |row| row.get::<_, String>(0)).unwrap())
    });
    let row = row.await.unwrap();
    assert!(row.starts_with("failed ") && row.contains("interrupted"), "{row}");
    // The row is still there, so the same id is never begun again.
    assert!(store.write(Urgency::Act, |t| intend(t, "s-1", Vec::new()).map(|_| ())).await.is_err());
}

#[tokio::test]
async fn a_log_whose_lines_do_not_verify_is_archived_as_it_is_and_replaced() {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    drop(store);
    drop(site.open());
    assert_eq!(
        site.by_hand("UPDATE leaves SET line = replace(line, 'timeout', 'tamper!') WHERE line LIKE '%timeout%'"),
        1
    );
    assert_eq!(site.refused().0, Refusal::LogDamaged);
    let statement = propose(&site, false).unwrap();
    assert_eq!((statement.verdict.as_str(), statement.found.is_none()), ("log_damaged", true));
    recover(&site, &People::new().mandate(&statement)).unwrap();
    goes_on(&site).await;
    assert!(archived_lines(&site).iter().any(|line| line.contains("tamper!")));
}

#[tokio::test]
async fn every_refusal_that_leaves_a_database_can_be_recovered_from() {
    let people = People::new();
    let cases: [(Refusal, fn(&Site)); 4] = [
        (Refusal::DatabaseWithoutAnchor, |site| site.anchor.replace(None)),
        (Refusal::AnchorUnusable, |site| site.anchor.spoil("two of one size")),
        (Refusal::OtherLog, |site| {
            let place = site.anchor.standing().unwrap();
            site.anchor
                .replace(Some(casemate_attest::Place { log: "casemate/party-1/other".parse().unwrap(), ..place }));
        }),
        (Refusal::Fork, |site| {
            let place = site.anchor.standing().unwrap();
            site.anchor.replace(Some(casemate_attest::Place { root: casemate_wire::Digest32([1; 32]), ..place }));
        }),
    ];
    for (refusal, happens) in cases {
        let site = Site::begun();
        let store = site.open();
        store
            .write(Urgency::Act, |t| {
                intend(t, "s-1", Vec::new())?;
                let made = Entry::admin(Op::Share).guarding(vec![change(Guard::Share, "none", "pending")]);
                t.append(made).map(|_| ())
            })
            .await
            .unwrap();
        store.close();
        drop(store);
        happens(&site);
        assert_eq!(site.refused().0, refusal);
        let statement = propose(&site, false).unwrap();
        assert_eq!(statement.verdict.as_str(), refusal.as_str());
        recover(&site, &people.mandate(&statement)).unwrap();
        goes_on(&site).await;
    }
}

#[tokio::test]
async fn a_second_recovery_takes_the_place_of_the_first() {
    let site = rolled_back().await;
    let people = People::new();
    recover(&site, &people.mandate(&propose(&site, false).unwrap())).unwrap();
    goes_on(&site).await;
    let first = site.open().recovered().unwrap();
    let (log, created) = ("casemate/party-1/third".parse().unwrap(), at(SignedDuration::ZERO));
    let again = stopped(&site).propose(&"party-1".parse().unwrap(), true, log, created, at(HOUR)).unwrap();
    recover(&site, &people.mandate(&again.statement)).unwrap();
    goes_on(&site).await;
    assert!(site.open().recovered().unwrap() > first);
}
