//! How far a long audit has come, on standard error: nothing in the first second, and nothing that is in the way of results.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often it speaks.
const TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(10);
/// Steps between two looks at the clock.
const STEPS: u64 = 256;

pub(super) struct Progress {
    what: &'static str,
    done: u64,
    next: Instant,
    terminal: bool,
    spoke: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what, done: 0, next: Instant::now() + TERMINAL, terminal, spoke: false }
    }

    pub(super) fn step(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(STEPS) && Instant::now() >= self.next {
            let end = if self.terminal { "\r" } else { "\n" };
            // Nobody may be listening.
            let _ = write!(std::io::stderr(), "casemate: {} {} ...{end}", self.done, self.what);
            self.next = Instant::now() + if self.terminal { TERMINAL } else { ELSEWHERE };
            self.spoke = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.spoke && self.terminal {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
