//! Every guard row that is restored, changed or taken away by hand is found at the start, by its name.

use casemate_appliance::store::{Store, Transaction, Urgency};
use casemate_attest::{
    Act, Approval, Detail, Disclosure, Entry, Guard, Op, Outcome, PeerCheckpoint, Refusal, leaf::Phase,
};
use casemate_wire::Digest32;
use sha2::{Digest, Sha256};

use super::site::{
    Site, allowed, change, intend, intent_at, key, lines, note, origin, run, session_row, signature, text,
};

const SHARE: &str = "INSERT INTO shares (id, public_key, epoch, session_id, share_type, status, header, deks, nonce, body,
     statement, created_at) VALUES ('share-1', 'k', 1, 's', 'wallet', 'pending', x'00', x'00', x'00', x'00', '{}', 'now')";

fn spending(session: &str) -> String {
    let salt = "5a".repeat(32);
    let spending = format!(r#"{{"session":"{session}","key":"{}","at":1700000000,"charges":[]}}"#, key());
    format!(r#"{{"salt":"{salt}","spending":{spending}}}"#)
}

/// A session that signs and reserves `spending`.
fn signs(transaction: &mut Transaction<'_>, session: &str) -> u64 {
    let spending = spending(session);
    let digest = Digest32(Sha256::digest(spending.as_bytes()).into());
    let insert = "INSERT INTO spend (session_id, at, state, spending) VALUES";
    run(transaction, &format!("{insert} ('{session}', 1700000000, 'reserved', '{spending}')")).unwrap();
    intend(transaction, session, vec![change(Guard::Spend, session, &format!("reserved {digest}"))]).unwrap()
}

fn ends(
    transaction: &mut Transaction<'_>,
    session: &str,
    entry: Entry,
    status: &str,
    more: Vec<casemate_attest::GuardChange>,
) {
    run(transaction, &format!("UPDATE sessions SET status = '{status}' WHERE session_id = '{session}'")).unwrap();
    let mut guards = vec![change(Guard::Session, session, status)];
    guards.extend(more);
    transaction.append(entry.guarding(guards)).unwrap();
}

/// Changes every kind of guard at least once.
pub async fn busy(store: &Store) {
    let work = |transaction: &mut Transaction<'_>| {
        let bundle = Digest32([0xb0; 32]);
        run(transaction, &format!("INSERT INTO policy (only_row, version, digest) VALUES (1, 3, '{bundle}')"))?;
        let loads = change(Guard::Bundle, "starter", &format!("version 3 {bundle}"));
        transaction.append(Entry::admin(Op::Policy).guarding(vec![loads]))?;

        let first = signs(transaction, "s-1");
        let intent = intent_at(transaction, first);
        run(transaction, "UPDATE spend SET state = 'released' WHERE session_id = 's-1'")?;
        let root = Digest32([9; 32]);
        run(
            transaction,
            &format!(
                "INSERT INTO peers (party, log, size, root, note, at) VALUES ('party-2', 'log/p2', 12, '{root}', '', '')"
            ),
        )?;
        let seen = PeerCheckpoint {
            party: "party-2".parse().unwrap(),
            log: "log/p2".parse().unwrap(),
            size: 12,
            root,
            attested: None,
        };
        let failed = Entry::outcome(intent, Outcome::failed(text("timeout"), text("late"))).witnessing(vec![seen]);
        ends(transaction, "s-1", failed, "failed", vec![change(Guard::Spend, "s-1", "released")]);

        let second = signs(transaction, "s-2");
        let intent = intent_at(transaction, second);
        ends(transaction, "s-2", Entry::outcome(intent, Outcome::signed(signature(1))), "completed", Vec::new());

        let statement = Digest32([5; 32]);
        run(transaction, &format!("INSERT INTO approvals (statement, keep_until) VALUES ('{statement}', 4000000000)"))?;
        run(transaction, "INSERT INTO tokens (issuer, jti, exp) VALUES ('i', 't-k', 4000000000)")?;
        let by = Approval { name: text("ann"), org: text("org"), statement };
        let guards = vec![
            change(Guard::Token, "t-k", "used"),
            change(Guard::Session, "k-1", "accepted"),
            change(Guard::Approval, &statement.to_string(), "used"),
        ];
        let keygen = Entry::intent(Act::Keygen, origin("k-1"), allowed()).approved(vec![by]).guarding(guards);
        let seq = transaction.append(keygen)?.leaf().seq;
        session_row(transaction, "k-1", "accepted", seq)?;
        run(transaction, SHARE)?;
        transaction.append(Entry::admin(Op::Share).guarding(vec![change(Guard::Share, "share-1", "pending")]))?;
        run(transaction, "UPDATE shares SET status = 'active'")?;
        run(
            transaction,
            "INSERT INTO committees (roster, aux_digest, header, deks, nonce, body)
             VALUES ('ro', 'aux-1', x'00', x'00', x'00', x'00')",
        )?;
        let made = Entry::key_made(intent_at(transaction, seq), key(), casemate_wire::Threshold::new(2, 3).unwrap());
        let guards = vec![change(Guard::Share, "share-1", "active"), change(Guard::AuxInfo, "ro", "aux-1")];
        ends(transaction, "k-1", made, "completed", guards);
        Ok(())
    };
    store.write(Urgency::Record, work).await.unwrap();
    let primes = |transaction: &mut Transaction<'_>| {
        for pair in ["p-1", "p-2"] {
            let sql = format!(
                "INSERT INTO primes (id, header, deks, nonce, body) VALUES ('{pair}', x'00', x'00', x'00', x'00')"
            );
            run(transaction, &sql)?;
            transaction.append(Entry::admin(Op::Primes).guarding(vec![change(Guard::Primes, pair, "stored")]))?;
        }
        run(transaction, "DELETE FROM primes WHERE id = 'p-1'")?;
        transaction.append(Entry::admin(Op::Primes).guarding(vec![change(Guard::Primes, "p-1", "taken")]))?;
        let withheld =
            Disclosure { salt: [3; 32], detail: Detail { decoded: None, reason: Some("over the limit of 5".into()) } };
        let refusal = Entry::refusal(Op::Sign, origin("s-3"), text("policy_denied")).disclosing(withheld);
        transaction.append(refusal).map(|_| ())
    };
    store.write(Urgency::Record, primes).await.unwrap();
}

/// What is done by hand, and what the finding must say.
pub const BY_HAND: [(&str, &str); 44] = [
    // Shares: a revoked one must not come back, an active one not vanish.
    ("UPDATE shares SET status = 'pending'", "share share-1 is \"pending\" in the store and \"active\" by the log"),
    ("UPDATE shares SET status = 'rotated'", "share share-1"),
    ("DELETE FROM shares", "share share-1 is \"active\" by the log and missing"),
    (
        "INSERT INTO shares SELECT 'share-0', 'k0', epoch, session_id, share_type, status, header, deks, nonce, body,
         statement, certificate, endorsements, created_at, last_used_at FROM shares",
        "share share-0 is in the store, and no leaf put it there",
    ),
    // Used tokens.
    ("DELETE FROM tokens WHERE jti = 't-s-2'", "join token t-s-2"),
    ("UPDATE tokens SET jti = 'other' WHERE jti = 't-k'", "join token t-k"),
    ("INSERT INTO tokens (issuer, jti, exp) VALUES ('i', 'foreign', 4000000000)", "join token foreign"),
    ("UPDATE tokens SET exp = unixepoch() - 86400 WHERE jti = 't-s-2'", "join token t-s-2 counts until"),
    // Sessions.
    ("DELETE FROM sessions WHERE session_id = 's-1'", "session s-1"),
    ("UPDATE sessions SET status = 'accepted' WHERE session_id = 's-2'", "session s-2 is \"accepted\""),
    ("UPDATE sessions SET session_id = 's-9' WHERE session_id = 's-2'", "session s-9"),
    (
        "INSERT INTO sessions SELECT 's-8', session_type, body_digest, status, refused, actor, request, error, result,
         started_at, completed_at, intent FROM sessions WHERE session_id = 's-2'",
        "session s-8",
    ),
    // Auxiliary info.
    ("DELETE FROM committees", "auxiliary info of committee ro"),
    ("UPDATE committees SET aux_digest = 'aux-0'", "auxiliary info of committee ro is \"aux-0\""),
    ("INSERT INTO committees SELECT 'rx', aux_digest, header, deks, nonce, body FROM committees", "committee rx"),
    // Primes: a pair serves once.
    ("INSERT INTO primes SELECT 'p-1', header, deks, nonce, body FROM primes", "pair of primes p-1 is in the store"),
    ("DELETE FROM primes", "pair of primes p-2 is \"stored\" by the log and missing"),
    // The newest policy bundle.
    ("UPDATE policy SET version = 2", "policy bundle of version 2"),
    ("UPDATE policy SET digest = replace(digest, 'b0', 'b1')", "policy bundle of version 3"),
    ("DELETE FROM policy", "policy bundle of version 3"),
    // Spend.
    ("UPDATE spend SET state = 'released' WHERE session_id = 's-2'", "spend of session s-2 is \"released\""),
    ("UPDATE spend SET state = 'reserved' WHERE session_id = 's-1'", "spend of session s-1 is \"reserved "),
    ("DELETE FROM spend WHERE session_id = 's-2'", "spend of session s-2"),
    ("UPDATE spend SET spending = replace(spending, '[]', '[ ]') WHERE session_id = 's-2'", "spend of session s-2"),
    ("UPDATE spend SET at = 1 WHERE session_id = 's-2'", "spend of session s-2 stands at 1"),
    ("UPDATE spend SET session_id = 's-7' WHERE session_id = 's-2'", "spend of session s-7"),
    ("INSERT INTO spend SELECT 's-6', at, state, spending FROM spend WHERE session_id = 's-1'", "spend of session s-6"),
    // Approvals.
    ("DELETE FROM approvals", "approval 0505"),
    ("INSERT INTO approvals (statement, keep_until) VALUES ('other', 4000000000)", "approval other"),
    ("UPDATE approvals SET statement = 'other'", "approval other"),
    ("UPDATE approvals SET keep_until = 1", "counts until 1 in the store, which is too early"),
    // It would be kept for days, and be forgotten before the approval itself expires.
    ("UPDATE approvals SET keep_until = unixepoch() + 6 * 86400", "approval 0505"),
    // Peers.
    ("UPDATE peers SET size = 11", "checkpoint of peer party-2 is \"11 "),
    ("UPDATE peers SET root = replace(root, '09', '0a')", "checkpoint of peer party-2"),
    ("UPDATE peers SET log = 'log/other'", "checkpoint of peer party-2"),
    ("DELETE FROM peers", "checkpoint of peer party-2"),
    ("INSERT INTO peers SELECT 'party-3', log, size, root, note, at FROM peers", "checkpoint of peer party-3"),
    // The tree and the details are evidence of the same kind.
    ("UPDATE tree SET hash = zeroblob(32) WHERE node = 2", "node 2 of level 0"),
    ("DELETE FROM tree WHERE node = 3", "node 3 of level 0"),
    ("INSERT INTO tree (node, hash) VALUES (4000, zeroblob(32))", "nodes in the store"),
    ("UPDATE details SET detail = replace(detail, 'limit of 5', 'limit of 6')", "the detail of leaf"),
    ("UPDATE details SET salt = zeroblob(32)", "the detail of leaf"),
    ("DELETE FROM details", "is missing"),
    ("INSERT INTO details (seq, salt, detail) VALUES (1, zeroblob(32), '{}')", "details in the store"),
];

#[tokio::test]
async fn every_row_that_is_restored_changed_or_taken_away_by_hand_is_found_by_its_name() {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    let phases: Vec<_> = lines(&store).await.iter().map(|line| line.contains("\"phase\":\"intent\"")).collect();
    assert_eq!(phases.iter().filter(|intent| **intent).count(), 3, "{:?}", Phase::Intent);
    drop(store);
    drop(site.open());
    let good = site.copy();
    for (sql, says) in BY_HAND {
        assert_ne!(site.by_hand(sql), 0, "{sql}: nothing was changed");
        let (verdict, told) = site.refused();
        assert_eq!(verdict, Refusal::TablesDiffer, "{sql}: {told}");
        assert!(told.replace("\\\"", "\"").contains(says), "{sql}: {says:?} should stand in: {told}");
        assert!(told.contains("docs/runbook.md"), "{told}");
        site.restore(&good);
    }
    assert_eq!(site.open().verdict(), "equal", "the rows themselves were whole all the time");
}

#[tokio::test]
async fn a_store_in_quarantine_can_be_read_and_takes_nothing() {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    let size = store.audit_head().size();
    drop(store);
    assert_eq!(site.by_hand("DELETE FROM approvals"), 1);
    let before = site.copy();
    for _restart in 0..2 {
        let store = site.try_open().unwrap();
        let error = store.write(Urgency::Record, |t| t.append(note())).await.unwrap_err();
        assert!(matches!(error, casemate_appliance::store::StoreError::Quarantined(_)), "{error}");
        assert_eq!(lines(&store).await.len(), usize::try_from(size).unwrap());
        // Long enough for every watch of the disk to look.
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        assert_eq!(store.read_anchored(|_| Ok(1)).await.unwrap(), 1);
        assert_eq!(store.audit_head().size(), size);
        assert!(matches!(site.try_open(), Err(casemate_appliance::store::StoreError::Folder { .. })), "it is locked");
        assert!(store.problem().unwrap().starts_with("tables_differ: "));
        store.close();
    }
    assert_eq!(site.copy(), before);
}

#[tokio::test]
async fn rows_that_the_store_forgets_in_time_are_not_missed_and_others_are() {
    let site = Site::begun();
    let store = site.open();
    store.write(Urgency::Record, |t| intend(t, "s-1", Vec::new()).map(|_| ())).await.unwrap();
    drop(store);
    assert_eq!(site.by_hand("DELETE FROM tokens"), 1);
    assert_eq!(site.refused().0, Refusal::TablesDiffer, "a token of today must be there");
}
