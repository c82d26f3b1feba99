//! The frames that wait for one party of one session: bounded by bytes, shared by reference, sent as a request body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// Charged for every frame besides its bytes, so that tiny frames are bounded too.
const OVERHEAD: usize = 128;

/// The end at which frames are put in. Dropping it ends the request body once what waits has been sent.
pub(crate) struct Queue {
    frames: mpsc::UnboundedSender<Bytes>,
    held: Arc<AtomicUsize>,
    limit: usize,
}

/// The end from which HTTP takes them.
pub(crate) struct Waiting {
    frames: mpsc::UnboundedReceiver<Bytes>,
    held: Arc<AtomicUsize>,
}

/// The party takes its frames too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// A queue that holds at most `limit` bytes.
pub(crate) fn queue(limit: usize) -> (Queue, Waiting) {
    let (put, take) = mpsc::unbounded_channel();
    let held = Arc::new(AtomicUsize::new(0));
    let queue = Queue { frames: put, held: Arc::clone(&held), limit };
    (queue, Waiting { frames: take, held })
}

impl Queue {
    /// Adds a frame, without waiting. A party that is gone takes nothing, which is no fault of the sender.
    ///
    /// # Errors
    /// The queue is full.
    pub(crate) fn put(&self, frame: Bytes) -> Result<(), Full> {
        let charge = frame.len() + OVERHEAD;
        let held = self.held.fetch_add(charge, Ordering::Relaxed);
        if held + charge > self.limit + OVERHEAD {
            self.held.fetch_sub(charge, Ordering::Relaxed);
            return Err(Full);
        }
        // The party's own task reports that it is gone.
        let _: Result<(), _> = self.frames.send(frame);
        Ok(())
    }
}

impl Body for Waiting {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = std::task::ready!(self.frames.poll_recv(context));
        Poll::Ready(next.map(|bytes| {
            self.held.fetch_sub(bytes.len() + OVERHEAD, Ordering::Relaxed);
            Ok(Frame::data(bytes))
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_full_queue_refuses_until_something_is_taken() {
        let (queue, mut waiting) = queue(1000);
        let frame = Bytes::from(vec![1; 600]);
        assert_eq!(queue.put(frame.clone()), Ok(()));
        assert_eq!(queue.put(frame.clone()), Err(Full));
        assert_eq!(waiting.frame().await.unwrap().unwrap().into_data().unwrap(), frame);
        assert_eq!(queue.put(frame), Ok(()));
    }

    #[tokio::test]
    async fn tiny_frames_are_bounded_too() {
        let (queue, _waiting) = queue(100_000);
        let taken = (0..100_000).take_while(|_| queue.put(Bytes::from_static(b"x")).is_ok()).count();
        assert!(taken < 1000, "{taken}");
    }

    #[tokio::test]
    async fn the_body_ends_after_what_waits_once_the_queue_is_dropped() {
        let (queue, waiting) = queue(1000);
        queue.put(Bytes::from_static(b"last")).unwrap();
        drop(queue);
        assert_eq!(waiting.collect().await.unwrap().to_bytes(), "last");
    }
}
