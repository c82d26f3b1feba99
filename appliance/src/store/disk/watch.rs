//! The thread that looks at the disk twice a second, so that trouble shows, and passes, without traffic.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Disk;
use super::scrub::Scrub;
use crate::store::StoreError;

/// The time between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Ends its thread when it is dropped.
pub(in crate::store) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches `disk`. After a failed write `trial` is to have the writer write something, if it is idle.
    pub(in crate::store) fn start(disk: Arc<Disk>, trial: impl Fn() + Send + 'static) -> Result<Self, StoreError> {
        let (stop, stopped) = channel();
        let mut scrub = Scrub::of(disk.path().to_owned());
        let look = move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                disk.tend();
                scrub.go_on(&disk);
                if disk.wants_trial() {
                    trial();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-watch".into())
            .spawn(look)
            .map_err(|e| StoreError::Sqlite { doing: "start its watch thread", why: e.to_string() })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(event = "store_watch_panicked", "the thread that watches the store's disk panicked");
        }
    }
}
