//! The bounded queue between callers and worker threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A bounded queue with many producers and consumers.
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
    capacity: usize,
}

struct Waiting<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let waiting = Waiting { items: VecDeque::with_capacity(capacity), closed: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new(), capacity }
    }

    /// Adds an item, or refuses it at once. Before it refuses for lack of room, it drops items that nobody wants
    /// any more.
    pub(crate) fn push(&self, item: T, unwanted: impl Fn(&T) -> bool) -> Result<(), NotTaken> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotTaken::Closed);
        }
        if waiting.items.len() >= self.capacity {
            waiting.items.retain(|item| !unwanted(item));
        }
        if waiting.items.len() >= self.capacity {
            return Err(NotTaken::Full);
        }
        waiting.items.push_back(item);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next item; `None` once the queue is closed.
    pub(crate) fn next(&self) -> Option<T> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(item) = waiting.items.pop_front() {
                return Some(item);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes the queue and drops what waits in it.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let dropped = std::mem::take(&mut waiting.items);
        drop(waiting);
        drop(dropped);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn items_leave_in_the_order_they_came() {
        let queue = Queue::new(2);
        queue.push(1, |_| false).unwrap();
        queue.push(2, |_| false).unwrap();
        assert_eq!((queue.next(), queue.next()), (Some(1), Some(2)));
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let queue = Queue::new(1);
        queue.push(1, |_| false).unwrap();
        assert_eq!(queue.push(2, |_| false), Err(NotTaken::Full));
    }

    #[test]
    fn unwanted_items_make_room() {
        let queue = Queue::new(2);
        queue.push(1, |_| false).unwrap();
        queue.push(2, |_| false).unwrap();
        queue.push(3, |item| *item == 1).unwrap();
        assert_eq!((queue.next(), queue.next()), (Some(2), Some(3)));
    }

    #[test]
    fn closing_wakes_those_who_wait_and_refuses_new_items() {
        let queue = Queue::<u8>::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next());
            queue.close();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert_eq!(queue.push(1, |_| false), Err(NotTaken::Closed));
    }
}
