//! Progress for people: what is being done, how long that usually takes, how it went. Also keeps the timings.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

/// How often a line is written where it cannot be rewritten in place.
const REPEAT: Duration = Duration::from_secs(20);

/// Where progress is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, for people.
    Stdout,
    /// Standard error, since something else stands on standard output.
    Stderr,
}

/// Shows the steps of a job, one after the other.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    in_place: bool,
    steps: usize,
    begun: usize,
    step: Option<Step>,
    timings: BTreeMap<&'static str, f64>,
    start: Instant,
}

#[derive(Debug)]
struct Step {
    key: &'static str,
    start: Instant,
    detail: String,
    written: Instant,
}

impl Progress {
    /// For a job of so many steps.
    pub fn new(output: Output, steps: usize) -> Self {
        let in_place = match output {
            Output::Stdout => io::stdout().is_terminal(),
            Output::Stderr => io::stderr().is_terminal(),
        };
        Self { output, in_place, steps, begun: 0, step: None, timings: BTreeMap::new(), start: Instant::now() }
    }

    /// Begins a step; its time is kept under `key`.
    pub fn begin(&mut self, key: &'static str, title: &str) {
        self.begun += 1;
        let now = Instant::now();
        self.step = Some(Step { key, start: now, detail: String::new(), written: now });
        self.write(&format!("[{}/{}] {title}\n", self.begun, self.steps));
    }

    /// Says how far the step is.
    pub fn detail(&mut self, detail: &str) {
        if let Some(step) = &mut self.step
            && step.detail != detail
        {
            detail.clone_into(&mut step.detail);
            self.show(true);
        }
    }

    /// Waits for a piece of work, and shows the time that passes.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = tick.tick() => self.show(false),
            }
        }
    }

    /// Ends the step, and says what came of it, a line for each.
    pub fn done(&mut self, results: &[&str]) {
        let Some(step) = self.step.take() else { return };
        let seconds = step.start.elapsed().as_secs_f64();
        self.timings.insert(step.key, rounded(seconds));
        self.erase();
        for line in results {
            self.write(&format!("      {line}\n"));
        }
        self.write(&format!("      ok, {seconds:.1} s\n"));
    }

    /// Says something between or after the steps.
    pub fn say(&mut self, line: &str) {
        self.erase();
        self.write(&format!("{line}\n"));
    }

    /// Seconds of each step by its key, and of all together as `total`.
    pub fn timings(&self) -> BTreeMap<&'static str, f64> {
        let mut timings = self.timings.clone();
        timings.insert("total", rounded(self.start.elapsed().as_secs_f64()));
        timings
    }

    fn show(&mut self, changed: bool) {
        let (in_place, now) = (self.in_place, Instant::now());
        let Some(step) = &mut self.step else { return };
        let seconds = (now - step.start).as_secs();
        let what = if step.detail.is_empty() { "at it" } else { &step.detail };
        let line = format!("      {what} ({seconds} s)");
        if in_place {
            self.write(&format!("\r\x1b[K{line}"));
        } else if changed || now - step.written >= REPEAT {
            step.written = now;
            self.write(&format!("{line}\n"));
        }
    }

    fn erase(&mut self) {
        if self.in_place {
            self.write("\r\x1b[K");
        }
    }

    /// Nobody may be reading; the job goes on all the same.
    fn write(&mut self, text: &str) {
        fn put(mut output: impl Write, text: &str) -> io::Result<()> {
            output.write_all(text.as_bytes())?;
            output.flush()
        }
        drop(match self.output {
            Output::Stdout => put(io::stdout(), text),
            Output::Stderr => put(io::stderr(), text),
        });
    }
}

impl Drop for Progress {
    /// A step that is not done has failed; the reason is printed by whoever asked for it.
    fn drop(&mut self) {
        if let Some(step) = self.step.take() {
            self.erase();
            self.write(&format!("      not done after {:.1} s\n", step.start.elapsed().as_secs_f64()));
        }
    }
}

/// Whole milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn each_step_has_its_time_and_all_together_have_theirs() {
        let mut progress = Progress::new(Output::Stderr, 2);
        progress.begin("first", "doing the first thing");
        std::thread::sleep(Duration::from_millis(20));
        progress.done(&[]);
        progress.begin("second", "doing the second thing");
        progress.done(&["that is that"]);
        let timings = progress.timings();
        assert_eq!(timings.keys().copied().collect::<Vec<_>>(), ["first", "second", "total"]);
        assert!(timings["first"] >= 0.02 && timings["total"] >= timings["first"] + timings["second"] - 0.002);
    }
}
