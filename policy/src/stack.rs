//! Threads with one large stack, for everything that recurses over a policy.

use std::thread;

/// Bytes of stack. Parsing, validation and evaluation all get the same: a rule that loads on a large stack and fails on a
/// small one would be skipped by the evaluator. Only pages that are touched take memory.
const STACK: usize = 64 * 1024 * 1024;

/// Why the work did not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StackError {
    /// The operating system gave no thread.
    #[error("no thread could be started for the policy evaluator: {0}")]
    NoThread(String),
    /// The work panicked. The panic ends here.
    #[error("the policy evaluator failed on this input")]
    Panicked,
}

/// Runs `work` on a thread of its own with the large stack and waits for it.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, StackError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("policy".into())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| StackError::NoThread(error.to_string()))?
            .join()
            .map_err(|_| StackError::Panicked)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_ends_as_an_error() {
        let outcome: Result<(), _> = on_large_stack(|| panic!("evaluator bug"));
        assert_eq!(outcome, Err(StackError::Panicked));
        assert_eq!(on_large_stack(|| 7), Ok(7));
    }
}
