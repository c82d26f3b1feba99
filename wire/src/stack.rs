//! Secrets leave copies on the stack: ciphers, curve arithmetic and moves of values put them there, and no type wipes what
//! it has left behind in a frame that is gone. Threads that live as long as the daemon would keep them.
//!
//! It stands here because rooms that hold secrets (`mpc`, `hsm`, `appliance`) know each other by this one alone.

use std::hint::black_box;

/// How deep below its caller [`wiped`] overwrites the stack. The deepest work that is run so (a signature in a build without
/// optimisation, GMP's scratch space) uses half of it; threads have 2 MiB.
const DEPTH: usize = 256 * 1024;

/// Does some work, then overwrites the stack that it has used, also if it panics.
///
/// # Security
/// What the work returns is not wiped, and work that it hands to other threads leaves its copies there. Work that goes
/// deeper than 256 KiB leaves copies below that.
pub fn wiped<T>(work: impl FnOnce() -> T) -> T {
    let panicked = OnPanic;
    let outcome = below(work);
    overwrite();
    drop(panicked);
    outcome
}

struct OnPanic;

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            overwrite();
        }
    }
}

/// Never a part of its caller's frame, so that what it uses lies where [`overwrite`] writes.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Overwrites the stack below the caller.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "to cover the stack is what it is for")]
pub fn overwrite() {
    #[cfg(debug_assertions)]
    if for_tests::KEPT.load(std::sync::atomic::Ordering::Relaxed) {
        return;
    }
    let mut area = [0_u8; DEPTH];
    // The compiler must believe that somebody reads the zeros.
    black_box(&mut area);
}

/// Not part of release builds.
#[cfg(debug_assertions)]
mod for_tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(super) static KEPT: AtomicBool = AtomicBool::new(false);

    /// From now on nothing is overwritten, so that a test can show what would be found. Release builds do not have it.
    pub fn keep() {
        KEPT.store(true, Ordering::Relaxed);
    }
}

#[cfg(debug_assertions)]
pub use for_tests::keep;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::large_stack_arrays, clippy::naive_bytecount)]

    use std::cell::Cell;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Leaves a secret on the stack, deeper than the frames of what looks at it afterwards; where.
    #[inline(never)]
    fn work() -> u64 {
        let padding = black_box([0_u8; 32 * 1024]);
        let address = leave_secret();
        black_box(&padding);
        address
    }

    #[inline(never)]
    fn leave_secret() -> u64 {
        let mut secret = [0x5A_u8; 64];
        black_box(&mut secret).as_ptr().addr() as u64
    }

    /// How much of the secret stands there now. Nothing of a frame that is gone can be read in another way without
    /// `unsafe`.
    fn left(address: u64) -> usize {
        let mut bytes = [0; 64];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, address).unwrap();
        bytes.iter().filter(|byte| **byte == 0x5A).count()
    }

    #[test]
    fn work_leaves_its_secrets_on_the_stack_unless_it_is_wiped() {
        // The frames that end after it take a few bytes.
        assert!(left(below(work)) > 32);
        assert_eq!(left(wiped(work)), 0);
    }

    #[test]
    fn work_that_panics_is_wiped_too() {
        let address = Cell::new(0);
        let panicking = || {
            wiped(|| {
                address.set(work());
                panic!("on purpose");
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert_eq!(left(address.get()), 0);
    }
}
