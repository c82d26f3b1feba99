//! Answer: the outcome goes out on the stream, and whoever waits for the session's end is woken.

use super::record::Recorded;
use crate::session;

/// Releases a recorded outcome. Takes a [`Recorded`], so nothing unrecorded can be released.
pub(super) async fn answer(recorded: Recorded) {
    let (stream, frame, case) = recorded.into_parts();
    // The outcome is durable: who waits for the session may ask now, whether or not the stream still takes it.
    drop(case);
    if let Some(stream) = stream {
        session::finish(stream, frame).await;
    }
}
