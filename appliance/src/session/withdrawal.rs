//! What stops a session whose share is withdrawn.

use tokio::sync::watch;

use super::Failure;

/// Tells a session that an operator has withdrawn the share that it uses. It never takes that back.
#[derive(Debug, Clone)]
pub struct Withdrawal(watch::Receiver<bool>);

impl Withdrawal {
    pub(super) fn channel() -> (watch::Sender<bool>, Self) {
        let (withdraw, told) = watch::channel(false);
        (withdraw, Self(told))
    }

    pub(super) fn of(withdraw: &watch::Sender<bool>) -> Self {
        Self(withdraw.subscribe())
    }

    /// Returns once the share is withdrawn, and not before. May be dropped and asked again.
    pub async fn comes(&mut self) {
        if self.0.wait_for(|withdrawn| *withdrawn).await.is_err() {
            // Nobody is left who could withdraw it.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the session may go on.
    ///
    /// # Errors
    /// The share was withdrawn.
    pub fn check(&self) -> Result<(), Failure> {
        if *self.0.borrow() { Err(Failure::withdrawn()) } else { Ok(()) }
    }
}
