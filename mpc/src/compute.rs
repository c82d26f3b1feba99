//! Long computations, spread over the cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use casemate_wire::stack;
use tokio::sync::oneshot;

use crate::engine::lower_priority;
use crate::error::MpcError;

/// A handle to the pool of `mpc-compute-*` threads. Cheap to clone.
///
/// A session's own thread must not be held for more than about 100 ms at a time; whatever takes longer goes here.
#[derive(Clone)]
pub struct Compute {
    pool: Arc<rayon::ThreadPool>,
}

impl Compute {
    /// Starts a pool of `threads` threads at lowered priority.
    ///
    /// # Errors
    /// [`MpcError::Threads`] if the system refuses the threads.
    pub fn start(threads: usize) -> Result<Self, MpcError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("mpc-compute-{index}"))
            .start_handler(|_| lower_priority())
            .build()
            .map_err(|error| MpcError::Threads(std::io::Error::other(error)))?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Runs `work` on the pool and waits for it without holding the caller's thread. Several at once run side by side,
    /// and rayon's parallel iterators inside `work` use this pool.
    ///
    /// Dropping the returned future does not stop work that has begun; its result is discarded.
    ///
    /// # Errors
    /// [`MpcError::Panicked`] if `work` panics.
    pub async fn run<T, W>(&self, work: W) -> Result<T, MpcError>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        self.pool.spawn(move || {
            if done.is_closed() {
                return;
            }
            let result = stack::wiped(|| catch_unwind(AssertUnwindSafe(work)));
            // Parts of the work may have run on the pool's other threads.
            rayon::spawn_broadcast(|_| stack::overwrite());
            if let Ok(value) = result {
                // The session may have ended meanwhile; then nobody needs the value.
                drop(done.send(value));
            }
        });
        outcome.await.map_err(|_| MpcError::Panicked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[tokio::test]
    async fn a_panic_in_the_pool_is_an_error_and_the_pool_lives_on() {
        let compute = Compute::start(1).expect("threads");
        let failed: Result<(), _> = compute.run(|| panic!("on purpose")).await;
        assert!(matches!(failed, Err(MpcError::Panicked)));
        assert_eq!(compute.run(|| 6 * 7).await.expect("the pool still works"), 42);
    }

    #[tokio::test]
    async fn the_pool_runs_below_the_daemons_priority() {
        let compute = Compute::start(1).expect("threads");
        let own = rustix::process::getpriority_process(None).expect("own priority");
        let pool = compute
            .run(|| rustix::process::getpriority_process(Some(rustix::thread::gettid())).expect("priority"))
            .await
            .expect("runs");
        assert!(pool > own || pool == 19, "pool at {pool}, process at {own}");
    }
}
