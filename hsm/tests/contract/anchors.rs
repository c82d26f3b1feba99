//! The audit anchor: one object that only grows, whatever else lies on the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use casemate_hsm::{Anchor, Hsm, HsmConfig, HsmError, HsmState, KeyPurpose, Secret32, init_keys};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use crate::raw::Raw;
use crate::support::{Module, eventually, on_fresh_store};

pub(crate) const LOG: &str = "casemate/vault";

pub(crate) fn anchor(size: u64) -> Anchor {
    with_root(size, u8::try_from(size % 251).unwrap())
}

/// The one that is put before an anchor of this size.
pub(crate) fn before(size: u64) -> Option<Anchor> {
    size.checked_sub(1).map(anchor)
}

fn with_root(size: u64, root: u8) -> Anchor {
    Anchor::new(LOG, size, [root; 32]).unwrap()
}

fn value_of(anchor: &Anchor) -> Vec<u8> {
    let root = hex::encode(anchor.root());
    format!("casemate/anchor/v1\n{}\n{}\n{root}\n", anchor.log(), anchor.size()).into_bytes()
}

/// All data objects of the token.
pub(crate) fn data_objects(raw: &Raw) -> Vec<ObjectHandle> {
    raw.session().find_objects(&[Attribute::Class(ObjectClass::DATA)]).unwrap()
}

/// Their labels, in order.
pub(crate) fn labels(raw: &Raw) -> Vec<String> {
    let label = |object| match &raw.session().get_attributes(object, &[AttributeType::Label]).unwrap()[..] {
        [Attribute::Label(label)] => String::from_utf8(label.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let mut labels: Vec<_> = data_objects(raw).into_iter().map(label).collect();
    labels.sort();
    labels
}

fn template(label: &str, value: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Modifiable(false),
        Attribute::Application(b"casemate".to_vec()),
        Attribute::Label(label.into()),
        Attribute::Value(value.to_vec()),
    ]
}

/// Writes an anchor as the crate does, without destroying any.
fn leave(raw: &Raw, anchor: &Anchor) {
    let template = template(&format!("anchor/{}", anchor.size()), &value_of(anchor));
    raw.session().create_object(&template).unwrap();
}

async fn opened(config: &HsmConfig) -> Hsm {
    Hsm::open(config.clone()).await.unwrap()
}

#[test]
fn a_new_token_has_no_anchor() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = opened(&store.provisioned("vault")).await;
        assert_eq!(hsm.anchor().await.unwrap(), None);
    });
}

#[test]
fn an_anchor_is_read_as_it_was_put_also_after_reopening() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let longest = Anchor::new("l".repeat(128), u64::MAX, [0xff; 32]).unwrap();
        let hsm = opened(&config).await;
        hsm.put_anchor(None, &longest).await.unwrap();
        assert_eq!(hsm.anchor().await.unwrap(), Some(longest.clone()));
        hsm.shutdown().await.unwrap();
        drop(hsm);
        assert_eq!(opened(&config).await.anchor().await.unwrap(), Some(longest));
    });
}

#[test]
fn an_anchor_lies_on_the_token_as_listed() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = opened(&store.provisioned("vault")).await;
        hsm.put_anchor(None, &anchor(7)).await.unwrap();
        let raw = Raw::log_in(&store, "vault");
        let [object] = data_objects(&raw)[..] else { panic!("not one object") };
        let expected = template("anchor/7", &value_of(&anchor(7)));
        let types: Vec<_> = expected.iter().map(Attribute::attribute_type).collect();
        assert_eq!(raw.session().get_attributes(object, &types).unwrap(), expected);
        let error = raw.session().update_attributes(object, &[Attribute::Value(vec![1])]).unwrap_err();
        assert!(matches!(error, Error::Pkcs11(RvError::ActionProhibited | RvError::AttributeReadOnly, _)), "{error}");
    });
}

#[test]
fn two_hundred_puts_leave_one_object() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = opened(&store.provisioned("vault")).await;
        for size in 0..200 {
            hsm.put_anchor(before(size).as_ref(), &anchor(size)).await.unwrap();
        }
        assert_eq!(labels(&Raw::log_in(&store, "vault")), ["anchor/199"]);
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(199)));
    });
}

#[test]
fn a_log_that_shrank_or_forked_or_is_another_one_is_refused_and_changes_nothing() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = opened(&store.provisioned("vault")).await;
        hsm.put_anchor(None, &anchor(9)).await.unwrap();
        let last = Some(&anchor(9));
        let shrunk = hsm.put_anchor(last, &anchor(8)).await.unwrap_err();
        assert!(matches!(shrunk, HsmError::AnchorWouldShrink { standing: 9, asked: 8 }), "{shrunk}");
        let forked = hsm.put_anchor(last, &with_root(9, 1)).await.unwrap_err();
        assert!(matches!(forked, HsmError::AnchorForks { size: 9 }), "{forked}");
        let other = Anchor::new("casemate/other", 10, [1; 32]).unwrap();
        let other = hsm.put_anchor(last, &other).await.unwrap_err();
        assert!(matches!(&other, HsmError::AnchorOfAnotherLog { standing, .. } if standing == LOG), "{other}");
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(9)));
        assert_eq!(labels(&Raw::log_in(&store, "vault")), ["anchor/9"]);
    });
}

#[test]
fn after_a_crash_between_create_and_destroy_the_highest_counts_and_the_next_put_cleans_up() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        for size in [3, 10, 9] {
            leave(&raw, &anchor(size));
        }
        let hsm = opened(&config).await;
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(10)));
        // Not even what a leftover says may be anchored again.
        hsm.put_anchor(Some(&anchor(10)), &anchor(9)).await.unwrap_err();
        hsm.put_anchor(Some(&anchor(10)), &anchor(11)).await.unwrap();
        assert_eq!(labels(&raw), ["anchor/11"]);
    });
}

#[test]
fn putting_the_same_anchor_again_ends_an_interrupted_cleanup() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        for anchor in [anchor(5), anchor(6), anchor(6)] {
            leave(&raw, &anchor);
        }
        let hsm = opened(&config).await;
        hsm.put_anchor(Some(&anchor(6)), &anchor(6)).await.unwrap();
        hsm.put_anchor(Some(&anchor(6)), &anchor(6)).await.unwrap();
        assert_eq!(labels(&raw), ["anchor/6"]);
    });
}

#[test]
fn anchors_that_contradict_each_other_stop_everything_but_the_recovery() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        for anchor in [with_root(7, 1), with_root(7, 2), anchor(6)] {
            leave(&raw, &anchor);
        }
        let hsm = opened(&config).await;
        let read = hsm.anchor().await.unwrap_err();
        assert!(matches!(read, HsmError::AnchorsContradict { size: 7 }), "{read}");
        for new in [with_root(7, 1), anchor(8)] {
            let put = hsm.put_anchor(Some(&with_root(7, 1)), &new).await.unwrap_err();
            assert!(matches!(put, HsmError::AnchorsContradict { size: 7 }), "{put}");
        }
        assert_eq!(labels(&raw).len(), 3);
        hsm.replace_anchor(&with_root(7, 2)).await.unwrap();
        assert_eq!(hsm.anchor().await.unwrap(), Some(with_root(7, 2)));
        assert_eq!(labels(&raw), ["anchor/7"]);
    });
}

#[test]
fn the_recovery_replaces_higher_damaged_and_other_anchors() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        for anchor in [anchor(90), Anchor::new("another/log", 80, [1; 32]).unwrap()] {
            leave(&raw, &anchor);
        }
        raw.session().create_object(&template("anchor/99", b"damaged")).unwrap();
        let hsm = opened(&config).await;
        for _ in 0..2 {
            hsm.replace_anchor(&anchor(4)).await.unwrap();
            assert_eq!(labels(&raw), ["anchor/4"]);
            assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(4)));
        }
        hsm.put_anchor(Some(&anchor(4)), &anchor(5)).await.unwrap();
    });
}

#[test]
fn an_anchor_that_cannot_be_read_is_named_and_never_passed_over() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        leave(&raw, &anchor(3));
        let good = value_of(&anchor(9));
        let modifiable = {
            let mut template = template("anchor/9", &good);
            template.retain(|attribute| *attribute != Attribute::Modifiable(false));
            template
        };
        let hsm = opened(&config).await;
        for (damaged, name, why) in [
            (template("anchor/9", b""), "anchor/9", "begin with"),
            (template("anchor/9", good.split_last().unwrap().1), "anchor/9", "one form"),
            (template("anchor/9", &vec![b'x'; 100_000]), "anchor/9", "too long"),
            (template("anchor/8", &good), "anchor/8", "another size"),
            (template("anchor/", &good), "anchor/", "another size"),
            (template("anchor/\u{1b}[2J", &good), "anchor/\\x1b[2J", "another size"),
            (modifiable, "anchor/9", "MODIFIABLE"),
        ] {
            let object = raw.session().create_object(&damaged).unwrap();
            let named = |error: HsmError| match error {
                HsmError::AnchorDamaged { id, problem } => {
                    assert!(problem.contains(why), "{problem}");
                    assert_eq!(id, name);
                }
                other => panic!("{other}"),
            };
            named(hsm.anchor().await.unwrap_err());
            named(hsm.put_anchor(Some(&anchor(3)), &anchor(10)).await.unwrap_err());
            raw.session().destroy_object(object).unwrap();
        }
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(3)));
    });
}

#[test]
fn data_objects_of_others_are_passed_over_and_left_alone() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("vault");
        let raw = Raw::log_in(&store, "vault");
        let good = value_of(&anchor(99));
        let changed = |change: Attribute| {
            let mut template = template("anchor/99", &good);
            template.retain(|attribute| attribute.attribute_type() != change.attribute_type());
            template.push(change);
            template
        };
        let foreign = [
            changed(Attribute::Application(b"another".to_vec())),
            changed(Attribute::Application(b"casemate2".to_vec())),
            changed(Attribute::Label(b"certificate".to_vec())),
            changed(Attribute::Label(b"anchors".to_vec())),
            // Not even a PIN is needed to write this one.
            changed(Attribute::Private(false)),
        ];
        for object in &foreign {
            raw.session().create_object(object).unwrap();
        }
        // Making keys and opening takes no notice of them either.
        let config = store.config("vault");
        assert_eq!(init_keys(&config).unwrap().len(), 4);
        let hsm = opened(&config).await;
        assert_eq!(hsm.anchor().await.unwrap(), None);
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        hsm.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap();
        hsm.replace_anchor(&anchor(1)).await.unwrap();
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(1)));
        assert_eq!(data_objects(&raw).len(), foreign.len() + 1);
    });
}

#[test]
fn an_anchor_destroyed_by_another_session_is_missed_at_once() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = opened(&store.provisioned("vault")).await;
        hsm.put_anchor(None, &anchor(5)).await.unwrap();
        let raw = Raw::log_in(&store, "vault");
        for object in data_objects(&raw) {
            raw.session().destroy_object(object).unwrap();
        }
        assert_eq!(hsm.anchor().await.unwrap(), None);
        let error = hsm.put_anchor(Some(&anchor(5)), &anchor(6)).await.unwrap_err();
        assert!(matches!(error, HsmError::AnchorConflict { expected: Some(5), standing: None }), "{error}");
    });
}

#[test]
fn of_concurrent_puts_from_one_anchor_one_succeeds() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.provisioned("vault");
        config.threads = 4;
        let hsm = Arc::new(opened(&config).await);
        hsm.put_anchor(None, &anchor(0)).await.unwrap();
        // In an order that is neither rising nor falling.
        let puts: Vec<_> = (0..40_u64)
            .map(|n| {
                let (hsm, size) = (Arc::clone(&hsm), 1 + n * 17 % 40);
                tokio::spawn(async move { (size, hsm.put_anchor(Some(&anchor(0)), &anchor(size)).await) })
            })
            .collect();
        let mut stood = Vec::new();
        for put in puts {
            match put.await.unwrap() {
                (size, Ok(())) => stood.push(size),
                (_, Err(HsmError::AnchorWouldShrink { .. } | HsmError::AnchorConflict { .. })) => {}
                (size, Err(other)) => panic!("{size}: {other}"),
            }
        }
        let [won] = stood[..] else { panic!("{stood:?}") };
        assert_eq!(labels(&Raw::log_in(&store, "vault")), [format!("anchor/{won}")]);
    });
}

#[test]
fn an_anchor_put_by_another_handle_is_a_conflict_and_stays() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let (one, other) = (opened(&config).await, opened(&config).await);
        one.put_anchor(None, &anchor(1)).await.unwrap();
        other.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap();
        for last in [Some(anchor(1)), None, Some(anchor(3)), Some(with_root(2, 9))] {
            let error = one.put_anchor(last.as_ref(), &anchor(9)).await.unwrap_err();
            let expected = last.map(|last| last.size());
            assert!(
                matches!(error, HsmError::AnchorConflict { expected: e, standing: Some(2) } if e == expected),
                "{error}"
            );
            assert!(error.to_string().contains("another copy of this appliance"), "{error}");
        }
        assert_eq!(labels(&Raw::log_in(&store, "vault")), ["anchor/2"]);
        other.put_anchor(Some(&anchor(2)), &anchor(3)).await.unwrap();
    });
}

#[test]
fn two_writers_that_have_both_written_before_either_looked_again_both_stop() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let hsm = opened(&config).await;
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        let raw = Raw::log_in(&store, "vault");
        leave(&raw, &anchor(5));
        leave(&raw, &anchor(7));
        // Neither the higher one nor the lower one may take the other away.
        for own in [anchor(5), anchor(7)] {
            hsm.put_anchor(Some(&anchor(1)), &own).await.unwrap_err();
            assert_eq!(labels(&raw), ["anchor/1", "anchor/5", "anchor/7"]);
        }
    });
}

#[test]
fn anchoring_and_the_other_calls_do_not_disturb_each_other() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.provisioned("vault");
        (config.threads, config.queue) = (4, 64);
        let hsm = Arc::new(opened(&config).await);
        let done = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..3)
            .map(|_| {
                let (hsm, done) = (Arc::clone(&hsm), Arc::clone(&done));
                tokio::spawn(async move {
                    let key = Secret32::random().unwrap();
                    while !done.load(Ordering::Relaxed) {
                        hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
                        let entry = hsm.wrap(b"share", &key).await.unwrap();
                        assert_eq!(hsm.unwrap(b"share", &entry).await.unwrap().expose(), key.expose());
                    }
                })
            })
            .collect();
        for size in 0..100 {
            hsm.put_anchor(before(size).as_ref(), &anchor(size)).await.unwrap();
            assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(size)));
        }
        done.store(true, Ordering::Relaxed);
        for other in others {
            other.await.unwrap();
        }
    });
}

#[test]
fn of_two_handles_that_race_from_one_anchor_at_most_one_goes_on() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let handles = [Arc::new(opened(&config).await), Arc::new(opened(&config).await)];
        let (mut standing, mut won) = (anchor(0), 0);
        handles[0].put_anchor(None, &standing).await.unwrap();
        for round in 1..20_u64 {
            let puts = [0, 1].map(|n| (round * 2 + n, Arc::clone(&handles[usize::try_from(n).unwrap()])));
            let puts = puts.map(|(size, hsm)| {
                let last = standing.clone();
                tokio::spawn(async move { (size, hsm.put_anchor(Some(&last), &anchor(size)).await) })
            });
            let mut winner = None;
            for put in puts {
                // SoftHSM itself stumbles over two writers now and then: that must be an error and nothing worse.
                if let (size, Ok(())) = put.await.unwrap() {
                    assert_eq!(winner.replace(size), None, "both went on from {}", standing.size());
                }
            }
            eventually("both are there", || handles.iter().all(|hsm| hsm.state() == HsmState::Ready)).await;
            if let Some(size) = winner {
                won += 1;
                assert!(labels(&Raw::log_in(&store, "vault")).contains(&format!("anchor/{size}")), "{size} is lost");
            }
            // What the loser may have left stands in the way of both; a recovery ends that.
            standing = anchor(round * 2 + 1);
            handles[0].replace_anchor(&standing).await.unwrap();
        }
        assert!(won > 0);
    });
}
