//! Limits on sessions: how many, how long, and what a wait and a stop mean for them.

use std::time::{Duration, Instant};

use hyper::Method;

use crate::support::appliance::Behaviour;
use crate::support::{Lab, Setup, keygen_body};

const KEYGEN: &str = "/api/v1/mpc/keygen";

fn all_silent(lab: &Lab) {
    for appliance in &lab.appliances {
        appliance.behave(Behaviour::Silent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_end_expires_and_a_wait_lasts_no_longer_than_it() {
    let lab = Lab::new(Setup { limits: "session_ttl = 10".into(), ..Setup::default() }).await;
    let coordinator = lab.start().await;
    all_silent(&lab);
    let begun = Instant::now();
    let mut request = coordinator.caller.request(Method::POST, KEYGEN, &keygen_body(2, 3).to_string());
    request.headers_mut().insert("prefer", "wait=1".parse().unwrap());
    let answer = coordinator.caller.send(request).await;
    assert_eq!((answer.status, &answer.body["status"]), (201, &"in_progress".into()));
    assert_eq!(answer.header("preference-applied"), "wait=1");
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(3));

    all_silent(&lab);
    let begun = Instant::now();
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await;
    assert!(begun.elapsed() < Duration::from_secs(12));
    assert_eq!(answer.header("preference-applied"), "wait=10");
    let ended = coordinator.caller.session(&answer.body["session_id"], |s| s["status"] == "expired").await;
    assert_eq!(ended["error"]["code"], "session_expired");
    assert_eq!(ended["error"]["parties"].as_array().unwrap().len(), 3);
    assert!(lab.appliances[0].seen(&ended["session_id"]).ended, "the parties were not told");
    coordinator.key().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sessions_than_may_run_are_told_to_come_back() {
    let lab = Lab::new(Setup { limits: "sessions = 2".into(), ..Setup::default() }).await;
    let coordinator = lab.start().await;
    for _ in 0..2 {
        all_silent(&lab);
        assert_eq!(coordinator.caller.post(KEYGEN, &keygen_body(2, 3)).await.status, 201);
    }
    let answer = coordinator.caller.post(KEYGEN, &keygen_body(2, 3)).await;
    answer.is_problem(503, "overloaded");
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    assert!(coordinator.caller.get("/metrics").await.text.contains("mpc_active_sessions 2"));
    // Leaving them behind: stopping takes its time only while they may still end.
    for mut appliance in lab.appliances {
        appliance.crash().await;
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_answers_those_who_wait() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    all_silent(&lab);
    let caller = coordinator.caller.clone();
    let waiting = tokio::spawn(async move { caller.waiting(KEYGEN, &keygen_body(2, 3)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    coordinator.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let answer = waiting.await.unwrap().body;
    assert_eq!((&answer["status"], &answer["error"]["code"]), (&"failed".into(), &"interrupted".into()));
    let again = lab.start().await;
    let found = again.caller.session(&answer["session_id"], |_| true).await;
    assert_eq!((&found["status"], &found["error"]), (&answer["status"], &answer["error"]));
    again.stop().await;
}
