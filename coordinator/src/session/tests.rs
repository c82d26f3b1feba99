#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::testing::{self, keygen, sign, start};
use super::*;
use jiff::SignedDuration;

fn statuses(session: &Session) -> Vec<ParticipantStatus> {
    session.participants().iter().map(|p| p.status).collect()
}

fn running() -> Session {
    let mut session = sign();
    for event in [Event::Inviting, Event::Joined(0), Event::Joined(1), Event::Attached(1), Event::Attached(0)] {
        session.apply(event, start()).unwrap();
    }
    session
}

fn finding(session: &Session) -> Finding {
    let mut tally = Tally::default();
    let signature = testing::signature(9, testing::HASH);
    let outcome = Ok(casemate_wire::frame::Outcome::Sign { signature });
    tally.add(Report { party: testing::party(0), outcome });
    tally.conclude(session, testing::pinned).unwrap()
}

#[test]
fn a_session_runs_once_every_party_is_attached() {
    use ParticipantStatus as P;
    let mut session = sign();
    assert_eq!(session.status(), Status::Created);
    session.apply(Event::Inviting, start()).unwrap();
    session.apply(Event::Joined(0), start()).unwrap();
    session.apply(Event::Attached(0), start()).unwrap();
    assert_eq!((session.status(), statuses(&session)), (Status::Waiting, vec![P::Ready, P::Invited]));
    session.apply(Event::Joined(1), start()).unwrap();
    session.apply(Event::Attached(1), start()).unwrap();
    assert_eq!((session.status(), statuses(&session)), (Status::InProgress, vec![P::Computing; 2]));
    session.apply(Event::Finished(0), start()).unwrap();
    session.apply(Event::Dropped(1), start()).unwrap();
    assert_eq!(statuses(&session), [P::Completed, P::Failed]);
}

#[test]
fn a_session_completes_only_from_in_progress() {
    let finding = finding(&sign());
    let mut waiting = sign();
    assert!(waiting.apply(Event::Completed(finding.clone().into()), start()).is_err());
    waiting.apply(Event::Inviting, start()).unwrap();
    assert!(waiting.apply(Event::Completed(finding.clone().into()), start()).is_err());
    assert!(waiting.finding().is_none());
    let mut running = running();
    running.apply(Event::Completed(finding.into()), start()).unwrap();
    assert_eq!(running.status(), Status::Completed);
    assert_eq!(running.ended_at(), Some(start()));
}

#[test]
fn what_has_ended_takes_no_event() {
    let problem = Problem::new(Code::Internal, "x");
    let mut completed = running();
    completed.apply(Event::Completed(finding(&completed).into()), start()).unwrap();
    let mut failed = sign();
    failed.apply(Event::Failed(problem.clone()), start()).unwrap();
    let mut expired = sign();
    expired.apply(Event::Expired, start()).unwrap();
    for session in [completed, failed, expired] {
        for event in [
            Event::Inviting,
            Event::Joined(0),
            Event::Attached(0),
            Event::Finished(0),
            Event::Dropped(0),
            Event::Completed(finding(&session).into()),
            Event::Failed(problem.clone()),
            Event::Expired,
        ] {
            let mut after = session.clone();
            assert!(after.apply(event.clone(), start()).is_err(), "{event:?}");
            assert_eq!(after.status(), session.status());
            assert_eq!(statuses(&after), statuses(&session));
        }
    }
}

#[test]
fn events_out_of_order_or_from_nobody_change_nothing() {
    let mut session = sign();
    assert!(session.apply(Event::Joined(0), start()).is_err());
    session.apply(Event::Inviting, start()).unwrap();
    for event in [Event::Attached(0), Event::Finished(0), Event::Joined(2), Event::Dropped(9), Event::Inviting] {
        assert!(session.apply(event.clone(), start()).is_err(), "{event:?}");
    }
    session.apply(Event::Joined(0), start()).unwrap();
    assert!(session.apply(Event::Joined(0), start()).is_err());
    assert_eq!(session.status(), Status::Waiting);
}

#[test]
fn a_session_is_due_at_its_expiry_and_names_who_was_missing() {
    let mut session = running();
    let last = start() + SignedDuration::from_secs(599);
    assert!(!session.is_due(last));
    let expiry = last + SignedDuration::from_secs(1);
    assert!(session.is_due(expiry));
    session.apply(Event::Finished(0), last).unwrap();
    session.apply(Event::Expired, expiry).unwrap();
    assert!(!session.is_due(expiry));
    let error = session.error().unwrap();
    assert_eq!(error.code, Code::SessionExpired);
    assert_eq!(error.more["parties"], serde_json::json!(["party-2"]));
    assert!(error.detail.starts_with("sign failed: timeout"), "{}", error.detail);
}

#[test]
fn a_session_survives_its_encoding() {
    for session in [keygen(), running()] {
        let text = serde_json::to_string(&session).unwrap();
        let back: Session = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}

#[test]
fn the_table_admits_only_so_many_and_none_once_it_is_closed() {
    let table = Table::new(2);
    let first = table.admit(&sign()).unwrap();
    let _second = table.admit(&sign()).unwrap();
    let refused = table.admit(&sign()).err().unwrap();
    assert_eq!(refused.code, Code::Overloaded);
    drop(first);
    assert!(table.admit(&sign()).is_ok());
    table.close();
    assert_eq!(table.admit(&sign()).err().unwrap().code, Code::Overloaded);
}

#[tokio::test]
async fn the_sweep_stops_only_sessions_whose_time_is_up() {
    let table = Table::new(2);
    let mut due = table.admit(&sign()).unwrap();
    let mut later = table.admit(&testing::keygen_that_expires(start() + SignedDuration::from_hours(1))).unwrap();
    table.sweep(start() + SignedDuration::from_mins(10));
    let stop: Event = due.stopped().await.into();
    assert!(matches!(stop, Event::Expired));
    let patience = std::time::Duration::from_millis(20);
    assert!(tokio::time::timeout(patience, later.stopped()).await.is_err());
    table.interrupt();
    let stop: Event = later.stopped().await.into();
    assert!(matches!(stop, Event::Failed(problem) if problem.code == Code::Interrupted));
}
