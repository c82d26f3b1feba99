//! Bounded queue, bounded time, and threads that end.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_hsm::{Hsm, HsmError, HsmState, KeyPurpose};

use crate::support::{Module, eventually, on_fresh_store};

/// Names of this process' threads that belong to an HSM.
fn hsm_threads() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("hsm-"))
        .collect();
    names.sort();
    names
}

#[test]
fn calls_run_on_named_threads_that_shutdown_joins() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.provisioned("vault");
        config.threads = 3;
        let hsm = Hsm::open(config).await.unwrap();
        hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
        assert_eq!(hsm_threads(), ["hsm-0", "hsm-1", "hsm-2", "hsm-watch"]);
        hsm.shutdown().await.unwrap();
        assert!(hsm_threads().is_empty());
        hsm.shutdown().await.unwrap();
        assert_eq!(hsm.state(), HsmState::Closed);
        let error = hsm.sign(KeyPurpose::Audit, b"message").await.unwrap_err();
        assert!(matches!(error, HsmError::Closed), "{error}");
    });
}

#[test]
fn dropping_the_handle_joins_the_threads() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        assert!(!hsm_threads().is_empty());
        drop(hsm);
        assert!(hsm_threads().is_empty());
    });
}

#[test]
fn a_failed_opening_leaves_no_thread() {
    on_fresh_store(Module::SoftHsm, async |store| {
        Hsm::open(store.config("vault")).await.unwrap_err();
        assert!(hsm_threads().is_empty());
    });
}

#[test]
fn an_opening_that_is_given_up_leaves_no_thread() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        for _ in 0..20 {
            let opening = Hsm::open(config.clone());
            drop(tokio::time::timeout(Duration::from_millis(1), opening).await);
        }
        eventually("the opening threads end", || hsm_threads().is_empty()).await;
    });
}

#[test]
fn many_tasks_at_once_are_all_answered() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.provisioned("vault");
        config.queue = 200;
        let hsm = Arc::new(Hsm::open(config).await.unwrap());
        let tasks: Vec<_> = (0..200_u32)
            .map(|n| {
                let hsm = Arc::clone(&hsm);
                tokio::spawn(async move { hsm.sign(KeyPurpose::Audit, &n.to_be_bytes()).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        (config.threads, config.queue) = (1, 2);
        let hsm = Hsm::open(config).await.unwrap();
        store.break_it("hang");
        let began = Instant::now();
        let calls = (0..6).map(|n| {
            let (hsm, store) = (&hsm, &store);
            async move {
                // The first call must be inside the token before the others come.
                tokio::time::sleep(Duration::from_millis(if n == 0 { 0 } else { 100 })).await;
                let outcome = hsm.sign(KeyPurpose::Audit, b"message").await;
                if n == 5 {
                    store.mend_it("hang");
                }
                outcome
            }
        });
        let outcomes = join_all(calls).await;
        let busy = outcomes.iter().filter(|o| matches!(o, Err(HsmError::Busy))).count();
        let signed = outcomes.iter().filter(|o| o.is_ok()).count();
        assert_eq!((busy, signed), (3, 3), "{outcomes:?}");
        assert!(began.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn a_call_that_takes_too_long_is_given_up_and_later_ones_work() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        (config.threads, config.timeout) = (1, Duration::from_millis(250));
        let hsm = Hsm::open(config).await.unwrap();
        store.break_it("hang");
        let began = Instant::now();
        let error = hsm.sign(KeyPurpose::Audit, b"message").await.unwrap_err();
        assert!(matches!(error, HsmError::Timeout { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2));
        store.mend_it("hang");
        eventually("the thread is free", || hsm.state() == HsmState::Ready).await;
        hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
    });
}

#[test]
fn when_every_thread_is_stuck_the_hsm_is_unavailable() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        config.timeout = Duration::from_millis(200);
        let hsm = Hsm::open(config).await.unwrap();
        store.break_it("hang");
        let stuck = [hsm.sign(KeyPurpose::Audit, b"1"), hsm.sign(KeyPurpose::Audit, b"2")];
        for outcome in join_all(stuck).await {
            assert!(matches!(outcome, Err(HsmError::Timeout { .. })));
        }
        eventually("it is seen", || matches!(hsm.state(), HsmState::Unavailable { .. })).await;
        let began = Instant::now();
        let error = hsm.sign(KeyPurpose::Audit, b"3").await.unwrap_err();
        assert!(matches!(error, HsmError::Unavailable { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_millis(100));
        store.mend_it("hang");
        eventually("it is over", || hsm.state() == HsmState::Ready).await;
        hsm.sign(KeyPurpose::Audit, b"4").await.unwrap();
    });
}

#[test]
fn shutdown_waits_for_a_slow_call_and_names_threads_that_are_stuck() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        config.timeout = Duration::from_millis(500);
        let slow = Hsm::open(config.clone()).await.unwrap();
        store.break_it("slow");
        let (outcome, end) = tokio::join!(slow.sign(KeyPurpose::Audit, b"message"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            slow.shutdown().await
        });
        outcome.unwrap();
        end.unwrap();
        store.mend_it("slow");
        drop(slow);

        config.timeout = Duration::from_millis(100);
        let stuck = Hsm::open(config).await.unwrap();
        store.break_it("hang");
        stuck.sign(KeyPurpose::Audit, b"message").await.unwrap_err();
        let error = stuck.shutdown().await.unwrap_err();
        assert!(matches!(error, HsmError::ThreadsStuck { stuck: 1, .. }), "{error}");
        store.mend_it("hang");
    });
}

#[test]
fn a_call_whose_caller_is_gone_is_not_made() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        config.threads = 1;
        let hsm = Hsm::open(config).await.unwrap();
        store.break_it("slow");
        let began = Instant::now();
        let calls = (0..5).map(|_| tokio::time::timeout(Duration::from_millis(10), hsm.sign(KeyPurpose::Audit, b"m")));
        assert!(join_all(calls).await.iter().all(Result::is_err));
        hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
        // One slow call was under way, and the last one: four more would take 1.2 s.
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

/// Drives futures together on this thread.
async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut running {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if running.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
